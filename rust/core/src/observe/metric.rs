//! The one table of metrics: name, meaning, unit.

/// A metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name, without the suffixes that the text format adds.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its meaning.
    pub help: &'static str,
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in seconds, by size.
    Histogram,
}

macro_rules! metrics {
    ($($name:ident = $kind:ident $text:literal: $help:literal;)*) => {
        /// The metrics by name.
        pub mod metrics {
            use super::{Kind, Metric};
            $(#[doc = $help] pub static $name: Metric = Metric { name: $text, kind: Kind::$kind, help: $help };)*
        }
        /// Every metric, in the order in which they are written.
        pub static METRICS: &[&Metric] = &[$(&metrics::$name),*];
    };
}

metrics! {
    DEVICE = Gauge "flagcx_p2p_device_info": "Devices in use; the labels name provider, device, port";
    DEVICE_UP = Gauge "flagcx_p2p_device_up": "1 while a device's port is up, by its events";
    DEVICE_EVENTS = Counter "flagcx_p2p_device_events": "Asynchronous events of a device; the label kind is their type";
    WORKERS = Gauge "flagcx_p2p_workers": "Workers of a device's pool";
    POSTED = Counter "flagcx_p2p_requests_posted": "Work requests posted";
    REFUSED = Counter "flagcx_p2p_posts_refused": "Posts that a full send queue refused, and that were repeated";
    FAILED = Counter "flagcx_p2p_requests_failed": "Work requests that completed with an error";
    TIMED_OUT = Counter "flagcx_p2p_transfers_timed_out": "Transfers that did not end within their deadline";
    QUEUED = Gauge "flagcx_p2p_queue_depth": "Transfers that wait in a device's submission queues";
    LATENCY = Histogram "flagcx_p2p_transfer_latency_seconds": "Time from submission to end, of a sample of transfers";
    LANES = Gauge "flagcx_p2p_connection_lanes": "Lanes agreed with a peer";
    HEALTHY_LANES = Gauge "flagcx_p2p_connection_healthy_lanes": "Lanes in working order";
    BYTES = Counter "flagcx_p2p_connection_bytes": "Bytes of the transfers started with a peer";
    TRANSFERS = Counter "flagcx_p2p_connection_transfers": "Transfers started with a peer";
    FAILURES = Counter "flagcx_p2p_connection_failures": "Transfers with a peer that ended otherwise than done";
    REBUILDS = Counter "flagcx_p2p_connection_rebuilds": "Lanes rebuilt after an error";
    NOTIFICATIONS_SENT = Counter "flagcx_p2p_notifications_sent": "Notifications handed to the network";
    NOTIFICATIONS_RECEIVED = Counter "flagcx_p2p_notifications_received": "Notifications taken from the network";
    UNAUTHENTICATED_CLIENTS = Gauge "flagcx_p2p_unauthenticated_clients": "Clients of all listeners that have neither proven the key nor ended their handshake";
    DISPLACED_CLIENTS = Counter "flagcx_p2p_displaced_clients": "Unauthenticated clients that were closed to admit waiting ones";
    NOTIFICATIONS_WAITING = Gauge "flagcx_p2p_notifications_waiting": "Notifications that the program has not fetched";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_well_formed() {
        let mut names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        for name in &names {
            assert!(name.starts_with("flagcx_p2p_"));
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            );
            assert!(!name.ends_with("_total"), "the text format adds it");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
    }
}
