//! When a part of a failed lane may be posted on another one.
//!
//! A request that was posted may still arrive at the peer after the NIC that has sent it was given up: from a queue on the way, or
//! from a NIC that comes back. If its part is meanwhile posted on another lane and ends, such a request writes to memory that
//! the program uses for something else. So a part moves only when the queue pairs of its lane let nothing through any more: a
//! READ, which writes to memory here, when the queue pair here is in ERROR and drained; a WRITE when that of the peer is as well.
//!
//! ```text
//! leaves the lane                                     the peer
//!   moves its queue pair to ERROR ── Quiesce ──────▶ moves its own to ERROR
//!   drained: READs may move                           drained
//!   WRITEs may move           ◀────── Quiesced ──
//! ```
//! Both machines take frames twice, late, and of lanes that are gone. A question comes before the lane's queue pairs are made again, never
//! behind: the control channel keeps the order.

use crate::fabric::Opcode;

/// What the driver of a [`Quiesce`] is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuiesceAction {
    /// Move the lane's queue pair to ERROR, and report [`Quiesce::drained`].
    SetError,
    /// Send `Quiesce` with this number over the control channel.
    Send(u32),
}

/// How far a lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuiesceState {
    /// In use.
    InUse,
    /// On its way to be quiet.
    Leaving,
    /// Quiet at both ends.
    Quiet,
    /// The peer has not answered in time: WRITEs of it may not move.
    Unanswered,
}

/// The end that takes its parts from a lane.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiesce {
    number: u32,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    InUse,
    Leaving {
        drained: bool,
        answered: bool,
        until: u64,
    },
    Unanswered {
        drained: bool,
    },
}

impl Quiesce {
    /// The lane is to be left. What to do, in this order; nothing if it is being left already.
    pub fn begin(&mut self, now: u64, limit: u64) -> [Option<QuiesceAction>; 2] {
        if self.stage != Stage::InUse {
            return [None; 2];
        }
        self.number = self.number.wrapping_add(1);
        self.stage = Stage::Leaving { drained: false, answered: false, until: now.saturating_add(limit) };
        [Some(QuiesceAction::SetError), Some(QuiesceAction::Send(self.number))]
    }

    /// The queue pair at this end is in ERROR and drained.
    pub fn drained(&mut self) {
        if let Stage::Leaving { drained, .. } | Stage::Unanswered { drained } = &mut self.stage {
            *drained = true;
        }
    }

    /// The peer has sent `Quiesced` with this number. An answer to an earlier question is ignored.
    pub fn quiesced(&mut self, number: u32) {
        if number != self.number {
            return;
        }
        match self.stage {
            Stage::Leaving { drained, until, .. } => {
                self.stage = Stage::Leaving { drained, answered: true, until };
            }
            Stage::Unanswered { drained } => {
                self.stage = Stage::Leaving { drained, answered: true, until: u64::MAX };
            }
            Stage::InUse => {}
        }
    }

    /// When to call [`Quiesce::timeout`].
    pub fn deadline(&self) -> Option<u64> {
        match self.stage {
            Stage::Leaving { answered: false, until, .. } => Some(until),
            _ => None,
        }
    }

    /// Handles the deadline, if it has passed.
    pub fn timeout(&mut self, now: u64) {
        if let Stage::Leaving { drained, answered: false, until } = self.stage
            && now >= until
        {
            self.stage = Stage::Unanswered { drained };
        }
    }

    /// The lane has new queue pairs at both ends, made after it was quiet.
    pub fn rebuilt(&mut self) {
        if self.state() == QuiesceState::Quiet {
            self.stage = Stage::InUse;
        }
    }

    /// The lane has new queue pairs at both ends, by a rebuild that waits itself until the old ones of both are quiet.
    pub fn replaced(&mut self) {
        self.stage = Stage::InUse;
    }

    /// Whether a part with such requests may be posted on another lane.
    pub fn may_move(&self, opcode: Opcode) -> bool {
        let (is_drained, is_answered) = match self.stage {
            Stage::InUse => (false, false),
            Stage::Leaving { drained, answered, .. } => (drained, answered),
            Stage::Unanswered { drained } => (drained, false),
        };
        is_drained && (is_answered || opcode == Opcode::Read)
    }

    /// How far it is.
    pub fn state(&self) -> QuiesceState {
        match self.stage {
            Stage::InUse => QuiesceState::InUse,
            Stage::Leaving { drained: true, answered: true, .. } => QuiesceState::Quiet,
            Stage::Leaving { .. } => QuiesceState::Leaving,
            Stage::Unanswered { .. } => QuiesceState::Unanswered,
        }
    }
}

/// What the driver of a [`QuiesceAnswer`] is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerAction {
    /// Move the lane's queue pair to ERROR, and report [`QuiesceAnswer::drained`].
    SetError,
    /// Send `Quiesced` with this number.
    Send(u32),
}

/// The other end of a lane that is left.
#[derive(Clone, Copy, Debug, Default)]
pub struct QuiesceAnswer {
    asked: Option<u32>,
    quiet: bool,
}

impl QuiesceAnswer {
    /// Of a lane that is gone, or was never there: it lets nothing through.
    pub fn gone() -> Self {
        Self { asked: None, quiet: true }
    }

    /// `Quiesce` with this number has come.
    pub fn asked(&mut self, number: u32) -> Option<AnswerAction> {
        let first = self.asked.replace(number).is_none();
        if self.quiet {
            return Some(AnswerAction::Send(number));
        }
        first.then_some(AnswerAction::SetError)
    }

    /// The queue pair at this end is in ERROR and drained.
    pub fn drained(&mut self) -> Option<AnswerAction> {
        if std::mem::replace(&mut self.quiet, true) {
            return None;
        }
        self.asked.map(AnswerAction::Send)
    }

    /// The lane has new queue pairs at both ends.
    pub fn rebuilt(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
#[path = "quiesce_tests.rs"]
mod tests;
