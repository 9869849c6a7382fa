//! What a link's peer is asked for: memory that it has not announced, by keys that the program got from elsewhere; and the files of
//! memory that may be mapped.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::descriptors;
use super::link_messages::{FileReply, FileRequest, KeyReply, KeyRequest, REQUEST_SIZE};
use super::work::look_again;
use crate::sync::{Mutex, lock};

/// How long an answer is waited for. A peer that was asked for many wrong keys takes its time.
const PATIENCE: Duration = Duration::from_secs(30);
/// Answers kept for those that have asked.
const MOST_ANSWERS: usize = 64;
/// Files kept for those that have asked: each is a descriptor. One that is dropped is asked for again.
const MOST_FILES: usize = 4;

/// One question at a time travels on the link's socket; the queue pairs of the link share it.
#[derive(Debug, Default)]
pub(super) struct Questions {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What is on its way, and since when.
    asked: Option<(Question, Instant)>,
    /// Nothing is looked for on the socket before then.
    next_look: Option<Instant>,
    /// Keys that no region has, until the one that has asked comes to see.
    absent: VecDeque<u32>,
    /// Until one that has asked for a file comes to take it.
    files: VecDeque<(FileReply, Option<OwnedFd>)>,
    /// Since when a key waits for the end of a late question for a file.
    held_up: Option<Instant>,
    /// The peer keeps to no rules, or is gone: it is asked no more on this link.
    broken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Key(u32),
    File(u32),
}

/// What has become of the question for a file.
#[derive(Debug)]
pub(super) enum FileFor {
    /// Of this key, which may be another one than was asked for, with its descriptor if one came.
    Here(FileReply, Option<OwnedFd>),
    /// Not answered before then.
    NotYet(Instant),
    /// A stopped peer, perhaps: the answer may come at any time.
    Late,
    /// The peer does not answer.
    Never,
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
        state.note_held_up(now);
        state.ask(socket, Question::Key(key), now).map_or(Resolved::Never, Resolved::NotYet)
    }

    /// Asks for the file of the region of `key` on `socket`, or gives what was answered, of whatever key; never blocks.
    pub(super) fn file(&self, socket: &OwnedFd, key: u32, now: Instant) -> FileFor {
        let mut state = lock(&self.state);
        if let Some(next_look) = state.next_look.filter(|next_look| now < *next_look) {
            return FileFor::NotYet(next_look);
        }
        state.receive(socket, now);
        if let Some((reply, file)) = state.files.pop_front() {
            return FileFor::Here(reply, file);
        }
        if state.is_file_late(now) {
            return FileFor::Late;
        }
        state.next_look = state.ask(socket, Question::File(key), now);
        state.next_look.map_or(FileFor::Never, FileFor::NotYet)
    }

    /// Whether nothing can be asked any more.
    pub(super) fn is_broken(&self) -> bool {
        lock(&self.state).broken
    }
}

impl State {
    /// Whether the file that is asked for should have come.
    fn is_file_late(&self, now: Instant) -> bool {
        let is_late = |since| now.saturating_duration_since(since) >= PATIENCE;
        self.asked.is_some_and(|(question, since)| matches!(question, Question::File(_)) && is_late(since))
    }

    /// A key has its own patience when a late file keeps it from being asked for.
    fn note_held_up(&mut self, now: Instant) {
        if self.is_file_late(now) {
            let since = *self.held_up.get_or_insert(now);
            self.broken |= now.saturating_duration_since(since) >= PATIENCE;
        }
    }

    /// Sends a question if none is on its way. When to look again; `None`: the peer does not answer.
    fn ask(&mut self, socket: &OwnedFd, question: Question, now: Instant) -> Option<Instant> {
        if self.asked.is_none() && !self.broken {
            let message = match question {
                Question::Key(key) => KeyRequest { key }.encode(),
                Question::File(key) => FileRequest { key }.encode(),
            };
            match descriptors::send(socket, &message, &[]) {
                Ok(()) => self.asked = Some((question, now)),
                Err(Errno::AGAIN) => {}
                Err(_) => self.broken = true,
            }
        }
        let since = self.asked.map_or(now, |(_, since)| since);
        (!self.broken).then(|| look_again(since, now))
    }

    /// Takes the answer if it is there; of a key it is answered, too.
    fn receive(&mut self, socket: &OwnedFd, now: Instant) -> Option<KeyReply> {
        let (question, since) = self.asked?;
        let received = match descriptors::receive_any::<REQUEST_SIZE>(socket, RecvFlags::DONTWAIT) {
            // Memory has other paths than a mapping, so a late file is no reason to ask for no keys.
            Err(Errno::AGAIN)
                if matches!(question, Question::File(_))
                    || now.saturating_duration_since(since) < PATIENCE =>
            {
                return None;
            }
            received => received,
        };
        (self.asked, self.next_look, self.held_up) = (None, None, None);
        match question {
            Question::Key(key) => {
                let answered = |(bytes, files): ([u8; REQUEST_SIZE], Vec<OwnedFd>)| {
                    KeyReply::decode(&bytes).filter(|reply| reply.key == key && files.is_empty())
                };
                let reply = received.ok().and_then(answered);
                self.broken |= reply.is_none();
                if let Some(KeyReply { key, granted: false }) = reply {
                    self.absent.truncate(MOST_ANSWERS - 1);
                    self.absent.push_front(key);
                }
                reply
            }
            Question::File(key) => {
                let answered = |(bytes, files): ([u8; REQUEST_SIZE], Vec<OwnedFd>)| {
                    let reply = FileReply::decode(&bytes).filter(|reply| reply.key == key)?;
                    Some((reply, files.into_iter().next()))
                };
                let reply = received.ok().and_then(answered);
                self.broken |= reply.is_none();
                self.files.truncate(MOST_FILES - 1);
                reply.into_iter().for_each(|reply| self.files.push_front(reply));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::software::link_messages::FileAnswer;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::os::fd::AsFd;

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
    fn a_file_is_asked_for_between_keys_and_its_answer_kept() {
        let ((ours, theirs), now, questions) = (pair(), Instant::now(), Questions::default());
        let asked_for_file = || {
            let (bytes, []) = descriptors::receive::<REQUEST_SIZE, 0>(&theirs, RecvFlags::DONTWAIT).ok()?;
            FileRequest::decode(&bytes).map(|request| request.key)
        };
        assert!(matches!(questions.file(&ours, 1, now), FileFor::NotYet(_)));
        assert!(matches!(questions.file(&ours, 1, now), FileFor::NotYet(_)));
        assert!(matches!(questions.resolve(&ours, 2, now), Resolved::NotYet(_)));
        assert_eq!((asked_for_file(), received(&theirs)), (Some(1), None), "one at a time");
        let own = FileReply { key: 1, answer: FileAnswer::Own(4096) };
        descriptors::send(&theirs, &own.encode(), &[theirs.as_fd()]).unwrap();
        assert!(matches!(questions.resolve(&ours, 2, now), Resolved::NotYet(_)));
        assert_eq!(received(&theirs), Some(2));
        match questions.file(&ours, 3, now) {
            FileFor::Here(reply, Some(_)) => assert_eq!(reply, own),
            other => panic!("{other:?}"),
        }
        reply(&theirs, 2, true);
        assert_eq!(questions.resolve(&ours, 2, now), Resolved::Granted);
        assert!(matches!(questions.file(&ours, 3, now + PATIENCE), FileFor::NotYet(_)));
        assert!(matches!(questions.file(&ours, 3, now + 3 * PATIENCE), FileFor::Late), "it says nothing");
    }

    /// As when the peer was stopped for longer than an answer is waited for.
    #[test]
    fn a_late_file_keeps_no_key_from_being_asked_for() {
        let ((ours, theirs), now, questions) = (pair(), Instant::now(), Questions::default());
        assert!(matches!(questions.file(&ours, 1, now), FileFor::NotYet(_)));
        let late = now + 10 * PATIENCE;
        assert!(matches!(questions.file(&ours, 1, late), FileFor::Late));
        assert!(
            matches!(questions.resolve(&ours, 2, late), Resolved::NotYet(_)),
            "a key has its own patience"
        );
        assert!(!questions.is_broken());
        descriptors::receive::<REQUEST_SIZE, 0>(&theirs, RecvFlags::DONTWAIT).unwrap();
        let own = FileReply { key: 1, answer: FileAnswer::Own(4096) };
        descriptors::send(&theirs, &own.encode(), &[theirs.as_fd()]).unwrap();
        assert!(matches!(questions.resolve(&ours, 2, late), Resolved::NotYet(_)));
        assert_eq!(received(&theirs), Some(2));
        reply(&theirs, 2, true);
        assert_eq!(questions.resolve(&ours, 2, late), Resolved::Granted);
        assert!(matches!(questions.file(&ours, 1, late), FileFor::Here(_, Some(_))), "it is of use");
    }

    #[test]
    fn a_key_behind_a_late_file_is_waited_for_no_longer_than_any() {
        let ((ours, _theirs), now, questions) = (pair(), Instant::now(), Questions::default());
        assert!(matches!(questions.file(&ours, 1, now), FileFor::NotYet(_)));
        let late = now + 2 * PATIENCE;
        assert!(matches!(questions.resolve(&ours, 2, late), Resolved::NotYet(_)));
        assert_eq!(questions.resolve(&ours, 2, late + PATIENCE), Resolved::Never);
        assert!(questions.is_broken());
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
