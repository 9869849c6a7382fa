//! The event loop of the process: one thread that waits for everything that is not a transfer.
//!
//! ```text
//!   any thread ── spawn ──▶ EventLoop (one thread, epoll, timers)
//!                             │  tasks: connections, NIC events, listeners, handshakes, notifications
//!                             └─ blocking ──▶ Helpers (at most four threads): queue pairs are created, drained, destroyed
//! ```
//!
//! A task is a future that runs on the loop's thread and never blocks it: it waits through its `EventLoopHandle`, and hands calls
//! that block to a helper thread with `EventLoopHandle::blocking`. The loop starts with its first user and ends with its last.
//!
//! Beside it stand `Notifier` and `Alarm`, the descriptors by which threads wake one another, and `Polling`, what a thread does
//! before it sleeps.

mod abort;
mod alarm;
mod event_loop;
mod group;
mod handle;
mod helpers;
mod interrupted;
mod look_rounds;
mod loop_waker;
mod notifier;
mod off_loop;
mod polling;
mod readiness;
mod task;
pub(crate) mod tcp;
mod thread_time;
mod timers;
mod waiter;
mod wakeup;
mod watched;

pub use abort::Abort;
pub(crate) use alarm::Alarm;
pub(crate) use event_loop::{EventLoop, is_loop_thread};
pub(crate) use group::SocketGroup;
pub(crate) use handle::{EventLoopHandle, first};
pub(crate) use interrupted::uninterrupted;
pub(crate) use look_rounds::LookRound;
#[cfg(test)]
pub(crate) use look_rounds::LookRounds;
pub use notifier::Notifier;
pub(crate) use off_loop::{off_loop, with_upgraded};
pub(crate) use polling::{Polling, Wait};
pub(crate) use readiness::{is_ready, wait_for};
pub(crate) use task::Task;
pub use waiter::{Interest, Waiter, run_blocking};
pub(crate) use wakeup::Wakeup;
pub(crate) use watched::Watched;

#[cfg(test)]
mod tests;
