//! The queue pair at the other end of a way by copies: in this process, or in another one of this host.

use std::sync::Arc;

use super::address_space::{AddressSpace, CheckedRange};
use super::device_core::Core;
use super::endpoint::Endpoint;
use super::link::Link;
use super::link_messages::{QueuePairEvent, QueuePairNotice};
use super::questions::Resolved;
use super::table::{Counterpart, Pinned, RegionView, Violation};
use super::work::{Next, PinSet};
use crate::fabric::{CompletionStatus, Opcode, PathKind};

/// The other end.
#[derive(Debug)]
pub(super) enum FarEnd {
    Here(Here),
    OtherProcess(OtherProcess),
}

/// A queue pair of this process.
#[derive(Debug)]
pub(super) struct Here {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) device: Arc<Core>,
}

/// A queue pair of another process of this host.
#[derive(Debug)]
pub(super) struct OtherProcess {
    pub(super) link: Arc<Link>,
    /// The number of our queue pair.
    pub(super) own: u32,
    /// Where the counterpart stands in the peer's queue pair table, and its number.
    pub(super) slot: usize,
    pub(super) counterpart: u32,
    /// Cut by an ordered fault.
    pub(super) closed: bool,
    /// The path that the operator wants and no other.
    pub(super) forced: Option<PathKind>,
}

/// The other end as threads see it that copy without the lock of the queue pair. Dropping it tells the peer nothing: that is
/// for [`OtherProcess`] alone.
#[derive(Debug)]
pub(super) struct FarView {
    memory: FarMemory,
    counterpart: Shown,
}

/// Where a counterpart says how it stands.
#[derive(Debug)]
enum Shown {
    Here(Arc<Endpoint>),
    /// Its slot in the table of its process, and its number.
    Table(usize, u32),
}

/// The memory of the other end, kept reachable while a batch is copied.
#[derive(Clone, Debug)]
pub(super) enum FarMemory {
    Here(Arc<Core>),
    /// With the path that the operator wants and no other.
    OtherProcess(Arc<Link>, Option<PathKind>),
}

impl FarEnd {
    pub(super) fn memory(&self) -> FarMemory {
        match self {
            Self::Here(here) => FarMemory::Here(Arc::clone(&here.device)),
            Self::OtherProcess(other) => FarMemory::OtherProcess(Arc::clone(&other.link), other.forced),
        }
    }

    /// What threads need of it that copy without the lock of the queue pair.
    pub(super) fn view(&self) -> FarView {
        let counterpart = match self {
            Self::Here(here) => Shown::Here(Arc::clone(&here.endpoint)),
            Self::OtherProcess(other) => Shown::Table(other.slot, other.counterpart),
        };
        FarView { memory: self.memory(), counterpart }
    }

    /// How it stands towards `endpoint`, which asks.
    pub(super) fn counterpart(&self, endpoint: &Endpoint) -> Counterpart {
        match self {
            Self::Here(here) => here.endpoint.counterpart(&endpoint.address),
            Self::OtherProcess(other) if other.closed || endpoint.is_peer_gone() => Counterpart::Gone,
            Self::OtherProcess(other) => {
                let entry = other.link.queue_pair(other.slot);
                entry.map_or(Counterpart::Gone, |entry| entry.counterpart(other.counterpart, endpoint.qpn()))
            }
        }
    }

    /// Cuts the way to it, as an ordered fault wants.
    pub(super) fn cut(&mut self, endpoint: &Endpoint) {
        match self {
            Self::Here(here) => here.endpoint.set_peer_gone(),
            Self::OtherProcess(other) => other.closed = true,
        }
        endpoint.set_peer_gone();
    }

    /// As with RC, the responder's queue pair goes down together with the initiator's.
    pub(super) fn report_violation(&self) {
        let other = match self {
            Self::Here(here) => return here.device.queue_pair_fatal(&here.endpoint),
            Self::OtherProcess(other) => other,
        };
        other.tell(QueuePairEvent::Violation);
    }
}

impl OtherProcess {
    fn tell(&self, event: QueuePairEvent) {
        self.link.tell(QueuePairNotice { event, sender: self.own, target: self.counterpart });
    }
}

/// The peer learns that the queue pair has failed or is destroyed, though it may have nothing to copy and so looks at no table.
impl Drop for OtherProcess {
    fn drop(&mut self) {
        self.tell(QueuePairEvent::Gone);
    }
}

impl FarView {
    pub(super) fn memory(&self) -> &FarMemory {
        &self.memory
    }

    /// Whether requests of `opcode` may be copied from or to that space.
    pub(super) fn allows(&self, opcode: Opcode, space: AddressSpace) -> bool {
        let is_denied = || self.memory.link().is_some_and(|link| link.denied().is_denied(opcode));
        !matches!(space, AddressSpace::Foreign(_)) || !self.memory.is_only_mapped() && !is_denied()
    }

    /// How it stands towards `endpoint`, which asks.
    pub(super) fn counterpart(&self, endpoint: &Endpoint) -> Counterpart {
        match (&self.counterpart, self.memory.link()) {
            (Shown::Here(here), _) => here.counterpart(&endpoint.address),
            _ if endpoint.is_peer_gone() => Counterpart::Gone,
            (Shown::Table(slot, number), Some(link)) => {
                let entry = link.queue_pair(*slot);
                entry.map_or(Counterpart::Gone, |entry| entry.counterpart(*number, endpoint.qpn()))
            }
            (Shown::Table(..), None) => Counterpart::Gone,
        }
    }
}

impl FarMemory {
    /// The space of its own addresses.
    pub(super) fn space(&self) -> AddressSpace {
        match self {
            Self::Here(_) => AddressSpace::Same,
            Self::OtherProcess(link, _) => AddressSpace::Foreign(link.pid()),
        }
    }

    /// Whether what is not mapped is not copied.
    pub(super) fn is_only_mapped(&self) -> bool {
        matches!(self, Self::OtherProcess(_, Some(PathKind::Shared)))
    }

    /// Where `length` bytes at `address` of the region `pinned` are copied from or to, until the pin is dropped. They were checked
    /// against the region. Takes no lock and makes no system call, but for a region that is to be mapped and is not yet.
    pub(super) fn locate(
        &self,
        pinned: &Pinned<'_>,
        address: u64,
        length: u64,
        opcode: Opcode,
    ) -> CheckedRange {
        match self {
            Self::Here(_) => {
                CheckedRange { space: AddressSpace::Same, address, cannot_fault: pinned.cannot_fault() }
            }
            Self::OtherProcess(link, forced) => {
                let mapped = match forced {
                    Some(PathKind::CrossMemory) => None,
                    _ => link.locate(pinned, address, length, opcode),
                };
                mapped.unwrap_or_else(|| CheckedRange {
                    space: AddressSpace::Foreign(link.pid()),
                    address,
                    cannot_fault: false,
                })
            }
        }
    }

    /// Its regions, as this process sees them.
    pub(super) fn view(&self) -> RegionView<'_> {
        match self {
            Self::Here(device) => device.regions.view(),
            Self::OtherProcess(link, _) => link.view(),
        }
    }

    /// The process that a batch is copied from or to; `None`: this one, which is there.
    pub(super) fn link(&self) -> Option<&Link> {
        match self {
            Self::Here(_) => None,
            Self::OtherProcess(link, _) => Some(link),
        }
    }

    /// Pins a region that this process sees.
    #[inline]
    pub(super) fn pin(&self, key: u32) -> Result<Pinned<'_>, Violation> {
        match self {
            Self::Here(device) => device.regions.view().pin(key),
            Self::OtherProcess(link, _) => link.pin(key),
        }
    }

    /// Adds a region that is not announced, if its process has shown it to this one already. False: it has not, or the set is
    /// full.
    pub(super) fn add_granted<'a, const N: usize>(&'a self, key: u32, remote: &mut PinSet<'a, N>) -> bool {
        let granted = self.link().and_then(|link| link.granted().pin(key).ok());
        granted.is_some_and(|pinned| remote.adopt(pinned))
    }

    /// Adds a region that is not announced, once its process has shown it to this one. False: the batch has no room for it.
    pub(super) fn resolve<'a>(&'a self, key: u32, remote: &mut PinSet<'a>) -> Result<bool, Next> {
        let denied = Next::Failed(CompletionStatus::RemoteAccess);
        let Some(link) = self.link() else { return Err(denied) };
        if let Ok(pinned) = link.granted().pin(key) {
            return Ok(remote.adopt(pinned));
        }
        match link.resolve(key) {
            Resolved::Granted => {
                link.granted().pin(key).map(|pinned| remote.adopt(pinned)).map_err(|_| denied)
            }
            Resolved::Absent => Err(denied),
            Resolved::NotYet(time) => Err(Next::Later(time)),
            Resolved::Never => Err(Next::Failed(CompletionStatus::RetryExceeded)),
        }
    }
}
