use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::ring::{Ring, Shape};
use crate::store::{Content, Directory, FileName, Prefix, open_local};

const SHAPE: Shape = Shape { chunk: 4096, slots: 3 };

fn started(content: Content, ring: Arc<Ring>) -> Source {
    Source::start(content, ring, Prefix::default(), 0).unwrap()
}

/// The next chunk; `None` at the end.
fn next(source: &Source) -> Option<Filled> {
    match source.next_within(std::time::Duration::from_secs(10)) {
        Next::Chunk(chunk) => Some(chunk),
        Next::NotYet => panic!("no chunk within 10 s"),
        Next::End => None,
    }
}

fn source(path: &Path) -> Source {
    started(open_local(path).unwrap(), Ring::for_test(SHAPE))
}

/// A chunk larger than a block, and one smaller.
#[test]
fn what_is_read_is_written_with_the_same_digest() {
    let temp = tempfile::tempdir().unwrap();
    let directory = Directory::open(temp.path()).unwrap();
    for (chunk, slots) in [(4096, 3), (4096, 1), (3 << 20, 2)] {
        let ring = Ring::for_test(Shape { chunk, slots });
        for size in [0_usize, 1, 4095, 4096, 4097, 12_345, (7 << 20) + 5] {
            let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8 ^ (at >> 12) as u8).collect();
            std::fs::write(temp.path().join("in"), &content).unwrap();
            let file = open_local(&temp.path().join("in")).unwrap();
            let source = started(file, ring.clone());
            let file = directory.create(&FileName::new("out").unwrap(), Some(size as u64), true).unwrap();
            let mut sink = Sink::start(file, ring.clone(), Prefix::default()).unwrap();
            let mut chunks = 0;
            while let Some(chunk) = next(&source) {
                assert_eq!(chunk.sequence, chunks);
                assert!(sink.push(chunk));
                source.release();
                chunks += 1;
            }
            assert_eq!(chunks, (size as u64).div_ceil(u64::from(chunk)));
            let (file, stored) = sink.finish().unwrap();
            file.commit().unwrap();
            assert_eq!(source.finish().unwrap(), stored);
            assert_eq!(stored.bytes, size as u64);
            assert_eq!(stored.hash, *blake3::hash(&content).as_bytes());
            assert!(std::fs::read(temp.path().join("out")).unwrap() == content, "{size} by {chunk}");
        }
    }
}

#[test]
fn a_source_fills_no_slot_that_is_in_use() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("in"), vec![0; 10 * 4096]).unwrap();
    let source = source(&temp.path().join("in"));
    for sequence in 0..3 {
        assert_eq!(next(&source), Some(Filled { sequence, length: 4096 }));
    }
    thread::sleep(std::time::Duration::from_millis(50));
    assert!(matches!(source.try_next(), Next::NotYet));
    source.release();
    assert_eq!(next(&source), Some(Filled { sequence: 3, length: 4096 }));
    source.finish().unwrap();
}

#[test]
fn a_file_that_changes_is_an_error() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("in");
    for (length, what) in [(150_000, "it shrank"), (300_001, "it grew"), (300_000, "it was written to")] {
        std::fs::write(&path, vec![0; 300_000]).unwrap();
        let content = open_local(&path).unwrap();
        thread::sleep(std::time::Duration::from_millis(20));
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(length).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"x", 1).unwrap();
        let source = started(content, Ring::for_test(SHAPE));
        while next(&source).is_some() {
            source.release();
        }
        let error = source.finish().unwrap_err();
        assert!(matches!(error, StoreError::Changed { .. }) && error.to_string().contains(what), "{error}");
    }
}

#[test]
fn finishing_early_ends_the_threads() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("in"), vec![0; 100_000]).unwrap();
    let source = source(&temp.path().join("in"));
    assert!(next(&source).is_some());
    source.finish().unwrap();
}

#[test]
fn a_sink_that_cannot_write_says_why() {
    let mut sink =
        Sink::start(crate::store::unwritable_for_test(), Ring::for_test(SHAPE), Prefix::default()).unwrap();
    let mut pushed = 0;
    while sink.push(Filled { sequence: pushed, length: 4096 }) {
        pushed += 1;
        assert!(pushed < 10_000, "it does not fail");
        thread::sleep(std::time::Duration::from_millis(1));
    }
    let error = sink.finish().unwrap_err();
    assert!(error.to_string().contains("cannot write"), "{error}");
}

#[test]
fn a_chunk_longer_than_its_slot_is_not_stored() {
    let temp = tempfile::tempdir().unwrap();
    let file = Directory::open(temp.path()).unwrap().create(&FileName::new("a").unwrap(), Some(5000), false);
    let mut sink = Sink::start(file.unwrap(), Ring::for_test(SHAPE), Prefix::default()).unwrap();
    assert!(!sink.push(Filled { sequence: 0, length: 4097 }));
}

#[test]
fn a_stream_has_its_size_at_its_end() {
    let temp = tempfile::tempdir().unwrap();
    for size in [0_usize, 1, 4096, 8192, 8193] {
        let path = temp.path().join("in");
        std::fs::write(&path, vec![5; size]).unwrap();
        let content = Content::stream(std::fs::File::open(&path).unwrap(), "stream".to_owned()).unwrap();
        assert_eq!(content.size(), None);
        let source = started(content, Ring::for_test(SHAPE));
        let mut bytes = 0;
        while let Some(chunk) = next(&source) {
            bytes += chunk.length as usize;
            source.release();
        }
        let digest = source.finish().unwrap();
        assert_eq!((bytes, digest.bytes), (size, size as u64));
        assert_eq!(digest.hash, *blake3::hash(&vec![5; size]).as_bytes());
    }
}

#[test]
fn a_small_file_goes_through_its_slot() {
    let temp = tempfile::tempdir().unwrap();
    let (path, ring) = (temp.path().join("in"), Ring::for_test(SHAPE));
    for size in [0_usize, 1, 4096] {
        std::fs::write(&path, vec![9; size]).unwrap();
        let sent = small::fill(open_local(&path).unwrap(), &ring, 5).unwrap();
        assert_eq!(small::take(&ring, 5, u32::try_from(size).unwrap()), Some((vec![9; size], sent)));
    }
    std::fs::write(&path, vec![9; 4097]).unwrap();
    assert!(small::fill(open_local(&path).unwrap(), &ring, 5).is_err());
    assert_eq!(small::take(&ring, 5, 4097), None);
}
