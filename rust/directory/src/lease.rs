//! A published name that is held.

use std::fmt::Debug;
use std::time::Instant;

use crate::{Error, Name};

/// A published name. Dropping it withdraws the name, which takes at most 2 s; in a forked child that does nothing.
///
/// The directory keeps it alive, with one thread for all names. When the servers are gone for longer than the time of the lease
/// the name vanishes there; as soon as they answer it is published again, if nothing else has taken it.
#[derive(Debug)]
#[must_use = "the name is withdrawn when this is dropped"]
pub struct Lease {
    name: Name,
    /// `None` once it is withdrawn.
    held: Option<Box<dyn Held>>,
}

/// How a directory holds a name. Dropping it withdraws the name as well as it can.
pub(crate) trait Held: Debug + Send + Sync {
    /// See [`Lease::lost`].
    fn lost(&self) -> bool;

    /// Withdraws the name; called once.
    fn withdraw(&self, deadline: Instant) -> Result<(), Error>;
}

impl Lease {
    pub(crate) fn new(name: Name, held: Box<dyn Held>) -> Self {
        Self { name, held: Some(held) }
    }

    /// The name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Whether the name cannot be relied on now: its lease ran out, or another engine has taken it over. The first may end, when
    /// the servers answer again; the second does not. Never blocks.
    pub fn lost(&self) -> bool {
        self.held.as_ref().is_none_or(|held| held.lost())
    }

    /// Withdraws the name, and tells what went wrong; a drop logs it. The name then vanishes with the time of the lease.
    ///
    /// # Errors
    /// Those of [`Directory::look_up`](crate::Directory::look_up).
    pub fn withdraw(mut self, deadline: Instant) -> Result<(), Error> {
        self.held.take().map_or(Ok(()), |held| held.withdraw(deadline))
    }
}
