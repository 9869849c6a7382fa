//! Hosts and sessions as callers write them: IPv4, names, IPv6 with or without brackets, `host:port`.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};

/// A text that names no host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// It is not written as `host:port`.
    #[error("{0:?} is not written as host:port or [IPv6 address]:port")]
    Session(String),
    /// It looks like an IPv4 address and is none.
    #[error("{0:?} is not an IPv4 address")]
    Address(String),
    /// The resolver does not know it.
    #[error("cannot resolve host {host:?}: {reason}")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's words.
        reason: String,
    },
}

/// Splits `host:port`. Of an IPv6 address without brackets the last group is the port.
pub fn split_session(session: &str) -> Result<(&str, u16), HostError> {
    let malformed = || HostError::Session(session.to_owned());
    let (host, port) = session.rsplit_once(':').ok_or_else(malformed)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(malformed)?;
    let is_bracketed = host.starts_with('[') || host.ends_with(']');
    let well_formed = if is_bracketed || host.contains(':') {
        matches!(parse_address(host), Some(SocketAddr::V6(_)))
    } else {
        !host.is_empty()
    };
    if well_formed { Ok((host, port)) } else { Err(malformed()) }
}

/// The addresses of a host, in the order in which they should be tried. Names are looked up, which may take as long
/// as the system's resolver likes; addresses never are.
pub fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, HostError> {
    if let Some(mut address) = parse_address(host) {
        address.set_port(port);
        return Ok(vec![address]);
    }
    let is_numeric = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_numeric {
        return Err(HostError::Address(host.to_owned()));
    }
    let failed = |reason: String| HostError::Resolve { host: host.to_owned(), reason };
    let found: Vec<_> = (host, port).to_socket_addrs().map_err(|error| failed(error.to_string()))?.collect();
    if found.is_empty() { Err(failed("it has no address".to_owned())) } else { Ok(found) }
}

/// A numeric address, with brackets and `%scope` where IPv6 has them; port 0.
pub fn parse_address(text: &str) -> Option<SocketAddr> {
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None => text,
    };
    if let Some((address, scope)) = bare.split_once('%') {
        let address: Ipv6Addr = address.parse().ok()?;
        let scope = scope.parse().ok().or_else(|| interface_index(scope).ok())?;
        return Some(SocketAddrV6::new(address, 0, 0, scope).into());
    }
    let address: IpAddr = bare.parse().ok()?;
    // Brackets belong to IPv6 only.
    (address.is_ipv6() || bare.len() == text.len()).then(|| SocketAddr::new(address, 0))
}

fn interface_index(name: &str) -> io::Result<u32> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(netdevice::name_to_index(socket, name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_split_in_every_form() {
        let good = [
            ("192.0.2.2:53569", "192.0.2.2", 53569),
            ("node-7.example:1", "node-7.example", 1),
            ("[2001:db8::1]:80", "[2001:db8::1]", 80),
            ("2001:db8::1:80", "2001:db8::1", 80),
            ("[fe80::1%1]:80", "[fe80::1%1]", 80),
        ];
        for (session, host, port) in good {
            assert_eq!(split_session(session), Ok((host, port)));
        }
        for bad in [
            "",
            ":",
            ":1",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "host:-1",
            "host:http",
            "[::1]",
            "[::1:80",
            "::1]:80",
            "a:b:c:80",
            "[192.0.2.2]:80",
            "[]:80",
            "host:80 ",
        ] {
            assert_eq!(split_session(bad), Err(HostError::Session(bad.to_owned())), "{bad:?}");
        }
    }

    #[test]
    fn addresses_are_never_looked_up() {
        assert_eq!(resolve("192.0.2.2", 9).unwrap(), ["192.0.2.2:9".parse().unwrap()]);
        assert_eq!(resolve("2001:db8::1", 9).unwrap(), ["[2001:db8::1]:9".parse().unwrap()]);
        assert_eq!(resolve("[2001:db8::1]", 9).unwrap(), ["[2001:db8::1]:9".parse().unwrap()]);
        assert_eq!(resolve("fe80::1%7", 9).unwrap(), ["[fe80::1%7]:9".parse().unwrap()]);
        for bad in ["256.256.256.256", "1.2.3", "127.1", ""] {
            assert_eq!(resolve(bad, 9), Err(HostError::Address(bad.to_owned())));
        }
    }

    #[test]
    fn a_scope_may_be_an_interface_name() {
        let Ok(loopback) = interface_index("lo") else {
            println!("skipped: this host has no interface named lo");
            return;
        };
        let Some(SocketAddr::V6(address)) = parse_address("fe80::1%lo") else { panic!("not IPv6") };
        assert_eq!(address.scope_id(), loopback);
        assert_eq!(parse_address("fe80::1%no-such-interface"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = split_session(&text);
            let _ = parse_address(&text);
        }
    }
}
