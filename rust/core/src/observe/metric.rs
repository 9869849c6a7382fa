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
    STARTED = Counter "flagcx_p2p_transfers_started": "Transfers accepted, by direction and path";
    STARTED_BYTES = Counter "flagcx_p2p_started_bytes": "Bytes of the transfers accepted, by direction and path";
    ENDED = Counter "flagcx_p2p_transfers_ended": "Transfers ended, by direction, path and outcome";
    ENDED_BYTES = Counter "flagcx_p2p_ended_bytes": "Bytes of the parts of transfers that ended, by direction, path and outcome; only those of outcome done have arrived for certain";
    IN_FLIGHT = Gauge "flagcx_p2p_transfers_in_flight": "Transfers accepted and not ended";
    IN_FLIGHT_BYTES = Gauge "flagcx_p2p_in_flight_bytes": "Bytes of the parts of transfers that have not ended";
    OLDEST_AGE = Gauge "flagcx_p2p_oldest_transfer_age_seconds": "How long the oldest unfinished transfer has been unfinished; 0 without any";
    WAITING = Gauge "flagcx_p2p_transfers_waiting": "Parts of transfers in the submission queues of a device, which no worker has taken yet";
    LATENCY = Histogram "flagcx_p2p_transfer_latency_seconds": "Time from begin to end of a sample of transfers: of one in 64 of each lane, whatever its size; of one over several lanes, that of its first part";
    SLOW = Counter "flagcx_p2p_slow_transfers": "Transfers that took longer than 1 ms: not a sample; some that took less are among them after a pause, but none of the copies in the call";
    SLOW_LATENCY = Histogram "flagcx_p2p_slow_transfer_latency_seconds": "Time of the transfers in flagcx_p2p_slow_transfers, from begin to end; at most 0.5 ms too long, unless a pause followed";
    CONNECTIONS = Gauge "flagcx_p2p_connections": "Connections of the process";
    CONNECTIONS_ENDED = Counter "flagcx_p2p_connections_ended": "Connections that have ended";
    LANE_RETRIES = Counter "flagcx_p2p_lane_retries": "Parts of transfers that were posted again after their lane had failed";
    LANE_REBUILDS = Counter "flagcx_p2p_lane_rebuilds": "Lanes rebuilt after an error";
    RAILS = Gauge "flagcx_p2p_rails": "Rails of the connections, by state: a connection over one NIC has one";
    CHANNELS_LOST = Counter "flagcx_p2p_channels_lost": "Control channels that have failed and were dialled again, see FLAGCX_P2P_CONTROL_REDIAL";
    CHANNELS_RESUMED = Counter "flagcx_p2p_channels_resumed": "Control channels that were made anew";
    RAIL_PAUSES = Counter "flagcx_p2p_rail_pauses": "Times that a rail was paused or went down, by reason";
    RAIL_MOVED_PARTS = Counter "flagcx_p2p_rail_moved_parts": "Parts of transfers that were taken from a rail and posted on another one";
    PEER_CONNECTIONS = Gauge "flagcx_p2p_peer_connections": "Connections with a peer";
    PEER_ENDED = Counter "flagcx_p2p_peer_transfers_ended": "Transfers with a peer that ended, by direction, path and outcome";
    PEER_ENDED_BYTES = Counter "flagcx_p2p_peer_ended_bytes": "Bytes of the parts of transfers with a peer that ended, by direction, path and outcome";
    PEER_IN_FLIGHT = Gauge "flagcx_p2p_peer_transfers_in_flight": "Transfers with a peer that have not ended";
    PEER_IN_FLIGHT_BYTES = Gauge "flagcx_p2p_peer_in_flight_bytes": "Bytes of the parts of transfers with a peer that have not ended";
    PEER_OLDEST_AGE = Gauge "flagcx_p2p_peer_oldest_transfer_age_seconds": "How long the oldest unfinished transfer with a peer has been unfinished; 0 without any";
    PEER_LANES = Gauge "flagcx_p2p_peer_lanes": "Lanes with a peer, of all rails of all connections with it";
    PEER_HEALTHY_LANES = Gauge "flagcx_p2p_peer_healthy_lanes": "Lanes with a peer that are in working order";
    PEER_LANE_RETRIES = Counter "flagcx_p2p_peer_lane_retries": "Parts of transfers with a peer that were posted again after their lane had failed, by the lane's index: 8 times the rail's number, and its own";
    PEER_LANE_REBUILDS = Counter "flagcx_p2p_peer_lane_rebuilds": "Lanes with a peer that were rebuilt after an error, by the lane's index; lanes of further rails that have had none have no series";
    PEER_NOTIFICATIONS_SENT = Counter "flagcx_p2p_peer_notifications_sent": "Notifications to a peer that were handed to the network";
    PEER_RAILS = Gauge "flagcx_p2p_peer_rails": "Rails with a peer, by the rail's number, its NIC of this host, and state";
    PEER_RAIL_BYTES = Counter "flagcx_p2p_peer_rail_bytes": "Bytes of the parts of transfers with a peer that ended on a rail as done, by direction";
    PEER_RAIL_IN_FLIGHT_BYTES = Gauge "flagcx_p2p_peer_rail_in_flight_bytes": "Bytes of the parts of transfers with a peer that have not ended on a rail";
    PEER_RAIL_RATE = Gauge "flagcx_p2p_peer_rail_rate_bytes_per_second": "Bytes a second that a rail was measured to carry while it was busy; 0 if that was not measured lately";
    PEER_RAIL_PAUSES = Counter "flagcx_p2p_peer_rail_pauses": "Times that a rail with a peer was paused or went down, by reason; a reason that has not occurred has no series";
    PEER_RAIL_MOVED_PARTS = Counter "flagcx_p2p_peer_rail_moved_parts": "Parts of transfers with a peer that were taken from a rail and posted on another one";
    DEVICE = Gauge "flagcx_p2p_device_info": "Devices in use; the labels name provider, device, port";
    DEVICE_UP = Gauge "flagcx_p2p_device_up": "1 while a device's port is up, by its events";
    DEVICE_EVENTS = Counter "flagcx_p2p_device_events": "Asynchronous events of a device; the label kind is their type";
    WORKERS = Gauge "flagcx_p2p_workers": "Workers of a device's pool";
    POSTED = Counter "flagcx_p2p_requests_posted": "Work requests posted";
    REFUSED = Counter "flagcx_p2p_posts_refused": "Posts that a full send queue refused, and that were repeated";
    FAILED = Counter "flagcx_p2p_requests_failed": "Work requests that completed with an error which failed their transfer";
    REGIONS = Gauge "flagcx_p2p_regions": "Regions registered now";
    REGISTERED_BYTES = Gauge "flagcx_p2p_registered_bytes": "Bytes of the regions registered now";
    REGISTRATIONS = Counter "flagcx_p2p_registrations": "Regions registered";
    REGISTRATION_BYTES = Counter "flagcx_p2p_registration_bytes": "Bytes of the regions registered";
    REGISTRATION_FAILURES = Counter "flagcx_p2p_registration_failures": "Registrations that failed";
    REGISTRATION_TIME = Counter "flagcx_p2p_registration_seconds": "Time spent registering, failed registrations included";
    NOTIFICATIONS_SENT = Counter "flagcx_p2p_notifications_sent": "Notifications handed to the network";
    NOTIFICATIONS_RECEIVED = Counter "flagcx_p2p_notifications_received": "Notifications taken from the network";
    NOTIFICATIONS_WAITING = Gauge "flagcx_p2p_notifications_waiting": "Notifications that the program has not fetched";
    UNAUTHENTICATED_CLIENTS = Gauge "flagcx_p2p_unauthenticated_clients": "Clients of all listeners that have neither proven the key nor ended their handshake";
    DISPLACED_CLIENTS = Counter "flagcx_p2p_displaced_clients": "Unauthenticated clients that were closed to admit waiting ones";
    EVENTS = Counter "flagcx_p2p_events": "Events of the process, by kind: those of the event log, and those that it has overwritten";
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
