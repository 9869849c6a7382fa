//! Both roles against each other, against scripted original engines of both versions, and against clients that are
//! not peers, over loopback.

mod advertised;
mod auth;
mod byte_order;
mod hostile;
mod next_version;
mod original;
mod ours;
mod raw;
mod runtime_control;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::control::socket::connect;
use crate::control::{Listener, LocalAddress};
use crate::events::Waiter;
use crate::fabric::LINK_SOFTWARE;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Queue pairs that only record what they were connected to.
#[derive(Clone, Debug)]
struct FakeLanes {
    offer: u32,
    link_layer: u8,
    first_qpn: u32,
    created: u32,
    connected: Vec<QpAddress>,
    peer: Option<PeerCapabilities>,
}

impl FakeLanes {
    fn new(first_qpn: u32) -> Self {
        Self { offer: 4, link_layer: LINK_SOFTWARE, first_qpn, created: 0, connected: Vec::new(), peer: None }
    }

    fn peer_qpns(&self) -> Vec<u32> {
        self.connected.iter().map(|address| address.qpn).collect()
    }
}

impl LaneSetup for FakeLanes {
    fn offer(&self) -> u32 {
        self.offer
    }

    fn capabilities(&self) -> LaneCapabilities {
        LaneCapabilities { rd_atomic_initiator: 16, rd_atomic_responder: 32 }
    }

    fn create<'a>(&'a mut self, agreed: u32, _: &'a Waiter) -> LaneFuture<'a, Vec<QpAddress>> {
        self.created = agreed;
        let gid = [0xfe; 16];
        let address = |index| QpAddress {
            qpn: self.first_qpn + index,
            gid,
            port: 1,
            link_layer: self.link_layer,
            lid: 77,
            mtu: 5,
        };
        let addresses = (0..agreed).map(address).collect();
        Box::pin(async { Ok(addresses) })
    }

    fn connect<'a>(
        &'a mut self,
        peers: &'a [QpAddress],
        peer: PeerCapabilities,
        _: Instant,
        _: &'a Waiter,
    ) -> LaneFuture<'a, ()> {
        self.connected = peers.to_vec();
        self.peer = Some(peer);
        Box::pin(async { Ok(()) })
    }
}

fn limits() -> Limits {
    Limits {
        connect_timeout: Duration::from_secs(2),
        handshake_timeout: Duration::from_secs(2),
        keepalive: None,
        ..Limits::from_config(&Config::from_source(&|_| None), None).unwrap()
    }
}

fn key(byte: u8) -> AuthKey {
    AuthKey::new(&[byte; 32])
}

fn limits_with_key(byte: u8) -> Limits {
    Limits { auth: Some(key(byte)), ..limits() }
}

fn regions(count: u64) -> Vec<RegionEntry> {
    (0..count)
        .map(|index| RegionEntry {
            base: index << 20,
            size: 1 << 16,
            rkey: index as u32 + 1,
            id: 0,
            read_only: false,
            continues: false,
            gpu_flush: false,
        })
        .collect()
}

/// The regions with the fields that only an engine of this kind gets.
fn regions_of_ours(count: u64) -> Vec<RegionEntry> {
    (1..)
        .zip(regions(count))
        .map(|(id, region)| RegionEntry { id, read_only: true, continues: true, ..region })
        .collect()
}

fn side<'a>(gpu_index: i32, regions: &'a dyn Fn() -> Vec<RegionEntry>) -> LocalSide<'a> {
    let features = Features {
        bits: Features::CHANNEL | Features::REBUILD,
        incarnation: 1000 + gpu_index as u64,
        max_notification: 4096,
        ..Features::default()
    };
    LocalSide {
        gpu_index,
        notify_port: 0,
        same_process: false,
        address: LOOPBACK,
        advertise: None,
        features,
        regions,
        slices: &keep_slices,
    }
}

/// Slice settings that cannot be changed.
fn keep_slices(_: SliceSettings) -> SliceSettings {
    SliceSettings { slice_size: 1 << 30, fragment_limit: 4096 }
}

/// Connects to a control listener and goes through the handshake.
fn initiate(
    target: SocketAddr,
    local: &LocalSide<'_>,
    lanes: &mut dyn LaneSetup,
    limits: &Limits,
) -> Result<Peer, HandshakeError> {
    let bootstrap = connect(target, soon(), limits.abort.as_ref()).unwrap();
    super::initiate(bootstrap, target, local, lanes, limits, Instant::now() + limits.handshake_timeout)
}

fn listener() -> Listener {
    Listener::bind(LOOPBACK, None, &Abort::new().unwrap()).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// A raw listener on loopback.
fn raw_listener(limits: &Limits) -> Result<RawListener, HandshakeError> {
    let local = LocalAddress { bind: LOOPBACK, own: LOOPBACK, reason: "test".to_owned(), advertised: None };
    RawListener::bind(&local, limits)
}

type Outcome = (Result<Peer, HandshakeError>, FakeLanes);

/// Both roles in two threads: (initiator, responder). The initiator is GPU 1, the responder GPU 2.
fn shake(initiator: (FakeLanes, Limits), responder: (FakeLanes, Limits)) -> (Outcome, Outcome) {
    let listener = listener();
    let target = listener.local();
    let accepting = thread::spawn(move || {
        let (mut lanes, limits) = responder;
        let stream = listener.accept_by(Some(soon())).unwrap();
        (respond(stream, &side(2, &|| regions(3)), &mut lanes, &limits), lanes)
    });
    let (mut lanes, limits) = initiator;
    let peer = initiate(target, &side(1, &|| regions(2)), &mut lanes, &limits);
    ((peer, lanes), accepting.join().unwrap())
}

/// A responder in a thread, for scripted initiators.
fn responder(limits: Limits) -> (SocketAddr, thread::JoinHandle<Outcome>) {
    let listener = listener();
    let target = listener.local();
    let thread = thread::spawn(move || {
        let mut lanes = FakeLanes::new(200);
        let stream = listener.accept_by(Some(soon())).unwrap();
        (respond(stream, &side(2, &|| regions_of_ours(3)), &mut lanes, &limits), lanes)
    });
    (target, thread)
}
