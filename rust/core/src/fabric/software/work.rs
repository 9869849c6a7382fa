//! What the three ways to move bytes have in common.

use std::time::{Duration, Instant};

use super::endpoint::Endpoint;
use super::faults::Faults;
use super::region::RegionTable;
use super::send_queue::{QueuedRequest, SendQueue};
use super::socket_watch::News;
use super::table::{Counterpart, Pinned, RegionView, Right, Violation};
use crate::fabric::{CompletionStatus, MAX_SGE, Opcode};

/// Bytes that one call of `poll` may copy.
pub(super) const POLL_BYTES: u64 = 1 << 20;
/// Requests that one call of `poll` may carry out.
const POLL_REQUESTS: u64 = 512;
/// Largest message of one request.
pub(super) const MAX_MESSAGE: u32 = 1 << 30;
/// How long a request waits for a peer that has not connected its side yet.
pub(super) const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How soon it looks again whether the peer has: an eighth of the time that it has waited already, within these.
const SHORTEST_LOOK: Duration = Duration::from_micros(50);
const LONGEST_LOOK: Duration = Duration::from_millis(2);

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
    /// Where the requests end that it may look at.
    pub(super) end: u64,
    pub(super) faults: &'a mut Faults,
    pub(super) budget: &'a mut Budget,
    /// What is known of its socket.
    pub(super) news: News,
}

impl<'a> Work<'a> {
    /// The `index`-th request ever posted, if it is there and before the end.
    pub(super) fn request(&self, index: u64) -> Option<&'a QueuedRequest> {
        if index < self.end { self.queue.get(index) } else { None }
    }
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
    /// Nothing to do before this time.
    Later(Instant),
    /// The completion queue's descriptor tells when there is more to do.
    Blocked,
    /// So it does, and nothing is left to be sent: another turn may look for the answer meanwhile.
    Awaiting,
    /// The next request failed.
    Failed(CompletionStatus),
}

/// Regions that a [`PinSet`] holds at a time: enough for any one request.
const PINS: usize = MAX_SGE;

/// The regions in use by one batch, each pinned once, at most `N`. Dropping it releases them.
#[derive(Debug)]
pub(super) struct PinSet<'a, const N: usize = PINS> {
    view: RegionView<'a>,
    pins: [Option<Pinned<'a>>; N],
    /// Where the region used last is: the next request is likely to use it again.
    last: usize,
}

/// Why a [`PinSet`] does not give access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unpinned {
    /// The key or the range does not fit.
    Violation(Violation),
    /// The batch uses as many regions as the set holds: carry it out first.
    Full,
}

impl From<Violation> for Unpinned {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl<'a, const N: usize> PinSet<'a, N> {
    pub(super) fn new(view: RegionView<'a>) -> Self {
        Self { view, pins: [const { None }; N], last: 0 }
    }

    /// [`PinSet::checked`], which answers whether an access of its owner's process cannot fault.
    pub(super) fn check(
        &mut self,
        key: u32,
        address: u64,
        length: u64,
        right: Right,
    ) -> Result<bool, Unpinned> {
        Ok(self.checked(key, address, length, right)?.cannot_fault())
    }

    /// Pins the region of `key`, if it is not yet, and checks that `length` bytes at `address` may be used so.
    pub(super) fn checked(
        &mut self,
        key: u32,
        address: u64,
        length: u64,
        right: Right,
    ) -> Result<&Pinned<'a>, Unpinned> {
        let pinned = self.get(key)?;
        pinned.check(address, length, right)?;
        Ok(pinned)
    }

    /// Adds a region that was pinned elsewhere. False: the set is full.
    pub(super) fn adopt(&mut self, pinned: Pinned<'a>) -> bool {
        self.insert(pinned).is_ok()
    }

    /// False once the owner of one of the regions has begun to revoke it.
    pub(super) fn all_live(&self) -> bool {
        self.pins.iter().flatten().all(Pinned::is_live)
    }

    fn get(&mut self, key: u32) -> Result<&Pinned<'a>, Unpinned> {
        let is_it =
            |pin: &Option<Pinned<'_>>| pin.as_ref().is_some_and(|pin| pin.key() == key && pin.is_live());
        if !self.pins.get(self.last).is_some_and(is_it) {
            self.last = match self.pins.iter().position(is_it) {
                Some(place) => place,
                None => self.insert(self.view.pin(key)?)?,
            };
        }
        self.pins.get(self.last).and_then(Option::as_ref).ok_or(Unpinned::Violation(Violation::UnknownKey))
    }

    fn insert(&mut self, pinned: Pinned<'a>) -> Result<usize, Unpinned> {
        let place = self.pins.iter().position(Option::is_none).ok_or(Unpinned::Full)?;
        if let Some(slot) = self.pins.get_mut(place) {
            *slot = Some(pinned);
        }
        Ok(place)
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
            Counterpart::NotYet => {
                let now = Instant::now();
                let waited = now - *self.since.get_or_insert(now);
                if waited >= CONNECT_PATIENCE {
                    return Some(Next::Failed(CompletionStatus::RetryExceeded));
                }
                Some(Next::Later(look_again(now - waited, now)))
            }
        }
    }
}

/// When to look again for something that nothing tells of, after a wait since `since`: often at first.
pub(super) fn look_again(since: Instant, now: Instant) -> Instant {
    let waited = now.saturating_duration_since(since);
    now + (waited / 8).clamp(SHORTEST_LOOK, LONGEST_LOOK)
}

/// What a request needs of its local and of its remote range.
pub(super) fn rights(opcode: Opcode) -> (Right, Right) {
    match opcode {
        Opcode::Write => (Right::LocalRead, Right::RemoteWrite),
        Opcode::Read => (Right::LocalWrite, Right::RemoteRead),
    }
}
