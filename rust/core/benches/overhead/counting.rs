//! What counting transfers costs: the rates of this program, and of one that was built without it (`--features uncounted`).
//! Processes of both are run in turn, because the machine's clock and the layout of memory change rates by more.

use std::ffi::OsStr;
use std::process::Command;

use super::{GAP, PIECE, POOL, Pair, run, run_in_turn};

const ROUNDS: usize = 9;
/// The pieces that the memory has room for.
const ALL: usize = POOL / (PIECE + GAP) as usize;

/// Equal transfers, of pieces of 4 KiB.
struct Load {
    pieces: usize,
    /// Transfers at a time.
    calls: usize,
    by: By,
}

/// What moves the bytes.
#[derive(Clone, Copy, PartialEq)]
enum By {
    /// The stand-in NIC, at once.
    Nic,
    /// The same, 2 us later: what a NIC and its network take at least.
    NicOf2us,
    /// The calling thread, within the process: the same 4 KiB again and again, which stay in the nearest cache.
    CopyOfOne,
    /// The same over all of the memory, one piece after the other.
    CopyOfAll,
}

const LOADS: [Load; 7] = [
    Load { pieces: 4096, calls: 8, by: By::Nic },
    Load { pieces: 64, calls: 1, by: By::Nic },
    Load { pieces: 1, calls: 1, by: By::Nic },
    Load { pieces: 1, calls: 1, by: By::CopyOfOne },
    Load { pieces: 1, calls: 1, by: By::CopyOfAll },
    Load { pieces: 1, calls: 1, by: By::NicOf2us },
    Load { pieces: 1, calls: 8, by: By::NicOf2us },
];

impl Load {
    fn name(&self) -> String {
        let by = match self.by {
            By::Nic => "",
            By::NicOf2us => " of 2 us",
            By::CopyOfOne => " copied",
            By::CopyOfAll => " copied, all",
        };
        format!("{} x {}{by}", self.pieces, self.calls)
    }

    /// The rate that a process of its own prints: the stand-in reads its delay once in a process.
    fn rate_of(&self, program: &OsStr, load: usize) -> f64 {
        let mut command = Command::new(program);
        command.args(["rates", &load.to_string()]);
        if self.by == By::NicOf2us {
            command.env("NULLVERBS_DELAY_NS", "2000");
        }
        String::from_utf8(command.output().unwrap().stdout).unwrap().trim().parse().unwrap()
    }
}

/// Prints the rate of the load of that number.
pub(super) fn print_rate(pair: &Pair, copied: &Pair, load: usize) {
    let Load { pieces, calls, by } = LOADS[load];
    let rate = match by {
        By::Nic | By::NicOf2us => run(pair, pieces, calls),
        By::CopyOfOne => run(copied, pieces, calls),
        By::CopyOfAll => run_in_turn(&vec![&copied.client; calls], copied, pieces, ALL),
    };
    println!("{rate}");
}

/// Compares with the program that `FLAGCX_P2P_UNCOUNTED` names.
pub(super) fn compare() {
    let Some(without) = std::env::var_os("FLAGCX_P2P_UNCOUNTED") else {
        return println!("counting: not compared: FLAGCX_P2P_UNCOUNTED names no program that does not count");
    };
    let with = std::env::current_exe().unwrap();
    let rates = |program: &OsStr| -> Vec<f64> {
        LOADS.iter().enumerate().map(|(number, load)| load.rate_of(program, number)).collect()
    };
    let samples: Vec<_> = (0..ROUNDS).map(|_| (rates(with.as_os_str()), rates(&without))).collect();
    println!("{:>16} {:>10} {:>10} {:>7}", "load", "counted", "without", "ratio");
    for (number, load) in LOADS.iter().enumerate() {
        let with = median(samples.iter().map(|(with, _)| with[number]));
        let without = median(samples.iter().map(|(_, without)| without[number]));
        let ratio = median(samples.iter().map(|(with, without)| with[number] / without[number]));
        println!("{:>16} {with:>10.3} {without:>10.3} {ratio:>7.3}", load.name());
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
