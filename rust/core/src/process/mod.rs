//! Other processes of this host: which process a peer is, and when it ends.
//!
//! A socket tells of the end of its process only if no other one holds it; a helper that the peer has forked may keep all
//! of them open. A pidfd tells of the process itself. There is one for each peer process, shared by everything that has to
//! do with it, and watched by the event loop.
//!
//! * [`ProcessIdentity`] is what a peer says about its process, and what must be true of it before its pid is believed;
//! * [`PeerProcess`] is a process of this host, with those who are told of its end.

mod identity;
mod peer_process;
mod state;

pub use identity::ProcessIdentity;
pub(crate) use peer_process::EndWatcher;
pub use peer_process::PeerProcess;
pub(crate) use state::describe;
