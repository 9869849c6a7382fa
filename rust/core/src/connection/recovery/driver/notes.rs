//! What operators are told of a connection, by helper threads in the order in which it happened.

use std::collections::VecDeque;
use std::fmt;

use crate::connection::Connection;
use crate::sync::{Mutex, lock};

type Note = Box<dyn FnOnce(&Connection) + Send>;

#[derive(Default)]
pub(super) struct Notes {
    waiting: Mutex<VecDeque<Note>>,
    /// Held by the thread that tells, which may wait for a file. Locked before `waiting`.
    turn: Mutex<()>,
}

impl Notes {
    /// Waits for no file.
    pub(super) fn push(&self, note: Note) {
        lock(&self.waiting).push_back(note);
    }

    /// Tells all that waits.
    pub(super) fn tell(&self, connection: &Connection) {
        let _turn = lock(&self.turn);
        loop {
            let next = lock(&self.waiting).pop_front();
            let Some(note) = next else { return };
            note(connection);
        }
    }
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notes").finish_non_exhaustive()
    }
}
