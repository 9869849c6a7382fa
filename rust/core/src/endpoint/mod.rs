//! The metrics endpoint: HTTP on the address of `FLAGCX_P2P_METRICS`, for Prometheus, probes and `flagcx-p2p stat`.
//!
//! ```text
//!   listener ──▶ server (a task of the event loop) ──▶ clients, at most 16, each a task with deadlines
//!                  └─ collector (a task) ── one page at a time ──▶ helper thread: snapshot, text
//! ```
//!
//! It is open while the process has an engine. A client sends one request of at most 8 KiB and receives one answer. Nothing that
//! it sends or leaves unread holds up the loop: every wait has a deadline, and pages are collected on a helper thread, because
//! collecting may drop the last reference to a connection, which blocks.

#[cfg(not(feature = "metrics-endpoint"))]
mod absent;
#[cfg(feature = "metrics-endpoint")]
mod answer;
#[cfg(feature = "metrics-endpoint")]
mod client;
#[cfg(feature = "metrics-endpoint")]
mod collector;
#[cfg(feature = "metrics-endpoint")]
mod health;
#[cfg(feature = "metrics-endpoint")]
mod listener;
#[cfg(feature = "metrics-endpoint")]
mod note;
#[cfg(feature = "metrics-endpoint")]
mod of_process;
#[cfg(feature = "metrics-endpoint")]
mod progress;
#[cfg(feature = "metrics-endpoint")]
mod request;
#[cfg(feature = "metrics-endpoint")]
mod server;
#[cfg(feature = "metrics-endpoint")]
mod unix_socket;

#[cfg(not(feature = "metrics-endpoint"))]
pub(crate) use absent::EndpointUse;
#[cfg(feature = "metrics-endpoint")]
pub(crate) use of_process::EndpointUse;
#[cfg(feature = "metrics-endpoint")]
pub use request::{HttpRequest, HttpStatus, MAX_HEAD, Method, Page, Parsed, parse};

/// What `/snapshot` answers, for callers in this process, which need no endpoint: JSON. `uptime` is what it says of the time that
/// the endpoint has been open.
#[cfg(feature = "metrics-endpoint")]
pub fn snapshot(uptime: std::time::Duration) -> Result<String, String> {
    crate::observe::json::page(uptime).map_err(|error| error.to_string())
}

#[cfg(all(test, feature = "metrics-endpoint", not(flagcx_p2p_loom)))]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]
mod tests;
