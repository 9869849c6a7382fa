//! Transfers with a peer of this host: which of them the device runtime moves.
#![allow(unsafe_code, reason = "reads the C++ caller's IPC information")]

use flagcx_p2p::connection::{Connection, RemoteEnd};
use flagcx_p2p::device::{IPC_INFO_BYTES, IpcInfo};
use flagcx_p2p::transfer::{Opcode, PieceSource, SubmitError, TransferId};

/// Starts a transfer: by the device runtime where device memory meets a peer of this host, by the lanes otherwise.
///
/// Between host memory of one process it is over when this returns, which callers rely on.
pub(super) fn start<S: PieceSource + ?Sized>(
    connection: &Connection,
    opcode: Opcode,
    pieces: &S,
    ipc: &[IpcInfo],
) -> Result<TransferId, SubmitError> {
    if ipc.is_empty() && !connection.peer().same_process {
        return connection.submit(opcode, pieces);
    }
    if connection.peer().same_process {
        return match connection.submit_on_device(opcode, pieces, RemoteEnd::SameProcess)? {
            Some(id) => Ok(id),
            None => connection.submit_and_wait(opcode, pieces).map(|()| TransferId::COMPLETE),
        };
    }
    match connection.submit_on_device(opcode, pieces, RemoteEnd::Ipc(ipc))? {
        Some(id) => Ok(id),
        None => connection.submit(opcode, pieces),
    }
}

/// The first `count` records; none if the caller gave none, or the peer's memory is not reached by them.
///
/// # Safety
/// The pointers that are not null point at 128 bytes.
pub(super) unsafe fn read_ipc(
    connection: &Connection,
    records: &[*const u8],
    count: usize,
) -> Result<Vec<IpcInfo>, String> {
    if records.is_empty() || !connection.is_local() || connection.peer().same_process {
        return Ok(Vec::new());
    }
    (0..count)
        .map(|index| {
            let record = records.get(index).copied().unwrap_or(std::ptr::null());
            // SAFETY: the caller's promise; an array of bytes has no alignment.
            let record = unsafe { record.cast::<[u8; IPC_INFO_BYTES]>().as_ref() };
            record
                .and_then(IpcInfo::decode)
                .ok_or_else(|| format!("piece {index} has no IPC information of device memory"))
        })
        .collect()
}
