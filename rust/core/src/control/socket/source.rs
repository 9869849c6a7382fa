//! An address of this host that a socket connects from.

use std::fmt;
use std::net::IpAddr;

use socket2::SockRef;

use super::Stream;

/// The address, and the interface that packets are to leave through, if that is not left to the routes: an address alone does not decide
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The address.
    pub address: IpAddr,
    /// The name of the interface.
    pub interface: Option<String>,
}

impl Source {
    /// This end of a stream, with its interface if the socket has one: the next socket takes the same way.
    pub fn of(stream: &Stream) -> Self {
        let name = SockRef::from(stream).device().ok().flatten();
        let interface = name.and_then(|name| String::from_utf8(name).ok());
        Self { address: stream.local().ip(), interface }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Some(interface) => write!(f, "{} ({interface})", self.address),
            None => self.address.fmt(f),
        }
    }
}
