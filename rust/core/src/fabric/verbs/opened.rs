//! A device from its first use on: its context, and a trial of what the engine needs of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::completion_queue::{RawCompletionQueue, VerbsCompletionQueue};
use super::context::{VerbsContext, VerbsDeviceList};
use super::creation::{Granted, LEAST_DEPTH};
use super::queue_pair::RawQueuePair;
use super::sys::Library;
use crate::fabric::{FabricError, QueuePairCaps};

/// An open device.
#[derive(Debug)]
pub(super) struct OpenDevice {
    pub(super) context: Arc<VerbsContext>,
    /// What its queue pairs are granted.
    pub(super) granted: Granted,
    /// Completion queues that were created, beginning with a number of the process: it gives each one its vector. Written and
    /// read by threads that create them; it only spreads, so Relaxed.
    queues: AtomicU32,
}

impl OpenDevice {
    /// Opens the device called `name`, and creates a queue pair to see that it can. The queue pair is destroyed again.
    ///
    /// Some devices offer no reliable connected queue pairs, and say so in no attribute.
    pub(super) fn open(library: &'static Library, name: &str) -> Result<Self, FabricError> {
        let context = open_context(library, name)?;
        try_queue_pair(&context)?;
        // Several processes of a host begin at different vectors.
        let queues = AtomicU32::new(std::process::id());
        Ok(Self { context, granted: Granted::default(), queues })
    }

    /// A completion queue on the next of the device's completion vectors, so that the interrupts of several workers are
    /// handled by several processors.
    pub(super) fn create_completion_queue(
        &self,
        depth: u32,
        most: u32,
    ) -> Result<VerbsCompletionQueue, FabricError> {
        let vector = self.queues.fetch_add(1, Ordering::Relaxed) % self.context.completion_vectors();
        VerbsCompletionQueue::create(Arc::clone(&self.context), depth, most, vector)
    }
}

/// Entries of the trial's completion queue: `FLAGCX_P2P_CQ_DEPTH` where it is not set.
const TRIAL_COMPLETIONS: i32 = 4096;

/// A context of the device called `name`, as the library lists it now.
pub(super) fn open_context(library: &'static Library, name: &str) -> Result<Arc<VerbsContext>, FabricError> {
    VerbsDeviceList::read(library)?.open(name).unwrap_or_else(|| {
        Err(FabricError::call("ibv_open_device", name, libc::ENODEV)
            .with_hint("it was listed before: was it removed, or renamed?"))
    })
}

/// Creates a queue pair of the kind that the engine uses, and destroys it: as short as the engine's may become ([`LEAST_DEPTH`]), on
/// a completion queue as long as the engine's are, because a device may refuse shorter ones than any program uses.
pub(super) fn try_queue_pair(context: &Arc<VerbsContext>) -> Result<(), FabricError> {
    let most = context.query_device()?.max_cqe.max(1);
    let queue = Arc::new(RawCompletionQueue::create(Arc::clone(context), TRIAL_COMPLETIONS.min(most), 0)?);
    let caps = QueuePairCaps { send_depth: LEAST_DEPTH, max_sge: 1, max_inline: 0 };
    let Err(refusal) = RawQueuePair::create(&queue, &caps) else { return Ok(()) };
    let hint = match refusal {
        libc::EOPNOTSUPP | libc::ENOSYS | libc::EPROTONOSUPPORT => {
            "it offers no reliable connected (RC) queue pairs, as the EFA of Amazon does not, and cannot be used; \
             FLAGCX_IB_HCA names devices to use, FLAGCX_P2P_FABRIC=software does without"
        }
        _ => {
            "the first queue pair of this device, of 16 requests, was refused: are there queue pairs left (rdma resource), \
             and does RLIMIT_MEMLOCK (ulimit -l) allow pinned memory?"
        }
    };
    Err(FabricError::call("ibv_create_qp", &context.name, refusal).with_hint(hint))
}
