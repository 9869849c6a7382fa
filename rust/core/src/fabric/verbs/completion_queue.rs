//! Completion queues with a channel of their own.
#![allow(unsafe_code, reason = "calls libibverbs")]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use super::context::{VerbsContext, set_nonblocking};
use super::sys::{PollCq, ReqNotifyCq, ibv_comp_channel, ibv_cq, ibv_wc, ibv_wc_status, last_errno};
use crate::fabric::{Completion, CompletionQueue, CompletionStatus, FabricError, QueueHandle};

/// Completions polled from the library in one call.
const POLL_BATCH: usize = 64;

/// The library's queue and its channel, kept alive by the queue's owner and by every queue pair on it.
pub(super) struct RawCompletionQueue {
    pub(super) context: Arc<VerbsContext>,
    pub(super) cq: NonNull<ibv_cq>,
    channel: NonNull<ibv_comp_channel>,
}

impl std::fmt::Debug for RawCompletionQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawCompletionQueue").field("device", &self.context.name).finish_non_exhaustive()
    }
}

// SAFETY: verbs calls on a completion queue and its channel are thread-safe.
unsafe impl Send for RawCompletionQueue {}
// SAFETY: as above.
unsafe impl Sync for RawCompletionQueue {}

impl RawCompletionQueue {
    /// A queue of so many entries, with its interrupts on completion vector `vector`, or on the first where the device refuses
    /// that one.
    pub(super) fn create(context: Arc<VerbsContext>, depth: c_int, vector: u32) -> Result<Self, FabricError> {
        let library = context.library;
        // SAFETY: the context is open.
        let channel = unsafe { (library.ibv_create_comp_channel)(context.raw.as_ptr()) };
        let channel = NonNull::new(channel)
            .ok_or_else(|| FabricError::call("ibv_create_comp_channel", &context.name, last_errno()))?;
        // SAFETY: the channel was just made; the borrow of its fd ends with this statement.
        let nonblocking = set_nonblocking(unsafe { BorrowedFd::borrow_raw(channel.as_ref().fd) })
            .map_err(|errno| FabricError::call("fcntl on the completion channel", &context.name, errno));
        let cq = nonblocking.and_then(|()| {
            let on_vector = |vector: u32| {
                // SAFETY: context and channel are alive; the library checks the vector.
                NonNull::new(unsafe {
                    (library.ibv_create_cq)(
                        context.raw.as_ptr(),
                        depth,
                        null_mut(),
                        channel.as_ptr(),
                        vector as c_int,
                    )
                })
            };
            on_vector(vector)
                .or_else(|| on_vector(0).filter(|_| vector != 0))
                .ok_or_else(|| FabricError::call("ibv_create_cq", &context.name, last_errno()))
        });
        match cq {
            Ok(cq) => Ok(Self { context, cq, channel }),
            Err(error) => {
                // SAFETY: the channel is ours and no queue uses it.
                unsafe { (library.ibv_destroy_comp_channel)(channel.as_ptr()) };
                Err(error)
            }
        }
    }
}

impl Drop for RawCompletionQueue {
    fn drop(&mut self) {
        let library = self.context.library;
        // SAFETY: the queue pairs on it held an `Arc` to `self` and are gone; all events got were acknowledged.
        let codes = unsafe {
            let cq = (library.ibv_destroy_cq)(self.cq.as_ptr());
            (cq, (library.ibv_destroy_comp_channel)(self.channel.as_ptr()))
        };
        if codes != (0, 0) {
            tracing::warn!(device = %self.context.name, ?codes, "a completion queue could not be destroyed");
        }
    }
}

/// A completion queue.
pub(super) struct VerbsCompletionQueue {
    raw: Arc<RawCompletionQueue>,
    /// Copies of the context's entries: one load instead of three on every poll.
    poll_cq: PollCq,
    req_notify_cq: ReqNotifyCq,
    /// Where the library writes; kept in the queue to save 3 KiB of stack writes per poll.
    entries: Box<[MaybeUninit<ibv_wc>]>,
    /// Those of `entries` that `arm` found and no poll has returned yet.
    found: Range<usize>,
    depth: u32,
}

impl VerbsCompletionQueue {
    /// Creates a queue of at least `depth` entries; `most` is the device's limit.
    pub(super) fn create(
        context: Arc<VerbsContext>,
        depth: u32,
        most: u32,
        vector: u32,
    ) -> Result<Self, FabricError> {
        let wanted =
            c_int::try_from(depth).ok().filter(|_| (1..=most).contains(&depth)).ok_or_else(|| {
                FabricError::Unsupported(format!(
                    "a completion queue of {depth} entries was asked for, {} supports 1 to {most} (max_cqe); \
                 set FLAGCX_P2P_CQ_DEPTH",
                    context.name
                ))
            })?;
        // SAFETY: the context is open.
        let ops = unsafe { &(*context.raw.as_ptr()).ops };
        let (Some(poll_cq), Some(req_notify_cq)) = (ops.poll_cq, ops.req_notify_cq) else {
            return Err(FabricError::Unsupported(format!("{} cannot poll completions", context.name)));
        };
        let raw = Arc::new(RawCompletionQueue::create(context, wanted, vector)?);
        // SAFETY: the queue was just made.
        let granted = unsafe { raw.cq.as_ref().cqe };
        let entries = (0..POLL_BATCH).map(|_| MaybeUninit::uninit()).collect();
        let depth = u32::try_from(granted).unwrap_or(depth);
        Ok(Self { raw, poll_cq, req_notify_cq, entries, found: 0..0, depth })
    }
}

impl VerbsCompletionQueue {
    /// Polls up to `most` completions from the library into `entries`; returns how many.
    #[inline]
    fn take(&mut self, most: usize) -> Result<usize, FabricError> {
        let most = most.min(POLL_BATCH) as c_int;
        // SAFETY: the queue is alive, and `entries` has room for POLL_BATCH.
        let got = unsafe { (self.poll_cq)(self.raw.cq.as_ptr(), most, self.entries.as_mut_ptr().cast()) };
        usize::try_from(got).map_err(|_| FabricError::call("ibv_poll_cq", &self.raw.context.name, libc::EIO))
    }

    /// Translates `entries[from..]` into `out`, as far as both reach.
    ///
    /// # Safety
    /// The library has filled at least `out.len()` entries there.
    #[inline]
    unsafe fn translate(&self, from: usize, out: &mut [Completion]) {
        for (completion, entry) in out.iter_mut().zip(self.entries.iter().skip(from)) {
            // SAFETY: filled, as the caller promises.
            let entry = unsafe { entry.assume_init_ref() };
            completion.id = entry.wr_id;
            completion.status = CompletionStatus::Success;
            completion.vendor_error = 0;
            if entry.status != ibv_wc_status::IBV_WC_SUCCESS {
                completion.status = CompletionStatus::from_code(entry.status);
                completion.vendor_error = entry.vendor_err;
                self.raw.context.mark_broken(entry.qp_num);
            }
        }
    }

    #[cold]
    fn translate_found(&mut self, out: &mut [Completion]) -> usize {
        let count = self.found.len().min(out.len());
        let (out, _) = out.split_at_mut(count);
        // SAFETY: `arm` noted how many the library filled, and nothing has been written there since.
        unsafe { self.translate(self.found.start, out) };
        self.found.start += count;
        count
    }
}

impl CompletionQueue for VerbsCompletionQueue {
    fn poll(&mut self, out: &mut [Completion]) -> Result<usize, FabricError> {
        if !self.found.is_empty() {
            return Ok(self.translate_found(out));
        }
        let mut filled = 0;
        for chunk in out.chunks_mut(POLL_BATCH) {
            let got = match self.take(chunk.len()) {
                Ok(got) => got,
                // Completions polled before are returned first; the next call fails again.
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            };
            let whole = got >= chunk.len();
            let (chunk, _) = chunk.split_at_mut(got.min(chunk.len()));
            // SAFETY: the library has just filled `got` entries.
            unsafe { self.translate(0, chunk) };
            filled += got;
            if !whole {
                break;
            }
        }
        Ok(filled)
    }

    /// A completion from before the queue was armed raises no event, so this polls once afterwards. What it finds is
    /// kept for the next poll.
    fn arm(&mut self) -> Result<bool, FabricError> {
        if !self.found.is_empty() {
            return Ok(false);
        }
        // SAFETY: the queue is alive.
        let code = unsafe { (self.req_notify_cq)(self.raw.cq.as_ptr(), 0) };
        self.raw.context.check("ibv_req_notify_cq", code)?;
        self.found = 0..self.take(POLL_BATCH)?;
        Ok(self.found.is_empty())
    }

    fn acknowledge(&mut self) -> Result<(), FabricError> {
        let library = self.raw.context.library;
        let (mut cq, mut tag) = (null_mut(), null_mut());
        let mut events = 0;
        // SAFETY: channel and queue are alive, and the channel's fd is non-blocking; this queue is the only one on
        // its channel, so every event got is its own.
        let errno = unsafe {
            let errno = loop {
                if (library.ibv_get_cq_event)(self.raw.channel.as_ptr(), &raw mut cq, &raw mut tag) == 0 {
                    events += 1;
                    continue;
                }
                match last_errno() {
                    libc::EINTR => {}
                    errno => break errno,
                }
            };
            if events > 0 {
                (library.ibv_ack_cq_events)(self.raw.cq.as_ptr(), events);
            }
            errno
        };
        match errno {
            libc::EAGAIN => Ok(()),
            errno => Err(FabricError::call("ibv_get_cq_event", &self.raw.context.name, errno)),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the fd belongs to the channel, which lives as long as the borrow of `self`.
        unsafe { BorrowedFd::borrow_raw(self.raw.channel.as_ref().fd) }
    }

    fn depth(&self) -> u32 {
        self.depth
    }

    fn handle(&self) -> QueueHandle {
        QueueHandle::new(Arc::clone(&self.raw))
    }
}

impl std::fmt::Debug for VerbsCompletionQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerbsCompletionQueue")
            .field("device", &self.raw.context.name)
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}
