//! The metrics endpoint of a process of this host, from its environment and its listening sockets.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flagcx_p2p::internals::config::{Files, MetricsAddress};

use super::fetch::fetch_within;
use super::listening;
use super::page::Page;
use super::target::Endpoint;
use crate::error::{CliError, Result, While};

const VARIABLE: &str = "FLAGCX_P2P_METRICS";
/// How many listeners of a process without a note are asked, and for how long each.
const MOST_ASKED: usize = 8;
const ASKED_FOR: Duration = Duration::from_secs(1);

/// The endpoint of process `pid`.
pub(super) fn endpoint(pid: u32) -> Result<Endpoint> {
    find(pid).doing(|| format!("find the metrics endpoint of process {pid}"))
}

fn find(pid: u32) -> Result<Endpoint> {
    let environment = fs::read(format!("/proc/{pid}/environ")).map_err(|error| {
        CliError::other(match error.kind() {
            io::ErrorKind::NotFound => "there is no such process".to_owned(),
            io::ErrorKind::PermissionDenied => {
                format!("cannot read its environment: {error}; run this as its user, or give HOST:PORT or unix:PATH")
            }
            _ => format!("cannot read its environment: {error}"),
        })
    })?;
    let value = value_in(&environment).or_else(|| Files::load().value(VARIABLE).map(str::to_owned));
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Err(CliError::other(format!(
            "the endpoint is off: {VARIABLE} was not set when it started; set it, for example to 127.0.0.1:9400-9407 or \
             unix:/tmp/p2p-%p, and start the process again"
        )));
    };
    let address = MetricsAddress::parse(&value).map_err(|problem| {
        CliError::other(format!("the endpoint is off: {VARIABLE}={value:?}: {problem}"))
    })?;
    // In its pid namespace, which may be a container's.
    let own = own_pid(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()).unwrap_or(pid);
    if let Some(path) = address.path(own) {
        return Ok(Endpoint::Unix(visible(pid, &path)));
    }
    if let Some(noted) = listening::noted(pid) {
        return Ok(Endpoint::Tcp(reached(noted).to_string()));
    }
    let candidates: Vec<_> =
        listening::of(pid).into_iter().filter(|socket| fits(&address, *socket)).collect();
    // Without a note, and with port 0 or where the range covers other listeners of the process, the right one is that which
    // answers. The others take the question for a stray client.
    let answers = |socket: &SocketAddr| {
        let endpoint = Endpoint::Tcp(reached(*socket).to_string());
        let page =
            fetch_within(&endpoint, "/snapshot", ASKED_FOR).and_then(|text| Page::parse(&text)).ok()?;
        (page.pid == own).then_some(endpoint)
    };
    match candidates.as_slice() {
        [one] => Ok(Endpoint::Tcp(reached(*one).to_string())),
        several => several.iter().take(MOST_ASKED).find_map(answers).ok_or_else(|| {
            CliError::other(format!(
                "it does not listen on {VARIABLE}={value}: either it has no engine now, or the port was in use, which its \
                 log says"
            ))
        }),
    }
}

fn value_in(environment: &[u8]) -> Option<String> {
    let mut variables = environment.split(|byte| *byte == 0);
    let found = variables.find_map(|entry| entry.strip_prefix(VARIABLE.as_bytes())?.strip_prefix(b"="))?;
    Some(String::from_utf8_lossy(found).into_owned())
}

/// The last number of the line `NSpid`: the pid as the process itself sees it.
fn own_pid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

/// A path of the process, as this one reaches it: relative to its directory, and in its mount namespace.
fn visible(pid: u32, path: &Path) -> PathBuf {
    let process = PathBuf::from(format!("/proc/{pid}"));
    if path.is_relative() {
        return process.join("cwd").join(path);
    }
    let namespace = |of: &Path| fs::read_link(of.join("ns/mnt")).ok();
    if namespace(&process) == namespace(Path::new("/proc/self")) {
        return path.to_owned();
    }
    process.join("root").join(path.strip_prefix("/").unwrap_or(path))
}

fn fits(address: &MetricsAddress, socket: SocketAddr) -> bool {
    match *address {
        MetricsAddress::Tcp { ip, first, last } => {
            socket.ip() == ip && (first == 0 || (first..=last).contains(&socket.port()))
        }
        MetricsAddress::Unix(_) => false,
    }
}

/// What listens everywhere is reached over loopback.
fn reached(socket: SocketAddr) -> SocketAddr {
    let ip = match socket.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, socket.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_in_an_environment() {
        let environment = b"A=1\0FLAGCX_P2P_METRICSX=no\0FLAGCX_P2P_METRICS=[::1]:1-2\0B=2\0";
        assert_eq!(value_in(environment).as_deref(), Some("[::1]:1-2"));
        assert_eq!(value_in(b"A=FLAGCX_P2P_METRICS=1\0"), None);
    }

    #[test]
    fn the_pid_inside_a_container() {
        assert_eq!(own_pid("Name:\tx\nNSpid:\t4711\t7\n"), Some(7));
        assert_eq!(own_pid("Name:\tx\n"), None);
    }

    #[test]
    fn which_listener_fits() {
        let range = MetricsAddress::parse("0.0.0.0:10-12").unwrap();
        let fits_range = |text: &str| fits(&range, text.parse().unwrap());
        assert!(fits_range("0.0.0.0:12") && !fits_range("0.0.0.0:13") && !fits_range("127.0.0.1:11"));
        assert_eq!(reached("0.0.0.0:12".parse().unwrap()).to_string(), "127.0.0.1:12");
        assert_eq!(reached("[::]:12".parse().unwrap()).to_string(), "[::1]:12");
    }
}
