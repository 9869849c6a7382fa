//! The folder of the file before: files that follow each other are mostly in the same one, and need not look it up again.

use super::{Directory, FileName, RelativeName, StoreError};

/// Files after which a folder is looked up again: one that was renamed is not used for longer.
const USES: u32 = 16;

/// A directory, and the folder below it that was used last.
#[derive(Debug)]
pub(crate) struct LastFolder {
    root: Directory,
    /// Its folders' names, it itself, and how often it was used.
    last: Option<(Vec<FileName>, Directory, u32)>,
}

impl LastFolder {
    /// Nothing was used yet.
    pub(crate) fn below(root: Directory) -> Self {
        Self { root, last: None }
    }

    /// [`Directory::folder_of`].
    pub(crate) fn folder_of(&mut self, name: &RelativeName) -> Result<Directory, StoreError> {
        self.used(name, |root| root.folder_of(name).map(|(folder, _)| folder))
    }

    /// [`Directory::make_folder_of`].
    pub(crate) fn make_folder_of(&mut self, name: &RelativeName) -> Result<Directory, StoreError> {
        self.used(name, |root| root.make_folder_of(name).map(|(folder, _)| folder))
    }

    fn used(
        &mut self,
        name: &RelativeName,
        find: impl FnOnce(&Directory) -> Result<Directory, StoreError>,
    ) -> Result<Directory, StoreError> {
        if name.folders().is_empty() {
            return Ok(self.root.clone());
        }
        if let Some((names, folder, uses)) = &mut self.last
            && *uses < USES
            && names == name.folders()
            && folder.exists()
        {
            *uses += 1;
            return Ok(folder.clone());
        }
        let folder = find(&self.root)?;
        self.last = Some((name.folders().to_vec(), folder.clone(), 1));
        Ok(folder)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_folder_is_found_again_and_made_again() {
        let temp = tempfile::tempdir().unwrap();
        let mut last = LastFolder::below(Directory::open(temp.path()).unwrap());
        let name = RelativeName::new("a/b/c").unwrap();
        assert!(last.folder_of(&name).is_err());
        let first = last.make_folder_of(&name).unwrap();
        let second = last.folder_of(&name).unwrap();
        assert!(std::sync::Arc::ptr_eq(&first.fd, &second.fd), "it was looked up again");
        fs::remove_dir_all(temp.path().join("a")).unwrap();
        last.make_folder_of(&name).unwrap();
        assert!(temp.path().join("a/b").is_dir(), "removed meanwhile");
    }

    #[test]
    fn a_renamed_folder_is_left_after_a_few_files() {
        let temp = tempfile::tempdir().unwrap();
        let mut last = LastFolder::below(Directory::open(temp.path()).unwrap());
        let name = RelativeName::new("a/c").unwrap();
        last.make_folder_of(&name).unwrap();
        fs::rename(temp.path().join("a"), temp.path().join("b")).unwrap();
        for _ in 0..USES {
            last.make_folder_of(&name).unwrap();
        }
        assert!(temp.path().join("a").is_dir());
    }

    #[test]
    fn a_link_is_no_folder_here_either() {
        let temp = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/tmp", temp.path().join("link")).unwrap();
        let mut last = LastFolder::below(Directory::open(temp.path()).unwrap());
        let name = RelativeName::new("link/c").unwrap();
        for _ in 0..2 {
            assert!(matches!(last.make_folder_of(&name), Err(StoreError::NotAFolder(_))));
        }
    }
}
