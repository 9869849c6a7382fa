//! The runtime in use.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use once_cell::sync::OnceCell;

use super::{CudaRuntime, GpuRuntime, HostRuntime};
use crate::fork::PerProcess;

/// What the host program installed. Written by [`install`], read at each use.
/// A forked child has it too: the program that installed it answers for that. No lock is in it.
static INSTALLED: ArcSwapOption<Arc<dyn GpuRuntime>> = ArcSwapOption::const_empty();

/// Takes `runtime` from now on; `None` goes back to finding one.
pub fn install(runtime: Option<Arc<dyn GpuRuntime>>) {
    INSTALLED.store(runtime.map(Arc::new));
}

/// The runtime in use: the installed one, else CUDA when this process has the driver loaded already, else the host's.
/// Ask again at each use: programs load their GPU driver, or replace their device adaptor, when it suits them.
pub fn runtime() -> Arc<dyn GpuRuntime> {
    if let Some(installed) = &*INSTALLED.load() {
        return Arc::clone(installed);
    }
    match cuda() {
        Some(cuda) => cuda,
        None => Arc::new(HostRuntime),
    }
}

/// The CUDA driver. That the process has not loaded it is never remembered.
static CUDA: PerProcess<OnceCell<Arc<CudaRuntime>>> = PerProcess::new(OnceCell::new);

/// The CUDA driver, if this process has it loaded: for an installed runtime, about memory of which it knows less. Takes
/// microseconds where it is not loaded.
pub(super) fn cuda() -> Option<Arc<CudaRuntime>> {
    CUDA.get().get_or_try_init(|| CudaRuntime::of_process().map(Arc::new)).ok().cloned()
}

/// As [`cuda`], if that has found it before.
pub(super) fn found_cuda() -> Option<Arc<CudaRuntime>> {
    CUDA.get().get().cloned()
}
