//! A peer in another process: the test binary run again, told what to do through its standard input.

#[path = "../other_process/mod.rs"]
mod other_process;

use std::fs::File;
use std::io::{BufRead as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use flagcx_p2p::internals::fabric::{Access, QpAddress};

use other_process::OtherProcess;

use super::peer::{Peer, RemoteBuffer};

/// Set in the environment of the process that plays the peer: what it should be.
pub const ROLE: &str = "FLAGCX_P2P_TEST_PEER";

/// A handle on the other process. It is killed when dropped.
pub struct RemotePeer {
    process: OtherProcess,
    buffers: Vec<RemoteBuffer>,
}

impl RemotePeer {
    /// Runs test `entry` of this binary in a process of its own, with [`ROLE`] set to `role`.
    pub fn start(entry: &str, role: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let process = OtherProcess::start(command.env(ROLE, role), entry);
        Self { process, buffers: Vec::new() }
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn kill(&mut self) {
        self.process.child.kill().unwrap();
        self.process.child.wait().unwrap();
    }

    /// Sends one command without waiting for its answer, which may never come.
    pub fn send(&mut self, command: &str) {
        self.process.send(command);
    }

    /// The words of the next answer.
    pub fn answer(&mut self) -> Vec<String> {
        self.process.answer()
    }

    /// Sends one command and gives the words of its answer.
    pub fn ask(&mut self, command: &str) -> Vec<String> {
        self.process.ask(command)
    }
}

impl RemotePeer {
    fn ask_for_buffer(&mut self, length: usize, command: &str) -> RemoteBuffer {
        let answer = self.ask(command);
        let buffer = RemoteBuffer {
            index: answer[0].parse().unwrap(),
            address: answer[1].parse().unwrap(),
            length: length as u64,
            rkey: answer[2].parse().unwrap(),
        };
        self.buffers.push(buffer);
        buffer
    }
}

impl Peer for RemotePeer {
    fn buffer(&mut self, length: usize, fill: u8, access: Access) -> RemoteBuffer {
        let [local_write, remote_write, remote_read] =
            [access.local_write, access.remote_write, access.remote_read].map(u8::from);
        self.ask_for_buffer(
            length,
            &format!("buffer {length} {fill} {local_write} {remote_write} {remote_read}"),
        )
    }

    fn unannounced(&mut self, length: usize, fill: u8) -> RemoteBuffer {
        self.ask_for_buffer(length, &format!("unannounced {length} {fill}"))
    }

    /// Straight from the other process: some tests look at megabytes, in emulated machines. By its file where an emulator of programs
    /// has no process_vm_readv: a descriptor is more than a test may leave this process.
    fn bytes(&mut self, index: usize) -> Vec<u8> {
        let RemoteBuffer { address, length, .. } = self.buffers[index];
        let mut bytes = vec![0_u8; length as usize];
        let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes.len() };
        // SAFETY: `local` is a buffer of that length; what `remote` is, the kernel checks.
        let read = unsafe {
            libc::process_vm_readv(self.pid() as libc::pid_t, &raw const local, 1, &raw const remote, 1, 0)
        };
        let error = std::io::Error::last_os_error();
        if read < 0 && error.raw_os_error() == Some(libc::ENOSYS) {
            let memory = File::open(format!("/proc/{}/mem", self.pid())).unwrap();
            memory.read_exact_at(&mut bytes, address).unwrap();
        } else {
            assert_eq!(read, length as isize, "{error}");
        }
        bytes
    }

    fn set_bytes(&mut self, index: usize, bytes: &[u8]) {
        self.ask(&format!("set_bytes {index} {}", to_hex(bytes)));
    }

    fn revoke(&mut self, index: usize) {
        self.ask(&format!("revoke {index}"));
    }

    fn queue_pair(&mut self) -> (usize, QpAddress) {
        let answer = self.ask("queue_pair");
        (answer[0].parse().unwrap(), address_from_text(&answer[1]))
    }

    fn connect(&mut self, queue_pair: usize, to: &QpAddress) {
        self.ask(&format!("connect {queue_pair} {}", address_to_text(to)));
    }

    fn set_error(&mut self, queue_pair: usize) {
        self.ask(&format!("set_error {queue_pair}"));
    }

    fn is_broken(&mut self, queue_pair: usize) -> bool {
        self.ask(&format!("is_broken {queue_pair}"))[0] == "true"
    }

    fn command(&mut self, command: &str) -> Vec<String> {
        self.ask(command)
    }

    fn fatal_events(&mut self) -> Vec<u32> {
        self.ask("fatal_events").iter().map(|word| word.parse().unwrap()).collect()
    }
}

/// Plays the peer until standard input ends. `extra` answers commands that are not of [`Peer`].
pub fn serve(mut peer: impl Peer, mut extra: impl FnMut(&mut dyn Peer, &[&str]) -> String) {
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<usize>().unwrap();
        let answer = match words[0] {
            "buffer" => {
                let flag = |at: usize| words[at] == "1";
                let access = Access {
                    local_write: flag(3),
                    remote_write: flag(4),
                    remote_read: flag(5),
                    remote_atomic: false,
                    ..Access::FULL
                };
                let buffer = peer.buffer(number(1), words[2].parse().unwrap(), access);
                format!("{} {} {}", buffer.index, buffer.address, buffer.rkey)
            }
            "unannounced" => {
                let buffer = peer.unannounced(number(1), words[2].parse().unwrap());
                format!("{} {} {}", buffer.index, buffer.address, buffer.rkey)
            }
            "set_bytes" => {
                peer.set_bytes(number(1), &from_hex(words[2]));
                String::new()
            }
            "revoke" => {
                peer.revoke(number(1));
                String::new()
            }
            "queue_pair" => {
                let (index, address) = peer.queue_pair();
                format!("{index} {}", address_to_text(&address))
            }
            "connect" => {
                peer.connect(number(1), &address_from_text(words[2]));
                String::new()
            }
            "set_error" => {
                peer.set_error(number(1));
                String::new()
            }
            "is_broken" => peer.is_broken(number(1)).to_string(),
            "fatal_events" => {
                let events = peer.fatal_events();
                events.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
            }
            _ => extra(&mut peer, &words),
        };
        println!("answer: {answer}");
        std::io::stdout().flush().unwrap();
    }
}

pub fn address_to_text(address: &QpAddress) -> String {
    let QpAddress { qpn, gid, port, link_layer, lid, mtu } = address;
    format!("{qpn},{},{port},{link_layer},{lid},{mtu}", to_hex(gid))
}

pub fn address_from_text(text: &str) -> QpAddress {
    let fields: Vec<_> = text.split(',').collect();
    QpAddress {
        qpn: fields[0].parse().unwrap(),
        gid: from_hex(fields[1]).try_into().unwrap(),
        port: fields[2].parse().unwrap(),
        link_layer: fields[3].parse().unwrap(),
        lid: fields[4].parse().unwrap(),
        mtu: fields[5].parse().unwrap(),
    }
}

// By table: the peers exchange megabytes, in debug builds, in emulated machines.
fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let text = bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    String::from_utf8(text.collect()).unwrap()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| if byte <= b'9' { byte - b'0' } else { byte - b'a' + 10 };
    text.as_bytes().chunks_exact(2).map(|pair| (digit(pair[0]) << 4) | digit(pair[1])).collect()
}
