//! Which process to watch, as the command line says.

use std::fmt;
use std::path::PathBuf;

use flagcx_p2p::internals::control::{self, HostError};

use super::of_pid;
use crate::error::Result;

/// As given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Endpoint(Endpoint),
    Pid(u32),
}

/// Where an endpoint is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Tcp(String),
    Unix(PathBuf),
}

impl Target {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Endpoint(Endpoint::Unix(path.into())));
        }
        if let Some(pid) = text.parse().ok().filter(|pid| *pid > 0) {
            return Ok(Self::Pid(pid));
        }
        let found = control::split_session(text).and_then(|(host, port)| control::numeric(host, port));
        match found {
            Ok(_) => Ok(Self::Endpoint(Endpoint::Tcp(text.to_owned()))),
            Err(error @ HostError::Address(_)) => Err(error.to_string()),
            Err(HostError::Session(_)) => {
                Err(format!("`{text}` is neither HOST:PORT, unix:PATH nor a process id"))
            }
        }
    }

    /// The endpoint; that of a process is looked up.
    pub(crate) fn resolve(&self) -> Result<Endpoint> {
        match self {
            Self::Endpoint(endpoint) => Ok(endpoint.clone()),
            Self::Pid(pid) => of_pid::endpoint(*pid),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let tcp = |text: &str| Ok(Target::Endpoint(Endpoint::Tcp(text.to_owned())));
        assert_eq!(Target::parse("host:9400"), tcp("host:9400"));
        assert_eq!(Target::parse("[::1]:9400"), tcp("[::1]:9400"));
        assert_eq!(Target::parse("unix:/a:1"), Ok(Target::Endpoint(Endpoint::Unix("/a:1".into()))));
        assert_eq!(Target::parse("4711"), Ok(Target::Pid(4711)));
        for text in ["", "0", "host", ":9400", "host:0", "host:99999", "host:http", "unix:", "-1"] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }
}
