//! What transfers with a peer of this host take beside their pieces.
#![allow(unsafe_code, reason = "reads the C++ caller's IPC information")]

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::gpu::{IPC_INFO_BYTES, IpcInfo};
use flagcx_p2p::internals::transfer::{IovSource, Opcode, SubmitError, TransferId};

/// Starts a transfer. Between host memory of one process it is over when this returns, which callers rely on.
#[inline]
pub(super) fn start<S: IovSource + ?Sized>(
    connection: &Connection,
    opcode: Opcode,
    pieces: &S,
    ipc: &[IpcInfo],
) -> Result<TransferId, SubmitError> {
    if ipc.is_empty() {
        connection.submit_at_once_in_process(opcode, pieces)
    } else {
        connection.submit_by_ipc(opcode, pieces, ipc)
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
