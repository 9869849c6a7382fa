//! Blocking TCP in which every wait has a deadline and can be aborted from another thread.

mod abort;
mod connect;
mod listener;
mod stream;

pub use abort::Abort;
pub use connect::connect;
pub use listener::Listener;
pub use stream::Stream;

#[cfg(test)]
mod tests;
