//! The runtime in use.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use once_cell::sync::{Lazy, OnceCell};

use super::{CudaRuntime, DeviceRuntime, HostRuntime};

/// What the host program installed. Written by [`install`], read at each use.
static INSTALLED: Lazy<ArcSwapOption<Arc<dyn DeviceRuntime>>> = Lazy::new(ArcSwapOption::empty);

/// Takes `runtime` from now on; `None` goes back to finding one.
pub fn install(runtime: Option<Arc<dyn DeviceRuntime>>) {
    INSTALLED.store(runtime.map(Arc::new));
}

/// The runtime in use: the installed one, else CUDA when this process has the driver loaded already, else the host's.
/// Ask again at each use: programs load their GPU driver, or replace their device adaptor, when it suits them.
pub fn runtime() -> Arc<dyn DeviceRuntime> {
    static CUDA: OnceCell<Arc<CudaRuntime>> = OnceCell::new();
    if let Some(installed) = &*INSTALLED.load() {
        return Arc::clone(installed);
    }
    match CUDA.get_or_try_init(|| CudaRuntime::of_process().map(Arc::new)) {
        Ok(cuda) => Arc::<CudaRuntime>::clone(cuda),
        Err(_) => Arc::new(HostRuntime),
    }
}
