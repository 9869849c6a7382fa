//! The measuring loops.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use flagcx_p2p::{Iov, Opcode, Outcome, Status, TransferId};
use hdrhistogram::Histogram;

use super::{BenchOptions, Case};
use crate::client::Client;
use crate::error::{CliError, Problem, Result};
use crate::settings::processor_time;

/// Longest wait for one transfer.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(60);
/// Time between two requests to the server meanwhile: it drops a client that sends none.
const REQUEST_INTERVAL: Duration = Duration::from_secs(10);

/// The result of one case and direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) opcode: Opcode,
    pub(crate) case: Case,
    pub(crate) transfers: u64,
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
    /// From submit to the end of a transfer: median and 99th percentile.
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Processor time of this process and of the server's. One process: both are the whole.
    pub(crate) own_cpu: Duration,
    pub(crate) server_cpu: Duration,
}

/// Measures every case, both directions. Each case first moves data that is checked.
pub(super) fn all(client: &Client, options: &BenchOptions) -> Result<Vec<Measured>> {
    let mut measured = Vec::new();
    for (seed, case) in (1..).zip(&options.cases) {
        let iovs = iovs(client, *case)?;
        check(client, *case, &iovs, seed)?;
        for opcode in [Opcode::Write, Opcode::Read] {
            measured.push(one(client, options, *case, &iovs, opcode)?);
        }
    }
    Ok(measured)
}

fn iovs(client: &Client, case: Case) -> Result<Vec<Iov>> {
    let slot = client.slots().first().filter(|_| case.bytes() <= u64::from(client.ring().shape().chunk));
    let slot = slot.ok_or_else(|| {
        CliError::other(format!("{case} is more than the server's ring; raise its --ring-limit"))
    })?;
    Ok((0..case.batch).map(|at| client.ring().iov_at(at * case.size, case.size, slot)).collect())
}

/// Writes a pattern to the peer, overwrites it here, reads it back and compares.
fn check(client: &Client, case: Case, iovs: &[Iov], seed: u8) -> Result<()> {
    let length = usize::try_from(case.bytes()).unwrap_or(0);
    let pattern: Vec<u8> = (0..length).map(|at| (at % 251) as u8 ^ (at >> 12) as u8 ^ seed).collect();
    let lost = || CliError::other(format!("{case} does not fit the ring"));
    client.ring().write(0, 0, &pattern).then_some(()).ok_or_else(lost)?;
    wait(client, client.connection().submit(Opcode::Write, iovs)?)?;
    let mut back = vec![!seed; length];
    client.ring().write(0, 0, &back).then_some(()).ok_or_else(lost)?;
    wait(client, client.connection().submit(Opcode::Read, iovs)?)?;
    client.ring().read(0, 0, &mut back).then_some(()).ok_or_else(lost)?;
    if back == pattern { Ok(()) } else { Err(Problem::Mismatch(format!("case {case}")).into()) }
}

fn one(
    client: &Client,
    options: &BenchOptions,
    case: Case,
    iovs: &[Iov],
    opcode: Opcode,
) -> Result<Measured> {
    let mut latencies = Latencies::new()?;
    let mut posted: VecDeque<(TransferId, Instant)> = VecDeque::with_capacity(options.depth);
    let server_before = client.server_usage()?;
    let own_before = processor_time();
    let started = Instant::now();
    let end = started + Duration::from_secs_f64(options.seconds);
    let mut transfers = 0;
    let mut asked = started;
    while Instant::now() < end || !posted.is_empty() {
        if asked.elapsed() > REQUEST_INTERVAL {
            client.server_usage()?;
            asked = Instant::now();
        }
        while posted.len() < options.depth && Instant::now() < end {
            let now = Instant::now();
            posted.push_back((client.connection().submit(opcode, iovs)?, now));
        }
        if let Some((id, since)) = posted.pop_front() {
            wait(client, id)?;
            transfers += 1;
            latencies.record(since.elapsed());
        }
    }
    let elapsed = started.elapsed();
    let own_cpu = processor_time().saturating_sub(own_before);
    let server_cpu = client.server_usage()?.saturating_sub(server_before);
    Ok(Measured {
        opcode,
        case,
        transfers,
        bytes: transfers * case.bytes(),
        elapsed,
        p50: latencies.percentile(50.0),
        p99: latencies.percentile(99.0),
        own_cpu,
        server_cpu,
    })
}

fn wait(client: &Client, id: TransferId) -> Result<()> {
    let outcome = match client.connection().wait(id, TRANSFER_TIMEOUT) {
        Status::Ended(Outcome::Done) => return Ok(()),
        _ if id == TransferId::COMPLETE => return Ok(()),
        Status::Ended(outcome) => outcome.to_string(),
        Status::Pending => format!("did not end within {} s", TRANSFER_TIMEOUT.as_secs()),
        Status::Unknown => "is not known to the engine".to_owned(),
    };
    Err(Problem::Transfer { sequence: id.0, outcome }.into())
}

/// How long each transfer of a measurement took, in nanoseconds, to three significant digits. All of its memory is
/// allocated at the start, so that counting a transfer costs the measurement next to nothing.
struct Latencies(Histogram<u64>);

impl Latencies {
    fn new() -> Result<Self> {
        let most = u64::try_from(TRANSFER_TIMEOUT.as_nanos()).unwrap_or(u64::MAX);
        let histogram = Histogram::new_with_bounds(1, most, 3);
        histogram.map(Self).map_err(|error| CliError::other(format!("create the latency histogram: {error}")))
    }

    /// Counts one transfer; one beyond the timeout counts as the timeout.
    fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Zero without any transfer.
    fn percentile(&self, percent: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_percentile(percent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_thousandth() {
        let mut latencies = Latencies::new().unwrap();
        assert_eq!(latencies.percentile(50.0), Duration::ZERO);
        // More transfers than any list of samples would keep.
        for micros in (1..=2000).cycle().take(2_000_000) {
            latencies.record(Duration::from_micros(micros));
        }
        for (percent, micros) in [(50.0, 1000.0), (99.0, 1980.0), (100.0, 2000.0)] {
            let found = latencies.percentile(percent).as_secs_f64() * 1e6;
            assert!((found / micros - 1.0).abs() < 1e-3, "{percent} %: {found} us");
        }
    }

    #[test]
    fn a_transfer_beyond_the_timeout_is_counted() {
        let mut latencies = Latencies::new().unwrap();
        latencies.record(Duration::MAX);
        assert!(latencies.percentile(100.0) >= TRANSFER_TIMEOUT);
    }
}
