//! Engines and connections.
#![allow(unsafe_code, reason = "takes handles back from C++")]

use std::ptr;
use std::sync::Arc;

use flagcx_p2p::internals::config;
use flagcx_p2p::internals::engine::{Engine as CoreEngine, EngineError, EngineOptions};
use flagcx_p2p::internals::fork::Forked;

use super::text;
use crate::handles::{Conn, Engine};
use crate::logging;
use crate::refusal::{OK, OrRefuse, REFUSED, decline, note, refuse};

pub(crate) fn engine_create() -> *mut Engine {
    CoreEngine::open(Arc::clone(config::global()), EngineOptions::default())
        .pointer("flagcxP2pEngineCreate", Engine::into_raw)
}

/// # Safety
/// `engine` comes from [`engine_create`] and is not used again.
pub(crate) unsafe fn engine_destroy(engine: *mut Engine) {
    // SAFETY: the caller's promise.
    unsafe { Engine::destroy(engine) };
    logging::flush();
}

pub(crate) fn engine_stop_accept(engine: &Engine) {
    let state = engine.state();
    if state.core().here().or_refuse("flagcxP2pEngineStopAccept").is_some() {
        state.core().stop_accept();
    }
}

pub(crate) fn engine_connect(
    engine: &Engine,
    host: &[u8],
    remote_gpu: i32,
    port: i32,
    same_process: bool,
) -> *mut Conn {
    u16::try_from(port)
        .ok()
        .filter(|&port| port != 0)
        .ok_or_else(|| EngineError::Invalid(format!("port {port} is not within 1..=65535")))
        .and_then(|port| engine.state().core().connect(&text(host), port, remote_gpu, same_process))
        .pointer("flagcxP2pEngineConnect", Conn::into_raw)
}

pub(crate) fn engine_accept(engine: &Engine, ip: &mut String, remote_gpu: &mut i32) -> *mut Conn {
    match engine.state().core().accept() {
        // How every accepting thread ends: an info line, not a warning.
        Err(error @ EngineError::Unavailable(_)) => {
            decline("flagcxP2pEngineAccept", &error);
            ptr::null_mut()
        }
        accepted => accepted.pointer("flagcxP2pEngineAccept", |accepted| {
            *ip = accepted.ip.to_string();
            *remote_gpu = accepted.gpu_index;
            Conn::into_raw(accepted.connection)
        }),
    }
}

pub(crate) fn engine_rpc_port(engine: &Engine) -> i32 {
    let state = engine.state();
    let here = state.core().here().or_refuse("flagcxP2pEngineGetRpcPort");
    here.and_then(|()| state.core().rpc_port()).map_or(REFUSED, i32::from)
}

pub(crate) fn engine_start_rpc_server(engine: &Engine) -> i32 {
    engine.state().core().start_rpc_server().status("flagcxP2pEngineStartRpcServer", drop)
}

pub(crate) fn engine_session(engine: &Engine, session: &[u8]) -> *mut Conn {
    engine.state().session(&text(session)).pointer("flagcxP2pEngineGetConn", |conn| conn)
}

pub(crate) fn engine_metadata(engine: &Engine, out: &mut String) -> i32 {
    engine.state().core().metadata().status("flagcxP2pEngineGetMetadata", |metadata| *out = metadata)
}

/// # Safety
/// `conn` was given out by this bridge, its engine lives if it owns the connection, and it is not used again.
pub(crate) unsafe fn conn_destroy(conn: *mut Conn) {
    // SAFETY: the caller's promise.
    if !unsafe { Conn::destroy(conn) } {
        let reason = "the engine owns the connections of flagcxP2pEngineGetConn; nothing was done";
        refuse("flagcxP2pEngineConnDestroy", &reason);
    }
}

pub(crate) fn conn_is_local(conn: &Conn) -> bool {
    conn.connection().is_local()
}

/// -1, with the reason remembered, in a child of the process that made the engine. No log line: callers may poll without end.
pub(crate) fn engine_here(engine: &Engine, call: &str) -> i32 {
    here(call, engine.state().core().here())
}

/// Whether the handle is of this process. [`conn_here`] says so in words; to hand the name of a call to it takes 130 instructions.
pub(crate) fn conn_is_here(conn: &Conn) -> bool {
    conn.connection().here().is_ok()
}

/// [`engine_here`] for a connection.
pub(crate) fn conn_here(conn: &Conn, call: &str) -> i32 {
    here(call, conn.connection().here())
}

fn here(call: &str, here: Result<(), Forked>) -> i32 {
    let Err(forked) = here else { return OK };
    note(call, &forked);
    REFUSED
}
