//! The hosts with which this process has connections.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::wire::notification::LINK_SIZE;
use crate::admission::DescriptorHold;
use crate::events::Wakeup;
use crate::sync::{Mutex, lock};

/// Hosts with a connection, or with a handshake that has reached the lane socket. A notification socket does not name
/// its connection: this set distinguishes the sockets of peers from those of other clients. It also has the names of the links of the peers'
/// notifications, where sockets are made anew.
#[derive(Clone, Debug, Default)]
pub struct ConnectedHosts(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    hosts: HashMap<IpAddr, usize>,
    links: HashSet<[u8; LINK_SIZE]>,
}

impl ConnectedHosts {
    /// Counts a connection with `host` until the returned value is dropped.
    pub fn add(&self, host: IpAddr) -> ConnectedHost {
        *lock(&self.0).hosts.entry(host).or_default() += 1;
        ConnectedHost { host, set: self.clone(), link: None, held: None, on_end: None }
    }

    /// Whether there is a connection with `host`.
    pub fn contains(&self, host: IpAddr) -> bool {
        self.count(host) > 0
    }

    /// How many connections with `host` there are.
    pub fn count(&self, host: IpAddr) -> usize {
        lock(&self.0).hosts.get(&host).copied().unwrap_or_default()
    }

    /// Runs `call` with the question whether a link is that of a connection.
    pub(crate) fn with_links<R>(&self, call: impl FnOnce(&dyn Fn(&[u8; LINK_SIZE]) -> bool) -> R) -> R {
        let known = lock(&self.0);
        call(&|link| known.links.contains(link))
    }
}

impl Known {
    fn remove(&mut self, host: IpAddr) {
        match self.hosts.get_mut(&host) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.hosts.remove(&host)),
        }
    }
}

/// One connection with a host.
#[derive(Debug)]
pub struct ConnectedHost {
    host: IpAddr,
    set: ConnectedHosts,
    /// The link of its notifications.
    link: Option<[u8; LINK_SIZE]>,
    /// Its descriptors, if they count.
    held: Option<DescriptorHold>,
    /// Woken at its end.
    on_end: Option<Arc<Wakeup>>,
}

impl ConnectedHost {
    /// Counts its descriptors until the connection has ended.
    pub(crate) fn holding(mut self, held: Option<DescriptorHold>) -> Self {
        self.held = held;
        self
    }

    /// Keeps the link of the peer's notifications, if it has one, until the connection has ended.
    pub(crate) fn with_link(mut self, link: Option<[u8; LINK_SIZE]>) -> Self {
        if let Some(link) = link {
            lock(&self.set.0).links.insert(link);
        }
        self.link = link;
        self
    }

    /// The peer has another address from now on: its sockets come from there.
    pub(crate) fn move_to(&mut self, host: IpAddr) {
        let mut known = lock(&self.set.0);
        *known.hosts.entry(host).or_default() += 1;
        known.remove(self.host);
        drop(known);
        self.host = host;
    }

    /// Wakes a task when the connection has ended.
    pub(crate) fn waking(mut self, task: Arc<Wakeup>) -> Self {
        self.on_end = Some(task);
        self
    }
}

impl Drop for ConnectedHost {
    fn drop(&mut self) {
        let mut known = lock(&self.set.0);
        known.remove(self.host);
        if let Some(link) = self.link {
            known.links.remove(&link);
        }
        drop(known);
        drop(self.held.take());
        if let Some(task) = &self.on_end {
            task.wake();
        }
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_connection_moves_to_another_host_and_keeps_its_link() {
        let (set, [first, second]) =
            (ConnectedHosts::default(), ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap()));
        let counts = || [first, second].map(|host| set.count(host));
        let mut moving = set.add(first).with_link(Some([7; LINK_SIZE]));
        let staying = set.add(first);
        assert_eq!(counts(), [2, 0]);
        moving.move_to(second);
        assert_eq!(counts(), [1, 1]);
        moving.move_to(second);
        drop(staying);
        assert_eq!(counts(), [0, 1]);
        assert!(set.with_links(|is_known| is_known(&[7; LINK_SIZE]) && !is_known(&[8; LINK_SIZE])));
        drop(moving);
        assert_eq!((counts(), set.with_links(|is_known| is_known(&[7; LINK_SIZE]))), ([0, 0], false));
    }
}
