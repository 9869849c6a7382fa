//! Peers by name: an engine publishes where it is reached, others look the name up, and watch names come and go.
//!
//! ```text
//!  engine ── publish("decode-3") ─▶ Lease        Directory: a list, or etcd        look_up, connect_name ◀── engine
//!                                     └─ kept alive by one thread ─▶ name: Record ─▶ watch: Published, Withdrawn
//! ```
//!
//! * [`open`] makes a [`Directory`] of a URL: `static:decode-3=192.0.2.7:7000`, or `etcd://host:2379/prefix`.
//! * A [`Record`] is what a name stands for: the address of an engine, and which engine it is. Nothing in it is secret.
//! * A [`Lease`] holds a published name. When it is dropped the name is withdrawn; when its process dies the name vanishes
//!   with the time of the lease, 10 s by default.
//! * [`EngineDirectory`] adds `publish` and `connect_name` to [`flagcx_p2p::Engine`].
//!
//! ```
//! use flagcx_p2p_directory::{Name, open};
//! use std::time::{Duration, Instant};
//!
//! let directory = open("static:decode-3=192.0.2.7:7000")?;
//! let found = directory.look_up(&Name::new("decode-3")?, Instant::now() + Duration::from_secs(1))?;
//! assert_eq!(found.map(|record| record.address).as_deref(), Some("192.0.2.7:7000"));
//! # Ok::<(), flagcx_p2p_directory::Error>(())
//! ```
//!
//! Every type may be used from any thread. Every call that may wait takes a deadline, and ends by it: with look-up of host names
//! and TLS. A directory belongs to the process that opened it: in a forked child its calls are refused, and a lease does nothing.
//!
//! The engine does not depend on this crate, and connects by address without it.
#![forbid(unsafe_code)]

mod deadline;
mod directory;
mod engine;
mod error;
mod etcd;
mod etcd_url;
mod lease;
mod name;
mod nearby;
mod probe;
mod record;
mod static_list;
mod url;
mod watch;

pub use directory::Directory;
pub use engine::EngineDirectory;
pub use error::Error;
pub use lease::Lease;
pub use name::Name;
pub use nearby::nearby;
pub use record::{FILE_SERVER, Record};
pub use url::{PASSWORD, PASSWORD_FILE, VARIABLE, open};
pub use watch::{Change, Watch};
