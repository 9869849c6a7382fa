//! `FLAGCX_DEBUG`, `FLAGCX_DEBUG_SUBSYS` and `FLAGCX_DEBUG_FILE`, read as FlagCX reads them.

use std::fs::File;
use std::io::{Error, ErrorKind};
use std::path::PathBuf;

use tracing::Level;

/// What to log, and where to.
#[derive(Debug)]
pub struct LogSettings {
    /// The most verbose level that is logged.
    pub level: Level,
    /// Bits of the subsystems that log lines below WARN.
    subsystems: u64,
    /// Pattern of the file's name.
    file: Option<String>,
    /// A value of `FLAGCX_DEBUG` that is no level.
    unknown: Option<String>,
}

/// FlagCX's names of subsystems and their bits.
const SUBSYSTEMS: [(&str, u64); 17] = [
    ("INIT", INIT),
    ("COLL", 2),
    ("P2P", P2P),
    ("SHM", 8),
    ("NET", NET),
    ("GRAPH", GRAPH),
    ("TUNING", 64),
    ("ENV", ENV),
    ("ALLOC", 256),
    ("CALL", 512),
    ("PROXY", 1024),
    ("NVLS", 2048),
    ("BOOTSTRAP", BOOTSTRAP),
    ("REG", REG),
    ("KERNEL", 16384),
    ("UNIRUNNER", 32768),
    ("ALL", !0),
];
const INIT: u64 = 1;
const P2P: u64 = 4;
const NET: u64 = 16;
const GRAPH: u64 = 32;
const ENV: u64 = 128;
const BOOTSTRAP: u64 = 4096;
const REG: u64 = 8192;

impl LogSettings {
    /// From variables as `get` answers them.
    pub fn read(get: &dyn Fn(&str) -> Option<String>) -> Self {
        let name = get("FLAGCX_DEBUG").filter(|name| !name.is_empty());
        let level = name.as_deref().map(level);
        Self {
            level: level.flatten().unwrap_or(Level::WARN),
            unknown: name.filter(|_| level == Some(None)),
            subsystems: subsystems(get("FLAGCX_DEBUG_SUBSYS").as_deref()),
            file: get("FLAGCX_DEBUG_FILE").filter(|name| !name.is_empty()),
        }
    }

    /// Whether a line is logged. Warnings and errors are, whatever subsystem they come from.
    pub fn allows(&self, level: Level, target: &str) -> bool {
        level <= self.level && (level <= Level::WARN || subsystem_of(target) & self.subsystems != 0)
    }

    /// What is wrong with `FLAGCX_DEBUG`, for one line of the log.
    pub fn complaint(&self) -> Option<String> {
        let unknown = self.unknown.as_ref()?;
        Some(format!(
            "FLAGCX_DEBUG={unknown:?} is none of VERSION, WARN, INFO, ABORT and TRACE, and is taken as WARN"
        ))
    }

    /// The file to log to, created or emptied; `None` when none is named.
    pub fn open_file(&self) -> Result<Option<File>, Error> {
        let Some(pattern) = &self.file else {
            return Ok(None);
        };
        let path = expand(pattern, &host_name(), std::process::id());
        match File::create(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) => Err(Error::new(error.kind(), format!("{}: {error}", path.display()))),
        }
    }
}

/// The subsystem that the lines of a module count as.
pub fn subsystem_of(target: &str) -> u64 {
    let module = target.strip_prefix("flagcx_p2p::").and_then(|path| path.split("::").next());
    MODULES.iter().find(|(name, _)| Some(*name) == module).map_or(P2P, |(_, subsystem)| *subsystem)
}

/// The modules of this crate with lines of another subsystem than `P2P`.
const MODULES: [(&str, u64); 10] = [
    // A connection made, ended or recovered is what INFO is switched on for, and INIT is logged by default.
    ("connection", INIT | P2P),
    ("endpoint", INIT),
    ("engine", INIT),
    ("gpu", INIT),
    ("config", ENV),
    ("control", BOOTSTRAP),
    ("memory", REG),
    ("topology", GRAPH),
    ("fabric", INIT | NET),
    ("notify", NET),
];

/// `None` for a name that is no level.
fn level(name: &str) -> Option<Level> {
    Some(match name.to_ascii_uppercase().as_str() {
        "VERSION" => Level::ERROR,
        "WARN" => Level::WARN,
        "INFO" => Level::INFO,
        "ABORT" => Level::DEBUG,
        "TRACE" => Level::TRACE,
        _ => return None,
    })
}

fn subsystems(list: Option<&str>) -> u64 {
    let Some(list) = list else {
        return INIT | ENV;
    };
    let (inverted, names) = match list.strip_prefix('^') {
        Some(names) => (true, names),
        None => (false, list),
    };
    let named = names
        .split(',')
        .filter_map(|name| SUBSYSTEMS.iter().find(|(known, _)| name.trim().eq_ignore_ascii_case(known)))
        .fold(0, |bits, (_, bit)| bits | bit);
    if inverted { !named } else { named }
}

/// Replaces %h by the host's name, %p by the process id and %% by one %.
pub(super) fn expand(pattern: &str, host: &str, process: u32) -> PathBuf {
    let mut path = String::with_capacity(pattern.len());
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        match (letter, if letter == '%' { letters.next() } else { None }) {
            ('%', Some('h')) => path.push_str(host),
            ('%', Some('p')) => path.push_str(&process.to_string()),
            ('%', Some('%') | None) => path.push('%'),
            ('%', Some(other)) => path.extend(['%', other]),
            (letter, _) => path.push(letter),
        }
    }
    PathBuf::from(path)
}

pub(super) fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .and_then(|name| match name.trim() {
            "" => Err(ErrorKind::NotFound.into()),
            name => Ok(name.to_owned()),
        })
        .unwrap_or_else(|_| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> LogSettings {
        LogSettings::read(&|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn warnings_alone_are_logged_by_default() {
        let settings = settings(&[]);
        assert!(settings.allows(Level::WARN, "flagcx_p2p::pool::worker"));
        assert!(!settings.allows(Level::INFO, "flagcx_p2p::engine"));
    }

    #[test]
    fn a_wrong_level_is_told_with_those_that_there_are() {
        let wrong = settings(&[("FLAGCX_DEBUG", "verbose")]);
        assert_eq!(wrong.level, Level::WARN);
        let line = wrong.complaint().unwrap();
        assert!(line.contains("\"verbose\"") && line.contains("INFO, ABORT and TRACE"), "{line}");
        for fine in ["VERSION", "WARN", "warn", "Info", "ABORT", "TRACE", ""] {
            assert_eq!(settings(&[("FLAGCX_DEBUG", fine)]).complaint(), None, "{fine}");
        }
        assert_eq!(settings(&[]).complaint(), None);
    }

    #[test]
    fn info_is_for_the_chosen_subsystems() {
        let chosen = settings(&[("FLAGCX_DEBUG", "info"), ("FLAGCX_DEBUG_SUBSYS", "net,reg")]);
        assert!(chosen.allows(Level::INFO, "flagcx_p2p::memory::registry"));
        assert!(chosen.allows(Level::INFO, "flagcx_p2p::fabric::software"));
        assert!(!chosen.allows(Level::INFO, "flagcx_p2p::engine"));
        assert!(!chosen.allows(Level::DEBUG, "flagcx_p2p::memory"));
        let default = settings(&[("FLAGCX_DEBUG", "INFO")]);
        assert!(default.allows(Level::INFO, "flagcx_p2p::engine::open"));
        assert!(default.allows(Level::INFO, "flagcx_p2p::config"));
        assert!(!default.allows(Level::INFO, "flagcx_p2p::pool"));
        assert!(default.allows(Level::WARN, "flagcx_p2p::pool"));
    }

    /// A renamed module would fall back to `P2P` unnoticed.
    #[test]
    fn every_listed_module_exists() {
        let crate_root = include_str!("../lib.rs");
        for (name, subsystem) in MODULES {
            assert!(crate_root.contains(&format!("mod {name};")), "there is no module {name}");
            assert_eq!(subsystem_of(&format!("flagcx_p2p::{name}::inner")), subsystem);
        }
        assert_eq!(subsystem_of("flagcx_p2p::pool"), P2P);
        assert_eq!(subsystem_of("other::engine"), P2P);
    }

    /// docs/logs.md has a row for each module of the crate, with the subsystems that its lines count as.
    #[test]
    fn the_table_of_subsystems_is_documented() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        if !root.join("CONTRIBUTING.md").is_file() {
            println!("not run: the package alone has no pages");
            return;
        }
        let page = std::fs::read_to_string(root.join("docs/logs.md")).unwrap();
        let crate_root = include_str!("../lib.rs");
        let modules: Vec<_> = crate_root
            .lines()
            .filter_map(|line| line.trim_start_matches("pub(crate) ").strip_prefix("mod ")?.strip_suffix(';'))
            .collect();
        assert!(modules.len() > 15, "{modules:?}");
        for module in &modules {
            let bits = subsystem_of(&format!("flagcx_p2p::{module}"));
            let names: Vec<_> = SUBSYSTEMS
                .iter()
                .filter(|(name, bit)| *name != "ALL" && bits & bit != 0)
                .map(|(name, _)| format!("`{name}`"))
                .collect();
            let row = format!("| {} | `{module}` |", names.join(", "));
            assert!(page.contains(&row), "docs/logs.md: no row begins with {row}");
        }
        let rows =
            page.lines().skip_while(|line| *line != "## Subsystems").filter(|line| line.starts_with("| `"));
        assert_eq!(rows.count(), modules.len(), "docs/logs.md has a row for a module that does not exist");
    }

    #[test]
    fn a_caret_names_what_to_leave_out() {
        let settings = settings(&[("FLAGCX_DEBUG", "TRACE"), ("FLAGCX_DEBUG_SUBSYS", "^P2P")]);
        assert!(settings.allows(Level::TRACE, "flagcx_p2p::memory"));
        assert!(!settings.allows(Level::TRACE, "flagcx_p2p::transfer"));
    }

    #[test]
    fn file_names_are_expanded() {
        let expand = |pattern| expand(pattern, "node7", 42).display().to_string();
        assert_eq!(expand("/tmp/log.%h.%p"), "/tmp/log.node7.42");
        assert_eq!(expand("100%%"), "100%");
        assert_eq!(expand("%x%"), "%x%");
    }

    #[test]
    fn a_file_that_cannot_be_made_is_an_error_with_its_name() {
        let settings = settings(&[("FLAGCX_DEBUG_FILE", "/nowhere/at/all")]);
        let error = settings.open_file().unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }
}
