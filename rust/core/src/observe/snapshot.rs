//! The state of all counters at one moment.

use std::time::Duration;

use super::{HistogramSnapshot, Metric};

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

/// The values of all sources, in the order of their registration.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    samples: Vec<Sample>,
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

    /// Everything.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The samples of one metric.
    pub fn of(&self, metric: &'static Metric) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.metric == metric)
    }
}
