//! Errors of resolving a name.

use std::time::Duration;

use crate::control::HostError;

/// Why a host could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// It is not written as a host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The name is too long.
    #[error("cannot resolve a host name of {length} bytes: the system takes {limit} at most")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The longest.
        limit: usize,
    },
    /// The resolver has answered with an error.
    #[error(
        "cannot resolve host {name:?}: {reason}, said the system's resolver after {} ms; check the spelling, and what \
         `getent ahosts` says on this host, or use an address", waited.as_millis()
    )]
    Failed {
        /// The name.
        name: String,
        /// The resolver's error.
        reason: String,
        /// How long the caller has waited.
        waited: Duration,
    },
    /// The resolver has not answered.
    #[error(
        "cannot resolve host {name:?}: no answer from the system's resolver within {} ms (this look-up runs since {} \
         ms); check the name servers in /etc/resolv.conf, or use an address", waited.as_millis(), running.as_millis()
    )]
    Silent {
        /// The name.
        name: String,
        /// How long the caller has waited.
        waited: Duration,
        /// How long the look-up has been running, possibly for earlier callers.
        running: Duration,
    },
    /// Look-ups of other names occupy every thread.
    #[error(
        "cannot resolve host {name:?}: {limit} other names are being looked up, which is the limit, and none of them \
         has ended within {} ms; check the name servers in /etc/resolv.conf, or use an address", waited.as_millis()
    )]
    Busy {
        /// The name.
        name: String,
        /// How long the caller has waited.
        waited: Duration,
        /// Names that are looked up at a time.
        limit: usize,
    },
    /// This process ended the wait.
    #[error("ended by this process")]
    Aborted,
}
