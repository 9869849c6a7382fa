//! Two engines over the devices of a stand-in.

use std::sync::Arc;
use std::time::Duration;

use flagcx_p2p::internals::engine::{Engine, EngineOptions, RegisteredBuffer};
use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice, FabricOptions, Opcode, VerbsOptions};
use flagcx_p2p::internals::observe::RailStatus;
use flagcx_p2p::internals::transfer::{Outcome, TransferId};

use crate::nics::{ENOUGH, PATIENT, carried, make_rails, moved, up, use_again};
use crate::nullverbs::Standin;
use crate::support::own_time::OwnTime;
use crate::support::{self, Pair, blocks, content, eventually, outcome};
use crate::{GUARD, MOST_TURNS};

/// An engine over the devices that `hca` names; all of them if it is empty.
fn engine(standin: &Standin, hca: &str, settings: &[(&str, &str)]) -> Arc<Engine> {
    let verbs = VerbsOptions { hca: hca.to_owned(), ..standin.options() };
    let options = FabricOptions { choice: FabricChoice::Verbs, verbs, ..FabricOptions::default() };
    let devices = Some(Arc::new(DeviceList::open(&options).unwrap()));
    let all = [
        ("FLAGCX_P2P_FABRIC", "verbs"),
        ("FLAGCX_P2P_BIND", "127.0.0.1"),
        ("FLAGCX_P2P_XFER_TIMEOUT_MS", "10000"),
    ];
    Engine::open(support::config(&[settings, &all].concat()), EngineOptions { gpu_index: 0, devices })
        .unwrap()
}

/// The number in the name of a device, such as `nv3:1`.
pub(crate) fn device_number(name: &str) -> u64 {
    name.trim_start_matches("nv").split(':').next().and_then(|digits| digits.parse().ok()).unwrap()
}

/// Ports that are hardly faster than the machine copies. If they were as fast as those of NICs, a transfer would be to end sooner than a rail
/// answers on a busy machine, where its threads wait for a processor, and that rail would get nothing.
const SLOW_PORTS: (&str, u64) = ("port_speed", 1);

/// Eight devices, or what `profile` and `settings` make of them, and two engines that have all of them.
pub(crate) struct Bench {
    pub(crate) standin: Standin,
    pub(crate) pair: Pair,
}

impl Bench {
    /// No rail of it is found silent.
    pub(crate) fn new(profile: &str, settings: &[(&str, u64)]) -> Self {
        Self::of(profile, settings, &[PATIENT])
    }

    pub(crate) fn of(profile: &str, settings: &[(&str, u64)], of_engines: &[(&str, &str)]) -> Self {
        let standin = Standin::playing(profile, &[settings, &[SLOW_PORTS]].concat());
        let [client, server] = [(); 2].map(|()| engine(&standin, "", of_engines));
        Self { standin, pair: Pair::between(client, server, ENOUGH) }
    }

    /// Each end has these of the eight devices.
    pub(crate) fn of_devices([near, far]: [&str; 2]) -> Self {
        let standin = Standin::playing("eight_devices", &[("troubles", 1), SLOW_PORTS]);
        let [client, server] = [near, far].map(|hca| engine(&standin, hca, &[PATIENT]));
        Self { standin, pair: Pair::between(client, server, ENOUGH) }
    }

    /// No rail of it is found silent.
    pub(crate) fn with_rails(profile: &str, settings: &[(&str, u64)], count: usize) -> Self {
        Self::new(profile, &[settings, &[("troubles", 1)]].concat()).make_rails(count)
    }

    /// Eight devices, of which rails that are silent are found, as by default.
    pub(crate) fn watchful(settings: &[(&str, u64)]) -> Self {
        Self::of("eight_devices", &[settings, &[("troubles", 1)]].concat(), &[]).make_rails(8)
    }

    pub(crate) fn make_rails(self, count: usize) -> Self {
        make_rails(&self.pair.here, &self.pair.source, self.pair.target.address(), count);
        self
    }

    /// Begins a transfer of which `rail` has a part that waits, as its device is silent. Which rails a transfer takes depends on rates that were
    /// measured, so one that has met the others only is followed by another one. Also how many parts were moved before.
    pub(crate) fn hold(&self, opcode: Opcode, rail: usize, seed: u64) -> (TransferId, Vec<u8>, u64) {
        for turn in 0..MOST_TURNS {
            let (all, before) = (moved(&self.pair.here), self.pair.here.rails()[rail].moved_parts);
            self.standin.set("silent_devices", 1 << self.device(rail));
            let (id, bytes) = self.start(opcode, seed + turn);
            let found = &self.pair.here.rails()[rail];
            // On a busy machine its silence may have been found already.
            if found.in_flight_bytes > 0 || found.moved_parts > before {
                return (id, bytes, all);
            }
            self.finish(opcode, &(id, bytes), "without the rail");
            self.standin.set("silent_devices", 0);
            // A question may have found it silent: then it is left for a moment, and avoided for longer.
            use_again(&self.pair.here, rail, || self.check_all(Opcode::Write, seed + turn));
        }
        panic!("no part came to rail {rail}: {:#?}", self.pair.here.rails())
    }

    pub(crate) fn start(&self, opcode: Opcode, seed: u64) -> (TransferId, Vec<u8>) {
        let bytes = blocks(seed, ENOUGH);
        let (from, to) = self.ends(opcode);
        assert!(from.write(0, &bytes) && to.write(0, &vec![GUARD; ENOUGH]));
        (self.pair.here.submit(opcode, &[self.pair.iov(0, 0, ENOUGH as u64)][..]).unwrap(), bytes)
    }

    pub(crate) fn ends(&self, opcode: Opcode) -> (&RegisteredBuffer, &RegisteredBuffer) {
        match opcode {
            Opcode::Write => (&self.pair.source, &self.pair.target),
            Opcode::Read => (&self.pair.target, &self.pair.source),
        }
    }

    pub(crate) fn finish(&self, opcode: Opcode, (id, bytes): &(TransferId, Vec<u8>), what: &str) {
        let rails = || self.pair.here.rails();
        assert_eq!(outcome(&self.pair.here, *id), Outcome::Done, "{what}: {:#?}", rails());
        assert!(content(self.ends(opcode).1) == *bytes, "{what}: done, and other bytes are there");
    }

    pub(crate) fn check_all(&self, opcode: Opcode, seed: u64) {
        self.finish(opcode, &self.start(opcode, seed), &format!("{opcode:?} {seed}"));
    }

    /// The device of rail `rail`, by its number.
    pub(crate) fn device(&self, rail: usize) -> u64 {
        device_number(&self.pair.here.rails()[rail].nic)
    }

    /// Until `rail` is up and used. On a busy machine another one may be silent just then.
    pub(crate) fn expect_return(&self, rail: usize) -> Duration {
        let (time, before) = (OwnTime::start(), carried(&self.pair.here)[rail]);
        let is_up = || self.pair.here.rails()[rail].status == RailStatus::Up;
        while !is_up() || carried(&self.pair.here)[rail] == before {
            self.check_all(Opcode::Write, 3);
            assert!(!time.exceeds(Duration::from_secs(6)), "{:#?}", self.pair.here.rails());
        }
        time.elapsed()
    }

    /// No fault of a device has left another one's rail out for good.
    pub(crate) fn expect_all(&self) {
        eventually("all rails are up", || {
            self.check_all(Opcode::Write, 3);
            up(&self.pair.here).len() == 8
        });
    }

    /// Closes both engines. No queue pair, region or completion queue of any device stays.
    pub(crate) fn close(self) {
        let Self { standin, pair } = self;
        pair.client.close();
        pair.server.close();
        drop(pair);
        eventually("nothing is alive", || {
            let live = standin.live();
            (live.queue_pairs, live.regions, live.completion_queues) == (0, 0, 0)
        });
    }
}
