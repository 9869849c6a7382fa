//! Bounds on times in tests: what a busy machine may add to them, and what not.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a panic is how a test fails, its output its report"
)]

mod support;

use std::process::Command;
use std::time::Duration;

use support::own_time::{OwnTime, Processors};

const SECOND: Duration = Duration::from_secs(1);

/// What others have taken of so many processors since each of the numbers was a second.
fn taken(count: u32, others: Duration, idle: Duration, awaited: Duration) -> Duration {
    let before = Processors { count, others: SECOND, idle: SECOND, awaited: SECOND };
    let after = Processors { count, others: SECOND + others, idle: SECOND + idle, awaited: SECOND + awaited };
    after.taken_since(&before)
}

#[test]
fn beside_an_idle_processor_others_take_nothing() {
    assert_eq!(taken(64, SECOND, 62 * SECOND, SECOND), Duration::ZERO);
    assert_eq!(taken(2, SECOND, SECOND, SECOND), Duration::ZERO);
}

#[test]
fn others_take_their_share_of_the_processors() {
    assert_eq!(taken(2, SECOND, Duration::ZERO, 3 * SECOND), SECOND / 2);
    assert_eq!(taken(1, SECOND * 3 / 4, Duration::ZERO, SECOND), SECOND * 3 / 4);
}

#[test]
fn others_take_nothing_of_a_program_that_does_not_wait_for_a_processor() {
    assert_eq!(taken(2, 2 * SECOND, Duration::ZERO, SECOND / 100), SECOND / 100);
}

/// One busy program more than there are processors, and a test that waits for what does not come: hardly any of its time is left out.
#[test]
fn a_test_that_waits_notices_it_beside_busy_programs() {
    let count = std::thread::available_parallelism().unwrap().get() + 1;
    // Programs of another family, as those of other tests: their shell ends at once.
    let mut shell = Command::new("sh");
    let script = "for i in $(seq $0); do timeout 2 sh -c 'while :; do :; done' >/dev/null 2>&1 & done";
    assert!(shell.args(["-c", script, &count.to_string()]).status().unwrap().success());
    let time = OwnTime::start();
    std::thread::sleep(2 * SECOND);
    // The thread that ticks may not get its turn on a machine that is busier still.
    let (own, stalled) = (time.elapsed(), time.stalled());
    println!("two seconds are {own:?} of its own, stalled for {stalled:?}");
    assert!(own + stalled > SECOND, "{own:?}, stalled for {stalled:?}");
}
