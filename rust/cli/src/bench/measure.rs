//! All threads of an end at the same time, watched by the calling thread.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::latencies::Latencies;
use super::options::Limit;
use super::worker::{Ran, Stop, Worker};
use crate::error::{CliError, Result};

/// What all threads have done in one measurement.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) transfers: u64,
    /// From the first beginning to the last end.
    pub(crate) elapsed: Duration,
    pub(crate) latencies: Latencies,
}

/// Runs all workers, each on a thread. `watch` is called every `tick` meanwhile; its error ends the measurement, as that
/// of a worker does.
pub(crate) fn run(
    workers: &mut [Worker],
    limit: Limit,
    tick: Duration,
    watch: &mut dyn FnMut(&Stop) -> Result<()>,
) -> Result<Tally> {
    let stop = Stop::default();
    // Held while threads are started, so that they begin together.
    let gate = Mutex::new(());
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        let held = gate.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failed = None;
        let mut running = 0;
        for worker in workers {
            let (sender, gate, stop) = (sender.clone(), &gate, &stop);
            let spawned = thread::Builder::new().name("measure".into()).spawn_scoped(scope, move || {
                drop(gate.lock().unwrap_or_else(PoisonError::into_inner));
                // The receiver outlives this thread.
                let _ = sender.send(worker.run(limit, stop));
            });
            match spawned {
                Ok(_) => running += 1,
                Err(error) => failed = Some(CliError::other(format!("cannot start a thread: {error}"))),
            }
        }
        if failed.is_some() {
            stop.abort();
        }
        drop(held);
        let mut all = Vec::with_capacity(running);
        while running > 0 {
            match results.recv_timeout(tick) {
                Ok(Ok(ran)) => {
                    running -= 1;
                    all.push(ran);
                }
                Ok(Err(error)) => {
                    running -= 1;
                    stop.abort();
                    failed.get_or_insert(error);
                }
                Err(RecvTimeoutError::Timeout) if failed.is_none() => {
                    if let Err(error) = watch(&stop) {
                        stop.abort();
                        failed = Some(error);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        failed.map_or_else(|| total(&all), Err)
    })
}

fn total(all: &[Ran]) -> Result<Tally> {
    let mut latencies = Latencies::new()?;
    all.iter().for_each(|ran| latencies.add(&ran.latencies));
    let started = all.iter().map(|ran| ran.started).min().unwrap_or_else(Instant::now);
    let ended = all.iter().map(|ran| ran.ended).max().unwrap_or(started);
    Ok(Tally { transfers: all.iter().map(|ran| ran.transfers).sum(), elapsed: ended - started, latencies })
}
