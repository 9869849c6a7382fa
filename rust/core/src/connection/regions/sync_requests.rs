//! Requests for the region changes that a peer has not announced yet: one at a time, shared by all callers meanwhile.

use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex, lock, wait};

/// The Sync requests of one connection.
#[derive(Debug)]
pub(in crate::connection) struct SyncRequests {
    state: Mutex<State>,
    changed: Condvar,
}

/// Numbers of requests, which start at 1.
#[derive(Debug, Default)]
struct State {
    /// The last one that a caller waits for.
    wanted: u64,
    sent: u64,
    answered: u64,
    /// No more answers will come.
    ended: bool,
}

impl SyncRequests {
    /// `possible`: the peer answers Sync requests.
    pub(in crate::connection) fn new(possible: bool) -> Self {
        let state = State { ended: !possible, ..State::default() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits, for at most `limit`, for the answer to a request that is sent after the call; `wake` wakes the task
    /// that sends it. False without an answer.
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

    /// The number of the next request to be sent. The first call for a number wakes the task.
    fn want(&self, wake: impl FnOnce()) -> u64 {
        let mut state = lock(&self.state);
        // The peer may have answered an outstanding request before it registered the region that the caller looks for.
        let mine = state.sent + 1;
        if !state.ended && state.wanted < mine {
            state.wanted = mine;
            drop(state);
            wake();
        }
        mine
    }

    /// The request to send now; the caller must send it. `None` while one is outstanding.
    pub(in crate::connection) fn next(&self) -> Option<u64> {
        let mut state = lock(&self.state);
        if state.wanted == state.sent || state.sent != state.answered {
            return None;
        }
        state.sent += 1;
        Some(state.sent)
    }

    /// The peer has answered a request. Other numbers are ignored.
    pub(in crate::connection) fn answered(&self, number: u64) {
        let mut state = lock(&self.state);
        if number == state.sent && number > state.answered {
            state.answered = number;
            drop(state);
            self.changed.notify_all();
        }
    }

    /// The connection has ended: wakes all waiting callers.
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

    /// The task sends, the peer answers and the connection ends at any time: no caller is left waiting.
    #[test]
    fn every_request_is_answered() {
        loom::model(|| {
            let sync_requests = Arc::new(SyncRequests::new(true));
            let asking = {
                let sync_requests = Arc::clone(&sync_requests);
                loom::thread::spawn(move || sync_requests.ask(LONG, || ()))
            };
            // As the woken task does.
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
        assert_eq!((sync_requests.next(), woken.get()), (None, 2), "one is outstanding");
        sync_requests.answered(7);
        assert_eq!(sync_requests.next(), None, "an answer to a request that was not sent");
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
            // Callers that start late make another request: each is answered until no caller waits.
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
        assert!(!sync_requests.ask(Duration::from_secs(20), || panic!("no task to wake")));
        assert!(!SyncRequests::new(false).ask(Duration::from_secs(20), || panic!("the peer cannot answer")));
    }
}
