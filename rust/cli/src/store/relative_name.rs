//! Which names a file in a folder of the served directory may have.

use std::fmt;

use super::{FileName, StoreError};

/// Longest name in bytes, as a frame of the control stream carries it.
const MAX: usize = 1024;
/// Most folders above a file. Each is an open descriptor while its files are listed.
pub(super) const MAX_DEPTH: usize = 32;

/// A name relative to a directory: components that are each a [`FileName`], joined by `/`. It cannot lead out of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RelativeName {
    folders: Vec<FileName>,
    file: FileName,
}

impl RelativeName {
    /// Checks a name: no component is empty, `.` or `..`, and each is a name that [`FileName`] accepts.
    pub(crate) fn new(name: &str) -> Result<Self, StoreError> {
        let refused = |problem| StoreError::Name { name: name.escape_debug().to_string(), problem };
        if name.starts_with('/') {
            return Err(refused("is absolute; a name is relative to the served directory"));
        }
        if name.len() > MAX {
            return Err(refused("is longer than 1,024 bytes"));
        }
        let mut folders = name.split('/').map(FileName::new).collect::<Result<Vec<_>, _>>()?;
        if folders.len() > MAX_DEPTH + 1 {
            return Err(refused("is in more than 32 folders"));
        }
        let file = folders.pop().ok_or_else(|| refused("is empty"))?;
        Ok(Self { folders, file })
    }

    /// The folders that lead to the file.
    pub(super) fn folders(&self) -> &[FileName] {
        &self.folders
    }

    /// The last component.
    pub(crate) fn file(&self) -> &FileName {
        &self.file
    }
}

impl fmt::Display for RelativeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.folders.iter().try_for_each(|folder| write!(f, "{folder}/"))?;
        write!(f, "{}", self.file)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names() {
        let deepest = format!("{}f", "d/".repeat(MAX_DEPTH));
        for good in ["a", "a/b", "models/llama 3/weights.bin", ".a/...", deepest.as_str()] {
            assert_eq!(RelativeName::new(good).unwrap().to_string(), good);
        }
        let (deep, long) = (format!("d/{deepest}"), format!("{}/x", "y/".repeat(600)));
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "../a",
            "a/../b",
            "a/..",
            "./a",
            "a/.flagcx-p2p-1.part",
            "a/\u{1b}[2J",
            deep.as_str(),
            long.as_str(),
        ] {
            let error = RelativeName::new(bad).unwrap_err();
            assert!(matches!(error, StoreError::Name { .. }), "{bad:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_accepted_name_leads_out(name in "[a./\\\\]{0,12}") {
            if let Ok(accepted) = RelativeName::new(&name) {
                prop_assert_eq!(accepted.to_string(), name.clone());
                prop_assert!(!name.starts_with('/') && name.split('/').all(|part| !["", ".", ".."].contains(&part)));
            }
        }
    }
}
