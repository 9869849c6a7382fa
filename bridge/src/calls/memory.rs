//! Registration and descriptors.
#![allow(unsafe_code, reason = "registers memory that the C++ caller promises to keep mapped")]

use flagcx_p2p::internals::engine::{AllocateOptions, EngineError, RegisterOptions, free_kept};
use flagcx_p2p::internals::fabric::{Access, SharedFile};
use flagcx_p2p::internals::gpu::IPC_INFO_BYTES;
use flagcx_p2p::internals::memory::{MemoryKind, RegionId};

use crate::handles::{self, Conn, Desc, Engine};
use crate::refusal::{OrRefuse, REFUSED};

/// Registration flags of `flagcx_p2p_ext.h`.
const HOST: u32 = 1;
const DEVICE: u32 = 2;
const UNANNOUNCED: u32 = 256;
const READ_ONLY: u32 = 512;
const ALLOC_HUGE: u32 = 1024;
const ALLOC_OUTLIVE: u32 = 2048;

/// # Safety
/// The range stays mapped until it is deregistered, and the caller expects peers to change it at any time.
pub(crate) unsafe fn engine_register(
    engine: &Engine,
    address: usize,
    size: usize,
    flags: u32,
    id: &mut u64,
) -> i32 {
    options(flags)
        .and_then(|options| {
            // SAFETY: the caller's promise.
            unsafe { engine.state().core().register(address as u64, size as u64, options) }
        })
        .status("flagcxP2pEngineReg", |region| *id = region.0)
}

/// # Safety
/// As [`engine_register`].
pub(crate) unsafe fn engine_register_shared(
    engine: &Engine,
    address: usize,
    size: usize,
    fd: i32,
    offset: u64,
    flags: u32,
    id: &mut u64,
) -> i32 {
    shared_options(flags, SharedFile { fd, offset, is_own: false })
        .and_then(|options| {
            // SAFETY: the caller's promise.
            unsafe { engine.state().core().register(address as u64, size as u64, options) }
        })
        .status("flagcxP2pEngineRegShared", |region| *id = region.0)
}

pub(crate) fn engine_allocate(
    engine: &Engine,
    size: usize,
    flags: u32,
    address: &mut usize,
    id: &mut u64,
) -> i32 {
    allocate_options(flags)
        .and_then(|options| {
            engine.state().core().allocate_at_address(size, options, flags & ALLOC_OUTLIVE != 0)
        })
        .status("flagcxP2pEngineAllocShared", |(start, region)| {
            *address = start as usize;
            *id = region.0;
        })
}

pub(crate) fn engine_free(engine: &Engine, address: usize) -> i32 {
    engine.state().core().free(address as u64).status("flagcxP2pEngineFreeShared", drop)
}

/// Memory that has outlived its engine.
pub(crate) fn free_outlived(address: usize) -> i32 {
    free_kept(address as u64).status("flagcxP2pEngineFreeShared", drop)
}

pub(crate) fn engine_deregister(engine: &Engine, id: u64) {
    let state = engine.state();
    if state.core().here().or_refuse("flagcxP2pEngineMrDestroy").is_some() {
        state.core().deregister(RegionId(id));
    }
}

pub(crate) fn engine_describe(engine: &Engine, id: u64, address: usize, size: usize, out: &mut Desc) -> i32 {
    engine
        .state()
        .core()
        .describe(RegionId(id), address as u64, size as u64)
        .status("flagcxP2pEnginePrepareDesc", |desc| *out = Desc(desc.into()))
}

pub(crate) fn conn_describe_remote(conn: &Conn, address: u64, size: u32, out: &mut Desc) -> i32 {
    if conn.connection().here().or_refuse("flagcxP2pEngineMakeDesc").is_none() {
        return REFUSED;
    }
    conn.connection()
        .describe_remote(address, size)
        .ok_or_else(|| conn.connection().not_announced(address, u64::from(size)))
        .status("flagcxP2pEngineMakeDesc", |desc| *out = Desc(desc.into()))
}

/// 0 if a region of any engine holds `address`; `found`: other processes can open it, by `out`.
pub(crate) fn ipc_info(address: usize, out: &mut [u8; IPC_INFO_BYTES], found: &mut bool) -> i32 {
    *found = false;
    handles::engines()
        .iter()
        .find_map(|engine| engine.core().ipc_info(address as u64))
        .ok_or_else(|| format!("no region holds {address:#x}"))
        .status("flagcxP2pEngineGetIpcInfo", |info| {
            if let Some(info) = info {
                *out = info.encode();
                *found = true;
            }
        })
}

fn shared_options(flags: u32, file: SharedFile) -> Result<RegisterOptions, EngineError> {
    if flags & !(HOST | UNANNOUNCED | READ_ONLY) != 0 {
        return Err(unexpected("registration", flags, "HOST, UNANNOUNCED, READ_ONLY"));
    }
    Ok(RegisterOptions { file: Some(file), ..options(flags | HOST)? })
}

fn allocate_options(flags: u32) -> Result<AllocateOptions, EngineError> {
    if flags & !(HOST | UNANNOUNCED | READ_ONLY | ALLOC_HUGE | ALLOC_OUTLIVE) != 0 {
        let expected = "HOST, UNANNOUNCED, READ_ONLY, ALLOC_HUGE, ALLOC_OUTLIVE";
        return Err(unexpected("allocation", flags, expected));
    }
    Ok(AllocateOptions {
        huge_pages: flags & ALLOC_HUGE != 0,
        access: access(flags),
        announced: flags & UNANNOUNCED == 0,
    })
}

fn unexpected(of: &str, flags: u32, expected: &str) -> EngineError {
    EngineError::Invalid(format!("{of} flags {flags:#x}: expected none or some of {expected}"))
}

fn access(flags: u32) -> Access {
    if flags & READ_ONLY == 0 { Access::FULL } else { Access::READ_ONLY }
}

fn options(flags: u32) -> Result<RegisterOptions, EngineError> {
    let kind = match flags & !(UNANNOUNCED | READ_ONLY) {
        0 => MemoryKind::Probe,
        HOST => MemoryKind::Host,
        DEVICE => MemoryKind::Gpu,
        _ => {
            return Err(EngineError::Invalid(format!(
                "registration flags {flags:#x}: expected HOST or DEVICE or neither, UNANNOUNCED, READ_ONLY"
            )));
        }
    };
    let access = access(flags);
    Ok(RegisterOptions { kind, access, announced: flags & UNANNOUNCED == 0, dma_buf: None, file: None })
}
