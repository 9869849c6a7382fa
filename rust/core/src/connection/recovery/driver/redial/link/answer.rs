//! The answer that the peer owes over the control channel once the data path has failed: the same link may be lost to both, at the peer or
//! between the two hosts, where no port of this host goes down.

use std::time::{Duration, Instant};

use crate::control::resume::pause;

/// How long an answer is waited for: TCP sends again what was lost on a path that works after some 200 ms.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_millis(300);

/// The question that is open, if one is. Times are arguments.
#[derive(Debug, Default)]
pub(super) struct Answer(Option<Question>);

#[derive(Debug)]
struct Question {
    /// Bytes that the channel had received before it.
    received: u64,
    /// When another way is to be looked for.
    next: Instant,
    /// Checks that have found none.
    checks: u32,
}

impl Answer {
    /// The data path has failed `now`; the channel has `received` so many bytes until then. Whether the peer is to be asked: not while a question
    /// is open.
    pub(super) fn path_failed(&mut self, received: u64, now: Instant) -> bool {
        self.received(received);
        let is_open = self.0.is_some();
        self.0.get_or_insert(Question { received, next: now + ANSWER_LIMIT, checks: 0 });
        !is_open
    }

    /// So many bytes were received by now: any of them is an answer.
    pub(super) fn received(&mut self, received: u64) {
        self.0.take_if(|question| question.received != received);
    }

    /// A check has ended, and the channel stays: no other way was found, or what has arrived is still to be read. One is looked for on and on, as long
    /// as nothing arrives and the channel is not missed by its pings.
    pub(super) fn checked(&mut self, now: Instant) {
        if let Some(question) = &mut self.0 {
            question.next = now + pause(question.checks);
            question.checks = question.checks.saturating_add(1);
        }
    }

    /// When another way is to be looked for.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.as_ref().map(|question| question.next)
    }

    /// Checks that have found none.
    pub(super) fn checks(&self) -> u32 {
        self.0.as_ref().map_or(0, |question| question.checks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_open_until_anything_arrives() {
        let (begin, mut answer) = (Instant::now(), Answer::default());
        assert_eq!(answer.deadline(), None);
        assert!(answer.path_failed(7, begin));
        assert!(!answer.path_failed(7, begin + ANSWER_LIMIT / 2), "one at a time");
        answer.received(7);
        assert_eq!(answer.deadline(), Some(begin + ANSWER_LIMIT));
        answer.received(8);
        assert_eq!(answer.deadline(), None);
        assert!(answer.path_failed(8, begin), "another failure");
        assert!(answer.path_failed(9, begin + ANSWER_LIMIT), "and one behind the answer to that");
        assert_eq!(answer.deadline(), Some(begin + 2 * ANSWER_LIMIT));
    }

    #[test]
    fn a_way_is_looked_for_on_and_on() {
        let (begin, mut answer, mut found) = (Instant::now(), Answer::default(), Vec::new());
        answer.path_failed(0, begin);
        while let Some(now) = answer.deadline().filter(|at| *at < begin + Duration::from_secs(4)) {
            found.push((now.duration_since(begin).as_millis(), answer.checks()));
            answer.checked(now);
        }
        assert_eq!(
            found,
            [(300, 0), (350, 1), (450, 2), (650, 3), (1050, 4), (1850, 5), (2850, 6), (3850, 7)]
        );
    }
}
