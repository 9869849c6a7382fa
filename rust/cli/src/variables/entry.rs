//! One variable with its value, and where that comes from.

use flagcx_p2p::internals::config::{Config, Files, Origin, Variable};
use serde::Serialize;

const MAX_INLINE: &str = "FLAGCX_P2P_MAX_INLINE";
const USE_INLINE: &str = "FLAGCX_IB_USE_INLINE";

/// A variable as it is in effect. Only what is in the environment or a configuration file is shown: never the content of a
/// file that a variable names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Entry {
    pub(super) name: &'static str,
    /// What is in effect: the text as set, else the default.
    pub(super) value: String,
    /// `environment`, the file, `default`, or the variable that counts instead with its origin.
    pub(super) origin: String,
    pub(super) default: String,
    pub(super) range: String,
    pub(super) unit: &'static str,
    pub(super) meaning: &'static str,
    pub(super) when: &'static str,
    pub(super) read_by: &'static str,
    /// With a wrong value no engine opens.
    pub(super) refuses: bool,
    /// What is wrong with the text that it was set to.
    pub(super) wrong: Option<String>,
}

impl Entry {
    pub(super) fn of(variable: &Variable, config: &Config, files: &Files) -> Self {
        let default = variable.default_text();
        let warning = config.warnings().iter().find(|warning| warning.variable == variable.name);
        let in_effect = |name: &str| {
            let rejected =
                config.warnings().iter().any(|warning| warning.variable == name && warning.rejected);
            text_of(config, name).filter(|_| !rejected)
        };
        let (value, origin) = if let Some(text) = in_effect(variable.name) {
            (text, origin(files, variable.name))
        } else if let Some(text) = in_effect(variable.fallback) {
            (text, format!("{}, {}", variable.fallback, origin(files, variable.fallback)))
        } else if variable.name == MAX_INLINE && config.max_inline == 0 {
            // The one variable that another one changes without naming the value.
            ("0".to_owned(), format!("{USE_INLINE}, {}", origin(files, USE_INLINE)))
        } else {
            (default.clone(), "default".to_owned())
        };
        Self {
            name: variable.name,
            value,
            origin,
            default,
            range: variable.range_text(),
            unit: variable.unit,
            meaning: variable.changes,
            when: variable.when,
            read_by: variable.read_by,
            refuses: variable.refuses,
            wrong: warning.map(|warning| warning.text.clone()),
        }
    }
}

/// The text that a variable was set to.
fn text_of(config: &Config, name: &str) -> Option<String> {
    config.settings().iter().find(|setting| setting.variable.name == name)?.text.clone()
}

/// The file that a variable is set in, or `environment`.
pub(crate) fn origin(files: &Files, name: &str) -> String {
    match files.find(name) {
        Some((_, Origin::File(path))) => path.display().to_string(),
        _ => "environment".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use flagcx_p2p::internals::config::groups;

    use super::*;

    /// The entry of `name` where the configuration file has these lines.
    fn entry(name: &str, lines: &str) -> Entry {
        let mut files = Files::default();
        files.add(Path::new("/etc/flagcx.conf"), lines);
        let config = Config::from_source(&|name| files.layered(name));
        let variable =
            groups().into_iter().flat_map(|group| group.variables).find(|variable| variable.name == name);
        Entry::of(variable.unwrap(), &config, &files)
    }

    fn shown(entry: &Entry) -> (&str, &str, bool) {
        (&entry.value, &entry.origin, entry.wrong.is_some())
    }

    #[test]
    fn values_and_their_origins() {
        let name = "FLAGCX_P2P_QPS_PER_CONN";
        assert_eq!(shown(&entry(name, "")), ("4", "default", false));
        assert_eq!(shown(&entry(name, "FLAGCX_P2P_QPS_PER_CONN=2")), ("2", "/etc/flagcx.conf", false));
        let wrong = entry(name, "FLAGCX_P2P_QPS_PER_CONN=99");
        assert_eq!(shown(&wrong), ("4", "default", true));
        assert!(wrong.wrong.unwrap().contains("outside 1..8"));
        let rest = entry(name, "FLAGCX_P2P_QPS_PER_CONN=2 of them");
        assert_eq!(shown(&rest), ("2 of them", "/etc/flagcx.conf", true), "read as 2, and said so");
    }

    #[test]
    fn a_fallback_counts_where_the_variable_is_unset() {
        let name = "FLAGCX_P2P_IB_TC";
        assert_eq!(shown(&entry(name, "FLAGCX_IB_TC=106")), ("106", "FLAGCX_IB_TC, /etc/flagcx.conf", false));
        assert_eq!(
            shown(&entry(name, "FLAGCX_IB_TC=106\nFLAGCX_P2P_IB_TC=5")),
            ("5", "/etc/flagcx.conf", false)
        );
        assert_eq!(shown(&entry(name, "FLAGCX_IB_TC=1000")), ("-1", "default", false));
        let inline = entry(MAX_INLINE, "FLAGCX_IB_USE_INLINE=0");
        assert_eq!(shown(&inline), ("0", "FLAGCX_IB_USE_INLINE, /etc/flagcx.conf", false));
        assert_eq!(shown(&entry(MAX_INLINE, "FLAGCX_IB_USE_INLINE=1")), ("64", "default", false));
    }
}
