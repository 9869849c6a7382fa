//! Other processes of this host: the process of a peer, and its end.
//!
//! A socket shows the end of its process only if no other process holds it; a helper that the peer has forked may
//! keep all of them open. A pidfd shows the end of the process itself. There is one for each peer process, shared by
//! all of its connections and watched by the event loop.
//!
//! * [`ProcessIdentity`] is the identity that a peer announces, and the check of it before its pid is used;
//! * [`PeerProcess`] is a process of this host, with the watchers of its end.

mod identity;
mod peer_process;
mod state;

pub use identity::ProcessIdentity;
pub(crate) use peer_process::EndWatcher;
pub use peer_process::PeerProcess;
pub(crate) use state::describe;
