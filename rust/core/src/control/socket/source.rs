//! An address of this host that a socket connects from.

use std::fmt;
use std::net::IpAddr;

/// The address, and the interface that packets are to leave through, if that is not left to the routes: an address alone does not decide
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The address.
    pub address: IpAddr,
    /// The name of the interface.
    pub interface: Option<String>,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Some(interface) => write!(f, "{} ({interface})", self.address),
            None => self.address.fmt(f),
        }
    }
}
