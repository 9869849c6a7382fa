//! What happens to engines, connections and devices, as typed events.

use std::fmt;
use std::time::SystemTime;

/// Something that has happened, and that an operator may have to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number in this process, from 1 on: a gap in what was read means that older events were overwritten.
    pub sequence: u64,
    /// When.
    pub at: SystemTime,
    /// What kind of event it is.
    pub kind: EventKind,
    /// The peer that it is about, `ip:port` of its control listener, or the address of a client.
    pub peer: Option<String>,
    /// The device that it is about.
    pub device: Option<String>,
    /// What happened, in words: the text of the log line.
    pub text: String,
}

macro_rules! kinds {
    ($($(#[doc = $help:literal])* $kind:ident = $name:literal,)*) => {
        /// The kinds of events.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum EventKind {
            $($(#[doc = $help])* $kind,)*
        }

        impl EventKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// Its name in metrics, JSON and documents.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// An engine was opened.
    EngineOpened = "engine_opened",
    /// A connection was made.
    Connected = "connected",
    /// A connection ended while no lane had failed and no transfer was in flight, or by this side.
    ConnectionEnded = "connection_ended",
    /// A connection ended with its peer or its path, after a lane had failed or while transfers were in flight: these failed.
    ConnectionLost = "connection_lost",
    /// The process of a peer on this host has ended.
    PeerDied = "peer_died",
    /// A lane left working order.
    LaneError = "lane_error",
    /// A lane is back in working order.
    LaneRebuilt = "lane_rebuilt",
    /// A lane is not rebuilt any more.
    LaneGivenUp = "lane_given_up",
    /// The rebuild of lanes of a connection began.
    RecoveryBegan = "recovery_began",
    /// Every lane of a connection is in working order again, or given up.
    RecoveryEnded = "recovery_ended",
    /// A connection has a further rail.
    RailAdded = "rail_added",
    /// A further rail of a connection could not be made: the connection goes on without it.
    RailRefused = "rail_refused",
    /// A rail takes no parts of transfers any more: for a while, or until its port or device is back.
    RailPaused = "rail_paused",
    /// A rail that was paused or down takes parts of transfers again.
    RailUp = "rail_up",
    /// Parts of transfers were taken from a rail and posted on another one.
    PartsMoved = "parts_moved",
    /// The control channel of a connection has failed, and is dialled again: the connection goes on.
    ChannelLost = "channel_lost",
    /// The control channel of a connection is made anew.
    ChannelResumed = "channel_resumed",
    /// How the bytes of a connection travel.
    PathChosen = "path_chosen",
    /// A faster way between two processes was denied by the system.
    PathDenied = "path_denied",
    /// Memory could not be registered.
    RegistrationFailed = "registration_failed",
    /// Memory was deregistered while transfers used it: they are ended.
    DeregistrationForced = "deregistration_forced",
    /// An asynchronous event of a device.
    DeviceEvent = "device_event",
    /// A transfer failed.
    TransferFailed = "transfer_failed",
    /// A transfer did not end within its deadline.
    TransferTimedOut = "transfer_timed_out",
    /// A client or peer was refused: a wrong key, an address that is not allowed, a malformed handshake.
    ClientRefused = "client_refused",
    /// A limit of unauthenticated clients was reached.
    ClientsLimited = "clients_limited",
    /// Notifications were dropped.
    NotificationDropped = "notification_dropped",
    /// The process is a fork child of one that had engines.
    Forked = "forked",
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
