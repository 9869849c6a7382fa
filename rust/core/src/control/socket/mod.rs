//! Blocking TCP in which every wait has a deadline and can be aborted from another thread.

mod abort;
mod connect;
mod connect_any;
mod listener;
mod schedule;
mod stream;

pub use abort::Abort;
pub(super) use abort::{wait_any, wait_ready};
pub use connect::connect;
pub(super) use connect::{connect_from, connect_once};
pub(super) use connect_any::listed;
pub use connect_any::{Miss, Unreached, connect_any};
pub use listener::Listener;
pub use schedule::Patience;
pub use stream::Stream;

#[cfg(test)]
mod tests;
