//! A directory and its names belong to the process that opened it: a forked child leaves both alone.
#![allow(unsafe_code, reason = "forks")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod etcd_server;
mod peer;

use etcd_server::Server;
use flagcx_p2p_directory::{EngineDirectory, Error, open};
use peer::{address_of, engine, name, publish, record, soon};

#[test]
fn a_forked_child_withdraws_nothing() {
    let Some(server) = Server::start() else { return };
    let directory = open(&server.url("p?lease=3")).unwrap();
    let engine = engine();
    let mut watch = directory.watch("").unwrap();
    let lease = publish(&directory, "a", &record(1));
    let revision = server.revision();
    // SAFETY: the child uses its copy of this thread's values only, and ends by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = matches!(directory.look_up(&name("a"), soon()), Err(Error::Forked(_)))
            && matches!(directory.list("", soon()), Err(Error::Forked(_)))
            && matches!(directory.publish(&name("b"), &record(1), soon()), Err(Error::Forked(_)))
            && matches!(directory.watch(""), Err(Error::Forked(_)))
            && matches!(watch.next(std::time::Duration::ZERO), Err(Error::Forked(_)))
            && engine.publish("b", &*directory).is_err();
        drop(lease);
        drop(watch);
        drop(directory);
        // SAFETY: ends the child without its parent's handlers.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let mut status = 0;
    // SAFETY: the status outlives the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "status {status:#x}");
    assert_eq!(server.revision(), revision, "the child has changed nothing");
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert!(address_of(&directory, "a").is_some() && !lease.lost(), "the parent holds its name");
    assert!(watch.next(std::time::Duration::from_secs(1)).unwrap().is_some());
    drop(lease);
    assert_eq!(address_of(&directory, "a"), None);
}
