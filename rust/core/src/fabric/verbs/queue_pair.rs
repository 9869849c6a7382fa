//! Reliable connected queue pairs.
#![allow(unsafe_code, reason = "calls libibverbs")]

use std::ffi::c_int;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::completion_queue::RawCompletionQueue;
use super::context::{QueuePairMarks, VerbsContext};
use super::creation::Granted;
use super::failure_reports::FailureReports;
use super::port::{LocalPort, mtu_bytes};
use super::send_list::{LONGEST, SendList};
use super::sys::{
    PostSend, errno_of, ibv_qp, ibv_qp_attr_mask as mask, ibv_qp_cap, ibv_qp_init_attr, ibv_qp_type,
    ibv_send_wr, last_errno,
};
use super::transitions::{self, QueuePairSettings, Transition, no_attributes, path_mtu};
use crate::events::Waiter;
use crate::fabric::{
    Batch, Connecting, FabricError, PathKind, PathOptions, Paths, Posted, QpAddress, QueuePair,
    QueuePairCaps, WorkQueue, WorkRequest, link_name,
};

/// The library's queue pair. Keeps the completion queue and the context alive.
#[derive(Debug)]
pub(super) struct RawQueuePair {
    raw: NonNull<ibv_qp>,
    queue: Arc<RawCompletionQueue>,
    /// That was tried: it is not to be used any more.
    is_destroyed: bool,
}

// SAFETY: verbs calls on a queue pair may come from any thread.
unsafe impl Send for RawQueuePair {}

impl RawQueuePair {
    /// Creates one in RESET. An error is the library's errno.
    pub(super) fn create(queue: &Arc<RawCompletionQueue>, caps: &QueuePairCaps) -> Result<Self, i32> {
        let context = &queue.context;
        let mut attributes = init_attributes(queue, caps);
        // SAFETY: domain and completion queue are alive.
        let raw = unsafe { (context.library.ibv_create_qp)(context.domain.as_ptr(), &raw mut attributes) };
        let raw = NonNull::new(raw).ok_or_else(last_errno)?;
        Ok(Self { raw, queue: Arc::clone(queue), is_destroyed: false })
    }

    fn number(&self) -> u32 {
        // SAFETY: the queue pair is alive.
        unsafe { self.raw.as_ref().qp_num }
    }

    /// What was granted, which may be less than was `asked` for. A driver that says 0 requests or entries does not say.
    fn caps(&self, asked: &QueuePairCaps) -> Result<QueuePairCaps, FabricError> {
        let mut granted = init_attributes(&self.queue, asked);
        let mut ignored = no_attributes();
        let context = &self.queue.context;
        // SAFETY: the queue pair is alive; the library fills both structures.
        let code = unsafe {
            (context.library.ibv_query_qp)(
                self.raw.as_ptr(),
                &raw mut ignored,
                mask::IBV_QP_CAP.0 as c_int,
                &raw mut granted,
            )
        };
        context.check("ibv_query_qp", code)?;
        let said = |granted: u32, asked: u32| if granted == 0 { asked } else { granted };
        Ok(QueuePairCaps {
            send_depth: said(granted.cap.max_send_wr, asked.send_depth),
            max_sge: said(granted.cap.max_send_sge, asked.max_sge),
            max_inline: granted.cap.max_inline_data,
        })
    }
}

impl RawQueuePair {
    /// Destroys it, once. That of a device that was removed counts as destroyed.
    fn destroy(&mut self) -> Result<(), FabricError> {
        if std::mem::replace(&mut self.is_destroyed, true) {
            return Ok(());
        }
        let context = &self.queue.context;
        // SAFETY: made by this library, destroyed once, and not used after that. Blocks until the library's events on it are
        // acknowledged, which `VerbsContext::next_event` does before it returns.
        let code = unsafe { (context.library.ibv_destroy_qp)(self.raw.as_ptr()) };
        match context.check("ibv_destroy_qp", code) {
            // The kernel has destroyed what a device had that was removed.
            Err(FabricError::Call { errno: libc::EIO | libc::ENODEV | libc::ENXIO, .. }) => Ok(()),
            destroyed => destroyed.inspect_err(|error| {
                tracing::warn!("cannot destroy a queue pair, which leaks: {error}");
            }),
        }
    }
}

impl Drop for RawQueuePair {
    fn drop(&mut self) {
        // The error is in the log.
        let _ = self.destroy();
    }
}

/// A queue pair.
pub(super) struct VerbsQueuePair {
    raw: RawQueuePair,
    post_send: PostSend,
    list: SendList,
    marks: Arc<QueuePairMarks>,
    connected: bool,
    caps: QueuePairCaps,
    port: LocalPort,
    settings: QueuePairSettings,
    failures: FailureReports,
}

/// The library's error for a list that it did not accept completely.
struct Refusal {
    code: c_int,
    /// The first request that it did not accept; null if it accepted all.
    request: *mut ibv_send_wr,
}

// SAFETY: the list's pointers are to its own slots, and those into a caller's entries are used within the call that sets them
// only; the rest is Send by itself.
unsafe impl Send for VerbsQueuePair {}

impl VerbsQueuePair {
    /// Creates a queue pair on `queue`, with `wanted` or as much of it as the device grants, and moves it to INIT on `port`.
    pub(super) fn create(
        queue: &Arc<RawCompletionQueue>,
        wanted: &QueuePairCaps,
        granted: &Granted,
        port: LocalPort,
        settings: QueuePairSettings,
        failures: FailureReports,
    ) -> Result<Self, FabricError> {
        let context = Arc::clone(&queue.context);
        // SAFETY: the context is open.
        let post_send = unsafe { (*context.raw.as_ptr()).ops.post_send }
            .ok_or_else(|| FabricError::Unsupported(format!("{} cannot post requests", context.name)))?;
        let created = granted.create(wanted, |asked| RawQueuePair::create(queue, asked));
        let (raw, asked) = created.map_err(|errno| {
            FabricError::call("ibv_create_qp", &context.name, errno).with_hint(&format!(
                "asked for {} requests of {} entries each, and less; fewer queue pairs or a smaller depth may fit, and \
                 ENOMEM may also mean RLIMIT_MEMLOCK",
                wanted.send_depth, wanted.max_sge
            ))
        })?;
        let caps = raw.caps(&asked)?;
        let marks = context.add_queue_pair(raw.number(), &port);
        let list = SendList::new(caps.max_sge);
        // From here on `drop` takes it out of the context's table.
        let connected = false;
        let mut pair = Self { raw, post_send, list, marks, connected, caps, port, settings, failures };
        pair.initialise()?;
        Ok(pair)
    }

    fn context(&self) -> &VerbsContext {
        &self.raw.queue.context
    }

    fn number(&self) -> u32 {
        self.raw.number()
    }

    fn initialise(&mut self) -> Result<(), FabricError> {
        let transition = self.settings.to_init(&self.port);
        self.modify("ibv_modify_qp to INIT", transition).map_err(|error| {
            error.with_hint(&format!(
                "is FLAGCX_IB_PKEY={} an index of the port's table?",
                self.settings.pkey_index
            ))
        })
    }

    fn ready_to_receive(&mut self, peer: &QpAddress, options: &PathOptions) -> Result<(), FabricError> {
        let transition = self.settings.to_rtr(&self.port, peer, options)?;
        self.modify("ibv_modify_qp to RTR", transition).map_err(|error| {
            error.with_hint(&format!(
                "peer {} (LID {}), local GID index {} ({}), path MTU {}: can this port reach that address?",
                peer.ip(),
                peer.lid,
                self.port.gid.index,
                self.port.gid.reason,
                mtu_bytes(path_mtu(&self.port, peer)),
            ))
        })
    }

    fn ready_to_send(&mut self, options: &PathOptions) -> Result<(), FabricError> {
        self.modify("ibv_modify_qp to RTS", self.settings.to_rts(options)).map_err(|error| {
            error.with_hint(&format!(
                "FLAGCX_IB_TIMEOUT={} must be 0..31, FLAGCX_IB_RETRY_CNT={} 0..7",
                self.settings.timeout, self.settings.retry_count
            ))
        })
    }

    fn modify(
        &self,
        operation: &'static str,
        (mut attributes, fields): Transition,
    ) -> Result<(), FabricError> {
        let context = self.context();
        // SAFETY: the queue pair is alive; the library reads the attributes that `fields` names.
        let code = unsafe {
            (context.library.ibv_modify_qp)(self.raw.raw.as_ptr(), &raw mut attributes, fields.0 as c_int)
        };
        context.check(operation, code)
    }

    /// Posts a batch of one request, as small transfers are, without the setup for lists.
    #[inline]
    fn post_one(&mut self, batch: &Batch<'_>, request: &WorkRequest) -> Posted {
        if !self.list.fill_one(batch, request) {
            return Posted::cut(0, libc::EINVAL);
        }
        match self.post_filled() {
            Ok(()) => Posted { accepted: 1, errno: None },
            Err(refusal) => self.refused(refusal, 1),
        }
    }

    // Not inlined: a post of one request would save and restore the registers that this needs.
    #[inline(never)]
    fn post_list(&mut self, batch: &Batch<'_>) -> Posted {
        let filled = self.list.fill(batch);
        if filled > 0
            && let Err(refusal) = self.post_filled()
        {
            return self.refused(refusal, filled);
        }
        if filled < batch.requests.len() { Posted::cut(filled, libc::EINVAL) } else { Posted::all(batch) }
    }

    /// Posts the filled list.
    #[inline(always)]
    fn post_filled(&mut self) -> Result<(), Refusal> {
        let mut request = null_mut();
        // SAFETY: the queue pair is alive. The chain is of live slots, ends in null, and each slot's entries lie
        // within the batch's, which outlives the call; the library keeps none of these pointers. That an inline
        // request's addresses are readable is promised by the maker of the request.
        let code = unsafe { (self.post_send)(self.raw.raw.as_ptr(), self.list.head(), &raw mut request) };
        if code == 0 { Ok(()) } else { Err(Refusal { code, request }) }
    }

    #[cold]
    fn refused(&mut self, refusal: Refusal, filled: usize) -> Posted {
        let errno = errno_of(refusal.code);
        if refusal.request.is_null() {
            // The library accepted the list and could not start the device: its requests end with a flush and must
            // not be posted again, which ENOMEM would cause.
            self.marks.broken.store(true, Ordering::Relaxed);
            return Posted::cut(filled, if errno == libc::ENOMEM { libc::EIO } else { errno });
        }
        Posted::cut(self.list.position(refusal.request, filled), errno)
    }

    /// Posts a batch that is longer than the library's list. The last request of each list is signaled: additional
    /// completions, for which there is room, because each request may complete.
    #[cold]
    fn post_lists(&mut self, batch: &Batch<'_>) -> Posted {
        let mut accepted = 0;
        for requests in batch.requests.chunks(LONGEST) {
            let posted = self.post_list(&Batch { first_id: batch.id(accepted), requests, ..*batch });
            accepted += posted.accepted;
            if posted.errno.is_some() {
                return Posted { accepted, errno: posted.errno };
            }
        }
        Posted { accepted, errno: None }
    }

    fn refuse_unlike(&self, peer: &QpAddress) -> Result<(), FabricError> {
        // 0 comes from a port that does not know its link layer: the address decides.
        let reason = if peer.link_layer != 0 && peer.link_layer != self.port.link_layer {
            let (theirs, ours) = (link_name(peer.link_layer), link_name(self.port.link_layer));
            format!("it offers {theirs}, {} port {} is {ours}", self.context().name, self.port.number)
        } else if mtu_bytes(peer.mtu) == 0 {
            format!("it offers the MTU number {}, expected 1 (256 bytes) to 5 (4096)", peer.mtu)
        } else {
            return Ok(());
        };
        Err(FabricError::Peer { peer: peer.ip().to_string(), reason })
    }

    /// INIT to RTS.
    fn make_ready(&mut self, peer: &QpAddress, path: &PathOptions) -> Result<(), FabricError> {
        self.refuse_unlike(peer)?;
        if Instant::now() >= path.deadline {
            return Err(FabricError::TimedOut {
                operation: "connecting a queue pair",
                detail: format!(": peer {}", peer.ip()),
            });
        }
        self.ready_to_receive(peer, path)?;
        self.ready_to_send(path)?;
        self.connected = true;
        Ok(())
    }
}

impl QueuePair for VerbsQueuePair {
    fn address(&self) -> QpAddress {
        QpAddress {
            qpn: self.number(),
            gid: self.port.gid.gid,
            port: self.port.number,
            link_layer: self.port.link_layer,
            lid: u32::from(self.port.lid),
            mtu: self.port.mtu,
        }
    }

    fn connect_with<'a>(
        &'a mut self,
        peer: &'a QpAddress,
        path: &'a PathOptions,
        _: &'a Waiter,
    ) -> Connecting<'a> {
        Box::pin(async move { self.make_ready(peer, path) })
    }
}

impl WorkQueue for VerbsQueuePair {
    fn destroy(mut self: Box<Self>) -> Result<(), FabricError> {
        // Before it is destroyed: its number may be another one's then.
        self.context().remove_queue_pair(self.number());
        self.raw.destroy()
    }

    fn caps(&self) -> QueuePairCaps {
        self.caps
    }

    fn post_empty(&mut self, id: u64, remote: (u64, u32)) -> Posted {
        if !self.connected {
            return Posted::cut(0, libc::EINVAL);
        }
        self.list.fill_empty(id, remote);
        match self.post_filled() {
            Ok(()) => Posted { accepted: 1, errno: None },
            Err(refusal) => self.refused(refusal, 1),
        }
    }

    fn post(&mut self, batch: &Batch<'_>) -> Posted {
        if !self.connected {
            // Libraries handle a request before RTS in different ways, none of them useful.
            return if batch.requests.is_empty() { Posted::all(batch) } else { Posted::cut(0, libc::EINVAL) };
        }
        match batch.requests {
            [request] => self.post_one(batch, request),
            requests if requests.len() <= LONGEST => self.post_list(batch),
            _ => self.post_lists(batch),
        }
    }

    fn set_error(&mut self) -> Result<(), FabricError> {
        self.marks.broken.store(true, Ordering::Relaxed);
        self.modify("ibv_modify_qp to ERROR", transitions::to_error())
    }

    fn is_broken(&self) -> bool {
        self.marks.broken.load(Ordering::Relaxed)
    }

    fn has_refused(&self) -> bool {
        self.marks.refused.load(Ordering::Relaxed)
    }

    fn names_failed_request(&self) -> bool {
        self.failures.name_the_request
    }

    fn path_fails_as_local(&self) -> bool {
        self.failures.path_as_local
    }

    fn paths(&self) -> Paths {
        Paths::both(if self.connected { PathKind::Rdma } else { PathKind::None })
    }
}

impl Drop for VerbsQueuePair {
    fn drop(&mut self) {
        if !self.raw.is_destroyed {
            // Before it is destroyed: its number may be another one's then.
            self.context().remove_queue_pair(self.number());
        }
    }
}

impl std::fmt::Debug for VerbsQueuePair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerbsQueuePair")
            .field("device", &self.context().name)
            .field("number", &self.number())
            .field("connected", &self.connected)
            .field("caps", &self.caps)
            .finish_non_exhaustive()
    }
}

fn init_attributes(queue: &RawCompletionQueue, caps: &QueuePairCaps) -> ibv_qp_init_attr {
    ibv_qp_init_attr {
        qp_context: null_mut(),
        send_cq: queue.cq.as_ptr(),
        recv_cq: queue.cq.as_ptr(),
        srq: null_mut(),
        cap: ibv_qp_cap {
            max_send_wr: caps.send_depth,
            // No receive is ever posted; one is the least that every driver takes.
            max_recv_wr: 1,
            max_send_sge: caps.max_sge,
            max_recv_sge: 1,
            max_inline_data: caps.max_inline,
        },
        qp_type: ibv_qp_type::IBV_QPT_RC,
        sq_sig_all: 0,
    }
}
