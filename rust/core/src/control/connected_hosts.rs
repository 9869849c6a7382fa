//! The hosts with which this process has connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::admission::DescriptorHold;
use crate::events::Wakeup;
use crate::sync::{Mutex, lock};

/// Hosts with a connection, or with a handshake that has reached the lane socket. A notification socket does not name
/// its connection: this set distinguishes the sockets of peers from those of other clients.
#[derive(Clone, Debug, Default)]
pub struct ConnectedHosts(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl ConnectedHosts {
    /// Counts a connection with `host` until the returned value is dropped.
    pub fn add(&self, host: IpAddr) -> ConnectedHost {
        *lock(&self.0).entry(host).or_default() += 1;
        ConnectedHost { host, set: self.clone(), held: None, on_end: None }
    }

    /// Whether there is a connection with `host`.
    pub fn contains(&self, host: IpAddr) -> bool {
        self.count(host) > 0
    }

    /// How many connections with `host` there are.
    pub fn count(&self, host: IpAddr) -> usize {
        lock(&self.0).get(&host).copied().unwrap_or_default()
    }

    fn remove(&self, host: IpAddr) {
        let mut counts = lock(&self.0);
        match counts.get_mut(&host) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&host)),
        }
    }
}

/// One connection with a host.
#[derive(Debug)]
pub struct ConnectedHost {
    host: IpAddr,
    set: ConnectedHosts,
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

    /// Wakes a task when the connection has ended.
    pub(crate) fn waking(mut self, task: Arc<Wakeup>) -> Self {
        self.on_end = Some(task);
        self
    }
}

impl Drop for ConnectedHost {
    fn drop(&mut self) {
        self.set.remove(self.host);
        drop(self.held.take());
        if let Some(task) = &self.on_end {
            task.wake();
        }
    }
}
