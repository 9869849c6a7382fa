//! Listening on a port of a range (`FLAGCX_P2P_PORT_RANGE`), and what holds the ports when none is free.

mod holders;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use holders::Holders;

/// Calls `listen` for each port of the range (inclusive) until one is not in use; without a range once, for a port that
/// the kernel chooses. If all are in use the error is of kind `AddrInUse`, with a [`PortsTaken`] inside.
pub fn listen_on_first_free<L>(
    address: IpAddr,
    ports: Option<(u16, u16)>,
    listen: impl Fn(SocketAddr) -> io::Result<L>,
) -> io::Result<L> {
    let Some((low, high)) = ports else { return listen(SocketAddr::new(address, 0)) };
    for port in low..=high {
        match listen(SocketAddr::new(address, port)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            other => return other,
        }
    }
    let held = Holders::of(low, high).to_string();
    Err(io::Error::new(ErrorKind::AddrInUse, PortsTaken { address, low, high, held }))
}

/// Every port of a range is in use.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "every port of FLAGCX_P2P_PORT_RANGE={low}-{high} is in use on {address}: {held}; set a wider range, or one of \
     its own for each process (an engine takes two ports, one more during each handshake, and the software fabric one \
     for each device)"
)]
pub struct PortsTaken {
    /// Where.
    pub address: IpAddr,
    /// First port.
    pub low: u16,
    /// Last port.
    pub high: u16,
    /// Their holders, as far as the kernel reports them.
    pub held: String,
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    fn listen(address: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::bind(address)
    }

    #[test]
    fn a_range_that_is_taken_is_an_error_that_names_it_and_us() {
        let address = Ipv4Addr::LOCALHOST.into();
        let first = listen_on_first_free(address, None, listen).unwrap();
        let port = first.local_addr().unwrap().port();
        let error = listen_on_first_free(address, Some((port, port)), listen).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let text = error.to_string();
        assert!(text.contains(&format!("FLAGCX_P2P_PORT_RANGE={port}-{port}")), "{text}");
        assert!(text.contains("1 by listeners of this process"), "{text}");
        // A wider one goes on with its next port; that this process closed the first one frees it only once no process that
        // was forked meanwhile has it.
        let next = listen_on_first_free(address, Some((port, port.saturating_add(50))), listen).unwrap();
        assert!(next.local_addr().unwrap().port() > port);
    }

    #[test]
    fn other_errors_end_the_search() {
        let address = Ipv4Addr::new(192, 0, 2, 1).into();
        let error = listen_on_first_free(address, Some((20_000, 20_010)), listen).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
    }
}
