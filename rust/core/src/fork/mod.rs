//! Support for `fork()`: a child starts with fresh state, and its parent and their peers are unaffected.
//!
//! A child has a copy of the parent's memory and one thread. Locks in that copy may be held for ever, by threads that
//! only the parent has; sockets, epoll instances, shared tables and NIC contexts belong to the parent. So a child
//! uses nothing that was made before the fork:
//!
//! * [`ProcessGeneration`] identifies a process in its line of forks, for the cost of two loads;
//! * [`PerProcess`] holds a value of which each process has its own: a child gets a fresh one;
//! * [`OfProcess`] holds the state of a handle: in a child, use is refused and drop does nothing;
//! * `OwnSocket` is a socket that a child closes at once, so that peers see the end of the parent, and its ports
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
