//! The other process of the tests: the owner of what is mapped, or the one that maps it.

use std::sync::{Arc, Mutex};

use flagcx_p2p::internals::fabric::{Access, Backing, Completion, CompletionStatus, PathKind};

use crate::LENGTH;
use crate::conformance::initiator::{request, writes};
use crate::conformance::memory::Memory;
use crate::conformance::remote::{ROLE, address_from_text, address_to_text, serve};
use crate::conformance::{Kind, LocalPeer, Window, caps, peer};

/// Plays the role that the environment names, until standard input ends.
pub(crate) fn play() {
    let Ok(role) = std::env::var(ROLE) else {
        println!("not run: it is what the other process of the tests here runs");
        return;
    };
    let (kind, faults, force) = match role.as_str() {
        "own" => (Kind::Own, "", None),
        "foreign" => (Kind::Foreign, "", None),
        "claimed" => (Kind::Claimed, "", None),
        "heap" => (Kind::Heap(Backing::Anonymous), "", None),
        "another user" => {
            // SAFETY: changes this process's users, which has one thread that matters.
            let changed = unsafe { libc::setgid(65534) == 0 && libc::setuid(65534) == 0 };
            assert!(changed, "{}", std::io::Error::last_os_error());
            (Kind::Own, "", None)
        }
        "holding initiator" => (Kind::Own, "hold=us:300000", Some(PathKind::Shared)),
        "initiator" => (Kind::Own, "", Some(PathKind::Shared)),
        other => panic!("unknown role {other}"),
    };
    let device = crate::device(force, faults);
    let mut completions = Arc::clone(&device).create_completion_queue(1024).unwrap();
    let mut queue_pair = Arc::clone(&device).create_queue_pair(&completions.handle(), &caps()).unwrap();
    let local = Window::of_kind(&device, LENGTH, 7, Access::FULL, Kind::Own);
    let own = LocalPeer::with_memory(Arc::clone(&device), kind);
    let files = Mutex::new(Vec::new());
    serve(own, |_, words| {
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[0] {
            // A buffer with a file that this process can change later.
            "file" => {
                let window = Window::of_kind(&device, LENGTH, 5, Access::FULL, kind);
                let answer = format!("{} {}", window.address(), window.region.rkey());
                files.lock().unwrap().push(window);
                answer
            }
            "limit" => {
                crate::limits::no_descriptor_left();
                String::new()
            }
            "resize" => {
                let files = files.lock().unwrap();
                let Memory::Mapped(mapped) = &files[0].memory else { panic!("no file") };
                rustix::fs::ftruncate(&mapped.file, number(1)).unwrap();
                String::new()
            }
            "punch" => {
                let files = files.lock().unwrap();
                let Memory::Mapped(mapped) = &files[0].memory else { panic!("no file") };
                let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&mapped.file, flags, number(1), number(2)).unwrap();
                String::new()
            }
            "initiator_address" => address_to_text(&queue_pair.address()),
            "initiator_connect" => {
                queue_pair.connect(&address_from_text(words[1]), &peer::path()).unwrap();
                String::new()
            }
            // WRITEs of the whole local buffer, one after the other, until one fails: how many were done, and how it ended.
            "initiator_write" => {
                let write = request(number(1), number(2) as u32, 0);
                let mut done = 0;
                loop {
                    assert_eq!(queue_pair.post(&writes(1, &[write], &[local.sge(0, LENGTH)])).accepted, 1);
                    let mut out = [Completion::default()];
                    while completions.poll(&mut out).unwrap() == 0 {}
                    if out[0].status != CompletionStatus::Success || done >= number(3) {
                        break format!("{done} {:?}", out[0].status);
                    }
                    done += 1;
                }
            }
            other => panic!("unknown command {other}"),
        }
    });
}
