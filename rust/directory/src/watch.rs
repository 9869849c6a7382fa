//! Changes of a directory as they happen.

use std::fmt::Debug;
use std::time::Duration;

use crate::{Error, Name, Record};

/// What happens to a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The name is published, for the first time or with another record.
    Published(Name, Record),
    /// The name is withdrawn, or has vanished with its lease.
    Withdrawn(Name),
}

/// The present state of a directory, then every change. Made by [`Directory::watch`](crate::Directory::watch).
///
/// It survives the loss of a server and of its history: what was missed is told as changes. Of several changes of one name in
/// such a time only the last is told.
#[derive(Debug)]
pub struct Watch(Box<dyn Changes>);

/// Where changes come from.
pub(crate) trait Changes: Debug + Send {
    /// See [`Watch::next`].
    fn next(&mut self, timeout: Duration) -> Result<Option<Change>, Error>;
}

impl Watch {
    pub(crate) fn new(changes: Box<dyn Changes>) -> Self {
        Self(changes)
    }

    /// Waits for the next change; `None` after `timeout` without one.
    ///
    /// # Errors
    /// Those of [`Directory::look_up`](crate::Directory::look_up). The watch goes on: the next call tries again, and tells what
    /// has changed meanwhile. A server that is gone is no error here.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Change>, Error> {
        self.0.next(timeout)
    }
}
