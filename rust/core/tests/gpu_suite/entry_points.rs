//! Every call that starts transfers, with every kind of memory at both ends, in one process: bytes compared.

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::Outcome;

use super::calls::{Call, Engines, poll};
use super::group::Group;
use super::memory::{Kind, Registered, keeps};
use crate::support::{eventually, pattern};

/// More than a page, a slice, and what one lane takes alone; no multiple of anything.
const LENGTH: usize = (3 << 20) + 77;

pub fn run(group: &mut Group) {
    let (engines, noise) = (Engines::new(), pattern(1, LENGTH + ROUNDS.len() * 4096));
    let local = Kind::ALL.map(|kind| Registered::new(&engines.client, kind, LENGTH));
    let remote = Kind::ALL.map(|kind| Registered::new(&engines.server, kind, LENGTH));
    for call in Call::ALL {
        for (here, there) in local.iter().flat_map(|here| remote.iter().map(move |there| (here, there))) {
            let kinds = (here.memory.kind().name(), there.memory.kind().name());
            group.check(&format!("{}: WRITE {} -> {}", call.name(), kinds.0, kinds.1), || {
                expect_bytes(&engines, &noise, call, Opcode::Write, (here, there))
            });
            group.check(&format!("{}: READ {} <- {}", call.name(), kinds.0, kinds.1), || {
                expect_bytes(&engines, &noise, call, Opcode::Read, (here, there))
            });
        }
        group.check(&format!("{}: pieces of all kinds in one transfer", call.name()), || {
            expect_mixed(&engines, call, &local, &remote)
        });
    }
    group.check("transfers that are polled, many at a time", || expect_many(&engines, &local[3], &remote[3]));
    group.check("transfers that are awaited, dropped, or taken from a queue", || {
        expect_told(&engines, &local[3], &remote[3])
    });
    keeps("close", || {
        engines.here.close();
        engines.there.close();
    });
}

/// Local and remote offset, and length.
const ROUNDS: [(usize, usize, usize); 4] = [(0, 0, 1), (13, 4099, 4096), (5, 1, 1 << 20), (0, 0, LENGTH)];

/// Pieces of several lengths at odd offsets; everything around them stays as it was.
fn expect_bytes(
    engines: &Engines,
    noise: &[u8],
    call: Call,
    opcode: Opcode,
    (here, there): (&Registered, &Registered),
) -> String {
    let (from, to) = if opcode == Opcode::Write { (here, there) } else { (there, here) };
    for (round, (local, remote, length)) in ROUNDS.into_iter().enumerate() {
        let [sent, before] = [2 * round, 2 * round + 1].map(|at| &noise[2003 * at..][..LENGTH]);
        from.memory.write(sent);
        to.memory.write(before);
        let iov = engines.iov((here, local as u64), (there, remote as u64), length as u64);
        assert_eq!(call.carry(&engines.here, opcode, &[iov]), Ok(Outcome::Done), "{length} bytes");
        let (read, written) = if opcode == Opcode::Write { (local, remote) } else { (remote, local) };
        let mut expected = before.to_vec();
        expected[written..][..length].copy_from_slice(&sent[read..][..length]);
        assert!(to.memory.read() == expected, "{length} bytes are not what was sent");
    }
    String::new()
}

fn expect_mixed(engines: &Engines, call: Call, local: &[Registered], remote: &[Registered]) -> String {
    const PIECE: usize = 4096;
    let sent = pattern(9, LENGTH);
    local.iter().for_each(|memory| memory.memory.write(&sent));
    let mut iovs = Vec::new();
    for (l, here) in local.iter().enumerate() {
        for (r, there) in remote.iter().enumerate() {
            let (from, to) = ((PIECE * r) as u64, (PIECE * l) as u64);
            iovs.push(engines.iov((here, from), (there, to), PIECE as u64));
        }
    }
    assert_eq!(call.carry(&engines.here, Opcode::Write, &iovs), Ok(Outcome::Done));
    for (r, there) in remote.iter().enumerate() {
        let content = there.memory.read();
        for l in 0..local.len() {
            assert!(content[PIECE * l..][..PIECE] == sent[PIECE * r..][..PIECE], "piece {l} of {r}");
        }
    }
    format!("{} pieces", iovs.len())
}

/// More transfers than there are idle streams; each asked for until it has ended.
fn expect_many(engines: &Engines, here: &Registered, there: &Registered) -> String {
    const PIECE: u64 = 32 << 10;
    let sent = pattern(10, LENGTH);
    here.memory.write(&sent);
    there.memory.write(&vec![0; LENGTH]);
    let started: Vec<_> = (0..64)
        .map(|at| {
            let iov = engines.iov((here, at * PIECE), (there, at * PIECE), PIECE);
            Call::Submit.start(&engines.here, Opcode::Write, &[iov]).unwrap()
        })
        .collect();
    for id in &started {
        assert_eq!(poll(&engines.here, *id), Outcome::Done);
    }
    assert!(there.memory.read()[..64 * PIECE as usize] == sent[..64 * PIECE as usize]);
    format!("{} transfers", started.len())
}

/// As futures, and for a queue: no thread of the program asks about them.
fn expect_told(engines: &Engines, here: &Registered, there: &Registered) -> String {
    const PIECE: u64 = 32 << 10;
    const EACH: u64 = 8;
    let sent = pattern(11, LENGTH);
    here.memory.write(&sent);
    there.memory.write(&vec![0; LENGTH]);
    let iov = |at: u64| [engines.iov((here, at * PIECE), (there, at * PIECE), PIECE)];
    let ended = engines.client.ended().unwrap();
    let start = |at| keeps("transfer", || engines.here.transfer(Opcode::Write, &iov(at))).unwrap();
    let dropped: Vec<_> = (0..EACH).map(start).collect();
    let awaited: Vec<_> = (EACH..2 * EACH).map(start).collect();
    for at in 2 * EACH..3 * EACH {
        keeps("try_submit_to", || engines.here.try_submit_to(&ended, Opcode::Write, &iov(at))).unwrap();
    }
    drop(dropped);
    for transfer in awaited {
        assert_eq!(futures_lite::future::block_on(transfer), Outcome::Done);
    }
    let mut taken = Vec::new();
    eventually("all are taken", || {
        ended.take_ended(&mut taken);
        taken.len() as u64 == EACH
    });
    assert!(taken.iter().all(|(_, outcome)| *outcome == Outcome::Done), "{taken:?}");
    eventually("all bytes are there", || {
        there.memory.read()[..(3 * EACH * PIECE) as usize] == sent[..(3 * EACH * PIECE) as usize]
    });
    format!("{} transfers", 3 * EACH)
}
