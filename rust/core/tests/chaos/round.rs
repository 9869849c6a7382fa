//! One round of transfers through one API family, looked at byte by byte afterwards.

use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::fabric::{Opcode, PathKind, Paths};
use flagcx_p2p::internals::transfer::{Iov, Outcome, RemoteRange, Status, SubmitError, TransferId};

use super::arena::{Arena, GUARD};
use super::buffer::Memory;
use super::last_seen::Likeness;
use super::random::Random;
use super::rig::{Rig, least_bytes};
use super::standins;
use super::tally::Tally;
use super::watchdog;

/// A transfer that has not ended by then has hung: every rig's transfer deadline is far below.
const LIMIT: Duration = Duration::from_secs(30);

/// What a program does with the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// `submit` of one WRITE.
    Write,
    /// `submit` of one READ.
    Read,
    /// `submit` of many pieces.
    Vector,
    /// `try_submit`, again after WouldBlock.
    TrySubmit,
    /// `test_batch` over several transfers.
    TestBatch,
    /// `wait` with a time-out that passes many times.
    Wait,
    /// `status` until it returns an outcome.
    Status,
}

pub const FAMILIES: [Family; 7] = [
    Family::Write,
    Family::Read,
    Family::Vector,
    Family::TrySubmit,
    Family::TestBatch,
    Family::Wait,
    Family::Status,
];

impl Family {
    /// Transfers of a round, and pieces of each.
    fn shape(self) -> (usize, usize) {
        match self {
            Self::Write | Self::Read | Self::Wait => (1, 1),
            Self::Vector => (1, 16),
            Self::TrySubmit => (4, 1),
            Self::TestBatch => (4, 2),
            Self::Status => (2, 1),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Window {
    near: usize,
    far: usize,
    length: usize,
}

#[derive(Debug)]
struct Transfer {
    windows: Vec<Window>,
    id: Option<TransferId>,
    outcome: Option<Outcome>,
}

/// A round at work.
pub struct Round<'a> {
    connection: &'a Connection,
    arena: &'a Arena,
    family: Family,
    opcode: Opcode,
    transfers: Vec<Transfer>,
    /// What the source holds.
    bytes: &'static [u8],
    /// The far side could be prepared.
    visible: bool,
    /// The far memory may be mapped here: it stays what it was while its process ends, one thread after the other, and a READ of it
    /// is done until the last thread has ended that shows its process's life.
    mapped: bool,
    since: Instant,
    /// How often `try_submit` returned WouldBlock.
    pub would_block: u64,
}

/// Runs a whole round over `rig`; true if every transfer was done.
pub fn run(rig: &Rig, family: Family, random: &mut Random, tally: &mut Tally) -> bool {
    run_with(rig, family, None, random, tally)
}

/// The same; `wrong_key`: the first piece of the first transfer names no region.
pub fn run_with(
    rig: &Rig,
    family: Family,
    wrong_key: Option<u32>,
    random: &mut Random,
    tally: &mut Tally,
) -> bool {
    let mut round = Round::prepare(&rig.here, &rig.arena, family, random);
    round.submit(wrong_key, tally);
    round.finish(tally);
    let all_done = round.all_done();
    rig.note(all_done, round.since, tally);
    if !all_done {
        rig.settle();
    }
    all_done
}

impl<'a> Round<'a> {
    /// A round over NICs of which some may be in trouble.
    pub fn prepare(
        connection: &'a Connection,
        arena: &'a Arena,
        family: Family,
        random: &mut Random,
    ) -> Self {
        standins::trouble(connection, random);
        Self::prepare_of(least_bytes(), connection, arena, family, random)
    }

    /// A round of transfers of an eighth of the buffers at least, for sources with faults of NICs of their own.
    pub fn prepare_large(
        connection: &'a Connection,
        arena: &'a Arena,
        family: Family,
        random: &mut Random,
    ) -> Self {
        Self::prepare_of(arena.length() / 8, connection, arena, family, random)
    }

    /// Transfers of at least so many bytes.
    fn prepare_of(
        least: usize,
        connection: &'a Connection,
        arena: &'a Arena,
        family: Family,
        random: &mut Random,
    ) -> Self {
        watchdog::step("a round of transfers");
        let opcode = match family {
            Family::Read => Opcode::Read,
            Family::Write => Opcode::Write,
            _ => *random.pick(&[Opcode::Write, Opcode::Write, Opcode::Read]),
        };
        let (count, pieces) = family.shape();
        let quarter = arena.length() / 4;
        let transfers = (0..count)
            .map(|index| Transfer {
                windows: windows(index * quarter, quarter, pieces, least / pieces, random),
                id: None,
                outcome: None,
            })
            .collect();
        let bytes = random.bytes(arena.length());
        let guards = vec![GUARD; arena.length()];
        let (near, far) = match opcode {
            Opcode::Write => (bytes, guards.as_slice()),
            Opcode::Read => (guards.as_slice(), bytes),
        };
        assert!(arena.near.fill(near));
        let visible = arena.fill_far(far);
        Self {
            connection,
            arena,
            family,
            opcode,
            transfers,
            bytes,
            visible,
            mapped: Memory::of_run() == Memory::Allocated
                || connection.info().paths == Paths::both(PathKind::Shared),
            since: Instant::now(),
            would_block: 0,
        }
    }

    /// Submits every transfer. `wrong_key`: the first piece of the first one names no region.
    pub fn submit(&mut self, wrong_key: Option<u32>, tally: &mut Tally) {
        self.since = Instant::now();
        for index in 0..self.transfers.len() {
            let mut iovs: Vec<Iov> =
                self.transfers[index].windows.iter().map(|window| self.iov(window)).collect();
            if let (0, Some(rkey)) = (index, wrong_key) {
                iovs[0].remote = RemoteRange { rkey, ..iovs[0].remote };
            }
            match self.start(&iovs) {
                Ok(id) => self.transfers[index].id = Some(id),
                Err(_) => tally.refused += 1,
            }
        }
    }

    fn start(&mut self, iovs: &[Iov]) -> Result<TransferId, SubmitError> {
        if self.family != Family::TrySubmit {
            return self.connection.submit(self.opcode, iovs);
        }
        let started = Instant::now();
        loop {
            match self.connection.try_submit(self.opcode, iovs) {
                Err(SubmitError::WouldBlock) if started.elapsed() < LIMIT => {
                    self.would_block += 1;
                    std::thread::yield_now();
                }
                other => return other,
            }
        }
    }

    fn iov(&self, window: &Window) -> Iov {
        let address = self.arena.far.address() + window.far as u64;
        let Some(remote) = self.connection.describe_remote(address, window.length as u32) else {
            panic!("the peer has not announced {address:#x}+{}", window.length)
        };
        let local = self.arena.near.address() + window.near as u64;
        Iov { local, length: window.length as u64, region: Some(self.arena.near.region()), remote }
    }

    /// Waits for all of them the way the family does, then looks at both buffers.
    pub fn finish(&mut self, tally: &mut Tally) {
        self.await_ends();
        for transfer in self.transfers.iter().filter(|transfer| transfer.id.is_some()) {
            match &transfer.outcome {
                Some(outcome) => tally.outcome(outcome),
                None => tally.hangs += 1,
            }
        }
        self.inspect(tally);
    }

    pub fn all_done(&self) -> bool {
        self.transfers.iter().all(|transfer| transfer.outcome == Some(Outcome::Done))
    }

    /// How the transfers have ended, in words.
    pub fn ends(&self) -> String {
        let ends: Vec<_> = self.transfers.iter().map(|transfer| format!("{:?}", transfer.outcome)).collect();
        ends.join(", ")
    }

    fn await_ends(&mut self) {
        let connection = self.connection;
        if self.family == Family::TestBatch {
            let ids: Vec<_> = self.transfers.iter().filter_map(|transfer| transfer.id).collect();
            let mut ended = vec![None; ids.len()];
            let start = Instant::now();
            while connection.test_batch(&ids, &mut ended) < ids.len() && start.elapsed() < LIMIT {
                std::thread::yield_now();
            }
            let mut ended = ended.into_iter();
            for transfer in self.transfers.iter_mut().filter(|transfer| transfer.id.is_some()) {
                transfer.outcome = ended.next().flatten().and_then(outcome_of);
            }
            return;
        }
        for transfer in &mut self.transfers {
            let Some(id) = transfer.id else { continue };
            transfer.outcome = match self.family {
                Family::Status => poll(|| {
                    std::thread::yield_now();
                    connection.status(id)
                }),
                Family::Wait => poll(|| connection.wait(id, Duration::from_millis(1))),
                _ => outcome_of(connection.wait(id, LIMIT)),
            };
        }
    }

    /// Byte by byte: transfers reported as done have arrived, and nothing but windows has changed.
    fn inspect(&self, tally: &mut Tally) {
        let near = self.arena.near.content();
        let far = self.arena.far.content();
        self.remember(far.as_deref());
        let far = far.filter(|_| self.visible);
        let (source, target) = match self.opcode {
            Opcode::Write => (Some(near), far),
            Opcode::Read => (far, Some(near)),
        };
        if source.is_some_and(|source| source != self.bytes) {
            tally.damaged += 1;
        }
        let done = || self.transfers.iter().filter(|transfer| transfer.outcome == Some(Outcome::Done));
        let Some(mut target) = target else {
            tally.unseen += done().count() as u64;
            return;
        };
        let likeness = |transfer: &Transfer| self.likeness(transfer, &target);
        let (mut unseen, mut false_successes) = (0, 0);
        for transfer in done() {
            match likeness(transfer) {
                Likeness::Same => {}
                Likeness::Unknown => unseen += 1,
                Likeness::Different => false_successes += 1,
            }
        }
        tally.unseen += unseen;
        tally.false_successes += false_successes;
        for window in self.transfers.iter().filter(|transfer| transfer.id.is_some()).flat_map(|t| &t.windows)
        {
            let (_, to) = self.place(window);
            target[to..to + window.length].fill(GUARD);
        }
        if target.chunks(GUARDS.len()).any(|found| found != &GUARDS[..found.len()]) {
            tally.damaged += 1;
        }
    }

    /// Where the bytes of a window come from, and where they go.
    fn place(&self, window: &Window) -> (usize, usize) {
        match self.opcode {
            Opcode::Write => (window.near, window.far),
            Opcode::Read => (window.far, window.near),
        }
    }

    /// Whether the bytes of a transfer that is done are those of its source.
    fn likeness(&self, transfer: &Transfer, target: &[u8]) -> Likeness {
        let is_old = self.opcode == Opcode::Read && self.mapped && !self.visible;
        let mut all = Likeness::Same;
        for window in &transfer.windows {
            let (from, to) = self.place(window);
            let found = &target[to..to + window.length];
            let one = match is_old {
                true => self.arena.seen.borrow().compare(from, found),
                false if self.bytes[from..from + window.length] == *found => Likeness::Same,
                false => Likeness::Different,
            };
            match one {
                Likeness::Same => {}
                Likeness::Unknown => all = Likeness::Unknown,
                Likeness::Different => return Likeness::Different,
            }
        }
        all
    }

    /// Notes what the far memory holds now. What a WRITE was to change, and could not be looked at, may be anything; so may that of
    /// one which is not done, which may still arrive.
    fn remember(&self, far: Option<&[u8]>) {
        let mut seen = self.arena.seen.borrow_mut();
        if let Some(far) = far {
            seen.found(far);
        }
        let is_sure = |transfer: &&Transfer| far.is_some() && transfer.outcome == Some(Outcome::Done);
        let submitted = self.transfers.iter().filter(|transfer| transfer.id.is_some());
        for transfer in submitted.filter(|transfer| self.opcode == Opcode::Write && !is_sure(transfer)) {
            transfer.windows.iter().for_each(|window| seen.forget(window.far..window.far + window.length));
        }
    }
}

fn outcome_of(status: Status) -> Option<Outcome> {
    match status {
        Status::Ended(outcome) => Some(outcome),
        Status::Pending => None,
        Status::Unknown => panic!("an id that was just given out is unknown"),
    }
}

fn poll(mut ask: impl FnMut() -> Status) -> Option<Outcome> {
    let start = Instant::now();
    loop {
        match outcome_of(ask()) {
            None if start.elapsed() < LIMIT => {}
            outcome => return outcome,
        }
    }
}

/// Compared at once: the buffers may be large.
const GUARDS: [u8; 4096] = [GUARD; 4096];

/// `count` windows of at least `least` bytes inside `start..start + room`, with guards around each; the far ones in the opposite
/// order.
fn windows(start: usize, room: usize, count: usize, least: usize, random: &mut Random) -> Vec<Window> {
    let slot = room / count;
    let mut place = |slot_index: usize, length: usize| {
        start + slot_index * slot + 8 + random.below((slot - 16 - length + 1) as u64) as usize
    };
    let length = |index: usize| least + 1 + (index * 977 + start) % (slot - 16 - least);
    let lengths: Vec<_> = (0..count).map(length).collect();
    (0..count)
        .map(|index| {
            let length = lengths[index];
            Window { near: place(index, length), far: place(count - 1 - index, length), length }
        })
        .collect()
}
