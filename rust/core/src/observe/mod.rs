//! What the engine counts, and how an operator reads it.
//!
//! Counting costs no measurable time: a worker's holder owns plain counters and writes them without a locked instruction; a thread
//! that copies a transfer itself has a place of its own to count it. Reading is rare: [`registry()`] collects a [`Snapshot`] from every live
//! [`Source`], and [`prometheus_text`] writes one in the text format of OpenMetrics.

mod channel_info;
mod connections;
mod counter;
mod end_state;
mod ended_connections;
mod event;
mod event_log;
mod histogram;
#[cfg(feature = "metrics-endpoint")]
pub(crate) mod json;
mod metric;
mod peer_names;
mod process_counts;
mod prometheus;
mod rail_info;
mod rail_report;
mod registry;
mod report;
mod shared_counts;
mod slow_transfer;
mod snapshot;
mod transfer_counts;
mod transfer_totals;
mod worker;

pub use channel_info::ChannelInfo;
pub use connections::{ConnectionReport, LaneReport, MOST_PEERS, OTHER_PEERS};
pub use counter::Counter;
pub use end_state::EndState;
pub use event::{Event, EventKind};
pub use event_log::{EVENTS_KEPT, EventLog, event_log};
pub use histogram::{Histogram, HistogramSnapshot};
pub use metric::{Kind, METRICS, Metric, metrics};
pub use process_counts::{ProcessCounts, process_counts};
pub use prometheus::prometheus_text;
pub use rail_info::{ConnectionRails, RailInfo, RailPause, RailStatus};
pub use rail_report::RailReport;
pub use registry::{MetricRegistry, Source, registry};
pub(crate) use report::{About, report};
pub use shared_counts::SharedCounts;
pub use slow_transfer::{Direction, SlowTransfer};
pub use snapshot::{Label, Sample, Snapshot, Value};
pub(crate) use transfer_counts::COUNTED;
pub use transfer_counts::{PathNames, TransferCounts};
pub use transfer_totals::{Amount, PathTotals, TransferSource, TransferTotals};
pub use worker::{SAMPLE_EVERY, WorkerCounters};
