//! The driver of this engine through its Rust API for `./x bench peers`: what a call costs beside one of the C++ header.
//!
//! ```text
//! peer_driver target
//! peer_driver initiator cross-memory|tcp LINE_OF_THE_TARGET
//! ```
//!
//! `PEER_BENCH_BUILD` is the folder of libmeasure.so, which has the loop, the memory and the check that all drivers share:
//! tests/peer_bench/drivers/measure.h. `FLAGCX_P2P_PATH` chooses the path.
#![allow(unsafe_code, reason = "calls the C functions that the drivers share")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program, not the library")]

use std::env;
use std::error::Error;
use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use flagcx_p2p::{
    Config, Connection, Engine, EngineOptions, Iov, Opcode, Outcome, RegionId, RegisterOptions, Status,
};
use libloading::{Library, Symbol};

const POOL_BYTES: u64 = 64 << 20;
const INITIATOR: c_int = 0;
const TARGET: c_int = 1;

/// `struct load` of measure.h.
#[repr(C)]
struct Load {
    put: c_int,
    size: usize,
    batch: usize,
    sets: usize,
    seconds: f64,
    seed: u64,
}

/// `struct plan` of measure.h.
#[repr(C)]
struct Plan {
    load: Load,
    local: *mut u8,
    peer: c_int,
    remote: u64,
    local_offsets: *const u64,
    remote_offsets: *const u64,
}

/// `struct engine` of measure.h.
#[repr(C)]
struct Callbacks {
    context: *mut c_void,
    prepare: extern "C" fn(*mut c_void, *const Plan),
    transfer: extern "C" fn(*mut c_void, usize),
    finish: Option<extern "C" fn(*mut c_void)>,
}

/// The functions of libmeasure.so.
struct Measure(Library);

impl Measure {
    fn load() -> Result<Self, Box<dyn Error>> {
        let folder = env::var("PEER_BENCH_BUILD").map_err(|error| format!("PEER_BENCH_BUILD: {error}"))?;
        // SAFETY: the library has no initialisers.
        let library = unsafe { Library::new(Path::new(&folder).join("libmeasure.so"))? };
        let measure = Self(library);
        // SAFETY: the type is that of measure.h; the text is NUL-terminated.
        unsafe {
            let begin: Symbol<'_, unsafe extern "C" fn(*const c_char)> = measure.0.get(b"measure_begin")?;
            begin(c"ours-rust".as_ptr());
        }
        Ok(measure)
    }

    fn pool(&self, side: c_int) -> Result<*mut u8, Box<dyn Error>> {
        // SAFETY: the type is that of measure.h.
        unsafe {
            let pool: Symbol<'_, unsafe extern "C" fn(c_int) -> *mut u8> = self.0.get(b"measure_pool")?;
            Ok(pool(side))
        }
    }

    fn say(&self, text: &str) -> Result<(), Box<dyn Error>> {
        let text = CString::new(text)?;
        // SAFETY: the type is that of measure.h; the format takes one NUL-terminated text.
        unsafe {
            let say: Symbol<'_, unsafe extern "C" fn(*const c_char, ...)> = self.0.get(b"measure_say")?;
            say(c"%s".as_ptr(), text.as_ptr());
        }
        Ok(())
    }

    /// Answers the lines of stdin until it ends.
    fn serve(&self, initiator: &mut Initiator, peer: c_int, remote: u64) -> Result<(), Box<dyn Error>> {
        let pool = initiator.side.pool;
        let callbacks = Callbacks { context: (&raw mut *initiator).cast(), prepare, transfer, finish: None };
        // SAFETY: the type is that of measure.h; `initiator` is used by the callbacks alone until the call returns.
        unsafe {
            let serve: Symbol<'_, unsafe extern "C" fn(*const Callbacks, *mut u8, c_int, u64)> =
                self.0.get(b"measure_serve")?;
            serve(&callbacks, pool, peer, remote);
        }
        Ok(())
    }
}

/// An engine with a registered pool.
struct Side {
    engine: Arc<Engine>,
    pool: *mut u8,
    region: RegionId,
}

impl Side {
    fn open(measure: &Measure, side: c_int) -> Result<Self, Box<dyn Error>> {
        let engine = Engine::open(Config::global(), EngineOptions::default())?;
        let pool = measure.pool(side)?;
        // SAFETY: the pool is mapped until the process ends.
        let region = unsafe { engine.register(pool as u64, POOL_BYTES, RegisterOptions::default())? };
        Ok(Self { engine, pool, region })
    }
}

struct Initiator {
    side: Side,
    connection: Arc<Connection>,
    opcode: Opcode,
    /// The iovs of each set.
    sets: Vec<Vec<Iov>>,
}

impl Initiator {
    fn prepare(&mut self, plan: &Plan) -> Result<(), Box<dyn Error>> {
        let load = &plan.load;
        self.opcode = if load.put == 1 { Opcode::Write } else { Opcode::Read };
        self.sets = Vec::with_capacity(load.sets);
        for set in 0..load.sets {
            let mut iovs = Vec::with_capacity(load.batch);
            for at in set * load.batch..(set + 1) * load.batch {
                // SAFETY: a plan has `sets` times `batch` offsets of both sides.
                let (local, remote) = unsafe { (*plan.local_offsets.add(at), *plan.remote_offsets.add(at)) };
                let remote = self
                    .connection
                    .describe_remote(plan.remote + remote, u32::try_from(load.size)?)
                    .ok_or("the target has announced no such memory")?;
                let (local, length) = (self.side.pool as u64 + local, load.size as u64);
                iovs.push(Iov { local, length, region: Some(self.side.region), remote });
            }
            self.sets.push(iovs);
        }
        Ok(())
    }

    fn transfer(&self, set: usize) -> Result<(), Box<dyn Error>> {
        let iovs = self.sets.get(set).ok_or("no such set")?;
        let id = self.connection.submit(self.opcode, iovs.as_slice())?;
        match self.connection.wait(id, Duration::from_secs(60)) {
            Status::Ended(Outcome::Done) => Ok(()),
            other => Err(format!("a transfer ended as {other:?}").into()),
        }
    }
}

extern "C" fn prepare(context: *mut c_void, plan: *const Plan) {
    // SAFETY: `Measure::serve` passes an Initiator that nothing else uses, and measure_serve a plan.
    let (initiator, plan) = unsafe { (&mut *context.cast::<Initiator>(), &*plan) };
    end_on_error(initiator.prepare(plan));
}

extern "C" fn transfer(context: *mut c_void, set: usize) {
    // SAFETY: `Measure::serve` passes an Initiator that nothing else uses.
    let initiator = unsafe { &*context.cast::<Initiator>() };
    end_on_error(initiator.transfer(set));
}

fn end_on_error(done: Result<(), Box<dyn Error>>) {
    if let Err(error) = done {
        eprintln!("ours-rust: {error}");
        process::exit(1);
    }
}

fn run_target() -> Result<(), Box<dyn Error>> {
    let measure = Measure::load()?;
    let side = Side::open(&measure, TARGET)?;
    side.engine.start_rpc_server()?;
    let port = side.engine.rpc_port().ok_or("the engine has no listener")?;
    measure.say(&format!("{},{},{}:{port}", process::id(), side.pool as u64, side.engine.address()))?;
    // Serves until it is killed.
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}

fn run_initiator(path: &str, line: &str) -> Result<(), Box<dyn Error>> {
    let [peer, remote, session] = line
        .split(',')
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|words| format!("not the line of a target: {words:?}"))?;
    let measure = Measure::load()?;
    let side = Side::open(&measure, INITIATOR)?;
    let connection = side.engine.session(session)?;
    let taken = connection.info().path.to_string();
    if taken != path {
        return Err(format!("the connection took path {taken}, not {path}").into());
    }
    measure.say(env!("CARGO_PKG_VERSION"))?;
    let mut initiator = Initiator { side, connection, opcode: Opcode::Write, sets: Vec::new() };
    measure.serve(&mut initiator, peer.parse()?, remote.parse()?)
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["target"] => end_on_error(run_target()),
        ["initiator", path, line] => end_on_error(run_initiator(path, line)),
        // Also what `cargo test --benches` and `cargo bench` call.
        _ => println!("not run: a driver of `./x bench peers`, which starts it"),
    }
}
