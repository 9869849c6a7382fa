//! Asynchronous events of a device reach its connections: over the stand-in libibverbs, which can raise any event.
#![cfg(feature = "verbs")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod nullverbs;
mod support;

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::{Engine, EngineError, EngineOptions};
use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice, FabricOptions, Opcode, VerbsOptions};
use flagcx_p2p::internals::observe;
use flagcx_p2p::internals::transfer::{Outcome, Status};
use nullverbs::{Event, Standin};
use support::{Pair, content, eventually, outcome, pattern};

/// Longer than lanes wait for a port, and for a rebuild behind it.
const GIVEN_UP: Duration = Duration::from_secs(13);

/// Metrics and threads are the process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The devices of `standin` that `hca` names.
fn devices(standin: &Standin, hca: &str) -> Arc<DeviceList> {
    let verbs = VerbsOptions { hca: hca.to_owned(), ..standin.options() };
    let options = FabricOptions { choice: FabricChoice::Verbs, verbs, ..FabricOptions::default() };
    Arc::new(DeviceList::open(&options).unwrap())
}

fn engine(devices: &Arc<DeviceList>) -> Arc<Engine> {
    let config = support::config(&[("FLAGCX_P2P_FABRIC", "verbs"), ("FLAGCX_P2P_BIND", "127.0.0.1")]);
    let options = EngineOptions { gpu_index: 0, devices: Some(Arc::clone(devices)) };
    Engine::open(config, options).unwrap()
}

/// Two connected engines over the one device of `standin`.
fn pair(standin: &Standin) -> Pair {
    let devices = devices(standin, "");
    Pair::between(engine(&devices), engine(&devices), 1 << 16)
}

/// One more connection.
fn connect(pair: &Pair) -> Result<Arc<Connection>, EngineError> {
    pair.server.start_rpc_server().unwrap();
    pair.client.connect("127.0.0.1", pair.server.rpc_port().unwrap(), 0, false)
}

/// A WRITE that arrives whole.
fn write(pair: &Pair, seed: u64) {
    let bytes = pattern(seed, 1 << 16);
    assert!(pair.source.write(0, &bytes));
    let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 1 << 16)]).unwrap();
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
    assert!(content(&pair.target) == bytes);
}

fn healthy(pair: &Pair) -> bool {
    [&pair.here, &pair.there].iter().all(|end| end.info().healthy_lanes == end.info().lanes)
}

fn rebuilds(pair: &Pair) -> u64 {
    number("flagcx_p2p_peer_lane_rebuilds", &format!("peer=\"{}\"", pair.here.info().peer))
}

/// The value of a metric with `label` among its labels, 0 if there is none.
fn number(name: &str, label: &str) -> u64 {
    let page = observe::prometheus_text(&observe::registry().snapshot()).unwrap();
    page.lines()
        .filter(|line| line.starts_with(name) && line.contains(label))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum::<f64>() as u64
}

#[test]
fn queue_pairs_that_fail_while_idle_are_rebuilt_before_anyone_uses_them() {
    let _alone = alone();
    let standin = Standin::new(&[]);
    let pair = pair(&standin);
    write(&pair, 1);
    let lanes = pair.here.info().lanes as u64;
    standin.raise(Event::QueuePairFatal);
    eventually("every lane is rebuilt", || rebuilds(&pair) >= lanes && healthy(&pair));
    write(&pair, 2);
    assert!(number("flagcx_p2p_device_events", "kind=\"queue-pair-fatal\"") >= lanes);
}

#[test]
fn transfers_wait_for_a_port_that_comes_back() {
    let _alone = alone();
    let standin = Standin::new(&[]);
    let pair = pair(&standin);
    write(&pair, 1);
    standin.raise(Event::PortDown);
    eventually("the lanes leave working order", || pair.here.info().healthy_lanes == 0);
    let bytes = pattern(2, 1 << 16);
    assert!(pair.source.write(0, &bytes));
    let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 1 << 16)]).unwrap();
    assert_eq!(pair.here.wait(id, Duration::from_millis(200)), Status::Pending);
    let error = connect(&pair).unwrap_err();
    assert!(error.to_string().contains("nv0 port 1 has been down for"), "{error}");
    standin.raise(Event::PortUp);
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
    assert!(content(&pair.target) == bytes);
    eventually("all lanes are back", || healthy(&pair));
    assert!(connect(&pair).unwrap().is_usable(), "new connections are made again");
}

/// The end that was connected to is not asked in vain: it answers once its port is back.
#[test]
fn a_peer_waits_for_the_port_of_the_other_end() {
    let _alone = alone();
    let standin = Standin::new(&[("devs", 2)]);
    let (client, server) = (engine(&devices(&standin, "nv0")), engine(&devices(&standin, "nv1")));
    let pair = Pair::between(client, server, 1 << 16);
    write(&pair, 1);
    standin.raise_on(Event::PortDown, 1);
    eventually("both ends have seen it", || {
        pair.here.info().healthy_lanes == 0 && pair.there.info().healthy_lanes == 0
    });
    let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 64)]).unwrap();
    assert_eq!(pair.here.wait(id, Duration::from_millis(500)), Status::Pending);
    standin.raise_on(Event::PortUp, 1);
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
    eventually("all lanes are back", || healthy(&pair));
    write(&pair, 2);
}

#[test]
fn transfers_fail_in_bounded_time_where_the_port_stays_down() {
    let _alone = alone();
    let standin = Standin::new(&[]);
    let pair = pair(&standin);
    let start = Instant::now();
    standin.raise(Event::PortDown);
    eventually("the lanes leave working order", || pair.here.info().healthy_lanes == 0);
    let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 64)]).unwrap();
    let outcome = outcome(&pair.here, id);
    assert!(
        matches!(&outcome, Outcome::Failed(failure) if failure.to_string().contains("port has been down")),
        "{outcome:?}"
    );
    eventually("both ends end", || !pair.here.is_usable() && !pair.there.is_usable());
    assert!(start.elapsed() < GIVEN_UP, "it took {:?}", start.elapsed());
    standin.raise(Event::PortUp);
    eventually("the port is known to be up", || number("flagcx_p2p_device_up", "device=\"nv0\"") > 0);
    let again = Pair::between(Arc::clone(&pair.client), Arc::clone(&pair.server), 1 << 16);
    write(&again, 3);
}

#[test]
fn a_lost_device_ends_its_connections_at_once() {
    let _alone = alone();
    let standin = Standin::new(&[]);
    let pair = pair(&standin);
    write(&pair, 1);
    let start = Instant::now();
    standin.raise(Event::DeviceFatal);
    eventually("both ends end", || !pair.here.is_usable() && !pair.there.is_usable());
    assert!(start.elapsed() < Duration::from_secs(2), "it took {:?}", start.elapsed());
    assert!(pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 64)]).is_err());
    let error = connect(&pair).unwrap_err();
    assert!(error.to_string().contains("nv0 port 1 cannot be used any more"), "{error}");
    // A lost device does not come back by its port.
    standin.raise(Event::PortUp);
    assert!(connect(&pair).is_err());
}

#[test]
fn lanes_move_to_a_new_address() {
    let _alone = alone();
    let standin = Standin::new(&[("address", 0x0a4d_0001)]);
    let pair = pair(&standin);
    write(&pair, 1);
    let lanes = pair.here.info().lanes as u64;
    let gid = || pair.client.device().unwrap().port().unwrap().gid;
    assert_eq!(gid(), Ipv4Addr::new(10, 77, 0, 1).to_ipv6_mapped().octets());
    // Another address has changed: no lane has to move.
    standin.raise(Event::AddressChange);
    eventually("the event is seen", || number("flagcx_p2p_device_events", "kind=\"address-change\"") > 0);
    assert_eq!(rebuilds(&pair), 0);

    standin.set("address", 0x0a4e_0002);
    standin.raise(Event::AddressChange);
    eventually("every lane is rebuilt", || rebuilds(&pair) >= lanes && healthy(&pair));
    assert_eq!(gid(), Ipv4Addr::new(10, 78, 0, 2).to_ipv6_mapped().octets());
    write(&pair, 2);
}

#[test]
fn a_quiet_device_costs_nothing() {
    let _alone = alone();
    let standin = Standin::new(&[]);
    let pair = pair(&standin);
    write(&pair, 1);
    // What the connect and the transfer have left to do may take a moment on a busy machine.
    let (mut before, mut after) = (wake_ups(), Vec::new());
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(300));
        after = wake_ups();
        if after == before {
            break;
        }
        before = std::mem::take(&mut after);
    }
    assert!(!after.is_empty(), "a thread that listens to a quiet device sleeps; awake so often: {before:?}");
    drop(pair);
}

/// How often each thread that listens to a device has slept, by its number.
fn wake_ups() -> Vec<(String, String)> {
    let mut found: Vec<_> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .flatten()
        .filter_map(|task| {
            let status = std::fs::read_to_string(task.path().join("status")).ok()?;
            let line =
                |name: &str| Some(status.lines().find_map(|line| line.strip_prefix(name))?.trim().to_owned());
            (line("Name:")? == "p2p-events").then_some((line("Pid:")?, line("voluntary_ctxt_switches:")?))
        })
        .collect();
    found.sort();
    found
}
