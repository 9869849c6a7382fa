//! Copies by a GPU's copy engines, as the posting half of the provider contract.
//!
//! A copy stream is a work queue. It is made in this process and leads to no peer: both ends of a request are addresses of
//! this process, those of memory that another process has exported included. To post is to start copies and to mark their
//! end, to poll is to ask whether a mark is reached, and to arm is to ask the runtime for a call at the end of the stream, or
//! to set a timer where it makes none.
//!
//! What a request names is checked before it is posted: keys here say only what kind of memory an address is, see [`key`].
//!
//! Copies cannot be stopped ([`WorkQueue::can_stop`](super::WorkQueue::can_stop)): a queue in ERROR starts none, and those
//! under way complete when they are done. Only that a mark is reached, or proof that the GPU or the stream's context is lost,
//! ends a copy. What a lost context leaves fails from the first request on that is not known to be done.

mod completion_queue;
mod copies;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests;
mod work_queue;

pub use completion_queue::{CopyStreams, GpuCompletionQueue};
pub use work_queue::{GpuWorkQueue, OpenStream};

/// The key of memory: whether it is a GPU's, and a `number` of the poster's choice, below 2^31. Requests over memory with
/// different keys are not joined.
pub const fn key(on_gpu: bool, number: u32) -> u32 {
    number << 1 | on_gpu as u32
}

/// Whether memory with this key is a GPU's.
const fn is_gpu(key: u32) -> bool {
    key & 1 != 0
}
