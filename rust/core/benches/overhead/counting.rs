//! What counting transfers costs: the rates of this program, and of one that was built without it (`--features uncounted`).
//! Processes of both are run in turn, because the machine's clock and the layout of memory change rates by more.

use std::process::Command;

use super::{Pair, run};

const ROUNDS: usize = 9;
/// Pieces and calls, and whether the calling thread copies the bytes itself, within the process; else the stand-in NIC has them.
const LOADS: [(usize, usize, bool); 4] = [(4096, 8, false), (64, 1, false), (1, 1, false), (1, 1, true)];

/// The rates of this program, one after the other, or that of one load.
pub(super) fn print_rates(pair: &Pair, copied: &Pair, only: Option<usize>) {
    let loads = LOADS.iter().enumerate().filter(|(load, _)| only.is_none_or(|only| only == *load));
    let rates: Vec<_> = loads
        .map(|(_, (pieces, calls, is_copied))| {
            run(if *is_copied { copied } else { pair }, *pieces, *calls).to_string()
        })
        .collect();
    println!("{}", rates.join(" "));
}

/// Compares with the program that `FLAGCX_P2P_UNCOUNTED` names.
pub(super) fn compare() {
    let Some(without) = std::env::var_os("FLAGCX_P2P_UNCOUNTED") else {
        return println!("counting: not compared: FLAGCX_P2P_UNCOUNTED names no program that does not count");
    };
    let with = std::env::current_exe().unwrap();
    let rates = |program: &std::ffi::OsStr| -> Vec<f64> {
        let output = Command::new(program).arg("rates").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().map(|rate| rate.parse().unwrap()).collect()
    };
    let samples: Vec<_> = (0..ROUNDS).map(|_| (rates(with.as_os_str()), rates(&without))).collect();
    println!("{:>16} {:>10} {:>10} {:>7}", "load", "counted", "without", "ratio");
    for (load, (pieces, calls, is_copied)) in LOADS.iter().enumerate() {
        let with = median(samples.iter().map(|(with, _)| with[load]));
        let without = median(samples.iter().map(|(_, without)| without[load]));
        let ratio = median(samples.iter().map(|(with, without)| with[load] / without[load]));
        println!(
            "{:>16} {with:>10.2} {without:>10.2} {ratio:>7.3}",
            format!("{pieces} x {calls}{}", if *is_copied { " copied" } else { "" })
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
