//! Faults that are switched on and off while devices are at work.

use super::*;
use flagcx_p2p::internals::fabric::software::FaultSwitches;

/// Both ends on devices with switches.
struct Switched {
    rig: Rig,
    here: Arc<SoftwareDevice>,
    there: Arc<SoftwareDevice>,
}

impl Switched {
    fn new(path: PathKind) -> Self {
        let options = SoftwareOptions { switches: true, ..forced(path) };
        let (here, there) = (open(options.clone()), open(options));
        let peer = Box::new(LocalPeer::new(Arc::clone(&there) as Arc<dyn Device>));
        let rig = Rig { device: Arc::clone(&here) as Arc<dyn Device>, peer, path };
        Self { rig, here, there }
    }

    fn switches(&self) -> &FaultSwitches {
        self.here.switches().unwrap()
    }
}

/// A WRITE or READ of 64 bytes in either direction, each into bytes of its own.
struct Requests {
    side: Initiator,
    local: Window,
    remote: peer::RemoteBuffer,
}

impl Requests {
    fn new(rig: &mut Rig) -> Self {
        let side = Initiator::new(rig);
        let local = Window::patterned(&rig.device, 64);
        let remote = rig.peer.buffer(64, 0, Access::FULL);
        Self { side, local, remote }
    }

    fn write(&mut self, count: usize) {
        let request = request(self.remote.address, self.remote.rkey, 0);
        self.side.post_all(&writes(1, &vec![request; count], &[self.local.sge(0, 64)]));
    }

    fn arrived(&self, rig: &mut Rig) -> bool {
        rig.peer.bytes(self.remote.index) == self.local.bytes()
    }
}

#[test]
fn a_silent_device_completes_nothing_and_goes_on_when_it_is_back() {
    for path in PATHS {
        let mut switched = Switched::new(path);
        let mut requests = Requests::new(&mut switched.rig);
        requests.write(1);
        assert_eq!(statuses(&requests.side.wait(1)), [CompletionStatus::Success], "{path}");
        switched.rig.peer.set_bytes(requests.remote.index, &[0; 64]);
        switched.switches().set_silent(true);
        requests.write(3);
        requests.side.expect_none();
        assert!(!requests.arrived(&mut switched.rig), "{path}");
        switched.switches().set_silent(false);
        assert_eq!(statuses(&requests.side.wait(3)), [CompletionStatus::Success; 3], "{path}");
        assert!(requests.arrived(&mut switched.rig), "{path}");
    }
}

/// Between processes a copy needs nothing of the other end's device.
#[test]
fn nothing_arrives_at_a_silent_device_or_at_a_port_that_is_down() {
    for path in [PathKind::InProcess, PathKind::Tcp] {
        let mut switched = Switched::new(path);
        let mut requests = Requests::new(&mut switched.rig);
        for silence in [true, false] {
            let quiet = |on: bool| match silence {
                true => switched.there.switches().unwrap().set_silent(on),
                false => switched.there.set_port(!on),
            };
            switched.rig.peer.set_bytes(requests.remote.index, &[0; 64]);
            quiet(true);
            requests.write(1);
            requests.side.expect_none();
            assert_eq!(switched.there.port().unwrap().active, silence, "{path}");
            assert!(!requests.arrived(&mut switched.rig), "{path}");
            quiet(false);
            assert_eq!(statuses(&requests.side.wait(1)), [CompletionStatus::Success], "{path}");
            assert!(requests.arrived(&mut switched.rig), "{path}");
        }
        let events: Vec<_> = std::iter::from_fn(|| switched.there.poll_event()).collect();
        assert_eq!(events, [DeviceEvent::PortDown, DeviceEvent::PortUp], "{path}");
    }
}

#[test]
fn what_a_silent_device_holds_is_flushed_and_does_not_arrive_later() {
    for path in PATHS {
        let mut switched = Switched::new(path);
        let mut requests = Requests::new(&mut switched.rig);
        switched.switches().set_silent(true);
        requests.write(2);
        requests.side.queue_pair.set_error().unwrap();
        assert_eq!(statuses(&requests.side.wait(2)), [CompletionStatus::Flushed; 2], "{path}");
        switched.switches().set_silent(false);
        std::thread::sleep(Duration::from_millis(5));
        assert!(!requests.arrived(&mut switched.rig), "{path}");
    }
}

#[test]
fn every_so_many_requests_fail_while_that_is_switched_on() {
    for path in PATHS {
        let mut switched = Switched::new(path);
        switched.switches().set_failing(3);
        let mut requests = Requests::new(&mut switched.rig);
        requests.write(4);
        let failed = [
            CompletionStatus::Success,
            CompletionStatus::Success,
            CompletionStatus::RetryExceeded,
            CompletionStatus::Flushed,
        ];
        assert_eq!(statuses(&requests.side.wait(4)), failed, "{path}");
        assert_eq!(switched.switches().injected(), 1, "{path}");
        switched.switches().clear();
        let mut requests = Requests::new(&mut switched.rig);
        requests.write(9);
        assert_eq!(statuses(&requests.side.wait(9)), [CompletionStatus::Success; 9], "{path}");
    }
}

#[test]
fn a_slow_device_takes_its_time_for_each_request() {
    for path in PATHS {
        let mut switched = Switched::new(path);
        let mut requests = Requests::new(&mut switched.rig);
        switched.switches().set_delay(Duration::from_millis(4));
        let started = Instant::now();
        requests.write(5);
        requests.side.wait(5);
        assert!(started.elapsed() >= Duration::from_millis(20), "{path}: {:?}", started.elapsed());
    }
}

#[test]
fn a_lost_device_flushes_everything_and_makes_nothing_any_more() {
    for path in PATHS {
        let mut switched = Switched::new(path);
        let mut requests = Requests::new(&mut switched.rig);
        switched.switches().set_silent(true);
        requests.write(2);
        switched.here.lose();
        assert_eq!(statuses(&requests.side.wait(2)), [CompletionStatus::Flushed; 2], "{path}");
        assert_eq!(switched.here.poll_event(), Some(DeviceEvent::DeviceFatal), "{path}");
        let device = Arc::clone(&switched.rig.device);
        assert!(device.check_use().is_err() && Arc::clone(&device).create_completion_queue(16).is_err());
        let queue = requests.side.completions.handle();
        let error = device.create_queue_pair(&queue, &caps()).unwrap_err();
        assert!(error.to_string().contains("No such device"), "{error}");
    }
}

/// Why a WRITE moves to another device only when the other end's queue pair is in ERROR as well.
#[test]
fn flushed_writes_arrive_late_until_the_other_end_is_in_error() {
    let late = Duration::from_millis(20);
    for ends_there in [false, true] {
        let mut switched = Switched::new(PathKind::InProcess);
        let mut requests = Requests::new(&mut switched.rig);
        switched.switches().set_silent(true);
        switched.switches().set_late(late);
        requests.write(1);
        requests.side.queue_pair.set_error().unwrap();
        assert_eq!(statuses(&requests.side.wait(1)), [CompletionStatus::Flushed]);
        if ends_there {
            switched.rig.peer.set_error(requests.side.counterpart);
            std::thread::sleep(2 * late);
        } else {
            within(PATIENCE, "it lands", || switched.switches().landed() == 1);
        }
        assert_eq!(requests.arrived(&mut switched.rig), !ends_there);
        assert_eq!(switched.switches().landed(), u64::from(!ends_there));
    }
}

const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn devices_without_switches_have_no_such_faults() {
    let device = open(SoftwareOptions::default());
    device.set_port(false);
    device.lose();
    assert!(device.switches().is_none() && device.check_use().is_ok() && device.port().unwrap().active);
    assert_eq!(device.poll_event(), None);
}
