//! What the CUDA driver says of memory that a NIC is to access.
#![allow(unsafe_code, reason = "calls the CUDA driver")]

use std::ffi::{c_int, c_void};

use super::super::GpuError;
use super::runtime::{ATTRIBUTE_DEVICE_ORDINAL, CudaRuntime, NAME};

const ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: c_int = 75;
const ATTRIBUTE_DMA_BUF_SUPPORTED: c_int = 124;
const POINTER_ATTRIBUTE_SYNC_MEMOPS: c_int = 6;
/// Hopper. GPUs before it may see what a NIC has written only after a read by that NIC.
const FIRST_WITHOUT_FLUSH: c_int = 9;

impl CudaRuntime {
    /// Refuses memory of a GPU that says that it has no dma-bufs. A driver that does not know the question is tried.
    pub(super) fn require_dma_bufs(&self, address: u64) -> Result<(), GpuError> {
        match self.device_attribute_at(address, ATTRIBUTE_DMA_BUF_SUPPORTED) {
            Some(0) => Err(GpuError::Unsupported { runtime: NAME, operation: NO_DMA_BUFS }),
            _ => Ok(()),
        }
    }

    /// Has the driver end its own copies of the allocation at `address` before the calls that start them return.
    pub(super) fn set_sync_memops(&self, address: u64) -> Result<(), GpuError> {
        let _entered = self.enter_context_of("synchronise copies", address)?;
        let (driver, on) = (self.driver()?, 1_u32);
        // SAFETY: the value is a 32-bit integer, as this attribute wants; the address is only looked up.
        let code = unsafe {
            (driver.set_pointer_attribute)(
                (&raw const on).cast::<c_void>(),
                POINTER_ATTRIBUTE_SYNC_MEMOPS,
                address,
            )
        };
        driver.check("cuPointerSetAttribute(SYNC_MEMOPS)", code)
    }

    /// Whether the GPU with this address is one before Hopper; true if that cannot be told.
    pub(super) fn is_before_hopper(&self, address: u64) -> bool {
        self.device_attribute_at(address, ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
            .is_none_or(|major| major < FIRST_WITHOUT_FLUSH)
    }

    /// Whether one of the GPUs is one before Hopper; true if that cannot be told. A driver that the program has not initialised stays
    /// so, and does not tell.
    pub(super) fn has_gpu_before_hopper(&self) -> bool {
        let Some(count) = self.count_if_initialised() else { return true };
        let major = |ordinal| self.device_attribute(ordinal, ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
        (0..count).any(|ordinal| major(ordinal).is_none_or(|major| major < FIRST_WITHOUT_FLUSH))
    }

    /// An attribute of the GPU that has the memory at `address`; `None` where the driver cannot say.
    fn device_attribute_at(&self, address: u64, attribute: c_int) -> Option<c_int> {
        let ordinal = self.attribute(ATTRIBUTE_DEVICE_ORDINAL, address).ok().flatten()?;
        self.device_attribute(ordinal as i32, attribute)
    }

    fn device_attribute(&self, ordinal: i32, attribute: c_int) -> Option<c_int> {
        let (device, driver) = (self.device(ordinal).ok()?, self.driver().ok()?);
        let mut value = 0;
        // SAFETY: the out parameter is valid, the device came from the driver.
        let code = unsafe { (driver.device_attribute)(&raw mut value, attribute, device) };
        (code == 0).then_some(value)
    }
}

const NO_DMA_BUFS: &str = "export a dma-buf of this GPU, which says that it has none \
                           (CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED is 0: the open kernel modules of the driver are needed)";
