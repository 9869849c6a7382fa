//! The moving of bytes by the CPU, apart from the polling of completions.

use std::fmt::Debug;

/// Moves the bytes of a completion queue's queue pairs, where the device does not do so by itself.
pub trait Progress: Send + Sync + Debug {
    /// Carries out requests for a while, up to about 1 MiB, if there is something to do; what is done is a completion for the
    /// next poll. Several threads may call it at a time: they carry out requests of different queue pairs. Those of one queue
    /// pair take effect in order, one at a time.
    fn advance(&self);
}
