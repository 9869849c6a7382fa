//! Handshake and notifications together, between two ends connected only by sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up fails")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::config::Config;
use flagcx_p2p::internals::control::wire::{Features, RegionEntry, SliceSettings};
use flagcx_p2p::internals::control::{
    Abort, LaneCapabilities, LaneFuture, LaneSetup, Limits, Listener, LocalSide, Peer, PeerCapabilities,
    connect, initiate, respond,
};
use flagcx_p2p::internals::events::Waiter;
use flagcx_p2p::internals::fabric::{LINK_SOFTWARE, QpAddress};
use flagcx_p2p::internals::notify::{Message, Receiver, ReceiverOptions, Sender};

struct Lanes;

impl LaneSetup for Lanes {
    fn offer(&self) -> u32 {
        2
    }

    fn capabilities(&self) -> LaneCapabilities {
        LaneCapabilities { rd_atomic_initiator: 16, rd_atomic_responder: 16 }
    }

    fn create<'a>(&'a mut self, agreed: u32, _: &'a Waiter) -> LaneFuture<'a, Vec<QpAddress>> {
        let address =
            |qpn| QpAddress { qpn, gid: [0; 16], port: 1, link_layer: LINK_SOFTWARE, lid: 1, mtu: 5 };
        let addresses = (0..agreed).map(address).collect();
        Box::pin(async { Ok(addresses) })
    }

    fn connect<'a>(
        &'a mut self,
        _: &'a [QpAddress],
        _: PeerCapabilities,
        _: Instant,
        _: &'a Waiter,
    ) -> LaneFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// One end: a receiver, and its side of the handshake.
struct End {
    receiver: Receiver,
    limits: Limits,
    address: IpAddr,
    incarnation: u64,
}

impl End {
    fn new(config: &Config, address: IpAddr, incarnation: u64) -> Self {
        let options = ReceiverOptions::from_config(config, address, incarnation).unwrap();
        let receiver = Receiver::open(options).unwrap();
        Self { receiver, limits: Limits::from_config(config, None).unwrap(), address, incarnation }
    }

    fn side<'a>(&self, regions: &'a dyn Fn() -> Vec<RegionEntry>) -> LocalSide<'a> {
        LocalSide {
            gpu_index: 0,
            notify_port: self.receiver.port(),
            same_process: false,
            address: self.address,
            advertise: None,
            features: Features {
                bits: Features::CHANNEL,
                max_notification: 1 << 20,
                incarnation: self.incarnation,
                ..Features::default()
            },
            regions,
            slices: &|_| SliceSettings::default(),
        }
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn wait_for(receiver: &Receiver, expected: Message) {
    let deadline = soon();
    loop {
        let taken = receiver.take();
        if taken == [expected] {
            return;
        }
        assert!(taken.is_empty() && Instant::now() < deadline, "{taken:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn sender(peer: Peer) -> Sender {
    Sender::new(peer.notify.expect("a way to send notifications"), peer.features.unwrap().max_notification)
}

/// Shakes hands over `address` and sends a notification each way.
fn both_ways(address: IpAddr, settings: &[(&str, &str)]) {
    let config = Config::from_source(&|name| {
        settings.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    });
    let listener = Listener::bind(address, None, &Abort::new().unwrap()).unwrap();
    let target: SocketAddr = listener.local();
    let (one, other) = (End::new(&config, address, 1), End::new(&config, address, 2));
    let accepting = thread::spawn(move || {
        let bootstrap = listener.accept_by(Some(soon())).unwrap();
        let peer = respond(bootstrap, &other.side(&Vec::new), &mut Lanes, &other.limits).unwrap();
        (peer, other)
    });
    let bootstrap = connect(target, soon(), None).unwrap();
    let peer = initiate(bootstrap, target, &one.side(&Vec::new), &mut Lanes, &one.limits, soon()).unwrap();
    let (their_peer, other) = accepting.join().unwrap();
    let (to_other, to_one) = (sender(peer), sender(their_peer));

    let (there, back) = (Message::new(b"one", b"hello"), Message::new(b"other", b"hello yourself"));
    to_other.send(&there, soon()).unwrap();
    wait_for(&other.receiver, there);
    to_one.send(&back, soon()).unwrap();
    wait_for(&one.receiver, back);
    let large = vec![7; 100_000];
    to_other.send_bytes(b"one", &large, soon()).unwrap();
    let deadline = soon();
    while !other.receiver.take_all().iter().any(|one| one.content() == large) {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn over_ipv4() {
    both_ways(Ipv4Addr::LOCALHOST.into(), &[]);
}

#[test]
fn over_ipv6() {
    let address = Ipv6Addr::LOCALHOST.into();
    if Listener::bind(address, None, &Abort::new().unwrap()).is_err() {
        println!("skipped: no IPv6 loopback on this host");
        return;
    }
    both_ways(address, &[]);
}

#[test]
fn with_a_key_and_a_list_of_networks() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, "correct horse battery staple\n").unwrap();
    let settings = [
        ("FLAGCX_P2P_AUTH_KEY_FILE", key.to_str().unwrap()),
        ("FLAGCX_P2P_ALLOW", "127.0.0.0/8"),
        ("FLAGCX_P2P_KEEPALIVE_MS", "2000"),
    ];
    both_ways(Ipv4Addr::LOCALHOST.into(), &settings);
}
