//! Transfers. The calls that start and poll them neither copy the caller's vectors nor allocate when all is well.
#![allow(unsafe_code, reason = "reads the C++ caller's IPC information")]

use std::time::Duration;

use flagcx_p2p::internals::connection::{Connection, Remote, Request};
use flagcx_p2p::internals::gpu::{IPC_INFO_BYTES, IpcInfo};
use flagcx_p2p::internals::memory::RegionId;
use flagcx_p2p::internals::transfer::{
    CompletionStatus, Iov, IovSource, Opcode, Outcome, RemoteRange, Status, SubmitError, TransferId,
};

use crate::ffi::{Operation, Pieces, XferResult, XferState};
use crate::handles::{Conn, Desc};
use crate::pieces::{VectorPieces, one_piece};
use crate::refusal::{OK, OrRefuse, REFUSED, note, refuse};

/// Answer of the non-blocking calls when the submission queue is full, or no id is free.
const WOULD_BLOCK: i32 = 1;

/// Longest range that is given one descriptor: a descriptor's size has 32 bits.
const LONGEST_PIECE: u64 = 1 << 31;

pub(crate) fn conn_start_one(
    conn: &Conn,
    operation: Operation,
    address: usize,
    size: usize,
    desc: &Desc,
    id: &mut u64,
) -> i32 {
    start_one(conn, operation, None, address, size, desc, id)
}

pub(crate) fn conn_start_one_in(
    conn: &Conn,
    operation: Operation,
    region: u64,
    address: usize,
    size: usize,
    desc: &Desc,
    id: &mut u64,
) -> i32 {
    start_one(conn, operation, Some(RegionId(region)), address, size, desc, id)
}

/// A transfer of one piece. It is put together here: handed over in memory it would be read as soon as it is written, by
/// wider loads than the stores, for which the processor waits.
fn start_one(
    conn: &Conn,
    operation: Operation,
    region: Option<RegionId>,
    address: usize,
    size: usize,
    desc: &Desc,
    id: &mut u64,
) -> i32 {
    match conn.connection().start_one(opcode(operation), one_piece(region, address, size, desc)) {
        Ok(transfer) => {
            *id = transfer.0;
            OK
        }
        Err(error) => Err(error).status(single_call(operation, region), |()| ()),
    }
}

/// Only the calls with vectors name the region.
fn single_call(operation: Operation, region: Option<RegionId>) -> &'static str {
    match (region, operation) {
        (Some(_), _) => vector_call(operation),
        (None, Operation::Read) => "flagcxP2pEngineRead",
        (None, _) => "flagcxP2pEngineWrite",
    }
}

fn vector_call(operation: Operation) -> &'static str {
    if operation == Operation::Read { "flagcxP2pEngineReadVector" } else { "flagcxP2pEngineWriteVector" }
}

/// # Safety
/// The pointers of `pieces` are to as many elements as it says; those to IPC information that are not null are to 128
/// bytes.
pub(crate) unsafe fn conn_start(
    conn: &Conn,
    operation: Operation,
    pieces: &Pieces,
    count: i32,
    id: &mut u64,
) -> i32 {
    let call = vector_call(operation);
    // SAFETY: the caller's promise.
    let Some(vectors) = unsafe { VectorPieces::new(pieces, count) }.or_refuse(call) else {
        return REFUSED;
    };
    let connection = conn.connection();
    // SAFETY: the caller's promise.
    let ipc = unsafe { read_ipc(pieces, vectors.len()) };
    let remote = if pieces.ipc_count == 0 { Remote::Described } else { Remote::Ipc(&ipc) };
    let request = Request { remote, ..request(operation, &vectors) };
    connection.start(&request).status(call, |transfer| *id = transfer.0)
}

/// The records of the first `count` pieces; `None` for a piece without one of GPU memory.
///
/// # Safety
/// As [`conn_start`].
unsafe fn read_ipc(pieces: &Pieces, count: usize) -> Vec<Option<IpcInfo>> {
    if pieces.ipc_count == 0 {
        return Vec::new();
    }
    // SAFETY: the caller's promise.
    let records = unsafe { std::slice::from_raw_parts(pieces.ipc, pieces.ipc_count) };
    let read = |record: &*const u8| {
        // SAFETY: the caller's promise; an array of bytes has no alignment.
        unsafe { record.cast::<[u8; IPC_INFO_BYTES]>().as_ref() }.and_then(IpcInfo::decode)
    };
    records.iter().take(count).map(read).collect()
}

/// # Safety
/// As [`conn_start`].
pub(crate) unsafe fn conn_try_start(conn: &Conn, operation: Operation, pieces: &Pieces, id: &mut u64) -> i32 {
    let call = if operation == Operation::Read {
        "flagcxP2pEngineTryReadVector"
    } else {
        "flagcxP2pEngineTryWriteVector"
    };
    // SAFETY: the caller's promise.
    let Some(pieces) = unsafe { VectorPieces::whole(pieces) }.or_refuse(call) else {
        return REFUSED;
    };
    try_start(call, conn.connection(), operation, &pieces, id)
}

/// Starts a transfer of `pieces` without descriptors; their remote ends begin at the addresses in `remote`.
///
/// # Safety
/// The pointers of `pieces` are to as many elements as `remote` has.
pub(crate) unsafe fn conn_try_start_ranges(
    conn: &Conn,
    operation: Operation,
    pieces: &Pieces,
    remote: &[u64],
    id: &mut u64,
) -> i32 {
    let call = if operation == Operation::Read {
        "flagcxP2pEngineTryReadRanges"
    } else {
        "flagcxP2pEngineTryWriteRanges"
    };
    let count = remote.len();
    if count == 0 {
        refuse(call, &"a transfer needs at least one piece");
        return REFUSED;
    }
    // SAFETY: the caller's promise.
    let (regions, local, sizes) = unsafe {
        (
            std::slice::from_raw_parts(pieces.regions, count),
            std::slice::from_raw_parts(pieces.local, count),
            std::slice::from_raw_parts(pieces.sizes, count),
        )
    };
    let mut pieces = Vec::with_capacity(count);
    let ranges = regions.iter().zip(local).zip(sizes).zip(remote).enumerate();
    for (index, (((&region, &local), &size), &remote)) in ranges {
        let region = Some(RegionId(region));
        let described =
            describe_piece(conn.connection(), region, local as u64, remote, size as u64, &mut pieces);
        if let Err(problem) = described {
            refuse(call, &format_args!("piece {index}: {problem}"));
            return REFUSED;
        }
    }
    try_start(call, conn.connection(), operation, pieces.as_slice(), id)
}

fn try_start(
    call: &'static str,
    connection: &Connection,
    operation: Operation,
    pieces: &(impl IovSource + ?Sized),
    id: &mut u64,
) -> i32 {
    match connection.try_submit(opcode(operation), pieces) {
        // Not a refusal: the caller asked to be told.
        Err(SubmitError::WouldBlock) => WOULD_BLOCK,
        answer => answer.status(call, |transfer| *id = transfer.0),
    }
}

/// # Safety
/// As [`conn_start`].
pub(crate) unsafe fn conn_write_sync(conn: &Conn, pieces: &Pieces) -> i32 {
    let call = "flagcxP2pEngineWriteVectorSync";
    if pieces.local_count == 0 {
        return OK;
    }
    // SAFETY: the caller's promise.
    match unsafe { VectorPieces::whole(pieces) }.or_refuse(call) {
        Some(pieces) => written(conn.connection(), &pieces).status(call, |()| ()),
        None => REFUSED,
    }
}

pub(crate) fn conn_batch_write_sync(conn: &Conn, local: &[u64], remote: &[u64], sizes: &[u64]) -> i32 {
    let call = "flagcxP2pRpcBatchWriteSync";
    // There is nothing to write, so addresses do not matter.
    if sizes.iter().all(|size| *size == 0) {
        return OK;
    }
    let mut pieces = Vec::with_capacity(sizes.len());
    for (index, ((&local, &remote), &size)) in local.iter().zip(remote).zip(sizes).enumerate() {
        if let Err(problem) = describe_piece(conn.connection(), None, local, remote, size, &mut pieces) {
            refuse(call, &format_args!("piece {index}: {problem}"));
            return REFUSED;
        }
    }
    written_found(conn.connection(), &mut pieces).status(call, |()| ())
}

pub(crate) fn conn_has_ended(conn: &Conn, id: u64) -> bool {
    let has_ended = conn.connection().has_ended(TransferId(id));
    if !has_ended && let Err(forked) = conn.connection().here() {
        note("flagcxP2pEngineXferStatus", &forked);
    }
    has_ended
}

pub(crate) fn conn_result(conn: &Conn, id: u64) -> XferResult {
    result_of(conn.connection().status(TransferId(id)))
}

pub(crate) fn conn_wait(conn: &Conn, id: u64, timeout_ms: i32) -> XferResult {
    let status = match u64::try_from(timeout_ms) {
        Ok(ms) => conn.connection().wait(TransferId(id), Duration::from_millis(ms)),
        Err(_) => wait_for_end(conn.connection(), TransferId(id)),
    };
    result_of(status)
}

pub(crate) fn conn_cancel(conn: &Conn, id: u64) -> i32 {
    if conn.connection().cancel(TransferId(id)) {
        return OK;
    }
    match conn.connection().here() {
        Err(forked) => refuse("flagcxP2pEngineXferCancel", &forked),
        Ok(()) => refuse("flagcxP2pEngineXferCancel", &format_args!("transfer {id:#x} is not known")),
    }
    REFUSED
}

pub(crate) fn conn_test_batch(conn: &Conn, ids: &[u64], states: &mut [u32]) -> usize {
    // A part of the ids at a time, so that no call needs memory of its own.
    const PART: usize = 64;
    let mut transfers = [TransferId::COMPLETE; PART];
    let mut answers = [const { None }; PART];
    let mut ended = 0;
    for (ids, states) in ids.chunks(PART).zip(states.chunks_mut(PART)) {
        for (transfer, &id) in transfers.iter_mut().zip(ids) {
            *transfer = TransferId(id);
        }
        answers.fill(None);
        let (Some(transfers), Some(answers)) = (transfers.get(..ids.len()), answers.get_mut(..ids.len()))
        else {
            break;
        };
        ended += conn.connection().test_batch(transfers, answers);
        for (state, answer) in states.iter_mut().zip(answers) {
            *state = answer.as_ref().map_or(XferState::Pending, state_of).repr;
        }
    }
    ended
}

/// A transfer that waits for room.
fn request<S: IovSource + ?Sized>(operation: Operation, iovs: &S) -> Request<'_, S> {
    Request { at_once: true, ..Request::new(opcode(operation), iovs) }
}

fn opcode(operation: Operation) -> Opcode {
    if operation == Operation::Read { Opcode::Read } else { Opcode::Write }
}

/// Why bytes were not written.
#[derive(Debug, thiserror::Error)]
enum Unwritten {
    #[error(transparent)]
    Refused(#[from] SubmitError),
    #[error("{0}")]
    Ended(Outcome),
    #[error("internal error: transfer {0:#x} is not in the table")]
    Unknown(u64),
}

impl Unwritten {
    /// Whether it may come from a key that was found by an address, and that the peer's memory no longer has.
    fn may_be_of_key(&self) -> bool {
        match self {
            Self::Refused(error) => matches!(error, SubmitError::Remote { .. }),
            Self::Ended(Outcome::Failed(failure)) => failure.status == CompletionStatus::RemoteAccess,
            Self::Ended(_) | Self::Unknown(_) => false,
        }
    }
}

/// Writes pieces that were found by their addresses: once more with other keys if the peer had registered their memory again before
/// the call, and the announcement of that was under way.
fn written_found(connection: &Connection, pieces: &mut [Iov]) -> Result<(), Unwritten> {
    match written(connection, &*pieces) {
        Err(error) if error.may_be_of_key() && connection.find_again(pieces, Duration::MAX) => {
            written(connection, &*pieces)
        }
        answer => answer,
    }
}

fn written(connection: &Connection, pieces: &(impl IovSource + ?Sized)) -> Result<(), Unwritten> {
    let transfer = connection.start(&request(Operation::Write, pieces))?;
    match wait_for_end(connection, transfer) {
        Status::Ended(Outcome::Done) => Ok(()),
        Status::Ended(outcome) => Err(Unwritten::Ended(outcome)),
        Status::Pending | Status::Unknown => Err(Unwritten::Unknown(transfer.0)),
    }
}

/// Waits as long as it takes: the transfer deadline of the engine bounds it.
fn wait_for_end(connection: &Connection, transfer: TransferId) -> Status {
    loop {
        match connection.wait(transfer, Duration::from_secs(60)) {
            Status::Pending => {}
            status => return status,
        }
    }
}

/// Adds the pieces of one range: more than one where a descriptor cannot name the whole of it.
fn describe_piece(
    connection: &Connection,
    region: Option<RegionId>,
    local: u64,
    remote: u64,
    size: u64,
    pieces: &mut Vec<Iov>,
) -> Result<(), String> {
    connection.here().map_err(|forked| forked.to_string())?;
    let rkey = connection.remote_key(remote, size).ok_or_else(|| connection.not_announced(remote, size))?;
    if local.checked_add(size).is_none() {
        return Err(format!("the local range {local:#x}+{size} reaches beyond the address space"));
    }
    let mut offset = 0;
    loop {
        let length = (size - offset).min(LONGEST_PIECE);
        let remote = RemoteRange { address: remote + offset, size: length as u32, rkey };
        pieces.push(Iov { local: local + offset, length, region, remote });
        offset += length;
        if offset == size {
            return Ok(());
        }
    }
}

fn state_of(status: &Status) -> XferState {
    match status {
        Status::Pending => XferState::Pending,
        Status::Ended(Outcome::Done) => XferState::Done,
        Status::Ended(Outcome::Failed(_)) => XferState::Failed,
        Status::Ended(Outcome::TimedOut) => XferState::TimedOut,
        Status::Ended(Outcome::Cancelled) => XferState::Cancelled,
        Status::Unknown => XferState::Unknown,
    }
}

fn result_of(status: Status) -> XferResult {
    let mut result = XferResult {
        state: state_of(&status),
        iov: 0,
        status: 0,
        vendor_error: 0,
        peer: String::new(),
        reason: String::new(),
    };
    if let Status::Ended(Outcome::Failed(failure)) = status {
        result.iov = failure.iov as u64;
        result.status = failure.status as u32;
        result.vendor_error = failure.vendor_error;
        let status = match failure.last_iov > failure.iov {
            true => format!("{} at {}", failure.status, failure.pieces()),
            false => failure.status.to_string(),
        };
        result.reason = match failure.reason.as_str() {
            "" => status,
            reason => format!("{status}: {reason}"),
        };
        result.peer = failure.peer;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_engines_numbers() {
        let header = include_str!("../../../cpp/include/flagcx_p2p_ext.h");
        let numbers = [
            ("FLAGCX_P2P_MAX_TRANSFERS", flagcx_p2p::internals::transfer::MOST_TRANSFERS.to_string()),
            ("FLAGCX_P2P_WOULD_BLOCK", WOULD_BLOCK.to_string()),
        ];
        for (name, number) in numbers {
            assert!(header.contains(&format!("#define {name} {number}\n")), "{name} is not {number}");
        }
    }
}
