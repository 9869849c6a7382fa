//! How the bytes of a queue pair reach its peer.

use std::sync::Arc;

use super::copier::Copier;
use super::far_end::{FarView, Here};
use super::link::Link;
use super::same_host::SameHost;
use super::tcp::way::TcpWay;
use super::work::{Step, Work};
use crate::fabric::{PathKind, Paths};

/// The way to the peer, chosen when the queue pair connects.
#[derive(Debug)]
pub(super) enum Transport {
    InProcess(Box<Copier>),
    SameHost(Box<SameHost>),
    Tcp(TcpWay),
}

/// Tells the paths of a transport, without the lock under which that works.
#[derive(Clone, Debug)]
pub(super) enum PathsNow {
    /// They stay what they are.
    Fixed(Paths),
    /// A direction that the kernel comes to deny takes TCP.
    OfLink(Arc<Link>),
}

impl Transport {
    /// Carries out what the budget allows.
    pub(super) fn advance(&mut self, work: &mut Work<'_>) -> Step {
        match self {
            Self::InProcess(in_process) => in_process.advance(work),
            Self::SameHost(same_host) => same_host.advance(work),
            Self::Tcp(way) => way.advance(work),
        }
    }

    /// The other end, where the initiator copies by itself.
    pub(super) fn far_view(&self) -> Option<FarView> {
        match self {
            Self::InProcess(in_process) => Some(in_process.far_view()),
            Self::SameHost(same_host) => Some(same_host.far_view()),
            Self::Tcp(_) => None,
        }
    }

    /// The other end, if it is in this process.
    pub(super) fn here(&self) -> Option<&Here> {
        match self {
            Self::InProcess(in_process) => in_process.here(),
            Self::SameHost(_) | Self::Tcp(_) => None,
        }
    }

    pub(super) fn paths(&self) -> PathsNow {
        match self {
            Self::InProcess(_) => PathsNow::Fixed(Paths::both(PathKind::InProcess)),
            Self::SameHost(same_host) if same_host.only_mapped() => {
                PathsNow::Fixed(Paths::both(PathKind::Shared))
            }
            Self::SameHost(same_host) => PathsNow::OfLink(Arc::clone(same_host.link())),
            Self::Tcp(_) => PathsNow::Fixed(Paths::both(PathKind::Tcp)),
        }
    }
}

impl PathsNow {
    /// The paths now.
    pub(super) fn get(&self) -> Paths {
        match self {
            Self::Fixed(paths) => *paths,
            Self::OfLink(link) => link.paths(),
        }
    }
}
