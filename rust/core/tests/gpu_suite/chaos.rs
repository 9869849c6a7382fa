//! Chaos: copies of GPUs fail. No transfer is reported done without its bytes, none touches other bytes, none hangs, and
//! when the failures end all is well.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::gpu;
use flagcx_p2p::internals::transfer::Outcome;

use super::calls::{Call, Engines, finish};
use super::cuda::cuda;
use super::failing::{Failing, Faults};
use super::group::Group;
use super::memory::{Kind, Registered};
use crate::support::pattern;

const THREADS: u64 = 4;
const ROUNDS: u64 = 100;
/// Of one transfer, in two pieces.
const LENGTH: u64 = 8192;

pub fn run(group: &mut Group) {
    cuda();
    let faults = Arc::new(Faults::default());
    let driver = gpu::runtime();
    gpu::install(Some(Arc::new(Failing { driver, faults: Arc::clone(&faults) })));
    for (from, to) in [(Kind::Gpu, Kind::Gpu), (Kind::Host, Kind::Gpu), (Kind::Gpu, Kind::Host)] {
        group.check(&format!("GPU copies fail: {} -> {}", from.name(), to.name()), || {
            storm(&faults, from, to)
        });
    }
    gpu::install(None);
}

fn storm(faults: &Faults, from: Kind, to: Kind) -> String {
    let engines = Engines::new();
    let each = (LENGTH * ROUNDS) as usize;
    let ends: Vec<_> = (0..THREADS)
        .map(|_| (Registered::new(&engines.client, from, each), Registered::new(&engines.server, to, each)))
        .collect();
    let (done, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let before = faults.injected.load(Ordering::SeqCst);
    faults.on.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        for (thread, (here, there)) in ends.iter().enumerate() {
            let (engines, done, failed) = (&engines, &done, &failed);
            scope.spawn(move || {
                let (sent, old) = (pattern(thread as u64 + 1, each), pattern(thread as u64 + 50, each));
                here.memory.write(&sent);
                there.memory.write(&old);
                let mut ended_well = Vec::new();
                for round in 0..ROUNDS {
                    let half = LENGTH / 2;
                    let at = round * LENGTH;
                    let pieces = [at, at + half].map(|at| engines.iov((here, at), (there, at), half - 1));
                    let started = Call::Submit.start(&engines.here, Opcode::Write, &pieces);
                    let well = started.is_ok_and(|id| finish(&engines.here, id) == Outcome::Done);
                    ended_well.push(well);
                    if well { done } else { failed }.fetch_add(1, Ordering::SeqCst);
                }
                expect_bytes(&there.memory.read(), &sent, &old, &ended_well);
            });
        }
    });
    faults.on.store(false, Ordering::SeqCst);
    let injected = faults.injected.load(Ordering::SeqCst) - before;
    let (here, there) = &ends[0];
    here.memory.write(&pattern(99, each));
    let iov = engines.iov((here, 0), (there, 0), each as u64);
    assert_eq!(
        Call::Submit.carry(&engines.here, Opcode::Write, &[iov]),
        Ok(Outcome::Done),
        "no more failures"
    );
    assert!(there.memory.read() == pattern(99, each));
    let [done, failed] = [done, failed].map(AtomicU64::into_inner);
    assert!(injected > 0 && failed > 0 && done > 0, "{injected} failures, {done} done, {failed} failed");
    format!("{injected} failures, {done} transfers done, {failed} failed or refused")
}

/// All that was moved arrived; what failed may have been moved in part; the byte between two pieces never changes.
fn expect_bytes(bytes: &[u8], sent: &[u8], old: &[u8], ended_well: &[bool]) {
    let half = LENGTH as usize / 2;
    for (at, well) in ended_well
        .iter()
        .enumerate()
        .flat_map(|(round, well)| [2 * round * half, (2 * round + 1) * half].map(|at| (at, well)))
    {
        let piece = at..at + half - 1;
        assert!(!well || bytes[piece.clone()] == sent[piece.clone()], "done, and not there: at {at}");
        let is_either = piece.clone().all(|at| bytes[at] == sent[at] || bytes[at] == old[at]);
        assert!(is_either, "bytes of another transfer at {at}");
        assert_eq!(bytes[piece.end], old[piece.end], "beyond a piece at {at}");
    }
}
