//! Asking a peer for what it has not told yet: one question at a time, shared by all who ask meanwhile.

use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex, lock, wait};

/// The questions of one connection.
#[derive(Debug)]
pub(in crate::connection) struct SyncRequests {
    state: Mutex<State>,
    changed: Condvar,
}

/// SyncRequests are numbered from 1.
#[derive(Debug, Default)]
struct State {
    /// The last one that somebody waits for.
    wanted: u64,
    sent: u64,
    answered: u64,
    /// There will be no more answers.
    ended: bool,
}

impl SyncRequests {
    /// `possible`: the peer answers questions.
    pub(in crate::connection) fn new(possible: bool) -> Self {
        let state = State { ended: !possible, ..State::default() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits, for at most `limit`, for the answer to a question that has not been sent when this is called; `wake` wakes
    /// the task that sends it. False without an answer.
    pub(in crate::connection) fn ask(&self, limit: Duration, wake: impl FnOnce()) -> bool {
        let deadline = Instant::now() + limit;
        let mine = self.want(wake);
        let mut state = lock(&self.state);
        while !state.ended && state.answered < mine {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = wait(&self.changed, state, left);
        }
        state.answered >= mine
    }

    /// The number of the next question to be sent. The first call for it wakes the task.
    fn want(&self, wake: impl FnOnce()) -> u64 {
        let mut state = lock(&self.state);
        // One that is under way may have been answered before what the caller looks for was registered.
        let mine = state.sent + 1;
        if !state.ended && state.wanted < mine {
            state.wanted = mine;
            drop(state);
            wake();
        }
        mine
    }

    /// The question to send now, which is taken to be sent. `None` while one is under way.
    pub(in crate::connection) fn next(&self) -> Option<u64> {
        let mut state = lock(&self.state);
        if state.wanted == state.sent || state.sent != state.answered {
            return None;
        }
        state.sent += 1;
        Some(state.sent)
    }

    /// The peer has answered a question. An answer to none means nothing.
    pub(in crate::connection) fn answered(&self, number: u64) {
        let mut state = lock(&self.state);
        if number == state.sent && number > state.answered {
            state.answered = number;
            drop(state);
            self.changed.notify_all();
        }
    }

    /// The connection has ended: nobody waits any longer.
    pub(in crate::connection) fn end(&self) {
        lock(&self.state).ended = true;
        self.changed.notify_all();
    }
}

#[cfg(all(test, flagcx_p2p_loom))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod models {
    use super::*;
    use crate::sync::Arc;

    /// The task sends, the peer answers and the connection ends at any time: a thread that has asked is not left waiting.
    #[test]
    fn every_request_is_answered() {
        loom::model(|| {
            let sync_requests = Arc::new(SyncRequests::new(true));
            let asking = {
                let sync_requests = Arc::clone(&sync_requests);
                loom::thread::spawn(move || sync_requests.ask(LONG, || ()))
            };
            // As the task does once it is woken.
            let number = loop {
                match sync_requests.next() {
                    Some(number) => break number,
                    None => loom::thread::yield_now(),
                }
            };
            sync_requests.answered(number);
            sync_requests.end();
            assert!(asking.join().unwrap());
        });
    }

    #[test]
    fn the_end_wakes_all_waiters() {
        loom::model(|| {
            let sync_requests = Arc::new(SyncRequests::new(true));
            let asking: Vec<_> = (0..2)
                .map(|_| {
                    let sync_requests = Arc::clone(&sync_requests);
                    loom::thread::spawn(move || sync_requests.ask(LONG, || ()))
                })
                .collect();
            sync_requests.end();
            assert!(asking.into_iter().all(|asking| !asking.join().unwrap()));
        });
    }

    const LONG: Duration = Duration::from_secs(1 << 30);
}

#[cfg(test)]
#[cfg(not(flagcx_p2p_loom))]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn callers_during_a_request_share_the_next_one() {
        let sync_requests = SyncRequests::new(true);
        let woken = Cell::new(0);
        let want = || sync_requests.want(|| woken.set(woken.get() + 1));
        assert_eq!((want(), sync_requests.next(), woken.get()), (1, Some(1), 1));
        for _ in 0..8 {
            assert_eq!(want(), 2);
        }
        assert_eq!((sync_requests.next(), woken.get()), (None, 2), "one is under way");
        sync_requests.answered(7);
        assert_eq!(sync_requests.next(), None, "an answer to a question that was not sent");
        sync_requests.answered(1);
        assert_eq!((sync_requests.next(), sync_requests.next()), (Some(2), None));
        assert_eq!((want(), woken.get()), (3, 3));
    }

    #[test]
    fn an_answer_wakes_all_callers_that_share_it() {
        let sync_requests = SyncRequests::new(true);
        let (send, woken) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let ask = || {
                let send = send.clone();
                let sync_requests = &sync_requests;
                scope.spawn(move || sync_requests.ask(Duration::from_secs(20), || send.send(()).unwrap()))
            };
            let asking: Vec<_> = (0..8).map(|_| ask()).collect();
            // Those that start late ask again: each question is answered until none waits.
            while !asking.iter().all(|asking| asking.is_finished()) {
                if woken.recv_timeout(Duration::from_millis(1)).is_ok() {
                    let number = sync_requests.next().unwrap();
                    sync_requests.answered(number);
                }
            }
            assert!(asking.into_iter().all(|asking| asking.join().unwrap()));
        });
    }

    #[test]
    fn no_answer_costs_its_time_and_an_end_none() {
        let sync_requests = SyncRequests::new(true);
        let start = Instant::now();
        assert!(!sync_requests.ask(Duration::from_millis(20), || ()));
        assert!(start.elapsed() >= Duration::from_millis(20));
        sync_requests.end();
        assert!(!sync_requests.ask(Duration::from_secs(20), || panic!("nobody is there")));
        assert!(!SyncRequests::new(false).ask(Duration::from_secs(20), || panic!("it cannot answer")));
    }
}
