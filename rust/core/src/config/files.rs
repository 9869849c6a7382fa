//! The configuration files for what the environment does not set: `~/.flagcx.conf`, then `/etc/flagcx.conf`.

use std::collections::HashMap;
use std::path::PathBuf;

use super::home;

/// Values of the files. A value of the first file wins over the second, the environment wins over both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    values: HashMap<String, String>,
}

impl Files {
    /// Reads the files that exist.
    pub fn load() -> Self {
        let home = home::directory().map(|home| home.join(".flagcx.conf"));
        let mut files = Self::default();
        for path in home.into_iter().chain([PathBuf::from("/etc/flagcx.conf")]) {
            // Bytes outside UTF-8 can only be in values that no variable accepts.
            if let Ok(bytes) = std::fs::read(&path) {
                files.add(&String::from_utf8_lossy(&bytes));
            }
        }
        files
    }

    /// Adds the `NAME=value` lines of `text`. No comments, no trimming; names that are known already keep their value.
    pub fn add(&mut self, text: &str) {
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            self.values.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }

    /// The names in the environment and in the files.
    pub(super) fn names(&self) -> impl Iterator<Item = String> + '_ {
        let environment = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
        environment.chain(self.values.keys().cloned())
    }

    /// The value in the environment, else in the files.
    pub fn layered(&self, name: &str) -> Option<String> {
        std::env::var_os(name)
            .map(|value| value.to_string_lossy().into_owned())
            .or_else(|| self.value(name).map(str::to_owned))
    }

    /// The value in the files.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::Files;

    #[test]
    fn the_first_value_wins_and_nothing_is_trimmed() {
        let mut files = Files::default();
        files.add("FLAGCX_CONF_TEST_A=1\nFLAGCX_CONF_TEST_A=2\nno value\n FLAGCX_CONF_TEST_B = x = y \n");
        files.add("FLAGCX_CONF_TEST_A=3\nFLAGCX_CONF_TEST_C=\n");
        assert_eq!(files.layered("FLAGCX_CONF_TEST_A").as_deref(), Some("1"));
        assert_eq!(files.layered(" FLAGCX_CONF_TEST_B ").as_deref(), Some(" x = y "));
        assert_eq!(files.layered("FLAGCX_CONF_TEST_B"), None);
        assert_eq!(files.layered("FLAGCX_CONF_TEST_C").as_deref(), Some(""));
    }

    #[test]
    fn the_environment_wins() {
        let mut files = Files::default();
        files.add("PATH=from the file");
        assert_ne!(files.layered("PATH").as_deref(), Some("from the file"));
    }
}
