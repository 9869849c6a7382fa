//! Faults that are ordered, and queues that overrun.

use super::*;

#[test]
fn ordered_failures_come_on_every_path_and_are_counted() {
    for path in PATHS {
        let (mut rig, device) =
            rig(SoftwareOptions { faults: "fail=at:3:remote-operation".to_owned(), ..forced(path) });
        let mut side = Initiator::new(&mut rig);
        let local = Window::new(&rig.device, 64, 1);
        let remote = rig.peer.buffer(64, 0, Access::FULL);
        let write = request(remote.address, remote.rkey, 0);
        side.post_all(&writes(1, &[write; 5], &[local.sge(0, 64)]));
        let expected = [
            CompletionStatus::Success,
            CompletionStatus::Success,
            CompletionStatus::RemoteOperation,
            CompletionStatus::Flushed,
            CompletionStatus::Flushed,
        ];
        assert_eq!(statuses(&side.wait(5)), expected, "{path}");
        assert_eq!(device.faults_injected(), 1, "{path}");
    }
}

#[test]
fn a_post_is_refused_where_ordered_and_a_peer_dropped_where_ordered() {
    for path in PATHS {
        let faults = "refuse=at:3;drop-peer=after:4".to_owned();
        let (mut rig, device) = rig(SoftwareOptions { faults, ..forced(path) });
        let mut side = Initiator::new(&mut rig);
        let local = Window::new(&rig.device, 64, 1);
        let remote = rig.peer.buffer(64, 0, Access::FULL);
        let write = request(remote.address, remote.rkey, 0);
        let entries = [local.sge(0, 64)];
        assert_eq!(side.post(&writes(1, &[write; 6], &entries)), Posted::cut(2, libc::ENOMEM));
        side.post_all(&writes(1, &[write; 4], &entries));
        let found = statuses(&side.wait(6));
        // On TCP, requests that were sent and not yet answered go down with the connection.
        let failed = found.iter().position(|status| *status != CompletionStatus::Success).unwrap();
        assert!(failed == 4 || (failed < 4 && path == PathKind::Tcp), "{path}: {found:?}");
        assert_eq!(found[failed], CompletionStatus::RetryExceeded, "{path}");
        assert!(found[failed + 1..].iter().all(|status| *status == CompletionStatus::Flushed));
        assert_eq!(device.faults_injected(), 2, "{path}");
        let counterpart = side.counterpart;
        within(Duration::from_secs(1), "the other side notices", || rig.peer.is_broken(counterpart));
    }
}

#[test]
fn delays_delay() {
    for path in PATHS {
        let (mut rig, _) = rig(SoftwareOptions { faults: "delay=us:20000".to_owned(), ..forced(path) });
        let mut side = Initiator::new(&mut rig);
        let local = Window::new(&rig.device, 64, 1);
        let remote = rig.peer.buffer(64, 0, Access::FULL);
        let write = request(remote.address, remote.rkey, 0);
        let started = Instant::now();
        side.post_all(&writes(1, &[write; 5], &[local.sge(0, 64)]));
        side.wait(5);
        assert!(started.elapsed() >= Duration::from_millis(100), "{path}: {:?}", started.elapsed());
    }
}

#[test]
fn more_outstanding_requests_than_the_completion_queue_holds_are_fatal() {
    let (mut rig, device) = rig(forced(PathKind::InProcess));
    let mut side = Initiator::with(&mut rig, &caps(), 4);
    let local = Window::new(&rig.device, 64, 1);
    let remote = rig.peer.buffer(64, 0, Access::FULL);
    let write = request(remote.address, remote.rkey, 0);
    side.post_all(&writes(1, &[write; 5], &[local.sge(0, 64)]));
    assert!(side.completions.poll(&mut [Completion::default(); 8]).is_err());
    assert_eq!(device.poll_event(), Some(DeviceEvent::CompletionQueueFatal));
    assert!(side.queue_pair.is_broken());
}

#[test]
fn silent_requests_count_for_the_completion_queue_once_they_are_flushed() {
    let (mut rig, device) = rig(forced(PathKind::InProcess));
    let mut side = Initiator::with(&mut rig, &caps(), 4);
    let local = Window::new(&rig.device, 64, 1);
    let remote = rig.peer.buffer(64, 0, Access::FULL);
    let (requests, entries) = ([request(remote.address, remote.rkey, 0); 8], [local.sge(0, 64)]);
    let silent = Batch { signal_every: 0, ..writes(1, &requests, &entries) };
    side.post_all(&silent);
    assert_eq!(side.completions.poll(&mut [Completion::default(); 8]).unwrap(), 1, "the last one's");
    side.post_all(&silent);
    side.queue_pair.set_error().unwrap();
    // Eight completions are due now, and the queue holds four.
    while side.completions.poll(&mut [Completion::default(); 1]).is_ok() {}
    assert_eq!(device.poll_event(), Some(DeviceEvent::CompletionQueueFatal));
}
