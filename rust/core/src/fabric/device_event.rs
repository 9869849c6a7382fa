//! What a device reports without being asked.

use std::fmt;

/// What a device says on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    /// The port went down.
    PortDown,
    /// The port came (back) up.
    PortUp,
    /// The queue pair with this number is in ERROR.
    QueuePairFatal(u32),
    /// A completion queue was overrun or lost.
    CompletionQueueFatal,
    /// The device is gone or must be reset.
    DeviceFatal,
    /// The GID, LID or P_Key table changed.
    AddressChange,
    /// Something else, by its number.
    Other(u32),
}

impl DeviceEvent {
    /// Its kind in one word: a metric's label.
    pub fn kind(self) -> &'static str {
        match self {
            Self::PortDown => "port-down",
            Self::PortUp => "port-up",
            Self::QueuePairFatal(_) => "queue-pair-fatal",
            Self::CompletionQueueFatal => "completion-queue-fatal",
            Self::DeviceFatal => "device-fatal",
            Self::AddressChange => "address-change",
            Self::Other(_) => "other",
        }
    }
}

impl fmt::Display for DeviceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortDown => f.write_str("the port went down"),
            Self::PortUp => f.write_str("the port is up"),
            Self::QueuePairFatal(number) => write!(f, "queue pair {number} has failed"),
            Self::CompletionQueueFatal => f.write_str("a completion queue was overrun or lost"),
            Self::DeviceFatal => f.write_str("the device has failed or was removed"),
            Self::AddressChange => f.write_str("the port's GID, LID or P_Key table has changed"),
            Self::Other(number) => write!(f, "asynchronous event {number}"),
        }
    }
}
