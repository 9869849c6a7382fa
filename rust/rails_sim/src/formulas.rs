//! What a formula says of the model where there is one: one transfer over equal NICs, without jitter and pauses.

use crate::connection::LONGEST;
use crate::network::{LATENCY, PER_REQUEST};
use crate::policy::Policy;
use crate::scenario::{FULL, MIB, Scenario};
use crate::simulation::run;

/// Runs the model where a formula says what must come out, and answers where it says otherwise.
///
/// A transfer over equal NICs goes over all of them in equal shares, if it is not small. Its first byte leaves after the time of a request and is
/// there a way later, the last one when the NICs have moved their shares; its completion takes another way.
pub fn formulas() -> Vec<String> {
    let mut misses = Vec::new();
    for (nics, bytes) in
        [(1, 4096), (1, MIB), (1, 8 * MIB), (1, 64 * MIB), (2, 64 * MIB), (4, 64 * MIB), (8, 64 * MIB)]
    {
        let outcome = run(&Scenario::once(nics, bytes), Policy::Ours, 1);
        let share = bytes / nics as u64;
        let expected = PER_REQUEST + (share as f64 * 1e9 / FULL as f64) as u64 + 2 * LATENCY;
        // Each group's time is a whole number of nanoseconds.
        if outcome.last_end.abs_diff(expected) > share.div_ceil(LONGEST) {
            misses
                .push(format!("{bytes} bytes over {nics} NICs: {} ns and not {expected}", outcome.last_end));
        }
        if outcome.by_rail[..nics].iter().any(|moved| *moved != share) {
            misses.push(format!("{bytes} bytes over {nics} NICs: {:?}", outcome.by_rail));
        }
    }
    misses
}
