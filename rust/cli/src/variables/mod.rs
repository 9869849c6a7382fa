//! `config`: every variable with its value, from the table that the parser and docs/configuration.md have.

mod entry;
mod report;

use flagcx_p2p::internals::config::{self, Files, RETIRED, closest_variable, groups};

use crate::error::{CliError, Result};

use entry::Entry;
pub(crate) use entry::origin;

/// `flagcx-p2p config`.
#[derive(Clone, Debug)]
pub(crate) struct ConfigOptions {
    /// The variables to show; empty for every one.
    pub(crate) names: Vec<String>,
    /// Print JSON.
    pub(crate) json: bool,
}

/// Runs `config`. Wrong values are marked, and are no failure.
pub(crate) fn run(options: &ConfigOptions) -> Result<()> {
    for name in &options.names {
        check(name)?;
    }
    let (config, files) = (config::global(), Files::load());
    let wanted =
        |name: &str| options.names.is_empty() || options.names.iter().any(|known| is_name(known, name));
    let groups = groups();
    let of_groups = groups.iter().map(|group| {
        let variables = group.variables.iter().filter(|variable| wanted(variable.name));
        (group.title, variables.map(|variable| Entry::of(variable, config, &files)).collect::<Vec<_>>())
    });
    let of_groups: Vec<_> = of_groups.filter(|(_, entries)| !entries.is_empty()).collect();
    if options.json {
        report::json(&of_groups);
    } else {
        report::text(&of_groups, !options.names.is_empty());
        if options.names.is_empty() {
            report::remarks(config, &files);
        }
    }
    Ok(())
}

/// A name with or without its prefix, in any case.
fn is_name(given: &str, name: &str) -> bool {
    let short = |name: &str| name.to_ascii_uppercase().replace("FLAGCX_P2P_", "").replace("FLAGCX_", "");
    given.eq_ignore_ascii_case(name)
        || (!given.to_ascii_uppercase().starts_with("FLAGCX") && short(given) == short(name))
}

fn check(name: &str) -> Result<()> {
    let known =
        groups().into_iter().flat_map(|group| group.variables).any(|variable| is_name(name, variable.name));
    if known {
        return Ok(());
    }
    if let Some((name, reason)) = RETIRED.iter().find(|(retired, _)| retired.eq_ignore_ascii_case(name)) {
        return Err(CliError::usage(format!("{name} has no effect: {reason}")));
    }
    let meant = closest_variable(&name.to_ascii_uppercase())
        .map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
    Err(CliError::usage(format!("{name} is not a variable of this engine{meant}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_corrected() {
        for name in ["FLAGCX_P2P_FABRIC", "flagcx_p2p_fabric", "fabric", "DEBUG"] {
            check(name).unwrap();
        }
        let error = check("FLAGCX_P2P_FABRC").unwrap_err();
        assert!(error.to_string().contains("did you mean FLAGCX_P2P_FABRIC?"), "{error}");
        assert_eq!(error.exit_code(), 2);
        assert!(check("FLAGCX_IB_MERGE_NICS").unwrap_err().to_string().contains("has no effect"));
        assert!(!check("nonsense").unwrap_err().to_string().contains("mean"));
        assert!(!is_name("FLAGCX_FABRIC", "FLAGCX_P2P_FABRIC"), "a full name is one");
    }
}
