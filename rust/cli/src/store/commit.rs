//! Files that were written get their names: one by one, or many of them with fewer waits for the disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Directory, Incoming, StoreError};

/// Most files that wait for their names together. Each is two open descriptors: the file and its folder.
pub(crate) const GROUP: usize = 16;
/// Threads that sync the files of a group: what they wait for at the same time is one write of the file system's journal.
/// Syncing the whole file system would wait for all that other programs have written to it.
const THREADS: usize = 4;
/// A sync that takes longer waits for a disk. It takes less than a microsecond in a tmpfs, where starting threads would be the
/// most work.
const SLOW: Duration = Duration::from_micros(50);

/// Gives files their names, group by group.
#[derive(Debug, Default)]
pub(crate) struct Committer {
    /// Syncing waits for a disk, as far as known.
    is_slow: bool,
}

impl Committer {
    /// Syncs and names every file, and then syncs each of their directories once; the results are in the same order.
    pub(crate) fn commit(&mut self, files: Vec<Incoming>) -> Vec<Result<(), StoreError>> {
        if files.is_empty() {
            return Vec::new();
        }
        let synced = self.sync(&files);
        let mut directories = BTreeMap::<_, Directory>::new();
        for file in &files {
            let directory = file.directory();
            directories.entry(Arc::as_ptr(&directory.fd)).or_insert_with(|| directory.clone());
        }
        let named: Vec<_> = files
            .into_iter()
            .zip(synced)
            .map(|(file, synced)| synced.and_then(|()| file.name_synced()))
            .collect();
        let after = directories.values().try_for_each(Directory::sync);
        named.into_iter().map(|named| named.and_then(|()| after.clone())).collect()
    }

    /// One after the other as long as that is quick, and the rest by several threads.
    fn sync(&mut self, files: &[Incoming]) -> Vec<Result<(), StoreError>> {
        let mut synced = Vec::with_capacity(files.len());
        while let Some(file) = files.get(synced.len()).filter(|_| !self.is_slow) {
            let (result, took) = timed(file);
            synced.push((result, took));
            self.is_slow = took > 4 * SLOW;
        }
        synced.extend(sync_at_once(files.get(synced.len()..).unwrap_or_default()));
        // Of the calls alone: on a busy machine threads start late.
        let took: Duration = synced.iter().map(|(_, took)| took).sum();
        self.is_slow = took > SLOW * u32::try_from(files.len()).unwrap_or(u32::MAX);
        synced.into_iter().map(|(result, _)| result).collect()
    }
}

/// The result of a sync, and how long it took.
type Synced = (Result<(), StoreError>, Duration);

fn timed(file: &Incoming) -> Synced {
    let started = Instant::now();
    (file.sync(), started.elapsed())
}

fn sync_at_once(files: &[Incoming]) -> Vec<Synced> {
    let sync = |part: &[Incoming]| part.iter().map(timed).collect::<Vec<_>>();
    if files.len() < 2 {
        return sync(files);
    }
    thread::scope(|scope| {
        let threads: Vec<_> = files
            .chunks(files.len().div_ceil(THREADS))
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
    use crate::store::FileName;

    #[test]
    fn each_file_has_its_own_result() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        let write = |name: &str| {
            let mut file = directory.create(&FileName::new(name).unwrap(), Some(1), false).unwrap();
            file.write(name.as_bytes()).unwrap();
            file
        };
        for is_slow in [false, true] {
            let files = ["a", "b", "b", "c"].map(write);
            let results = Committer { is_slow }.commit(files.into());
            assert!(
                matches!(&results[..], [Ok(()), Ok(()), Err(StoreError::Exists(_)), Ok(())]),
                "{results:?}"
            );
            for name in ["a", "b", "c"] {
                assert_eq!(std::fs::read_to_string(temp.path().join(name)).unwrap(), name);
            }
            assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 3);
            for name in ["a", "b", "c"] {
                std::fs::remove_file(temp.path().join(name)).unwrap();
            }
        }
        assert!(Committer::default().commit(Vec::new()).is_empty());
    }
}
