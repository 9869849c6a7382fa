//! What the engine counts, and how an operator reads it.
//!
//! Counting costs no measurable time: the thread that does the work owns plain counters on a cache line of its own and
//! writes them without a locked instruction. Reading is rare: [`registry()`] collects a [`Snapshot`] from every live
//! [`Source`], and [`prometheus_text`] writes one in the text format of OpenMetrics.

mod counter;
mod histogram;
#[cfg(feature = "metrics-endpoint")]
pub(crate) mod json;
mod metric;
mod prometheus;
mod registry;
mod snapshot;
mod worker;

pub use counter::Counter;
pub use histogram::{Histogram, HistogramSnapshot};
pub use metric::{Kind, METRICS, Metric, metrics};
pub use prometheus::prometheus_text;
pub use registry::{Registry, Source, registry};
pub use snapshot::{Label, Sample, Snapshot, Value};
pub use worker::{SAMPLE_EVERY, WorkerCounters};
