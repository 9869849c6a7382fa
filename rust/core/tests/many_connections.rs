//! A thousand connections: how long they take, what they cost when idle, and that trouble with all of them at once starts
//! no threads.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

#[cfg(feature = "verbs")]
mod nullverbs;
mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::Engine;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Set in the process that accepts.
const ROLE: &str = "FLAGCX_P2P_TEST_ACCEPTS";

/// Descriptors of one process for a thousand peers.
const DESCRIPTORS: u64 = 18_000;

/// Helper threads at most.
const HELPERS: usize = 4;

/// Descriptors, threads and time are the process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Raises the soft limit of descriptors; false, with a message, where the hard one is too low.
fn raise_descriptor_limit() -> bool {
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < DESCRIPTORS) {
        println!("not run: the hard limit of descriptors is below {DESCRIPTORS} (ulimit -Hn)");
        return false;
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), maximum: limit.maximum }).unwrap();
    true
}

/// Names of the threads of this process.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // One that ends meanwhile has no name.
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
    tasks.filter_map(Result::ok).filter_map(name).map(|name| name.trim().to_owned()).collect()
}

fn helpers(threads: &[String]) -> usize {
    threads.iter().filter(|name| *name == "p2p-helper").count()
}

/// `count` connections to `port`, made by eight callers at a time.
fn connect(engine: &Arc<Engine>, port: u16, count: usize) -> Vec<Arc<Connection>> {
    const CALLERS: usize = 8;
    let made = Mutex::new(Vec::with_capacity(count));
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                for _ in 0..count / CALLERS {
                    let connection = engine.connect("127.0.0.1", port, 0, false).unwrap();
                    made.lock().unwrap().push(connection);
                }
            });
        }
    });
    made.into_inner().unwrap()
}

/// A process that accepts, and ends with its test.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process_that_accepts", "--nocapture"])
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut lines = output.lines().map_while(Result::ok);
        let port = lines.find_map(|line| line.split_once("port:")?.1.trim().parse().ok());
        Self { child, port: port.unwrap_or_else(|| panic!("the other process gave no answer")) }
    }
}

impl Server {
    /// Since it started.
    fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test of its own: what the other process of the test below runs.
#[test]
fn process_that_accepts() {
    if std::env::var(ROLE).is_err() {
        return println!("not run: it is what the other process of the tests here runs");
    }
    assert!(raise_descriptor_limit());
    let engine = support::engine(&[]);
    engine.start_rpc_server().unwrap();
    println!("\nport: {}", engine.rpc_port().unwrap());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// The figure of docs/benchmarks.md is that of the release build on a quiet machine; the bound here is for any.
#[test]
fn eight_callers_make_a_thousand_connections_in_seconds() {
    let _alone = alone();
    if !raise_descriptor_limit() {
        return;
    }
    let count = support::share(1000) as usize;
    let server = Server::start();
    let engine = support::engine(&[]);
    let before = threads().len();
    let (start, cpu) = (Instant::now(), cpu_time());
    let connections = connect(&engine, server.port, count);
    let (wall, here, there) = (start.elapsed(), cpu_time() - cpu, server.cpu_time());
    println!("{count} connections between two processes in {wall:?}, {here:?} and {there:?} of processors");
    assert!(connections.iter().all(|connection| connection.is_usable()));
    assert!(wall < Duration::from_secs(30), "{wall:?}");
    // The event loop, the device's data thread, the workers and the helpers; none of them for a connection.
    let after = threads();
    assert!(after.len() <= before + 16, "{} threads, {before} before: {after:?}", after.len());

    // What the process spends on them while nothing happens.
    std::thread::sleep(Duration::from_millis(500));
    let (before, start) = (cpu_time(), Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let share = (cpu_time() - before).as_secs_f64() / start.elapsed().as_secs_f64();
    println!("{} idle connections cost {share:.5} processors", connections.len());
    assert!(share < 0.02, "{share}");
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Over the stand-in NIC; its port goes down and comes back three times.
#[cfg(feature = "verbs")]
#[test]
fn a_port_that_flaps_under_a_thousand_connections_starts_no_threads() {
    use flagcx_p2p::internals::engine::EngineOptions;
    use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice, FabricOptions};
    use nullverbs::{Event, Standin};

    let _alone = alone();
    if !raise_descriptor_limit() {
        return;
    }
    let standin = Standin::new(&[]);
    let options =
        FabricOptions { choice: FabricChoice::Verbs, verbs: standin.options(), ..FabricOptions::default() };
    let devices = Some(Arc::new(DeviceList::open(&options).unwrap()));
    let config = support::config(&[
        ("FLAGCX_P2P_FABRIC", "verbs"),
        ("FLAGCX_P2P_BIND", "127.0.0.1"),
        ("FLAGCX_P2P_QPS_PER_CONN", "1"),
    ]);
    let engine = || {
        Engine::open(Arc::clone(&config), EngineOptions { gpu_index: 0, devices: devices.clone() }).unwrap()
    };
    let (client, server) = (engine(), engine());
    server.start_rpc_server().unwrap();
    let connections = connect(&client, server.rpc_port().unwrap(), support::share(1000) as usize);
    let others = |threads: &[String]| threads.len() - helpers(threads);
    let idle = others(&threads());
    let mut most = (0, 0);
    let mut look = || {
        let threads = threads();
        most = (most.0.max(others(&threads)), most.1.max(helpers(&threads)));
    };
    for _ in 0..3 {
        standin.raise(Event::PortDown);
        let healthy = || connections.iter().filter(|one| one.info().healthy_lanes == 1).count();
        support::eventually("lanes are broken", || {
            look();
            healthy() < connections.len()
        });
        standin.raise(Event::PortUp);
        support::eventually("every lane is back", || {
            look();
            healthy() == connections.len()
        });
    }
    println!("{} connections, {idle} threads beside helpers; at most {most:?}", connections.len());
    assert!(most.0 <= idle && most.1 <= HELPERS, "{most:?} threads, {idle} when idle");
}
