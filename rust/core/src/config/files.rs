//! The configuration files for what the environment does not set: `~/.flagcx.conf`, then `/etc/flagcx.conf`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{home, unknown};

/// Values of the files. A value of the first file wins over the second, the environment wins over both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    values: HashMap<String, (String, PathBuf)>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The environment.
    Environment,
    /// This configuration file.
    File(PathBuf),
}

impl Files {
    /// Reads the files that exist.
    pub fn load() -> Self {
        let home = home::directory().map(|home| home.join(".flagcx.conf"));
        let mut files = Self::default();
        for path in home.into_iter().chain([PathBuf::from("/etc/flagcx.conf")]) {
            // Bytes outside UTF-8 can only be in values that no variable accepts.
            if let Ok(bytes) = std::fs::read(&path) {
                files.add(&path, &String::from_utf8_lossy(&bytes));
            }
        }
        files
    }

    /// Adds the `NAME=value` lines of `text`, the content of `path`. No comments, no trimming; names that are known already
    /// keep their value.
    pub fn add(&mut self, path: &Path, text: &str) {
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            self.values.entry(name.to_owned()).or_insert_with(|| (value.to_owned(), path.to_owned()));
        }
    }

    /// The names in the environment and in the files.
    fn names(&self) -> impl Iterator<Item = String> + '_ {
        let environment = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
        environment.chain(self.values.keys().cloned())
    }

    /// The value in the environment, else in the files.
    pub fn layered(&self, name: &str) -> Option<String> {
        self.find(name).map(|(value, _)| value)
    }

    /// The same value, and where it is set.
    pub fn find(&self, name: &str) -> Option<(String, Origin)> {
        let environment =
            std::env::var_os(name).map(|value| (value.to_string_lossy().into_owned(), Origin::Environment));
        environment.or_else(|| {
            self.values.get(name).map(|(value, path)| (value.clone(), Origin::File(path.clone())))
        })
    }

    /// The value in the files.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(value, _)| value.as_str())
    }

    /// A line for each name, in the environment and in the files, that looks like a variable of this engine and is none.
    pub fn unknown_names(&self) -> Vec<String> {
        unknown::remarks(self.names())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_wins_and_nothing_is_trimmed() {
        let mut files = Files::default();
        let (own, of_all) = (Path::new("/home/me/.flagcx.conf"), Path::new("/etc/flagcx.conf"));
        files
            .add(own, "FLAGCX_CONF_TEST_A=1\nFLAGCX_CONF_TEST_A=2\nno value\n FLAGCX_CONF_TEST_B = x = y \n");
        files.add(of_all, "FLAGCX_CONF_TEST_A=3\nFLAGCX_CONF_TEST_C=\n");
        assert_eq!(files.layered("FLAGCX_CONF_TEST_A").as_deref(), Some("1"));
        assert_eq!(files.layered(" FLAGCX_CONF_TEST_B ").as_deref(), Some(" x = y "));
        assert_eq!(files.layered("FLAGCX_CONF_TEST_B"), None);
        assert_eq!(files.layered("FLAGCX_CONF_TEST_C").as_deref(), Some(""));
        let origin = |name| files.find(name).map(|(_, origin)| origin);
        assert_eq!(origin("FLAGCX_CONF_TEST_A"), Some(Origin::File(own.to_owned())));
        assert_eq!(origin("FLAGCX_CONF_TEST_C"), Some(Origin::File(of_all.to_owned())));
    }

    #[test]
    fn the_environment_wins() {
        let mut files = Files::default();
        files.add(Path::new("/etc/flagcx.conf"), "PATH=from the file");
        assert_eq!(files.find("PATH").unwrap().1, Origin::Environment);
        assert_ne!(files.layered("PATH").as_deref(), Some("from the file"));
    }
}
