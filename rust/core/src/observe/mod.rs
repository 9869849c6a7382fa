//! What the engine counts, and how an operator reads it.
//!
//! Counting costs no measurable time: the thread that does the work owns plain counters on a cache line of its own and
//! writes them without a locked instruction. Reading is rare: [`registry()`] collects a [`Snapshot`] from every live
//! [`Source`], and [`prometheus_text`] writes one in the text format of OpenMetrics.

mod counter;
mod event;
mod event_log;
mod histogram;
#[cfg(feature = "metrics-endpoint")]
pub(crate) mod json;
mod metric;
mod prometheus;
mod registry;
mod slow_transfer;
mod snapshot;
mod worker;

pub use counter::Counter;
pub use event::{Event, EventKind};
pub use event_log::{EVENTS_KEPT, EventLog, event_log};
pub use histogram::{Histogram, HistogramSnapshot};
pub use metric::{Kind, METRICS, Metric, metrics};
pub use prometheus::prometheus_text;
pub use registry::{Registry, Source, registry};
pub use slow_transfer::{Direction, SlowTransfer};
pub use snapshot::{Label, Sample, Snapshot, Value};
pub use worker::{SAMPLE_EVERY, WorkerCounters};
