//! What a transfer costs beside a plain `cuMemcpy` of the same bytes, in turn in one run: figures, and a limit to the ratio. The
//! speed of the stand-in says nothing, and has no limit.

use std::time::Instant;

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::Outcome;

use super::calls::{Call, Engines};
use super::cuda::{cuda, is_stand_in};
use super::group::Group;
use super::memory::{Kind, Registered, in_context};
use crate::support::pattern;

const ROUNDS: usize = 9;

/// The least ratio of our rate to that of `cuMemcpy`, by bytes; nothing is promised of smaller ones.
const LIMITS: &[(usize, f64)] = &[(64 << 20, 0.95), (1 << 20, 0.7)];

pub fn run(group: &mut Group) {
    let pairs = [
        (Kind::Gpu, Kind::Gpu),
        (Kind::Pinned, Kind::Gpu),
        (Kind::Gpu, Kind::Pinned),
        (Kind::Host, Kind::Gpu),
        (Kind::Gpu, Kind::Host),
    ];
    let lengths: &[usize] = if is_stand_in() { &[64 << 10] } else { &[64 << 20, 1 << 20, 64 << 10] };
    for &length in lengths {
        for (from, to) in pairs {
            let name = format!("{} KiB {} -> {}", length >> 10, from.name(), to.name());
            group.check(&name, || measure(from, to, length));
        }
    }
}

fn measure(from: Kind, to: Kind, length: usize) -> String {
    let engines = Engines::new();
    let (local, remote) =
        (Registered::new(&engines.client, from, length), Registered::new(&engines.server, to, length));
    let sent = pattern(7, length);
    local.memory.write(&sent);
    let iov = engines.iov((&local, 0), (&remote, 0), length as u64);
    let transfer = || {
        assert_eq!(Call::Submit.carry(&engines.here, Opcode::Write, &[iov]), Ok(Outcome::Done));
    };
    let plain = || {
        // SAFETY: both ranges are valid and as long.
        unsafe { cuda().copy(remote.memory.address, local.memory.address, length) };
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    in_context(|| {
        for round in 0..ROUNDS + 2 {
            let (transfer, plain) = (seconds(transfer), seconds(plain));
            // The first ones are for what is made once.
            if round >= 2 {
                ours.push(transfer);
                theirs.push(plain);
            }
        }
    });
    assert!(remote.memory.read() == sent);
    let [ours, theirs] = [median(ours), median(theirs)];
    let rate = |seconds: f64| length as f64 / seconds / 1e9;
    let limit = LIMITS.iter().find(|(bytes, _)| *bytes == length && !is_stand_in()).map(|(_, limit)| *limit);
    let figures = format!(
        "{:.2} GB/s ({:.1} us), cuMemcpy {:.2} GB/s ({:.1} us), ratio {:.3}",
        rate(ours),
        ours * 1e6,
        rate(theirs),
        theirs * 1e6,
        theirs / ours
    );
    if let Some(limit) = limit {
        assert!(theirs / ours >= limit, "{figures}, below {limit}");
    }
    figures
}

fn seconds(act: impl Fn()) -> f64 {
    let start = Instant::now();
    act();
    start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
