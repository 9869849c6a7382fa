//! The TCP sockets that a process listens on, from `/proc`.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use flagcx_p2p::internals::config::MetricsAddress;

/// The state of a listening socket in the kernel's tables.
const LISTEN: &str = "0A";

/// Where `pid` notes that its metrics endpoint listens.
pub(super) fn noted(pid: u32) -> Option<SocketAddr> {
    descriptors(pid).find_map(|target| MetricsAddress::noted(&target))
}

/// Where `pid` listens; empty if its descriptors cannot be read.
pub(super) fn of(pid: u32) -> Vec<SocketAddr> {
    let own: HashSet<u64> = descriptors(pid).filter_map(|target| inode(&target)).collect();
    let tables =
        ["tcp", "tcp6"].map(|name| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines());
    lines.filter_map(parse).filter(|(_, inode)| own.contains(inode)).map(|(address, _)| address).collect()
}

/// What the descriptors of `pid` are, as the kernel names it.
fn descriptors(pid: u32) -> impl Iterator<Item = PathBuf> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.filter_map(|entry| fs::read_link(entry.path()).ok())
}

fn inode(target: &Path) -> Option<u64> {
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Address and inode of a line of the table, if it is a listening socket.
fn parse(line: &str) -> Option<(SocketAddr, u64)> {
    let fields: Vec<_> = line.split_whitespace().take(10).collect();
    let [_, local, _, LISTEN, _, _, _, _, _, inode] = fields[..] else { return None };
    let (ip, port) = local.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((SocketAddr::new(ip_of(ip)?, port), inode.parse().ok()?))
}

/// The kernel writes each word of 32 bits as this machine reads it.
fn ip_of(text: &str) -> Option<IpAddr> {
    let word = |index: usize| {
        let digits = text.get(index * 8..index * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn own_listeners_are_found() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(!of(std::process::id()).contains(&v4), "closed");
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut expected = vec![open.local_addr().unwrap()];
        let v6 = TcpListener::bind("[::1]:0");
        expected.extend(v6.iter().map(|socket| socket.local_addr().unwrap()));
        let found = of(std::process::id());
        assert!(expected.iter().all(|address| found.contains(address)), "{expected:?} in {found:?}");
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(line in ".{0,80}") {
            let _ = parse(&line);
        }
    }
}
