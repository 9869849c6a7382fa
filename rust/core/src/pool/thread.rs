//! The worker's own thread: drives when no caller does, sleeps when there is nothing to do.
//!
//! It has three ways to rest:
//! * **parked**, with nothing in flight: woken by a submitter that leaves something to be done. To wake it for each
//!   transfer would cost its caller more than the transfer, so where a device works by itself it looks now and then
//!   whether there is one that no caller asks about: its failure would not be mended, nor its deadline seen, until one
//!   does;
//! * **armed**, with something in flight and no caller driving: woken by the completion queue's event or a submitter;
//! * **napping**, with something in flight and callers driving it: a short sleep, longer each time, after which it
//!   takes over if the callers have stopped. So a caller that polls never shares its core with a spinning thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shared_worker::Worker;
use super::worker::WorkerState;

/// Longer than a caller needs between two calls of a busy loop, thousands of pieces each: taking over too early makes
/// thread and caller fight for the lock, which halves the throughput.
const FIRST_NAP: Duration = Duration::from_micros(250);
const LONGEST_NAP: Duration = Duration::from_millis(4);

/// Longer than control work pauses between two tries for the lock.
const GAP: Duration = Duration::from_micros(100);

/// How long an armed thread sleeps at most: bounds how late a deadline is noticed.
const ARMED: Duration = Duration::from_millis(50);

/// How long it stays parked at most while it has lanes: bounds how late a transfer is noticed that no caller asks about. Four
/// looks a second of two engines took 0.0005 processors.
const PARKED: Duration = Duration::from_millis(250);

/// Runs until the pool stops. `spin` is how long it keeps polling without progress before it arms and sleeps.
pub(super) fn run(worker: &Arc<Worker>, spin: Duration) {
    worker.enter_thread();
    let mut rest = Rest { nap: FIRST_NAP, caller_steps: 0, idle_since: None, left: false };
    while !worker.is_stopping() {
        // It may have been woken for one, which is to wake others: before it moves bytes for long.
        worker.run_jobs();
        let turn = turn(worker, &mut rest, spin);
        worker.run_jobs();
        match turn {
            // Ended early by the thread that has had the lock and wants this one to drive on.
            Turn::Again if worker.has_control_waiting() => worker.sleep(false, Some(GAP)),
            Turn::Again => {}
            Turn::Nap => {
                worker.sleep(false, Some(rest.nap));
                rest.nap = (rest.nap * 2).min(LONGEST_NAP);
            }
            Turn::Armed => {
                worker.sleep(true, Some(ARMED));
                worker.parking().cancel();
                if let Some(mut state) = worker.try_state() {
                    acknowledge(&mut state);
                }
            }
            Turn::Park { has_lanes } => {
                worker.sleep(false, has_lanes.then_some(PARKED));
                worker.parking().cancel();
                rest =
                    Rest { nap: FIRST_NAP, caller_steps: rest.caller_steps, idle_since: None, left: false };
            }
        }
    }
    // What was added since the last turn may hold the last references to a connection, and to this worker.
    worker.run_jobs();
}

struct Rest {
    nap: Duration,
    caller_steps: u64,
    idle_since: Option<Instant>,
    /// The bytes were left to a caller in the last turn.
    left: bool,
}

enum Turn {
    Again,
    Nap,
    Armed,
    Park { has_lanes: bool },
}

fn turn(worker: &Worker, rest: &mut Rest, spin: Duration) -> Turn {
    // Once only: the caller may have lost its core in the middle of a copy, and other transfers wait for nothing of it.
    rest.left = worker.move_bytes(!rest.left);
    let Some(mut state) = worker.try_state() else { return Turn::Nap };
    let wanted = worker.take_contended();
    let has_callers = wanted || state.caller_steps != rest.caller_steps;
    let driven = has_callers && !worker.has_sleepers();
    rest.caller_steps = state.caller_steps;
    state.look_at_clock();
    let report = worker.step(&mut state);
    if report.detached {
        drop(state);
        worker.destroy_detached();
        return Turn::Again;
    }
    if !report.busy {
        // Callers that move their bytes themselves do so again most often: to wake this thread for each of their transfers
        // would take them longer than to move 64 KiB.
        if has_callers && worker.moves_bytes() && !worker.shares() {
            return Turn::Nap;
        }
        worker.note_park();
        return park(worker, state);
    }
    if driven {
        rest.idle_since = None;
        return Turn::Nap;
    }
    rest.nap = FIRST_NAP;
    if report.progress {
        rest.idle_since = None;
        return Turn::Again;
    }
    if rest.left {
        return Turn::Nap;
    }
    let idle_since = *rest.idle_since.get_or_insert_with(Instant::now);
    if idle_since.elapsed() < spin {
        drop(state);
        std::thread::yield_now();
        return Turn::Again;
    }
    arm(worker, state)
}

/// Parks unless something came in between.
fn park(worker: &Worker, state: spin::MutexGuard<'_, WorkerState>) -> Turn {
    drop(state);
    worker.parking().announce();
    // Look once more: what a submitter left before it could see the announcement must be found here.
    if worker.is_queue_empty()
        && let Some(state) = worker
            .try_state()
            .filter(|state| state.part_count() == 0 && state.outstanding() == 0 && !state.is_resisted())
    {
        return Turn::Park { has_lanes: state.has_lanes() };
    }
    worker.parking().cancel();
    Turn::Again
}

/// Arms the completion queue and looks once more, so that a completion between the last poll and the arming is seen.
fn arm(worker: &Worker, mut state: spin::MutexGuard<'_, WorkerState>) -> Turn {
    match state.queue().arm() {
        Ok(true) => {}
        // Polling would make progress.
        Ok(false) => return Turn::Again,
        Err(error) => {
            tracing::warn!("a completion queue cannot be armed, polling instead: {error}");
            return Turn::Nap;
        }
    }
    worker.parking().announce();
    let report = worker.step(&mut state);
    if report.progress || !report.busy {
        worker.parking().cancel();
        return Turn::Again;
    }
    Turn::Armed
}

fn acknowledge(state: &mut WorkerState) {
    if let Err(error) = state.queue().acknowledge() {
        tracing::warn!("a completion event could not be acknowledged: {error}");
    }
}
