//! The address that is announced to peers instead of this host's own: that of a port forwarder in front of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::host::{numeric, parse_address, split_session};
use super::{ResolveError, resolve};
use crate::config::AddressFamily;

/// `FLAGCX_P2P_ADVERTISE` as it is written: `host[:port]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertise {
    /// A name or an address.
    pub host: String,
    /// The control port that is announced; all other ports are announced unchanged.
    pub port: Option<u16>,
}

/// An [`Advertise`] with its name resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// The announced address.
    pub ip: IpAddr,
    /// As in [`Advertise`].
    pub port: Option<u16>,
}

/// The host of `FLAGCX_P2P_ADVERTISE` cannot be announced to peers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AdvertiseError {
    /// It has no address.
    #[error("FLAGCX_P2P_ADVERTISE={host}: {reason}")]
    Resolve {
        /// The host.
        host: String,
        /// Why not.
        reason: ResolveError,
    },
    /// None of its addresses is one that another host could connect to.
    #[error("FLAGCX_P2P_ADVERTISE={host}: peers cannot use {found}{family}")]
    NoneFits {
        /// The host.
        host: String,
        /// Its addresses.
        found: String,
        /// The required family, if that is the reason.
        family: String,
    },
}

impl Advertise {
    /// Parses the text. In an IPv6 address without brackets all groups belong to the address.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "expected host, host:port or [IPv6 address]:port";
        let (host, port) = match parse_address(text) {
            Some(_) => (text, None),
            None if text.contains(':') => {
                split_session(text).map(|(host, port)| (host, Some(port))).map_err(|_| FORM.to_owned())?
            }
            None => (text, None),
        };
        if host.contains(|character: char| character.is_whitespace() || "[]/?@,".contains(character))
            && parse_address(host).is_none()
        {
            return Err(FORM.to_owned());
        }
        match numeric(host, 0) {
            Err(error) => Err(error.to_string()),
            Ok(Some(address)) if !is_reachable(address) => {
                Err(format!("peers cannot connect to {}", address.ip()))
            }
            Ok(_) => Ok(Self { host: host.to_owned(), port }),
        }
    }
}

impl Advertised {
    /// Resolves the host. Of several addresses the first one of the family of `own` is taken, else the first.
    pub(super) fn resolve(
        setting: &Advertise,
        own: IpAddr,
        family: Option<AddressFamily>,
        deadline: Instant,
    ) -> Result<Self, AdvertiseError> {
        let host = || setting.host.clone();
        let found = resolve(&setting.host, 0, deadline, None)
            .map_err(|reason| AdvertiseError::Resolve { host: host(), reason })?;
        let ip = preferred(&found, own, family).ok_or_else(|| AdvertiseError::NoneFits {
            host: host(),
            found: found.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", "),
            family: family
                .map_or_else(String::new, |family| format!(" with FLAGCX_SOCKET_FAMILY={family:?}")),
        })?;
        Ok(Self { ip, port: setting.port })
    }
}

fn preferred(found: &[SocketAddr], own: IpAddr, family: Option<AddressFamily>) -> Option<IpAddr> {
    let usable = |address: &&SocketAddr| {
        let fits = match family {
            Some(AddressFamily::V4) => address.is_ipv4(),
            Some(AddressFamily::V6) => address.is_ipv6(),
            None => true,
        };
        fits && is_reachable(**address)
    };
    let mut usable = found.iter().filter(usable).map(SocketAddr::ip);
    let first = usable.clone().next();
    usable.find(|ip| ip.is_ipv4() == own.is_ipv4()).or(first)
}

/// Whether another host could connect to it. IPv6 link-local addresses need an interface of the reader's own.
fn is_reachable(address: SocketAddr) -> bool {
    let ip = address.ip();
    let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    !ip.is_unspecified() && !ip.is_multicast() && !link_local
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn advertise(host: &str, port: Option<u16>) -> Advertise {
        Advertise { host: host.to_owned(), port }
    }

    #[test]
    fn hosts_with_and_without_a_port() {
        for (text, host, port) in [
            ("203.0.113.7", "203.0.113.7", None),
            ("203.0.113.7:80", "203.0.113.7", Some(80)),
            ("gate.example", "gate.example", None),
            ("gate.example:80", "gate.example", Some(80)),
            ("2001:db8::7", "2001:db8::7", None),
            ("[2001:db8::7]", "[2001:db8::7]", None),
            ("[2001:db8::7]:80", "[2001:db8::7]", Some(80)),
        ] {
            assert_eq!(Advertise::parse(text), Ok(advertise(host, port)));
        }
        for bad in [
            "",
            "gate:",
            ":80",
            "gate:0",
            "gate:65536",
            "gate:http",
            "http://gate",
            "[gate]",
            "a b",
            "1.2.3",
            "0.0.0.0",
            "[::]:80",
            "fe80::1",
            "224.0.0.1",
            "[2001:db8::7",
            "gate/24",
        ] {
            assert!(Advertise::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn one_of_several_addresses_is_advertised() {
        let found: Vec<SocketAddr> =
            ["[fe80::1%3]:0", "[2001:db8::7]:0", "203.0.113.7:0"].map(|text| text.parse().unwrap()).to_vec();
        let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        assert_eq!(preferred(&found, v4, None).unwrap().to_string(), "203.0.113.7");
        assert_eq!(preferred(&found, v6, None).unwrap().to_string(), "2001:db8::7");
        assert_eq!(preferred(&found, v4, Some(AddressFamily::V6)).unwrap().to_string(), "2001:db8::7");
        assert_eq!(preferred(&found[..2], v4, None).unwrap().to_string(), "2001:db8::7");
        assert_eq!(preferred(&found[..1], v4, None), None);
    }

    #[test]
    fn a_host_without_an_address_is_an_error_that_names_it() {
        let deadline = Instant::now() + Duration::from_secs(5);
        let resolve = |host: &str| {
            Advertised::resolve(&advertise(host, None), "192.0.2.1".parse().unwrap(), None, deadline)
        };
        assert_eq!(resolve("203.0.113.7").unwrap().ip.to_string(), "203.0.113.7");
        let error = resolve("no-such-host.invalid").unwrap_err().to_string();
        assert!(error.contains("FLAGCX_P2P_ADVERTISE=no-such-host.invalid"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = Advertise::parse(&text);
        }
    }
}
