//! The variables as text, and as JSON.

use flagcx_p2p::internals::config::{Config, Files, RETIRED};

use super::entry::Entry;
use crate::output::{self, colour};

type Groups = [(&'static str, Vec<Entry>)];

/// One list of objects.
pub(super) fn json(groups: &Groups) {
    let entries: Vec<_> = groups.iter().flat_map(|(_, entries)| entries).collect();
    output::json(&entries);
}

/// A line for the value and one for the meaning; `all` adds what else is known.
pub(super) fn text(groups: &Groups, all: bool) {
    for (at, (title, entries)) in groups.iter().enumerate() {
        if at > 0 {
            output::line("");
        }
        output::line(title);
        for entry in entries {
            for line in lines(entry, all) {
                output::line(&line);
            }
        }
    }
}

fn lines(entry: &Entry, all: bool) -> Vec<String> {
    let Entry { name, value, origin, default, range, unit, meaning, .. } = entry;
    // An unset text has no value: its default says what that means.
    let (value, unit) = match (value.strip_prefix("unset: "), *unit) {
        (Some(_), _) => ("(unset)", String::new()),
        (None, "") => (value.as_str(), String::new()),
        (None, unit) => (value.as_str(), format!(" {unit}")),
    };
    let first = match (origin.as_str(), default.strip_prefix("unset: ")) {
        ("default", Some(means)) => format!("  {name} = {value}   [default: {means}; {range}]"),
        ("default", None) => format!("  {name} = {value}{unit}   [default; {range}]"),
        _ => {
            format!("  {name} = {}{unit}   [{origin}; default {default}; {range}]", colour::paint(value, "1"))
        }
    };
    let mut lines = vec![first];
    if let Some(wrong) = &entry.wrong {
        lines.push(format!("      {}: {wrong}", colour::paint("wrong", "1;31")));
    }
    lines.push(format!("      {meaning}"));
    if all {
        lines.push(format!("      When to set it: {}", entry.when));
        lines.push(format!("      Read by: {}", entry.read_by));
        if entry.refuses {
            lines.push("      With a wrong value no engine opens.".to_owned());
        }
    }
    lines
}

/// Names that are set and that nothing reads.
pub(super) fn remarks(config: &Config, files: &Files) {
    let is_retired = |name: &str| RETIRED.iter().any(|(retired, _)| *retired == name);
    let retired = config
        .warnings()
        .iter()
        .filter(|warning| is_retired(warning.variable))
        .map(|warning| warning.text.clone());
    let remarks: Vec<_> = retired.chain(files.unknown_names()).collect();
    if !remarks.is_empty() {
        output::line("\nSet without an effect");
    }
    for remark in remarks {
        output::line(&format!("  {}: {remark}", colour::paint("wrong", "1;31")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_value_is_marked_and_an_unset_text_is_no_value() {
        let mut entry = Entry {
            name: "NAME",
            value: "unset: chosen".to_owned(),
            origin: "default".to_owned(),
            default: "unset: chosen".to_owned(),
            range: "path".to_owned(),
            unit: "ms",
            meaning: "Means it.",
            when: "Often.",
            read_by: "core",
            refuses: true,
            wrong: None,
        };
        assert_eq!(lines(&entry, false), ["  NAME = (unset)   [default: chosen; path]", "      Means it."]);
        entry.wrong = Some("not that".to_owned());
        let all = lines(&entry, true);
        assert_eq!(all[1], "      wrong: not that");
        assert_eq!(all.last().unwrap(), "      With a wrong value no engine opens.");
    }
}
