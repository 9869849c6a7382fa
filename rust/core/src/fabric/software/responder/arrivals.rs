//! Connections on their way from the event loop, which has accepted them, to the data thread.

use crate::fabric::software::device_core::Core;
use crate::fabric::software::tcp::server::Server;
use crate::sync::{Mutex, lock};

/// Filled by the task that accepts, emptied by the data thread.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<Vec<Server>>);

impl Arrivals {
    /// Lets the data thread of `core` serve a connection.
    pub(super) fn add(&self, core: &Core, server: Server) {
        lock(&self.0).push(server);
        core.responder.notify();
    }

    /// What was added since the last call.
    pub(super) fn take(&self) -> Vec<Server> {
        std::mem::take(&mut *lock(&self.0))
    }
}
