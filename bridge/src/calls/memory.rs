//! Registration and descriptors.
#![allow(unsafe_code, reason = "registers memory on the C++ caller's word")]

use flagcx_p2p::engine::EngineError;
use flagcx_p2p::memory::{MemoryKind, RegionId};

use crate::handles::{Conn, Desc, Engine};
use crate::refusal::OrRefuse;

/// Registration flags of `flagcx_p2p_ext.h`.
const HOST: u32 = 1;
const DEVICE: u32 = 2;

/// # Safety
/// The range stays mapped until it is deregistered, and the caller expects peers to change it at any time.
pub(crate) unsafe fn engine_register(
    engine: &Engine,
    address: usize,
    size: usize,
    flags: u32,
    id: &mut u64,
) -> i32 {
    kind_of(flags)
        .and_then(|kind| {
            // SAFETY: the caller's promise.
            unsafe { engine.state().core().register(address as u64, size as u64, kind) }
        })
        .status("flagcxP2pEngineReg", |region| *id = region.0)
}

pub(crate) fn engine_deregister(engine: &Engine, id: u64) {
    engine.state().core().deregister(RegionId(id));
}

pub(crate) fn engine_describe(engine: &Engine, id: u64, address: usize, size: usize, out: &mut Desc) -> i32 {
    engine
        .state()
        .core()
        .describe(RegionId(id), address as u64, size as u64)
        .status("flagcxP2pEnginePrepareDesc", |desc| *out = Desc(desc))
}

pub(crate) fn conn_describe_remote(conn: &Conn, address: u64, size: u32, out: &mut Desc) -> i32 {
    conn.connection()
        .describe_remote(address, size)
        .ok_or_else(|| format!("the peer announced no region that holds {address:#x}+{size}"))
        .status("flagcxP2pEngineMakeDesc", |desc| *out = Desc(desc))
}

/// 0 if `address` lies in a region of the process; none is opened to other processes yet.
pub(crate) fn ipc_info(address: usize) -> i32 {
    Err::<(), _>(format!("{address:#x}: device memory is not built yet"))
        .status("flagcxP2pEngineGetIpcInfo", drop)
}

fn kind_of(flags: u32) -> Result<MemoryKind, EngineError> {
    match flags {
        0 => Ok(MemoryKind::Probe),
        HOST => Ok(MemoryKind::Host),
        DEVICE => Ok(MemoryKind::Device),
        _ => Err(EngineError::Invalid(format!("registration flags {flags:#x} are not known"))),
    }
}
