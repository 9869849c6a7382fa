//! Two ends with NICs that fail one by one: software NICs, or stand-ins of real ones.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use flagcx_p2p::internals::engine::{Engine, EngineOptions};
use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice, FabricOptions, PathKind, VerbsOptions};

use crate::chaos::nics::Nics;
use crate::chaos::nullverbs::{Event, Standin};
use crate::chaos::random::Random;
use crate::chaos::rig::Settings;
use crate::chaos::standins::{self, COUNT, End};
use crate::support;

/// How late flushed WRITEs of software NICs arrive: into a later round, or into this one's guards.
const LATE: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Completes nothing.
    Silent,
    /// Takes milliseconds for each request.
    Slow,
    /// Every so many requests fail.
    Failing,
    /// Its queue pairs fail once.
    Broken,
    /// Its port goes down.
    Port,
    /// Completes nothing, and flushes nothing either: its queue pairs do not drain, and have to be destroyed.
    Stuck,
    /// Completes nothing, and refuses to move its queue pairs to ERROR: what they hold is sent once it is well again.
    Stiff,
}

const FAULTS: [Fault; 5] = [Fault::Silent, Fault::Slow, Fault::Failing, Fault::Broken, Fault::Port];

const FAULTS_OF_STANDINS: [Fault; 7] =
    [Fault::Silent, Fault::Slow, Fault::Failing, Fault::Broken, Fault::Port, Fault::Stuck, Fault::Stiff];

/// What a stand-in does to requests of its peer, where it has nothing to do with those that it posts.
const FAULTS_OF_TARGETS: [Fault; 4] = [Fault::Silent, Fault::Broken, Fault::Port, Fault::Stiff];

pub trait Ends {
    fn engine(&self, end: End, settings: &Settings<'_>) -> Arc<Engine>;

    /// Those that a NIC of that end may have.
    fn faults(&self, end: End) -> &'static [Fault];

    fn strike(&self, end: End, nic: usize, fault: Fault, random: &mut Random);

    /// No faults any more, but for devices that are lost.
    fn heal(&self);

    /// It is gone for good.
    fn lose(&self, end: End, nic: usize);

    /// Before a round.
    fn prepare(&self) {}

    /// Both engines have ended.
    fn expect_nothing(&self) {}
}

/// The NICs of this end and of the other one.
pub struct SoftwareEnds([Nics; 2]);

impl SoftwareEnds {
    pub fn on_path(path: Option<PathKind>) -> Self {
        Self([path; 2].map(|path| Nics::on_path(COUNT as u32, path)))
    }

    fn nics(&self, end: End) -> &Nics {
        &self.0[end as usize]
    }
}

impl Ends for SoftwareEnds {
    fn engine(&self, end: End, settings: &Settings<'_>) -> Arc<Engine> {
        self.nics(end).engine(settings)
    }

    fn faults(&self, _end: End) -> &'static [Fault] {
        &FAULTS
    }

    fn strike(&self, end: End, nic: usize, fault: Fault, random: &mut Random) {
        let nics = self.nics(end);
        let switches = nics.switches(nic);
        match fault {
            Fault::Silent => switches.set_silent(true),
            Fault::Slow => switches.set_delay(Duration::from_millis(1 + random.below(5))),
            Fault::Failing => switches.set_failing(1 + random.below(3)),
            Fault::Broken => nics.devices[nic].break_queue_pairs(),
            Fault::Port => nics.set_port(nic, false),
            Fault::Stuck | Fault::Stiff => panic!("software NICs drain"),
        }
    }

    fn heal(&self) {
        self.0.iter().for_each(Nics::heal);
    }

    fn lose(&self, end: End, nic: usize) {
        self.nics(end).lose(nic);
    }

    fn prepare(&self) {
        (0..COUNT as usize).for_each(|nic| self.nics(End::Here).switches(nic).set_late(LATE));
    }
}

/// Stand-ins of both ends. The masks have a bit for each device.
pub struct StandinEnds {
    standin: Standin,
    silent: Cell<u64>,
    slow: Cell<u64>,
    failing: Cell<u64>,
    stuck: Cell<u64>,
    stiff: Cell<u64>,
    down: Cell<u64>,
}

impl StandinEnds {
    pub fn open() -> Self {
        let [silent, slow, failing, stuck, stiff, down] = [0; 6].map(Cell::new);
        Self { standin: standins::open(), silent, slow, failing, stuck, stiff, down }
    }

    fn add(&self, setting: &str, mask: &Cell<u64>, device: u64) {
        mask.set(mask.get() | 1 << device);
        self.standin.set(setting, mask.get());
    }
}

impl Ends for StandinEnds {
    fn engine(&self, end: End, settings: &Settings<'_>) -> Arc<Engine> {
        let verbs = VerbsOptions { hca: standins::names_of(end).to_owned(), ..self.standin.options() };
        let options = FabricOptions { choice: FabricChoice::Verbs, verbs, ..FabricOptions::default() };
        // Opened anew: a device that was lost is there again.
        let devices = Some(Arc::new(DeviceList::open(&options).unwrap()));
        let bind = ("FLAGCX_P2P_BIND", "127.0.0.1");
        let config = support::config(&[settings, &[bind]].concat());
        Engine::open(config, EngineOptions { gpu_index: 0, devices }).unwrap()
    }

    fn faults(&self, end: End) -> &'static [Fault] {
        match end {
            End::Here => &FAULTS_OF_STANDINS,
            End::There => &FAULTS_OF_TARGETS,
        }
    }

    fn strike(&self, end: End, nic: usize, fault: Fault, random: &mut Random) {
        let device = standins::device_of(end, nic as u64);
        match fault {
            Fault::Silent => self.add("silent_devices", &self.silent, device),
            Fault::Slow => {
                self.standin.set("slow_ns", 1_000_000 * (1 + random.below(5)));
                self.add("slow_devices", &self.slow, device);
            }
            Fault::Failing => {
                self.standin.set("fail_every", 1 + random.below(3));
                self.add("failing_devices", &self.failing, device);
            }
            Fault::Broken => self.standin.raise_on(Event::QueuePairFatal, device as i32),
            Fault::Port => {
                self.down.set(self.down.get() | 1 << device);
                self.standin.raise_on(Event::PortDown, device as i32);
            }
            Fault::Stuck => {
                self.add("stuck_devices", &self.stuck, device);
                self.add("silent_devices", &self.silent, device);
            }
            Fault::Stiff => {
                self.add("stiff_devices", &self.stiff, device);
                self.add("silent_devices", &self.silent, device);
            }
        }
    }

    fn heal(&self) {
        for (setting, mask) in [
            ("failing_devices", &self.failing),
            ("stuck_devices", &self.stuck),
            ("stiff_devices", &self.stiff),
            ("slow_devices", &self.slow),
            ("silent_devices", &self.silent),
        ] {
            mask.set(0);
            self.standin.set(setting, 0);
        }
        let down = self.down.take();
        let devices = (0..2 * COUNT).filter(|device| down >> device & 1 == 1);
        devices.for_each(|device| self.standin.raise_on(Event::PortUp, device as i32));
    }

    fn lose(&self, end: End, nic: usize) {
        self.standin.raise_on(Event::DeviceFatal, standins::device_of(end, nic as u64) as i32);
    }

    fn expect_nothing(&self) {
        support::eventually("nothing is alive in the stand-ins", || {
            self.standin.live() == Default::default()
        });
    }
}
