//! Transfers of device memory between two ends on one host: the device runtime copies, and no lane is involved.
//!
//! Everything is found out before the first byte moves: where each piece lies on both sides, whether it is inside what
//! was registered there, and whether the peer's memory can be opened.
#![allow(unsafe_code, reason = "starts copies by address")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Connection;
use super::device_copies::{Copies, OpenedMemory, Stream};
use super::submit::WhenFull;
use crate::fabric::Opcode;
use crate::gpu::{self, CurrentDevice, Direction, GpuError, GpuRuntime, IpcInfo};
use crate::memory::{Hold, MemoryKind, RemoteCheck, region_in_process};
use crate::pool::TimeLimit;
use crate::transfer::{
    Claim, Iov, IovSource, MOST_TRANSFERS, READ_ONLY_THERE, SubmitError, TransferId, find_local,
};

/// How the peer's ends of the pieces are reached.
#[derive(Clone, Copy, Debug)]
pub(super) enum RemoteEnd<'a> {
    /// By their addresses: the peer is in this process.
    SameProcess,
    /// By what the peer told of its GPU memory, one record per piece.
    Ipc(&'a [Option<IpcInfo>]),
}

/// How long copies may go on after one of them could not be started.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// A piece of which both ends are known.
#[derive(Clone, Copy, Debug)]
struct Move {
    iov: Iov,
    index: usize,
    local: MemoryKind,
    remote: MemoryKind,
    /// Where the peer's end is in this process.
    remote_address: u64,
}

impl Connection {
    /// Starts a transfer of device memory. `Ok(None)`, and nothing was done, when the lanes have to move all of it, or to
    /// say what is wrong with it: both ends of every piece are host memory, as far as they are known.
    ///
    /// Copies cannot be stopped: such a transfer has no deadline, and cancelling it waits for its end.
    #[inline(never)]
    pub(super) fn start_on_gpu<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        remote: RemoteEnd<'_>,
        when_full: WhenFull,
    ) -> Result<Option<TransferId>, SubmitError> {
        if !self.is_open() {
            self.require_open()?;
        }
        let (mut holds, mut unknown) = (Vec::new(), None);
        let mut moves = Vec::with_capacity(iovs.len());
        for (index, iov) in (0..iovs.len()).filter_map(|index| Some((index, iovs.piece(index)?))) {
            let hold = self.local_end(&iov, index, opcode)?;
            let local = hold.region().kind;
            holds.push(hold);
            let (remote, remote_address) =
                self.remote_end(&iov, index, opcode, remote)?.unwrap_or_else(|| {
                    unknown.get_or_insert((index, iov));
                    (MemoryKind::Host, iov.remote.address)
                });
            moves.push(Move { iov, index, local, remote, remote_address });
        }
        let on_host = |piece: &Move| piece.local == MemoryKind::Host && piece.remote == MemoryKind::Host;
        if moves.iter().all(on_host) {
            return Ok(None);
        }
        if let Some((iov, Iov { remote, length, .. })) = unknown {
            let problem = "is in no region of the peer, which is in this process";
            return Err(SubmitError::Remote { iov, address: remote.address, length, problem });
        }
        let runtime = gpu::runtime();
        let device = self.context.gpu_index;
        let _entered = CurrentDevice::ensure(&*runtime, device);
        let opened = match remote {
            RemoteEnd::SameProcess => Vec::new(),
            RemoteEnd::Ipc(infos) => open_all(&runtime, device, infos, &mut moves)?,
        };
        let stream = match self.copy_stream(&runtime) {
            // The NIC has the memory of both ends, and a runtime need not know how to copy.
            Err(GpuError::Unsupported { .. }) if self.reach.lanes_carry_gpu && opened.is_empty() => {
                return Ok(None);
            }
            stream => stream.map_err(|error| refuse(0, &error))?,
        };
        let claim = self.claim(when_full)?;
        let moved = self.move_host_pieces(opcode, &moves, when_full);
        moves.retain(|piece| !on_host(piece));
        let started =
            moved.and_then(|()| self.start_copies(&runtime, stream, opcode, &moves, (opened, holds)));
        match started {
            Ok(copies) => Ok(Some(self.track(claim, copies))),
            Err(error) => {
                self.context.transfers.abandon(claim);
                Err(error)
            }
        }
    }

    fn local_end(&self, iov: &Iov, index: usize, opcode: Opcode) -> Result<Hold, SubmitError> {
        let snapshot = self.context.registry.snapshot();
        let region = find_local(iov, index, opcode, &snapshot)?;
        region.hold().ok_or(SubmitError::Local {
            iov: index,
            address: iov.local,
            length: iov.length,
            problem: "is in a region being deregistered",
        })
    }

    /// What kind of memory the far end of a piece is, and its address if it has one already. `None` for an end in this
    /// process that no region there holds.
    fn remote_end(
        &self,
        iov: &Iov,
        index: usize,
        opcode: Opcode,
        remote: RemoteEnd<'_>,
    ) -> Result<Option<(MemoryKind, u64)>, SubmitError> {
        let problem = |problem| {
            Err(SubmitError::Remote { iov: index, address: iov.remote.address, length: iov.length, problem })
        };
        if iov.length > u64::from(iov.remote.size) && iov.length <= u64::from(u32::MAX) {
            return problem("is longer than its descriptor");
        }
        let Iov { remote: desc, length, .. } = *iov;
        match remote {
            RemoteEnd::Ipc(infos) => match infos.get(index) {
                None | Some(None) => problem("has no IPC information of GPU memory"),
                Some(Some(info)) if length > info.size => {
                    problem("is longer than its IPC information allows")
                }
                // Its address is known once it has been opened.
                Some(Some(_)) => Ok(Some((MemoryKind::Device, 0))),
            },
            RemoteEnd::SameProcess => match region_in_process(desc.rkey, desc.address, length) {
                Some(region) if region.read_only && opcode == Opcode::Write => problem(READ_ONLY_THERE),
                Some(region) => Ok(Some((region.kind, desc.address))),
                None if self.remote.table().check(desc.rkey, desc.address, length)
                    == RemoteCheck::Removed =>
                {
                    problem("is in a region that the peer has deregistered")
                }
                None => Ok(None),
            },
        }
    }

    /// Moves the pieces between host memory and host memory by the lanes, and waits: the runtime is for the others.
    fn move_host_pieces(
        &self,
        opcode: Opcode,
        moves: &[Move],
        when_full: WhenFull,
    ) -> Result<(), SubmitError> {
        let on_host = |piece: &&Move| piece.local == MemoryKind::Host && piece.remote == MemoryKind::Host;
        let (indices, pieces): (Vec<usize>, Vec<Iov>) =
            moves.iter().filter(on_host).map(|piece| (piece.index, piece.iov)).unzip();
        if pieces.is_empty() {
            return Ok(());
        }
        let started = self.start_on_lanes(opcode, pieces.as_slice(), when_full);
        started.and_then(|id| self.wait_for(id)).map_err(|error| error.of_whole(&indices))
    }

    /// A stream of the engine's device, which is current, and whether it is a new one.
    fn copy_stream(&self, runtime: &Arc<dyn GpuRuntime>) -> Result<(Stream, bool), GpuError> {
        let device = self.context.gpu_index;
        match self.context.device_copies.idle_stream(runtime, device) {
            Some(stream) => Ok((stream, false)),
            None => Stream::open(runtime, device).map(|stream| (stream, true)),
        }
    }

    fn start_copies(
        &self,
        runtime: &Arc<dyn GpuRuntime>,
        (mut stream, mut is_new): (Stream, bool),
        opcode: Opcode,
        moves: &[Move],
        (opened, holds): (Vec<OpenedMemory>, Vec<Hold>),
    ) -> Result<Copies, SubmitError> {
        loop {
            let mut started = 0;
            match start(&mut stream, opcode, moves, &mut started) {
                Ok(()) => return Ok(Copies { stream, opened, holds }),
                Err(error) if started > 0 => {
                    let copies = Copies { stream, opened, holds };
                    self.context.device_copies.abandon(copies, Instant::now() + DRAIN_LIMIT);
                    return Err(error);
                }
                Err(error) if is_new => return Err(error),
                // Nothing runs on it. It may have ended with its context, when the program reset the device.
                Err(_) => {
                    (stream, is_new) = self.copy_stream(runtime).map_err(|error| refuse(0, &error))?;
                }
            }
        }
    }

    /// An id, waiting for one as [`Connection::submit`] does.
    fn claim(&self, when_full: WhenFull) -> Result<Claim, SubmitError> {
        let (since, limit) = (Instant::now(), self.room_limit());
        loop {
            match self.context.transfers.claim() {
                Some(claim) => return Ok(claim),
                None if when_full == WhenFull::Refuse => return Err(SubmitError::WouldBlock),
                None if self.is_closed() => return Err(self.down("it is closed")),
                None if since.elapsed() >= limit => {
                    return Err(SubmitError::NoId { most: MOST_TRANSFERS, waited: limit });
                }
                None => std::thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    /// Names a transfer whose copies have been started.
    fn track(&self, claim: Claim, mut copies: Copies) -> TransferId {
        if let Ok(true) = copies.stream.copies().is_done() {
            self.context.transfers.abandon(claim);
            self.context.device_copies.keep(copies.stream);
            return TransferId::COMPLETE;
        }
        let task = claim.task();
        task.start(1, TimeLimit::NEVER);
        let id = self.context.transfers.publish(claim, 0);
        self.context.device_copies.add(id, self.number, task, copies);
        id
    }
}

/// Opens the peer's memory, each allocation once, and tells each piece its address.
fn open_all(
    runtime: &Arc<dyn GpuRuntime>,
    device: i32,
    infos: &[Option<IpcInfo>],
    moves: &mut [Move],
) -> Result<Vec<OpenedMemory>, SubmitError> {
    let mut opened: Vec<OpenedMemory> = Vec::new();
    let mut handles: Vec<&IpcInfo> = Vec::new();
    for (piece, info) in moves.iter_mut().zip(infos.iter().flatten()) {
        let place = match handles.iter().position(|known| known.handle == info.handle) {
            Some(place) => place,
            None => {
                let memory = OpenedMemory::open(runtime, device, &info.handle)
                    .map_err(|error| refuse(piece.index, &error))?;
                opened.push(memory);
                handles.push(info);
                opened.len() - 1
            }
        };
        let address = opened.get(place).and_then(|memory| memory.address.checked_add(info.offset));
        let Some(address) = address.filter(|address| address.checked_add(info.size).is_some()) else {
            let reason = "its IPC information reaches beyond the address space".to_owned();
            return Err(SubmitError::Device { iov: piece.index, reason });
        };
        piece.remote_address = address;
    }
    Ok(opened)
}

/// Starts the copies, counts those that were, and marks their end.
fn start(
    stream: &mut Stream,
    opcode: Opcode,
    moves: &[Move],
    started: &mut usize,
) -> Result<(), SubmitError> {
    for piece in moves.iter().filter(|piece| piece.iov.length > 0) {
        let (local, remote) = ((piece.iov.local, piece.local), (piece.remote_address, piece.remote));
        let (from, to) = if opcode == Opcode::Write { (local, remote) } else { (remote, local) };
        let direction = match (from.1, to.1) {
            (MemoryKind::Device, MemoryKind::Device) => Direction::DeviceToDevice,
            (MemoryKind::Device, _) => Direction::DeviceToHost,
            _ => Direction::HostToDevice,
        };
        // SAFETY: the local end is inside a region that is held until the transfer ends, whose owner promised that it
        // stays mapped; the remote end is inside memory that was opened until then, or inside a region that an engine
        // of this process had registered when the transfer was submitted, whose owner promised that it stays allocated
        // until transfers that its peers have started have ended: deregistering does not wait for these copies. The
        // kinds are what the runtime says of them.
        unsafe { stream.copies().copy(to.0, from.0, piece.iov.length, direction) }
            .map_err(|error| refuse(piece.index, &error))?;
        *started += 1;
    }
    stream.copies().mark().map_err(|error| refuse(0, &error))
}

fn refuse(iov: usize, error: &GpuError) -> SubmitError {
    SubmitError::Device { iov, reason: error.to_string() }
}
