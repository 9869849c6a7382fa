//! The state of all counters at one moment.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::connections::Peers;
use super::ended_connections::EndedConnections;
use super::{ConnectionReport, HistogramSnapshot, Metric, TransferTotals};

/// A label: its name and value, such as `("peer", "10.0.0.2:4711")`.
pub type Label = (&'static str, String);

/// One value of one metric.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Which metric.
    pub metric: &'static Metric,
    /// The object that it describes.
    pub labels: Vec<Label>,
    /// The value.
    pub value: Value,
}

/// A value, of its metric's kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Counters and gauges.
    Number(u64),
    /// Counters and gauges in seconds.
    Seconds(Duration),
    /// Histograms.
    Histogram(Box<HistogramSnapshot>),
}

impl Value {
    fn add(&mut self, more: &Self) {
        match (self, more) {
            (Self::Number(sum), Self::Number(more)) => *sum = sum.wrapping_add(*more),
            (Self::Seconds(sum), Self::Seconds(more)) => *sum += *more,
            (Self::Histogram(sum), Self::Histogram(more)) => sum.merge(more),
            // Values of one metric are of one kind.
            _ => {}
        }
    }
}

/// The values of all sources, in the order of their registration.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    samples: Vec<Sample>,
    /// What connections have reported, until [`Snapshot::finish`].
    peers: Peers,
    /// What workers have said, by their address, until then.
    ages: HashMap<usize, HashMap<u32, Duration>>,
}

impl Snapshot {
    /// Adds a counter's or gauge's value.
    pub fn number(&mut self, metric: &'static Metric, labels: &[Label], value: u64) {
        self.samples.push(Sample { metric, labels: labels.to_vec(), value: Value::Number(value) });
    }

    /// Adds a counter or gauge in seconds.
    pub fn seconds(&mut self, metric: &'static Metric, labels: &[Label], value: Duration) {
        self.samples.push(Sample { metric, labels: labels.to_vec(), value: Value::Seconds(value) });
    }

    /// Adds a histogram.
    pub fn histogram(&mut self, metric: &'static Metric, labels: &[Label], value: HistogramSnapshot) {
        self.samples.push(Sample {
            metric,
            labels: labels.to_vec(),
            value: Value::Histogram(Box::new(value)),
        });
    }

    /// Adds what a connection reports, under the name of its peer.
    pub fn connection(&mut self, peer: &Arc<str>, report: &ConnectionReport) {
        self.peers.add(peer, report);
    }

    /// The ages of the oldest unfinished parts of a worker's lanes, by their numbers. `ask` is called once in a snapshot for each
    /// worker, by its address, however many lanes it has: it takes the worker's lock.
    pub fn ages(
        &mut self,
        worker: usize,
        ask: impl FnOnce() -> HashMap<u32, Duration>,
    ) -> &HashMap<u32, Duration> {
        self.ages.entry(worker).or_insert_with(ask)
    }

    /// Writes the sums over connections, and makes one series of those with equal labels, which readers would refuse.
    pub(super) fn finish(&mut self, ended: &EndedConnections, unplaced: &TransferTotals) {
        self.ages = HashMap::new();
        std::mem::take(&mut self.peers).write(ended, unplaced, self);
        let mut places = HashMap::new();
        let mut once: Vec<Sample> = Vec::with_capacity(self.samples.len());
        for sample in std::mem::take(&mut self.samples) {
            let place = *places.entry((sample.metric.name, sample.labels.clone())).or_insert(once.len());
            match once.get_mut(place) {
                Some(known) => known.value.add(&sample.value),
                None => once.push(sample),
            }
        }
        self.samples = once;
    }

    /// Everything.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The samples of one metric.
    pub fn of(&self, metric: &'static Metric) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.metric == metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_asked_once() {
        let (mut snapshot, mut asked) = (Snapshot::default(), 0);
        for worker in [16, 32, 16, 16] {
            let ages = snapshot.ages(worker, || {
                asked += 1;
                HashMap::from([(7, Duration::from_secs(worker as u64))])
            });
            assert_eq!(ages.get(&7), Some(&Duration::from_secs(worker as u64)));
        }
        assert_eq!(asked, 2);
    }
}
