//! An address of this host that a socket connects from.

use std::fmt;
use std::net::IpAddr;

/// The address, and the interface that packets are to leave through: an address alone does not decide that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The address.
    pub address: IpAddr,
    /// The name of its interface.
    pub interface: String,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.address, self.interface)
    }
}
