//! Hosts and sessions as callers write them: IPv4, names, IPv6 with or without brackets, `host:port`.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// A text that does not name a host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// It is not written as `host:port`.
    #[error("malformed session {0:?}: expected host:port or [IPv6 address]:port")]
    Session(String),
    /// It looks like an IPv4 address and is none.
    #[error("{0:?} is not an IPv4 address")]
    Address(String),
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

/// The address of a host that is written as one; `None` for a name, which has to be looked up.
pub fn numeric(host: &str, port: u16) -> Result<Option<SocketAddr>, HostError> {
    if let Some(mut address) = parse_address(host) {
        address.set_port(port);
        return Ok(Some(address));
    }
    // A resolver would take some of these for addresses, and query name servers for the others.
    let looks_numeric = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if looks_numeric { Err(HostError::Address(host.to_owned())) } else { Ok(None) }
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
    fn addresses_are_distinguished_from_names() {
        for (host, address) in [
            ("192.0.2.2", "192.0.2.2:9"),
            ("2001:db8::1", "[2001:db8::1]:9"),
            ("[2001:db8::1]", "[2001:db8::1]:9"),
            ("fe80::1%7", "[fe80::1%7]:9"),
        ] {
            assert_eq!(numeric(host, 9), Ok(Some(address.parse().unwrap())));
        }
        for bad in ["256.256.256.256", "1.2.3", "127.1", ""] {
            assert_eq!(numeric(bad, 9), Err(HostError::Address(bad.to_owned())));
        }
        for name in ["localhost", "node-7.example", "7.example", "[localhost]"] {
            assert_eq!(numeric(name, 9), Ok(None));
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
