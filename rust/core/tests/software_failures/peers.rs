//! Peers that are killed, stopped, or late.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, kill_process};

use super::*;

#[test]
fn a_killed_peer_fails_what_is_outstanding_within_a_second() {
    const LENGTH: usize = 4 << 20;
    for path in [PathKind::CrossMemory, PathKind::Tcp] {
        let (mut rig, pid) = remote_rig(path);
        let mut side =
            Initiator::with(&mut rig, &QueuePairCaps { send_depth: 256, max_sge: 1, max_inline: 0 }, 256);
        let local = Window::new(&rig.device, LENGTH, 1);
        let remote = rig.peer.buffer(LENGTH, 0, Access::FULL);
        let requests = [request(remote.address, remote.rkey, 0); 256];
        side.post_all(&writes(0, &requests, &[local.sge(0, LENGTH)]));
        assert_eq!(side.wait(2)[1].status, CompletionStatus::Success);
        kill_process(pid, Signal::KILL).unwrap();
        let killed = Instant::now();
        let rest = statuses(&side.wait(254));
        assert!(killed.elapsed() < Duration::from_secs(1), "{path}: {:?}", killed.elapsed());
        let failed = rest.iter().position(|status| *status != CompletionStatus::Success).unwrap();
        assert_eq!(rest[failed], CompletionStatus::RetryExceeded, "{path}");
        assert!(rest[failed + 1..].iter().all(|status| *status == CompletionStatus::Flushed), "{path}");
        assert!(side.queue_pair.is_broken());
    }
}

#[test]
fn a_killed_peer_is_noticed_by_an_idle_queue_pair_within_a_second() {
    for path in [PathKind::CrossMemory, PathKind::Tcp] {
        let (mut rig, pid) = remote_rig(path);
        let mut side = Initiator::new(&mut rig);
        let local = Window::new(&rig.device, 64, 1);
        let remote = rig.peer.buffer(64, 0, Access::FULL);
        assert!(!side.queue_pair.is_broken());
        kill_process(pid, Signal::KILL).unwrap();
        // No thread polls: the responder's thread detects it.
        within(Duration::from_secs(1), "the queue pair is broken", || side.queue_pair.is_broken());
        let write = request(remote.address, remote.rkey, 0);
        side.post_all(&writes(1, &[write; 2], &[local.sge(0, 64)]));
        assert_eq!(statuses(&side.wait(2)), [CompletionStatus::RetryExceeded, CompletionStatus::Flushed]);
    }
}

#[test]
fn a_killed_peer_is_noticed_though_its_child_keeps_its_sockets_open() {
    let mut remote = RemotePeer::start("peer_process", "cross-memory");
    let child: i32 = remote.ask("fork")[0].parse().unwrap();
    let pid = Pid::from_raw(i32::try_from(remote.pid()).unwrap()).unwrap();
    let path = PathKind::CrossMemory;
    let mut rig = Rig { device: open(forced(path)), peer: Box::new(remote), path };
    let mut side = Initiator::new(&mut rig);
    let local = Window::new(&rig.device, 64, 1);
    let buffer = rig.peer.buffer(64, 0, Access::FULL);
    // The first child was forked before there were any; this one holds the sockets of the connection.
    let second = rig.peer.command("fork")[0].parse().unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    within(Duration::from_secs(1), "the queue pair is broken", || side.queue_pair.is_broken());
    side.post_all(&writes(1, &[request(buffer.address, buffer.rkey, 0)], &[local.sge(0, 64)]));
    assert_eq!(statuses(&side.wait(1)), [CompletionStatus::RetryExceeded]);
    for child in [child, second] {
        kill_process(Pid::from_raw(child).unwrap(), Signal::KILL).unwrap();
    }
}

#[test]
fn a_side_that_connects_later_finds_what_was_posted_before() {
    for path in PATHS {
        let (mut rig, _) = rig(forced(path));
        let mut completions = Arc::clone(&rig.device).create_completion_queue(16).unwrap();
        let mut queue_pair =
            Arc::clone(&rig.device).create_queue_pair(&completions.handle(), &caps()).unwrap();
        let (counterpart, address) = rig.peer.queue_pair();
        let local = Window::patterned(&rig.device, 64);
        let remote = rig.peer.buffer(64, 0, Access::FULL);
        let write = request(remote.address, remote.rkey, 0);
        assert_eq!(queue_pair.post(&writes(1, &[write], &[local.sge(0, 64)])), Posted::cut(0, libc::EINVAL));
        queue_pair.connect(&address, &peer::path()).unwrap();
        assert_eq!(queue_pair.post(&writes(1, &[write], &[local.sge(0, 64)])).accepted, 1);
        let mut out = [Completion::default()];
        for _ in 0..20 {
            assert_eq!(completions.poll(&mut out).unwrap(), 0);
            // The time for another look may come between the two.
            let mut again = 0;
            while !completions.arm().unwrap() {
                again += 1;
                assert!(again < 3, "polling would not help, so one may sleep");
                assert_eq!(completions.poll(&mut out).unwrap(), 0);
            }
            std::thread::sleep(Duration::from_millis(1));
            completions.acknowledge().unwrap();
        }
        rig.peer.connect(counterpart, &queue_pair.address());
        within(Duration::from_secs(2), "the write is done", || {
            if completions.arm().unwrap() {
                assert!(becomes_readable(&*completions), "the sleeper is woken");
                completions.acknowledge().unwrap();
            }
            completions.poll(&mut out).unwrap() == 1
        });
        assert_eq!(out[0].status, CompletionStatus::Success, "{path}");
        assert_eq!(rig.peer.bytes(remote.index), local.bytes());
    }
}

fn becomes_readable(queue: &dyn CompletionQueue) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(queue.fd(), PollFlags::IN)];
    let second = Timespec { tv_sec: 1, tv_nsec: 0 };
    poll(&mut fds, Some(&second)).unwrap() == 1
}

#[test]
fn a_stopped_peer_keeps_what_it_pinned_until_it_is_gone() {
    let device = open(forced(PathKind::CrossMemory));
    let mut target = LocalPeer::new(Arc::clone(&device) as Arc<dyn Device>);
    let mut remote = RemotePeer::start("peer_process", "holding initiator");
    let pid = Pid::from_raw(i32::try_from(remote.pid()).unwrap()).unwrap();
    let (queue_pair, address) = target.queue_pair();
    let other = address_from_text(&remote.ask("initiator_address")[0]);
    remote.ask(&format!("initiator_connect {}", address_to_text(&address)));
    target.connect(queue_pair, &other);

    let window = Window::new(&(Arc::clone(&device) as Arc<dyn Device>), 64, 0);
    let untouched = Window::new(&(Arc::clone(&device) as Arc<dyn Device>), 64, 0);
    let rkey = window.region.rkey();
    remote.send(&format!("initiator_write {} {rkey}", window.address()));
    // The peer pins and then sleeps, so from some moment on the region cannot be revoked.
    let mut message = String::new();
    std::thread::sleep(Duration::from_millis(200));
    kill_process(pid, Signal::STOP).unwrap();
    let started = Instant::now();
    if let Err(error) = window.region.revoke(started + Duration::from_millis(100)) {
        message = error.to_string();
    }
    assert!(message.contains(&format!("process {}", remote.pid())), "{message}");
    assert!(started.elapsed() < Duration::from_secs(1));
    untouched.region.revoke(Instant::now()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    window.region.revoke(Instant::now() + Duration::from_secs(1)).unwrap();
    assert!(window.bytes().iter().all(|byte| *byte == 0));
}
