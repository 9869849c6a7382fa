//! The half of a rebuild that follows. The test leads, on the control connection alone: no data moves.
#![cfg(feature = "verbs")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod nullverbs;
mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::control::wire::{Features, LaneRecord, SliceSettings};
use flagcx_p2p::internals::control::{
    Channel, ChannelFrame, LaneCapabilities, LaneFuture, LaneSetup, Limits, LocalSide, PeerCapabilities,
    Received, connect, initiate,
};
use flagcx_p2p::internals::engine::{Engine, EngineOptions};
use flagcx_p2p::internals::events::Waiter;
use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice, FabricOptions, QpAddress};
use nullverbs::{Event, Standin};
use support::eventually;

/// Longer than a follower keeps a queue pair for a silent leader.
const TOO_LATE: Duration = Duration::from_millis(3500);

/// Queue pairs that exist in name only.
struct Named {
    like: Option<QpAddress>,
}

impl Named {
    fn address(&self, qpn: u32) -> QpAddress {
        let nowhere = QpAddress { qpn, gid: [0; 16], port: 1, link_layer: 2, lid: 0, mtu: 5 };
        QpAddress { qpn, ..self.like.unwrap_or(nowhere) }
    }
}

impl LaneSetup for Named {
    fn offer(&self) -> u32 {
        1
    }
    fn capabilities(&self) -> LaneCapabilities {
        LaneCapabilities { rd_atomic_initiator: 16, rd_atomic_responder: 16 }
    }
    fn create<'a>(&'a mut self, agreed: u32, _: &'a Waiter) -> LaneFuture<'a, Vec<QpAddress>> {
        let addresses = (0..agreed).map(|lane| self.address(1000 + lane)).collect();
        Box::pin(async { Ok(addresses) })
    }
    fn connect<'a>(
        &'a mut self,
        theirs: &'a [QpAddress],
        _: PeerCapabilities,
        _: Instant,
        _: &'a Waiter,
    ) -> LaneFuture<'a, ()> {
        self.like = theirs.first().copied();
        Box::pin(async { Ok(()) })
    }
}

/// An engine on a stand-in NIC, its end of a connection of one lane, and the leader's.
struct Dialogue {
    standin: Standin,
    follower: Arc<Connection>,
    _engine: Arc<Engine>,
    channel: Channel,
    lanes: Named,
    // Ends the connection when dropped.
    _connected_host: flagcx_p2p::internals::control::ConnectedHost,
}

impl Dialogue {
    fn new() -> Self {
        let standin = Standin::new(&[]);
        let verbs = standin.options();
        let options = FabricOptions { choice: FabricChoice::Verbs, verbs, ..FabricOptions::default() };
        let devices = Some(Arc::new(DeviceList::open(&options).unwrap()));
        let config = support::config(&[("FLAGCX_P2P_FABRIC", "verbs"), ("FLAGCX_P2P_BIND", "127.0.0.1")]);
        let limits = Limits::from_config(&config, None).unwrap();
        let engine = Engine::open(config, EngineOptions { gpu_index: 0, devices }).unwrap();
        let accepting = {
            let engine = Arc::clone(&engine);
            thread::spawn(move || engine.accept().unwrap().connection)
        };
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let local = LocalSide {
            gpu_index: 0,
            notify_port: 0,
            same_process: false,
            address: loopback,
            advertise: None,
            features: Features {
                bits: Features::CHANNEL | Features::REBUILD,
                max_notification: 1 << 20,
                incarnation: 1,
                ..Features::default()
            },
            regions: &Vec::new,
            slices: &|_| SliceSettings::default(),
        };
        let target = SocketAddr::new(loopback, engine.rpc_port().unwrap());
        let mut lanes = Named { like: None };
        let deadline = Instant::now() + support::LIMIT;
        let bootstrap = connect(target, deadline, None).unwrap();
        let peer = initiate(bootstrap, target, &local, &mut lanes, &limits, deadline).unwrap();
        let follower = accepting.join().unwrap();
        Self {
            standin,
            follower,
            _engine: engine,
            channel: Channel::new(peer.channel),
            lanes,
            _connected_host: peer.connected_host,
        }
    }

    fn send(&self, frame: &ChannelFrame) {
        self.channel.send(frame, Instant::now() + support::LIMIT).unwrap();
    }

    fn receive(&self) -> ChannelFrame {
        let mut received = None;
        eventually("the follower sends a frame", || {
            received = match self.channel.try_read().unwrap() {
                Received::Frame(frame) => Some(frame),
                Received::Unknown | Received::Regions(_) | Received::Nics(_) | Received::Nothing => None,
                Received::Offer(_) | Received::Acknowledgement(_) => None,
            };
            received.is_some()
        });
        received.unwrap()
    }

    fn ask(&self, attempt: u32) {
        let record = LaneRecord {
            address: self.lanes.address(2000 + attempt),
            capabilities: Some(self.lanes.capabilities()),
        };
        self.send(&ChannelFrame::Rebuild { lane: 0, attempt, record });
        let answer = self.receive();
        assert!(
            matches!(answer, ChannelFrame::Rebuilt { lane: 0, attempt: n, .. } if n == attempt),
            "{answer:?}"
        );
    }
}

/// A leader that was stopped for a while sends Ready, and the follower has discarded its queue pair: it sends Broken,
/// and both try again.
#[test]
fn a_leader_that_is_ready_too_late_gets_broken() {
    let dialogue = Dialogue::new();
    dialogue.standin.raise(Event::QueuePairFatal);
    assert_eq!(dialogue.receive(), ChannelFrame::Broken { lane: 0 });
    dialogue.ask(1);
    thread::sleep(TOO_LATE);
    assert_eq!(dialogue.receive(), ChannelFrame::Broken { lane: 0 }, "the queue pair is discarded");
    dialogue.send(&ChannelFrame::Ready { lane: 0, attempt: 1 });
    assert_eq!(dialogue.receive(), ChannelFrame::Broken { lane: 0 });
    dialogue.ask(2);
    dialogue.send(&ChannelFrame::Ready { lane: 0, attempt: 2 });
    eventually("the lane is back", || dialogue.follower.info().healthy_lanes == 1);
}

/// Although its handle lives on: the peer could write through it.
#[test]
fn closing_ends_the_queue_pair_of_a_rebuild_under_way() {
    let dialogue = Dialogue::new();
    dialogue.ask(1);
    assert!(dialogue.standin.live().queue_pairs > 0);
    dialogue.follower.close();
    assert_eq!(dialogue.standin.live().queue_pairs, 0);
}

#[test]
fn lanes_that_do_not_exist_cost_nothing() {
    let dialogue = Dialogue::new();
    let record = LaneRecord { address: dialogue.lanes.address(1), capabilities: None };
    let (lane, attempt) = (u32::MAX, 0);
    for frame in [
        ChannelFrame::Broken { lane },
        ChannelFrame::Rebuild { lane, attempt, record },
        ChannelFrame::Rebuilt { lane, attempt, record },
        ChannelFrame::Ready { lane, attempt },
        ChannelFrame::Refused { lane, attempt },
    ] {
        dialogue.send(&frame);
    }
    dialogue.send(&ChannelFrame::Ping(7));
    assert_eq!(dialogue.receive(), ChannelFrame::Pong(7));
    assert_eq!(dialogue.follower.info().healthy_lanes, 1);
}
