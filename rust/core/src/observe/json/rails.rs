//! The rails of connections as JSON.

use serde::Serialize;

use super::super::{ChannelInfo, ConnectionRails, RailInfo, RailStatus};

#[derive(Serialize)]
pub(super) struct OfConnection<'a> {
    /// Names it in this process.
    connection: u64,
    peer: &'a str,
    channel: Channel,
    rails: Vec<Rail<'a>>,
}

/// Its control channel.
#[derive(Serialize)]
struct Channel {
    lost: u64,
    resumed: u64,
    /// `null` while it is there.
    away_seconds: Option<f64>,
}

#[derive(Serialize)]
struct Rail<'a> {
    rail: u8,
    nic: &'a str,
    /// Empty if the peer has not told it.
    peer_nic: &'a str,
    state: &'static str,
    /// `null` unless it is paused.
    paused_seconds: Option<f64>,
    lanes: usize,
    healthy_lanes: usize,
    written_bytes: u64,
    read_bytes: u64,
    in_flight_bytes: u64,
    /// 0: not measured.
    rate_bytes_per_second: u64,
    moved_parts: u64,
    pauses: u64,
    /// `null` if it never was paused or down.
    last_pause: Option<Pause>,
    /// `null` if it has not been probed.
    latency_seconds: Option<f64>,
}

#[derive(Serialize)]
struct Pause {
    reason: &'static str,
    seconds_ago: f64,
}

/// The rails of one connection, and its control channel.
pub(super) fn of_connection(connection: &ConnectionRails) -> OfConnection<'_> {
    OfConnection {
        connection: connection.connection,
        peer: &connection.peer,
        channel: channel(connection.channel),
        rails: connection.rails.iter().map(rail).collect(),
    }
}

fn channel(channel: ChannelInfo) -> Channel {
    let ChannelInfo { lost, resumed, away } = channel;
    Channel { lost, resumed, away_seconds: away.map(|away| away.as_secs_f64()) }
}

fn rail(rail: &RailInfo) -> Rail<'_> {
    Rail {
        rail: rail.rail,
        nic: &rail.nic,
        peer_nic: &rail.peer_nic,
        state: rail.status.name(),
        paused_seconds: match rail.status {
            RailStatus::Paused { left } => Some(left.as_secs_f64()),
            RailStatus::Up | RailStatus::Down => None,
        },
        lanes: rail.lanes,
        healthy_lanes: rail.healthy_lanes,
        written_bytes: rail.written_bytes,
        read_bytes: rail.read_bytes,
        in_flight_bytes: rail.in_flight_bytes,
        rate_bytes_per_second: rail.rate_bytes_per_second,
        moved_parts: rail.moved_parts,
        pauses: rail.pauses,
        last_pause: rail
            .last_pause
            .map(|pause| Pause { reason: pause.reason.name(), seconds_ago: pause.ago.as_secs_f64() }),
        latency_seconds: rail.latency.map(|latency| latency.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::super::RailPause;
    use super::*;
    use crate::rails::PauseReason;

    #[test]
    fn rails_of_a_connection() {
        let up = RailInfo {
            rail: 0,
            nic: "mlx5_0:1".to_owned(),
            peer_nic: String::new(),
            status: RailStatus::Up,
            lanes: 4,
            healthy_lanes: 4,
            written_bytes: 7,
            read_bytes: 8,
            in_flight_bytes: 9,
            rate_bytes_per_second: 0,
            moved_parts: 0,
            pauses: 0,
            last_pause: None,
            latency: None,
        };
        let paused = RailInfo {
            rail: 1,
            peer_nic: "mlx5_9:1".to_owned(),
            status: RailStatus::Paused { left: Duration::from_millis(4) },
            rate_bytes_per_second: 50_000_000_000,
            moved_parts: 3,
            pauses: 2,
            last_pause: Some(RailPause { reason: PauseReason::Silent, ago: Duration::from_millis(1500) }),
            latency: Some(Duration::from_micros(3)),
            ..up.clone()
        };
        let channel = ChannelInfo { lost: 3, resumed: 2, away: Some(Duration::from_millis(1500)) };
        let connection =
            ConnectionRails { connection: 5, peer: "h:1".to_owned(), channel, rails: vec![up, paused] };
        let channel = json!({"lost": 3, "resumed": 2, "away_seconds": 1.5});
        let expected = json!({"connection": 5, "peer": "h:1", "channel": channel, "rails": [
            {"rail": 0, "nic": "mlx5_0:1", "peer_nic": "", "state": "up", "paused_seconds": null, "lanes": 4,
             "healthy_lanes": 4, "written_bytes": 7, "read_bytes": 8, "in_flight_bytes": 9,
             "rate_bytes_per_second": 0, "moved_parts": 0, "pauses": 0, "last_pause": null, "latency_seconds": null},
            {"rail": 1, "nic": "mlx5_0:1", "peer_nic": "mlx5_9:1", "state": "paused", "paused_seconds": 0.004, "lanes": 4,
             "healthy_lanes": 4, "written_bytes": 7, "read_bytes": 8, "in_flight_bytes": 9,
             "rate_bytes_per_second": 50_000_000_000_u64, "moved_parts": 3, "pauses": 2,
             "last_pause": {"reason": "silent", "seconds_ago": 1.5}, "latency_seconds": 0.000_003},
        ]});
        assert_eq!(serde_json::to_value(of_connection(&connection)).unwrap(), expected);
    }
}
