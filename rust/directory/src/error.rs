//! Why a call to a directory failed.

use std::time::Duration;

use flagcx_p2p::{EngineError, Forked};

/// Why a call to a directory failed. No text contains a password.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A URL that names no directory. Its user and password are left out.
    #[error(
        "directory {url:?}: {problem}; expected static:NAME=HOST:PORT[,...], static:FILE or \
         etcd[s]://[USER[:PASSWORD]@]HOST[:PORT][,...][/PREFIX][?lease=SECONDS&ca=FILE]"
    )]
    Url {
        /// The URL, without user and password.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// A name that is written wrong.
    #[error("name {name:?}: {problem}")]
    Name {
        /// Its beginning.
        name: String,
        /// What a name has.
        problem: &'static str,
    },
    /// A record that cannot be stored, or is stored under a name and cannot be read.
    #[error("record of {name:?}: {problem}")]
    Record {
        /// The name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// Another engine holds the name, and answers at its address.
    #[error(
        "publish {name:?}: it is in use by the engine at {address} (host {host:?}, pid {pid}): choose another name, or stop that \
         engine"
    )]
    NameInUse {
        /// The name.
        name: String,
        /// Where that engine is.
        address: String,
        /// On which host, as it says.
        host: String,
        /// In which process there.
        pid: u32,
    },
    /// Another engine holds the name, and this host cannot find out whether it is gone.
    #[error(
        "publish {name:?}: it is held by the engine at {address}, and whether that is gone cannot be found out: {reason}; the name is \
         free when the lease of an engine that is gone has run out"
    )]
    HolderUnknown {
        /// The name.
        name: String,
        /// Where that engine was published.
        address: String,
        /// Why it could not be asked.
        reason: String,
    },
    /// A list cannot be changed by a program: the name is not in it, or with another address.
    #[error(
        "publish {name:?} at {address}: the list says {listed}; add the line {name}={address} to it, or use etcd"
    )]
    NotListed {
        /// The name.
        name: String,
        /// The address that was to be published.
        address: String,
        /// What the list says of the name.
        listed: String,
    },
    /// Nothing is published under the name.
    #[error(
        "connect to {name:?}: {directory} has no such name; check that the peer is running and publishes it, or list the names \
         with `flagcx-p2p peers`"
    )]
    NotPublished {
        /// The name.
        name: String,
        /// The directory.
        directory: String,
    },
    /// The name leads to an address at which no engine answers.
    #[error("connect to {name:?}: its peer at {address} does not answer: {reason}")]
    PeerGone {
        /// The name.
        name: String,
        /// The published address.
        address: String,
        /// What was tried.
        reason: String,
    },
    /// The name leads to an address at which another engine answers than was published.
    #[error(
        "connect to {name:?}: at {address} answers engine {found:016x}, published is {published:016x}: that peer has ended, and its \
         address was given to another one; it vanishes from the directory with its lease"
    )]
    OtherEngine {
        /// The name.
        name: String,
        /// The published address.
        address: String,
        /// The engine that was published.
        published: u64,
        /// The engine that answers.
        found: u64,
    },
    /// No server of the directory could be reached.
    #[error(
        "{operation}: no server of {directory} answers: {reason}; check that they run and can be reached"
    )]
    Unreachable {
        /// What was attempted.
        operation: String,
        /// The directory.
        directory: String,
        /// What was tried at each.
        reason: String,
    },
    /// User or password are wrong or missing, or the user may not do it.
    #[error("{operation}: {endpoint} refuses {user}: {reason} (error {code})")]
    Denied {
        /// What was attempted.
        operation: String,
        /// The server.
        endpoint: String,
        /// The user, or that none was given.
        user: String,
        /// The code of gRPC.
        code: u32,
        /// What the server says.
        reason: String,
    },
    /// A server refused the request.
    #[error("{operation}: {endpoint} answers with error {code}: {reason}")]
    Refused {
        /// What was attempted.
        operation: String,
        /// The server.
        endpoint: String,
        /// The code of gRPC, or the status of HTTP.
        code: u32,
        /// What the server says.
        reason: String,
    },
    /// A server answered what cannot be understood.
    #[error(
        "{operation}: cannot read the answer of {endpoint}: {problem}; check that it is an etcd of version 3.4 or later"
    )]
    Answer {
        /// What was attempted.
        operation: String,
        /// The server.
        endpoint: String,
        /// What is wrong.
        problem: String,
    },
    /// A server answered with more than is taken in at once. Asking again would answer the same.
    #[error(
        "{operation}: an answer of {endpoint} is longer than the limit of {} MiB: give the names a prefix of their own, \
         etcd://.../PREFIX, under which no other program keeps large values; list and watch a smaller part of it",
        limit >> 20
    )]
    TooLong {
        /// What was attempted.
        operation: String,
        /// The server.
        endpoint: String,
        /// Bytes of an answer, or of a line of one, at most.
        limit: u64,
    },
    /// The time of the call was over.
    #[error("{operation}: not done within {} ms; {reason}", time.as_millis())]
    Deadline {
        /// What was attempted.
        operation: String,
        /// How long it was tried.
        time: Duration,
        /// What it waited for.
        reason: String,
    },
    /// A file cannot be read: a list, a certificate, a password.
    #[error("{operation} {path}: {reason}")]
    File {
        /// What was attempted.
        operation: &'static str,
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// The system has no thread or descriptor left.
    #[error("{operation}: {reason}")]
    System {
        /// What was attempted.
        operation: &'static str,
        /// Why not.
        reason: String,
    },
    /// The directory is of a process from which this one was forked.
    #[error("directory: {0}")]
    Forked(#[from] Forked),
    /// The engine could not do it.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
