//! What is told of the control channel of a connection.

use std::time::Duration;

/// How often the control channel of a connection has failed, with `FLAGCX_P2P_CONTROL_REDIAL`, and whether it is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelInfo {
    /// How often it has failed, since the connection was made.
    pub lost: u64,
    /// How often it was made anew.
    pub resumed: u64,
    /// For how long it has been away now; `None` while it is there.
    pub away: Option<Duration>,
}
