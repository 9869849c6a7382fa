//! The same calls on a connection with one rail and on one with several, in turn.

use std::time::Duration;

use crate::ends::{Devices, Ends, Load, median};

/// Many short ones: on a busy machine some of them are undisturbed.
const ROUNDS: usize = 41;
const ROUND: Duration = Duration::from_millis(30);

/// Over stand-ins that cost next to nothing: what is left is the engine.
pub(crate) fn of_nics(count: usize) {
    let loads = [
        (4096, 4096, 8),
        (1024, 4096, 1),
        (64, 4096, 1),
        (1, 4096, 1),
        (1, 4096, 8),
        (1, 4096, 4096),
        (1, 8, 8),
    ];
    compare("stand-in NICs", Devices::StandIns, Devices::StandIns, count, 256 << 20, &loads);
}

/// Over software devices, which share one memory and its processors.
pub(crate) fn of_software() {
    let loads = [(4096, 4096, 8), (1, 4096, 1), (1, 64 << 10, 8), (1, 1 << 20, 8), (1, 64 << 20, 1)];
    compare("software devices", Devices::Software(1), Devices::Software(2), 2, 256 << 20, &loads);
}

fn compare(
    what: &str,
    one: Devices,
    several: Devices,
    rails: usize,
    pool: usize,
    loads: &[(usize, u64, usize)],
) {
    let ends = [Ends::new(one, 1, pool, &[]), Ends::new(several, rails, pool, &[])];
    println!(
        "| {what}: pieces x bytes x calls in flight | one rail, ns a call | {rails} rails | rate, {rails} rails to one | of the best rounds |"
    );
    println!("|---|---|---|---|---|");
    for &(pieces, bytes, in_flight) in loads {
        let load = Load { pieces, bytes, in_flight };
        let (mut times, mut ratios) = ([const { Vec::new() }; 2], Vec::new());
        for _ in 0..ROUNDS {
            let taken = [0, 1].map(|of: usize| ends[of].time(&load, ROUND));
            ratios.push(taken[0] / taken[1]);
            times.iter_mut().zip(taken).for_each(|(times, taken)| times.push(taken));
        }
        let best = |times: &Vec<f64>| times.iter().copied().fold(f64::INFINITY, f64::min);
        let best = best(&times[0]) / best(&times[1]);
        let [one, several] = times.map(median);
        println!(
            "| {pieces} x {bytes} x {in_flight} | {one:.0} | {several:.0} | {:.2} | {best:.2} |",
            median(ratios)
        );
    }
    println!();
}

/// Rails, pieces, bytes, calls in flight, and how many calls.
pub(crate) fn calls(numbers: &[u64]) {
    let &[rails, pieces, bytes, in_flight, count] = numbers else { panic!("five numbers") };
    let ends = Ends::new(Devices::StandIns, rails as usize, 64 << 20, &[]);
    let load = Load { pieces: pieces as usize, bytes, in_flight: in_flight as usize };
    ends.calls(&load, count);
}
