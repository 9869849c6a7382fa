//! The keys that a link's peer is asked for: memory that it has not announced, by keys that the program got from elsewhere.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::descriptors;
use super::link_messages::{KeyReply, KeyRequest, REQUEST_SIZE};
use super::work::look_again;
use crate::sync::{Mutex, lock};

/// How long an answer is waited for. A peer that was asked for many wrong keys takes its time.
const PATIENCE: Duration = Duration::from_secs(30);
/// Answers kept for those that have asked.
const MOST_ANSWERS: usize = 64;

/// One question at a time travels on the link's socket; the queue pairs of the link share it.
#[derive(Debug, Default)]
pub(super) struct Questions {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The key on its way, and since when.
    asked: Option<(u32, Instant)>,
    /// Keys that no region has, until the one that has asked comes to see.
    absent: VecDeque<u32>,
    broken: bool,
}

/// What has become of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    /// The region is in the table of those that were granted.
    Granted,
    /// No region has the key.
    Absent,
    /// Not answered before then.
    NotYet(Instant),
    /// The peer does not answer.
    Never,
}

impl Questions {
    /// Asks for `key` on `socket`, or says what came of it; never blocks.
    pub(super) fn resolve(&self, socket: &OwnedFd, key: u32, now: Instant) -> Resolved {
        let mut state = lock(&self.state);
        let answered = state.receive(socket, now);
        if answered == Some(KeyReply { key, granted: true }) {
            return Resolved::Granted;
        }
        if let Some(place) = state.absent.iter().position(|absent| *absent == key) {
            state.absent.remove(place);
            return Resolved::Absent;
        }
        if state.asked.is_none() && !state.broken {
            match descriptors::send(socket, &KeyRequest { key }.encode(), &[]) {
                Ok(()) => state.asked = Some((key, now)),
                Err(Errno::AGAIN) => {}
                Err(_) => state.broken = true,
            }
        }
        if state.broken {
            return Resolved::Never;
        }
        let since = state.asked.map_or(now, |(_, since)| since);
        Resolved::NotYet(look_again(since, now))
    }
}

impl State {
    /// Takes the answer if it is there.
    fn receive(&mut self, socket: &OwnedFd, now: Instant) -> Option<KeyReply> {
        let (asked, since) = self.asked?;
        let reply = match descriptors::receive::<REQUEST_SIZE, 0>(socket, RecvFlags::DONTWAIT) {
            Ok((bytes, [])) => KeyReply::decode(&bytes).filter(|reply| reply.key == asked),
            Err(Errno::AGAIN) if now.saturating_duration_since(since) < PATIENCE => return None,
            Err(_) => None,
        };
        self.asked = None;
        self.broken |= reply.is_none();
        if let Some(KeyReply { key, granted: false }) = reply {
            self.absent.truncate(MOST_ANSWERS - 1);
            self.absent.push_front(key);
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    fn received(socket: &OwnedFd) -> Option<u32> {
        let (bytes, []) = descriptors::receive::<REQUEST_SIZE, 0>(socket, RecvFlags::DONTWAIT).ok()?;
        KeyRequest::decode(&bytes).map(|request| request.key)
    }

    fn reply(socket: &OwnedFd, key: u32, granted: bool) {
        descriptors::send(socket, &KeyReply { key, granted }.encode(), &[]).unwrap();
    }

    #[test]
    fn a_key_is_asked_for_once_and_one_at_a_time() {
        let ((ours, theirs), now, questions) = (pair(), Instant::now(), Questions::default());
        let resolve = |key| questions.resolve(&ours, key, now);
        assert!(matches!(resolve(1), Resolved::NotYet(_)) && matches!(resolve(2), Resolved::NotYet(_)));
        assert!(matches!(resolve(1), Resolved::NotYet(_)));
        assert_eq!((received(&theirs), received(&theirs)), (Some(1), None));
        reply(&theirs, 1, false);
        assert!(matches!(resolve(2), Resolved::NotYet(_)));
        assert_eq!(received(&theirs), Some(2));
        reply(&theirs, 2, true);
        assert_eq!(resolve(2), Resolved::Granted);
        assert_eq!(resolve(1), Resolved::Absent);
    }

    #[test]
    fn a_peer_that_answers_nothing_or_nonsense_is_asked_no_more() {
        let ((ours, theirs), now, questions) = (pair(), Instant::now(), Questions::default());
        assert!(matches!(questions.resolve(&ours, 1, now), Resolved::NotYet(_)));
        assert_eq!(questions.resolve(&ours, 1, now + PATIENCE), Resolved::Never);
        let questions = Questions::default();
        assert!(matches!(questions.resolve(&ours, 1, now), Resolved::NotYet(_)));
        reply(&theirs, 7, true);
        assert_eq!(questions.resolve(&ours, 1, now), Resolved::Never);
        drop(theirs);
        assert_eq!(Questions::default().resolve(&ours, 1, now), Resolved::Never);
    }
}
