//! The engine: lifecycle, memory registration, connect and accept, sessions.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::connection::Connection;
use crate::fabric::DeviceList;
use crate::memory::{MemoryKind, RegionId};
use crate::transfer::RdmaDesc;

/// An engine. Owns its regions, listeners, sessions and transfers: dropping it never disturbs another engine.
#[derive(Debug)]
pub struct Engine {
    _private: (),
}

/// How to open an engine.
#[derive(Debug, Default)]
pub struct EngineOptions {
    /// Index of the GPU whose NIC is wanted, and that is reported to peers.
    pub gpu_index: i32,
    /// Devices to choose from; `None` takes the process-wide list.
    pub devices: Option<Arc<DeviceList>>,
}

/// Who was accepted.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The connection, symmetric to the peer's.
    pub connection: Arc<Connection>,
    /// The peer's address.
    pub ip: IpAddr,
    /// The peer's GPU index.
    pub gpu_index: i32,
}

/// Why an engine call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// The fabric could not do it.
    #[error(transparent)]
    Fabric(#[from] crate::fabric::FabricError),
    /// A memory range cannot be registered or named so.
    #[error("memory {address:#x}+{length}: {problem}")]
    Memory {
        /// Start.
        address: u64,
        /// Bytes.
        length: u64,
        /// What is wrong.
        problem: String,
    },
    /// A peer cannot be reached or its handshake failed.
    #[error("{operation} {peer}: {reason}")]
    Peer {
        /// What was attempted (`connect to`, `accept from`).
        operation: &'static str,
        /// Who.
        peer: String,
        /// Why not.
        reason: String,
    },
    /// The engine is stopped, or has no device to do this with.
    #[error("{0}")]
    Unavailable(String),
    /// The caller's argument makes no sense; the text says which and why.
    #[error("{0}")]
    Invalid(String),
}

impl Engine {
    /// Opens an engine: device, listeners, region table. Without any device it still lives and reports metadata,
    /// but can neither connect nor accept.
    pub fn open(_config: Arc<Config>, _options: EngineOptions) -> Result<Arc<Self>, EngineError> {
        Err(EngineError::Unavailable("not built yet".to_owned()))
    }

    /// `ip:port?gpu?notifPort` (contract 5.7).
    pub fn metadata(&self) -> Result<String, EngineError> {
        Err(EngineError::Unavailable("not built yet".to_owned()))
    }

    /// Port of the control listener, `None` without one.
    pub fn rpc_port(&self) -> Option<u16> {
        None
    }

    /// Registers memory.
    ///
    /// # Safety
    /// `address..address + length` must stay mapped until [`Engine::deregister`] has returned, and the caller must
    /// expect peers to read and write it at any time.
    #[allow(unsafe_code, reason = "declares the caller's promise; does nothing unsafe itself")]
    pub unsafe fn register(
        &self,
        _address: u64,
        _length: u64,
        _kind: MemoryKind,
    ) -> Result<RegionId, EngineError> {
        Err(EngineError::Unavailable("not built yet".to_owned()))
    }

    /// Allocates page-aligned, zeroed memory and registers it: the safe way for Rust callers.
    pub fn allocate(self: &Arc<Self>, _length: usize) -> Result<RegisteredBuffer, EngineError> {
        Err(EngineError::Unavailable("not built yet".to_owned()))
    }

    /// Ends a registration. Waits for transfers in flight on it (at most the transfer deadline, else 30 s).
    /// An id of another engine, or an unknown one, is a logged no-op.
    pub fn deregister(&self, _id: RegionId) {}

    /// A descriptor for `size` bytes at `address` inside a region of this engine.
    pub fn describe(&self, _id: RegionId, _address: u64, _size: u64) -> Result<RdmaDesc, EngineError> {
        Err(EngineError::Unavailable("not built yet".to_owned()))
    }

    /// Connects to a peer's control listener.
    pub fn connect(
        self: &Arc<Self>,
        _host: &str,
        _port: u16,
        _remote_gpu: i32,
        _same_process: bool,
    ) -> Result<Arc<Connection>, EngineError> {
        Err(EngineError::Unavailable("not built yet".to_owned()))
    }

    /// Waits for one peer. Ends with an error when a peer's handshake failed, or after [`Engine::stop_accept`].
    pub fn accept(self: &Arc<Self>) -> Result<Accepted, EngineError> {
        Err(EngineError::Unavailable("not built yet".to_owned()))
    }

    /// Ends waiting and future accepts for good. Idempotent.
    pub fn stop_accept(&self) {}

    /// Accepts in the background and keeps the connections. Idempotent.
    pub fn start_rpc_server(self: &Arc<Self>) -> Result<(), EngineError> {
        Ok(())
    }

    /// The cached connection of `host:port` (or `[v6]:port`), connecting at the first call.
    pub fn session(self: &Arc<Self>, _session: &str) -> Result<Arc<Connection>, EngineError> {
        Err(EngineError::Unavailable("not built yet".to_owned()))
    }

    /// Stops everything and ends every transfer. Also done on drop.
    pub fn close(&self) {}
}

/// Anonymous memory, registered. Deregistered and unmapped when dropped. Peers may change it at any time, so its
/// bytes are read and written by copy only.
#[derive(Debug)]
pub struct RegisteredBuffer {
    _private: (),
}

impl RegisteredBuffer {
    /// Start address.
    pub fn address(&self) -> u64 {
        0
    }
    /// Bytes.
    pub fn len(&self) -> usize {
        0
    }
    /// Whether it has no bytes; never true.
    pub fn is_empty(&self) -> bool {
        false
    }
    /// Its region.
    pub fn region(&self) -> RegionId {
        RegionId(0)
    }
    /// Copies `bytes` in at `offset`; false if they do not fit.
    pub fn write(&self, _offset: usize, _bytes: &[u8]) -> bool {
        false
    }
    /// Fills `bytes` from `offset` on; false if out of range.
    pub fn read(&self, _offset: usize, _bytes: &mut [u8]) -> bool {
        false
    }
}
