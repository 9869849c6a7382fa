//! What `fork()` means here: a child starts anew, and its parent and their peers do not notice.
//!
//! A child has a copy of the parent's memory and one thread. Locks may be held for ever in that copy, by threads that only
//! the parent has; sockets, epoll instances, shared tables and NIC contexts are still the parent's. So nothing that was
//! made before the fork is used after it:
//!
//! * [`ProcessGeneration`] tells processes of one line of forks apart, for the price of two loads;
//! * [`PerProcess`] holds what there is one of in a process: a child gets a fresh one;
//! * [`OfProcess`] holds what belongs to a handle: in a child it is refused, and forgotten where it would be dropped;
//! * `OwnSocket` is a socket that a child closes at once, so that the end of the parent is seen by its peers, and its ports
//!   become free.

mod generation;
mod loader_error;
mod loading;
mod of_process;
mod own_socket;
mod per_process;

pub use generation::ProcessGeneration;
pub(crate) use loader_error::loader_error;
pub(crate) use loading::load_apart_from_forks;
pub use of_process::{Forked, OfProcess};
pub(crate) use own_socket::OwnSocket;
pub use per_process::PerProcess;
