//! Memory regions.
#![allow(unsafe_code, reason = "calls libibverbs")]

use std::ffi::{c_int, c_uint, c_void};
use std::ptr::{NonNull, with_exposed_provenance_mut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::process::{Resource, getrlimit};

use super::context::VerbsContext;
use super::sys::{errno_of, ibv_access_flags as flag, ibv_mr, last_errno};
use crate::fabric::{Access, FabricError, MemoryRange, MemoryRegion};

/// A registered range.
pub(super) struct VerbsMemoryRegion {
    context: Arc<VerbsContext>,
    /// `None` once deregistered.
    raw: Mutex<Option<NonNull<ibv_mr>>>,
    lkey: u32,
    rkey: u32,
}

// SAFETY: the region is touched under the mutex only, and verbs calls may come from any thread.
unsafe impl Send for VerbsMemoryRegion {}
// SAFETY: as above.
unsafe impl Sync for VerbsMemoryRegion {}

impl VerbsMemoryRegion {
    /// Registers `range`; `largest` is the device's limit, `relaxed` whether relaxed ordering may be asked for.
    pub(super) fn register(
        context: Arc<VerbsContext>,
        range: &MemoryRange,
        largest: u64,
        relaxed: bool,
    ) -> Result<Self, FabricError> {
        if range.length > largest {
            return Err(FabricError::Unsupported(format!(
                "a region of {} bytes is larger than the {largest} bytes (max_mr_size) that {} can register; \
                 split it",
                range.length, context.name
            )));
        }
        let first = range.cpu_address.unwrap_or(range.address);
        let (Ok(length), Ok(address)) = (usize::try_from(range.length), usize::try_from(first)) else {
            return Err(FabricError::call("ibv_reg_mr", &context.name, libc::EINVAL));
        };
        if length == 0 || address.checked_add(length).is_none() {
            return Err(FabricError::call("ibv_reg_mr", &context.name, libc::EINVAL)
                .with_hint("the range is empty or runs past the end of the address space"));
        }
        let library = context.library;
        let mut access = access_flags(&range.access);
        if relaxed && range.access.relaxed_ordering && library.ibv_reg_mr_iova2.is_some() {
            access |= flag::IBV_ACCESS_RELAXED_ORDERING.0;
        }
        // The newer call is needed for optional access flags, and for an IOVA that differs from the CPU's address.
        let newer = access & flag::IBV_ACCESS_RELAXED_ORDERING.0 != 0 || range.cpu_address.is_some();
        let start = with_exposed_provenance_mut::<c_void>(address);
        let domain = context.domain.as_ptr();
        // SAFETY: the domain is alive. The library only reads the arguments: the kernel checks that the range is
        // mapped, and pins its pages for as long as the region lives.
        let (operation, raw) = unsafe {
            match (range.dma_buf, library.ibv_reg_dmabuf_mr, library.ibv_reg_mr_iova2) {
                (Some(buffer), Some(register), _) => (
                    "ibv_reg_dmabuf_mr",
                    register(domain, buffer.offset, length, range.address, buffer.fd, access as c_int),
                ),
                (Some(_), None, _) => {
                    return Err(FabricError::Unsupported(format!(
                        "{} has no ibv_reg_dmabuf_mr (rdma-core 34 or later), so {} cannot register GPU memory \
                         by dma-buf",
                        library.file, context.name
                    )));
                }
                (None, _, Some(register)) if newer => {
                    ("ibv_reg_mr_iova2", register(domain, start, length, range.address, access))
                }
                (None, _, None) if range.cpu_address.is_some() => {
                    return Err(FabricError::Unsupported(format!(
                        "{} has no ibv_reg_mr_iova2 (rdma-core 28 or later), so {} cannot register GPU memory by a \
                         mapping of it",
                        library.file, context.name
                    )));
                }
                _ => ("ibv_reg_mr", (library.ibv_reg_mr)(domain, start, length, access as c_int)),
            }
        };
        let Some(raw) = NonNull::new(raw) else {
            let errno = last_errno();
            return Err(FabricError::call(operation, &context.name, errno).with_hint(&hint(errno, range)));
        };
        // SAFETY: the region was just made and is ours.
        let (lkey, rkey) = unsafe { (raw.as_ref().lkey, raw.as_ref().rkey) };
        Ok(Self { context, raw: Mutex::new(Some(raw)), lkey, rkey })
    }

    fn deregister(&self) -> Result<(), FabricError> {
        let mut slot = self.raw.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(raw) = *slot else { return Ok(()) };
        // SAFETY: made by this library, not deregistered yet: it is taken out when it is.
        let code = unsafe { (self.context.library.ibv_dereg_mr)(raw.as_ptr()) };
        if code != 0 {
            return Err(FabricError::call("ibv_dereg_mr", &self.context.name, errno_of(code)));
        }
        *slot = None;
        Ok(())
    }
}

impl MemoryRegion for VerbsMemoryRegion {
    fn lkey(&self) -> u32 {
        self.lkey
    }

    fn rkey(&self) -> u32 {
        self.rkey
    }

    /// The device ends its accesses within the call, so the deadline has nothing to bound.
    fn revoke(&self, _deadline: Instant) -> Result<(), FabricError> {
        self.deregister()
    }
}

impl Drop for VerbsMemoryRegion {
    fn drop(&mut self) {
        if let Err(error) = self.deregister() {
            tracing::warn!("cannot deregister a memory region, which leaks: {error}");
        }
    }
}

impl std::fmt::Debug for VerbsMemoryRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerbsMemoryRegion")
            .field("device", &self.context.name)
            .field("lkey", &self.lkey)
            .field("rkey", &self.rkey)
            .finish_non_exhaustive()
    }
}

/// Whether the device can register dma-bufs: the kernel and its driver are asked with a descriptor that is none. Those that can
/// look at it first (EBADF); those that cannot, or a library without the call, say so (EOPNOTSUPP, EPROTONOSUPPORT).
pub(super) fn takes_dma_bufs(context: &VerbsContext) -> bool {
    let Some(register) = context.library.ibv_reg_dmabuf_mr else { return false };
    // SAFETY: the domain is alive, and no descriptor is -1, so nothing is registered.
    let raw = unsafe { register(context.domain.as_ptr(), 0, 0, 0, -1, 0) };
    let errno = last_errno();
    // A library that registers nothing at all is one that cannot.
    raw.is_null() && errno != libc::EOPNOTSUPP && errno != libc::EPROTONOSUPPORT
}

fn access_flags(access: &Access) -> c_uint {
    [
        (access.local_write, flag::IBV_ACCESS_LOCAL_WRITE),
        (access.remote_write, flag::IBV_ACCESS_REMOTE_WRITE),
        (access.remote_read, flag::IBV_ACCESS_REMOTE_READ),
        (access.remote_atomic, flag::IBV_ACCESS_REMOTE_ATOMIC),
    ]
    .iter()
    .filter(|(wanted, _)| *wanted)
    .fold(0, |flags, (_, right)| flags | right.0)
}

/// What to try after a failed registration.
fn hint(errno: i32, range: &MemoryRange) -> String {
    match errno {
        libc::ENOMEM => match getrlimit(Resource::Memlock).current {
            Some(limit) => format!(
                "registering {} bytes needs locked memory, and RLIMIT_MEMLOCK is {limit} bytes here: raise it \
                 (ulimit -l unlimited, LimitMEMLOCK=infinity in a systemd unit, --ulimit memlock=-1 for a container)",
                range.length
            ),
            None => "RLIMIT_MEMLOCK is unlimited: the host is out of memory, or the device out of regions"
                .to_owned(),
        },
        libc::EFAULT => format!(
            "{:#x}+{} is not mapped in this process, or not writable; GPU memory needs a dma-buf or the peer memory \
             module of its vendor",
            range.address, range.length
        ),
        libc::EINVAL if range.dma_buf.is_some() => {
            "the device refused the rights, or the range does not lie inside the dma-buf at that offset"
                .to_owned()
        }
        libc::EINVAL => "the device refused the rights: remote writing needs local writing".to_owned(),
        libc::EBADF if range.dma_buf.is_some() => "the descriptor is that of no dma-buf".to_owned(),
        libc::EOPNOTSUPP | libc::EPROTONOSUPPORT if range.dma_buf.is_some() => {
            "neither the kernel nor the device's driver can register a dma-buf".to_owned()
        }
        _ => "check the kernel's log (dmesg)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::Backing;

    fn range() -> MemoryRange {
        MemoryRange {
            address: 4096,
            length: 1 << 30,
            access: Access::FULL,
            dma_buf: None,
            file: None,
            cpu_address: None,
            backing: Backing::Unknown,
            announced: true,
        }
    }

    #[test]
    fn rights_map_one_to_one() {
        assert_eq!(access_flags(&Access::FULL), 0xf);
        assert_eq!(access_flags(&Access::READ_ONLY), flag::IBV_ACCESS_REMOTE_READ.0);
    }

    #[test]
    fn out_of_memory_names_the_limit() {
        let text = hint(libc::ENOMEM, &range());
        assert!(text.contains("RLIMIT_MEMLOCK"), "{text}");
    }
}
