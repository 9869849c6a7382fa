//! A connected pair of engines for fault injection.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::Engine;

use super::arena::{Arena, Far};
use super::buffer::{Buffer, Memory};
use super::peer::Peer;
use super::standins::{self, End};
use super::tally::Tally;
use crate::support;

/// Bytes of each buffer: 32 KiB, and over several rails eight times that. A transfer takes up to a quarter, and so many bytes end sooner over two rails.
pub fn length() -> usize {
    times_as_long() * (32 << 10)
}

pub fn times_as_long() -> usize {
    if support::rails() == 1 { 1 } else { 8 }
}

/// The least bytes of a transfer in a quarter of it: over several rails half of it.
pub fn least_bytes() -> usize {
    if support::rails() == 1 { 0 } else { length() / 8 }
}

/// Bytes that further rails have carried for this process, of the connections that were noted.
static FURTHER_BYTES: AtomicU64 = AtomicU64::new(0);

/// Counts what the further rails of a connection have carried.
pub fn note_further_bytes(connection: &Connection) {
    let bytes = connection.rails().iter().skip(1).map(|rail| rail.written_bytes + rail.read_bytes).sum();
    FURTHER_BYTES.fetch_add(bytes, Ordering::Relaxed);
}

/// What was counted since the last call.
pub fn take_further_bytes() -> u64 {
    FURTHER_BYTES.swap(0, Ordering::Relaxed)
}

/// How the bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    InProcess,
    /// To another process of this host. With memory of the engine's the path is not forced.
    CrossMemory,
    Tcp,
    /// To another process, in memory that both have mapped.
    Shared,
    /// TCP to another process.
    TcpBetweenProcesses,
    /// Verbs, with both engines in this process.
    Verbs,
    /// Real verbs, to another process.
    VerbsBetweenProcesses,
}

/// The ways to test: all of the software fabric's, or the one of verbs.
pub fn ways() -> &'static [Way] {
    match super::over_verbs() {
        true => &[Way::Verbs],
        false => &[Way::InProcess, Way::CrossMemory, Way::Shared, Way::Tcp],
    }
}

impl Way {
    fn forced_path(self) -> Option<&'static str> {
        match self {
            Self::InProcess => Some("in-process"),
            Self::CrossMemory if Memory::of_run() == Memory::Allocated => None,
            Self::CrossMemory => Some("cross-memory"),
            Self::Shared => Some("shared"),
            Self::Tcp | Self::TcpBetweenProcesses => Some("tcp"),
            Self::Verbs | Self::VerbsBetweenProcesses => None,
        }
    }

    fn between_processes(self) -> bool {
        use Way::{CrossMemory, Shared, TcpBetweenProcesses, VerbsBetweenProcesses};
        matches!(self, CrossMemory | Shared | TcpBetweenProcesses | VerbsBetweenProcesses)
    }
}

/// Settings of both ends; later ones win.
pub type Settings<'a> = [(&'a str, &'a str)];

const COMMON: &Settings<'static> = &[
    ("FLAGCX_P2P_QPS_PER_CONN", "2"),
    ("FLAGCX_P2P_WORKERS_PER_POOL", "2"),
    ("FLAGCX_P2P_XFER_TIMEOUT_MS", "8000"),
    ("FLAGCX_P2P_HANDSHAKE_TIMEOUT_MS", "8000"),
    ("FLAGCX_P2P_BIND", "127.0.0.1"),
    // Soft-RoCE takes the default, 7, for ever.
    ("FLAGCX_IB_RETRY_CNT", "6"),
];

/// `settings` over what all rigs have in common.
pub fn settings_for<'a>(way: Way, settings: &Settings<'a>) -> Vec<(&'a str, &'a str)> {
    let path = way.forced_path().map(|path| ("FLAGCX_P2P_PATH", path));
    settings.iter().copied().chain(path).chain(COMMON.iter().copied()).collect()
}

pub struct Rig {
    pub here: Arc<Connection>,
    /// The other end of `here`, if it is in this process.
    pub there: Option<Arc<Connection>>,
    pub arena: Arena,
    pub client: Arc<Engine>,
    pub server: Option<Arc<Engine>>,
    pub peer: Option<Peer>,
    /// Since when nothing has been done.
    broken_since: Cell<Option<Instant>>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        note_further_bytes(&self.here);
    }
}

impl Rig {
    /// Both ends with `settings`.
    pub fn new(way: Way, settings: &Settings<'_>) -> Self {
        let settings = settings_for(way, settings);
        match way.between_processes() {
            true => Self::towards(support::engine(&settings), Peer::start(&settings)),
            false => Self::in_one_process(&settings),
        }
    }

    fn in_one_process(settings: &Settings<'_>) -> Self {
        standins::heal();
        let [client, server] = [End::Here, End::There]
            .map(|end| support::engine(&[settings, &standins::settings_of(end)].concat()));
        Self::between(client, server, length())
    }

    /// Connects two engines of this process, with `length` bytes each.
    pub fn between(client: Arc<Engine>, server: Arc<Engine>, length: usize) -> Self {
        let near = Buffer::new(&client, length);
        let far = Far::Here(Buffer::new(&server, length));
        let (here, there) = support::connect(&client, &server);
        Self {
            here,
            there: Some(there),
            arena: Arena::new(near, far),
            client,
            server: Some(server),
            peer: None,
            broken_since: Cell::new(None),
        }
    }

    /// Connects `client` to a peer in another process.
    pub fn towards(client: Arc<Engine>, peer: Peer) -> Self {
        Self::towards_at("127.0.0.1", client, peer)
    }

    /// The same; the peer is reached at `address`.
    pub fn towards_at(address: &str, client: Arc<Engine>, peer: Peer) -> Self {
        let near = Buffer::new(&client, length());
        let here = client.connect(address, peer.port, 0, false).unwrap();
        support::make_rails(&here);
        let far = Far::There { pid: peer.pid(), address: peer.address, length: length() };
        Self {
            here,
            there: None,
            arena: Arena::new(near, far),
            client,
            server: None,
            peer: Some(peer),
            broken_since: Cell::new(None),
        }
    }

    /// Goes on with another connection, and its rails.
    pub fn go_on_with(&mut self, here: Arc<Connection>) {
        note_further_bytes(&self.here);
        support::make_rails(&here);
        self.here = here;
    }

    /// Waits until nothing of a WRITE that was not done can still arrive: its lanes are rebuilt, or the connection
    /// has ended. Over a NIC in trouble they would not be.
    pub fn settle(&self) {
        standins::heal();
        let settled = || {
            let info = self.here.info();
            info.healthy_lanes == info.lanes || !self.here.is_usable()
        };
        support::eventually("the lanes are rebuilt, or the connection has ended", settled);
    }

    /// After a round that began at `since`: how long it took to be reported, or to recover.
    pub fn note(&self, all_done: bool, since: Instant, tally: &mut Tally) {
        match (all_done, self.broken_since.get()) {
            (true, Some(broken)) => {
                tally.recovery.push(broken.elapsed());
                self.broken_since.set(None);
            }
            (false, broken) => {
                tally.detection.push(since.elapsed());
                self.broken_since.set(Some(broken.unwrap_or_else(Instant::now)));
            }
            (true, None) => {}
        }
    }
}
