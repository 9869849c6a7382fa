//! Why a lane was closed, or a connection lost.

use std::io;
use std::time::Duration;

use super::{FOLLOW_LIMIT, PORT_LIMIT, STEP_LIMIT};

/// Why a lane was closed for good, or a connection lost: the reason of its failed transfers, and of the log line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::connection) enum LostReason {
    /// The peer has sent Goodbye.
    #[error("the peer has closed the connection")]
    Goodbye,
    /// The control connection ended without a Goodbye.
    #[error("the peer has closed the connection or died")]
    HungUp,
    /// The peer's process has ended, whatever the state of its sockets.
    #[error("the peer's process ({0}) has ended")]
    Died(
        /// Its pid.
        i32,
    ),
    /// The peer has not answered pings.
    #[error(
        "no data from the peer for {} ms, and its pings are unanswered: the peer, its host or the network is down, or the process is stopped",
        .0.as_millis()
    )]
    Silent(Duration),
    /// The control connection failed, with the errno's text.
    #[error("the control connection failed: {0}")]
    Channel(String),
    /// The peer sent a malformed frame.
    #[error("the control connection failed on data from the peer: {0}")]
    Malformed(String),
    /// The device is lost to this process.
    #[error("{0}")]
    Device(&'static str),
    /// Every lane is closed.
    #[error("no lane is left; the last one was closed: {0}")]
    NoLane(Box<Self>),
    /// A lane failed, and the peer does not support rebuilds.
    #[error("{0}")]
    NotHealed(
        /// Why the lane had failed.
        String,
    ),
    /// The last of the rebuilds that are tried in a row failed.
    #[error("{attempts} rebuilds failed, the last one because {failure}; the lane had failed: {cause}")]
    NotRebuilt {
        /// How many were tried.
        attempts: u32,
        /// The failure of the last one.
        failure: RebuildFailure,
        /// Why the lane had failed.
        cause: String,
    },
    /// This side follows, and the peer did not rebuild the lane.
    #[error(
        "the peer did not request a rebuild within {} s, or complete it{}; the lane had failed: {cause}",
        FOLLOW_LIMIT.as_secs(), after(.failure)
    )]
    NotAsked {
        /// The failure of the last one that it requested.
        failure: Option<RebuildFailure>,
        /// Why the lane had failed.
        cause: String,
    },
    /// The peer has closed its end of the lane.
    #[error("the peer could not rebuild the lane")]
    Refused,
    /// The device created no queue pair, or one of smaller capabilities.
    #[error("cannot create a queue pair for a rebuild: {error}; the lane had failed: {cause}")]
    NoQueuePair {
        /// The error of the device or the fabric.
        error: String,
        /// Why the lane had failed.
        cause: String,
    },
    /// The port did not come up again.
    #[error("the port has been down for {} s", PORT_LIMIT.as_secs())]
    PortDown,
    /// The old queue pair did not flush.
    #[error("its queue pair was not drained within {} s; the lane had failed: {cause}", STEP_LIMIT.as_secs())]
    NotDrained {
        /// Why the lane had failed.
        cause: String,
    },
    /// The lane's worker has closed it: its queue pair did not flush and was destroyed.
    #[error("its queue pair was destroyed")]
    Destroyed,
}

/// Why one attempt to rebuild a lane failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::connection) enum RebuildFailure {
    /// The peer did not answer.
    #[error("the peer did not answer within {} s", STEP_LIMIT.as_secs())]
    Unanswered,
    /// Our device created no queue pair, or one of smaller capabilities.
    #[error("no queue pair was created: {0}")]
    NotCreated(String),
    /// Our new queue pair did not connect to the peer's.
    #[error("the new queue pair did not connect: {0}")]
    NotConnected(String),
    /// The peer's port was down.
    #[error("the peer's port is down")]
    PortDown,
    /// The peer had answered, and discarded its new queue pair before this side was connected to it.
    #[error("the peer discarded its new queue pair")]
    GivenUp,
}

impl LostReason {
    /// The reason for an error of the control connection.
    pub(in crate::connection) fn of_channel(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::HungUp,
            io::ErrorKind::InvalidData => Self::Malformed(error.to_string()),
            _ => Self::Channel(error.to_string()),
        }
    }
}

fn after(failure: &Option<RebuildFailure>) -> String {
    failure.as_ref().map_or_else(String::new, |failure| format!(", after {failure}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_find_what_they_search_for() {
        let cause = || "retries exceeded".to_owned();
        for (reason, text) in [
            (LostReason::Goodbye, "the peer has closed the connection"),
            (LostReason::HungUp, "closed the connection or died"),
            (LostReason::Died(7), "the peer's process (7) has ended"),
            (
                LostReason::Silent(Duration::from_millis(3333)),
                "no data from the peer for 3333 ms, and its pings are unanswered",
            ),
            (
                LostReason::NotRebuilt { attempts: 3, failure: RebuildFailure::Unanswered, cause: cause() },
                "3 rebuilds failed, the last one because the peer did not answer within 3 s; the lane had failed: retries",
            ),
            (
                LostReason::NotAsked { failure: None, cause: cause() },
                "did not request a rebuild within 12 s, or complete it; the",
            ),
            (
                LostReason::NotAsked { failure: Some(RebuildFailure::GivenUp), cause: cause() },
                "or complete it, after the peer discarded its new queue pair; the lane",
            ),
            (LostReason::NotDrained { cause: cause() }, "not drained within 3 s"),
            (LostReason::PortDown, "the port has been down for 8 s"),
            (
                LostReason::NoQueuePair { error: "ENOMEM".to_owned(), cause: cause() },
                "cannot create a queue pair for a rebuild: ENOMEM; the lane had failed: retries exceeded",
            ),
            (
                LostReason::NoLane(Box::new(LostReason::Refused)),
                "no lane is left; the last one was closed: the peer",
            ),
        ] {
            assert!(reason.to_string().contains(text), "{reason}");
        }
    }

    #[test]
    fn errors_of_the_channel_are_distinguished() {
        let malformed = io::Error::new(io::ErrorKind::InvalidData, "magic 0");
        assert_eq!(LostReason::of_channel(&malformed), LostReason::Malformed("magic 0".to_owned()));
        assert_eq!(LostReason::of_channel(&io::ErrorKind::UnexpectedEof.into()), LostReason::HungUp);
        let refused = io::Error::from_raw_os_error(110);
        assert!(
            matches!(LostReason::of_channel(&refused), LostReason::Channel(text) if text.contains("os error 110"))
        );
    }
}
