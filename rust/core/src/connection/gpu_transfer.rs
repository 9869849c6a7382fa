//! Transfers with GPU memory at an end between two ends on one host: lanes over copy streams carry them.
//!
//! Everything is found out before the first byte moves: where each piece lies on both sides, whether it is inside what
//! was registered there, and whether the peer's memory can be opened.

use std::ops::Range;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use super::gpu_lanes::NoLane;
use super::submit::WhenFull;
use super::submit_parts::ROOM_TAKEN_LIMIT;
use super::wakes::Wakes;
use super::{Connection, LaneHandle};
use crate::fabric::Opcode;
use crate::fabric::gpu::key;
use crate::fork::PerProcess;
use crate::gpu::{self, GpuError, GpuRuntime, IpcInfo};
use crate::memory::{Hold, MemoryKind, RemoteCheck, region_in_process};
use crate::pool::{EndState, PartOwner, RequestList, Submission, transfer_begins};
use crate::transfer::{
    CheckedIov, Cutter, Iov, IovSource, MOST_TRANSFERS, NewTransfer, READ_ONLY_THERE, Share, SlicePolicy,
    SubmitError, TooManyRequests, TransferId, TransferRecord, find_local,
};

/// Longest copy: what is not posted yet ends at once with its transfer, so a long piece is not posted as a whole. A GPU copies as many
/// bytes from the host in 1.3 ms; each copy more costs calls of the driver, and time of the GPU.
const LONGEST_COPY: usize = 64 << 20;

/// How the peer's ends of the pieces are reached.
#[derive(Clone, Copy, Debug)]
pub(super) enum RemoteEnd<'a> {
    /// By their addresses: the peer is in this process.
    SameProcess,
    /// By what the peer told of its GPU memory, one record per piece.
    Ipc(&'a [Option<IpcInfo>]),
}

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

impl Move {
    fn is_on_host(&self) -> bool {
        self.local == MemoryKind::Host && self.remote == MemoryKind::Host
    }
}

impl Connection {
    /// Starts a transfer of GPU memory. `Ok(None)`, and nothing was done, when the lanes to the peer have to move all of it,
    /// or to say what is wrong with it: both ends of every piece are host memory, as far as they are known.
    ///
    /// Copies cannot be stopped: its deadline, and cancelling it, end what is not posted, and the rest when it is done.
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
            self.be_seen();
        }
        let (mut holds, mut unknown) = (Vec::new(), None);
        let mut moves = Vec::with_capacity(iovs.len());
        for (index, iov) in (0..iovs.len()).filter_map(|index| Some((index, iovs.iov(index)?))) {
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
        if moves.iter().all(Move::is_on_host) {
            return Ok(None);
        }
        if let Some((iov, Iov { remote, length, .. })) = unknown {
            let problem = "is in no region of the peer, which is in this process";
            return Err(SubmitError::Remote { iov, address: remote.address, length, problem });
        }
        let runtime = gpu::runtime();
        let gpu = self.gpu_of(&runtime, &moves);
        if let RemoteEnd::Ipc(infos) = remote {
            self.import(&runtime, gpu, infos, &mut moves, &mut holds)?;
        }
        let lane = match self.gpu.lane(&self.context, &runtime, gpu, opcode) {
            // The NIC has the memory of both ends, and a runtime need not know how to copy.
            Err(NoLane::Gpu(GpuError::Unsupported { .. }))
                if self.reach.lanes_carry_gpu && matches!(remote, RemoteEnd::SameProcess) =>
            {
                return Ok(None);
            }
            Err(NoLane::Closed) => return Err(self.down("it is closed")),
            lane => lane.map_err(|error| SubmitError::Gpu { iov: 0, reason: error.to_string() })?,
        };
        let mut copies = self.context.pool.spare_lists().acquire();
        copies.holds = holds;
        fill(&mut copies, opcode, &moves)?;
        let on_host = self.host_pieces(opcode, &moves)?;
        let span = self.transfer_span(opcode, iovs, || 1 + usize::from(on_host.is_some()));
        let transfer = self.acquire_id(when_full)?;
        let started = match self.hand_over_both(transfer.record(), &lane, copies, on_host, when_full) {
            Ok(workers) => Ok(self.context.transfers.publish(transfer, workers)),
            Err(error) => {
                self.context.transfers.release_new(transfer);
                Err(error)
            }
        };
        self.end_span_with(span, &started);
        started.map(Some)
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
                Some(Some(_)) => Ok(Some((MemoryKind::Gpu, 0))),
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

    /// The GPU that provides the context of the copies: the GPU of the local memory; else the GPU of the remote memory, if the
    /// peer is in this process; else the engine's, and for one that names none the calling thread's. The runtime names the GPU
    /// of an address, where it can.
    fn gpu_of(&self, runtime: &Arc<dyn GpuRuntime>, moves: &[Move]) -> i32 {
        let ours = moves.iter().find(|piece| piece.local == MemoryKind::Gpu).map(|piece| piece.iov.local);
        let theirs = || {
            let known = |piece: &&Move| piece.remote == MemoryKind::Gpu && piece.remote_address != 0;
            moves.iter().find(known).map(|piece| piece.remote_address)
        };
        ours.or_else(theirs).and_then(|address| runtime.gpu_of(address)).unwrap_or_else(|| {
            let named = (self.context.gpu_index >= 0).then_some(self.context.gpu_index);
            named.unwrap_or_else(|| gpu_of_thread(&**runtime))
        })
    }

    /// Opens the peer's memory, and tells each piece its address.
    fn import(
        &self,
        runtime: &Arc<dyn GpuRuntime>,
        gpu: i32,
        infos: &[Option<IpcInfo>],
        moves: &mut [Move],
        holds: &mut Vec<Hold>,
    ) -> Result<(), SubmitError> {
        let mut last: Option<(&IpcInfo, u64, Option<u64>)> = None;
        for (piece, info) in moves.iter_mut().zip(infos.iter().flatten()) {
            let refuse = |reason: String| SubmitError::Gpu { iov: piece.index, reason };
            let (start, length) = match last {
                Some((known, start, length)) if known.handle == info.handle => (start, length),
                _ => {
                    let opened = self.gpu.imports().open(runtime, gpu, info);
                    let opened = opened.map_err(|error| refuse(error.to_string()))?;
                    holds.push(opened.hold);
                    (opened.start, opened.length)
                }
            };
            last = Some((info, start, length));
            let end = info.offset.checked_add(info.size);
            if let Some(length) = length.filter(|length| end.is_none_or(|end| end > *length)) {
                return Err(refuse(format!(
                    "its IPC information reaches beyond the peer's memory: {} bytes from byte {} on of an allocation of {length}; \
                     ask its owner for it again",
                    info.size, info.offset
                )));
            }
            let address = start.checked_add(info.offset);
            let Some(address) = address.filter(|address| address.checked_add(info.size).is_some()) else {
                return Err(refuse("its IPC information reaches beyond the address space".to_owned()));
            };
            piece.remote_address = address;
        }
        Ok(())
    }

    /// The part of the pieces between host memory and host memory, for a lane to the peer.
    fn host_pieces(&self, opcode: Opcode, moves: &[Move]) -> Result<Option<RequestList>, SubmitError> {
        let Some(example) = moves.iter().find(|piece| piece.is_on_host()) else { return Ok(None) };
        let source = HostPieces { moves, empty: Iov { length: 0, ..example.iov } };
        let mut list = self.context.pool.spare_lists().acquire();
        self.build(&source, Share::all(&source), opcode, &mut list, None)?;
        Ok(Some(list))
    }

    /// Gives the parts to the workers; answers the set of these. An error means that nothing was moved.
    fn hand_over_both(
        &self,
        record: &'static TransferRecord,
        lane: &LaneHandle,
        copies: RequestList,
        on_host: Option<RequestList>,
        when_full: WhenFull,
    ) -> Result<u64, SubmitError> {
        // Once the copies are under way the rest must follow: a call that may not wait for room waits a little then.
        let (limit, rest) = match when_full {
            WhenFull::Refuse => (Duration::ZERO, ROOM_TAKEN_LIMIT),
            WhenFull::Wait => (self.room_limit(), self.room_limit()),
        };
        let (started, begun) = (Instant::now(), transfer_begins());
        record.start(1 + u32::from(on_host.is_some()), self.context.time_limit);
        let mut workers = 1 << lane.worker_index;
        let part = Submission { lane: lane.key, owner: record, list: copies, first: true, begun };
        let mut wakes = Wakes::default();
        self.hand_over(lane, part, started, limit, &mut wakes)?;
        if let Some(list) = on_host {
            let (opcode, bytes) = (list.opcode, list.bytes);
            let handed = self.pick_lane(0).and_then(|lane| {
                let part = Submission { lane: lane.key, owner: record, list, first: false, begun };
                self.hand_over(lane, part, started, rest, &mut wakes)?;
                Ok(1 << lane.worker_index)
            });
            match handed {
                Ok(worker) => workers |= worker,
                Err(error) => {
                    self.fail_unplaced(record, &error, opcode, false, bytes, begun);
                }
            }
        }
        if record.is_ended() && record.end_state() == EndState::Failed {
            // Over already: better told by the call itself.
            let failure = record.failure();
            let (iov, reason) =
                failure.map_or((0, String::new()), |failure| (failure.iov as usize, failure.reason));
            return Err(SubmitError::Gpu { iov, reason });
        }
        Ok(workers)
    }

    /// An id, waiting for one as [`Connection::start`] does.
    fn acquire_id(&self, when_full: WhenFull) -> Result<NewTransfer, SubmitError> {
        let (since, limit) = (Instant::now(), self.room_limit());
        loop {
            match self.context.transfers.acquire() {
                Some(transfer) => return Ok(transfer),
                None if when_full == WhenFull::Refuse => return Err(SubmitError::WouldBlock),
                None if self.is_closed() => return Err(self.down("it is closed")),
                None if since.elapsed() >= limit => {
                    return Err(SubmitError::NoId { most: MOST_TRANSFERS, waited: limit });
                }
                None => std::thread::sleep(Duration::from_micros(200)),
            }
        }
    }
}

/// The GPU that is current for the calling thread. Without one GPU 0 is assumed, which the log says once.
fn gpu_of_thread(runtime: &dyn GpuRuntime) -> i32 {
    runtime.current_gpu().unwrap_or_else(|error| {
        static SAID: PerProcess<Once> = PerProcess::new(Once::new);
        SAID.get().call_once(|| {
            tracing::info!(
                "copies run on GPU 0: neither the memory nor the engine names a GPU, and the thread has none: {error}. Name one \
                 when the engine is opened, or make one current before the transfer"
            );
        });
        0
    })
}

/// The requests of the pieces with GPU memory at an end.
fn fill(list: &mut RequestList, opcode: Opcode, moves: &[Move]) -> Result<(), SubmitError> {
    let policy = SlicePolicy::new(LONGEST_COPY, 0, u32::MAX, 1, 0);
    let mut cutter = Cutter::new(list, policy, opcode, moves.len());
    for piece in moves.iter().filter(|piece| piece.iov.length > 0 && !piece.is_on_host()) {
        let on_gpu = |kind| kind == MemoryKind::Gpu;
        let chunk = CheckedIov {
            local: piece.iov.local,
            remote: piece.remote_address,
            length: piece.iov.length,
            lkey: key(on_gpu(piece.local), 0),
            // One each: what lies side by side may be of different allocations, across which no copy goes.
            rkey: key(on_gpu(piece.remote), piece.index as u32),
            readable: false,
            iov: piece.index as u32,
        };
        cutter.push(&chunk).map_err(|TooManyRequests| SubmitError::TooLong { iov: piece.index })?;
    }
    Ok(())
}

/// The pieces between host memory and host memory, at the places that they have in the whole: failures name these.
struct HostPieces<'a> {
    moves: &'a [Move],
    /// Takes the place of the others: valid, and nothing to move.
    empty: Iov,
}

impl HostPieces<'_> {
    fn iov(&self, piece: &Move) -> Iov {
        if piece.is_on_host() { piece.iov } else { self.empty }
    }
}

impl IovSource for HostPieces<'_> {
    fn len(&self) -> usize {
        self.moves.len()
    }
    fn iovs(&self, range: Range<usize>) -> impl Iterator<Item = Iov> {
        self.moves.get(range).unwrap_or_default().iter().map(|piece| self.iov(piece))
    }
    fn lengths(&self) -> impl Iterator<Item = u64> {
        self.moves.iter().map(|piece| self.iov(piece).length)
    }
}
