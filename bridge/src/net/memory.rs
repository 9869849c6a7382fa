//! Registration. An mhandle names a region of its device's context.
#![allow(unsafe_code, reason = "registers memory that the C++ caller promises to keep mapped")]

use std::time::Instant;

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use flagcx_p2p::internals::fabric::{Access, DmaBuf};
use flagcx_p2p::internals::fork::PerProcess;
use flagcx_p2p::internals::memory::{MemoryKind, RegionId};

use super::answer::{NetError, answer};
use super::devices::device;
use super::ffi::{Answer, MemoryHandle, Range};

/// # Safety
/// The range stays mapped until it is deregistered, and the caller expects peers to change it at any time.
pub(super) unsafe fn register_memory(device: i32, range: &Range, out: &mut MemoryHandle) -> Answer {
    answer("regMr", register_range(device, range), |handle| *out = handle)
}

fn register_range(index: i32, range: &Range) -> Result<MemoryHandle, NetError> {
    let registry = &device(index)?.context()?.registry;
    let kind = if range.host_memory { MemoryKind::Host } else { MemoryKind::Probe };
    let access = Access { relaxed_ordering: range.relaxed_ordering, ..Access::FULL };
    let dma_buf = (range.dma_buf >= 0).then_some(DmaBuf { fd: range.dma_buf, offset: range.offset });
    let whole = (range.address as u64, range.size as u64);
    let id = registry.register_apart(whole, kind, access, false, dma_buf, None)?;
    let snapshot = registry.snapshot();
    let region = snapshot
        .by_id(id)
        .ok_or_else(|| NetError::internal("internal error: the region is not registered"))?;
    Ok(MemoryHandle {
        base: region.address,
        lkey: region.lkey(),
        rkey: region.rkey(),
        region: id.0,
        device: index,
    })
}

/// Ends a registration. Waits for transfers in flight on it, at most for their deadline.
pub(super) fn deregister_memory(handle: &MemoryHandle) -> Answer {
    answer("deregMr", deregister_region(handle), drop)
}

fn deregister_region(handle: &MemoryHandle) -> Result<(), NetError> {
    let context = device(handle.device)?.context()?;
    let unknown = |()| NetError::invalid(format_args!("region {} is not registered", handle.region));
    let Some(region) = context.registry.remove(RegionId(handle.region)).map_err(unknown)? else {
        return Ok(());
    };
    match context.retire(vec![region], Instant::now()) {
        true => Ok(()),
        false => Err(NetError::internal("a peer still uses the memory, which must stay mapped")),
    }
}

/// The addresses of the mhandles that were given out and not taken back: what is freed is not looked into to find that out.
static LIVE: PerProcess<Mutex<HashSet<usize>>> = PerProcess::new(Mutex::default);

/// An mhandle is given out.
pub(super) fn keep_handle(address: usize) {
    live().insert(address);
}

/// An mhandle is taken back; false if it is none of this process, or not any more.
pub(super) fn take_handle(address: usize) -> bool {
    live().remove(&address)
}

fn live() -> MutexGuard<'static, HashSet<usize>> {
    LIVE.get().lock().unwrap_or_else(PoisonError::into_inner)
}
