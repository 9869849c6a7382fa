//! A queue pair that does not drain, and takes its device seconds to destroy. Until that is done the device may be at work on it.

use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::observe::RailStatus;
use flagcx_p2p::internals::transfer::{Outcome, Status, TransferId};

use crate::bench::Bench;
use crate::nics::{ENOUGH, PATIENT, moved};
use crate::nullverbs::Event;
use crate::support::own_time::OwnTime;
use crate::support::{content, eventually, outcome};
use crate::{GUARD, MOVED, alone};

const COMMAND: Duration = Duration::from_secs(2);
/// Longer than a step of the recovery may take.
const LONG_COMMAND: Duration = Duration::from_secs(5);
/// Longer than a worker waits for a drain: the second command of a device begins later than that.
const SECOND_COMMAND: Duration = Duration::from_secs(3);
/// The rail of that device.
const RAIL: usize = 5;
/// A further rail has a queue pair more, which takes no shares. So as many are to be destroyed as a first rail has.
const ONE: &str = "1";
const TWO: &str = "2";

/// A part waits on the rail, and its device is about to fail in the way of `trouble`; rails have `queue_pairs`.
fn bench_with_a_part(
    trouble: &str,
    opcode: Opcode,
    command: Duration,
    queue_pairs: &str,
) -> (Bench, u64, (TransferId, Vec<u8>, u64)) {
    let settings = [PATIENT, ("FLAGCX_P2P_QPS_PER_CONN", queue_pairs)];
    let bench = Bench::of("eight_devices", &[("troubles", 1)], &settings).make_rails(8);
    let device = bench.device(RAIL);
    let held = bench.hold(opcode, RAIL, 1);
    bench.standin.set("slow_destroys", 1 << device);
    bench.standin.set("destroy_qp_ns", command.as_nanos() as u64);
    bench.standin.set(trouble, 1 << device);
    (bench, device, held)
}

/// The device works again, and what it might still send can.
fn mend(bench: &Bench, trouble: &str) {
    for setting in ["silent_devices", trouble, "destroy_qp_ns"] {
        bench.standin.set(setting, 0);
    }
}

/// Its memory is used for something else after the end of the transfer.
fn expect_quiet(bench: &Bench, trouble: &str, opcode: Opcode, what: &str) {
    let to = bench.ends(opcode).1;
    assert!(to.write(0, &vec![GUARD; ENOUGH]));
    mend(bench, trouble);
    std::thread::sleep(Duration::from_millis(20));
    assert!(content(to) == vec![GUARD; ENOUGH], "{what}: written after the end of the transfer");
}

#[test]
fn parts_wait_for_a_command_that_takes_seconds_and_others_go_on() {
    let _alone = alone();
    for (trouble, opcode, command, queue_pairs) in [
        ("stuck_devices", Opcode::Write, COMMAND, ONE),
        ("stuck_devices", Opcode::Read, COMMAND, ONE),
        ("stiff_devices", Opcode::Write, COMMAND, ONE),
        ("stuck_devices", Opcode::Write, LONG_COMMAND, ONE),
        ("stuck_devices", Opcode::Read, SECOND_COMMAND, TWO),
    ] {
        let what = format!("{trouble}, {opcode:?}, {queue_pairs} times {command:?}");
        let (bench, device, (id, bytes, before)) = bench_with_a_part(trouble, opcode, command, queue_pairs);
        let all = if queue_pairs == TWO { 2 * command } else { command };
        let here = &bench.pair.here;
        let (begin, time) = (Instant::now(), OwnTime::start());
        bench.standin.raise_on(Event::PortDown, device as i32);
        eventually("the rail is left", || here.rails()[RAIL].status == RailStatus::Down);
        let (mut count, mut longest) = (0, Duration::ZERO);
        while begin.elapsed() < command * 3 / 4 {
            let begin = OwnTime::start();
            let other = here.submit(opcode, &[bench.pair.iov(0, 0, 64 << 10)][..]).unwrap();
            assert_eq!(outcome(here, other), Outcome::Done, "{what}: {:#?}", here.rails());
            (count, longest) = (count + 1, longest.max(begin.elapsed()));
        }
        assert!(longest < command / 2, "{what}: a transfer over other rails took {longest:?}");
        let (status, rails) = (here.wait(id, Duration::ZERO), here.rails());
        // A machine that has held this thread up for the rest of the command shows nothing.
        let is_over = begin.elapsed() >= command;
        let is_pending = matches!(status, Status::Pending);
        assert!(is_pending || is_over, "{what}: {status:?} while the device may be at work");
        assert!(rails[RAIL].in_flight_bytes > 0 || is_over, "{what}: {rails:#?}");
        bench.finish(opcode, &(id, bytes), &what);
        let (elapsed, own) = (begin.elapsed(), time.elapsed());
        println!("{what}: done after {elapsed:?}, meanwhile {count} others within {longest:?}");
        assert!(elapsed >= command && own < all + MOVED, "{what}: done after {elapsed:?}, {own:?}");
        assert!(moved(here) > before, "{what}: {:#?}", here.rails());
        expect_quiet(&bench, trouble, opcode, &what);
        bench.standin.raise_on(Event::PortUp, device as i32);
        bench.expect_return(RAIL);
    }
}

/// It waits for the drain, which does not come, and for the command.
#[test]
fn a_connection_is_closed_while_its_device_takes_seconds() {
    let _alone = alone();
    for trouble in ["stuck_devices", "stiff_devices"] {
        let (bench, device, (id, ..)) = bench_with_a_part(trouble, Opcode::Write, COMMAND, ONE);
        let here = &bench.pair.here;
        bench.standin.raise_on(Event::PortDown, device as i32);
        eventually("the command is under way", || bench.standin.held() > 0);
        let (begin, time) = (Instant::now(), OwnTime::start());
        here.close();
        let (elapsed, own) = (begin.elapsed(), time.elapsed());
        println!("{trouble}: closed after {elapsed:?}");
        assert!(own < 2 * COMMAND + MOVED, "{trouble}: closed after {own:?}");
        let ended = outcome(here, id);
        assert!(ended != Outcome::Done, "{trouble}: {ended:?} although a part of it was not");
        expect_quiet(&bench, trouble, Opcode::Write, trouble);
        bench.close();
    }
}
