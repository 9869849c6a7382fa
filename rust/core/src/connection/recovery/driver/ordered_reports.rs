//! What operators are told of a connection, by helper threads in the order in which it happened.

use std::collections::VecDeque;
use std::fmt;

use crate::connection::Connection;
use crate::sync::{Mutex, lock};

type Report = Box<dyn FnOnce(&Connection) + Send>;

#[derive(Default)]
pub(super) struct OrderedReports {
    waiting: Mutex<VecDeque<Report>>,
    /// Held by the thread that tells, which may wait for a file. Locked before `waiting`.
    turn: Mutex<()>,
}

impl OrderedReports {
    /// Waits for no file.
    pub(super) fn push(&self, report: Report) {
        lock(&self.waiting).push_back(report);
    }

    /// Tells all that waits.
    pub(super) fn tell(&self, connection: &Connection) {
        let _turn = lock(&self.turn);
        loop {
            let next = lock(&self.waiting).pop_front();
            let Some(report) = next else { return };
            report(connection);
        }
    }
}

impl fmt::Debug for OrderedReports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrderedReports").finish_non_exhaustive()
    }
}
