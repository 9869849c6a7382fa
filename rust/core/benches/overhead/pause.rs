//! The first write after a pause, when nothing of it is in the caches any more.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::{Device, Opcode};
use flagcx_p2p::internals::transfer::Status;

use super::Pair;
use super::raw::RawLoop;

const PAUSE: Duration = Duration::from_millis(300);
const ROUNDS: usize = 15;

/// One write of the engine touches some 90 cache lines of code and 60 of data (counted with `valgrind --tool=lackey
/// --trace-mem=yes`).
const LINES: usize = 150;

#[repr(align(64))]
struct Line(u64);

/// Times what is done after a pause: a post and a poll without an engine, a write of the engine, and the mere reading of
/// as many cache lines side by side, which is less than any program takes that has to touch them.
pub(super) fn run(device: &Arc<dyn Device>, pair: &Pair) {
    let mut raw = RawLoop::new(device, pair, 1);
    let iovs = pair.iovs(1, &mut 0);
    let lines: Vec<_> = (0..LINES as u64).map(Line).collect();
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        times[0].push(after_pause(|| {
            raw.post(0, 1);
            while raw.poll() == 0 {}
        }));
        times[1].push(after_pause(|| {
            let id = pair.client.submit(Opcode::Write, iovs.as_slice()).unwrap();
            while pair.client.status(id) == Status::Pending {}
        }));
        times[2].push(after_pause(|| {
            black_box(lines.iter().fold(0, |sum, line| sum + black_box(line).0));
        }));
    }
    for (name, times) in ["a raw post and poll", "a write", "reading 150 cache lines"].iter().zip(&mut times)
    {
        times.sort();
        println!("after {PAUSE:?}, p50 of {ROUNDS}: {name}: {:.1} us", times[ROUNDS / 2].as_secs_f64() * 1e6);
    }
}

/// How long `action` takes when it has not been done for a while.
fn after_pause(mut action: impl FnMut()) -> Duration {
    for _ in 0..10 {
        action();
    }
    std::thread::sleep(PAUSE);
    let start = Instant::now();
    action();
    start.elapsed()
}
