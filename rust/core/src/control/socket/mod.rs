//! Blocking TCP in which every wait has a deadline and can be aborted from another thread.

mod abort;
mod connect;
mod listener;
mod stream;

pub use abort::Abort;
pub(super) use abort::wait_any;
pub use connect::connect;
pub(super) use connect::{connect_from, connect_once};
pub use listener::Listener;
pub use stream::Stream;

#[cfg(test)]
mod tests;
