//! The modelled NICs and what is between them.
//!
//! A NIC sends and receives at once, each in the order of arrival, at its rate. To send takes [`PER_REQUEST`] for each request, or
//! the time of the bytes if that is longer: a NIC fetches the next request while it sends one. What is sent arrives [`LATENCY`] later; the receiver begins with the first byte and ends no earlier than
//! the last one arrives. Requests that one list posts on one lane travel as one group.
//!
//! Each service takes up to 5 % more or less than its time, each way up to 10 % more. A NIC that is stopped ends nothing until it
//! goes on; what it was given waits.

use std::collections::VecDeque;

use fastrand::Rng;
use flagcx_p2p::internals::fabric::Opcode;

use crate::agenda::{Agenda, Event};

/// Nanoseconds that a sending NIC takes for a request at least.
pub(crate) const PER_REQUEST: u64 = 150;

/// Nanoseconds from one NIC to the other, and back: 3 us for both.
pub(crate) const LATENCY: u64 = 1_500;

/// One NIC.
#[derive(Debug, Default)]
pub(crate) struct Nic {
    nanos_per_byte: f64,
    /// Nanoseconds that each way from or to it takes longer.
    pub(crate) extra_latency: u64,
    /// How many reasons there are for it to stand still.
    stopped: u32,
    /// How many of them make it silent.
    silent: u32,
    sending: Port,
    receiving: Port,
}

/// One direction of a NIC.
#[derive(Debug, Default)]
struct Port {
    queue: VecDeque<u32>,
    serving: Option<u32>,
    /// When the service ends.
    until: u64,
    /// It has ended, and the NIC stands still.
    held: bool,
}

/// Requests that one list posted on a lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) connection: u32,
    pub(crate) rail: u8,
    pub(crate) lane: u8,
    /// Index of the lane in the network.
    pub(crate) queue_pairs: u32,
    pub(crate) opcode: Opcode,
    pub(crate) transfer: u32,
    pub(crate) bytes: u64,
    pub(crate) count: u32,
    /// The NICs that send and receive its bytes.
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// Generations of the queue pairs here and there when it was posted.
    generations: [u32; 2],
    /// When the last byte is at the receiver.
    last_byte: u64,
    pub(crate) posted: u64,
}

/// What came of an event.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Report {
    Nothing,
    /// Bytes were written to memory.
    Executed(Group),
    /// The NIC that has posted it reports its completion.
    Completed(Group),
}

/// All NICs, queue pairs, and what is under way.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) nics: Vec<Nic>,
    /// Generations of the queue pairs of each lane, here and there: one in ERROR lets nothing of its own through any more.
    generations: Vec<[u32; 2]>,
    groups: Vec<Option<Group>>,
    free: Vec<u32>,
    /// Completions that a silent NIC keeps to itself.
    held: Vec<u32>,
    rng: Rng,
    /// Parts in a thousand.
    pub(crate) jitter: u64,
}

impl Nic {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { nanos_per_byte: 1e9 / bytes_per_second as f64, ..Self::default() }
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.silent > 0
    }

    fn time_of(&self, bytes: u64) -> u64 {
        (bytes as f64 * self.nanos_per_byte) as u64
    }
}

impl Network {
    pub(crate) fn new(nics: Vec<Nic>, seed: u64) -> Self {
        Self {
            nics,
            generations: Vec::new(),
            groups: Vec::new(),
            free: Vec::new(),
            held: Vec::new(),
            rng: Rng::with_seed(seed),
            jitter: 50,
        }
    }

    /// The index of a new lane's queue pairs.
    pub(crate) fn connect(&mut self) -> u32 {
        self.generations.push([0; 2]);
        self.generations.len() as u32 - 1
    }

    /// The queue pair at this end of a lane, 0 here and 1 there, is in ERROR.
    pub(crate) fn set_error(&mut self, queue_pairs: u32, end: usize) {
        self.generations[queue_pairs as usize][end] += 1;
    }

    pub(crate) fn post(&mut self, mut group: Group, agenda: &mut Agenda) {
        group.generations = self.generations[group.queue_pairs as usize];
        group.posted = agenda.now;
        let index = self.free.pop().unwrap_or_else(|| {
            self.groups.push(None);
            self.groups.len() as u32 - 1
        });
        let from = group.from;
        self.groups[index as usize] = Some(group);
        self.nics[from as usize].sending.queue.push_back(index);
        self.send_next(from, agenda);
    }

    /// What was posted on a lane and has not completed; nothing of it completes any more.
    pub(crate) fn strand(&mut self, queue_pairs: u32) -> Vec<Group> {
        let generation = self.generations[queue_pairs as usize][0];
        let of_lane = |group: &&Group| group.queue_pairs == queue_pairs && group.generations[0] == generation;
        let stranded = self.groups.iter().flatten().filter(of_lane).copied().collect();
        self.set_error(queue_pairs, 0);
        stranded
    }

    /// How long a request of no bytes takes from one NIC to the other and back: NICs serve queue pairs in turn, so it waits for the
    /// service under way at both, and not for what waits there. `None` if it gets lost.
    pub(crate) fn probe(&mut self, from: u32, to: u32, now: u64) -> Option<u64> {
        let (here, there) = (&self.nics[from as usize], &self.nics[to as usize]);
        if here.is_silent() || there.is_silent() {
            return None;
        }
        let rest = |port: &Port| if port.serving.is_some() { port.until.saturating_sub(now) } else { 0 };
        let waits = rest(&here.sending).max(rest(&there.receiving));
        let way = self.way(from, to);
        Some(PER_REQUEST + waits + 2 * way)
    }

    pub(crate) fn handle(&mut self, event: Event, agenda: &mut Agenda) -> Report {
        match event {
            Event::Sent { nic } => self.sent(nic, agenda),
            Event::Arrives { group } => {
                let Some(arrived) = self.groups[group as usize] else { return Report::Nothing };
                self.nics[arrived.to as usize].receiving.queue.push_back(group);
                self.receive_next(arrived.to, agenda);
            }
            Event::Received { nic } => return self.received(nic, agenda),
            Event::Completed { group } => return self.completed(group),
            Event::Stop { nic, silent } => {
                let nic = &mut self.nics[nic as usize];
                nic.stopped += 1;
                nic.silent += u32::from(silent);
            }
            Event::Resume { nic, silent } => self.resume(nic, silent, agenda),
            _ => {}
        }
        Report::Nothing
    }

    fn send_next(&mut self, nic: u32, agenda: &mut Agenda) {
        let now = agenda.now;
        loop {
            let port = &self.nics[nic as usize];
            if port.stopped > 0 || port.sending.serving.is_some() {
                return;
            }
            let Some(index) = self.nics[nic as usize].sending.queue.pop_front() else { return };
            let Some(group) = self.groups[index as usize] else { continue };
            if self.is_flushed(&group, true) {
                self.release(index);
                continue;
            }
            let requests = u64::from(group.count) * PER_REQUEST;
            let time = self.nics[nic as usize].time_of(group.bytes).max(requests);
            let (time, way) = (self.jittered(time), self.way(group.from, group.to));
            let port = &mut self.nics[nic as usize].sending;
            (port.serving, port.until) = (Some(index), now + time);
            if let Some(group) = &mut self.groups[index as usize] {
                group.last_byte = now + time + way;
            }
            agenda.at(now + time, Event::Sent { nic });
            agenda.at(now + PER_REQUEST + way, Event::Arrives { group: index });
        }
    }

    fn sent(&mut self, nic: u32, agenda: &mut Agenda) {
        let port = &mut self.nics[nic as usize];
        if port.stopped > 0 {
            port.sending.held = true;
            return;
        }
        port.sending.serving = None;
        self.send_next(nic, agenda);
    }

    fn receive_next(&mut self, nic: u32, agenda: &mut Agenda) {
        let now = agenda.now;
        loop {
            let port = &self.nics[nic as usize];
            if port.stopped > 0 || port.receiving.serving.is_some() {
                return;
            }
            let Some(index) = self.nics[nic as usize].receiving.queue.pop_front() else { return };
            let Some(group) = self.groups[index as usize] else { continue };
            if self.is_flushed(&group, false) {
                self.release(index);
                continue;
            }
            let time = self.nics[nic as usize].time_of(group.bytes);
            let until = (now + self.jittered(time)).max(group.last_byte);
            let port = &mut self.nics[nic as usize].receiving;
            (port.serving, port.until) = (Some(index), until);
            agenda.at(until, Event::Received { nic });
        }
    }

    fn received(&mut self, nic: u32, agenda: &mut Agenda) -> Report {
        let port = &mut self.nics[nic as usize];
        if port.stopped > 0 {
            port.receiving.held = true;
            return Report::Nothing;
        }
        let served = port.receiving.serving.take();
        self.receive_next(nic, agenda);
        let Some(index) = served else { return Report::Nothing };
        let Some(group) = self.groups[index as usize] else { return Report::Nothing };
        if self.is_flushed(&group, false) {
            self.release(index);
            return Report::Nothing;
        }
        let way = self.way(group.from, group.to);
        agenda.after(way, Event::Completed { group: index });
        Report::Executed(group)
    }

    fn completed(&mut self, index: u32) -> Report {
        let Some(group) = self.groups[index as usize] else { return Report::Nothing };
        if self.nics[group.from as usize].is_silent() || self.nics[group.to as usize].is_silent() {
            self.held.push(index);
            return Report::Nothing;
        }
        self.release(index);
        if group.generations[0] != self.generations[group.queue_pairs as usize][0] {
            return Report::Nothing;
        }
        Report::Completed(group)
    }

    fn resume(&mut self, index: u32, silent: bool, agenda: &mut Agenda) {
        let nic = &mut self.nics[index as usize];
        nic.stopped -= 1;
        nic.silent -= u32::from(silent);
        if nic.stopped > 0 {
            return;
        }
        if std::mem::take(&mut nic.sending.held) {
            agenda.after(0, Event::Sent { nic: index });
        }
        if std::mem::take(&mut nic.receiving.held) {
            agenda.after(0, Event::Received { nic: index });
        }
        self.held.drain(..).for_each(|group| agenda.after(0, Event::Completed { group }));
        self.send_next(index, agenda);
        self.receive_next(index, agenda);
    }

    /// Whether the queue pair of the end that sends its bytes, or receives them, has been in ERROR since it was posted.
    fn is_flushed(&self, group: &Group, sends: bool) -> bool {
        let end = usize::from((group.opcode == Opcode::Write) != sends);
        group.generations[end] != self.generations[group.queue_pairs as usize][end]
    }

    fn way(&mut self, from: u32, to: u32) -> u64 {
        let way = LATENCY + self.nics[from as usize].extra_latency + self.nics[to as usize].extra_latency;
        if self.jitter == 0 { way } else { way + self.rng.u64(..way / 10) }
    }

    fn jittered(&mut self, time: u64) -> u64 {
        let range = time * self.jitter / 1_000;
        if range == 0 { time } else { time - range + self.rng.u64(..2 * range) }
    }

    fn release(&mut self, index: u32) {
        self.groups[index as usize] = None;
        self.free.push(index);
    }
}

impl Group {
    pub(crate) fn new(
        connection: u32,
        rail: u8,
        lane: u8,
        queue_pairs: u32,
        ends: (u32, u32),
        work: Work,
    ) -> Self {
        let (from, to) = if work.opcode == Opcode::Write { ends } else { (ends.1, ends.0) };
        let Work { transfer, opcode, bytes, count } = work;
        Self {
            connection,
            rail,
            lane,
            queue_pairs,
            opcode,
            transfer,
            bytes,
            count,
            from,
            to,
            generations: [0; 2],
            last_byte: 0,
            posted: 0,
        }
    }

    pub(crate) fn work(&self) -> Work {
        Work { transfer: self.transfer, opcode: self.opcode, bytes: self.bytes, count: self.count }
    }
}

/// Requests that are to be posted as one group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) transfer: u32,
    pub(crate) opcode: Opcode,
    pub(crate) bytes: u64,
    pub(crate) count: u32,
}
