//! Two engines of one process, connected.
#![allow(dead_code, unreachable_pub, reason = "a module of each test that includes it, which uses its share")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

pub mod children;
pub mod own_time;
pub mod vanishing;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::config::Config;
use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::control::local_address;
use flagcx_p2p::internals::engine::{Engine, EngineOptions, RegisteredBuffer};
use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice};
use flagcx_p2p::internals::transfer::{Iov, Outcome, Status, TransferId};

/// Nothing in these tests takes longer unless it hangs.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A configuration for tests: loopback, the fabric of `FLAGCX_P2P_FABRIC` or software, and `settings` on top.
pub fn config(settings: &[(&str, &str)]) -> Arc<Config> {
    let fabric = std::env::var("FLAGCX_P2P_FABRIC").unwrap_or_else(|_| "software".to_owned());
    let config = Config::from_source(&|name| {
        let set = settings.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        set.or_else(|| match name {
            "FLAGCX_P2P_FABRIC" => Some(fabric.clone()),
            "FLAGCX_P2P_BIND" if fabric == "software" => Some("127.0.0.1".to_owned()),
            "FLAGCX_P2P_CONNECT_TIMEOUT_MS" => Some("3000".to_owned()),
            _ => setting_of_rails(name),
        })
    });
    Arc::new(config)
}

/// Rails of each connection, and devices of each engine on the software fabric: `FLAGCX_P2P_TEST_RAILS`, one where it is not set. Over verbs the
/// machine has them, or the test's stand-in.
pub fn rails() -> usize {
    std::env::var("FLAGCX_P2P_TEST_RAILS").ok().and_then(|count| count.parse().ok()).unwrap_or(1)
}

/// With several rails short transfers take several, too.
fn setting_of_rails(name: &str) -> Option<String> {
    match name {
        _ if rails() == 1 => None,
        "FLAGCX_P2P_SOFTWARE_DEVICES" => Some(rails().to_string()),
        "FLAGCX_P2P_RAIL_MIN_BYTES" => Some("4096".to_owned()),
        _ => None,
    }
}

/// Has the [`rails`] of a connection made, if it can have several, and waits until they are.
pub fn make_rails(here: &Connection) {
    let count = rails();
    if count == 1 || here.info().lanes == 1 {
        return;
    }
    let mut asked_at = None;
    eventually("all rails are made", || {
        // The peer tells its NICs at some time after the handshake.
        if asked_at.is_none_or(|at: Instant| at.elapsed() > Duration::from_millis(5)) {
            here.add_rails_now();
            asked_at = Some(Instant::now());
        }
        here.rails().len() >= count || !here.is_usable()
    });
}

/// Whether the fabric under test injects the faults of `FLAGCX_P2P_FAULTS`; prints the reason if not.
pub fn has_faults() -> bool {
    let verbs = std::env::var("FLAGCX_P2P_FABRIC").is_ok_and(|fabric| fabric == "verbs");
    if verbs {
        println!("not run over verbs: needs the faults that the software fabric injects");
    }
    !verbs
}

/// How many of `count` to do: all, or one in `FLAGCX_P2P_TEST_SHARE`, for a machine that is emulated.
pub fn share(count: u64) -> u64 {
    share_or(count, 1)
}

/// The same; one in `default` where nothing is set.
pub fn share_or(count: u64, default: u64) -> u64 {
    let share = std::env::var("FLAGCX_P2P_TEST_SHARE").ok().and_then(|share| share.parse().ok());
    count.div_ceil(share.unwrap_or(default))
}

/// The devices for `config`. Software ones are opened anew for each call, so that tests do not share pools or faults.
/// Real ones are opened once, as in a program: to read their tables takes a while where they are emulated.
pub fn devices(config: &Config) -> Arc<DeviceList> {
    static OPEN: Mutex<Vec<(String, Arc<DeviceList>)>> = Mutex::new(Vec::new());
    let mut options = config.fabric_options().unwrap();
    if options.choice == FabricChoice::Auto {
        options.choice = FabricChoice::Software;
    }
    if options.choice == FabricChoice::Software {
        // As an engine opens those of the process.
        let address = local_address(config).unwrap();
        options.software.bind = Some(address.listen());
        options.software.advertise = address.advertised.map(|advertised| advertised.ip);
        return Arc::new(DeviceList::open(&options).unwrap());
    }
    let key = format!("{:?}", options.verbs);
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, list)) = open.iter().find(|(opened, _)| *opened == key) {
        return Arc::clone(list);
    }
    let list = Arc::new(DeviceList::open(&options).unwrap());
    open.push((key, Arc::clone(&list)));
    list
}

/// An engine on devices of its own.
pub fn engine(settings: &[(&str, &str)]) -> Arc<Engine> {
    let config = config(settings);
    let devices = devices(&config);
    Engine::open(config, EngineOptions { gpu_index: 0, devices: Some(devices) }).unwrap()
}

/// Two connected engines with a buffer each.
pub struct Pair {
    pub client: Arc<Engine>,
    pub server: Arc<Engine>,
    pub here: Arc<Connection>,
    pub there: Arc<Connection>,
    pub source: RegisteredBuffer,
    pub target: RegisteredBuffer,
}

impl Pair {
    /// Buffers of `length` bytes, default settings.
    pub fn new(length: usize) -> Self {
        Self::with(length, &[])
    }

    /// The same with settings.
    pub fn with(length: usize, settings: &[(&str, &str)]) -> Self {
        let config = config(settings);
        let devices = devices(&config);
        let options = EngineOptions { gpu_index: 0, devices: Some(devices) };
        let client = Engine::open(Arc::clone(&config), options.clone()).unwrap();
        let server = Engine::open(config, options).unwrap();
        Self::between(client, server, length)
    }

    /// Connects two engines.
    pub fn between(client: Arc<Engine>, server: Arc<Engine>, length: usize) -> Self {
        let source = client.allocate(length).unwrap();
        let target = server.allocate(length).unwrap();
        let (here, there) = connect(&client, &server);
        Self { client, server, here, there, source, target }
    }

    /// A piece of `length` bytes at the given offsets of the two buffers.
    pub fn iov(&self, local: u64, remote: u64, length: u64) -> Iov {
        let address = self.target.address() + remote;
        let Some(remote) = self.here.describe_remote(address, length as u32) else {
            panic!("no region of the peer holds {address:#x}+{length}")
        };
        Iov { local: self.source.address() + local, length, region: Some(self.source.region()), remote }
    }
}

/// Connects `client` to `server`; answers both ends.
pub fn connect(client: &Arc<Engine>, server: &Arc<Engine>) -> (Arc<Connection>, Arc<Connection>) {
    let acceptor = {
        let server = Arc::clone(server);
        std::thread::spawn(move || server.accept().unwrap().connection)
    };
    let here = client.connect(&server.address().to_string(), server.rpc_port().unwrap(), 0, true).unwrap();
    make_rails(&here);
    (here, acceptor.join().unwrap())
}

/// Waits for a transfer and answers how it ended.
pub fn outcome(connection: &Connection, id: TransferId) -> Outcome {
    match connection.wait(id, LIMIT) {
        Status::Ended(outcome) => outcome,
        other => panic!("transfer {id:?} is {other:?} after {LIMIT:?}"),
    }
}

/// Bytes that differ from place to place and from seed to seed.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}

/// Bytes that differ from seed to seed, and from block to block of 64 KiB; quicker than [`pattern`].
pub fn blocks(seed: u64, length: usize) -> Vec<u8> {
    let block = pattern(seed, length.min(64 << 10));
    let mut bytes = block.repeat(length.div_ceil(block.len().max(1)));
    bytes.truncate(length);
    for (index, block) in bytes.chunks_mut(block.len().max(1)).enumerate() {
        let stamp = (index as u64).to_le_bytes();
        let stamped = stamp.len().min(block.len());
        block[..stamped].copy_from_slice(&stamp[..stamped]);
    }
    bytes
}

/// The content of a buffer.
pub fn content(buffer: &RegisteredBuffer) -> Vec<u8> {
    let mut bytes = vec![0; buffer.len()];
    assert!(buffer.read(0, &mut bytes));
    bytes
}

/// Calls `check` until it answers true or `LIMIT` has passed: often at first, for most answers take microseconds and some tests
/// wait for thousands.
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let (start, mut pause) = (Instant::now(), Duration::from_micros(20));
    while !check() {
        assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(pause);
        pause = (2 * pause).min(Duration::from_millis(1));
    }
}
