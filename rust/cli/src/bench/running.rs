//! `bench run` and `bench local`: every row over every path.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::SystemTime;

use flagcx_p2p::internals::engine;
use flagcx_p2p::{Config, Opcode, PathKind};
use rustix::param::page_size;

use super::case::Case;
use super::document::{Document, FORMAT, Host, KIND, Server, Settings};
use super::limits::{self, Copies, KernelCopies, PROCESS_VM, RegistrationRate};
use super::measuring::Measuring;
use super::options::{Limit, LocalOptions, Outputs, RunOptions, Workload};
use super::path::Path;
use super::pool_size::{available_memory, pool_size};
use super::results::Results;
use super::server::serve_here;
use super::session::{Session, SessionOptions};
use crate::error::{CliError, Result, While};
use crate::interrupt::{self, Kept};
use crate::output::units;
use crate::process::ServerProcess;
use crate::settings;

/// Runs `bench run`.
pub(crate) fn run(options: &RunOptions) -> Result<()> {
    let mut bench = Bench::new(&options.workload, &options.outputs, 1, false)?;
    let outcome = bench.path(&options.server, options.path, false, true);
    bench.finish(outcome)
}

/// Runs `bench local`.
pub(crate) fn local(options: &LocalOptions) -> Result<()> {
    let mut bench = Bench::new(&options.workload, &options.outputs, 2, options.in_process)?;
    let mut process = None;
    let paths = paths(options)?;
    let mut outcome = Ok(());
    for path in paths {
        outcome = bench.local_path(path, options.in_process, &mut process);
        if outcome.is_err() || interrupt::requested() {
            break;
        }
    }
    bench.finish(outcome)
}

/// Those that were asked for, else that of `FLAGCX_P2P_PATH`, else all.
fn paths(options: &LocalOptions) -> Result<Vec<Path>> {
    if !options.paths.is_empty() {
        return Ok(options.paths.clone());
    }
    Ok(match settings::config(None)?.path {
        Some(kind) => vec![Path::of_kind(kind)],
        None if options.in_process => vec![Path::InProcess],
        None => Path::LOCAL.to_vec(),
    })
}

/// A run under way.
struct Bench<'a> {
    workload: &'a Workload,
    results: Results,
    pool: u64,
    seed: u64,
    limits_measured: bool,
}

impl<'a> Bench<'a> {
    /// Checks everything that can be checked before anything is measured. `ends`: how many ends are on this machine.
    fn new(workload: &'a Workload, outputs: &Outputs, ends: u64, in_process: bool) -> Result<Self> {
        interrupt::handle(Kept::NOTHING)?;
        // The limits are measured with two more.
        let pools = ends * u64::from(workload.clients) + if workload.limits { 2 } else { 0 };
        let pool =
            pool_size(workload, available_memory(), pools, page_size() as u64).map_err(CliError::usage)?;
        let seed = workload.seed.unwrap_or_else(|| fastrand::u64(0..1 << 32));
        let document = document(workload, pool, seed, in_process)?;
        let results = Results::new(document, outputs, workload)?;
        results.say(&format!(
            "{} pieces in pools of {}, seed {seed}, {} in flight, {}",
            if workload.contiguous { "contiguous (joined by the engine)" } else { "scattered" },
            units::bytes(pool),
            workload.depth,
            if workload.verify { "bytes verified" } else { "bytes not verified" },
        ));
        Ok(Self { workload, results, pool, seed, limits_measured: false })
    }

    /// Measures a path on this machine; one that does not work is noted with the reason.
    fn local_path(
        &mut self,
        path: Path,
        in_process: bool,
        process: &mut Option<ServerProcess>,
    ) -> Result<()> {
        let in_process = in_process || path == Path::InProcess;
        let address = if in_process {
            serve_here()?
        } else {
            match process {
                Some(process) => process.address.clone(),
                None => process.insert(ServerProcess::start_bench()?).address.clone(),
            }
        };
        self.path(&address, path, in_process, false)
    }

    /// Measures all rows over a path. `must`: a server that cannot be reached is an error, not a note.
    fn path(&mut self, address: &str, path: Path, one_process: bool, must: bool) -> Result<()> {
        let options = SessionOptions {
            path,
            pool: self.pool,
            connections: self.workload.connections,
            bidirectional: self.workload.bidirectional,
        };
        let opened = (0..self.workload.clients).map(|_| Session::open(address, &options));
        let mut sessions = match opened.collect::<Result<Vec<_>>>() {
            Ok(sessions) => sessions,
            Err(error) if must => return Err(error).doing(|| format!("bench against {address}")),
            Err(error) => {
                self.results.not_measured(&path.to_string(), &error.to_string());
                return Ok(());
            }
        };
        interrupt::keep(Kept::ROWS);
        self.note_server(address, &sessions, must);
        self.machine_limits(path, one_process, &mut sessions)?;
        let workload = self.workload;
        let mut measuring =
            Measuring { sessions: &mut sessions, workload, one_process, pool: self.pool, seed: self.seed };
        for case in &workload.cases {
            for opcode in &workload.opcodes {
                if interrupt::requested() {
                    return Ok(());
                }
                if let Some(row) =
                    measuring.row(*case, *opcode).doing(|| format!("bench against {address} over {path}"))?
                {
                    self.results.row(row);
                }
            }
        }
        Ok(())
    }

    /// The server of another machine, or at least of another process that runs already.
    fn note_server(&mut self, address: &str, sessions: &[Session], remote: bool) {
        let Some(session) = sessions.first().filter(|_| remote) else { return };
        self.results.document().server = Some(Server {
            address: address.to_owned(),
            host: session.server.host.clone(),
            version: session.server.version.clone(),
        });
    }

    /// Copies once a run, those by the kernel for cross-memory, a socket for TCP.
    fn machine_limits(&mut self, path: Path, one_process: bool, sessions: &mut [Session]) -> Result<()> {
        if !self.workload.limits {
            return Ok(());
        }
        if !std::mem::replace(&mut self.limits_measured, true) {
            let mut copies = Copies::new(self.pool)?;
            for Case { size, .. } in self.largest_batches() {
                self.results.limit(copies.memcpy(size, self.workload.contiguous)?);
            }
        }
        let Some(session) = sessions.first_mut() else { return Ok(()) };
        self.registration(session);
        let over = |kind: PathKind| session.path_of(Opcode::Write) == kind.to_string();
        let (cross_memory, tcp) = (over(PathKind::CrossMemory), path == Path::Tcp || over(PathKind::Tcp));
        if cross_memory
            && !one_process
            && let Err(error) = self.kernel_copies(session)
        {
            self.results.not_measured(&format!("limit {PROCESS_VM}"), &error.to_string());
        }
        if tcp {
            self.results.limit(limits::socket(&mut session.stream)?);
        }
        Ok(())
    }

    /// Of each device once; one that refuses is noted with the reason.
    fn registration(&mut self, session: &Session) {
        let device = session.engine.device().map(|device| device.attributes().name.clone());
        if device.is_some_and(|device| self.results.has_registration(&device)) {
            return;
        }
        match RegistrationRate::measure(&session.engine, self.pool) {
            Ok(rate) => self.results.registration(rate),
            Err(error) => self.results.not_measured("registration", &error.to_string()),
        }
    }

    fn kernel_copies(&mut self, session: &mut Session) -> Result<()> {
        let mut copies = KernelCopies::new(session, self.pool, self.seed)?;
        for Case { batch, size } in self.largest_batches() {
            for opcode in &self.workload.opcodes {
                let limit = copies.measure(*opcode, batch, size, self.workload.contiguous)?;
                self.results.limit(limit);
            }
        }
        Ok(())
    }

    /// Each size of the run, with the most pieces that a transfer has of it.
    fn largest_batches(&self) -> Vec<Case> {
        let mut cases = self.workload.cases.clone();
        cases.sort_unstable_by_key(|case| (case.size, Reverse(case.batch)));
        cases.dedup_by_key(|case| case.size);
        cases
    }

    /// Writes the files, whatever happened.
    fn finish(self, outcome: Result<()>) -> Result<()> {
        let finished = self.results.finish(interrupt::requested() || outcome.is_err());
        match interrupt::check() {
            Err(interrupted) => finished.and(Err(interrupted)),
            Ok(()) => outcome.and(finished),
        }
    }
}

fn document(workload: &Workload, pool: u64, seed: u64, in_process: bool) -> Result<Document> {
    let config = settings::config(None)?;
    let devices = engine::devices(&config)?;
    let provider = devices.selection().provider;
    let (seconds, iterations) = match workload.limit {
        Limit::Time(time) => (Some(time.as_secs_f64()), None),
        Limit::Transfers(transfers) => (None, Some(transfers)),
    };
    Ok(Document {
        kind: KIND.to_owned(),
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        host: Host::here(),
        server: None,
        provider: provider.map_or_else(|| "none".to_owned(), |provider| provider.to_string()),
        device: devices.devices().first().map(|device| device.attributes().name.clone()).unwrap_or_default(),
        settings: Settings {
            seconds,
            iterations,
            repeats: workload.repeats,
            pool_bytes: pool,
            seed,
            verify: workload.verify,
            in_process,
            variables: variables(&config),
        },
        interrupted: false,
        not_measured: Vec::new(),
        limits: Vec::new(),
        registrations: Vec::new(),
        rows: Vec::new(),
    })
}

/// What is set of the variables that change how bytes move. Names of directories, keys and logs do not.
fn variables(config: &Config) -> BTreeMap<String, String> {
    let others = ["FLAGCX_P2P_DIRECTORY", "FLAGCX_P2P_AUTH", "FLAGCX_DEBUG"];
    let set =
        config.settings().iter().filter_map(|setting| Some((setting.variable.name, setting.text.clone()?)));
    set.filter(|(name, _)| !others.iter().any(|other| name.starts_with(other)))
        .map(|(name, text)| (name.to_owned(), text))
        .collect()
}
