//! `doctor HOST:PORT`: whether a peer is reachable, what listens there, and how a connection with it would travel.

mod engine;
mod identify;
mod reach;
mod serve;

use std::time::Instant;

use flagcx_p2p::internals::config;

use super::finding::{Level, Report};
use super::system::SystemRoot;

use identify::Listener;

/// Reports on the peer at `peer`, until about `deadline`.
pub(super) fn report(peer: &str, deadline: Instant, root: &SystemRoot, report: &mut Report) {
    report.section("reachable");
    let Some(reached) = reach::report(peer, deadline, root, report) else { return };
    report.section("what listens there");
    let key = match config::global().auth_key() {
        Ok(key) => key.is_some(),
        Err(error) => {
            return report.fail(
                "key-file",
                "our key",
                error.to_string(),
                "flagcx-p2p doctor, without a peer, checks it",
            );
        }
    };
    let listener = match identify::listener(reached.peer, key, deadline) {
        Ok(listener) => listener,
        Err(error) => {
            return report.fail(
                "listener",
                "what listens there",
                error.to_string(),
                "flagcx-p2p doctor at the peer's host",
            );
        }
    };
    let at = reached.peer;
    match &listener {
        Listener::Engine(engine) => {
            report.ok("listener", at.to_string(), "an engine's RPC port");
            engine::told(engine, at.ip(), key, report);
            if report.count(Level::Fail) > 0 {
                return;
            }
            report.section("connection");
            engine::connect(&reached, deadline, report);
        }
        Listener::NextVersion(hello) => {
            report.ok("listener", at.to_string(), format!("an engine of FlagCX that says hello first: {hello}"));
            report.section("connection");
            engine::connect(&reached, deadline, report);
        }
        Listener::Serve { version } if identify::is_our_stream(*version) => {
            report.ok("listener", at.to_string(), format!("flagcx-p2p serve, control stream of version {version}"));
            report.section("connection");
            serve::connect(&reached, deadline, report);
        }
        Listener::Serve { version } => report.fail(
            "listener",
            at.to_string(),
            format!("flagcx-p2p serve of another release: its control stream has version {version}, ours {}", identify::OUR_STREAM),
            "use the same release at both ends",
        ),
        // Its engines open with a client: there is none to connect to.
        Listener::BenchServe => report.ok(
            "listener",
            at.to_string(),
            format!("flagcx-p2p bench serve; flagcx-p2p bench run {at} measures against it"),
        ),
        Listener::Other(first) => report.fail(
            "listener",
            at.to_string(),
            format!("another program: it sends `{first}`"),
            "name the port that the engine prints (its metadata, or `listening on` of serve)",
        ),
        Listener::Silent => report.fail(
            "listener",
            at.to_string(),
            "accepts connections and answers nothing: another program, or an engine's process that is stopped",
            "name the port that the engine prints, or look at the process (ps, SIGCONT)",
        ),
        Listener::Closes => report.fail(
            "listener",
            at.to_string(),
            "accepts connections and closes them: another program, an engine with FLAGCX_P2P_ALLOW without this host, or with a key and FLAGCX_P2P_AUTH_ALLOW_ORIGINAL unset",
            "flagcx-p2p doctor at the peer's host, and its log",
        ),
    }
}
