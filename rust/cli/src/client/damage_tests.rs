//! Bytes that change between the hash and the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::pipeline::BLOCK;

const SHAPE: Shape = Shape { chunk: 4096, slots: 4 };

#[test]
fn bytes_damaged_on_the_way_are_not_stored() {
    let (served, temp) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let address = crate::bench::serve_here(served.path().to_owned()).unwrap();
    let (file, back) = (temp.path().join("in"), temp.path().join("back"));
    for path in [&file, &served.path().join("there")] {
        std::fs::write(path, vec![7; 64 * BLOCK]).unwrap();
    }
    for get in [false, true] {
        let client = Client::connect(&address, SHAPE).unwrap();
        let ring = Arc::clone(&client.ring);
        let done = AtomicBool::new(false);
        let moved = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    (0..u64::from(SHAPE.slots)).for_each(|sequence| assert!(ring.write(sequence, 100, &[8])));
                }
            });
            let moved = if get {
                client.get("there", &Target::new("there", Some(&back), false).unwrap())
            } else {
                client.put(crate::store::open_local(&file).unwrap(), "new", false)
            };
            done.store(true, Ordering::Relaxed);
            moved
        });
        let error = moved.unwrap_err();
        assert!(error.to_string().contains("differs from the data that was sent"), "{error}");
        assert!(!back.exists() && !served.path().join("new").exists());
    }
    assert_eq!(std::fs::read_dir(served.path()).unwrap().count(), 1);
}
