//! All files below a directory, in order. Links are not followed.

use rustix::fs::{AtFlags, Dir, FileType};

use super::relative_name::MAX_DEPTH;
use super::{Directory, FileName, RelativeName, StoreError, TEMPORARY};

/// What [`Directory::walk`] finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A regular file.
    File(Listed),
    /// What is not transferred, and why.
    Skipped { name: String, why: String },
}

/// A regular file with its size, as a listing has it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Listed {
    /// Relative to the directory.
    pub(crate) name: String,
    /// Bytes.
    pub(crate) size: u64,
    /// Last modification, seconds since 1970.
    pub(crate) seconds: i64,
}

impl Directory {
    /// Calls `visit` for every entry below this directory, names in order, each with `prefix` (empty, or ending with `/`) in
    /// front. Its first error ends the walk. Temporary files of this tool are left out.
    pub(crate) fn walk<E: From<StoreError>>(
        &self,
        prefix: &str,
        visit: &mut impl FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        self.walk_at(prefix, prefix.matches('/').count(), visit)
    }

    /// The regular file of this name, which a listing calls `full`; `None` if it is a folder.
    pub(crate) fn listed(&self, name: &FileName, full: &RelativeName) -> Result<Option<Listed>, StoreError> {
        let stat = rustix::fs::statat(&*self.fd, name.as_str(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| StoreError::io("look up", self.path_of(name), errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Some(Listed {
                name: full.to_string(),
                size: u64::try_from(stat.st_size).unwrap_or(0),
                seconds: stat.st_mtime,
            })),
            FileType::Directory => Ok(None),
            FileType::Symlink => Err(StoreError::Link(self.path_of(name))),
            _ => Err(StoreError::NotAFile(self.path_of(name))),
        }
    }

    fn walk_at<E: From<StoreError>>(
        &self,
        prefix: &str,
        depth: usize,
        visit: &mut impl FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        for name in self.entries().map_err(E::from)? {
            let skipped =
                |why: String| Entry::Skipped { name: format!("{prefix}{}", name.escape_debug()), why };
            let file = match FileName::new(&name) {
                Ok(file) => file,
                Err(_) if name.starts_with(TEMPORARY) => continue,
                Err(error) => {
                    visit(skipped(error.to_string()))?;
                    continue;
                }
            };
            let Ok(stat) = rustix::fs::statat(&*self.fd, &*name, AtFlags::SYMLINK_NOFOLLOW) else {
                // It was removed meanwhile, or is not in UTF-8 and has another name here.
                visit(skipped("cannot be looked up under this name".to_owned()))?;
                continue;
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => visit(Entry::File(Listed {
                    name: format!("{prefix}{name}"),
                    size: u64::try_from(stat.st_size).unwrap_or(0),
                    seconds: stat.st_mtime,
                }))?,
                FileType::Directory if depth >= MAX_DEPTH => {
                    visit(skipped(format!("is in more than {MAX_DEPTH} folders")))?;
                }
                FileType::Directory => match self.folder(&file) {
                    Ok(folder) => folder.walk_at(&format!("{prefix}{name}/"), depth + 1, visit)?,
                    Err(error) => visit(skipped(error.to_string()))?,
                },
                FileType::Symlink => visit(skipped("is a symbolic link".to_owned()))?,
                _ => visit(skipped("is not a regular file".to_owned()))?,
            }
        }
        Ok(())
    }

    /// The names in this directory, in order.
    fn entries(&self) -> Result<Vec<String>, StoreError> {
        let failed = |errno| StoreError::io("list", self.path.display().to_string(), errno);
        let mut names = Vec::new();
        for entry in Dir::read_from(&*self.fd).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    #[test]
    fn regular_files_in_order_and_the_rest_with_its_reason() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        fs::create_dir_all(at("b/deep")).unwrap();
        for name in ["b/deep/2", "b/1", "a", "c", ".flagcx-p2p-0123.partial"] {
            fs::write(at(name), name).unwrap();
        }
        symlink("b", at("link")).unwrap();
        fs::write(temp.path().join(std::ffi::OsStr::from_bytes(b"\xff")), "x").unwrap();
        fs::write(at("line\nfeed"), "x").unwrap();
        let mut files = Vec::new();
        let mut skipped = Vec::new();
        let mut visit = |entry| {
            match entry {
                Entry::File(file) => files.push((file.name, file.size)),
                Entry::Skipped { name, why } => skipped.push((name, why)),
            }
            Ok::<_, StoreError>(())
        };
        Directory::open(temp.path()).unwrap().walk("top/", &mut visit).unwrap();
        let expected = [("top/a", 1), ("top/b/1", 3), ("top/b/deep/2", 8), ("top/c", 1)];
        assert_eq!(files, expected.map(|(name, size)| (name.to_owned(), size)));
        assert_eq!(skipped.len(), 3, "{skipped:?}");
        assert!(skipped.iter().any(|(name, why)| name == "top/link" && why == "is a symbolic link"));
        assert!(skipped.iter().any(|(name, _)| name == "top/line\\nfeed"));
    }

    #[test]
    fn a_folder_that_is_too_deep_is_skipped() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir_all(temp.path().join("d/".repeat(MAX_DEPTH + 1))).unwrap();
        fs::write(temp.path().join("d/".repeat(MAX_DEPTH)).join("f"), "x").unwrap();
        let mut seen = Vec::new();
        let mut visit = |entry| {
            seen.push(entry);
            Ok::<_, StoreError>(())
        };
        Directory::open(temp.path()).unwrap().walk("", &mut visit).unwrap();
        assert!(
            matches!(&seen[..], [Entry::Skipped { why, .. }, Entry::File(file)]
            if why.contains("32 folders") && Path::new(&file.name).ends_with("f")),
            "{seen:?}"
        );
    }
}
