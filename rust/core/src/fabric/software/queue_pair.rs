//! The queue pair as its worker owns it: RC's states and order over whichever transport reaches the peer.

use std::sync::Arc;

use super::connect;
use super::device_core::Core;
use super::direct::Direct;
use super::endpoint::Endpoint;
use super::faults::Faults;
use super::incoming::Incoming;
use super::requester::Requester;
use super::send_queue::Label;
use super::shared_queue::SharedQueue;
use super::transport::PathsNow;
use crate::events::Waiter;
use crate::fabric::{
    Batch, Connecting, Device, DirectCopy, FabricError, Opcode, PathKind, PathOptions, Paths, Posted,
    QpAddress, QueuePair, QueuePairCaps, Sge, WorkQueue, WorkRequest,
};
use crate::sync::{MutexGuard, lock};

/// The handle that its worker owns.
#[derive(Debug)]
pub(super) struct SoftwareQueuePair {
    core: Arc<Core>,
    completions: Arc<SharedQueue>,
    requester: Arc<Requester>,
    caps: QueuePairCaps,
    /// Of `post`; the requester has its own for what comes after.
    faults: Faults,
    is_connected: bool,
    paths: PathsNow,
    /// Copies of the threads that start transfers; none while faults are to be injected into requests.
    direct: Option<Arc<Direct>>,
    /// Kept alive: its data thread serves the peer's requests to this queue pair.
    _device: Arc<dyn Device>,
}

impl SoftwareQueuePair {
    /// `make_faults`: the plan at work on this queue pair.
    pub(super) fn new(
        device: Arc<dyn Device>,
        completions: Arc<SharedQueue>,
        endpoint: Arc<Endpoint>,
        caps: QueuePairCaps,
        make_faults: impl Fn() -> Faults,
    ) -> Self {
        let core = Arc::clone(completions.device());
        let requester = Requester::new(Arc::clone(&core), endpoint, caps, make_faults());
        completions.attach(&requester);
        let paths = PathsNow::Fixed(Paths::both(PathKind::None));
        let faults = make_faults();
        Self {
            core,
            completions,
            requester,
            caps,
            faults,
            is_connected: false,
            paths,
            direct: None,
            _device: device,
        }
    }
}

impl QueuePair for SoftwareQueuePair {
    fn address(&self) -> QpAddress {
        self.requester.endpoint().address
    }

    fn connect_with<'a>(
        &'a mut self,
        peer: &'a QpAddress,
        path: &'a PathOptions,
        waiter: &'a Waiter,
    ) -> Connecting<'a> {
        Box::pin(async move {
            let (endpoint, sockets) = (self.requester.endpoint(), self.completions.sockets());
            let transport = connect::connect(&self.core, endpoint, sockets, peer, path, waiter).await?;
            self.paths = transport.paths();
            if !self.core.has_faults() {
                let direct = |far| Arc::new(Direct::new(Arc::clone(&self.core), Arc::clone(endpoint), far));
                self.direct = transport.far_view().map(direct);
            }
            self.requester.connect(transport);
            self.is_connected = true;
            Ok(())
        })
    }

    fn connects_by_commands(&self) -> bool {
        false
    }
}

impl WorkQueue for SoftwareQueuePair {
    fn caps(&self) -> QueuePairCaps {
        self.caps
    }

    /// Only queues: bytes move when the completion queue's progress is made.
    fn post(&mut self, batch: &Batch<'_>) -> Posted {
        let failed = self.requester.endpoint().is_error();
        let retired = self.requester.retired();
        let mut incoming = lock(self.requester.incoming());
        let mut posted = Posted { accepted: 0, errno: None };
        let mut owed = 0;
        for (index, request) in batch.requests.iter().enumerate() {
            let label = Label::of(batch, index);
            let answer = if !self.is_connected && !failed {
                Err(libc::EINVAL)
            } else if self.faults.refuses_post() {
                Err(libc::ENOMEM)
            } else {
                accept(&mut incoming, &mut self.faults, label, request, batch.entries, retired)
            };
            if let Err(errno) = answer {
                posted = Posted::cut(posted.accepted, errno);
                break;
            }
            posted.accepted += 1;
            // An unsignaled request is counted once it is found to be flushed.
            owed += u64::from(label.signaled);
        }
        drop(incoming);
        if posted.accepted > 0 {
            self.completions.enqueue(&self.requester, posted.accepted as u64, owed);
        }
        posted
    }

    fn post_empty(&mut self, id: u64, (remote_address, rkey): (u64, u32)) -> Posted {
        let request =
            WorkRequest { remote_address, rkey, first_sge: 0, origin: 0, sge_count: 1, inline: false };
        self.post(&Batch {
            opcode: Opcode::Write,
            first_id: id,
            signal_every: 1,
            requests: &[request],
            entries: &[Sge::default()],
            one_each: true,
        })
    }

    fn set_error(&mut self) -> Result<(), FabricError> {
        self.core.break_queue_pair(self.requester.endpoint());
        Ok(())
    }

    fn is_broken(&self) -> bool {
        self.requester.is_broken()
    }

    fn has_refused(&self) -> bool {
        self.requester.endpoint().has_refused()
    }

    fn paths(&self) -> Paths {
        self.paths.get()
    }

    fn error_text(&self) -> String {
        self.requester.endpoint().error_text().to_owned()
    }

    fn direct(&self) -> Option<Arc<dyn DirectCopy>> {
        self.direct.clone().map(|direct| direct as Arc<dyn DirectCopy>)
    }
}

fn accept(
    incoming: &mut MutexGuard<'_, Incoming>,
    faults: &mut Faults,
    label: Label,
    request: &WorkRequest,
    entries: &[Sge],
    retired: u64,
) -> Result<(), i32> {
    let answer = if faults.lies_about(incoming.accepted() + 1) {
        // Without bytes there is nothing to move, and nothing that could fail.
        let empty = WorkRequest { first_sge: 0, sge_count: 1, inline: false, ..*request };
        incoming.accept(label, &empty, &[Sge::default()], retired)
    } else {
        incoming.accept(label, request, entries, retired)
    };
    answer.map_err(|errno| errno.raw_os_error())
}

impl Drop for SoftwareQueuePair {
    /// Waits for the copy under way: after that nothing of the queue pair touches memory.
    fn drop(&mut self) {
        self.core.remove_queue_pair(self.requester.endpoint());
        if let Some(direct) = &self.direct {
            direct.close();
        }
        let rest = self.requester.close();
        self.completions.detach(&self.requester, &rest);
    }
}
