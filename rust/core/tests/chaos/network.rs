//! A network between two engines that reach each other through proxies only, over loopback.

use std::net::SocketAddr;

use super::ports::free_ports;
use super::proxy::{Direction, Proxy, Rules};
use super::random::Random;
use super::rig::Settings;

/// Where the peer announces itself, and where this side does. What binds to loopback is behind both.
pub const PEER: &str = "127.0.0.2";
const HERE: &str = "127.0.0.3";
const BEHIND: &str = "127.0.0.1";

/// Ports of each side: listeners of the engine, its devices, its notifications and its handshakes.
fn ports() -> u16 {
    14 + 2 * crate::support::rails() as u16
}

/// Bytes on their way to the peer, or to this side, whichever has opened the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    Peer,
    Here,
}

impl Towards {
    /// At the proxy in front of the peer, and at that in front of this side.
    fn directions(self) -> [Direction; 2] {
        match self {
            Self::Peer => [Direction::ToServer, Direction::ToClient],
            Self::Here => [Direction::ToClient, Direction::ToServer],
        }
    }
}

pub struct Network {
    /// In front of the peer, and of this side.
    proxies: [Proxy; 2],
    ranges: [String; 2],
}

impl Network {
    /// Both sides with ports that are free; what the proxies choose follows from `seed`.
    pub fn new(seed: u64) -> Self {
        // Other test programs look for ports at the same time.
        let mut random = Random::new(seed ^ u64::from(std::process::id()) << 20);
        let firsts = [PEER, HERE].map(|address| free_ports(&mut random, ports(), &[address, BEHIND]));
        let proxy = |address: &str, first: u16| {
            let at = |host: &str, port: u16| SocketAddr::new(host.parse().unwrap(), port);
            let routes = (first..first + ports()).map(|port| (at(address, port), at(BEHIND, port)));
            Proxy::new(routes, seed).unwrap()
        };
        Self {
            proxies: [proxy(PEER, firsts[0]), proxy(HERE, firsts[1])],
            ranges: firsts.map(|first| format!("{first}-{}", first + ports() - 1)),
        }
    }

    /// Settings of the peer's engine, over `settings`.
    pub fn of_peer<'a>(&'a self, settings: &Settings<'a>) -> Vec<(&'a str, &'a str)> {
        self.settings(PEER, &self.ranges[0], settings)
    }

    /// Settings of this side's engine, over `settings`.
    pub fn of_here<'a>(&'a self, settings: &Settings<'a>) -> Vec<(&'a str, &'a str)> {
        self.settings(HERE, &self.ranges[1], settings)
    }

    fn settings<'a>(
        &'a self,
        address: &'a str,
        range: &'a str,
        settings: &Settings<'a>,
    ) -> Vec<(&'a str, &'a str)> {
        let own = [
            ("FLAGCX_P2P_PATH", "tcp"),
            ("FLAGCX_P2P_BIND", BEHIND),
            ("FLAGCX_P2P_ADVERTISE", address),
            ("FLAGCX_P2P_PORT_RANGE", range),
        ];
        own.into_iter().chain(settings.iter().copied()).collect()
    }

    /// From now on `rules` hold for all bytes towards one side.
    pub fn set(&self, towards: Towards, rules: Rules) {
        for (proxy, direction) in self.proxies.iter().zip(towards.directions()) {
            proxy.set(direction, rules);
        }
    }

    /// Stalls what is on its way towards one side, over the connections that exist now.
    pub fn freeze(&self, towards: Towards) {
        for (proxy, direction) in self.proxies.iter().zip(towards.directions()) {
            proxy.freeze(direction);
        }
    }

    /// `rules` for both directions.
    pub fn set_both(&self, rules: Rules) {
        self.set(Towards::Peer, rules);
        self.set(Towards::Here, rules);
    }

    /// Resets all connections.
    pub fn cut(&self) {
        self.proxies.iter().for_each(Proxy::cut);
    }

    /// Resets about half of them.
    pub fn cut_some(&self, seed: u64) {
        self.proxies.iter().for_each(|proxy| proxy.cut_some(seed));
    }

    /// Whether new connections are reset.
    pub fn refuse(&self, refuses: bool) {
        self.proxies.iter().for_each(|proxy| proxy.refuse(refuses));
    }

    /// Ends every disturbance; connections that have lost bytes are reset.
    pub fn heal(&self) {
        self.proxies.iter().for_each(Proxy::heal);
    }
}
