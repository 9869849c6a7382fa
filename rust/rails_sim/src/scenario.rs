//! The scenarios: which NICs there are, what they are given to do, and what goes wrong.

/// Bytes per second of a port of 400 Gb/s.
pub(crate) const FULL: u64 = 50_000_000_000;

/// A millisecond.
pub(crate) const MS: u64 = 1_000_000;

pub(crate) const MIB: u64 = 1 << 20;

/// A row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Speeds of the ports of a sending host and of a receiving one, as the ports say, in bytes per second.
    pub(crate) here: Vec<u64>,
    pub(crate) there: Vec<u64>,
    /// Sending hosts, with one connection each to the one receiver; or one host with so many peers.
    pub(crate) hosts: usize,
    pub(crate) peers: usize,
    pub(crate) load: Load,
    pub(crate) fault: Fault,
    /// What is measured begins and ends then.
    pub(crate) window: (u64, u64),
    /// Bytes per second that the working links carry, in the window.
    pub(crate) ideal: f64,
    /// NICs pause now and then.
    pub(crate) pauses: bool,
    /// READs as well, by the seed.
    pub(crate) reads: bool,
    /// So many of the hosts, the last ones, send to the last NIC of the receiver alone, more than it carries.
    pub(crate) rude: usize,
}

/// What there is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// Each connection has so many transfers in flight, of so many bytes and requests.
    Closed { in_flight: usize, bytes: u64, requests: u32 },
    /// So many transfers in flight over all connections, which have their turns.
    Turns { in_flight: usize, bytes: u64 },
    /// Each GPU has transfers of so many bytes, with NICs `gpu` and `gpu + 1` eligible; the first GPU `factor` times as many as the
    /// others, which have `load` of a NIC.
    Gpus { gpus: usize, bytes: u64, load: f64, factor: f64 },
    /// One transfer.
    Once { bytes: u64 },
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    None,
    /// The last NIC, at an end that the seed chooses, has this part of the rate that its port says.
    Slow(f64),
    /// A way from or to it takes so many nanoseconds longer.
    Late(u64),
    /// It is silent between these times.
    Silent(u64, u64),
    /// All NICs of the peer are silent between these times, each up to half a millisecond later.
    PeerSilent(u64, u64),
    /// Its port is down every other `0` nanoseconds, from `1` on.
    Flaps(u64, u64),
}

impl Scenario {
    fn pair(name: &'static str) -> Self {
        Self {
            name,
            here: vec![FULL; 8],
            there: vec![FULL; 8],
            hosts: 1,
            peers: 1,
            load: Load::Closed { in_flight: 64, bytes: 64 * MIB, requests: 1 },
            fault: Fault::None,
            window: (30 * MS, 60 * MS),
            ideal: 8.0 * FULL as f64,
            pauses: true,
            reads: false,
            rude: 0,
        }
    }

    pub(crate) fn a() -> Self {
        Self::pair("A: equal NICs")
    }

    pub(crate) fn b() -> Self {
        Self {
            fault: Fault::Slow(0.5),
            ideal: 7.5 * FULL as f64,
            window: (40 * MS, 80 * MS),
            ..Self::pair("B: one NIC of half the rate")
        }
    }

    pub(crate) fn c() -> Self {
        Self { fault: Fault::Late(25_000), ..Self::pair("C: one NIC 50 us later") }
    }

    /// Of C, and of A to compare with: transfers of 1 MiB.
    pub(crate) fn small(late: bool) -> Self {
        let name = if late { "C, 1 MiB: one NIC 50 us later" } else { "A, 1 MiB: equal NICs" };
        let fault = if late { Fault::Late(25_000) } else { Fault::None };
        let load = Load::Closed { in_flight: 64, bytes: MIB, requests: 1 };
        Self { fault, load, window: (2 * MS, 7 * MS), ..Self::pair(name) }
    }

    pub(crate) fn d() -> Self {
        let name = "D: one NIC silent from 10 to 200 ms";
        let ideal = 7.0 * FULL as f64;
        Self {
            fault: Fault::Silent(10 * MS, 200 * MS),
            window: (26 * MS, 200 * MS),
            ideal,
            reads: true,
            ..Self::pair(name)
        }
    }

    /// Not one of the scenarios that were set: the peer itself, or the way to it, is silent for a while.
    pub(crate) fn k() -> Self {
        Self {
            fault: Fault::PeerSilent(10 * MS, 50 * MS),
            window: (60 * MS, 90 * MS),
            reads: true,
            ..Self::pair("K: the peer silent from 10 to 50 ms")
        }
    }

    pub(crate) fn e() -> Self {
        let name = "E: a port that flaps every 20 ms";
        let ideal = 7.5 * FULL as f64;
        Self {
            fault: Fault::Flaps(10 * MS, 20 * MS),
            window: (20 * MS, 160 * MS),
            ideal,
            reads: true,
            ..Self::pair(name)
        }
    }

    pub(crate) fn f() -> Self {
        let load = Load::Closed { in_flight: 4, bytes: 64 * MIB, requests: 1 };
        Self { hosts: 16, load, window: (40 * MS, 100 * MS), ..Self::pair("F: 16 peers write to one") }
    }

    /// Of F as well: a NIC of the receiver that four other hosts send more than it carries, so that completions of it are rare.
    pub(crate) fn contended() -> Self {
        let load = Load::Closed { in_flight: 2, bytes: 16 * MIB, requests: 1 };
        Self {
            hosts: 20,
            rude: 4,
            load,
            window: (10 * MS, 60 * MS),
            ..Self::pair("F, contended: one NIC of the receiver busy")
        }
    }

    pub(crate) fn g() -> Self {
        let load = Load::Closed { in_flight: 8, bytes: 4 * MIB, requests: 1024 };
        let per_request = crate::network::PER_REQUEST as f64;
        let ideal = 8.0 * 4096.0 * 1e9 / per_request;
        Self { load, ideal, window: (2 * MS, 12 * MS), ..Self::pair("G: batches of 1,024 x 4 KiB") }
    }

    pub(crate) fn h() -> Self {
        let load = Load::Turns { in_flight: 64, bytes: MIB };
        Self { peers: 1000, load, window: (15 * MS, 32 * MS), ..Self::pair("H: 1,000 peers, 1 MiB") }
    }

    pub(crate) fn i() -> Self {
        let load = Load::Gpus { gpus: 8, bytes: 8 * MIB, load: 0.25, factor: 8.0 };
        let ideal = (7.0 * 0.25 + 2.0) * FULL as f64;
        Self { load, ideal, window: (20 * MS, 70 * MS), ..Self::pair("I: 8 GPUs, one with 8 times the load") }
    }

    pub(crate) fn j(reverse: bool) -> Self {
        let (here, there) = (vec![FULL / 2; 4], vec![FULL; 8]);
        let (here, there) = if reverse { (there, here) } else { (here, there) };
        let name = if reverse { "J: 8 x 400 to 4 x 200" } else { "J: 4 x 200 to 8 x 400" };
        Self { here, there, ideal: 2.0 * FULL as f64, window: (60 * MS, 120 * MS), ..Self::pair(name) }
    }

    /// Whether a connection is that of a host that sends to one NIC alone.
    pub(crate) fn is_rude(&self, connection: usize) -> bool {
        self.rude > 0 && connection + self.rude >= self.hosts
    }

    /// One transfer over NICs without jitter and pauses: what a formula says.
    pub(crate) fn once(nics: usize, bytes: u64) -> Self {
        Self {
            here: vec![FULL; nics],
            there: vec![FULL; nics],
            load: Load::Once { bytes },
            window: (0, 1_000 * MS),
            pauses: false,
            ideal: nics as f64 * FULL as f64,
            ..Self::pair("one transfer")
        }
    }

    /// All rows, in the order of the table.
    pub(crate) fn all() -> Vec<Self> {
        vec![
            Self::a(),
            Self::b(),
            Self::c(),
            Self::small(false),
            Self::small(true),
            Self::d(),
            Self::e(),
            Self::f(),
            Self::contended(),
            Self::g(),
            Self::h(),
            Self::i(),
            Self::j(false),
            Self::j(true),
            Self::k(),
        ]
    }
}
