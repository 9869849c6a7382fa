//! Every variable of the pool, its queues and its slices changes what the device sees. Over the stand-in libibverbs.
#![cfg(feature = "verbs")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod nullverbs;
mod recorder;
mod runtime_client;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Context;
use flagcx_p2p::internals::control::local_address;
use flagcx_p2p::internals::engine::{Engine, EngineOptions};
use flagcx_p2p::internals::fabric::{DeviceList, Opcode, verbs};
use flagcx_p2p::internals::observe::{Sample, Value, metrics, registry};
use flagcx_p2p::internals::pool::{RequestList, Submission};
use flagcx_p2p::internals::transfer::{Outcome, SubmitError};
use nullverbs::Standin;
use recorder::{Record, Recorder};
use support::{Pair, config, outcome};

const BUFFER: usize = 1 << 20;

/// Two connected engines on a recorded device of their own.
struct Rig {
    standin: Standin,
    device: Arc<Recorder>,
    pair: Pair,
}

impl Rig {
    fn new(settings: &[(&str, &str)]) -> Self {
        let standin = Standin::new(&[]);
        let device = Recorder::new(verbs::open(&standin.options()).unwrap().remove(0));
        let config = config(&[settings, &[("FLAGCX_P2P_BIND", "127.0.0.1")]].concat());
        let devices = Some(Arc::new(DeviceList::of(vec![device.clone()])));
        let engine = || {
            let options = EngineOptions { gpu_index: 0, devices: devices.clone() };
            Engine::open(Arc::clone(&config), options).unwrap()
        };
        let pair = Pair::between(engine(), engine(), BUFFER);
        Self { standin, device, pair }
    }

    /// Writes pieces of (local offset, remote offset, length); answers what that made the device see.
    fn write(&self, pieces: &[(u64, u64, u64)]) -> Record {
        let before = self.device.record();
        let iovs: Vec<_> =
            pieces.iter().map(|(local, remote, length)| self.pair.iov(*local, *remote, *length)).collect();
        let id = self.pair.here.submit(Opcode::Write, iovs.as_slice()).unwrap();
        assert_eq!(outcome(&self.pair.here, id), Outcome::Done);
        let after = self.device.record();
        Record {
            lists: after.lists[before.lists.len()..].to_vec(),
            entries: after.entries[before.entries.len()..].to_vec(),
            inline: after.inline - before.inline,
            arms: after.arms - before.arms,
            ..after
        }
    }
}

/// The same with and without a setting.
fn compare<T>(variable: &str, value: &str, look: impl Fn(&Rig) -> T) -> (T, T) {
    (look(&Rig::new(&[])), look(&Rig::new(&[(variable, value)])))
}

#[test]
fn qps_per_conn_is_the_number_of_lanes() {
    let lanes = compare("FLAGCX_P2P_QPS_PER_CONN", "2", |rig| rig.pair.here.info().lanes);
    assert_eq!(lanes, (4, 2));
}

#[test]
fn workers_per_pool_is_the_number_of_completion_queues_and_cq_depth_their_sum() {
    let one = Rig::new(&[("FLAGCX_P2P_WORKERS_PER_POOL", "1")]).device.record().queue_depths;
    assert_eq!(one, [4096]);
    let settings = [("FLAGCX_P2P_WORKERS_PER_POOL", "2"), ("FLAGCX_P2P_CQ_DEPTH", "128")];
    assert_eq!(Rig::new(&settings).device.record().queue_depths, [64; 2]);
}

#[test]
fn max_requests_is_the_depth_of_queue_pairs_and_bounds_what_is_posted() {
    let depth = compare("FLAGCX_P2P_MAX_REQUESTS", "8", |rig| rig.device.record().queue_pairs[0].send_depth);
    assert_eq!(depth, (512, 16));
    let rig = Rig::new(&[("FLAGCX_P2P_MAX_REQUESTS", "8"), ("FLAGCX_P2P_WORKERS_PER_POOL", "1")]);
    rig.standin.set("delay_ns", 1_000_000_000);
    let iovs: Vec<_> = (0..60).map(|n| rig.pair.iov(n * 4096, n * 4096 + 64 * n, 4096)).collect();
    let id = rig.pair.here.submit(Opcode::Write, iovs.as_slice()).unwrap();
    assert!(rig.device.record().lists.iter().sum::<usize>() <= 16, "more than one lane's depth at once");
    rig.standin.set("delay_ns", 0);
    assert_eq!(outcome(&rig.pair.here, id), Outcome::Done);
}

#[test]
fn max_wr_per_post_bounds_a_list() {
    let pieces: Vec<_> = (0..60).map(|n| (n * 4096, n * 4096 + 64 * n, 4096)).collect();
    let longest = |rig: &Rig| rig.write(&pieces).lists.into_iter().max();
    assert_eq!(compare("FLAGCX_P2P_MAX_WR_PER_POST", "7", longest), (Some(60), Some(7)));
}

#[test]
fn batch_poll_size_is_asked_of_each_poll() {
    let batch = |rig: &Rig| rig.write(&[(0, 0, 4096)]).poll_batch;
    assert_eq!(compare("FLAGCX_P2P_BATCH_POLL_SIZE", "5", batch), (64, 5));
}

#[test]
fn slice_size_and_fragment_limit_cut() {
    let requests =
        |settings: &[(&str, &str)], length| Rig::new(settings).write(&[(0, 0, length)]).entries.len();
    let slice = ("FLAGCX_P2P_SLICE_SIZE", "4096");
    assert_eq!(requests(&[], 65_536), 1);
    assert_eq!(
        requests(&[slice], 65_536),
        15,
        "the last one takes a remainder of the default limit, 4 KiB, along"
    );
    assert_eq!(requests(&[slice, ("FLAGCX_P2P_FRAGMENT_LIMIT", "0")], 65_536), 16);
    assert_eq!(requests(&[slice, ("FLAGCX_P2P_FRAGMENT_LIMIT", "1000")], 4096 + 900), 1);
    assert_eq!(requests(&[slice, ("FLAGCX_P2P_FRAGMENT_LIMIT", "0")], 4096 + 900), 2);
}

/// The same at run time, on lanes that exist already; and not for the other engine of the process.
#[test]
fn runtime_control_cuts_later_transfers() {
    let rig = Rig::new(&[]);
    let requests = |length| rig.write(&[(0, 0, length)]).entries.len();
    let engine = &rig.pair.client;
    engine.start_rpc_server().unwrap();
    assert_eq!(requests(65_536), 1);
    let change = "FLAGCX_P2P_SLICE_SIZE=4096\nFLAGCX_P2P_FRAGMENT_LIMIT=1000";
    let answer = runtime_client::ask(engine, change);
    assert_eq!(answer, r#"{"status":0,"slice_size":4096,"fragment_limit":1000,"error":""}"#);
    // Twice each: the second one may take the fast path of a transfer that is like the one before it.
    assert_eq!((requests(65_536), requests(65_536)), (16, 16));
    assert_eq!((requests(4096 + 900), requests(4096 + 900)), (1, 1));
    assert_eq!((requests(4096 + 1001), requests(4096 + 1001)), (2, 2));
    runtime_client::ask(engine, "FLAGCX_P2P_SLICE_SIZE=1073741824");
    assert_eq!((requests(65_536), requests(65_536)), (1, 1));
    rig.pair.server.start_rpc_server().unwrap();
    assert!(runtime_client::ask(&rig.pair.server, "GET").contains(r#""fragment_limit":4096"#));
}

#[test]
fn runtime_control_lets_other_hosts_ask() {
    let own = local_address(&config(&[("FLAGCX_P2P_BIND", "")])).unwrap().own;
    if own.is_loopback() {
        println!("not run: this host has no address but loopback, so no client comes from another one");
        return;
    }
    // A client that connects to an address of its own host has that address too, which is not loopback.
    let status = |settings: &[(&str, &str)]| {
        let engine = support::engine(&[settings, &[("FLAGCX_P2P_BIND", &own.to_string())]].concat());
        engine.start_rpc_server().unwrap();
        runtime_client::ask(&engine, "GET")
    };
    assert!(status(&[]).contains("FLAGCX_P2P_RUNTIME_CONTROL=1"));
    assert!(status(&[("FLAGCX_P2P_RUNTIME_CONTROL", "1")]).starts_with(r#"{"status":0,"#));
}

#[test]
fn max_sge_is_asked_for_and_used() {
    let pieces: Vec<_> = (0..8).map(|n| (n * 8192, n * 1024, 1024)).collect();
    let seen = |rig: &Rig| (rig.device.record().queue_pairs[0].max_sge, rig.write(&pieces).entries);
    let (usual, one) = compare("FLAGCX_P2P_MAX_SGE", "1", seen);
    assert_eq!(usual, (4, vec![4, 4]));
    assert_eq!(one, (1, vec![1; 8]));
}

#[test]
fn max_inline_is_asked_for_and_used() {
    let seen = |rig: &Rig| (rig.device.record().queue_pairs[0].max_inline, rig.write(&[(0, 0, 48)]).inline);
    let (inlined, none) =
        (Rig::new(&[("FLAGCX_P2P_MAX_INLINE", "64")]), Rig::new(&[("FLAGCX_P2P_MAX_INLINE", "0")]));
    assert_eq!((seen(&inlined), seen(&none)), ((64, 1), (0, 0)));
}

/// Everything that one worker's queues take while its lock is held: the shards of the worker, each its depth.
#[test]
fn shard_count_and_queue_depth_bound_what_waits() {
    let taken = |shards: &str, depth: &str| {
        let standin = Standin::new(&[]);
        let device = verbs::open(&standin.options()).unwrap().remove(0);
        let config = config(&[
            ("FLAGCX_P2P_WORKERS_PER_POOL", "1"),
            ("FLAGCX_P2P_SHARD_COUNT", shards),
            ("FLAGCX_P2P_QUEUE_DEPTH", depth),
        ]);
        let context = Context::open(&config, &device).unwrap();
        let worker = &context.pool.workers()[0];
        let lane = flagcx_p2p::internals::pool::LaneKey::default();
        worker.with_state(|_| {
            (0..100)
                .filter(|hint| {
                    let record = context.transfers.acquire().unwrap().record();
                    record.start(1, flagcx_p2p::internals::transfer::TimeLimit::NEVER);
                    worker
                        .submit(
                            Submission {
                                lane,
                                owner: record,
                                list: RequestList::default(),
                                first: true,
                                begun: 0,
                            },
                            *hint,
                        )
                        .is_ok()
                })
                .count()
        })
    };
    assert_eq!((taken("1", "16"), taken("3", "16"), taken("3", "20")), (16, 48, 60));
}

/// A thread holds the worker's lock, and its queue has one entry: a transfer over several lanes waits once, not for
/// each of its parts, and not at all with `try_submit`.
#[test]
fn a_full_queue_is_waited_for_once() {
    const LIMIT: Duration = Duration::from_secs(1);
    let settings = [
        ("FLAGCX_P2P_WORKERS_PER_POOL", "1"),
        ("FLAGCX_P2P_SHARD_COUNT", "1"),
        ("FLAGCX_P2P_QUEUE_DEPTH", "1"),
        ("FLAGCX_P2P_XFER_TIMEOUT_MS", "1000"),
    ];
    let rig = Rig::new(&settings);
    let here = &rig.pair.here;
    let iov = [rig.pair.iov(0, 0, BUFFER as u64)];
    let pool = Context::open(&config(&settings), rig.pair.client.device().unwrap()).unwrap().pool;
    let (first, last) = pool.workers()[0].with_state(|_| {
        let start = Instant::now();
        let first = here.try_submit(Opcode::Write, &iov).unwrap();
        assert!(start.elapsed() < LIMIT, "waited {:?}", start.elapsed());
        // The quickest of several counts: a machine that stalls slows some.
        let refused = (0..10).map(|_| {
            let start = Instant::now();
            assert_eq!(here.try_submit(Opcode::Write, &iov), Err(SubmitError::WouldBlock));
            start.elapsed()
        });
        let quickest = refused.min();
        assert!(quickest < Some(Duration::from_millis(50)), "waited {quickest:?}");
        let start = Instant::now();
        let last = here.submit(Opcode::Write, &iov).unwrap();
        assert!((LIMIT..2 * LIMIT).contains(&start.elapsed()), "waited {:?}", start.elapsed());
        (first, last)
    });
    assert_eq!(outcome(here, first), Outcome::Done);
    let Outcome::Failed(failure) = outcome(here, last) else { panic!("a part found no room") };
    assert!(failure.reason.contains("stayed full"), "{failure}");
    // It is counted for its peer, by no lane, and is in flight no longer.
    let (snapshot, peer) = (registry().snapshot(), here.info().peer);
    let values = |metric, label: &str| {
        let has = |sample: &Sample, label: &str| sample.labels.iter().any(|(_, value)| value == label);
        let of_peer = snapshot.of(metric).filter(|sample| has(sample, &peer) && has(sample, label));
        of_peer.map(|sample| sample.value.clone()).collect::<Vec<_>>()
    };
    assert_eq!(values(&metrics::PEER_ENDED, "none"), [Value::Number(0), Value::Number(1)], "done, failed");
    assert_eq!(values(&metrics::PEER_IN_FLIGHT, &peer), [Value::Number(0)]);
}

/// What waits in a worker's queue belongs to its connection too. In many engines at once, so that the peer, which
/// closes as soon as it gets Goodbye, often does so before the closing thread continues.
#[test]
fn closing_cancels_what_is_still_in_a_queue() {
    let settings = [("FLAGCX_P2P_WORKERS_PER_POOL", "1")];
    let close_one = || {
        let rig = Rig::new(&settings);
        rig.standin.set("delay_ns", 1_000_000_000);
        let pair = &rig.pair;
        let iov = [pair.iov(0, 0, 4096)];
        let pool = Context::open(&config(&settings), pair.client.device().unwrap()).unwrap().pool;
        let id = pool.workers()[0].with_state(|_| pair.here.submit(Opcode::Write, &iov).unwrap());
        pair.here.close();
        assert_eq!(outcome(&pair.here, id), Outcome::Cancelled);
    };
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(close_one);
        }
    });
}

#[test]
fn spin_is_how_long_is_polled_before_sleeping() {
    let sleeps = |rig: &Rig| {
        rig.standin.set("delay_ns", 30_000_000);
        rig.write(&[(0, 0, 4096)]).arms
    };
    let never = sleeps(&Rig::new(&[("FLAGCX_P2P_SPIN_US", "1000000")]));
    let at_once = sleeps(&Rig::new(&[("FLAGCX_P2P_SPIN_US", "0")]));
    assert!(never == 0 && at_once > 0, "armed {never} times with a second of polling, {at_once} with none");
}

#[test]
fn xfer_timeout_ends_what_takes_longer() {
    let rig = Rig::new(&[("FLAGCX_P2P_XFER_TIMEOUT_MS", "50")]);
    rig.standin.set("delay_ns", 10_000_000_000);
    let started = Instant::now();
    let iovs = [rig.pair.iov(0, 0, 4096)];
    let id = rig.pair.here.submit(Opcode::Write, &iovs).unwrap();
    assert_eq!(outcome(&rig.pair.here, id), Outcome::TimedOut);
    assert!(started.elapsed() < Duration::from_secs(5), "after {:?}", started.elapsed());
}

/// Sizes at and beyond the ends of their ranges, the queues full all the time: four threads, every byte compared.
#[test]
fn odd_sizes_move_the_right_bytes() {
    let smallest = [
        ("FLAGCX_P2P_MAX_REQUESTS", "1"),
        ("FLAGCX_P2P_CQ_DEPTH", "1"),
        ("FLAGCX_P2P_MAX_WR_PER_POST", "1"),
        ("FLAGCX_P2P_BATCH_POLL_SIZE", "1"),
        ("FLAGCX_P2P_QUEUE_DEPTH", "1"),
        ("FLAGCX_P2P_SHARD_COUNT", "1"),
        ("FLAGCX_P2P_SLICE_SIZE", "1"),
    ];
    let one_lane = [("FLAGCX_P2P_QPS_PER_CONN", "1"), ("FLAGCX_P2P_WORKERS_PER_POOL", "8")];
    let odd: [&[(&str, &str)]; 5] = [
        &smallest,
        &one_lane,
        &[("FLAGCX_P2P_SLICE_SIZE", "0")],
        &[("FLAGCX_P2P_SLICE_SIZE", "1099511627776")],
        &[
            ("FLAGCX_P2P_SLICE_SIZE", "4097"),
            ("FLAGCX_P2P_FRAGMENT_LIMIT", "4097"),
            ("FLAGCX_P2P_MAX_SGE", "1"),
        ],
    ];
    for settings in odd {
        let rig = Rig::new(settings);
        let wanted = support::pattern(7, BUFFER);
        assert!(rig.pair.source.write(0, &wanted));
        let share = BUFFER as u64 / 4;
        std::thread::scope(|scope| {
            for start in (0..4).map(|thread| thread * share) {
                let pair = &rig.pair;
                scope.spawn(move || {
                    let halves = [
                        pair.iov(start, start, share / 2),
                        pair.iov(start + share / 2, start + share / 2, share / 2),
                    ];
                    let id = pair.here.submit(Opcode::Write, &halves).unwrap();
                    assert_eq!(outcome(&pair.here, id), Outcome::Done);
                });
            }
        });
        let mut got = vec![0; BUFFER];
        assert!(rig.pair.target.read(0, &mut got));
        assert!(got == wanted, "wrong bytes with {settings:?}");
    }
}

#[test]
fn dest_dev_affinity_puts_an_engine_on_the_nic_of_its_gpu_number() {
    let standin = Standin::new(&[("devs", 4)]);
    let devices = Arc::new(DeviceList::of(verbs::open(&standin.options()).unwrap()));
    let nics = |affinity: &str| -> Vec<String> {
        let config = config(&[("FLAGCX_P2P_DEST_DEV_AFFINITY", affinity), ("FLAGCX_P2P_BIND", "127.0.0.1")]);
        (0..5)
            .map(|gpu_index| {
                let options = EngineOptions { gpu_index, devices: Some(Arc::clone(&devices)) };
                let engine = Engine::open(Arc::clone(&config), options).unwrap();
                engine.device().unwrap().attributes().name.clone()
            })
            .collect()
    };
    assert_eq!(nics("0"), ["nv0", "nv2", "nv1", "nv3", "nv0"], "spread over equally near ones");
    assert_eq!(nics("1"), ["nv0", "nv1", "nv2", "nv3", "nv0"]);
}
