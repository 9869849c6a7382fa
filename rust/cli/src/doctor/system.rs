//! Where the facts come from: /proc, /sys and /dev of this machine, or a recorded tree that stands for another one.

use std::fs;
use std::path::{Path, PathBuf};

use flagcx_p2p::internals::topology::Sysfs;

/// A root directory.
#[derive(Clone, Debug)]
pub(super) struct SystemRoot(PathBuf);

impl Default for SystemRoot {
    /// This machine's.
    fn default() -> Self {
        Self::at("/")
    }
}

impl SystemRoot {
    pub(super) fn at(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// The place of an absolute path below the root.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// The trimmed content of a file; `None` where it cannot be read.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok().map(|text| text.trim().to_owned())
    }

    /// The number in a file.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.parse().ok()
    }

    /// The names in a directory, sorted; empty where there is none.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_by_key(|name| (name.len(), name.clone()));
        names
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// The value behind `name:` in a file of such lines, as /proc/self/status is.
    pub(super) fn field(&self, path: &str, name: &str) -> Option<String> {
        let text = self.read(path)?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    }

    /// Its /sys.
    pub(super) fn sysfs(&self) -> Sysfs {
        Sysfs::at(self.path("sys"))
    }

    /// A path that begins with the root, as it is called on that machine.
    pub(super) fn shown(&self, path: &Path) -> String {
        match path.strip_prefix(&self.0) {
            Ok(rest) => format!("/{}", rest.display()),
            Err(_) => path.display().to_string(),
        }
    }
}

/// A recorded tree of the given files.
#[cfg(test)]
pub(super) struct Fixture {
    pub(super) root: SystemRoot,
    directory: tempfile::TempDir,
}

#[cfg(test)]
impl Fixture {
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fixture = Self { root: SystemRoot::at(directory.path()), directory };
        for (path, content) in files {
            let path = fixture.root.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        fixture
    }

    /// Adds a symbolic link to another place of the tree.
    pub(super) fn link(&self, path: &str, target: &str) {
        let at = self.root.path(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(self.directory.path().join(target), at).unwrap();
    }
}
