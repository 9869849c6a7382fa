//! One thread's transfers over its connections: so many in flight, the oldest waited for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use flagcx_p2p::{Connection, Iov, Opcode, Outcome, RegionId, RemoteRange, Status, TransferId};

use super::latencies::Latencies;
use super::layout::Layout;
use super::options::Limit;
use super::pattern::Span;
use crate::error::{CliError, Problem, Result};

/// Longest wait for one transfer.
pub(crate) const TRANSFER_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a thread that waits for a transfer looks whether it should end.
const LOOK: Duration = Duration::from_millis(100);

/// Tells threads to end: written by the thread that watches them, read by them. It publishes no other memory: relaxed.
#[derive(Debug, Default)]
pub(crate) struct Stop(AtomicU8);

const FINISH: u8 = 1;
const ABORT: u8 = 2;

impl Stop {
    /// No further transfers; those in flight are waited for.
    pub(crate) fn finish(&self) {
        self.0.fetch_max(FINISH, Ordering::Relaxed);
    }

    /// Nothing is waited for.
    pub(crate) fn abort(&self) {
        self.0.fetch_max(ABORT, Ordering::Relaxed);
    }

    fn runs(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn aborted(&self) -> bool {
        self.0.load(Ordering::Relaxed) == ABORT
    }
}

/// Memory at the other end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RemotePool {
    pub(crate) address: u64,
    pub(crate) rkey: u32,
}

/// Memory at this end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalPool {
    pub(crate) address: u64,
    pub(crate) region: RegionId,
}

/// What one thread does.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) connections: Vec<Arc<Connection>>,
    pub(crate) opcode: Opcode,
    pub(crate) layout: Arc<Layout>,
    pub(crate) local: LocalPool,
    pub(crate) remote: RemotePool,
    /// Pieces per transfer.
    pub(crate) batch: u32,
    /// Transfers in flight per connection.
    pub(crate) depth: u16,
    /// The first piece to move.
    pub(crate) first: u64,
    /// Pieces moved so far.
    pub(crate) moved: u64,
}

/// What a thread has done in one measurement.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) transfers: u64,
    pub(crate) started: Instant,
    pub(crate) ended: Instant,
    pub(crate) latencies: Latencies,
}

impl Worker {
    /// The pieces that were moved.
    pub(crate) fn span(&self) -> Span {
        Span { first: self.first, count: self.moved.min(self.layout.pieces()) }
    }

    /// Transfers until the limit, or until it is told to stop. The time of a transfer begins when the one before it in its
    /// place has ended: one look at the clock for each.
    pub(crate) fn run(&mut self, limit: Limit, stop: &Stop) -> Result<Ran> {
        let mut latencies = Latencies::new()?;
        let mut iovs = Vec::with_capacity(usize::try_from(self.batch).unwrap_or(0));
        let room = usize::from(self.depth.max(1)) * self.connections.len();
        let mut posted: VecDeque<(Arc<Connection>, TransferId, Instant)> = VecDeque::with_capacity(room);
        let connections = self.connections.clone();
        let mut turns = connections.iter().cycle();
        let (mut begun, mut transfers) = (0, 0);
        let started = Instant::now();
        let mut now = started;
        loop {
            while posted.len() < room && stop.runs() && limit.goes_on(begun, now - started) {
                let Some(connection) = turns.next() else { break };
                self.next_iovs(&mut iovs);
                let id = connection.submit(self.opcode, iovs.as_slice())?;
                posted.push_back((Arc::clone(connection), id, now));
                begun += 1;
                if posted.len() < room {
                    now = Instant::now();
                }
            }
            let Some((connection, id, since)) = posted.pop_front() else { break };
            wait(&connection, id, stop)?;
            now = Instant::now();
            latencies.record(now - since);
            transfers += 1;
        }
        Ok(Ran { transfers, started, ended: now, latencies })
    }

    /// The pieces of the next transfer.
    fn next_iovs(&mut self, iovs: &mut Vec<Iov>) {
        iovs.clear();
        let from = self.first + self.moved;
        self.moved += u64::from(self.batch);
        let piece = self.layout.piece();
        for k in from..from + u64::from(self.batch) {
            let (source, destination) = (self.layout.source(k), self.layout.destination(k));
            let (here, there) = match self.opcode {
                Opcode::Write => (source, destination),
                Opcode::Read => (destination, source),
            };
            iovs.push(Iov {
                local: self.local.address + here,
                length: u64::from(piece),
                region: Some(self.local.region),
                remote: RemoteRange {
                    address: self.remote.address + there,
                    size: piece,
                    rkey: self.remote.rkey,
                },
            });
        }
    }
}

fn wait(connection: &Connection, id: TransferId, stop: &Stop) -> Result<()> {
    if id == TransferId::COMPLETE {
        return Ok(());
    }
    let began = Instant::now();
    let outcome = loop {
        match connection.wait(id, LOOK) {
            Status::Ended(Outcome::Done) => return Ok(()),
            Status::Ended(outcome) => break outcome.to_string(),
            Status::Unknown => break "has an id that the engine does not know any more".to_owned(),
            Status::Pending if stop.aborted() => return Err(CliError::other("a transfer was abandoned")),
            Status::Pending if began.elapsed() < TRANSFER_TIMEOUT => {}
            Status::Pending => break format!("did not end within {} s", TRANSFER_TIMEOUT.as_secs()),
        }
    };
    Err(Problem::Other(format!("a transfer {outcome}")).into())
}
