//! NICs, maps and limits that make no rail: one line says so, and the connection uses the rails that there are.
#![cfg(feature = "verbs")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod captured_log;
mod nics;
mod nullverbs;
mod support;

use std::sync::Arc;

use captured_log::Captured;
use flagcx_p2p::internals::engine::{Engine, EngineOptions};
use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice, FabricOptions, Opcode, VerbsOptions};
use flagcx_p2p::internals::transfer::Outcome;
use nics::{ENOUGH, up};
use nullverbs::Standin;
use support::{Pair, blocks, content, eventually, outcome};
use tracing::Level;

type Settings<'a> = &'a [(&'a str, &'a str)];

/// Two engines over the devices of a stand-in, each with those that are named, and with settings of its own.
fn pair(standin: &Standin, names: [&str; 2], settings: [Settings<'_>; 2]) -> Pair {
    let engine = |end: usize| {
        let verbs = VerbsOptions { hca: names[end].to_owned(), ..standin.options() };
        let options = FabricOptions { choice: FabricChoice::Verbs, verbs, ..FabricOptions::default() };
        let devices = Some(Arc::new(DeviceList::open(&options).unwrap()));
        let base = [("FLAGCX_P2P_FABRIC", "verbs"), ("FLAGCX_P2P_BIND", "127.0.0.1")];
        let config = support::config(&[settings[end], &base].concat());
        Engine::open(config, EngineOptions { gpu_index: 0, devices }).unwrap()
    };
    Pair::between(engine(0), engine(1), ENOUGH)
}

/// Transfers go on until `count` rails are up, and every byte of them arrives. The names of the NICs of both ends.
fn expect_rails(pair: &Pair, count: usize) -> Vec<(String, String)> {
    let mut seed = 0;
    eventually("the rails are up", || {
        seed += 1;
        let bytes = blocks(seed, ENOUGH);
        assert!(pair.source.write(0, &bytes));
        let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, ENOUGH as u64)][..]).unwrap();
        assert_eq!(outcome(&pair.here, id), Outcome::Done);
        assert!(content(&pair.target) == bytes, "other bytes");
        seed > 8 && up(&pair.here).len() >= count
    });
    let rails = up(&pair.here);
    assert_eq!(rails.len(), count, "{rails:#?}");
    let device = |name: &str| name.split(':').next().unwrap_or_default().to_owned();
    rails.iter().map(|rail| (device(&rail.nic), device(&rail.peer_nic))).collect()
}

/// The lines at INFO and above behind the first `before` that have one of these words.
fn lines(log: &Captured, before: usize, words: &[&str]) -> Vec<String> {
    let lines = log.lines().into_iter().skip(before).filter(|line| line.level <= Level::INFO);
    lines.map(|line| line.message).filter(|text| words.iter().any(|word| text.contains(word))).collect()
}

/// What may be said of a NIC, a map or a limit that makes no rail. On a machine that is busy a rail may be paused.
const COMPLAINTS: &[&str] = &["is not added", "one rail is used", "FLAGCX_P2P_RAIL_MAP", "rails use at most"];

/// The NICs of the first rail and of another one.
fn first_and(here: &str, there: &str) -> Vec<(String, String)> {
    [("nv0", "nv0"), (here, there)].map(|(here, there)| (here.to_owned(), there.to_owned())).to_vec()
}

#[test]
fn a_map_that_names_nothing_is_one_line_and_rails_are_made_without_it() {
    let (_alone, log) = Captured::alone();
    let before = log.lines().len();
    let standin = Standin::new(&[("devs", 2)]);
    let map = [("FLAGCX_P2P_RAIL_MAP", "mlx5_0:mlx5_0,mlx5_1:mlx5_3")];
    let pair = pair(&standin, ["", ""], [&map, &[]]);
    assert_eq!(expect_rails(&pair, 2), first_and("nv1", "nv1"));
    let lines = lines(log, before, COMPLAINTS);
    assert!(lines.len() == 1 && lines[0].contains("nv0:1, nv1:1 here"), "{lines:#?}");
}

#[test]
fn nics_of_other_link_layers_are_one_line_at_each_end_and_no_rail() {
    let (_alone, log) = Captured::alone();
    let before = log.lines().len();
    let standin = Standin::new(&[("devs", 3), ("other_links", 1 << 1)]);
    let pair = pair(&standin, ["=nv0,nv1", "=nv0,nv2"], [&[], &[]]);
    expect_rails(&pair, 1);
    let lines = lines(log, before, COMPLAINTS);
    assert_eq!(lines.len(), 2, "{lines:#?}");
    let (here, there) = ("nv1:1 (InfiniBand) here", "nv2:1 (Ethernet (RoCE)) here");
    assert!([here, there].iter().all(|end| lines.iter().any(|line| line.contains(end))), "{lines:#?}");
}

/// The path has the smaller MTU: a device refuses a larger one.
#[test]
fn nics_of_different_mtus_form_a_rail() {
    let (_alone, log) = Captured::alone();
    for (here, there) in [("nv1", "nv2"), ("nv2", "nv1")] {
        let before = log.lines().len();
        let standin = Standin::new(&[("devs", 3), ("small_mtus", 1 << 2)]);
        let names = [here, there].map(|other| format!("=nv0,{other}"));
        let pair = pair(&standin, [&names[0], &names[1]], [&[], &[]]);
        assert_eq!(expect_rails(&pair, 2), first_and(here, there));
        assert_eq!(lines(log, before, COMPLAINTS), [""; 0]);
    }
}

/// The line is of the end that it belongs to, and comes again only after a second; other NICs are used.
#[test]
fn a_nic_that_grants_less_than_the_first_one_is_one_line_and_no_rail() {
    let (_alone, log) = Captured::alone();
    for (grant, words) in [("grant_sge", "1 entries a request"), ("grant_inline", "1 bytes inline")] {
        let before = log.lines().len();
        let standin = Standin::new(&[("devs", 3), (grant, 1), ("granting", 1 << 1)]);
        let pair = pair(&standin, ["", ""], [&[], &[]]);
        assert_eq!(expect_rails(&pair, 2), first_and("nv2", "nv2"), "{grant}");
        let mut lines = lines(log, before, COMPLAINTS);
        lines.dedup();
        assert!(
            lines.len() == 1 && lines[0].contains("over nv1:1") && lines[0].contains(words),
            "{lines:#?}"
        );
    }
}

/// The path is tried with success, and the end that does not lead cannot make its end: the NIC of the leader goes with another one.
#[test]
fn a_nic_that_is_refused_after_its_trial_is_one_line_and_gives_way() {
    let (_alone, log) = Captured::alone();
    let before = log.lines().len();
    let standin = Standin::new(&[("devs", 6), ("short_cqs", 1 << 4)]);
    let long = [("FLAGCX_P2P_CQ_DEPTH", "65536")];
    let pair = pair(&standin, ["=nv0,nv1,nv2", "=nv3,nv4,nv5"], [&[], &long]);
    let nics = expect_rails(&pair, 3);
    assert!(nics.iter().any(|(here, _)| here == "nv1"), "{nics:?}");
    assert!(nics.iter().all(|(_, there)| there != "nv4"), "{nics:?}");
    let mut lines = lines(log, before, COMPLAINTS);
    lines.dedup();
    assert!(lines.len() == 1 && lines[0].contains("over nv4:1"), "{lines:#?}");
    // It is tried again as it was, once it can be made.
    standin.set("short_cqs", 0);
    eventually("it is used", || {
        let ids: Vec<_> = (0..4)
            .map(|_| pair.here.submit(Opcode::Write, &[pair.iov(0, 0, ENOUGH as u64)][..]).unwrap())
            .collect();
        assert!(ids.into_iter().all(|id| outcome(&pair.here, id) == Outcome::Done));
        up(&pair.here).iter().any(|rail| rail.nic == "nv1:1" && rail.peer_nic == "nv4:1")
    });
}

/// Peers are told of sixteen of them.
#[test]
fn more_nics_than_rails_are_eight_rails() {
    let (_alone, log) = Captured::alone();
    for (devices, words) in
        [(12, "12 NICs: rails use at most 8"), (20, "not of nv16:1, nv17:1, nv18:1, nv19:1;")]
    {
        let before = log.lines().len();
        let standin = Standin::new(&[("devs", devices), ("vectors", 16)]);
        let pair = pair(&standin, ["", ""], [&[], &[]]);
        expect_rails(&pair, 8);
        let lines = lines(log, before, COMPLAINTS);
        assert!(
            lines.len() == 2 && lines.iter().all(|line| line.contains(words)),
            "one of each engine: {lines:#?}"
        );
    }
}

#[test]
fn a_map_with_more_pairs_than_rails_is_one_line_of_the_end_that_has_it() {
    let (_alone, log) = Captured::alone();
    let before = log.lines().len();
    let standin = Standin::new(&[("devs", 10), ("vectors", 16)]);
    let map: Vec<_> = (0..10).map(|nic| format!("nv{nic}:nv{}", 9 - nic)).collect();
    let map = [("FLAGCX_P2P_RAIL_MAP", map.join(","))];
    let map = map.each_ref().map(|(name, value)| (*name, value.as_str()));
    let pair = pair(&standin, ["", ""], [&map, &[]]);
    expect_rails(&pair, 8);
    let lines = lines(log, before, &["FLAGCX_P2P_RAIL_MAP"]);
    assert!(lines.len() == 1 && lines[0].contains("these form none: nv8:1 to nv1:1"), "{lines:#?}");
}
