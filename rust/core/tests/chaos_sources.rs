//! Sixteen sources of faults: no false success, no hang, no damaged bytes, no leak.
//!
//! Each test prints its row of the table of `docs/reliability.md`. `FLAGCX_P2P_SEED` chooses another run,
//! `FLAGCX_P2P_TEST_SHARE=1` injects all faults and not a tenth of them.

mod chaos;
mod support;

use chaos::sources;

#[test]
fn every_kth_request_fails() {
    chaos::run(&sources::FAILING_REQUESTS);
}

#[test]
fn posts_are_refused() {
    chaos::run(&sources::REFUSED_POSTS);
}

#[test]
fn peers_are_killed_and_stopped() {
    chaos::run(&sources::KILLED_PEERS);
}

#[test]
fn busy_things_are_destroyed() {
    chaos::run(&sources::DESTRUCTION);
}

#[test]
fn peers_are_restarted() {
    chaos::run(&sources::RESTARTS);
}

#[test]
fn unrelated_clients_disturb_no_peer() {
    chaos::run(&sources::UNRELATED_CLIENTS);
}

#[test]
fn connections_come_and_go() {
    chaos::run(&sources::RECONNECTS);
}

#[test]
fn queues_are_full() {
    chaos::run(&sources::FULL_QUEUE);
}

#[test]
fn peers_are_slow() {
    chaos::run(&sources::SLOW_PEER);
}

#[test]
fn regions_come_and_go() {
    chaos::run(&sources::REGIONS);
}

#[test]
fn signals_interrupt_every_thread() {
    chaos::run(&sources::SIGNALS);
}

#[test]
fn memory_vanishes() {
    chaos::run(&sources::MEMORY);
}

#[test]
fn the_process_forks() {
    chaos::run(&sources::FORKS);
}

#[test]
fn networks_are_disturbed() {
    chaos::run(&sources::NETWORKS);
}

#[test]
fn rails_die() {
    chaos::run(&sources::RAILS);
}

#[test]
fn control_channels_die() {
    chaos::run(&sources::CHANNELS);
}

/// The harness must detect a fabric that reports false successes.
#[test]
fn a_fabric_that_reports_false_success_is_detected() {
    if chaos::over_verbs() && !chaos::standins::of_run() {
        println!("not run over verbs: only the software fabric and stand-ins can report false successes");
        return;
    }
    assert!(chaos::count_lies() > 0);
}

/// All sources, over and over with other seeds, for `FLAGCX_P2P_SECONDS` (default 60).
#[test]
#[ignore = "a soak: ./x soak"]
fn soak_chaos() {
    let seconds = std::env::var("FLAGCX_P2P_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    chaos::soak(seconds.unwrap_or(60));
}

/// Not a test of its own: what the other process of the tests above runs.
#[test]
fn peer_process() {
    chaos::peer::play();
}
