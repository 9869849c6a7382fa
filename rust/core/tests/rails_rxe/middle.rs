//! A fault in the middle of transfers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::observe::{RailInfo, RailStatus};
use flagcx_p2p::internals::transfer::{Iov, Outcome, Status};

use crate::{MOVED, TRANSFERS};

/// How long after the fault is detected a part may be on its way to the other rail. If none has moved then, nothing was under way on the rail.
const MOVING: Duration = Duration::from_secs(5);

/// What was seen of a fault, and how long after it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The rail is not used any more.
    pub(crate) detected: Option<Duration>,
    /// Parts of the first lane have been posted on the other rail.
    pub(crate) moved: Option<Duration>,
    /// The control channel is made anew.
    pub(crate) anew: Option<Duration>,
    /// All transfers have ended.
    pub(crate) done: Duration,
}

/// Calls `fail` while transfers of `iov` are under way on a rail, and waits until all are done. Soft-RoCE sends within the call that
/// posts, so another thread starts them, one after the other until the fault is detected, and the control channel made anew if it
/// `loses_channel`.
pub(crate) fn in_the_middle(
    here: &Connection,
    iov: &(dyn Fn() -> Iov + Sync),
    opcode: Opcode,
    before: &RailInfo,
    loses_channel: bool,
    fail: impl FnOnce(),
) -> Seen {
    let resumed = here.channel_record().resumed();
    let now = || here.rails()[usize::from(before.rail)].clone();
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let transfers = scope.spawn(|| keep_busy(here, iov, opcode, &enough));
        let mut seen = Seen::default();
        let limit = Instant::now() + MOVED;
        while now().in_flight_bytes == 0 && Instant::now() < limit {
            std::thread::sleep(Duration::from_micros(100));
        }
        let begin = Instant::now();
        fail();
        while !transfers.is_finished() {
            let rail = now();
            if seen.detected.is_none() && rail.status != RailStatus::Up {
                seen.detected = Some(begin.elapsed());
            }
            if seen.moved.is_none() && rail.moved_parts > before.moved_parts {
                seen.moved = Some(begin.elapsed());
            }
            if seen.anew.is_none() && here.channel_record().resumed() > resumed {
                seen.anew = Some(begin.elapsed());
            }
            let is_anew = seen.anew.is_some() || !loses_channel;
            let has_moved =
                seen.moved.is_some() || seen.detected.is_some_and(|at| begin.elapsed() > at + MOVING);
            let is_seen = seen.detected.is_some() && has_moved && is_anew;
            if is_seen || begin.elapsed() > MOVED {
                enough.store(true, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        seen.done = begin.elapsed();
        for ended in transfers.join().unwrap() {
            assert_eq!(ended, Status::Ended(Outcome::Done), "{opcode:?}: {:#?}", here.rails());
        }
        seen
    })
}

/// Has some transfers under way until there were enough, and answers how each ended.
fn keep_busy(
    here: &Connection,
    iov: &(dyn Fn() -> Iov + Sync),
    opcode: Opcode,
    enough: &AtomicBool,
) -> Vec<Status> {
    let (mut under_way, mut ended) = (VecDeque::new(), Vec::new());
    loop {
        let is_enough = enough.load(Ordering::Relaxed);
        if !is_enough {
            under_way.push_back(here.submit(opcode, &[iov()][..]).unwrap());
        }
        if is_enough || under_way.len() == TRANSFERS {
            let Some(id) = under_way.pop_front() else { return ended };
            ended.push(here.wait(id, Duration::from_secs(60)));
        }
    }
}

pub(crate) fn ms(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{} ms", time.as_millis()))
}
