//! What is closed leaves nothing, and what is at rest costs no socket.

use super::*;

#[test]
fn closing_devices_leaves_no_thread_and_no_descriptor() {
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let cycle = || {
        for path in PATHS {
            let (mut rig, _) = rig(forced(path));
            let mut side = Initiator::new(&mut rig);
            let local = Window::new(&rig.device, 64, 1);
            let remote = rig.peer.buffer(64, 0, Access::FULL);
            side.post_all(&writes(1, &[request(remote.address, remote.rkey, 0)], &[local.sge(0, 64)]));
            side.wait(1);
            // Still outstanding when everything goes.
            side.post_all(&writes(1, &[request(remote.address, remote.rkey, 0)], &[local.sge(0, 64)]));
        }
    };
    // Other tests of this process come and go meanwhile, hence in a process of its own.
    if std::env::var(ROLE).as_deref() != Ok("leak check") {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "closing::closing_devices_leaves_no_thread_and_no_descriptor",
                "--test-threads=1",
            ])
            .env(ROLE, "leak check")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    cycle();
    let before = (count("fd"), count("task"));
    (0..10).for_each(|_| cycle());
    assert_eq!((count("fd"), count("task")), before);
}

/// More queue pairs than sockets stay open of a completion queue: those that connect later have none until something is posted.
#[test]
fn a_socket_at_rest_is_closed_and_opened_again() {
    const COUNT: usize = 36;
    let (mut rig, _) = rig(forced(PathKind::Tcp));
    let mut completions = Arc::clone(&rig.device).create_completion_queue(4 * COUNT as u32).unwrap();
    let mut queue_pairs = Vec::new();
    let mut counterparts = Vec::new();
    for _ in 0..COUNT {
        let handle = completions.handle();
        let mut queue_pair = Arc::clone(&rig.device).create_queue_pair(&handle, &caps()).unwrap();
        let (counterpart, address) = rig.peer.queue_pair();
        queue_pair.connect(&address, &peer::path()).unwrap();
        rig.peer.connect(counterpart, &queue_pair.address());
        queue_pairs.push(queue_pair);
        counterparts.push(counterpart);
    }
    let local = Window::patterned(&rig.device, 64);
    let remote = rig.peer.buffer(64 * COUNT, 0, Access::FULL);
    let mut wait = |what: &str| {
        let mut out = [Completion::default()];
        within(Duration::from_secs(5), what, || completions.poll(&mut out).unwrap() == 1);
        out[0].status
    };
    // Twice: over a socket that is opened, and one that is open.
    for _ in 0..2 {
        for (number, queue_pair) in queue_pairs.iter_mut().enumerate() {
            let write = request(remote.address + 64 * number as u64, remote.rkey, 0);
            assert_eq!(queue_pair.post(&writes(1, &[write], &[local.sge(0, 64)])).accepted, 1);
            assert_eq!(wait("the write is done"), CompletionStatus::Success, "{number}");
            assert!(!queue_pair.is_broken());
        }
    }
    assert_eq!(rig.peer.bytes(remote.index), local.bytes().repeat(COUNT));
    // At rest again, and the counterpart fails meanwhile: the next request finds that out.
    let last = queue_pairs.last_mut().unwrap();
    std::thread::sleep(Duration::from_millis(600));
    for _ in 0..3 {
        completions.poll(&mut [Completion::default()]).unwrap();
        std::thread::sleep(Duration::from_millis(600));
    }
    assert!(!last.is_broken() && !rig.peer.is_broken(counterparts[COUNT - 1]));
    rig.peer.set_error(counterparts[COUNT - 1]);
    let write = request(remote.address, remote.rkey, 0);
    assert_eq!(last.post(&writes(1, &[write], &[local.sge(0, 64)])).accepted, 1);
    let mut out = [Completion::default()];
    within(Duration::from_secs(5), "the write fails", || completions.poll(&mut out).unwrap() == 1);
    assert_eq!(out[0].status, CompletionStatus::RetryExceeded);
    assert!(last.is_broken());
}
