//! TCP in which every wait has a deadline: it blocks and can be aborted from another thread, or is a task's.

mod connect;
mod connect_any;
mod interface_listeners;
mod listener;
mod path_facts;
mod schedule;
mod source;
mod stream;

pub use connect::connect;
#[cfg(test)]
pub(super) use connect::connect_once;
pub(super) use connect::{connect_from, connect_over};
pub(super) use connect_any::listed;
pub use connect_any::{AddressFailure, ConnectError, connect_any};
pub use listener::Listener;
pub(super) use listener::is_starved;
pub use path_facts::{PathFacts, path_facts};
pub use schedule::RefusalPolicy;
pub use source::Source;
pub use stream::Stream;

#[cfg(test)]
mod tests;
