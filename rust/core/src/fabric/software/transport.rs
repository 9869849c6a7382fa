//! What the three ways to move bytes have in common.

use std::time::{Duration, Instant};

use super::endpoint::Endpoint;
use super::faults::Faults;
use super::region::RegionTable;
use super::send_queue::SendQueue;
use super::table::{Counterpart, Pinned, RegionView, Violation};
use crate::fabric::CompletionStatus;

/// Bytes that one call of `poll` may copy.
pub(super) const POLL_BYTES: u64 = 1 << 20;
/// Requests that one call of `poll` may carry out.
const POLL_REQUESTS: u64 = 512;
/// How long a request waits for a peer that has not connected its side yet.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// What is left of one call of `poll`.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) bytes: u64,
    pub(super) requests: u64,
}

impl Budget {
    pub(super) fn of_one_poll() -> Self {
        Self { bytes: POLL_BYTES, requests: POLL_REQUESTS }
    }

    pub(super) fn is_spent(&self) -> bool {
        self.bytes == 0 || self.requests == 0
    }
}

/// What a transport works with.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) regions: &'a RegionTable,
    pub(super) queue: &'a SendQueue,
    pub(super) faults: &'a mut Faults,
    pub(super) budget: &'a mut Budget,
}

/// How far a transport came: from `queue.executed` on, `executed` requests succeeded, and then:
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) executed: u64,
    pub(super) next: Next,
}

/// What comes after the requests that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing is left.
    Idle,
    /// More to do, which only polling advances.
    More,
    /// The completion queue's descriptor tells when there is more to do.
    Blocked,
    /// The next request failed.
    Failed(CompletionStatus),
}

/// Keeps the region used last pinned, for the next request is likely to use it again.
#[derive(Debug)]
pub(super) struct PinCache<'a> {
    view: RegionView<'a>,
    pinned: Option<Pinned<'a>>,
}

impl<'a> PinCache<'a> {
    pub(super) fn new(view: RegionView<'a>) -> Self {
        Self { view, pinned: None }
    }

    /// The region of `key`, pinned and live.
    pub(super) fn get(&mut self, key: u32) -> Result<&Pinned<'a>, Violation> {
        let hit = self.pinned.as_ref().is_some_and(|pinned| pinned.key() == key && pinned.is_live());
        if !hit {
            self.pinned = None;
            self.pinned = Some(self.view.pin(key)?);
        }
        self.pinned.as_ref().ok_or(Violation)
    }
}

/// Patience with a peer that has not connected its side yet.
#[derive(Debug, Default)]
pub(super) struct Patience {
    since: Option<Instant>,
}

impl Patience {
    /// `None`: go on. Otherwise what to do instead.
    pub(super) fn judge(&mut self, counterpart: Counterpart) -> Option<Next> {
        match counterpart {
            Counterpart::Ready => {
                self.since = None;
                None
            }
            Counterpart::Gone => Some(Next::Failed(CompletionStatus::RetryExceeded)),
            Counterpart::NotYet
                if self.since.get_or_insert_with(Instant::now).elapsed() < CONNECT_PATIENCE =>
            {
                Some(Next::More)
            }
            Counterpart::NotYet => Some(Next::Failed(CompletionStatus::RetryExceeded)),
        }
    }
}
