//! What may block does not run on the event loop: seen from the device that the engine uses.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "a panic is how a test fails, and helpers are shared"
)]

mod recorder;
mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::control::wire::{Features, FrameHeader, Handle, SocketKind, Tag};
use flagcx_p2p::internals::control::{
    LaneCapabilities, LaneFuture, LaneSetup, Limits, LocalSide, PeerCapabilities, connect, initiate,
};
use flagcx_p2p::internals::engine::{Engine, EngineOptions};
use flagcx_p2p::internals::events::Waiter;
use flagcx_p2p::internals::fabric::{DeviceList, FabricError, LINK_SOFTWARE, QpAddress};
use recorder::Recorder;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn engine() -> (Arc<Engine>, Arc<Recorder>) {
    let config = support::config(&[("FLAGCX_P2P_HANDSHAKE_TIMEOUT_MS", "3000")]);
    let recorder = Recorder::new(Arc::clone(&support::devices(&config).devices()[0]));
    let devices = Some(Arc::new(DeviceList::of(vec![Arc::clone(&recorder) as Arc<_>])));
    (Engine::open(config, EngineOptions { gpu_index: 0, devices }).unwrap(), recorder)
}

/// Lanes that exist in name only, and cannot be connected to.
struct UnconnectableLanes;

impl LaneSetup for UnconnectableLanes {
    fn offer(&self) -> u32 {
        4
    }
    fn capabilities(&self) -> LaneCapabilities {
        LaneCapabilities { rd_atomic_initiator: 16, rd_atomic_responder: 16 }
    }
    fn create<'a>(&'a mut self, agreed: u32, _: &'a Waiter) -> LaneFuture<'a, Vec<QpAddress>> {
        // Port 1 of this host: no process listens there.
        let mut gid = [0; 16];
        gid[10..].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
        let address = |qpn| QpAddress { qpn, gid, port: 1, link_layer: LINK_SOFTWARE, lid: 1, mtu: 5 };
        let addresses = (1..=agreed).map(address).collect();
        Box::pin(async { Ok(addresses) })
    }
    fn connect<'a>(
        &'a mut self,
        _: &'a [QpAddress],
        _: PeerCapabilities,
        _: Instant,
        _: &'a Waiter,
    ) -> LaneFuture<'a, ()> {
        Box::pin(async { Err(FabricError::Unsupported("not meant to work".to_owned())) })
    }
}

#[test]
fn queue_pairs_of_a_failed_handshake_are_created_and_destroyed_by_helpers() {
    let (engine, recorder) = engine();
    engine.start_rpc_server().unwrap();
    let limits = Limits::from_config(&support::config(&[]), None).unwrap();
    let features = Features { bits: Features::CHANNEL, incarnation: 1, ..Features::default() };
    let local = LocalSide {
        gpu_index: 0,
        notify_port: 0,
        same_process: false,
        address: LOOPBACK,
        advertise: None,
        features,
        regions: &Vec::new,
        slices: &|slices| slices,
    };
    let target = SocketAddr::new(LOOPBACK, engine.rpc_port().unwrap());
    let deadline = Instant::now() + support::LIMIT;
    let stream = connect(target, deadline, None).unwrap();
    assert!(initiate(stream, target, &local, &mut UnconnectableLanes, &limits, deadline).is_err());
    let count = |call| recorder.record().blocking.iter().filter(|(called, _)| *called == call).count();
    support::eventually("the queue pairs are destroyed", || {
        let created = count("create a queue pair");
        created > 0 && count("destroy a queue pair") == created
    });
    for (call, thread) in recorder.record().blocking {
        assert_eq!(thread, "p2p-helper", "{call}");
    }
}

#[test]
fn events_of_the_device_are_read_by_helpers() {
    let (client, recorder) = engine();
    let server = support::engine(&[]);
    let (_here, _there) = support::connect(&client, &server);
    support::eventually("the device is asked", || {
        recorder.raise();
        recorder.record().blocking.iter().any(|(call, _)| *call == "read an event")
    });
    for (call, thread) in recorder.record().blocking.into_iter().filter(|(call, _)| *call == "read an event")
    {
        assert_eq!(thread, "p2p-helper", "{call}");
    }
}

/// Without the loop's answer to urgent data, a client that sends it keeps the loop busy until its handshake ends.
#[test]
fn urgent_data_does_not_keep_the_loop_busy() {
    use std::io::Write;
    let (engine, _recorder) = engine();
    engine.start_rpc_server().unwrap();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.connect(&SocketAddr::new(LOOPBACK, engine.rpc_port().unwrap()).into()).unwrap();
    // As far as the wait for the lane socket, during which nothing is due on this one.
    let handle = Handle { address: SocketAddr::new(LOOPBACK, 0), features: None }.encode();
    let header = FrameHeader { tag: Tag::Handle as i32, size: handle.len() as i32 }.encode();
    (&socket).write_all(&[&SocketKind::Bootstrap.encode()[..], &header, &handle].concat()).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    socket.send_out_of_band(b"!").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let before = cpu_time();
    std::thread::sleep(Duration::from_millis(500));
    let used = cpu_time() - before;
    assert!(used < Duration::from_millis(250), "{used:?} in 500 ms");
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
