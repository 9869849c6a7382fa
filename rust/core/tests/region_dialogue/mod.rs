//! A peer that sends the test's frames about regions, on the control connection alone: no data moves.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a module of a test"
)]

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use flagcx_p2p::internals::connection::{Connection, Context, LaneBuilder};
use flagcx_p2p::internals::control::wire::Features;
use flagcx_p2p::internals::control::{
    Channel, ConnectedHost, Limits, LocalSide, Received, RegionFrame, connect, initiate,
};
use flagcx_p2p::internals::engine::{Engine, EngineOptions};
use flagcx_p2p::internals::memory::RemoteRegions;

use crate::support::{self, LIMIT, eventually};

/// An engine, its end of a connection, and the test's.
pub struct Dialogue {
    pub engine: Arc<Engine>,
    pub follower: Arc<Connection>,
    /// The feature bits of the engine.
    pub offered: u32,
    channel: Channel,
    regions: RemoteRegions,
    _lanes: LaneBuilder,
    // Ends the connection when dropped.
    _connected_host: ConnectedHost,
}

impl Dialogue {
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// With an engine of these variables.
    pub fn with(variables: &[(&str, &str)]) -> Self {
        let config = support::config(&[&[("FLAGCX_P2P_BIND", "127.0.0.1")], variables].concat());
        let devices = support::devices(&config);
        let mut lanes = LaneBuilder::new(Arc::new(Context::open(&config, &devices.devices()[0]).unwrap()));
        let limits = Limits::from_config(&config, None).unwrap();
        let options = EngineOptions { gpu_index: 0, devices: Some(devices) };
        let engine = Engine::open(config, options).unwrap();
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
            features: Features {
                bits: Features::CHANNEL | Features::REGIONS,
                max_notification: 1 << 20,
                incarnation: 1,
                ..Features::default()
            },
            regions: &Vec::new,
            slices: &|slices| slices,
            advertise: None,
        };
        let target = SocketAddr::new(loopback, engine.rpc_port().unwrap());
        let deadline = Instant::now() + LIMIT;
        let bootstrap = connect(target, deadline, None).unwrap();
        let peer = initiate(bootstrap, target, &local, &mut lanes, &limits, deadline).unwrap();
        Self {
            engine,
            follower: accepting.join().unwrap(),
            offered: peer.features.unwrap().bits,
            channel: Channel::new(peer.channel),
            regions: RemoteRegions::new(&peer.regions),
            _lanes: lanes,
            _connected_host: peer.connected_host,
        }
    }

    pub fn send(&self, frame: &RegionFrame) {
        self.channel.queue_regions(frame);
        eventually("the engine reads", || self.channel.flush().unwrap());
    }

    /// From now on the system takes so many bytes of what is not read.
    pub fn take(&self, bytes: usize) {
        socket2::SockRef::from(&*self.channel.stream().unwrap()).set_recv_buffer_size(bytes).unwrap();
    }

    /// Bytes that no frame is made of.
    pub fn send_bytes(&self, bytes: &[u8]) {
        let descriptor = self.channel.stream().unwrap().as_fd().try_clone_to_owned().unwrap();
        TcpStream::from(descriptor).write_all(bytes).unwrap();
    }

    /// The next frame about regions.
    pub fn receive(&self) -> RegionFrame {
        let mut received = None;
        eventually("the engine sends a frame", || {
            received = match self.channel.try_read().unwrap() {
                Received::Regions(frame) => Some(frame),
                Received::Frame(_) | Received::Nics(_) | Received::Unknown | Received::Nothing => None,
                Received::Offer(_) | Received::Acknowledgement(_) => None,
            };
            received.is_some()
        });
        received.unwrap()
    }

    /// Receives the engine's changes of regions until the result is as expected.
    pub fn listen(&self, mut expected: impl FnMut(&RemoteRegions) -> bool) -> &RemoteRegions {
        while !expected(&self.regions) {
            if let RegionFrame::Changes(changes) = self.receive() {
                self.regions.apply(&changes).unwrap();
            }
        }
        &self.regions
    }
}
