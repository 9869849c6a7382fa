//! The counts in virtual time, and a subscriber as the bridge sets it up.

use std::sync::Arc;

use tracing_subscriber::layer::{Layer, SubscriberExt};

use super::*;

#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is printed of what `write` logs.
fn printed(write: impl FnOnce()) -> Vec<String> {
    let lines = Lines::default();
    let writer = lines.clone();
    let layer = tracing_subscriber::fmt::layer()
        .without_time()
        .with_ansi(false)
        .with_level(false)
        .with_target(false)
        .with_writer(Counted(move || writer.clone()))
        .with_filter(Repeats);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), write);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_first_lines_are_printed_and_the_rest_counted() {
    let (mut kinds, start) = (Kinds::default(), Instant::now());
    for _ in 0..BURST {
        assert_eq!(kinds.decide(1, start), Decision::Print);
    }
    for _ in 0..24_990 {
        assert_eq!(kinds.decide(1, start), Decision::LeaveOut);
    }
    assert_eq!(kinds.decide(2, start), Decision::Print, "of another kind");
    let second = start + SHORTEST;
    assert_eq!(kinds.decide(1, second), Decision::PrintAfter(24_990, SHORTEST));
    // The pauses grow.
    assert_eq!(kinds.decide(1, second + SHORTEST), Decision::LeaveOut);
    assert_eq!(kinds.decide(1, second + 2 * SHORTEST), Decision::PrintAfter(1, 2 * SHORTEST));
    // One of a kind without a line for long is printed again.
    let later = second + 2 * SHORTEST + LONGEST;
    for _ in 0..BURST {
        assert_eq!(kinds.decide(1, later), Decision::Print);
    }
}

#[test]
fn a_count_ends_with_a_line_of_its_own_and_only_once() {
    let (mut kinds, start) = (Kinds::default(), Instant::now());
    for _ in 0..BURST + 5 {
        kinds.decide(1, start);
    }
    let left_out = kinds.take_left_out(start + SHORTEST);
    assert_eq!(left_out, [(String::new(), 5, SHORTEST)]);
    assert!(kinds.take_left_out(start + SHORTEST).is_empty());
}

#[test]
fn the_table_does_not_grow_without_bound() {
    let (mut kinds, now) = (Kinds::default(), Instant::now());
    for kind in 0..10 * MAX_KINDS as u64 {
        kinds.decide(kind, now);
    }
    assert!(kinds.0.len() <= MAX_KINDS + 1);
}

/// 25,000 refused calls: a few lines, each call of its own, with the number of those that were left out at the end.
#[test]
fn refused_calls_in_a_loop_give_a_few_lines() {
    let lines = printed(|| {
        for number in 0..25_000 {
            crate::refusal::refuse("someRefusedCall", &number);
        }
        assert_eq!(crate::refusal::last_error(), "someRefusedCall: 24999");
        crate::refusal::refuse("anotherRefusedCall", &"once");
        flush();
    });
    let of = |call: &str| lines.iter().filter(|line| line.contains(call)).count();
    assert!((11..50).contains(&of("someRefusedCall")), "{lines:#?}");
    assert_eq!(of("anotherRefusedCall"), 1);
    // Other tests of the process leave counts as well.
    let of_call = lines.iter().filter(|line| line.contains("someRefusedCall"));
    let counted: u64 = of_call.clone().filter_map(|line| counted(line)).sum();
    let printed = lines.iter().filter(|line| line.starts_with("someRefusedCall")).count();
    assert_eq!(counted + printed as u64, 25_000, "{lines:#?}");
}

fn counted(line: &str) -> Option<u64> {
    let (before, _) = line.split_once(" more in the last ")?;
    before.rsplit(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

#[test]
fn debug_lines_and_settings_are_all_printed() {
    let lines = printed(|| {
        for number in 0..100 {
            tracing::debug!("detail {number}");
            tracing::info!(target: "flagcx_p2p::config", "setting {number}");
            tracing::info!("peer {number}");
        }
    });
    let of = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!((of("detail"), of("setting"), of("peer")), (100, 100, BURST as usize));
}
