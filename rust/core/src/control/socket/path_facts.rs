//! What the kernel knows of the way to a TCP peer.
#![allow(unsafe_code, reason = "TCP_INFO has no safe wrapper among our dependencies")]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// Sizes in bytes, of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathFacts {
    /// The largest packet that the way to the peer carries, as far as it is known: the path MTU.
    pub path_mtu: u32,
    /// The largest segment that is sent: what the peer accepts, and the path carries.
    pub send_segment: u32,
    /// The largest segment that the peer was told that it may send.
    pub advertised_segment: u32,
    /// The smoothed round trip time.
    pub round_trip: Duration,
}

/// The facts of a connected TCP socket.
///
/// # Errors
/// What `getsockopt` answers for another kind of socket.
pub fn path_facts(socket: impl AsFd) -> io::Result<PathFacts> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open while it is borrowed; `info` has room for `length` bytes.
    let status = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &mut length,
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every field is an integer, of which all were zeroed and some have been written by the kernel.
    let info = unsafe { info.assume_init() };
    Ok(PathFacts {
        path_mtu: info.tcpi_pmtu,
        send_segment: info.tcpi_snd_mss,
        advertised_segment: info.tcpi_advmss,
        round_trip: Duration::from_micros(info.tcpi_rtt.into()),
    })
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn a_connection_over_loopback_has_an_mtu() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let facts = path_facts(&stream).unwrap();
        assert!(facts.path_mtu >= 1280, "{facts:?}");
        assert!((500..=facts.path_mtu).contains(&facts.send_segment), "{facts:?}");
        assert!(facts.advertised_segment >= 500, "{facts:?}");
        assert!(path_facts(UdpSocket::bind("127.0.0.1:0").unwrap()).is_err());
    }
}
