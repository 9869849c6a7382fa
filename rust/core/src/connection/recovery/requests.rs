//! What the rest of a connection asks its recovery to do with rails.

use std::sync::Arc;

use crate::control::RailRefusal;
use crate::events::Wakeup;
use crate::sync::{Mutex, lock};

/// One request. The task of the connection passes them to its machine, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::connection) enum RailRequest {
    /// Leader: make a rail, if its NICs reach each other.
    Add {
        /// Its number, 1 to 7.
        rail: usize,
        /// The NIC here, by its place in the list that was sent to the peer.
        own: u16,
        /// The peer's, by its place in its list.
        peer: u16,
        /// Lanes of the rail, 1 to 8.
        lanes: usize,
    },
    /// Leader: tell the follower that the rail that it has asked for is not made.
    Decline {
        /// The NIC here.
        own: u16,
        /// The peer's.
        peer: u16,
        /// Why.
        why: RailRefusal,
    },
    /// Follower: ask the leader for a rail of these NICs.
    Request {
        /// The NIC here.
        own: u16,
        /// The peer's.
        peer: u16,
    },
}

/// Requests that wait for the task of a connection. Any thread may add some, and never waits.
#[derive(Debug, Default)]
pub(in crate::connection) struct RailRequests {
    waiting: Mutex<Vec<RailRequest>>,
    wakeup: Arc<Wakeup>,
}

impl RailRequests {
    /// None yet; `wakeup` wakes the task.
    pub(in crate::connection) fn new(wakeup: Arc<Wakeup>) -> Self {
        Self { waiting: Mutex::default(), wakeup }
    }

    /// Leader: makes rail `rail` of NIC `own` here and NIC `peer` there, with `lanes` lanes, if they reach each other.
    /// Refusals are passed to [`Connection::rail_refused`](crate::connection::Connection::rail_refused), or to
    /// [`Connection::path_refused`](crate::connection::Connection::path_refused); otherwise its lanes become healthy one by one.
    pub(in crate::connection) fn add_rail(&self, rail: usize, own: u16, peer: u16, lanes: usize) {
        self.push(RailRequest::Add { rail, own, peer, lanes });
    }

    /// Follower: asks the leader for a rail of NIC `own` here and NIC `peer` there. It makes it, or tells that it does not:
    /// [`Connection::request_refused`](crate::connection::Connection::request_refused).
    pub(in crate::connection) fn request_rail(&self, own: u16, peer: u16) {
        self.push(RailRequest::Request { own, peer });
    }

    /// Leader: tells the follower that it does not get the rail of NIC `own` here and NIC `peer` there.
    pub(in crate::connection) fn decline(&self, own: u16, peer: u16, why: RailRefusal) {
        self.push(RailRequest::Decline { own, peer, why });
    }

    /// Those that wait.
    pub(super) fn take(&self) -> Vec<RailRequest> {
        std::mem::take(&mut *lock(&self.waiting))
    }

    fn push(&self, request: RailRequest) {
        lock(&self.waiting).push(request);
        self.wakeup.wake();
    }
}
