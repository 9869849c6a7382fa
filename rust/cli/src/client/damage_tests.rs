//! Bytes that change between the hash and the disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::upload::Upload;
use super::*;
use crate::output::progress::Progress;
use crate::pipeline::BLOCK;
use crate::store::{Directory, FileName, open_local};

const SHAPE: Shape = Shape { chunk: 4096, slots: 4 };
const DIFFERS: &str = "differs from the data that was sent";

fn served() -> (tempfile::TempDir, String) {
    let served = tempfile::tempdir().unwrap();
    let address = crate::server::serve_here(served.path().to_owned()).unwrap();
    (served, address)
}

/// Calls `step` while every slot of the client's ring is written to.
fn while_damaged<T>(client: &Client, step: impl FnOnce() -> T) -> T {
    let (ring, done) = (Arc::clone(&client.ring), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                (0..u64::from(ring.shape().slots))
                    .for_each(|sequence| assert!(ring.write(sequence, 100, &[8])));
            }
        });
        let stepped = step();
        done.store(true, Ordering::Relaxed);
        stepped
    })
}

fn names(path: &Path) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

#[test]
fn bytes_damaged_on_the_way_are_not_stored() {
    let ((served, address), temp) = (served(), tempfile::tempdir().unwrap());
    let (file, back) = (temp.path().join("in"), temp.path().join("back"));
    for path in [&file, &served.path().join("there")] {
        std::fs::write(path, vec![7; 64 * BLOCK]).unwrap();
    }
    let client = Client::connect(&address, SHAPE).unwrap();
    for get in [false, true] {
        let moved = while_damaged(&client, || match get {
            true => client.get("there", &Target::new("there", Some(&back), false).unwrap()),
            false => client.put(open_local(&file).unwrap(), "new", false),
        });
        let error = moved.unwrap_err();
        assert!(error.to_string().contains(DIFFERS), "{error}");
        assert_eq!((names(temp.path()), names(served.path())), (1, 1), "and no part of it is kept");
    }
    // The session goes on.
    client.put(open_local(&file).unwrap(), "new", false).unwrap();
    client.get("new", &Target::new("there", Some(&back), false).unwrap()).unwrap();
}

/// Small files are in their slots for so short a time that several are tried.
#[test]
fn damaged_small_files_are_not_stored() {
    let ((served, address), temp) = (served(), tempfile::tempdir().unwrap());
    let (file, there) = (temp.path().join("in"), served.path().join("there"));
    for path in [&file, &there] {
        std::fs::write(path, vec![7; 4 * BLOCK]).unwrap();
    }
    let client = Client::connect(&address, Shape { chunk: 1 << 20, slots: 4 }).unwrap();
    for get in [false, true] {
        let mut damaged = 0;
        while_damaged(&client, || {
            for at in 0..1000 {
                let moved = match get {
                    true => {
                        let back = temp.path().join(format!("back-{at}"));
                        client.get("there", &Target::new("there", Some(&back), false).unwrap())
                    }
                    false => client.put(open_local(&file).unwrap(), &format!("new-{at}"), false),
                };
                match moved {
                    Ok(_) => {}
                    Err(error) if error.to_string().contains(DIFFERS) => damaged += 1,
                    Err(error) => panic!("{error}"),
                }
                if damaged == 3 {
                    break;
                }
            }
        });
        assert_eq!(damaged, 3, "get {get}");
        for path in [temp.path(), served.path()] {
            for entry in std::fs::read_dir(path).unwrap() {
                assert!(std::fs::read(entry.unwrap().path()).unwrap() == vec![7; 4 * BLOCK]);
            }
        }
    }
}

#[test]
fn what_is_damaged_after_a_resume_is_not_stored() {
    let ((served, address), temp) = (served(), tempfile::tempdir().unwrap());
    let (file, size) = (temp.path().join("in"), 256 * BLOCK);
    std::fs::write(&file, vec![7; size]).unwrap();
    let directory = Directory::open(served.path()).unwrap();
    let name = FileName::new("new").unwrap();
    let client = Client::connect(&address, SHAPE).unwrap();
    for damaged in [true, false] {
        let mut partial = directory.create_resumable(&name, size as u64, false, true).unwrap();
        assert_eq!(partial.written(), 0);
        partial.write(&vec![7; size / 2]).unwrap();
        drop(partial);
        let put = || {
            let (progress, mut moved) = (Progress::new("put", None, 1, true), None);
            let mut ended = |_: &str, result| moved = Some(result);
            let mut upload = Upload::new(&client, (false, true), &progress, &mut ended);
            upload.add(open_local(&file).unwrap(), "new").unwrap();
            upload.finish().unwrap();
            moved.unwrap()
        };
        if damaged {
            let error = while_damaged(&client, put).unwrap_err();
            assert!(error.to_string().contains(DIFFERS), "{error}");
            assert_eq!(names(served.path()), 0);
        } else {
            assert_eq!(put().unwrap().resumed, size as u64 / 2);
            assert!(std::fs::read(served.path().join("new")).unwrap() == vec![7; size]);
        }
    }
}
