//! What is told of one rail of a connection.

use std::fmt;
use std::time::Duration;

use super::ChannelInfo;
use crate::rails::PauseReason;

/// A rail of a connection: a NIC of this host, a NIC of the peer, and the lanes between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RailInfo {
    /// Its number in the connection, from 0, the one that the connection was made with.
    pub rail: u8,
    /// The NIC of this host: name and port, such as `mlx5_0:1`.
    pub nic: String,
    /// The NIC of the peer, in its words; empty if it has not told.
    pub peer_nic: String,
    /// Whether it takes parts of transfers now.
    pub status: RailStatus,
    /// Lanes that it has, or had: of a further rail one before it is used.
    pub lanes: usize,
    /// Of these, in working order now.
    pub healthy_lanes: usize,
    /// Bytes of parts of WRITEs that ended on it as done, since the connection was made.
    pub written_bytes: u64,
    /// Bytes of parts of READs that ended on it as done, since the connection was made.
    pub read_bytes: u64,
    /// Bytes of parts on it that have not ended.
    pub in_flight_bytes: u64,
    /// Bytes a second that it was measured to carry; 0 if that has not been measured, or not for long.
    pub rate_bytes_per_second: u64,
    /// Parts of transfers that were taken from it and posted on another rail.
    pub moved_parts: u64,
    /// How often it was paused or went down.
    pub pauses: u64,
    /// The last of these; `None` if there was none.
    pub last_pause: Option<RailPause>,
    /// The shortest of its last answers to probes; `None` if it has not been probed.
    pub latency: Option<Duration>,
}

/// The rails of one connection, and its control channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionRails {
    /// Names the connection in this process.
    pub connection: u64,
    /// Its peer, `ip:port` of the control listener.
    pub peer: String,
    /// Its control channel.
    pub channel: ChannelInfo,
    /// By their numbers.
    pub rails: Vec<RailInfo>,
}

/// Whether a rail may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RailStatus {
    /// It takes parts.
    Up,
    /// It takes none; then it is tried again.
    Paused {
        /// How long until then, at least; zero while the attempt is under way.
        left: Duration,
    },
    /// It takes none until its port is up again, its lanes are rebuilt, or for ever: its device is lost, or the connection has ended.
    Down,
}

/// Why a rail was paused or went down, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RailPause {
    /// Why.
    pub reason: PauseReason,
    /// How long ago.
    pub ago: Duration,
}

impl RailStatus {
    /// Its name in metrics and JSON: `up`, `paused` or `down`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Paused { .. } => "paused",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for RailStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused { left } => write!(f, "paused for {} ms", left.as_millis()),
            Self::Up | Self::Down => f.write_str(self.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_in_words() {
        let paused = RailStatus::Paused { left: Duration::from_micros(7900) };
        assert_eq!(
            [RailStatus::Up, paused, RailStatus::Down].map(RailStatus::name),
            ["up", "paused", "down"]
        );
        assert_eq!([RailStatus::Down, paused].map(|status| status.to_string()), ["down", "paused for 7 ms"]);
    }
}
