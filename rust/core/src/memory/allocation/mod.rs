//! Memory that the engine allocates: a memfd, which peers of this host can map, or private anonymous memory.
//!
//! A memfd of the engine has a fixed size (sealed against shrinking and growing), its pages are reserved before it is handed
//! out, and this process punches no holes into it: an access never faults. So plain copies to and from it are safe, here
//! and at a peer that maps it.
//!
//! The pages serve nothing else before the end of the allocation: [`Allocation`] is unmapped when it has been released and
//! no registration uses it any more. A peer that was stopped in the middle of a copy may go on after that: through a mapping
//! of its own, to a file that nothing uses any more; by a copy of the kernel (process_vm_writev), to addresses of this process,
//! which stay mapped for that reason.
//!
//! A forked child shares the pages: what it writes is seen by its parent and by the parent's peers. It has no handle to
//! free them with; they are given back when the parent has released them and the child has ended or called `exec`.

mod available;
mod cgroup;
mod error;
mod mapped_file;
mod memfd;
mod pages;
mod table;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests;
mod uses;

pub use error::{AllocationError, SharedFileError};
pub use mapped_file::check_mapped_file;
pub use table::is_allocated;
pub use uses::Allocation;
pub(crate) use uses::{AllocationUse, BeingFreed};
