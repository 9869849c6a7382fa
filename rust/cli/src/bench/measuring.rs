//! Measures one row: prepares the bytes, warms up, transfers, compares.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::Opcode;
use rustix::param::page_size;

use super::case::Case;
use super::latencies::Latencies;
use super::layout::{Layout, LayoutSpec};
use super::measure::{self, Tally};
use super::options::{Limit, Workload};
use super::pattern::{self, Compared, Span};
use super::protocol::{ANSWER_TIMEOUT, Frame, Load, unexpected};
use super::row::{Data, Pieces, Row, RowKey, median};
use super::serving::{Share, workers};
use super::session::Session;
use super::worker::{Stop, Worker};
use crate::error::{CliError, Result, While};
use crate::interrupt;
use crate::output::units::gigabytes_per_second;
use crate::settings::processor_time;

/// How often the measuring threads are watched.
const TICK: Duration = Duration::from_millis(50);
/// How often the server is asked for a sign of life.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// What a row is measured with.
#[derive(Debug)]
pub(crate) struct Measuring<'a> {
    pub(crate) sessions: &'a mut [Session],
    pub(crate) workload: &'a Workload,
    /// Both ends are one process.
    pub(crate) one_process: bool,
    pub(crate) pool: u64,
    pub(crate) seed: u64,
}

/// One direction of a row: what moves from which end.
#[derive(Clone, Copy, Debug)]
struct Direction {
    opcode: Opcode,
    layout: LayoutSpec,
    server_is_source: bool,
    /// The server starts the transfers.
    reverse: bool,
}

/// The server's own transfers of one repeat, of all its clients.
#[derive(Clone, Debug, Default)]
struct Reverse {
    transfers: u64,
    gigabytes_per_second: f64,
    /// By session.
    spans: Vec<Vec<Span>>,
}

impl Measuring<'_> {
    /// Measures a case. `None`: a signal has come meanwhile.
    pub(crate) fn row(&mut self, case: Case, opcode: Opcode) -> Result<Option<Row>> {
        let measured = self.measured(case, opcode);
        if measured.is_err() {
            self.sessions.iter().for_each(Session::abandon);
        }
        measured.doing(|| format!("{} of {case}", super::row::Operation::from(opcode).name()))
    }

    fn measured(&mut self, case: Case, opcode: Opcode) -> Result<Option<Row>> {
        let directions = self.directions(case, opcode);
        for direction in &directions {
            self.prepare(direction)?;
        }
        let Some(forward) = directions.first() else { return Ok(None) };
        let layout = Layout::new(forward.layout).ok_or_else(too_small)?;
        let mut workers = self.workers(case, opcode, &Arc::new(layout));
        self.forward(&mut workers, self.workload.warm_up())?;
        let mut totals = Totals::new()?;
        let mut reverse_spans = vec![Vec::new(); self.sessions.len()];
        for _ in 0..self.workload.repeats {
            if interrupt::requested() {
                return Ok(None);
            }
            let reverse = directions.get(1).copied();
            let server_before = self.server_usage()?;
            let own_before = processor_time();
            if let Some(direction) = &reverse {
                self.start_reverse(case, direction)?;
            }
            let tally = self.forward(&mut workers, self.workload.limit)?;
            let back = if reverse.is_some() { self.stop_reverse(case)? } else { Reverse::default() };
            totals.own_cpu += processor_time().saturating_sub(own_before);
            totals.server_cpu += self.server_usage()?.saturating_sub(server_before);
            for (all, new) in reverse_spans.iter_mut().zip(&back.spans) {
                all.clone_from(&longest(all, new));
            }
            totals.add(case, &tally, &back);
        }
        if interrupt::requested() {
            return Ok(None);
        }
        let compared = self.compare(&directions, &workers, &reverse_spans)?;
        Ok(Some(self.finish(case, opcode, &totals, compared)))
    }

    /// Forward alone, or both: each with a part of the pools of its own.
    fn directions(&self, case: Case, opcode: Opcode) -> Vec<Direction> {
        let both = self.workload.bidirectional;
        // The parts of a pool begin at a page.
        let page = page_size() as u64;
        let length = if both { self.pool / 2 / page * page } else { self.pool };
        let layout = |start, seed| LayoutSpec {
            seed,
            start,
            length,
            piece: case.size,
            contiguous: self.workload.contiguous,
        };
        let writes = opcode == Opcode::Write;
        let forward =
            Direction { opcode, layout: layout(0, self.seed), server_is_source: !writes, reverse: false };
        let reverse = Direction {
            opcode,
            layout: layout(length, self.seed.rotate_left(32)),
            server_is_source: writes,
            reverse: true,
        };
        if both { vec![forward, reverse] } else { vec![forward] }
    }

    /// Source and destination, so that what arrives can be told from what was there.
    fn prepare(&mut self, direction: &Direction) -> Result<()> {
        let LayoutSpec { seed, start, length, .. } = direction.layout;
        if !self.workload.verify {
            return Ok(());
        }
        for session in &mut *self.sessions {
            session.prepare(direction.server_is_source, seed, start, length)?;
        }
        Ok(())
    }

    fn workers(&self, case: Case, opcode: Opcode, layout: &Arc<Layout>) -> Vec<Worker> {
        let of = |session: &Session| {
            workers(
                &session.connections,
                &Share {
                    layout: Arc::clone(layout),
                    local: session.local(),
                    remote: session.remote,
                    opcode,
                    batch: case.batch,
                    depth: self.workload.depth,
                    threads: usize::from(self.workload.threads),
                },
            )
        };
        self.sessions.iter().flat_map(of).collect()
    }

    /// All threads of this side, until the limit or a signal.
    fn forward(&mut self, workers: &mut [Worker], limit: Limit) -> Result<Tally> {
        let mut pinged = Instant::now();
        measure::run(workers, limit, TICK, &mut |stop: &Stop| {
            if interrupt::requested() {
                stop.finish();
            }
            if pinged.elapsed() >= PING_INTERVAL {
                for session in &mut *self.sessions {
                    session.ping()?;
                }
                pinged = Instant::now();
            }
            Ok(())
        })
    }

    fn start_reverse(&mut self, case: Case, direction: &Direction) -> Result<()> {
        let start = Frame::Start(Load {
            write: direction.opcode == Opcode::Write,
            layout: direction.layout,
            batch: case.batch,
            depth: self.workload.depth,
            threads: self.workload.threads,
        });
        for session in &mut *self.sessions {
            session.stream.order(&start)?;
        }
        Ok(())
    }

    fn stop_reverse(&mut self, case: Case) -> Result<Reverse> {
        for session in &mut *self.sessions {
            session.stream.send(&Frame::Stop)?;
        }
        let mut all = Reverse::default();
        for session in &mut *self.sessions {
            let (ran, micros, spans) = match session.stream.receive(ANSWER_TIMEOUT)? {
                Frame::Ran { transfers, micros, spans } => (transfers, micros, spans),
                other => return Err(unexpected(&other).into()),
            };
            let bytes = ran.saturating_mul(case.bytes());
            all.transfers += ran;
            all.gigabytes_per_second += gigabytes_per_second(bytes, Duration::from_micros(micros));
            all.spans.push(spans);
        }
        Ok(all)
    }

    /// The server is one process, however many clients it has.
    fn server_usage(&mut self) -> Result<Duration> {
        self.sessions.first_mut().map_or(Ok(Duration::ZERO), Session::server_usage)
    }

    /// Compares at each destination; `None` without verification.
    fn compare(
        &mut self,
        directions: &[Direction],
        workers: &[Worker],
        reverse: &[Vec<Span>],
    ) -> Result<Option<Compared>> {
        if !self.workload.verify {
            return Ok(None);
        }
        let threads = usize::from(self.workload.threads).max(1);
        let mut all = Compared::default();
        for direction in directions {
            let seed = direction.layout.seed;
            let layout = Layout::new(direction.layout).ok_or_else(too_small)?;
            let groups = workers.chunks(threads).zip(reverse);
            for (session, (own, back)) in self.sessions.iter_mut().zip(groups) {
                let spans =
                    if direction.reverse { back.clone() } else { own.iter().map(Worker::span).collect() };
                if self.workload.corrupt && !direction.reverse {
                    corrupt(session, direction, &layout, &spans)?;
                }
                let compared = if direction.server_is_source {
                    pattern::compare(&session.pool, seed, &layout, &spans)
                } else {
                    let compare = Frame::Compare { seed, layout: direction.layout, spans };
                    match session.stream.ask(&compare)? {
                        Frame::Compared(compared) => compared,
                        other => return Err(unexpected(&other).into()),
                    }
                };
                all.add(compared);
            }
        }
        Ok(Some(all))
    }

    fn finish(&self, case: Case, opcode: Opcode, totals: &Totals, compared: Option<Compared>) -> Row {
        let workload = self.workload;
        let per_gib = |cpu: Duration| cpu.as_secs_f64() / (totals.bytes.max(1) as f64 / f64::from(1 << 30));
        let rates = &totals.rates;
        Row {
            key: RowKey {
                path: self.sessions.first().map(|session| session.path_of(opcode)).unwrap_or_default(),
                operation: opcode.into(),
                size: case.size,
                batch: case.batch,
                pieces: if workload.contiguous { Pieces::Contiguous } else { Pieces::Scattered },
                bidirectional: workload.bidirectional,
                depth: workload.depth,
                connections: workload.connections,
                threads: workload.threads,
                clients: workload.clients,
            },
            transfers: totals.transfers,
            bytes: totals.bytes,
            seconds: totals.elapsed.as_secs_f64(),
            gigabytes_per_second: median(rates),
            gigabytes_per_second_min: rates.iter().copied().reduce(f64::min).unwrap_or(0.0),
            gigabytes_per_second_max: rates.iter().copied().reduce(f64::max).unwrap_or(0.0),
            repeats: rates.clone(),
            reverse_gigabytes_per_second: workload.bidirectional.then(|| median(&totals.reverse)),
            transfers_per_second: median(&totals.per_second),
            p50_us: totals.latencies.percentile(50.0),
            p99_us: totals.latencies.percentile(99.0),
            p999_us: totals.latencies.percentile(99.9),
            max_us: totals.latencies.longest(),
            cpu_seconds_per_gib_client: per_gib(totals.own_cpu),
            cpu_seconds_per_gib_server: (!self.one_process).then(|| per_gib(totals.server_cpu)),
            data: match compared {
                None => Data::Unverified,
                Some(Compared { wrong: 0, .. }) => Data::Verified,
                Some(_) => Data::Corrupted,
            },
            pieces_compared: compared.map_or(0, |compared| compared.pieces),
            pieces_wrong: compared.map_or(0, |compared| compared.wrong),
        }
    }
}

/// What all repeats have in common.
struct Totals {
    transfers: u64,
    bytes: u64,
    elapsed: Duration,
    rates: Vec<f64>,
    reverse: Vec<f64>,
    per_second: Vec<f64>,
    latencies: Latencies,
    own_cpu: Duration,
    server_cpu: Duration,
}

impl Totals {
    fn new() -> Result<Self> {
        Ok(Self {
            transfers: 0,
            bytes: 0,
            elapsed: Duration::ZERO,
            rates: Vec::new(),
            reverse: Vec::new(),
            per_second: Vec::new(),
            latencies: Latencies::new()?,
            own_cpu: Duration::ZERO,
            server_cpu: Duration::ZERO,
        })
    }

    fn add(&mut self, case: Case, tally: &Tally, reverse: &Reverse) {
        let rate = gigabytes_per_second(tally.transfers * case.bytes(), tally.elapsed);
        self.transfers += tally.transfers + reverse.transfers;
        self.bytes += (tally.transfers + reverse.transfers) * case.bytes();
        self.elapsed += tally.elapsed;
        self.rates.push(rate + reverse.gigabytes_per_second);
        self.reverse.push(reverse.gigabytes_per_second);
        self.per_second.push(tally.transfers as f64 / tally.elapsed.as_secs_f64().max(1e-9));
        self.latencies.add(&tally.latencies);
    }
}

/// Each thread of the server begins at the same piece in every repeat: the longest span holds the others.
fn longest(all: &[Span], new: &[Span]) -> Vec<Span> {
    let count = |first: u64| all.iter().find(|span| span.first == first).map_or(0, |span| span.count);
    new.iter().map(|span| Span { count: span.count.max(count(span.first)), ..*span }).collect()
}

/// Changes a byte that was to arrive: at this side where it arrives here, and else at the source, which one more
/// transfer of the first piece carries over.
fn corrupt(session: &Session, direction: &Direction, layout: &Layout, spans: &[Span]) -> Result<()> {
    let k = spans.first().map_or(0, |span| span.first);
    let place = if direction.server_is_source { layout.destination(k) } else { layout.source(k) };
    let place = usize::try_from(place).unwrap_or(usize::MAX);
    let mut byte = [0];
    let changed = session.pool.read(place, &mut byte) && session.pool.write(place, &[!byte[0]]);
    if !changed {
        return Err(too_small());
    }
    if direction.server_is_source {
        return Ok(());
    }
    let again = workers(
        &session.connections,
        &Share {
            layout: Arc::new(Layout::new(direction.layout).ok_or_else(too_small)?),
            local: session.local(),
            remote: session.remote,
            opcode: direction.opcode,
            batch: 1,
            depth: 1,
            threads: 1,
        },
    );
    for mut worker in again {
        worker.run(Limit::Transfers(1), &Stop::default())?;
    }
    Ok(())
}

fn too_small() -> CliError {
    CliError::other("the pool is smaller than what it is used for")
}
