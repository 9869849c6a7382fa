//! How bytes travel.

use std::fmt;

/// How bytes reach the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathKind {
    /// Not connected yet.
    None,
    /// An RDMA device.
    Rdma,
    /// Both ends in one process: plain copies.
    InProcess,
    /// Two processes of one host: cross-memory copies (process_vm_readv/writev).
    CrossMemory,
    /// A TCP stream.
    Tcp,
    /// Two processes of one host: plain copies to and from memory of the peer that is mapped here.
    Shared,
}

impl PathKind {
    /// Its name, for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Rdma => "rdma",
            Self::InProcess => "in-process",
            Self::CrossMemory => "cross-memory",
            Self::Tcp => "tcp",
            Self::Shared => "shared",
        }
    }
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How READs and WRITEs reach the peer. They differ where the kernel denies one of the two copies between processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Paths {
    /// Of READs.
    pub read: PathKind,
    /// Of WRITEs.
    pub write: PathKind,
}

impl Paths {
    /// One path for READs and WRITEs.
    pub fn both(path: PathKind) -> Self {
        Self { read: path, write: path }
    }

    /// The slower of the two.
    pub fn slower(self) -> PathKind {
        if self.read == PathKind::Tcp { self.read } else { self.write }
    }
}

impl fmt::Display for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { read, write } if read == write => read.fmt(f),
            Self { read, write } => write!(f, "{read} for READs, {write} for WRITEs"),
        }
    }
}
