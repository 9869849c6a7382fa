//! `doctor`: what the engine finds on this machine, or at a peer; one finding a line, with what to do about it.

mod addresses;
mod cgroup;
mod devices;
mod finding;
mod gpu;
mod limits;
mod name;
mod probe;
mod processors;
mod rails;
mod rdma;
mod remote;
mod sharing;
mod system;
mod topology;
mod variables;

use std::time::{Duration, Instant};

use flagcx_p2p::internals::config::{self, Files};
use flagcx_p2p::internals::fabric::Provider;

use crate::error::{CliError, Result};
use crate::interrupt::{self, Kept};
use crate::names::Peer;
use crate::output;

use finding::{Level, Report};
use system::SystemRoot;
pub(crate) use topology::TopologyOptions;

/// `flagcx-p2p doctor`.
#[derive(Clone, Debug)]
pub(crate) struct DoctorOptions {
    /// The matrix of GPUs and NICs instead of everything else.
    pub(crate) topology: Option<TopologyOptions>,
    /// A peer to look at; `None` looks at this machine.
    pub(crate) peer: Option<Peer>,
    /// Longest time for a peer.
    pub(crate) timeout: Duration,
    /// Print JSON.
    pub(crate) json: bool,
}

/// Runs `doctor`. Fails when something does not work.
pub(crate) fn run(options: &DoctorOptions) -> Result<()> {
    if let Some(options) = &options.topology {
        return topology::run(options);
    }
    options.peer.as_ref().map_or(Ok(()), Peer::check)?;
    if !options.json {
        output::line(&format!("flagcx-p2p {}", env!("CARGO_PKG_VERSION")));
    }
    interrupt::handle(Kept::NOTHING)?;
    let mut report = Report::default();
    match &options.peer {
        None => this_machine(&SystemRoot::default(), &mut report),
        Some(peer) => of_peer(peer, options.timeout, &mut report),
    }
    interrupt::check()?;
    report.print(options.json);
    match report.count(Level::Fail) {
        0 => Ok(()),
        count => Err(CliError::other(format!("{count} of the findings are failures, see `fail` above"))),
    }
}

fn of_peer(peer: &Peer, timeout: Duration, report: &mut Report) {
    let deadline = Instant::now() + timeout;
    if let Some(address) = name::report(peer, deadline, report) {
        remote::report(&address, deadline, &SystemRoot::default(), report);
    }
}

fn this_machine(root: &SystemRoot, report: &mut Report) {
    let config = config::global();
    report.section("settings");
    variables::report(config, &Files::load(), report);
    report.section("addresses");
    addresses::report(config, report);
    report.section("RDMA");
    rdma::report(root, &rdma::opens, report);
    report.section("engine");
    let provider = devices::report(config, root, report);
    report.section("rails");
    rails::report(config, root, report);
    report.section("limits");
    limits::report(root, provider == Some(Provider::Verbs), report);
    cgroup::report(root, report);
    report.section("processors and memory");
    processors::report(root, report);
    sharing::report(root, report);
    report.section("GPU");
    gpu::report(root, report);
    report.section("two processes of this machine");
    if provider.is_some() && config.check().is_ok() {
        probe::report(provider, config, report);
    }
}
