//! Files that were written get their names: one by one, or many of them with fewer waits for the disk.

use std::collections::BTreeMap;
use std::thread;

use super::{Incoming, StoreError};

/// Most files that wait for their names together. Each is two open descriptors: the file and its folder.
pub(crate) const GROUP: usize = 16;
/// Threads that sync the files of a group: what they wait for at the same time is one write of the file system's journal.
/// Syncing the whole file system would wait for all that other programs have written to it.
const THREADS: usize = 4;

/// Syncs and names every file, and then syncs each of their directories once; the results are in the same order.
pub(crate) fn commit_all(files: Vec<Incoming>) -> Vec<Result<(), StoreError>> {
    if files.len() < 2 {
        return files.into_iter().map(Incoming::commit).collect();
    }
    let synced = sync_all(&files);
    let mut directories = BTreeMap::new();
    for file in &files {
        directories.entry(file.directory().path.clone()).or_insert_with(|| file.directory().clone());
    }
    let named: Vec<_> = files
        .into_iter()
        .zip(synced)
        .map(|(file, synced)| synced.and_then(|()| file.rename_synced()))
        .collect();
    let after = directories.values().try_for_each(super::Directory::sync);
    named.into_iter().map(|named| named.and_then(|()| after.clone())).collect()
}

fn sync_all(files: &[Incoming]) -> Vec<Result<(), StoreError>> {
    thread::scope(|scope| {
        let sync = |part: &[Incoming]| part.iter().map(Incoming::sync).collect::<Vec<_>>();
        let threads: Vec<_> = files
            .chunks(GROUP / THREADS)
            .map(|part| {
                (part, thread::Builder::new().name("sync".into()).spawn_scoped(scope, move || sync(part)))
            })
            .collect();
        // Without a further thread, this one does it.
        let joined =
            threads.into_iter().map(|(part, thread)| match thread.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(results)) => results,
                _ => sync(part),
            });
        joined.flatten().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Directory, FileName};

    #[test]
    fn each_file_has_its_own_result() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        let write = |name: &str| {
            let mut file = directory.create(&FileName::new(name).unwrap(), Some(1), false).unwrap();
            file.write(name.as_bytes()).unwrap();
            file
        };
        let files = ["a", "b", "b", "c"].map(write);
        let results = commit_all(files.into());
        assert!(matches!(&results[..], [Ok(()), Ok(()), Err(StoreError::Exists(_)), Ok(())]), "{results:?}");
        for name in ["a", "b", "c"] {
            assert_eq!(std::fs::read_to_string(temp.path().join(name)).unwrap(), name);
        }
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 3);
        assert!(commit_all(Vec::new()).is_empty());
    }
}
