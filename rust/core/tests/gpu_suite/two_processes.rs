//! Two processes of one host: GPU memory by what its owner tells of it, and what cannot be carried.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use flagcx_p2p::internals::connection::{Connection, Remote, Request, WhenFull};
use flagcx_p2p::internals::engine::Engine;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::gpu::IpcInfo;
use flagcx_p2p::internals::transfer::{Iov, Outcome, RemoteRange, SubmitError, TransferId};

use std::time::{Duration, Instant};

use super::calls::{Call, finish, poll};
use super::cuda;
use super::group::{Group, ROLE};
use super::memory::{Kind, Registered, keeps};
use super::nic;
use crate::support::{self, LIMIT, pattern};

/// In the environment of the process that plays the peer.
const PEER: &str = "GPU_SUITE_PEER";

pub const LENGTH: usize = (256 << 10) + 77;

pub fn run(group: &mut Group) {
    let mut bench = Bench::new();
    for kind in Kind::ALL {
        group.check(&format!("WRITE {} -> GPU by IPC", kind.name()), || bench.expect_write(kind));
        group.check(&format!("READ {} <- GPU by IPC", kind.name()), || bench.expect_read(kind));
    }
    group.check("several pieces of one allocation by IPC", || bench.expect_pieces());
    group.check("a thread without a context opens and closes the peer's memory", || {
        std::thread::scope(|scope| scope.spawn(|| bench.expect_write(Kind::Gpu)).join().unwrap())
    });
    for kind in [Kind::Host, Kind::Pinned, Kind::Managed] {
        for there in [Kind::Host, Kind::Pinned, Kind::Managed] {
            let name = format!("WRITE and READ {} <-> {}, by the lanes", kind.name(), there.name());
            group.check(&name, || bench.expect_by_lanes(kind, there));
        }
    }
    group.check("GPU memory of the peer without its IPC information is refused", || {
        bench.expect_refusal(Kind::Host, Kind::Gpu)
    });
    group.check("GPU memory here and host memory of the peer are refused", || {
        bench.expect_refusal(Kind::Gpu, Kind::Host)
    });
    group.check("a forged handle is refused", || bench.expect_forgery());
    group.check("a length beyond the peer's allocation is refused", || bench.expect_no_more_than_there_is());
    group.check("the peer dies: the next transfer by IPC is refused or fails", || bench.expect_death());
}

/// A peer in another process, and our end of the connection to it.
struct Bench {
    peer: Peer,
    engine: Arc<Engine>,
    here: Arc<Connection>,
}

impl Bench {
    fn new() -> Self {
        let engine = support::engine(&[]);
        let peer = Peer::start();
        let here = keeps("connect", || engine.connect("127.0.0.1", peer.port, 0, false)).unwrap();
        Self { peer, engine, here }
    }

    fn desc(&self, kind: Kind, offset: u64, length: u64) -> RemoteRange {
        let (address, rkey) = self.peer.memory[kind as usize];
        RemoteRange { address: address + offset, size: length as u32, rkey }
    }

    fn ipc(&self, offset: u64, length: u64) -> IpcInfo {
        let whole = self.peer.ipc.clone();
        IpcInfo { offset: whole.offset + offset, size: length, ..whole }
    }

    fn start(&self, opcode: Opcode, iovs: &[Iov], ipc: &[IpcInfo]) -> Result<TransferId, SubmitError> {
        let ipc: Vec<_> = ipc.iter().cloned().map(Some).collect();
        let remote = Remote::Ipc(&ipc);
        keeps("start", || {
            self.here.start(&Request { opcode, iovs, remote, when_full: WhenFull::Wait, at_once: false })
        })
    }

    fn expect_write(&mut self, kind: Kind) -> String {
        let local = Registered::new(&self.engine, kind, LENGTH);
        for (seed, (from, to, length)) in [(0, 0, LENGTH), (3, 4097, 4096), (9, 1, 1)].into_iter().enumerate()
        {
            let (sent, before) = (pattern(seed as u64 + 10, LENGTH), pattern(seed as u64 + 50, LENGTH));
            local.memory.write(&sent);
            self.peer.fill(Kind::Gpu, seed as u64 + 50);
            let iov = Iov {
                local: local.memory.address + from as u64,
                length: length as u64,
                region: Some(local.region),
                remote: self.desc(Kind::Gpu, to as u64, length as u64),
            };
            let id = self.start(Opcode::Write, &[iov], &[self.ipc(to as u64, length as u64)]).unwrap();
            assert_eq!(poll(&self.here, id), Outcome::Done);
            let mut expected = before;
            expected[to..][..length].copy_from_slice(&sent[from..][..length]);
            assert_eq!(self.peer.sum(Kind::Gpu), sum(&expected), "{length} bytes");
        }
        String::new()
    }

    fn expect_read(&mut self, kind: Kind) -> String {
        let local = Registered::new(&self.engine, kind, LENGTH);
        let before = pattern(20, LENGTH);
        local.memory.write(&before);
        self.peer.fill(Kind::Gpu, 21);
        let (from, to, length) = (11, 5, LENGTH - 100);
        let iov = Iov {
            local: local.memory.address + to as u64,
            length: length as u64,
            region: Some(local.region),
            remote: self.desc(Kind::Gpu, from as u64, length as u64),
        };
        let id = self.start(Opcode::Read, &[iov], &[self.ipc(from as u64, length as u64)]).unwrap();
        assert_eq!(finish(&self.here, id), Outcome::Done);
        let mut expected = before;
        expected[to..][..length].copy_from_slice(&pattern(21, LENGTH)[from..][..length]);
        assert!(local.memory.read() == expected);
        String::new()
    }

    fn expect_pieces(&mut self) -> String {
        const PIECE: u64 = 4096;
        let local = Registered::new(&self.engine, Kind::Gpu, LENGTH);
        let sent = pattern(30, LENGTH);
        local.memory.write(&sent);
        self.peer.fill(Kind::Gpu, 31);
        let mut expected = pattern(31, LENGTH);
        let (mut iovs, mut ipc) = (Vec::new(), Vec::new());
        for piece in 0..64_u64 {
            let (from, to) = (piece * PIECE, (63 - piece) * PIECE);
            iovs.push(Iov {
                local: local.memory.address + from,
                length: PIECE,
                region: Some(local.region),
                remote: self.desc(Kind::Gpu, to, PIECE),
            });
            ipc.push(self.ipc(to, PIECE));
            expected[to as usize..][..PIECE as usize]
                .copy_from_slice(&sent[from as usize..][..PIECE as usize]);
        }
        let id = self.start(Opcode::Write, &iovs, &ipc).unwrap();
        assert_eq!(finish(&self.here, id), Outcome::Done);
        assert_eq!(self.peer.sum(Kind::Gpu), sum(&expected));
        format!("{} pieces", iovs.len())
    }

    fn expect_by_lanes(&mut self, kind: Kind, there: Kind) -> String {
        let local = Registered::new(&self.engine, kind, LENGTH);
        let sent = pattern(40, LENGTH);
        local.memory.write(&sent);
        self.peer.fill(there, 41);
        let iov = Iov {
            local: local.memory.address,
            length: LENGTH as u64,
            region: Some(local.region),
            remote: self.desc(there, 0, LENGTH as u64),
        };
        let id = keeps("submit", || self.here.submit(Opcode::Write, &[iov][..])).unwrap();
        assert_eq!(finish(&self.here, id), Outcome::Done);
        assert_eq!(self.peer.sum(there), sum(&sent));
        self.peer.fill(there, 42);
        let id = keeps("submit", || self.here.submit(Opcode::Read, &[iov][..])).unwrap();
        assert_eq!(finish(&self.here, id), Outcome::Done);
        assert!(local.memory.read() == pattern(42, LENGTH));
        format!("path: {}", self.here.info().path)
    }

    /// By every call, before anything is moved.
    fn expect_refusal(&mut self, kind: Kind, there: Kind) -> String {
        let local = Registered::new(&self.engine, kind, LENGTH);
        self.peer.fill(there, 43);
        let before = self.peer.sum(there);
        let mut said = String::new();
        for length in [8, LENGTH as u64] {
            let iov = Iov {
                local: local.memory.address,
                length,
                region: Some(local.region),
                remote: self.desc(there, 0, length),
            };
            for opcode in [Opcode::Write, Opcode::Read] {
                for call in Call::ALL {
                    let error = call.carry(&self.here, opcode, &[iov]).unwrap_err();
                    let at_end = if kind == Kind::Gpu {
                        matches!(error, SubmitError::Local { iov: 0, .. })
                    } else {
                        matches!(error, SubmitError::Remote { iov: 0, .. })
                    };
                    assert!(at_end && error.to_string().contains("GPU memory"), "{error}");
                    said = error.to_string();
                }
            }
        }
        assert_eq!(self.peer.sum(there), before);
        said
    }

    fn expect_forgery(&mut self) -> String {
        let local = Registered::new(&self.engine, Kind::Gpu, LENGTH);
        let iov = Iov {
            local: local.memory.address,
            length: 64,
            region: Some(local.region),
            remote: self.desc(Kind::Gpu, 0, 64),
        };
        let mut forged = self.ipc(0, 64);
        // Not a few bytes of it: the driver does not look at all of them.
        forged.handle.iter_mut().for_each(|byte| *byte ^= 0x5a);
        let error = self.start(Opcode::Write, &[iov], &[forged]).unwrap_err();
        assert!(matches!(error, SubmitError::Gpu { iov: 0, .. }), "{error}");
        error.to_string()
    }

    /// The driver says how long the allocation is that was opened, not the peer.
    fn expect_no_more_than_there_is(&mut self) -> String {
        let local = Registered::new(&self.engine, Kind::Gpu, LENGTH);
        let iov = Iov {
            local: local.memory.address,
            length: 64,
            region: Some(local.region),
            remote: self.desc(Kind::Gpu, 0, 64),
        };
        let before = self.peer.sum(Kind::Gpu);
        let mut said = String::new();
        for (offset, size) in [(0, 1 << 40), (1 << 40, 64)] {
            let error = self.start(Opcode::Write, &[iov], &[self.ipc(offset, size)]).unwrap_err();
            assert!(matches!(error, SubmitError::Gpu { iov: 0, .. }), "{error}");
            said = error.to_string();
            assert!(said.contains("reaches beyond the peer's memory"), "{said}");
        }
        assert_eq!(self.peer.sum(Kind::Gpu), before);
        said
    }

    fn expect_death(&mut self) -> String {
        let local = Registered::new(&self.engine, Kind::Gpu, LENGTH);
        let iov = Iov {
            local: local.memory.address,
            length: LENGTH as u64,
            region: Some(local.region),
            remote: self.desc(Kind::Gpu, 0, LENGTH as u64),
        };
        self.peer.child.kill().unwrap();
        self.peer.child.wait().unwrap();
        // The allocation is open here, so that a copy may succeed until the connection knows.
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < LIMIT, "transfers with a dead peer are started after {LIMIT:?}");
            match self.start(Opcode::Write, &[iov], &[self.ipc(0, LENGTH as u64)]) {
                Ok(id) => match finish(&self.here, id) {
                    Outcome::Done => std::thread::sleep(Duration::from_millis(1)),
                    outcome => return outcome.to_string(),
                },
                Err(error) => return error.to_string(),
            }
        }
    }
}

/// The peer's process, as this one sees it.
pub struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub port: u16,
    /// Address and key of each kind, in the order of [`Kind::ALL`].
    pub memory: [(u64, u32); 4],
    /// Of all of its GPU memory.
    ipc: IpcInfo,
}

impl Peer {
    pub fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(PEER, "1").env_remove(ROLE).stdin(Stdio::piped()).stdout(Stdio::piped());
        cuda::choose(&cuda::library(), &mut command);
        let mut child = command.spawn().unwrap();
        let (input, mut output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let answer = line(&mut output);
        let numbers: Vec<u64> = answer.split(' ').map(|word| word.parse().unwrap()).collect();
        let memory = std::array::from_fn(|kind| (numbers[1 + 2 * kind], numbers[2 + 2 * kind] as u32));
        let record: Vec<u8> = numbers[9..].iter().map(|byte| *byte as u8).collect();
        let ipc = IpcInfo::decode(record.as_slice().try_into().unwrap()).expect("IPC information");
        Self { child, input, output, port: numbers[0] as u16, memory, ipc }
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.input, "{question}").unwrap();
        line(&mut self.output)
    }

    /// Fills its memory of a kind with a pattern.
    pub fn fill(&mut self, kind: Kind, seed: u64) {
        assert_eq!(self.ask(&format!("fill {} {seed}", kind as usize)), "filled");
    }

    /// The sum of all of its memory of a kind.
    pub fn sum(&mut self, kind: Kind) -> u64 {
        self.ask(&format!("sum {} 0", kind as usize)).parse().unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(output: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "the peer's process has ended");
    line.trim().to_owned()
}

/// FNV-1a, so that one number says whether all bytes are as expected.
pub fn sum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Plays the peer, if this process is to.
pub fn play_if_asked() -> bool {
    if std::env::var_os(PEER).is_none() {
        return false;
    }
    cuda::cuda();
    let engine = nic::engine();
    let memory = Kind::ALL.map(|kind| Registered::new(&engine, kind, LENGTH));
    engine.start_rpc_server().unwrap();
    let mut numbers = vec![u64::from(engine.rpc_port().unwrap())];
    for registered in &memory {
        let desc = engine.describe(registered.region, registered.memory.address, LENGTH as u64).unwrap();
        numbers.extend([desc.address, u64::from(desc.rkey)]);
    }
    let gpu = memory[Kind::Gpu as usize].memory.address;
    let ipc = engine.ipc_info(gpu).flatten().expect("IPC information");
    numbers.extend(ipc.encode().map(u64::from));
    println!("{}", numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(" "));
    for question in std::io::stdin().lines().map_while(Result::ok) {
        let words: Vec<_> = question.split(' ').collect();
        let memory = &memory[words[1].parse::<usize>().unwrap()].memory;
        match words[0] {
            "fill" => {
                memory.write(&pattern(words[2].parse().unwrap(), LENGTH));
                println!("filled");
            }
            _ => println!("{}", sum(&memory.read())),
        }
    }
    true
}
