//! The rows of the table: many seeds of each scenario and policy, the worst of them, and what ours must reach.

use serde::Serialize;

use crate::measure::Outcome;
use crate::policy::Policy;
use crate::scenario::Scenario;
use crate::simulation::run;

/// A row: the worst of all seeds, value by value.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What the model was given.
    pub scenario: &'static str,
    /// How transfers were spread.
    pub policy: Policy,
    /// Runs, each with a seed of its own.
    pub seeds: u64,
    /// Of what the working links carry.
    pub share: f64,
    /// Jain's fairness index; see [`Outcome::jain`].
    pub jain: f64,
    /// Transfers that did not end, of all runs; see [`Outcome::failed`].
    pub failed: u64,
    /// Requests that wrote after the end of their transfer, of all runs.
    pub late: u64,
    /// Pauses of rails, and ports that were down, in one run.
    pub pauses: u64,
    /// Probes sent, in one run.
    pub probes: u64,
    /// See [`Outcome::detection_ms`]; none if a silence was not detected in some run.
    pub detection_ms: Option<f64>,
    /// See [`Outcome::recovery_ms`].
    pub recovery_ms: Option<f64>,
    /// See [`Outcome::reuse_ms`].
    pub reuse_ms: Option<f64>,
    /// 99 of 100 transfers took no longer, in microseconds.
    pub p99_us: f64,
    /// NICs' worth of bytes of the GPU with most load.
    pub loaded_gpu: Option<f64>,
    /// The least part of its load that another GPU got.
    pub other_gpus: Option<f64>,
    /// Rails made, per connection.
    pub rails_made: f64,
    /// Queue pairs made, per connection.
    pub queue_pairs: f64,
    /// See [`Outcome::unused_lanes`].
    pub unused_lanes: usize,
    /// The seed with the least share.
    pub seed: u64,
    /// What ours must reach and did not.
    pub misses: Vec<String>,
}

/// Runs every scenario: ours with `seeds` seeds, each rival with `rival_seeds`, on all processors.
pub fn rows(seeds: u64, rival_seeds: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    for scenario in Scenario::all() {
        for policy in Policy::COMPARED {
            let count = if policy == Policy::Ours { seeds } else { rival_seeds };
            if count > 0 {
                rows.push(row(&scenario, policy, count));
            }
        }
    }
    compare_latencies(&mut rows);
    rows
}

/// The worst of the first `seeds` seeds.
pub(crate) fn row(scenario: &Scenario, policy: Policy, seeds: u64) -> Row {
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let outcomes = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|first| {
                let mine = (first..seeds).step_by(workers as usize);
                scope.spawn(move || mine.map(|seed| (seed, run(scenario, policy, seed))).collect::<Vec<_>>())
            })
            .collect();
        // A run that panics ends the program: without it its row would have fewer seeds, and could seem better.
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.flatten().collect::<Vec<_>>()
    });
    let mut row = worst(scenario, policy, &outcomes);
    if policy.watches() {
        row.misses = misses(&row);
    }
    row
}

fn worst(scenario: &Scenario, policy: Policy, outcomes: &[(u64, Outcome)]) -> Row {
    let least =
        |value: fn(&Outcome) -> f64| outcomes.iter().map(|(_, of)| value(of)).fold(f64::INFINITY, f64::min);
    let most = |value: fn(&Outcome) -> f64| outcomes.iter().map(|(_, of)| value(of)).fold(0.0, f64::max);
    // None if it is none in one run.
    let longest = |value: fn(&Outcome) -> Option<f64>| {
        outcomes.iter().map(|(_, of)| value(of)).try_fold(0.0, |most: f64, value| Some(most.max(value?)))
    };
    let seed = outcomes.iter().min_by(|a, b| a.1.share.total_cmp(&b.1.share)).map_or(0, |(seed, _)| *seed);
    let gpu = |value: fn((f64, f64)) -> f64| {
        outcomes.iter().filter_map(|(_, of)| of.gpus.map(value)).reduce(f64::min)
    };
    Row {
        scenario: scenario.name,
        policy,
        seeds: outcomes.len() as u64,
        share: least(|of| of.share),
        jain: least(|of| of.jain),
        failed: outcomes.iter().map(|(_, of)| of.failed).sum(),
        late: outcomes.iter().map(|(_, of)| of.late).sum(),
        pauses: outcomes.iter().map(|(_, of)| of.pauses).max().unwrap_or(0),
        probes: outcomes.iter().map(|(_, of)| of.probes).max().unwrap_or(0),
        detection_ms: longest(|of| of.detection_ms),
        recovery_ms: longest(|of| of.recovery_ms),
        reuse_ms: longest(|of| of.reuse_ms),
        p99_us: most(|of| of.p99_us),
        loaded_gpu: gpu(|(loaded, _)| loaded),
        other_gpus: gpu(|(_, others)| others),
        rails_made: most(|of| of.rails_made),
        queue_pairs: most(|of| of.queue_pairs),
        unused_lanes: outcomes.iter().map(|(_, of)| of.unused_lanes).max().unwrap_or(0),
        seed,
        misses: Vec::new(),
    }
}

/// What a row must reach and does not.
fn misses(row: &Row) -> Vec<String> {
    let mut misses = Vec::new();
    let mut need = |is_met: bool, what: &str| {
        if !is_met {
            misses.push(what.to_owned());
        }
    };
    let within = |value: Option<f64>, limit: f64| value.is_some_and(|value| value <= limit);
    need(row.failed == 0, "no transfer fails");
    need(row.late == 0, "nothing is written after the end of its transfer");
    match row.scenario.split(':').next().unwrap_or_default() {
        "A" | "C" | "A, 1 MiB" | "C, 1 MiB" | "K" => need(row.share >= 0.97, "share >= 0.97"),
        "B" | "G" | "J" => need(row.share >= 0.95, "share >= 0.95"),
        "D" => {
            need(row.share >= 0.95, "share >= 0.95 of the rest");
            need(within(row.detection_ms, 6.0), "detection within 6 ms");
            need(within(row.recovery_ms, 10.0), "recovery within 10 ms of it");
            need(within(row.reuse_ms, 20.0), "used again within 20 ms");
        }
        "E" => need(row.share >= 0.85, "share >= 0.85"),
        "F" => {
            need(row.share >= 0.95, "share >= 0.95");
            need(row.jain >= 0.95, "Jain >= 0.95");
        }
        "H" => {
            need(row.jain >= 0.95, "Jain >= 0.95");
            need(row.rails_made <= 2.0, "one further rail a peer at most");
            need(row.unused_lanes == 1, "one queue pair of a further rail until it is used");
        }
        "I" => {
            need(row.loaded_gpu.is_some_and(|nics| nics >= 1.6), "the loaded GPU >= 1.6 NICs");
            need(row.other_gpus.is_some_and(|share| share >= 0.9), "the others >= 0.9 of theirs");
        }
        _ => {}
    }
    if !row.scenario.starts_with('D') && !row.scenario.starts_with('E') {
        need(row.pauses == 0, "no rail paused");
    }
    misses
}

/// The 99th percentile of C is compared with that of A.
pub(crate) fn compare_latencies(rows: &mut [Row]) {
    let p99 = |rows: &[Row], scenario: &Scenario, policy| {
        rows.iter().find(|row| row.scenario == scenario.name && row.policy == policy).map(|row| row.p99_us)
    };
    let Some(equal) = p99(rows, &Scenario::small(false), Policy::Ours) else { return };
    let late = rows
        .iter_mut()
        .filter(|row| row.scenario == Scenario::small(true).name && row.policy == Policy::Ours);
    for row in late.filter(|row| row.p99_us > 1.2 * equal) {
        row.misses.push(format!("99 of 100 within 1.2 x {equal:.0} us"));
    }
}
