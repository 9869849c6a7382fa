//! Runs every fuzz target over inputs made from its corpus, on the stable toolchain: so many, and with a fixed seed.
//!
//! `FLAGCX_P2P_SEED` chooses other inputs, `PROPTEST_CASES` how many. libFuzzer, which looks for inputs that reach new
//! code, needs a nightly toolchain: `./x nightly`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]
#![allow(clippy::print_stdout, reason = "its output is its report")]

mod corpus;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

/// Inputs for each target: all targets together take some seconds in the development profile.
const CASES: u32 = 2000;

/// One change of an input. Places are given as parts of whatever length the input then has.
#[derive(Clone, Debug)]
enum Edit {
    /// One bit is turned.
    Flip(Index, u8),
    /// One byte becomes another.
    Set(Index, u8),
    /// Bytes come in between.
    Insert(Index, Vec<u8>),
    /// Bytes are left out.
    Remove(Index, Index),
    /// Bytes come once more.
    Repeat(Index, Index),
    /// What follows is the end of another input.
    Splice(Index, Index, Index),
}

/// Bytes that mean something to some decoder: bounds of numbers, and the separators of texts.
const SPECIAL: &[u8] = b"\x00\x01\x7f\x80\xff\n ,:;=-^/.[]%0129ax";

fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![any::<u8>(), proptest::sample::select(SPECIAL)]
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    prop_oneof![
        (at(), 0..8_u8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        (at(), byte()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (at(), vec(byte(), 1..16)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (at(), at()).prop_map(|(from, to)| Edit::Remove(from, to)),
        (at(), at()).prop_map(|(from, to)| Edit::Repeat(from, to)),
        (at(), at(), at()).prop_map(|(at, other, from)| Edit::Splice(at, other, from)),
    ]
}

impl Edit {
    fn apply(&self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        // One place more than there are bytes: the end is a place too.
        let place = |index: &Index, bytes: &[u8]| index.index(bytes.len() + 1);
        let range = |from: &Index, to: &Index, bytes: &[u8]| {
            let (from, to) = (place(from, bytes), place(to, bytes));
            from.min(to)..from.max(to)
        };
        match self {
            Self::Flip(at, bit) => {
                let at = place(at, input);
                input.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit);
            }
            Self::Set(at, value) => {
                let at = place(at, input);
                input.iter_mut().skip(at).take(1).for_each(|byte| *byte = *value);
            }
            Self::Insert(at, bytes) => {
                let at = place(at, input);
                input.splice(at..at, bytes.iter().copied());
            }
            Self::Remove(from, to) => {
                input.drain(range(from, to, input));
            }
            Self::Repeat(from, to) => input.extend_from_within(range(from, to, input)),
            Self::Splice(at, other, from) => {
                let other = other.get(corpus);
                input.truncate(place(at, input));
                input.extend(other.iter().skip(place(from, other)));
            }
        }
    }
}

/// The same inputs every time, unless `FLAGCX_P2P_SEED` is set.
fn runner() -> TestRunner {
    let seed = std::env::var("FLAGCX_P2P_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_251_u64);
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(seed.to_le_bytes()).for_each(|(to, from)| *to = from);
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

fn mutate(start: &Index, edits: &[Edit], corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = start.get(corpus).clone();
    edits.iter().for_each(|edit| edit.apply(&mut input, corpus));
    input
}

#[test]
fn every_target_survives_inputs_made_from_its_corpus() {
    let mut counts = Vec::new();
    for (name, run) in corpus::TARGETS {
        let corpus: Vec<_> = corpus::inputs(name).into_iter().map(|(_, bytes)| bytes).collect();
        let mut runner = runner();
        let result = runner.run(&(any::<Index>(), vec(edit(), 1..8)), |(start, edits)| {
            run(&mutate(&start, &edits, &corpus));
            Ok(())
        });
        if let Err(TestError::Fail(reason, (start, edits))) = &result {
            let input = mutate(start, edits, &corpus);
            panic!("{name}: {reason}\nthe input, for fuzz/corpus/{name}: \"{}\"", input.escape_ascii());
        }
        result.unwrap();
        counts.push(format!("{name} {}", runner.config().cases));
    }
    println!("fuzzed, with so many inputs: {}", counts.join(", "));
}
