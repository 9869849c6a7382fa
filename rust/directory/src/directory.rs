//! What every directory can do.

use std::fmt::Debug;
use std::time::Instant;

use crate::{Error, Lease, Name, Record, Watch};

/// Names of engines and where these are reached. Made by [`open`](crate::open).
///
/// Calls may come from any thread, block at most until their deadline, and are refused in a forked child.
pub trait Directory: Debug + Send + Sync {
    /// Publishes `record` under `name`, for as long as the answer lives.
    ///
    /// A name in use is taken over if it is of the same engine, or if the engine that holds it is gone: its address refuses a
    /// connection, does not answer one within a second, or belongs to another program or engine now. Of several that publish a
    /// name at once, exactly one succeeds.
    ///
    /// # Errors
    /// [`Error::NameInUse`], [`Error::HolderUnknown`] and [`Error::NotListed`]; [`Error::Record`] for a record that is malformed or too large, or when the
    /// name holds something that is no record; those of [`Directory::look_up`].
    fn publish(&self, name: &Name, record: &Record, deadline: Instant) -> Result<Lease, Error>;

    /// What is published under `name`; `None` if nothing is.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Denied`], [`Error::Refused`], [`Error::Answer`], [`Error::TooLong`] and [`Error::Deadline`] of a
    /// server; [`Error::File`] of a list; [`Error::Record`] when the name holds something that is no record; [`Error::Forked`].
    fn look_up(&self, name: &Name, deadline: Instant) -> Result<Option<Record>, Error>;

    /// All that is published under names that begin with `prefix`, in the order of the names; all names for an empty one. What is
    /// no record is left out.
    ///
    /// # Errors
    /// Those of [`Directory::look_up`].
    fn list(&self, prefix: &str, deadline: Instant) -> Result<Vec<(Name, Record)>, Error>;

    /// Tells what is published under names that begin with `prefix`, and every change from then on. The thread of a watch that is dropped
    /// ends within 20 s, whatever a server does; the drop waits for nothing.
    ///
    /// # Errors
    /// [`Error::System`] without a thread for it, [`Error::Forked`]. What a server says comes from [`Watch::next`].
    fn watch(&self, prefix: &str) -> Result<Watch, Error>;

    /// The directory for people: its URL without user and password.
    fn describe(&self) -> String;
}
