//! The model against formulas, a few seeds of each row, and the defects that the rows must find.

use crate::formulas::formulas;
use crate::policy::Policy;
use crate::report::json;
use crate::rows::{Row, compare_latencies, row};
use crate::scenario::Scenario;
use crate::simulation::run;

#[test]
fn the_model_agrees_with_formulas() {
    assert_eq!(formulas(), Vec::<String>::new());
}

#[test]
fn a_small_transfer_uses_one_nic() {
    let outcome = run(&Scenario::once(8, 256 << 10), Policy::Ours, 1);
    assert_eq!(outcome.by_rail.iter().filter(|bytes| **bytes > 0).count(), 1);
}

#[test]
fn equal_nics_without_jitter_are_all_used_to_the_full() {
    let scenario = Scenario { pauses: false, ..Scenario::a() };
    let outcome = run(&scenario, Policy::Ours, 1);
    assert!((0.995..1.005).contains(&outcome.share), "{}", outcome.share);
    let (least, most) = (outcome.by_rail.iter().min(), outcome.by_rail.iter().max());
    assert!(least.zip(most).is_some_and(|(least, most)| most - least <= most / 100), "{:?}", outcome.by_rail);
}

#[test]
fn a_run_is_determined_by_its_seed() {
    let scenario = Scenario::d();
    let outcomes = [1, 1, 2].map(|seed| format!("{:?}", run(&scenario, Policy::Ours, seed)));
    assert_eq!(outcomes[0], outcomes[1]);
    assert_ne!(outcomes[0], outcomes[2]);
}

#[test]
fn ours_reaches_every_row_with_a_few_seeds() {
    let mut rows: Vec<Row> = Scenario::all().iter().map(|scenario| row(scenario, Policy::Ours, 3)).collect();
    compare_latencies(&mut rows);
    let missed: Vec<_> = rows.iter().filter(|row| !row.misses.is_empty()).collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

/// What a defect misses in a scenario.
fn missed(scenario: &Scenario, defect: Policy) -> String {
    assert!(row(scenario, Policy::Ours, 4).misses.is_empty());
    row(scenario, defect, 4).misses.join("; ")
}

#[test]
fn round_robin_in_the_place_of_the_plan_is_found() {
    assert!(missed(&Scenario::b(), Policy::OursRoundRobin).contains("share >= 0.95"));
}

#[test]
fn a_missing_probe_is_found() {
    assert!(missed(&Scenario::d(), Policy::OursWithoutProbe).contains("detection"));
}

#[test]
fn a_pause_of_a_rail_that_was_not_asked_is_found() {
    assert!(missed(&Scenario::contended(), Policy::OursUnasked).contains("no rail paused"));
}

#[test]
fn a_part_that_moves_before_the_peer_is_quiet_is_found() {
    let missed = missed(&Scenario::d(), Policy::OursWithoutQuiesce);
    assert!(missed.contains("after the end of its transfer"), "{missed}");
}

#[test]
fn a_peer_that_goes_silent_as_a_whole_pauses_no_rail() {
    let outcomes: Vec<_> = (0..20).map(|seed| run(&Scenario::k(), Policy::Ours, seed)).collect();
    assert!(outcomes.iter().all(|outcome| outcome.pauses == 0 && outcome.failed == 0), "{outcomes:#?}");
}

#[test]
fn rows_for_programs_have_what_they_read() {
    let rows = [Policy::Ours, Policy::RoundRobin].map(|policy| row(&Scenario::small(false), policy, 1));
    let read: serde_json::Value = serde_json::from_str(&json(&rows).unwrap()).unwrap();
    for field in "scenario policy share jain failed pauses detection_ms recovery_ms seed".split(' ') {
        assert!(read[0].get(field).is_some(), "{field}: {read}");
    }
    assert_eq!((&read[0]["policy"], &read[1]["policy"]), (&"ours".into(), &"round_robin".into()));
    assert!(read[0]["scenario"].as_str().is_some_and(|name| name.starts_with("A, 1 MiB:")), "{read}");
    assert!(read[0]["share"].as_f64().is_some_and(|share| share > 0.9), "{read}");
}
