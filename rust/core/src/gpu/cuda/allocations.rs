//! The allocations behind a range.
#![allow(unsafe_code, reason = "calls the CUDA driver")]

use std::ffi::c_int;

use super::super::{GpuError, GpuRuntime, PointerKind};
use super::CudaRuntime;
use super::runtime::NAME;

/// Whether `cuIpcGetMemHandle` knows the memory: true of `cuMemAlloc`, false of `cuMemMap` and of pools.
const ATTRIBUTE_IS_LEGACY_IPC_CAPABLE: c_int = 10;

impl CudaRuntime {
    /// Start and bytes of the allocation, or of the mapping of `cuMemMap`, around `address`. Its context is current.
    pub(super) fn allocation_in_context(&self, address: u64) -> Result<(u64, u64), GpuError> {
        let (driver, mut base, mut bytes) = (self.driver()?, 0, 0_usize);
        // SAFETY: the out parameters are valid; the address is only looked up.
        let code = unsafe { (driver.address_range)(&raw mut base, &raw mut bytes, address) };
        driver.check("cuMemGetAddressRange", code)?;
        Ok((base, bytes as u64))
    }

    /// Refuses a range that leaves GPU memory, or one allocation of `cuMemAlloc` for another: no copy spans these. Mappings of
    /// `cuMemMap` side by side are one range, as allocators that grow in segments make them.
    pub(super) fn check_allocations(&self, address: u64, length: u64) -> Result<(), GpuError> {
        if !matches!(self.pointer_kind(address)?, PointerKind::Gpu(_)) {
            return Ok(());
        }
        let refuse = |problem, at| Err(GpuError::Range { address, length, problem, at });
        let _entered = self.enter_context_of("look up the allocations of a range", address)?;
        let (end, mut at) = (address.saturating_add(length), address);
        loop {
            let (base, bytes) = self.allocation_in_context(at)?;
            let next = base.saturating_add(bytes);
            if next >= end {
                return Ok(());
            }
            if next <= at {
                let answer = format!("an allocation {base:#x}+{bytes} around {at:#x}");
                return Err(GpuError::Malformed { runtime: NAME, operation: "cuMemGetAddressRange", answer });
            }
            if !matches!(self.pointer_kind(next)?, PointerKind::Gpu(_)) {
                return refuse("it leaves GPU memory", next);
            }
            if self.gpu_of(next) != self.gpu_of(at) {
                return refuse("memory of another GPU begins", next);
            }
            if self.is_apart(at)? || self.is_apart(next)? {
                return refuse("another allocation begins", next);
            }
            at = next;
        }
    }

    /// Whether the memory is an allocation by itself, which no copy leaves. So it is for drivers that know no other.
    fn is_apart(&self, address: u64) -> Result<bool, GpuError> {
        let legacy = self.attribute(ATTRIBUTE_IS_LEGACY_IPC_CAPABLE, address)?;
        Ok(legacy.is_none_or(|legacy| legacy & 0xFF != 0))
    }
}
