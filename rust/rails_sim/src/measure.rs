//! What is measured of a run.

use crate::scenario::{MS, Scenario};

/// The outcome of one run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Bytes that were moved in the window, of what the working links carry.
    pub share: f64,
    /// Jain's fairness index over connections; 1 of a single one.
    pub jain: f64,
    /// Transfers that could not be ended, or had not ended 100 ms after they began when the run was over.
    pub failed: u64,
    /// Requests that wrote to memory after the end of their transfer.
    pub late: u64,
    /// Pauses of rails, and ports that were down.
    pub pauses: u64,
    /// Probes sent.
    pub probes: u64,
    /// Milliseconds from the beginning of a silence until its rail is paused.
    pub detection_ms: Option<f64>,
    /// Milliseconds from then until the other rails carry 0.95 of what they can, over 5 ms.
    pub recovery_ms: Option<f64>,
    /// Milliseconds from the return of a NIC until it carries something again.
    pub reuse_ms: Option<f64>,
    /// 99 of 100 transfers took no longer, in microseconds.
    pub p99_us: f64,
    /// NICs' worth of bytes of the first GPU, and the least share of its load that another GPU got.
    pub gpus: Option<(f64, f64)>,
    /// Rails that were made, per connection.
    pub rails_made: f64,
    /// Queue pairs that were made, per connection.
    pub queue_pairs: f64,
    /// Of those of a further rail the most that one had before it carried anything.
    pub unused_lanes: usize,
    /// Nanoseconds until the last transfer has ended.
    pub last_end: u64,
    /// Bytes by rail of the first connection.
    pub by_rail: Vec<u64>,
}

#[derive(Debug)]
pub(crate) struct Measure {
    window: (u64, u64),
    bytes: u64,
    /// Completed bytes by millisecond.
    buckets: Vec<u64>,
    by_connection: Vec<u64>,
    /// Bytes of transfers that have ended, and for how long they took, by connection.
    speeds: Vec<(u64, u64)>,
    by_class: Vec<u64>,
    latencies: Vec<u64>,
    pub(crate) failed: u64,
    pub(crate) late: u64,
    pub(crate) pauses: u64,
    pub(crate) probes: u64,
    pub(crate) detected: Option<u64>,
    pub(crate) reused: Option<u64>,
    pub(crate) last_end: u64,
    pub(crate) by_rail: Vec<u64>,
    /// Lanes that a further rail had at most when it was used for the first time.
    pub(crate) unused_lanes: usize,
}

impl Measure {
    pub(crate) fn new(scenario: &Scenario, connections: usize, classes: usize) -> Self {
        Self {
            window: scenario.window,
            bytes: 0,
            buckets: vec![0; (scenario.window.1 / MS) as usize + 1],
            by_connection: vec![0; connections],
            speeds: vec![(0, 0); connections],
            by_class: vec![0; classes],
            latencies: Vec::new(),
            failed: 0,
            late: 0,
            pauses: 0,
            probes: 0,
            detected: None,
            reused: None,
            last_end: 0,
            by_rail: vec![0; 8],
            unused_lanes: 0,
        }
    }

    /// Bytes have been moved.
    pub(crate) fn moved(&mut self, now: u64, connection: u32, rail: u8, class: usize, bytes: u64) {
        if let Some(bucket) = self.buckets.get_mut((now / MS) as usize) {
            *bucket += bytes;
        }
        if connection == 0 {
            self.by_rail[usize::from(rail)] += bytes;
        }
        if (self.window.0..self.window.1).contains(&now) {
            self.bytes += bytes;
            self.by_connection[connection as usize] += bytes;
            self.by_class[class] += bytes;
        }
    }

    /// A transfer has ended that began at `since`.
    pub(crate) fn ended(&mut self, now: u64, since: u64, connection: u32, bytes: u64) {
        self.last_end = now;
        if since >= self.window.0 && now < self.window.1 {
            self.latencies.push(now - since);
            let (sum, nanos) = &mut self.speeds[connection as usize];
            *sum += bytes;
            *nanos += now - since;
        }
    }

    pub(crate) fn outcome(
        mut self,
        scenario: &Scenario,
        silent: Option<(u64, u64)>,
        classes: &[f64],
    ) -> Outcome {
        let seconds = (self.window.1 - self.window.0) as f64 / 1e9;
        let share = self.bytes as f64 / (scenario.ideal * seconds);
        self.latencies.sort_unstable();
        let p99 = self.latencies.get(self.latencies.len() * 99 / 100).copied().unwrap_or(0);
        let gpus = (classes.len() > 1).then(|| {
            let of = |class: usize| self.by_class[class] as f64 / seconds / crate::scenario::FULL as f64;
            let others = (1..classes.len()).map(|class| of(class) / classes[class]);
            (of(0), others.fold(f64::INFINITY, f64::min))
        });
        let detection = silent.zip(self.detected).map(|((from, _), at)| at - from);
        let recovery = self.detected.and_then(|at| self.recovered_after(at, scenario.ideal, self.window.1));
        let millis = |nanos: u64| nanos as f64 / MS as f64;
        Outcome {
            share,
            jain: self.jain(scenario),
            failed: self.failed,
            late: self.late,
            pauses: self.pauses,
            probes: self.probes,
            detection_ms: detection.map(millis),
            recovery_ms: recovery.map(millis),
            reuse_ms: silent.zip(self.reused).map(|((_, to), at)| millis(at - to)),
            p99_us: p99 as f64 / 1e3,
            gpus,
            rails_made: 0.0,
            queue_pairs: 0.0,
            unused_lanes: self.unused_lanes,
            last_end: self.last_end,
            by_rail: self.by_rail,
        }
    }

    /// Nanoseconds after `at` from which on 5 ms carry 0.95 of `ideal`.
    fn recovered_after(&self, at: u64, ideal: f64, end: u64) -> Option<u64> {
        let needed = 0.95 * ideal * 5e-3;
        let first = at.div_ceil(MS) as usize;
        let last = (end / MS) as usize;
        (first..last.saturating_sub(5)).find_map(|bucket| {
            let moved: u64 = self.buckets[bucket..bucket + 5].iter().sum();
            (moved as f64 >= needed).then(|| bucket as u64 * MS - at)
        })
    }

    /// Of the bytes of connections; of many that have their turns, of their bytes by the time that they took.
    fn jain(&self, scenario: &Scenario) -> f64 {
        let speed = |(bytes, nanos): &(u64, u64)| *bytes as f64 / *nanos as f64;
        let values: Vec<f64> = if scenario.peers > 1 {
            self.speeds.iter().filter(|(_, nanos)| *nanos > 0).map(speed).collect()
        } else {
            let polite = |(index, bytes): (usize, &u64)| (!scenario.is_rude(index)).then_some(*bytes as f64);
            self.by_connection.iter().enumerate().filter_map(polite).collect()
        };
        let (sum, squares) = values.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
        if squares == 0.0 { 0.0 } else { sum * sum / (values.len() as f64 * squares) }
    }
}
