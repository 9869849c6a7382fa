//! GPU memory that a NIC is to access: the ways there are to register it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::gpu_memory::{CpuMapping, ExportedPiece, export};
use super::registry::pieces::{self, Pieces};
use super::segment::Segments;
use super::shared_export::SharedExport;
use crate::fabric::{Device, FabricError, MemoryRange};

/// Registers what may be GPU memory, in the ways there are: by a dma-buf, by a mapping that the GPU runtime
/// makes for it, by its own address, which the kernel may know. A runtime without IPC handles cannot recognise GPU
/// memory, so it is asked for the mapping of anything that the caller has not declared to be host memory. `shared`: the export that
/// other NICs may be registering at the same time.
pub(super) fn register_for_nic(
    device: &dyn Device,
    range: &MemoryRange,
    on_gpu: bool,
    shared: Option<&SharedExport>,
) -> Result<Segments, FabricError> {
    let not_by_dma_buf = match on_gpu.then(|| by_dma_buf(device, range, shared)) {
        Some(Ok(memory)) => return Ok(memory),
        Some(Err(reason)) => Some(reason),
        None => None,
    };
    let mapping = CpuMapping::of(range.address, range.length);
    let cpu_address = mapping.as_ref().map(CpuMapping::address);
    let registered = pieces::register(device, &MemoryRange { cpu_address, ..*range });
    match (registered, not_by_dma_buf) {
        (Ok(memory), Some(reason)) => {
            say_once(&reason);
            Ok(memory)
        }
        (Err(error), Some(reason)) => Err(error.with_hint(&format!(
            "GPU memory needs a dma-buf or the peer memory module of its vendor. No dma-buf: {reason}. {}",
            peer_memory_state(Path::new("/sys"))
        ))),
        (registered, None) => registered,
    }
}

/// Registers GPU memory by dma-bufs of it, of which each is a segment; an error says in words why that is not possible.
fn by_dma_buf(
    device: &dyn Device,
    range: &MemoryRange,
    shared: Option<&SharedExport>,
) -> Result<Segments, String> {
    if !device.attributes().dma_buf {
        return Err(format!("{} cannot register any", device.attributes().name));
    }
    let of_piece = |piece: &ExportedPiece| MemoryRange {
        address: piece.address,
        length: piece.length,
        dma_buf: Some(piece.dma_buf()),
        ..*range
    };
    let mut pieces = Pieces::on(device);
    if let Some(Ok(whole)) = shared.map(|shared| shared.of_range(range.address, range.length)) {
        let added = pieces.add(&[of_piece(&whole)]);
        return added.and_then(|()| pieces.finish()).map_err(|error| error.to_string());
    }
    let register = |batch: &[ExportedPiece]| pieces.add(&batch.iter().map(of_piece).collect::<Vec<_>>());
    export((range.address, range.length), register).map_err(|error| error.to_string())?;
    pieces.finish().map_err(|error| error.to_string())
}

/// One line for the process: most registrations of a host go the same way.
fn say_once(reason: &str) {
    /// Set by the first registration that says it. Relaxed: it stands alone.
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        tracing::info!(
            "GPU memory is registered by its address, by the peer memory module of its vendor, not by dma-buf: {reason} \
             (said once)"
        );
    }
}

/// Whether the peer memory module of NVIDIA is there, for an error.
fn peer_memory_state(sys: &Path) -> String {
    let has_module =
        ["nvidia_peermem", "nv_peer_mem"].iter().any(|name| sys.join("module").join(name).exists());
    match has_module {
        true => "The module nvidia-peermem is loaded, so the kernel's log (dmesg) says more".to_owned(),
        false => "No module: nvidia-peermem is not loaded (modprobe nvidia-peermem)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said() {
        let sys = tempfile::tempdir().unwrap();
        assert!(peer_memory_state(sys.path()).contains("modprobe nvidia-peermem"));
        std::fs::create_dir_all(sys.path().join("module/nvidia_peermem")).unwrap();
        assert!(peer_memory_state(sys.path()).contains("is loaded"));
    }
}
