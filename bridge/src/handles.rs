//! The C handles: what `FlagcxP2pEngine *` and `FlagcxP2pConn *` point at, and the plain structs of the public header.
#![allow(unsafe_code, reason = "promises to cxx what the header's structs look like, and takes handles back")]

use std::collections::HashMap;
use std::mem::offset_of;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::desc::RdmaDesc;
use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::{Engine as CoreEngine, EngineError};
use flagcx_p2p::internals::fork::{OfProcess, PerProcess};
use flagcx_p2p::internals::notify::Message;

/// First 4 bytes of both handles, by which FlagCX distinguishes this transport's handles from others'.
const KIND: u32 = 0x1B2C_0001;

/// Target of `FlagcxP2pEngine *`.
#[repr(C)]
pub(crate) struct Engine {
    kind: u32,
    // Shared, so that a call which is still blocked while the engine is destroyed keeps its state.
    state: OfProcess<Arc<EngineState>>,
}

/// Target of `FlagcxP2pConn *`. Only ever reached through `&`; it lives in an `Arc`, so its address stays.
#[repr(C)]
pub(crate) struct Conn {
    kind: u32,
    owner: Owner,
    connection: Arc<Connection>,
}

/// Which side ends a connection's handle.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// The caller, by `flagcxP2pEngineConnDestroy`.
    Caller,
    /// Its engine: it is a cached session.
    Engine,
}

const _: () = assert!(offset_of!(Engine, kind) == 0 && offset_of!(Conn, kind) == 0);

/// Every engine of the process, for the calls that name none.
static ENGINES: PerProcess<Mutex<Vec<Weak<EngineState>>>> = PerProcess::new(Mutex::default);

/// The engines of the process, in the order that they were made in.
pub(crate) fn engines() -> Vec<Arc<EngineState>> {
    lock(ENGINES.get()).iter().filter_map(Weak::upgrade).collect()
}

/// What an engine's calls work on.
pub(crate) struct EngineState {
    core: Arc<CoreEngine>,
    sessions: Mutex<Sessions>,
}

/// Handles of the engine's own connections. A handle once given out stays until the engine ends, so that a caller
/// with an old pointer gets failing calls, never freed memory.
#[derive(Default)]
struct Sessions {
    current: HashMap<String, Arc<Conn>>,
    retired: Vec<Arc<Conn>>,
}

impl Engine {
    /// Hands a new engine to C++.
    pub(crate) fn into_raw(core: Arc<CoreEngine>) -> *mut Self {
        let state = Arc::new(EngineState { core, sessions: Mutex::default() });
        let mut engines = lock(ENGINES.get());
        engines.retain(|engine| engine.strong_count() > 0);
        engines.push(Arc::downgrade(&state));
        drop(engines);
        Box::into_raw(Box::new(Self { kind: KIND, state: OfProcess::new(state) }))
    }

    /// Takes an engine back from C++ and ends it; in a forked child it is forgotten.
    ///
    /// # Safety
    /// `raw` comes from [`Engine::into_raw`] and is not used again.
    pub(crate) unsafe fn destroy(raw: *mut Self) {
        // SAFETY: the caller's promise.
        let handle = unsafe { Box::from_raw(raw) };
        if let Ok(state) = OfProcess::here(&handle.state) {
            state.core.close();
        }
    }

    /// What this handle's calls work on.
    pub(crate) fn state(&self) -> Arc<EngineState> {
        Arc::clone(&self.state)
    }
}

impl EngineState {
    /// The engine.
    pub(crate) fn core(&self) -> &Arc<CoreEngine> {
        &self.core
    }

    /// The handle of the session's connection: the same one as long as the engine answers the same connection.
    pub(crate) fn session(&self, name: &str) -> Result<*mut Conn, EngineError> {
        let connection = self.core.session(name)?;
        let mut sessions = lock(&self.sessions);
        if let Some(conn) = sessions.current.get(name)
            && Arc::ptr_eq(&conn.connection, &connection)
        {
            return Ok(Arc::as_ptr(conn).cast_mut());
        }
        let conn = Arc::new(Conn { kind: KIND, owner: Owner::Engine, connection });
        let raw = Arc::as_ptr(&conn).cast_mut();
        let replaced = sessions.current.insert(name.to_owned(), conn);
        sessions.retired.extend(replaced);
        Ok(raw)
    }
}

impl Conn {
    /// Hands a connection to C++, which must give it back.
    pub(crate) fn into_raw(connection: Arc<Connection>) -> *mut Self {
        let conn = Arc::new(Self { kind: KIND, owner: Owner::Caller, connection });
        Arc::into_raw(conn).cast_mut()
    }

    /// Takes a connection back from C++ and closes it; in a forked child it is forgotten. False, and nothing is done, if its engine owns it.
    ///
    /// # Safety
    /// `raw` comes from [`Conn::into_raw`] and is not used again, or from [`EngineState::session`] of a live engine.
    pub(crate) unsafe fn destroy(raw: *mut Self) -> bool {
        // SAFETY: the caller's promise: the handle is alive.
        if unsafe { &*raw }.owner == Owner::Engine {
            return false;
        }
        // SAFETY: the caller's promise, and a handle of this owner comes from `Arc::into_raw`.
        let conn = unsafe { Arc::from_raw(raw.cast_const()) };
        if conn.connection.here().is_err() {
            // What else refers to it is as it was at the fork.
            std::mem::forget(conn);
            return true;
        }
        conn.connection.close();
        conn.connection.forget_failed();
        true
    }

    /// The connection.
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

/// `FlagcxP2pRdmaDesc`, with the layout of [`RdmaDesc`].
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Desc(pub(crate) RdmaDesc);

// SAFETY: the core asserts the offsets of `RdmaDesc`, abi.cc asserts the same ones of the C++ struct; both are plain
// data.
unsafe impl cxx::ExternType for Desc {
    type Id = cxx::type_id!("FlagcxP2pRdmaDesc");
    type Kind = cxx::kind::Trivial;
}

/// `FlagcxP2pNotifyMsg`, with the layout of [`Message`].
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct NotifyMessage(pub(crate) Message);

const _: () = {
    assert!(size_of::<Message>() == 512 && align_of::<Message>() == 1);
    assert!(offset_of!(Message, name) == 0 && offset_of!(Message, text) == 256);
};

// SAFETY: the offsets are asserted above, abi.cc asserts the same ones of the C++ struct; both are plain data.
unsafe impl cxx::ExternType for NotifyMessage {
    type Id = cxx::type_id!("FlagcxP2pNotifyMsg");
    type Kind = cxx::kind::Trivial;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
