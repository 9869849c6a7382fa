//! A peer as the command line names it: by `HOST:PORT`, or by `NAME:` with what is wanted of it behind.

use std::fmt;
use std::net::IpAddr;

use flagcx_p2p::internals::config::Hidden;
use flagcx_p2p::internals::control::{self, HostError};

use super::directory;
use crate::error::{CliError, Result};

/// What the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerName {
    /// `HOST:PORT`, as it was written: the look-up of a host's name comes later.
    Address(String),
    /// `NAME:PATH`, where the path may be empty.
    Name {
        /// The name that the peer has published.
        name: String,
        /// What is behind the colon.
        path: String,
    },
}

/// A peer, and where names are looked up.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) name: PeerName,
    /// The URL of `--directory`, which may have a password in it.
    pub(crate) directory: Option<Hidden>,
}

impl PeerName {
    /// Reads what was written. What is an address is never a name: `store:7733` is port 7733 of the host `store`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match control::split_session(text).and_then(|(host, port)| control::numeric(host, port)) {
            Ok(_) => Ok(Self::Address(text.to_owned())),
            Err(HostError::Session(_)) => Self::parse_name(text).ok_or_else(|| EXPECTED.to_owned()),
            Err(error @ HostError::Address(_)) => Err(error.to_string()),
        }
    }

    fn parse_name(text: &str) -> Option<Self> {
        let (name, path) = text.split_once(':')?;
        // An address with something else than a port behind it is mistyped.
        let is_name = directory::is_name(name) && name.parse::<IpAddr>().is_err();
        is_name.then(|| Self::Name { name: name.to_owned(), path: path.to_owned() })
    }
}

impl Peer {
    /// What is wanted of the peer, if that is written with its name.
    pub(crate) fn path(&self) -> &str {
        match &self.name {
            PeerName::Address(_) => "",
            PeerName::Name { path, .. } => path,
        }
    }

    /// A mistake that can be seen before anything is contacted: a name where no directory is known.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.name {
            PeerName::Address(_) => Ok(()),
            PeerName::Name { .. } => {
                directory::url(self.directory.as_ref().map(Hidden::reveal)).map(drop).map_err(|error| {
                    CliError::usage(format!(
                        "`{}`: expected host:port, such as 192.0.2.7:7733; it may be a name, but {error}",
                        self.name
                    ))
                })
            }
        }
    }

    /// Calls `connect` with the peer's address. That of a name is looked up, and once more where it does not work: the peer may have
    /// been started again meanwhile.
    pub(crate) fn reach<T>(&self, connect: impl Fn(&str) -> Result<T>) -> Result<T> {
        let (name, directory) = match &self.name {
            PeerName::Address(address) => return connect(address),
            PeerName::Name { name, .. } => (name, self.directory.as_ref().map(Hidden::reveal)),
        };
        let address = directory::look_up(directory, name)?;
        connect(&address).or_else(|error| match directory::look_up(directory, name) {
            Ok(other) if other != address => connect(&other),
            _ => Err(directory::where_it_led(error, name, &address)),
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            PeerName::Address(text) | PeerName::Name { name: text, .. } => f.write_str(text),
        }
    }
}

impl fmt::Display for PeerName {
    /// As it is written on the command line, without the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => f.write_str(address),
            Self::Name { name, .. } => write!(f, "{name}:"),
        }
    }
}

/// What is neither an address nor a name.
const EXPECTED: &str = "expected host:port or [IPv6 address]:port, such as 192.0.2.7:7733, or a published name with a colon, such as `decode-3:`";

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "directory")]
    #[test]
    fn addresses_and_names() {
        let name = |name: &str, path: &str| PeerName::Name { name: name.to_owned(), path: path.to_owned() };
        for (text, expected) in [
            ("store:", name("store", "")),
            ("store:models/a.bin", name("store", "models/a.bin")),
            ("tenant/store:./7733", name("tenant/store", "./7733")),
            ("store:a:b", name("store", "a:b")),
            ("store:7733", PeerName::Address("store:7733".to_owned())),
            ("[::1]:7733", PeerName::Address("[::1]:7733".to_owned())),
        ] {
            assert_eq!(PeerName::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_neither() {
        for text in ["", "store", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "::1]:1", "a b:", ":x", "/:"]
        {
            let error = PeerName::parse(text).unwrap_err();
            assert!(error.contains("expected host:port"), "{text}: {error}");
        }
    }
}
