//! Transfers as Python asks for them: checked, started, waited for.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use flagcx_p2p::{Connection as CoreConnection, Iov, Opcode, Request, SubmitError, TransferId, WhenFull};
use pyo3::prelude::*;

use crate::engine::Shared;
use crate::errors::{queue_full, refused};
use crate::transfer::Transfer;

/// How long a call waits for room: the default of `FLAGCX_P2P_XFER_TIMEOUT_MS`.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long it sleeps between two attempts.
const PAUSE: Duration = Duration::from_micros(100);

/// From so many pieces on the interpreter's lock is released while a transfer is started.
const MANY: usize = 64;

/// Starts a transfer; waits for room if `waits`.
pub(crate) fn start(
    py: Python<'_>,
    connection: &Arc<CoreConnection>,
    opcode: Opcode,
    iovs: &[Iov],
    waits: bool,
) -> PyResult<TransferId> {
    let request = Request { when_full: WhenFull::Refuse, ..Request::new(opcode, iovs) };
    let begin = || connection.start(&request);
    let mut began = None;
    loop {
        let started = if iovs.len() < MANY { begin() } else { py.detach(begin) };
        let error = match started {
            Ok(id) => return Ok(id),
            Err(error @ SubmitError::WouldBlock) if !waits => return Err(queue_full(error)),
            Err(error @ SubmitError::WouldBlock) => error,
            Err(error) => return Err(refused(error)),
        };
        if began.get_or_insert_with(Instant::now).elapsed() >= START_LIMIT {
            return Err(queue_full(format!("no room for {} s: {error}", START_LIMIT.as_secs())));
        }
        py.check_signals()?;
        py.detach(|| sleep(PAUSE));
    }
}

/// Makes a transfer, and waits for its end. Whatever exception ends that, nothing uses its memory afterwards.
pub(crate) fn run(
    py: Python<'_>,
    shared: &Arc<Shared>,
    connection: &Arc<CoreConnection>,
    opcode: Opcode,
    iovs: &[Iov],
    timeout: Option<f64>,
) -> PyResult<()> {
    shared.core()?;
    let id = start(py, connection, opcode, iovs, true)?;
    if id == TransferId::COMPLETE {
        return Ok(());
    }
    let transfer = Transfer::new(Arc::clone(connection), id);
    transfer.wait_for(py, timeout).inspect_err(|_| transfer.abandon(py))
}
