//! Where the metrics endpoint listens: the value of `FLAGCX_P2P_METRICS`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::log_settings::{expand, host_name};

/// Longest path of a Unix socket: the kernel's limit of 108 bytes with the zero at its end.
const MAX_PATH: usize = 107;
/// What the names of notes begin with.
const NOTE: &str = "flagcx-p2p-metrics ";

/// An address of the metrics endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsAddress {
    /// The first free port of a range.
    Tcp {
        /// Where.
        ip: IpAddr,
        /// First port; 0 lets the kernel choose.
        first: u16,
        /// Last port, not below the first.
        last: u16,
    },
    /// A Unix socket.
    Unix(
        /// Its path, in which `%h` stands for the host, `%p` for the process, and `%%` for a percent sign.
        String,
    ),
}

impl MetricsAddress {
    /// Parses `addr:port`, `addr:first-last` or `unix:path`. The error says what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path);
        }
        let (host, ports) = text.rsplit_once(':').ok_or_else(expected)?;
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let ip = match bracketed {
            Some(host) => host.parse().map(IpAddr::V6).map_err(|_| expected())?,
            None => host.parse().map(IpAddr::V4).map_err(|_| expected())?,
        };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (first, last) = (port(first)?, port(last)?);
        if first > last || (first == 0 && last != 0) {
            return Err(format!("the ports {ports} are no range; {}", expected()));
        }
        Ok(Self::Tcp { ip, first, last })
    }

    /// The path of a Unix socket in the process `pid`; `None` for the other form.
    pub fn path(&self, pid: u32) -> Option<PathBuf> {
        let Self::Unix(template) = self else { return None };
        Some(expand(template, &host_name(), pid))
    }

    /// The name of the file in memory by which a process notes where its endpoint listens.
    pub fn note(address: SocketAddr) -> String {
        format!("{NOTE}{address}")
    }

    /// The address in such a note, by the target of its link in `/proc/PID/fd`.
    pub fn noted(link: &Path) -> Option<SocketAddr> {
        let name = link.to_str()?.strip_prefix("/memfd:")?.strip_prefix(NOTE)?;
        name.strip_suffix(" (deleted)").unwrap_or(name).parse().ok()
    }
}

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(template) => write!(f, "unix:{template}"),
            Self::Tcp { ip: IpAddr::V6(ip), first, last } if first == last => write!(f, "[{ip}]:{first}"),
            Self::Tcp { ip: IpAddr::V6(ip), first, last } => write!(f, "[{ip}]:{first}-{last}"),
            Self::Tcp { ip, first, last } if first == last => write!(f, "{ip}:{first}"),
            Self::Tcp { ip, first, last } => write!(f, "{ip}:{first}-{last}"),
        }
    }
}

fn expected() -> String {
    "expected a numeric address with a port (127.0.0.1:9400, [::1]:9400), with a range of ports (127.0.0.1:9400-9407), \
     or unix:path"
        .to_owned()
}

fn port(text: &str) -> Result<u16, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).ok_or_else(|| format!("{text:?} is no port; {}", expected()))
}

fn unix(template: &str) -> Result<MetricsAddress, String> {
    // The longest pid, so that every process can open it.
    let longest = expand(template, "", u32::MAX).as_os_str().len();
    if template.is_empty() || template.contains('\0') || longest > MAX_PATH {
        return Err(format!("expected a path of 1 to {MAX_PATH} bytes behind unix:, with %p counted as ten"));
    }
    Ok(MetricsAddress::Unix(template.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let tcp = |ip: &str, first, last| Ok(MetricsAddress::Tcp { ip: ip.parse().unwrap(), first, last });
        assert_eq!(MetricsAddress::parse("127.0.0.1:9400"), tcp("127.0.0.1", 9400, 9400));
        assert_eq!(MetricsAddress::parse("0.0.0.0:9400-9407"), tcp("0.0.0.0", 9400, 9407));
        assert_eq!(MetricsAddress::parse("[::1]:1-65535"), tcp("::1", 1, 65535));
        assert_eq!(MetricsAddress::parse("127.0.0.1:0"), tcp("127.0.0.1", 0, 0));
        for text in [
            "",
            ":",
            ":9400",
            "9400",
            "localhost:9400",
            "::1:9400",
            "[127.0.0.1]:1",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:-",
            "127.0.0.1:9-8",
            "127.0.0.1:0-8",
            "127.0.0.1:70000",
            "127.0.0.1:+1",
            "127.0.0.1: 1",
            "unix:",
            "unix:a\0b",
            "tcp:127.0.0.1:1",
        ] {
            let error = MetricsAddress::parse(text).unwrap_err();
            assert!(error.contains("expected"), "{text}: {error}");
        }
        assert!(MetricsAddress::parse(&format!("unix:/{}%p", "x".repeat(96))).is_ok());
        assert!(MetricsAddress::parse(&format!("unix:/{}%p", "x".repeat(97))).is_err());
    }

    #[test]
    fn a_path_names_its_process() {
        let path = |text: &str| MetricsAddress::parse(text).unwrap().path(42).unwrap();
        assert_eq!(path("unix:/run/p2p-%p.sock"), PathBuf::from("/run/p2p-42.sock"));
        assert_eq!(path("unix:a%%p%x%"), PathBuf::from("a%p%x%"));
        assert_eq!(MetricsAddress::parse("[::1]:5").unwrap().path(42), None);
    }

    proptest::proptest! {
        #[test]
        fn what_is_parsed_is_written_back(text in "(unix:|\\[?[0-9a-f:.]{1,16}\\]?:)?[ -~]{0,30}") {
            if let Ok(address) = MetricsAddress::parse(&text) {
                proptest::prop_assert_eq!(MetricsAddress::parse(&address.to_string()), Ok(address));
            }
        }
    }
}
