//! Memory that has no legacy IPC handle, between processes by files: of `cuMemCreate`, as PyTorch's expandable segments are,
//! and of pools, as that of `cudaMallocAsync` is.
#![allow(unsafe_code, reason = "calls the CUDA driver")]

use std::ffi::{c_int, c_ulonglong, c_void};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::Arc;

use super::super::allocations::allocations;
use super::super::closed_on_exec;
use super::super::memory_files::MOST_FILES;
use super::super::sharing::{no_files, opened_length};
use super::super::{
    GpuAllocation, GpuError, GpuRuntime, MappedFiles, MemoryFile, MemoryFiles, POOL_POINTER_BYTES,
};
use super::file_symbols::{
    AccessDescription, AllocationProperties, Location, MappingSymbols, ON_DEVICE, PoolPointer, PoolSymbols,
};
use super::runtime::{CudaRuntime, NAME};
use super::symbols::Symbols;

/// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`.
const FILE: c_int = 1;
const READ_WRITE: c_int = 3;
/// What the driver answers if a pool cannot be exported: invalid value, invalid handle, not permitted, not supported.
const HAS_NO_FILE: &[c_int] = &[1, 400, 800, 801];

impl CudaRuntime {
    pub(super) fn files_of(&self, address: u64, length: u64) -> Result<MemoryFiles, GpuError> {
        let driver = self.driver()?;
        let _entered = self.enter_context_of("share memory by file descriptors", address)?;
        match (self.pool_of(address)?, &driver.pools, &driver.mappings) {
            (Some(pool), Some(pools), _) => self.pool_file(pools, pool, address, length),
            (None, _, Some(mappings)) => self.mapped_files(mappings, address, length),
            _ => no_files(NAME),
        }
    }

    /// The files of all allocations that are mapped in a range.
    fn mapped_files(
        &self,
        mappings: &MappingSymbols,
        address: u64,
        length: u64,
    ) -> Result<MemoryFiles, GpuError> {
        let driver = self.driver()?;
        address.checked_add(length).ok_or_else(|| not_shared("it ends beyond the address space"))?;
        let (mut base, mut files) = (None, Vec::new());
        for allocation in allocations(NAME, (address, length), |at| self.allocation_at(at)) {
            let GpuAllocation { at, start, bytes } = allocation?;
            if base.is_some() && start != at {
                return Err(not_shared(format!("its allocations overlap at {at:#x}")));
            }
            base.get_or_insert(start);
            if files.len() == MOST_FILES {
                return Err(not_shared(format!(
                    "it has more than {MOST_FILES} allocations: register parts of it, or allocate larger ones"
                )));
            }
            files.push(MemoryFile { file: allocation_file(driver, mappings, start, bytes)?, length: bytes });
        }
        let base = base.ok_or_else(|| not_shared("it has no bytes"))?;
        Ok(MemoryFiles { base, files, pool_pointer: None })
    }

    /// The file of a pool, and the name of the allocation in it that holds a range.
    fn pool_file(
        &self,
        pools: &PoolSymbols,
        pool: *mut c_void,
        address: u64,
        length: u64,
    ) -> Result<MemoryFiles, GpuError> {
        let (driver, (base, bytes)) = (self.driver()?, self.allocation_at(address)?);
        if address.checked_add(length).is_none_or(|end| end - base > bytes) {
            return Err(not_shared("it spans several allocations of a pool: register each by itself"));
        }
        let mut file: c_int = -1;
        // SAFETY: the out parameter is an int, as this handle type wants; the pool has an allocation that is in use.
        let code = unsafe { (pools.export)((&raw mut file).cast::<c_void>(), pool, FILE, 0) };
        driver.check("cuMemPoolExportToShareableHandle", code).map_err(|error| match HAS_NO_FILE.contains(&code) {
            true => not_shared(format!(
                "{error}: its pool was made without CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, as the default pools are: make one \
                 with it, or take memory of cudaMalloc"
            )),
            // As when there are no descriptors left: it may pass.
            false => error,
        })?;
        let file = owned(file, "cuMemPoolExportToShareableHandle")?;
        let mut pointer = PoolPointer([0; POOL_POINTER_BYTES]);
        // SAFETY: the out parameter is valid; the address is the start of an allocation.
        let code = unsafe { (pools.export_pointer)(&raw mut pointer, base) };
        driver.check("cuMemPoolExportPointer", code)?;
        let files = vec![MemoryFile { file, length: bytes }];
        Ok(MemoryFiles { base, files, pool_pointer: Some(pointer.0) })
    }

    pub(super) fn map_taken(&self, files: &MemoryFiles) -> Result<Box<dyn MappedFiles>, GpuError> {
        let driver = self.shared_driver()?;
        let device = self.current_gpu()?;
        let access = AccessDescription { location: Location { kind: ON_DEVICE, device }, rights: READ_WRITE };
        match files.pool_pointer {
            Some(pointer) => {
                let memory = PoolMemory::import(driver, files, pointer, &access)?;
                self.require_length(memory.address, files.length())?;
                Ok(Box::new(memory))
            }
            None => Ok(Box::new(Mapping::import(driver, files, &access)?)),
        }
    }

    /// Refuses an allocation that is shorter than its owner says, where the driver knows that.
    fn require_length(&self, address: u64, told: Option<u64>) -> Result<(), GpuError> {
        let Some(there) = opened_length(self, address) else { return Ok(()) };
        if told.is_some_and(|told| told <= there) {
            return Ok(());
        }
        let told = told.unwrap_or(u64::MAX);
        Err(not_shared(format!(
            "its owner says that it has {told} bytes, and the driver that it has {there}"
        )))
    }
}

fn not_shared(reason: impl Into<String>) -> GpuError {
    GpuError::NotShared { reason: reason.into() }
}

/// The file of the one allocation that is mapped at a range.
fn allocation_file(
    driver: &Symbols,
    mappings: &MappingSymbols,
    start: u64,
    bytes: u64,
) -> Result<OwnedFd, GpuError> {
    let allocation = Handle::retain(driver, mappings, start)?;
    // What the driver calls one mapping may be several of some driver: then the file would be of a part.
    let last = Handle::retain(driver, mappings, start + (bytes - 1))?;
    if allocation.number != last.number {
        return Err(not_shared(format!("the driver does not tell the allocations from {start:#x} on apart")));
    }
    let mut properties = AllocationProperties::default();
    // SAFETY: the out parameter is valid, the handle is retained.
    let code = unsafe { (mappings.properties)(&raw mut properties, allocation.number) };
    driver.check("cuMemGetAllocationPropertiesFromHandle", code)?;
    if properties.handle_types & FILE.unsigned_abs() == 0 {
        return Err(not_shared(format!(
            "the memory at {start:#x} was made by cuMemCreate without CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR: ask for that \
             there, or take memory of cudaMalloc"
        )));
    }
    let mut file: c_int = -1;
    // SAFETY: the out parameter is an int, as this handle type wants; the handle is retained.
    let code = unsafe { (mappings.export)((&raw mut file).cast::<c_void>(), allocation.number, FILE, 0) };
    driver.check("cuMemExportToShareableHandle", code)?;
    owned(file, "cuMemExportToShareableHandle")
}

fn owned(file: c_int, operation: &'static str) -> Result<OwnedFd, GpuError> {
    if file < 0 {
        return Err(GpuError::Malformed { runtime: NAME, operation, answer: format!("descriptor {file}") });
    }
    // SAFETY: the driver has just made this descriptor for us, and nothing else knows it.
    Ok(closed_on_exec(unsafe { OwnedFd::from_raw_fd(file) }))
}

/// The driver's handle of an allocation, which is kept until this is dropped.
struct Handle<'a> {
    driver: &'a Symbols,
    mappings: &'a MappingSymbols,
    number: c_ulonglong,
}

impl<'a> Handle<'a> {
    /// The one that is mapped at an address.
    fn retain(driver: &'a Symbols, mappings: &'a MappingSymbols, address: u64) -> Result<Self, GpuError> {
        let mut number = 0;
        // SAFETY: the out parameter is valid; the address is only looked up.
        let code = unsafe { (mappings.retain)(&raw mut number, address as *mut c_void) };
        driver.check("cuMemRetainAllocationHandle", code)?;
        Ok(Self { driver, mappings, number })
    }

    /// That of a file of another process.
    fn import(driver: &'a Symbols, mappings: &'a MappingSymbols, file: &OwnedFd) -> Result<Self, GpuError> {
        let (descriptor, mut number) = (file.as_raw_fd() as usize as *mut c_void, 0);
        // SAFETY: the out parameter is valid; the driver takes the descriptor's number in the place of the pointer, and checks
        // what it is of.
        let code = unsafe { (mappings.import)(&raw mut number, descriptor, FILE) };
        driver.check("cuMemImportFromShareableHandle", code)?;
        Ok(Self { driver, mappings, number })
    }
}

impl Drop for Handle<'_> {
    fn drop(&mut self) {
        // SAFETY: retained or imported by this object, and not used again.
        warn(self.driver.check("cuMemRelease", unsafe { (self.mappings.release)(self.number) }));
    }
}

fn warn(ended: Result<(), GpuError>) {
    if let Err(error) = ended {
        tracing::warn!("GPU memory of another process, or a handle of it, leaks: {error}");
    }
}

/// Allocations of another process, one behind the other; unmapped when dropped.
#[derive(Debug)]
struct Mapping {
    driver: Arc<Symbols>,
    /// Start and bytes of the addresses.
    reserved: (u64, usize),
    /// Bytes of the allocations that are mapped, from the start on.
    mapped: Vec<usize>,
}

impl Mapping {
    fn import(
        driver: Arc<Symbols>,
        files: &MemoryFiles,
        access: &AccessDescription,
    ) -> Result<Self, GpuError> {
        let Some(mappings) = &driver.mappings else { return no_files(NAME) };
        let bytes = files.length().and_then(|bytes| usize::try_from(bytes).ok());
        let bytes = bytes.ok_or_else(|| not_shared("it ends beyond the address space"))?;
        let mut start = 0;
        // SAFETY: the out parameter is valid.
        let code = unsafe { (mappings.reserve)(&raw mut start, bytes, 0, 0, 0) };
        driver.check("cuMemAddressReserve", code)?;
        let mut mapping = Self { driver: Arc::clone(&driver), reserved: (start, bytes), mapped: Vec::new() };
        let mut at = start;
        for file in &files.files {
            let allocation = Handle::import(&driver, mappings, &file.file)?;
            let length = usize::try_from(file.length).unwrap_or(usize::MAX);
            // SAFETY: the addresses are reserved and not mapped yet; the driver refuses more bytes than the allocation has.
            driver.check("cuMemMap", unsafe { (mappings.map)(at, length, 0, allocation.number, 0) })?;
            mapping.mapped.push(length);
            at = at.saturating_add(file.length);
        }
        // SAFETY: all of the range is mapped; one description.
        driver.check("cuMemSetAccess", unsafe { (mappings.set_access)(start, bytes, access, 1) })?;
        Ok(mapping)
    }
}

impl MappedFiles for Mapping {
    fn address(&self) -> u64 {
        self.reserved.0
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let (driver, (start, bytes)) = (&*self.driver, self.reserved);
        let Some(mappings) = &driver.mappings else { return };
        let mut at = start;
        for length in &self.mapped {
            // SAFETY: mapped by this object, and nothing uses it any more.
            warn(driver.check("cuMemUnmap", unsafe { (mappings.unmap)(at, *length) }));
            at = at.saturating_add(*length as u64);
        }
        // SAFETY: reserved by this object, and nothing is mapped there any more.
        warn(driver.check("cuMemAddressFree", unsafe { (mappings.free)(start, bytes) }));
    }
}

/// An allocation of a pool of another process; given back when dropped.
#[derive(Debug)]
struct PoolMemory {
    driver: Arc<Symbols>,
    /// The imported pool.
    pool: *mut c_void,
    /// 0 until the allocation is imported.
    address: u64,
}

// SAFETY: the driver may be called with a pool from any thread.
unsafe impl Send for PoolMemory {}
// SAFETY: as above.
unsafe impl Sync for PoolMemory {}

impl PoolMemory {
    fn import(
        driver: Arc<Symbols>,
        files: &MemoryFiles,
        pointer: [u8; POOL_POINTER_BYTES],
        access: &AccessDescription,
    ) -> Result<Self, GpuError> {
        let (Some(pools), Some(file)) = (&driver.pools, files.files.first()) else { return no_files(NAME) };
        let (number, mut pool) = (file.file.as_raw_fd() as usize as *mut c_void, ptr::null_mut());
        // SAFETY: the out parameter is valid; the driver takes the descriptor's number in the place of the pointer, and checks
        // what it is of.
        let code = unsafe { (pools.import)(&raw mut pool, number, FILE, 0) };
        driver.check("cuMemPoolImportFromShareableHandle", code)?;
        let mut memory = Self { driver: Arc::clone(&driver), pool, address: 0 };
        // SAFETY: the pool is this object's own; one description.
        driver.check("cuMemPoolSetAccess", unsafe { (pools.set_access)(pool, access, 1) })?;
        let mut pointer = PoolPointer(pointer);
        // SAFETY: the out parameter is valid, the pool is this object's own; the driver checks the name.
        let code = unsafe { (pools.import_pointer)(&raw mut memory.address, pool, &raw mut pointer) };
        driver.check("cuMemPoolImportPointer", code)?;
        Ok(memory)
    }
}

impl MappedFiles for PoolMemory {
    fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for PoolMemory {
    fn drop(&mut self) {
        let Some(pools) = &self.driver.pools else { return };
        if self.address != 0 {
            // SAFETY: imported by this object, and nothing uses it any more.
            warn(self.driver.check("cuMemFree", unsafe { (pools.free)(self.address) }));
        }
        // SAFETY: imported by this object, and not used again.
        warn(self.driver.check("cuMemPoolDestroy", unsafe { (pools.destroy)(self.pool) }));
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;

    use super::*;

    #[test]
    fn no_program_that_the_process_starts_gets_a_file_of_the_driver() {
        let inherited = rustix::io::dup(std::fs::File::open("/dev/null").unwrap()).unwrap();
        let file = owned(inherited.into_raw_fd(), "cuMemExportToShareableHandle").unwrap();
        assert_eq!(rustix::io::fcntl_getfd(&file), Ok(rustix::io::FdFlags::CLOEXEC));
    }
}
