//! The settings that differ from their defaults, and what is wrong with any.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use flagcx_p2p::internals::config::{Config, Files, Severity};

use super::finding::Report;
use crate::variables::origin;

/// Reports them.
pub(super) fn report(config: &Config, files: &Files, report: &mut Report) {
    let set: Vec<_> = config
        .settings()
        .iter()
        .filter_map(|setting| Some((setting.variable.name, setting.text.as_ref()?)))
        .collect();
    if set.is_empty() {
        report.ok("settings", "settings", "every variable has its default (flagcx-p2p config lists them)");
    }
    let complaints: Vec<_> = config.warnings().iter().map(|warning| warning.variable).collect();
    for (name, text) in set.iter().filter(|(name, _)| !complaints.contains(name)) {
        report.ok("setting", *name, format!("{text} ({})", origin(files, name)));
    }
    for warning in config.warnings() {
        let action = format!("flagcx-p2p config {} shows its range", warning.variable);
        match warning.severity {
            Severity::Fatal => {
                report.fail("setting", warning.variable, format!("{}; no engine opens", warning.text), action)
            }
            Severity::Warn | Severity::Info => {
                report.warn("setting", warning.variable, warning.text.clone(), action)
            }
        }
    }
    for unknown in files.unknown_names() {
        report.warn(
            "unknown-setting",
            "settings",
            unknown,
            "correct or unset it; flagcx-p2p config lists the variables",
        );
    }
    if let Some(path) = &config.auth_key_file {
        match config.auth_key() {
            Ok(_) if mode(path) & 0o077 != 0 => report.warn(
                "key-file",
                "pre-shared key",
                format!("{} is readable or writable by other users (mode {:o})", path.display(), mode(path)),
                format!("chmod 600 {}", path.display()),
            ),
            Ok(_) => report.ok("key-file", "pre-shared key", format!("read from {}", path.display())),
            Err(error) => report.fail(
                "key-file",
                "pre-shared key",
                error.to_string(),
                "write 16 to 4096 bytes to it, and chmod 600",
            ),
        }
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.mode() & 0o777)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn of(settings: &[(&str, &str)]) -> Report {
        let find = |name: &str| {
            settings.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let mut found = Report::default();
        report(&Config::from_source(&find), &Files::default(), &mut found);
        found
    }

    #[test]
    fn values_wrong_values_and_values_that_refuse() {
        assert_eq!(of(&[]).seen("settings").0, Level::Ok);
        let (level, line) = of(&[("FLAGCX_P2P_SLICE_SIZE", "65536")]).seen("setting");
        assert!(level == Level::Ok && line.contains("FLAGCX_P2P_SLICE_SIZE: 65536"), "{line}");
        let (level, line) = of(&[("FLAGCX_P2P_QPS_PER_CONN", "99")]).seen("setting");
        assert!(
            level == Level::Warn
                && line.contains("outside 1..8; using the default 4; flagcx-p2p config FLAGCX"),
            "{line}"
        );
        let (level, line) = of(&[("FLAGCX_P2P_FABRIC", "verb")]).seen("setting");
        assert!(level == Level::Fail && line.contains("no engine opens"), "{line}");
    }

    #[test]
    fn a_key_is_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "a secret of some length").unwrap();
        let found = of(&[("FLAGCX_P2P_AUTH_KEY_FILE", path.to_str().unwrap())]);
        let (level, line) = found.seen("key-file");
        assert!(level == Level::Warn && line.contains("; chmod 600 /"), "{line}");
        assert!(!format!("{found:?}").contains("secret"), "{found:?}");
        assert_eq!(of(&[("FLAGCX_P2P_AUTH_KEY_FILE", "/nowhere/key")]).seen("key-file").0, Level::Fail);
    }
}
