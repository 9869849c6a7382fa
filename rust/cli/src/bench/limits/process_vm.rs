//! Copies by the kernel between the memory of this process and that of the server's: `process_vm_readv` and
//! `process_vm_writev`, which the path cross-memory stands on.

use std::io::{IoSlice, IoSliceMut};
use std::time::{Duration, Instant};

use flagcx_p2p::Opcode;
use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

use super::super::layout::{Layout, LayoutSpec};
use super::super::pattern;
use super::super::session::Session;
use super::{MachineLimit, TIME, filled};
use crate::error::{CliError, Result};
use crate::output::units::gigabytes_per_second;

/// The name of the limit.
pub(crate) const PROCESS_VM: &str = "process_vm";
/// Most pieces of a call: what the engine gives to one.
const MAX_PIECES: u32 = 512;
/// Bytes by which the server's process is recognised.
const SAMPLE: u64 = 4096;

/// Memory of this process, and the server's pool as the kernel names it.
#[derive(Debug)]
pub(crate) struct KernelCopies {
    own: Vec<u8>,
    server: Pid,
    /// Address of the server's pool in its process.
    pool: usize,
}

/// The pieces of one call: their places in this process's memory in ascending order, and those in the server's.
struct Call {
    own: Vec<usize>,
    theirs: Vec<RemoteIoVec>,
}

impl KernelCopies {
    /// Finds the server's memory. `seed` is that of a pattern, which is written to the server's pool over its connection and read
    /// back through the kernel: a number alone could be that of another process, for example where the server runs in another
    /// container.
    pub(crate) fn new(session: &mut Session, pool: u64, seed: u64) -> Result<Self> {
        let pid = i32::try_from(session.server.pid).map_err(|error| CliError::other(error.to_string()))?;
        let length = usize::try_from(pool).unwrap_or(usize::MAX);
        let address = usize::try_from(session.remote.address).unwrap_or(0);
        let found = Self { own: filled(length, 1)?, server: Pid::from_raw(pid), pool: address };
        found.recognise(session, seed)?;
        Ok(found)
    }

    fn recognise(&self, session: &mut Session, seed: u64) -> Result<()> {
        let sample = SAMPLE.min(self.own.len() as u64);
        session.prepare(true, seed, 0, sample)?;
        let (mut seen, mut expected) = ([0; SAMPLE as usize], [0; SAMPLE as usize]);
        let length = usize::try_from(sample).unwrap_or(0);
        let (seen, expected) = (seen.get_mut(..length), expected.get_mut(..length));
        let (Some(seen), Some(expected)) = (seen, expected) else { return Ok(()) };
        pattern::pattern(seed, 0, expected);
        let place = [RemoteIoVec { base: self.pool, len: length }];
        let copied = process_vm_readv(self.server, &mut [IoSliceMut::new(seen)], &place);
        self.check(Opcode::Read, copied, length)?;
        if seen == expected {
            return Ok(());
        }
        let text = format!("process {} is not the server: it runs in another PID namespace", self.server);
        Err(CliError::other(text))
    }

    /// The rate at which one thread has pieces of this size copied, `batch` of them by a call, at most [`MAX_PIECES`].
    pub(crate) fn measure(
        &mut self,
        opcode: Opcode,
        batch: u32,
        piece: u32,
        contiguous: bool,
    ) -> Result<MachineLimit> {
        let length = self.own.len() as u64;
        let layout = Layout::new(LayoutSpec { seed: 1, start: 0, length, piece, contiguous });
        let layout = layout.ok_or_else(|| CliError::other("a piece is larger than the pool"))?;
        let calls = calls(&layout, opcode, self.pool, batch.min(MAX_PIECES));
        let mut rate = 0.0_f64;
        // The first round maps pages, and brings the caches into the state of a long run.
        for time in [TIME / 4, TIME] {
            rate = self.copy_for(time, opcode, &calls, usize::try_from(piece).unwrap_or(0))?;
        }
        Ok(MachineLimit {
            name: PROCESS_VM.to_owned(),
            operation: Some(opcode.into()),
            size: Some(piece),
            gigabytes_per_second: rate,
        })
    }

    fn copy_for(&mut self, time: Duration, opcode: Opcode, calls: &[Call], piece: usize) -> Result<f64> {
        let started = Instant::now();
        let mut copied: u64 = 0;
        for call in calls.iter().cycle() {
            let own = pieces(&mut self.own, &call.own, piece);
            let done = match opcode {
                Opcode::Write => {
                    let own: Vec<_> = own.iter().map(|piece| IoSlice::new(piece)).collect();
                    process_vm_writev(self.server, &own, &call.theirs)
                }
                Opcode::Read => {
                    let mut own: Vec<_> = own.into_iter().map(IoSliceMut::new).collect();
                    process_vm_readv(self.server, &mut own, &call.theirs)
                }
            };
            copied += self.check(opcode, done, call.own.len() * piece)?;
            if started.elapsed() >= time {
                break;
            }
        }
        Ok(gigabytes_per_second(copied, started.elapsed()))
    }

    fn check(&self, opcode: Opcode, copied: Result<usize, Errno>, wanted: usize) -> Result<u64> {
        let call = match opcode {
            Opcode::Write => "process_vm_writev",
            Opcode::Read => "process_vm_readv",
        };
        let process = self.server;
        match copied {
            Ok(copied) if copied == wanted => Ok(copied as u64),
            Ok(copied) => {
                Err(CliError::other(format!("{call} with process {process}: {copied} of {wanted} bytes")))
            }
            Err(errno @ (Errno::EPERM | Errno::ENOSYS | Errno::EACCES)) => Err(CliError::other(format!(
                "{call} with process {process} is denied: {errno}; `flagcx-p2p doctor` says by what"
            ))),
            Err(errno) => Err(CliError::other(format!("{call} with process {process}: {errno}"))),
        }
    }
}

/// All pieces of a layout once, `batch` by a call.
fn calls(layout: &Layout, opcode: Opcode, pool: usize, batch: u32) -> Vec<Call> {
    let place = |place: u64| usize::try_from(place).unwrap_or(usize::MAX);
    let len = usize::try_from(layout.piece()).unwrap_or(0);
    let step = usize::try_from(batch).unwrap_or(1);
    (0..layout.pieces())
        .step_by(step)
        .map(|first| {
            let pieces = first..layout.pieces().min(first + u64::from(batch));
            let (mut own, theirs): (Vec<_>, Vec<_>) = pieces
                .map(|k| match opcode {
                    Opcode::Write => (layout.source(k), layout.destination(k)),
                    Opcode::Read => (layout.destination(k), layout.source(k)),
                })
                .map(|(own, theirs)| (place(own), RemoteIoVec { base: pool + place(theirs), len }))
                .unzip();
            // Which piece goes where does not matter to the rate, and in this order a list of them can be borrowed.
            own.sort_unstable();
            Call { own, theirs }
        })
        .collect()
}

/// The pieces at these places of the memory, which are in ascending order and do not overlap.
fn pieces<'a>(memory: &'a mut [u8], places: &[usize], piece: usize) -> Vec<&'a mut [u8]> {
    let (mut rest, mut begin) = (memory, 0);
    let mut pieces = Vec::with_capacity(places.len());
    for place in places {
        let Some((_, from)) = rest.split_at_mut_checked(place.saturating_sub(begin)) else { break };
        let Some((found, after)) = from.split_at_mut_checked(piece) else { break };
        pieces.push(found);
        (rest, begin) = (after, place + piece);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_this_process(length: usize, pool: &[u8]) -> KernelCopies {
        KernelCopies {
            own: filled(length, 1).unwrap(),
            server: Pid::this(),
            pool: pool.as_ptr().expose_provenance(),
        }
    }

    #[test]
    fn every_piece_is_in_one_call() {
        let spec = LayoutSpec { seed: 3, start: 0, length: 1 << 16, piece: 1000, contiguous: false };
        let layout = Layout::new(spec).unwrap();
        for opcode in [Opcode::Write, Opcode::Read] {
            let calls = calls(&layout, opcode, 0, 9);
            let mut memory = vec![0; 1 << 16];
            let mut theirs: Vec<_> =
                calls.iter().flat_map(|call| &call.theirs).map(|place| place.base as u64).collect();
            for call in &calls {
                assert_eq!(call.own.len(), call.theirs.len());
                let own = pieces(&mut memory, &call.own, 1000);
                assert_eq!(own.len(), call.own.len());
                own.into_iter().flatten().for_each(|byte| *byte += 1);
            }
            theirs.sort_unstable();
            theirs.dedup();
            assert_eq!(theirs.len() as u64, layout.pieces());
            assert_eq!(memory.iter().map(|byte| u64::from(*byte)).sum::<u64>(), layout.pieces() * 1000);
            assert!(memory.iter().all(|byte| *byte <= 1));
        }
    }

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        let mut copies = of_this_process(8192, &[]);
        copies.pool = 0;
        for (opcode, call) in [(Opcode::Write, "process_vm_writev"), (Opcode::Read, "process_vm_readv")] {
            let text = copies.measure(opcode, 1, 4096, true).unwrap_err().to_string();
            assert!(text.starts_with(call), "{text}");
        }
    }

    #[test]
    fn a_denial_says_what_to_try() {
        let copies = of_this_process(1, &[]);
        let text = copies.check(Opcode::Read, Err(Errno::EPERM), 1).unwrap_err().to_string();
        assert!(text.contains("is denied: EPERM") && text.contains("flagcx-p2p doctor"), "{text}");
        let text = copies.check(Opcode::Write, Ok(1), 2).unwrap_err().to_string();
        assert!(text.contains("1 of 2 bytes"), "{text}");
    }
}
