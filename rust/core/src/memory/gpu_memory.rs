//! Queries of the GPU runtime for registration.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::param::page_size;

use super::MemoryKind;
use crate::fabric::{DmaBuf, FabricError, whole_pages};
use crate::gpu::{self, DmaBufExport, GpuError, GpuRuntime, PointerKind, allocations};

/// The kind of memory at `address`; [`MemoryKind::Probe`] if the runtime cannot tell.
pub(super) fn probe(address: u64) -> MemoryKind {
    match gpu::runtime().pointer_kind(address) {
        Ok(PointerKind::Gpu(_)) => MemoryKind::Gpu,
        Ok(PointerKind::Host) => MemoryKind::Host,
        Ok(PointerKind::Unknown) => MemoryKind::Probe,
        Err(error) => {
            tracing::warn!(
                "cannot query the kind of memory at {address:#x}, it is registered as host memory: {error}"
            );
            MemoryKind::Host
        }
    }
}

/// Refuses a range that begins in GPU memory and goes on in other memory.
pub(super) fn check_range(address: u64, length: u64) -> Result<(), GpuError> {
    gpu::runtime().check_range(address, length)
}

/// Makes the copies of the GPU's own runtime end before its calls return, for each allocation in a range that a NIC accesses.
/// A failure is logged once: without it a program that copies to the memory and lets it be read at once must synchronise itself.
pub(super) fn synchronise_copies(address: u64, length: u64) {
    /// Set by the first failure. Relaxed: it stands alone.
    static SAID: AtomicBool = AtomicBool::new(false);
    let runtime = gpu::runtime();
    for (start, _) in parts(runtime.name(), (address, length), |at| runtime.allocation(at)) {
        if let Err(error) = runtime.synchronise_copies(start)
            && !SAID.swap(true, Ordering::Relaxed)
        {
            tracing::info!(
                "GPU memory at {start:#x} keeps asynchronous copies: {error}; a program that copies to memory which peers read \
                 synchronises the stream itself (said once)"
            );
        }
    }
}

/// A piece of GPU memory with a dma-buf of its own, which is closed when this is dropped. NICs that register the piece at
/// about the same time share it; one that comes later exports again.
#[derive(Debug)]
pub(super) struct ExportedPiece {
    /// Start.
    pub(super) address: u64,
    /// Bytes.
    pub(super) length: u64,
    export: DmaBufExport,
}

impl ExportedPiece {
    /// The dma-buf, for a registration.
    pub(super) fn dma_buf(&self) -> DmaBuf {
        DmaBuf { fd: self.export.fd.as_raw_fd(), offset: self.export.offset }
    }
}

/// Exports a range of GPU memory, and gives it to `register`: as one piece, or, where the runtime refuses because the range was mapped
/// from several allocations, as one for each of them, in the order of their addresses. Few are open at a time: `register` gets them in
/// batches, and each batch is closed before the next one is exported.
pub(super) fn export(
    (address, length): (u64, u64),
    register: impl FnMut(&[ExportedPiece]) -> Result<(), FabricError>,
) -> Result<(), NotExported> {
    let runtime = gpu::runtime();
    let export = |address, length| {
        runtime.dma_buf(address, length).map(|export| ExportedPiece { address, length, export })
    };
    in_batches(runtime.name(), (address, length), export, |at| runtime.allocation(at), register)
}

/// Exports a range of GPU memory as one piece.
pub(super) fn export_whole(address: u64, length: u64) -> Result<ExportedPiece, GpuError> {
    gpu::runtime().dma_buf(address, length).map(|export| ExportedPiece { address, length, export })
}

/// Why a range is not registered by dma-bufs.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotExported {
    /// The runtime makes none.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// The device does not take them.
    #[error(transparent)]
    Device(#[from] FabricError),
}

/// Dma-bufs that are open at a time: far below the limit of descriptors of any process, and enough for the threads that register
/// them.
const OPEN_AT_ONCE: usize = 32;

/// Gives `register` what `export` makes of a range, or of each of its allocations if it refuses the whole.
fn in_batches<E>(
    runtime: &'static str,
    (address, length): (u64, u64),
    export: impl Fn(u64, u64) -> Result<E, GpuError>,
    look_up: impl Fn(u64) -> Result<(u64, u64), GpuError>,
    mut register: impl FnMut(&[E]) -> Result<(), FabricError>,
) -> Result<(), NotExported> {
    let error = match export(address, length) {
        Ok(whole) => return Ok(register(&[whole])?),
        Err(error) => error,
    };
    let parts = parts(runtime, (address, length), look_up);
    if parts.len() < 2 {
        return Err(error.into());
    }
    for batch in parts.chunks(OPEN_AT_ONCE) {
        let exported = batch.iter().map(|(start, length)| export(*start, *length));
        register(&exported.collect::<Result<Vec<_>, _>>()?)?;
    }
    Ok(())
}

/// The parts of a range that are of one allocation each; the rest as one, from where the runtime does not say.
fn parts(
    runtime: &'static str,
    (address, length): (u64, u64),
    look_up: impl Fn(u64) -> Result<(u64, u64), GpuError>,
) -> Vec<(u64, u64)> {
    let end = address.saturating_add(length);
    let (mut at, mut parts) = (address, Vec::new());
    for allocation in allocations(runtime, (address, length), look_up) {
        let next = allocation.map_or(end, |allocation| allocation.end().min(end));
        parts.push((at, next - at));
        at = next;
    }
    parts
}

/// A CPU mapping of a range of GPU memory, for its registration; unmapped when dropped.
#[derive(Debug)]
pub(super) struct CpuMapping {
    runtime: Arc<dyn GpuRuntime>,
    /// Start and length of the pages that were mapped.
    pages: (u64, u64),
    /// Where the range begins in them.
    offset: u64,
}

impl CpuMapping {
    /// Maps whole pages around the range. `None` where the runtime needs no mapping, or refuses one: there the range
    /// is registered by its own address.
    pub(super) fn of(address: u64, length: u64) -> Option<Self> {
        let page = page_size() as u64;
        let (first, whole) = whole_pages(address, length, page)?;
        let runtime = gpu::runtime();
        match runtime.map_for_cpu(first, whole) {
            Ok(mapped) => {
                mapped.map(|mapped| Self { runtime, pages: (mapped, whole), offset: address - first })
            }
            Err(error) => {
                tracing::debug!("{address:#x}+{length} is registered by its own address: {error}");
                None
            }
        }
    }

    /// The CPU's address of the range.
    pub(super) fn address(&self) -> u64 {
        self.pages.0.saturating_add(self.offset)
    }
}

impl Drop for CpuMapping {
    fn drop(&mut self) {
        let (mapped, length) = self.pages;
        if let Err(error) = self.runtime.unmap_for_cpu(mapped, length) {
            tracing::warn!("cannot unmap {mapped:#x}+{length} of GPU memory, which leaks: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Memory that was mapped from an allocation of 4 MiB, and one of 2 MiB right behind it.
    const FIRST: (u64, u64) = (1 << 40, 4 << 20);
    const SECOND: (u64, u64) = (FIRST.0 + FIRST.1, 2 << 20);

    fn allocation(address: u64) -> Result<(u64, u64), GpuError> {
        let found =
            [FIRST, SECOND].into_iter().find(|(base, length)| (*base..base + length).contains(&address));
        found.ok_or_else(unknown)
    }

    fn unknown() -> GpuError {
        GpuError::Unsupported { runtime: "played", operation: "name an allocation" }
    }

    fn export(address: u64, length: u64) -> Result<(u64, u64), GpuError> {
        let fits = allocation(address).is_ok_and(|(base, bytes)| address + length <= base + bytes);
        let operation = "export a dma-buf";
        if fits { Ok((address, length)) } else { Err(GpuError::Unsupported { runtime: "played", operation }) }
    }

    fn pieces(address: u64, length: u64) -> Option<Vec<(u64, u64)>> {
        let mut pieces = Vec::new();
        let register = |batch: &[(u64, u64)]| {
            pieces.extend_from_slice(batch);
            Ok(())
        };
        in_batches("played", (address, length), export, allocation, register).ok().map(|()| pieces)
    }

    #[test]
    fn a_range_is_exported_as_far_as_it_goes() {
        let inside = (FIRST.0 + 100, 5000);
        assert_eq!(pieces(inside.0, inside.1), Some(vec![inside]), "not the whole allocation");
        let (start, length) = (SECOND.0 - 300, 1000);
        assert_eq!(pieces(start, length), Some(vec![(start, 300), (SECOND.0, 700)]));
        assert_eq!(pieces(FIRST.0, FIRST.1 + SECOND.1), Some(vec![FIRST, SECOND]));
        assert_eq!(pieces(SECOND.0, SECOND.1 + 1), None, "nothing is there");
        assert_eq!(pieces(1, 2), None);
    }

    /// Of a range over 1,000 allocations.
    #[test]
    fn few_are_open_at_a_time() {
        const EACH: u64 = 4096;
        let (open, most) = (Arc::new(()), Cell::new(0));
        let export = |_: u64, length: u64| match length {
            EACH => {
                let made = Arc::clone(&open);
                most.set(most.get().max(Arc::strong_count(&open) - 1));
                Ok(made)
            }
            _ => Err(unknown()),
        };
        let look_up = |at: u64| Ok((at - at % EACH, EACH));
        let mut registered = 0;
        let register = |batch: &[Arc<()>]| {
            registered += batch.len();
            Ok(())
        };
        in_batches("played", (EACH, 1000 * EACH), export, look_up, register).unwrap();
        assert_eq!((registered, most.get()), (1000, OPEN_AT_ONCE));
        let refuse = |_: &[Arc<()>]| Err(FabricError::Unsupported("no more".to_owned()));
        let refused = in_batches("played", (EACH, 1000 * EACH), export, look_up, refuse);
        assert!(matches!(refused, Err(NotExported::Device(_))) && Arc::strong_count(&open) == 1);
    }

    #[test]
    fn a_runtime_that_knows_no_allocations_has_one() {
        assert_eq!(parts("played", (10, 20), |_| Err(unknown())), [(10, 20)]);
        assert_eq!(parts("played", (10, 20), |_| Ok((0, 5))), [(10, 20)], "an answer that is none");
    }
}
