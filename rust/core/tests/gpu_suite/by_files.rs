//! Two processes of one host, and memory that has no legacy IPC handle: what its owner tells, what is refused, and memory that
//! is the owner's no more.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use flagcx_p2p::internals::connection::{Connection, Remote, Request, WhenFull};
use flagcx_p2p::internals::engine::{Engine, RegisterOptions};
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::gpu::{self, IpcInfo};
use flagcx_p2p::internals::memory::RegionId;
use flagcx_p2p::internals::transfer::{Iov, Outcome, RemoteRange, SubmitError};

use super::calls::finish;
use super::cuda::{self, cuda};
use super::failing::Failing;
use super::group::{Group, ROLE};
use super::memory::{Kind, Registered, in_context, keeps};
use super::two_processes::sum;
use super::vmm::{OfPool, Segments, Shareable};
use crate::support::{self, pattern};

/// In the environment of the process that plays the owner.
const OWNER: &str = "GPU_SUITE_OWNER";
/// Allocations side by side.
const SEGMENTS: usize = 3;
/// Not of whole pages.
const POOL_LENGTH: usize = (256 << 10) + 77;

pub fn run(group: &mut Group) {
    group.check(
        "what is freed while it is registered, or in part: there is no IPC information",
        expect_no_record,
    );
    let mut bench = Bench::new();
    for kind in [Kind::Gpu, Kind::Host] {
        group.check(&format!("WRITE and READ {} <-> memory of cuMemCreate", kind.name()), || {
            bench.expect_bytes(kind, Place::Segments)
        });
        group.check(&format!("WRITE and READ {} <-> memory of a pool", kind.name()), || {
            bench.expect_bytes(kind, Place::Pool)
        });
    }
    group.check("a piece across two allocations", || bench.expect_across());
    group.check("what its owner registers anew is not taken for what was there", || bench.expect_renewed());
    group.check("below a runtime that has no files, as FlagCX's adaptor, the CUDA driver has them", || {
        bench.expect_below_an_adaptor()
    });
    for place in [Place::PrivateSegments, Place::PrivatePool] {
        group.check(&format!("{}: the owner has no IPC information", place.name()), || {
            assert!(bench.owner.record(place).is_none());
            "said in one line of its log".to_owned()
        });
    }
    group.check("a range beyond the owner's memory is refused", || bench.expect_beyond());
    group.check("a forged token, list or process is refused", || bench.expect_forgeries());
    group.check("what its owner deregisters is refused, open or not", || bench.expect_deregistered());
    group.check("memory of a process that is not the peer, or that has ended, is refused", || {
        bench.expect_death()
    });
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Segments,
    Pool,
    PrivateSegments,
    PrivatePool,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Segments => "memory of cuMemCreate",
            Self::Pool => "memory of a pool",
            Self::PrivateSegments => "memory of cuMemCreate without a file descriptor",
            Self::PrivatePool => "memory of a pool without a file descriptor",
        }
    }
}

struct Bench {
    owner: Owner,
    engine: Arc<Engine>,
    here: Arc<Connection>,
}

impl Bench {
    fn new() -> Self {
        let engine = support::engine(&[]);
        let owner = Owner::start();
        let here = keeps("connect", || engine.connect("127.0.0.1", owner.port, 0, false)).unwrap();
        Self { owner, engine, here }
    }

    /// One piece at an offset of the owner's memory.
    fn carry(
        &self,
        opcode: Opcode,
        local: &Registered,
        record: &IpcInfo,
        offset: u64,
        length: u64,
    ) -> Result<Outcome, SubmitError> {
        let remote = RemoteRange {
            address: record.base.wrapping_add(record.offset).wrapping_add(offset),
            size: length as u32,
            rkey: 0,
        };
        let iov = Iov { local: local.memory.address, length, region: Some(local.region), remote };
        let record = IpcInfo { offset: record.offset.wrapping_add(offset), size: length, ..record.clone() };
        let id = keeps("start", || {
            self.here.start(&Request {
                opcode,
                iovs: &[iov][..],
                remote: Remote::Ipc(&[Some(record)]),
                when_full: WhenFull::Wait,
                at_once: false,
            })
        })?;
        Ok(finish(&self.here, id))
    }

    fn expect_bytes(&mut self, kind: Kind, place: Place) -> String {
        let record = self.owner.record(place).expect("IPC information");
        let length = record.size as usize;
        let local = Registered::new(&self.engine, kind, length);
        for (seed, (offset, bytes)) in [(0, length), (4097, 8191), (length - 1, 1)].into_iter().enumerate() {
            let [ours, theirs] = [2 * seed as u64 + 1, 2 * seed as u64 + 2];
            local.memory.write(&pattern(ours, length));
            self.owner.fill(place, theirs);
            let (offset, bytes) = (offset as u64, bytes as u64);
            assert_eq!(self.carry(Opcode::Write, &local, &record, offset, bytes), Ok(Outcome::Done));
            let mut expected = pattern(theirs, length);
            expected[offset as usize..][..bytes as usize]
                .copy_from_slice(&pattern(ours, length)[..bytes as usize]);
            assert_eq!(self.owner.sum(place), sum(&expected), "WRITE of {bytes} bytes at {offset}");
            self.owner.fill(place, theirs + 50);
            assert_eq!(self.carry(Opcode::Read, &local, &record, offset, bytes), Ok(Outcome::Done));
            let mut expected = pattern(ours, length);
            expected[..bytes as usize]
                .copy_from_slice(&pattern(theirs + 50, length)[offset as usize..][..bytes as usize]);
            assert!(local.memory.read() == expected, "READ of {bytes} bytes at {offset}");
        }
        format!("{length} bytes")
    }

    fn expect_across(&mut self) -> String {
        let record = self.owner.record(Place::Segments).expect("IPC information");
        let each = record.size / SEGMENTS as u64;
        let local = Registered::new(&self.engine, Kind::Gpu, record.size as usize);
        local.memory.write(&pattern(70, record.size as usize));
        self.owner.fill(Place::Segments, 71);
        // From the end of the first one over all of the second into the third.
        let (offset, length) = (each - 5, each + 10);
        assert_eq!(self.carry(Opcode::Write, &local, &record, offset, length), Ok(Outcome::Done));
        let mut expected = pattern(71, record.size as usize);
        expected[offset as usize..][..length as usize]
            .copy_from_slice(&pattern(70, record.size as usize)[..length as usize]);
        assert_eq!(self.owner.sum(Place::Segments), sum(&expected));
        format!("{length} bytes of {SEGMENTS} allocations of {each}")
    }

    /// The range ends and begins again with other allocations at the same addresses.
    fn expect_renewed(&mut self) -> String {
        let before = self.owner.record(Place::Segments).expect("IPC information");
        let local = Registered::new(&self.engine, Kind::Host, before.size as usize);
        assert_eq!(self.carry(Opcode::Read, &local, &before, 0, 64), Ok(Outcome::Done));
        assert_eq!(self.owner.ask("renew"), "renewed");
        let error = self.carry(Opcode::Write, &local, &before, 0, 64).unwrap_err().to_string();
        assert!(error.contains("it has been deregistered there"), "{error}");
        let after = self.owner.record(Place::Segments).expect("IPC information");
        assert_eq!((after.base, after.size), (before.base, before.size));
        self.expect_bytes(Kind::Host, Place::Segments);
        error
    }

    /// At both ends another runtime is installed, which knows of no files.
    fn expect_below_an_adaptor(&mut self) -> String {
        assert_eq!(self.owner.ask("adaptor"), "installed");
        assert_eq!(self.owner.ask("renew"), "renewed");
        install_adaptor();
        let said = self.expect_bytes(Kind::Gpu, Place::Segments);
        gpu::install(None);
        said
    }

    fn expect_refusal(&self, record: &IpcInfo, says: &str) -> String {
        let local = Registered::new(&self.engine, Kind::Gpu, 64);
        let error = self.carry(Opcode::Write, &local, record, 0, 64).unwrap_err();
        assert!(matches!(error, SubmitError::Gpu { iov: 0, .. }), "{error}");
        assert!(error.to_string().contains(says), "{error}");
        error.to_string()
    }

    fn expect_beyond(&mut self) -> String {
        for place in [Place::Segments, Place::Pool] {
            let record = self.owner.record(place).expect("IPC information");
            for offset in [record.offset + record.size - 63, u64::MAX - 20] {
                let beyond = IpcInfo { offset, ..record.clone() };
                self.expect_refusal(&beyond, "reaches beyond the peer's memory");
            }
        }
        String::new()
    }

    /// Each field of the reference by itself: process, list, start of the process, token.
    fn expect_forgeries(&mut self) -> String {
        let record = self.owner.record(Place::Segments).expect("IPC information");
        let mut said = String::new();
        for (at, says) in [
            (16, "not the peer's process"),
            (20, "deregistered"),
            (24, "not the peer's process"),
            (32, "deregistered"),
            (47, "deregistered"),
        ] {
            let mut forged = record.clone();
            forged.handle[at] ^= 0x35;
            said = self.expect_refusal(&forged, says);
        }
        // A descriptor of the owner that is no list: its standard input.
        let mut forged = record;
        forged.handle[20..24].copy_from_slice(&0_u32.to_ne_bytes());
        self.expect_refusal(&forged, "deregistered");
        said
    }

    fn expect_deregistered(&mut self) -> String {
        let [segments, pool] = [Place::Segments, Place::Pool].map(|place| self.owner.record(place).unwrap());
        let local = Registered::new(&self.engine, Kind::Gpu, 64);
        assert_eq!(self.carry(Opcode::Read, &local, &segments, 0, 64), Ok(Outcome::Done));
        assert_eq!(self.owner.ask("end"), "ended");
        self.expect_refusal(&segments, "deregistered");
        self.expect_refusal(&segments, "deregistered");
        self.expect_refusal(&pool, "deregistered")
    }

    /// Of another owner: over the connection to the first one, and over one of its own.
    fn expect_death(&mut self) -> String {
        let mut owner = Owner::start();
        let record = owner.record(Place::Segments).expect("IPC information");
        self.expect_refusal(&record, "not the peer's process");
        self.here = keeps("connect", || self.engine.connect("127.0.0.1", owner.port, 0, false)).unwrap();
        let local = Registered::new(&self.engine, Kind::Gpu, 64);
        owner.fill(Place::Segments, 90);
        assert_eq!(self.carry(Opcode::Read, &local, &record, 0, 64), Ok(Outcome::Done));
        assert!(local.memory.read() == pattern(90, record.size as usize)[..64]);
        owner.child.kill().unwrap();
        owner.child.wait().unwrap();
        let after = self.carry(Opcode::Write, &local, &record, 0, 64);
        assert_ne!(after, Ok(Outcome::Done));
        format!("{after:?}")
    }
}

/// The owner's process, as this one sees it.
struct Owner {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    port: u16,
}

impl Owner {
    fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(OWNER, "1").env_remove(ROLE).stdin(Stdio::piped()).stdout(Stdio::piped());
        cuda::choose(&cuda::library(), &mut command);
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut owner = Self { child, input, output, port: 0 };
        owner.port = owner.ask("port").parse().unwrap();
        owner
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.input, "{question}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the owner's process has ended");
        line.trim().to_owned()
    }

    /// What it tells of all of a place.
    fn record(&mut self, place: Place) -> Option<IpcInfo> {
        let answer = self.ask(&format!("record {}", place as usize));
        let bytes: Vec<u8> = answer.split(' ').filter_map(|byte| byte.parse().ok()).collect();
        bytes.as_slice().try_into().ok().and_then(IpcInfo::decode)
    }

    fn fill(&mut self, place: Place, seed: u64) {
        assert_eq!(self.ask(&format!("fill {} {seed}", place as usize)), "filled");
    }

    fn sum(&mut self, place: Place) -> u64 {
        self.ask(&format!("sum {}", place as usize)).parse().unwrap()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nothing there, or a hole at the end of the range, when the record is asked for.
fn expect_no_record() -> String {
    let engine = support::engine(&[]);
    let make = || {
        let segments = Segments::new(SEGMENTS, Shareable::Yes);
        let place = (segments.address, segments.length());
        (segments, place, register(&engine, place))
    };
    let ((freed, nothing, first), (mut cut, hole, second)) = (make(), make());
    drop(freed);
    assert_eq!(keeps("ipc_info", || engine.ipc_info(nothing.0)), Some(None), "nothing");
    cut.drop_last();
    assert_eq!(keeps("ipc_info", || engine.ipc_info(hole.0)), Some(None), "a hole");
    assert!(engine.deregister(first) && engine.deregister(second));
    String::new()
}

/// Plays the owner, if this process is to.
pub fn play_if_asked() -> bool {
    if std::env::var_os(OWNER).is_none() {
        return false;
    }
    cuda();
    let engine = support::engine(&[]);
    engine.start_rpc_server().unwrap();
    let segments = [Shareable::Yes, Shareable::No].map(|shareable| Segments::new(SEGMENTS, shareable));
    let pools = [Shareable::Yes, Shareable::No].map(|shareable| OfPool::new(POOL_LENGTH, shareable));
    let places = [
        (segments[0].address, segments[0].length()),
        (pools[0].address, POOL_LENGTH),
        (segments[1].address, segments[1].length()),
        (pools[1].address, POOL_LENGTH),
    ];
    let mut regions: Vec<_> = places.iter().map(|place| register(&engine, *place)).collect();
    for question in std::io::stdin().lines().map_while(Result::ok) {
        let words: Vec<_> = question.split(' ').collect();
        let place = words.get(1).and_then(|place| place.parse::<usize>().ok()).unwrap_or(0);
        let (address, length) = places[place];
        match words[0] {
            "port" => println!("{}", engine.rpc_port().unwrap()),
            "record" => {
                let record = engine.ipc_info(address).expect("registered");
                let bytes = record.map(|record| record.encode().map(|byte| byte.to_string()).join(" "));
                println!("{}", bytes.unwrap_or_else(|| "none".to_owned()));
            }
            "fill" => {
                let bytes = pattern(words[2].parse().unwrap(), length);
                // SAFETY: both ranges are valid.
                in_context(|| unsafe { cuda().copy(address, bytes.as_ptr() as u64, length) });
                println!("filled");
            }
            "sum" => {
                let mut bytes = vec![0_u8; length];
                // SAFETY: both ranges are valid.
                in_context(|| unsafe { cuda().copy(bytes.as_mut_ptr() as u64, address, length) });
                println!("{}", sum(&bytes));
            }
            "adaptor" => {
                install_adaptor();
                println!("installed");
            }
            "renew" => {
                engine.deregister(regions[0]);
                segments[0].renew();
                regions[0] = register(&engine, places[0]);
                println!("renewed");
            }
            _ => {
                assert!(regions.iter().all(|region| engine.deregister(*region)));
                println!("ended");
            }
        }
    }
    true
}

fn install_adaptor() {
    let driver = gpu::runtime();
    gpu::install(Some(Arc::new(Failing { driver, faults: Arc::default() })));
}

fn register(engine: &Engine, (address, length): (u64, usize)) -> RegionId {
    // SAFETY: the memory lives until the process ends, or is deregistered before.
    unsafe { engine.register(address, length as u64, RegisterOptions::default()) }.unwrap()
}
