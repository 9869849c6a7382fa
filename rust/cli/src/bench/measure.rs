//! The measuring loops.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use flagcx_p2p::{Iov, Opcode, Outcome, Status, TransferId};

use super::{BenchOptions, Case};
use crate::client::Client;
use crate::error::{CliError, Problem, Result};
use crate::settings::processor_time;

/// Latencies kept per measurement; later ones count for throughput only.
const SAMPLES: usize = 1 << 20;
/// Longest wait for one transfer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the server is asked something meanwhile: it drops a client that asks for nothing.
const SPEAK: Duration = Duration::from_secs(10);

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
        let pieces = pieces(client, *case)?;
        check(client, *case, &pieces, seed)?;
        for opcode in [Opcode::Write, Opcode::Read] {
            measured.push(one(client, options, *case, &pieces, opcode)?);
        }
    }
    Ok(measured)
}

fn pieces(client: &Client, case: Case) -> Result<Vec<Iov>> {
    let slot = client.slots().first().filter(|_| case.bytes() <= u64::from(client.ring().shape().chunk));
    let slot = slot.ok_or_else(|| {
        CliError::other(format!("{case} is more than the server's ring; raise its --ring-limit"))
    })?;
    Ok((0..case.batch).map(|at| client.ring().piece_at(at * case.size, case.size, slot)).collect())
}

/// Writes a pattern to the peer, forgets it here, reads it back and compares.
fn check(client: &Client, case: Case, pieces: &[Iov], seed: u8) -> Result<()> {
    let length = usize::try_from(case.bytes()).unwrap_or(0);
    let pattern: Vec<u8> = (0..length).map(|at| (at % 251) as u8 ^ (at >> 12) as u8 ^ seed).collect();
    client.ring().write(0, &pattern)?;
    wait(client, client.connection().submit(Opcode::Write, pieces)?)?;
    let mut back = vec![!seed; length];
    client.ring().write(0, &back)?;
    wait(client, client.connection().submit(Opcode::Read, pieces)?)?;
    client.ring().read(0, &mut back)?;
    if back == pattern { Ok(()) } else { Err(Problem::Mismatch(format!("case {case}")).into()) }
}

fn one(
    client: &Client,
    options: &BenchOptions,
    case: Case,
    pieces: &[Iov],
    opcode: Opcode,
) -> Result<Measured> {
    let mut latencies: Vec<Duration> = Vec::with_capacity(SAMPLES);
    let mut posted: VecDeque<(TransferId, Instant)> = VecDeque::with_capacity(options.depth);
    let server_before = client.server_usage()?;
    let own_before = processor_time();
    let started = Instant::now();
    let end = started + Duration::from_secs_f64(options.seconds);
    let mut transfers = 0;
    let mut spoken = started;
    while Instant::now() < end || !posted.is_empty() {
        if spoken.elapsed() > SPEAK {
            client.server_usage()?;
            spoken = Instant::now();
        }
        while posted.len() < options.depth && Instant::now() < end {
            let now = Instant::now();
            posted.push_back((client.connection().submit(opcode, pieces)?, now));
        }
        if let Some((id, since)) = posted.pop_front() {
            wait(client, id)?;
            transfers += 1;
            if latencies.len() < SAMPLES {
                latencies.push(since.elapsed());
            }
        }
    }
    let elapsed = started.elapsed();
    let own_cpu = processor_time().saturating_sub(own_before);
    let server_cpu = client.server_usage()?.saturating_sub(server_before);
    latencies.sort_unstable();
    Ok(Measured {
        opcode,
        case,
        transfers,
        bytes: transfers * case.bytes(),
        elapsed,
        p50: percentile(&latencies, 50),
        p99: percentile(&latencies, 99),
        own_cpu,
        server_cpu,
    })
}

fn wait(client: &Client, id: TransferId) -> Result<()> {
    let outcome = match client.connection().wait(id, PATIENCE) {
        Status::Ended(Outcome::Done) => return Ok(()),
        _ if id == TransferId::COMPLETE => return Ok(()),
        Status::Ended(outcome) => outcome.to_string(),
        Status::Pending => format!("did not end within {} s", PATIENCE.as_secs()),
        Status::Unknown => "is not known to the engine".to_owned(),
    };
    Err(Problem::Transfer { sequence: id.0, outcome }.into())
}

/// Of sorted samples; zero without any.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let samples: Vec<_> = (1..=100).map(Duration::from_nanos).collect();
        assert_eq!(percentile(&samples, 50), Duration::from_nanos(50));
        assert_eq!(percentile(&samples, 99), Duration::from_nanos(99));
        assert_eq!(percentile(&samples[..1], 99), Duration::from_nanos(1));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }
}
