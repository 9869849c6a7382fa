//! The allocations behind a range.
#![allow(unsafe_code, reason = "calls the CUDA driver")]

use std::ffi::{c_int, c_void};
use std::ptr;

use super::super::allocations::allocations;
use super::super::{GpuError, GpuRuntime, PointerKind};
use super::CudaRuntime;
use super::runtime::NAME;

/// `CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE`: true of `cuMemAlloc`, false of `cuMemMap` and of pools.
const ATTRIBUTE_HAS_IPC_HANDLE: c_int = 10;
const ATTRIBUTE_POOL: c_int = 17;
const ATTRIBUTE_MAPPING_SIZE: c_int = 18;
const ATTRIBUTE_MAPPING_BASE: c_int = 19;

impl CudaRuntime {
    /// Start and bytes of the allocation around `address`: of `cuMemAlloc`, of a pool, or the one of `cuMemCreate` that is mapped
    /// there.
    pub(super) fn allocation_at(&self, address: u64) -> Result<(u64, u64), GpuError> {
        let is_mapped = !self.has_ipc_handle(address)? && self.pool_of(address)?.is_none();
        match is_mapped.then(|| self.mapping_at(address)) {
            Some(Some(mapping)) => Ok(mapping),
            _ => self.address_range(address),
        }
    }

    /// Refuses a range that leaves GPU memory, or one allocation of `cuMemAlloc` for another: no copy spans these. Mappings of
    /// `cuMemMap` side by side are one range, as allocators that grow in segments make them.
    pub(super) fn check_allocations(&self, address: u64, length: u64) -> Result<(), GpuError> {
        if !matches!(self.pointer_kind(address)?, PointerKind::Gpu(_)) {
            return Ok(());
        }
        let refuse = |problem, at| Err(GpuError::Range { address, length, problem, at });
        let end = address.saturating_add(length);
        for allocation in allocations(NAME, (address, length), |at| self.allocation_at(at)) {
            let allocation = allocation?;
            let (at, next) = (allocation.at, allocation.end());
            if next >= end {
                break;
            }
            if !matches!(self.pointer_kind(next)?, PointerKind::Gpu(_)) {
                return refuse("it leaves GPU memory", next);
            }
            if self.gpu_of(next) != self.gpu_of(at) {
                return refuse("memory of another GPU begins", next);
            }
            if self.has_ipc_handle(at)? || self.has_ipc_handle(next)? {
                return refuse("another allocation begins", next);
            }
        }
        Ok(())
    }

    /// Whether `cuIpcGetMemHandle` knows the memory. It is an allocation by itself then, which no copy leaves. So is all memory for
    /// drivers before 11.0, which do not know the attribute.
    pub(super) fn has_ipc_handle(&self, address: u64) -> Result<bool, GpuError> {
        Ok(self.attribute(ATTRIBUTE_HAS_IPC_HANDLE, address)?.is_none_or(|has| has & 0xFF != 0))
    }

    /// The pool that the memory at an address is of, if it is of one.
    pub(super) fn pool_of(&self, address: u64) -> Result<Option<*mut c_void>, GpuError> {
        let (driver, mut pool) = (self.driver()?, ptr::null_mut::<c_void>());
        // SAFETY: this attribute is a pointer; the address is only looked up.
        let code =
            unsafe { (driver.pointer_attribute)((&raw mut pool).cast::<c_void>(), ATTRIBUTE_POOL, address) };
        Ok((code == 0 && !pool.is_null()).then_some(pool))
    }

    /// Start and bytes of the mapping of `cuMemMap` around an address, where the driver says them.
    fn mapping_at(&self, address: u64) -> Option<(u64, u64)> {
        let (driver, mut start, mut bytes) = (self.driver().ok()?, 0_u64, 0_usize);
        let ask = driver.pointer_attribute;
        // SAFETY: this attribute is an address; the one that is asked about is only looked up.
        let has_start = unsafe { ask((&raw mut start).cast::<c_void>(), ATTRIBUTE_MAPPING_BASE, address) };
        // SAFETY: this attribute is a size; as above.
        let has_bytes = unsafe { ask((&raw mut bytes).cast::<c_void>(), ATTRIBUTE_MAPPING_SIZE, address) };
        (has_start == 0 && has_bytes == 0).then_some((start, bytes as u64))
    }

    /// The driver's own answer, which it gives in the context of the memory.
    pub(super) fn address_range(&self, address: u64) -> Result<(u64, u64), GpuError> {
        let _entered = self.enter_context_of("look up the allocation of an address", address)?;
        let (driver, mut base, mut bytes) = (self.driver()?, 0, 0_usize);
        // SAFETY: the out parameters are valid; the address is only looked up.
        let code = unsafe { (driver.address_range)(&raw mut base, &raw mut bytes, address) };
        driver.check("cuMemGetAddressRange", code)?;
        Ok((base, bytes as u64))
    }
}
