//! Who we are connected with.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::sync::{Mutex, lock};

/// Hosts with which a connection, or a handshake that has got as far as the lane socket, exists. A notification socket
/// says nothing of the connection that it belongs to: this tells those of peers from those of strangers.
#[derive(Clone, Debug, Default)]
pub struct Guests(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Guests {
    /// Counts a connection with `host` for as long as the answer lives.
    pub fn enter(&self, host: IpAddr) -> Guest {
        *lock(&self.0).entry(host).or_default() += 1;
        Guest { host, guests: self.clone() }
    }

    /// Whether there is a connection with `host`.
    pub fn has(&self, host: IpAddr) -> bool {
        lock(&self.0).contains_key(&host)
    }

    fn leave(&self, host: IpAddr) {
        let mut counts = lock(&self.0);
        match counts.get_mut(&host) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&host)),
        }
    }
}

/// One connection with a host.
#[derive(Debug)]
pub struct Guest {
    host: IpAddr,
    guests: Guests,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.guests.leave(self.host);
    }
}
