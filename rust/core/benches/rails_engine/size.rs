//! From which size a second rail pays, over stand-ins with a modelled rate and latency: one call at a time.

use std::time::Duration;

use crate::ends::{Devices, Ends, Load, median};

const ROUNDS: usize = 9;

pub(crate) fn run() {
    let settings = [("FLAGCX_P2P_RAIL_MIN_BYTES", "4096")];
    let ends = [1, 2].map(|rails| Ends::new(Devices::StandIns, rails, 64 << 20, &settings));
    println!(
        "| one write of, over NICs of 50 GB/s that are modelled | one rail, us | two rails, us | of one rail's time |"
    );
    println!("|---|---|---|---|");
    for kib in [16, 32, 64, 128, 256, 512, 1024, 4096, 16384] {
        let load = Load { pieces: 1, bytes: kib << 10, in_flight: 1 };
        let (mut times, mut ratios) = ([const { Vec::new() }; 2], Vec::new());
        for _ in 0..ROUNDS {
            let taken = [0, 1].map(|of: usize| ends[of].time(&load, Duration::from_millis(100)));
            ratios.push(taken[1] / taken[0]);
            times.iter_mut().zip(taken).for_each(|(times, taken)| times.push(taken / 1e3));
        }
        let [one, two] = times.map(median);
        println!("| {kib} KiB | {one:.2} | {two:.2} | {:.2} |", median(ratios));
    }
    println!();
}
