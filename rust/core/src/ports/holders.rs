//! The sockets that listen on the ports of a range, from `/proc/net/tcp`.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::Read;

/// The holders of the ports of a range.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Holders {
    /// How many ports there are.
    ports: usize,
    /// Those that this process listens on.
    ours: usize,
    /// Those that others listen on, with their user.
    others: Vec<(u16, u32)>,
}

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Socket {
    port: u16,
    user: u32,
    inode: u64,
}

impl Holders {
    /// Reads the kernel's tables. Ports without a listener count as held by connections.
    pub(super) fn of(low: u16, high: u16) -> Self {
        let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"].map(read_bounded);
        let listening: Vec<_> = tables.iter().flat_map(|table| table.lines().filter_map(parse)).collect();
        Self::new(low, high, &listening, &own_inodes())
    }

    fn new(low: u16, high: u16, listening: &[Socket], own: &HashSet<u64>) -> Self {
        let mut holders = Self { ports: usize::from(high.saturating_sub(low)) + 1, ..Self::default() };
        let mut seen = HashSet::new();
        for socket in listening.iter().filter(|socket| (low..=high).contains(&socket.port)) {
            if !seen.insert(socket.port) {
                continue;
            }
            if own.contains(&socket.inode) {
                holders.ours += 1;
            } else {
                holders.others.push((socket.port, socket.user));
            }
        }
        holders
    }
}

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ports, ours, others } = self;
        let rest = ports.saturating_sub(ours + others.len());
        let mut parts = Vec::new();
        if *ours > 0 {
            parts.push(format!("{ours} by listeners of this process"));
        }
        if let Some((port, user)) = others.first() {
            let count = others.len();
            parts.push(format!(
                "{count} by listeners of other processes (port {port} by user {user}; ss -tlnp lists them)"
            ));
        }
        if rest > 0 {
            parts.push(format!("{rest} by connections"));
        }
        write!(f, "of {ports} held {}", parts.join(", "))
    }
}

/// A line of the table, if it is a listening socket.
fn parse(line: &str) -> Option<Socket> {
    let fields: Vec<_> = line.split_whitespace().take(10).collect();
    let [_, local, _, LISTEN, _, _, _, user, _, inode] = fields[..] else { return None };
    let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    Some(Socket { port, user: user.parse().ok()?, inode: inode.parse().ok()? })
}

fn own_inodes() -> HashSet<u64> {
    let descriptors = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let inode = |entry: std::fs::DirEntry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    descriptors.filter_map(inode).collect()
}

fn read_bounded(path: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // After an error the part read so far is used.
        let _ = file.take(MOST_READ).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Listening sockets come first in the table; a line has 150 bytes.
const MOST_READ: u64 = 1 << 20;
/// The state of a listening socket.
const LISTEN: &str = "0A";

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:4E20 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 111 1 0 100 0 0 10 0
   1: 0100007F:4E21 00000000:0000 0A 00000000:00000000 00:00000000 00000000     7        0 222 1 0 100 0 0 10 0
   2: 0100007F:4E22 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     7        0 333 1 0 100 0 0 10 0
   3: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     7        0 444 1 0 100 0 0 10 0
";

    #[test]
    fn listeners_of_this_process_and_of_others_are_distinguished() {
        let listening: Vec<_> = TABLE.lines().filter_map(parse).collect();
        assert_eq!(listening.len(), 3);
        let holders = Holders::new(20_000, 20_002, &listening, &HashSet::from([111]));
        assert_eq!(holders, Holders { ports: 3, ours: 1, others: vec![(20_001, 7)] });
        let text = holders.to_string();
        assert_eq!(
            text,
            "of 3 held 1 by listeners of this process, 1 by listeners of other processes (port 20001 by user 7; ss -tlnp lists \
             them), 1 by connections"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = text.lines().filter_map(parse).count();
        }
    }
}
