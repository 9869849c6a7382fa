//! Listening and accepting.
#![allow(unsafe_code, reason = "takes handles back from C++")]

use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flagcx_p2p::internals::config;
use flagcx_p2p::internals::connection::LaneBuilder;
use flagcx_p2p::internals::control::RawListener;
use flagcx_p2p::internals::fork::OfProcess;

use super::answer::{NetError, answer};
use super::comm::Comm;
use super::devices::{device, limits, listen_address};
use super::ffi::Answer;

/// Target of a listenComm. It lives in an `Arc`, so that closing it leaves a blocked accept what it works on.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Listener {
    device: i32,
    /// `None` once aborted: the port is closed then.
    raw: OfProcess<Mutex<Option<Arc<RawListener>>>>,
}

impl Listener {
    fn bind(index: i32) -> Result<(Self, Arc<RawListener>), NetError> {
        let config = config::global();
        // Checked now, so that a bad index fails this call and not the first accept.
        device(index)?.context()?;
        let raw = Arc::new(RawListener::bind(&listen_address(config)?, &limits(config)?)?);
        Ok((Self { device: index, raw: OfProcess::new(Mutex::new(Some(Arc::clone(&raw)))) }, raw))
    }

    fn accept(&self) -> Result<Comm, NetError> {
        let limits = limits(config::global())?;
        OfProcess::here(&self.raw).map_err(NetError::internal)?;
        let raw = self.lock().clone().ok_or_else(|| NetError::internal("the listener was aborted"))?;
        let context = device(self.device)?.context()?;
        let mut lanes = LaneBuilder::new(Arc::clone(context));
        let peer = raw.accept(&mut lanes, &limits)?;
        Comm::new(self.device, Arc::clone(context), lanes, peer, false)
    }

    fn abort(&self) {
        if OfProcess::is_here(&self.raw)
            && let Some(raw) = self.lock().take()
        {
            raw.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<RawListener>>> {
        self.raw.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what peers connect to in the front of `handle`.
pub(super) fn listen(device: i32, handle: &mut [u8], out: &mut Answer) -> *mut Listener {
    let mut made = ptr::null_mut();
    *out = answer("listen", Listener::bind(device), |(listener, raw)| {
        for (place, byte) in handle.iter_mut().zip(raw.handle()) {
            *place = byte;
        }
        made = Arc::into_raw(Arc::new(listener)).cast_mut();
    });
    made
}

/// # Safety
/// `listener` comes from [`listen`] and was not closed before this call began.
pub(super) unsafe fn accept(listener: *mut Listener, out: &mut Answer) -> *mut Comm {
    // SAFETY: the caller's promise: the count was not given up yet, and the clone keeps it while this blocks.
    let listener = unsafe {
        Arc::increment_strong_count(listener.cast_const());
        Arc::from_raw(listener.cast_const())
    };
    let mut made = ptr::null_mut();
    *out = answer("accept", listener.accept(), |comm| made = comm.into_raw());
    made
}

pub(super) fn abort_listener(listener: &Listener) {
    listener.abort();
}

/// # Safety
/// `listener` comes from [`listen`] and is not used again.
pub(super) unsafe fn close_listener(listener: *mut Listener) {
    // SAFETY: the caller's promise.
    unsafe { Arc::from_raw(listener.cast_const()) }.abort();
}
