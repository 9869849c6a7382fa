//! Engines with several software NICs, of which each has switches for faults.
#![allow(dead_code, unreachable_pub, reason = "a module of each test that includes it, which uses its share")]
#![allow(missing_debug_implementations, missing_docs, reason = "helpers of tests")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::{Engine, EngineOptions, RegisteredBuffer};
use flagcx_p2p::internals::fabric::software::{self, FaultSwitches, SoftwareDevice};
use flagcx_p2p::internals::fabric::{Device, DeviceList, Opcode, PathKind, SoftwareOptions};
use flagcx_p2p::internals::observe::{RailInfo, RailStatus};
use flagcx_p2p::internals::transfer::{Iov, Outcome};

use crate::support;
use crate::support::own_time::OwnTime;

/// The NICs of one end.
pub struct Nics {
    pub devices: Vec<Arc<SoftwareDevice>>,
}

impl Nics {
    /// So many, `sw0` to `sw7` at most.
    pub fn open(count: u32) -> Self {
        Self::on_path(count, None)
    }

    /// The same; bytes take this path.
    pub fn on_path(count: u32, force: Option<PathKind>) -> Self {
        let options =
            SoftwareOptions { device_count: count, switches: true, force, ..SoftwareOptions::default() };
        Self { devices: software::open_software(&options).unwrap() }
    }

    /// One of them by itself.
    pub fn only(&self, nic: usize) -> Self {
        Self { devices: vec![Arc::clone(&self.devices[nic])] }
    }

    /// An engine that has all of them to choose from.
    pub fn engine(&self, settings: &[(&str, &str)]) -> Arc<Engine> {
        let devices = self.devices.iter().map(|device| Arc::clone(device) as Arc<dyn Device>).collect();
        let devices = Some(Arc::new(DeviceList::of(devices)));
        Engine::open(support::config(settings), EngineOptions { gpu_index: 0, devices }).unwrap()
    }

    pub fn switches(&self, nic: usize) -> &FaultSwitches {
        self.devices[nic].switches().unwrap()
    }

    /// Turns a port off or on.
    pub fn set_port(&self, nic: usize, up: bool) {
        self.devices[nic].set_port(up);
    }

    pub fn lose(&self, nic: usize) {
        self.devices[nic].lose();
    }

    /// No faults any more, but for devices that are lost.
    pub fn heal(&self) {
        for (nic, device) in self.devices.iter().enumerate() {
            self.switches(nic).clear();
            if !device.port().unwrap().active {
                device.set_port(true);
            }
        }
    }

    /// Faults of all of them so far.
    pub fn injected(&self) -> u64 {
        (0..self.devices.len()).map(|nic| self.switches(nic).injected()).sum()
    }

    /// WRITEs that arrived after they were flushed, of all of them.
    pub fn landed(&self) -> u64 {
        (0..self.devices.len()).map(|nic| self.switches(nic).landed()).sum()
    }
}

/// What is to be under way for eight rails to be made.
pub const ENOUGH: usize = 32 << 20;

/// A rail that is asked may take as long to answer as threads of a busy machine take to run. For tests in which no rail is silent, or none is to be
/// found silent: there a rail is left for what the test does, and for nothing else.
pub const PATIENT: (&str, &str) = ("FLAGCX_P2P_RAIL_ANSWER_MS", "200");

/// The rails that are up.
pub fn up(connection: &Connection) -> Vec<RailInfo> {
    connection.rails().into_iter().filter(|rail| rail.status == RailStatus::Up).collect()
}

/// The lanes of each rail that work.
pub fn lanes(connection: &Connection) -> Vec<usize> {
    connection.rails().iter().map(|rail| rail.healthy_lanes).collect()
}

/// Whether each rail has all of its lanes: further ones get most of them when they are used.
pub fn has_all_lanes(connection: &Connection) -> bool {
    let lanes = lanes(connection);
    lanes[1..].iter().all(|further| *further == (lanes[0] + 1).min(8))
}

/// Moves [`ENOUGH`] from `near` to the peer's `address` until `count` rails are up, and no more than those.
pub fn make_rails(connection: &Connection, near: &RegisteredBuffer, address: u64, count: usize) {
    make_rails_with(connection, near, address, count, &[Outcome::Done]);
}

/// The same; the transfers may end in each of these ways.
pub fn make_rails_with(
    connection: &Connection,
    near: &RegisteredBuffer,
    address: u64,
    count: usize,
    ends: &[Outcome],
) {
    let remote = connection.describe_remote(address, ENOUGH as u32).unwrap();
    let local = near.address();
    let iov = Iov { local, length: ENOUGH as u64, region: Some(near.region()), remote };
    let (begin, time) = (Instant::now(), OwnTime::start());
    let found = loop {
        let found = up(connection).len();
        if found >= count {
            break found;
        }
        let id = connection.submit(Opcode::Write, &[iov][..]).unwrap();
        let ended = support::outcome(connection, id);
        assert!(ends.contains(&ended), "{ended:?}");
        let rails = connection.rails();
        assert!(!time.exceeds(LONGEST), "{count} rails are not up after {LONGEST:?}: {rails:#?}");
    };
    println!("{count} rails up after {:?}", begin.elapsed());
    assert_eq!(found, count, "{:#?}", connection.rails());
}

/// To make seven rails takes milliseconds where nothing goes wrong.
const LONGEST: Duration = Duration::from_secs(5);

/// Waits until nothing is under way: a part is counted right after the caller may have seen its end.
pub fn settle(connection: &Connection) {
    support::eventually("nothing is under way", || {
        connection.rails().iter().all(|rail| rail.in_flight_bytes == 0)
    });
}

/// Moves bytes by `transfer` until `rail` is up and has carried some of them.
pub fn use_again(connection: &Connection, rail: usize, mut transfer: impl FnMut()) {
    let before = carried(connection)[rail];
    let begin = Instant::now();
    loop {
        transfer();
        let rails = connection.rails();
        if rails[rail].status == RailStatus::Up && carried(connection)[rail] > before {
            return;
        }
        assert!(begin.elapsed() < support::LIMIT, "rail {rail} is not used: {rails:#?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What each rail has carried, of both directions, once nothing is under way.
pub fn carried(connection: &Connection) -> Vec<u64> {
    settle(connection);
    connection.rails().iter().map(|rail| rail.written_bytes + rail.read_bytes).collect()
}

/// Parts that were moved from one rail to another.
pub fn moved(connection: &Connection) -> u64 {
    connection.rails().iter().map(|rail| rail.moved_parts).sum()
}

/// The number in the name of a software NIC, such as `sw3:1`.
pub fn nic_number(name: &str) -> usize {
    let number = name.trim_start_matches("sw").split(':').next().and_then(|digits| digits.parse().ok());
    number.unwrap_or_else(|| panic!("{name} is no software NIC"))
}
