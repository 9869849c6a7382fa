//! The actions that a machine asks its driver to carry out.

use std::collections::VecDeque;

use super::LostReason;
use crate::control::wire::LaneRecord;
use crate::control::{ChannelFrame, RailRefusal};
use crate::rails::MAX_RAILS;

/// An action that the driver carries out.
///
/// `Create`, `CreateConnected` and `Connect` may take long; the driver answers with `Machine::created` or
/// `Machine::connected` of the same lane and attempt, within [`STEP_LIMIT`](super::STEP_LIMIT).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::connection) enum Action {
    /// Send this frame to the peer.
    Send(ChannelFrame),
    /// Move the lane's queue pair to ERROR. Its drain is reported like any other.
    Break {
        /// Index of the lane.
        lane: usize,
        /// Why.
        reason: &'static str,
    },
    /// Destroy the lane's queue pair, which is in ERROR and does not drain: parts wait to leave the lane. Once that is done it is reported as
    /// drained. The driver does not wait for it.
    Destroy {
        /// Index of the lane.
        lane: usize,
    },
    /// Create a queue pair in INIT.
    Create {
        /// Index of the lane that it is for.
        lane: usize,
        /// Names the queue pair, with the lane.
        attempt: u32,
    },
    /// Create a queue pair and connect it to the peer's. The driver reports `Machine::created`, or
    /// `Machine::connected` with an error when it was created and could not be connected: then the peer may ask
    /// again.
    CreateConnected {
        /// Index of the lane that it is for.
        lane: usize,
        /// Names the queue pair, with the lane.
        attempt: u32,
        /// The peer's queue pair.
        peer: LaneRecord,
    },
    /// Connect the queue pair of an earlier `Create` to the peer's.
    Connect {
        /// Index of the lane.
        lane: usize,
        /// Names the queue pair.
        attempt: u32,
        /// The peer's queue pair.
        peer: LaneRecord,
    },
    /// Put the queue pair in the place of the lane's old one, which is drained: the lane is healthy again.
    Install {
        /// Index of the lane.
        lane: usize,
        /// Names the queue pair.
        attempt: u32,
    },
    /// Destroy the queue pair, if it exists. One that is being created or connected is destroyed as soon as that is
    /// done; its result may be reported and is ignored.
    Discard {
        /// Index of the lane.
        lane: usize,
        /// Names the queue pair.
        attempt: u32,
    },
    /// As [`Action::Discard`] of a queue pair that is connected, and wait until it is destroyed: the frame behind it tells the peer so.
    DiscardNow {
        /// Index of the lane.
        lane: usize,
        /// Names the queue pair.
        attempt: u32,
    },
    /// Close the lane for good: drained, or destroyed if that takes too long. Its transfers fail with `reason`.
    Close {
        /// Index of the lane.
        lane: usize,
        /// Why.
        reason: LostReason,
    },
    /// The lane is drained, and another rail works: take parts from it and post them there. Those that read; with `both_ends`, the
    /// peer's end is drained too, and those that write.
    MoveParts {
        /// Index of the lane.
        lane: usize,
        /// Both ends of it are drained.
        both_ends: bool,
    },
    /// Open this end of a rail: its NIC, and `lanes` lanes that wait for rebuilds. The driver answers with `Machine::rail_opened`.
    OpenRail {
        /// Its number.
        rail: usize,
        /// The NIC here, by its place in the list that was sent to the peer.
        nic: u16,
        /// The peer's, by its place in its list.
        peer: u16,
        /// How many lanes it has.
        lanes: usize,
    },
    /// Leader: create a queue pair in INIT, for the trial of a path. The driver answers with `Machine::trial_created`.
    CreateTrial {
        /// Number of the rail.
        rail: usize,
        /// Number of the trial.
        number: u32,
        /// The NIC here.
        nic: u16,
    },
    /// Follower: create a queue pair and connect it to the peer's. The driver answers with `Machine::trial_created`.
    AnswerTrial {
        /// Number of the rail.
        rail: usize,
        /// Number of the trial.
        number: u32,
        /// The NIC here.
        nic: u16,
        /// The peer's queue pair.
        peer: LaneRecord,
    },
    /// Leader: connect the queue pair of a trial to the peer's, and have a request of no bytes carried out. The driver answers with
    /// `Machine::trial_written`, within [`STEP_LIMIT`](super::STEP_LIMIT).
    WriteTrial {
        /// Number of the rail.
        rail: usize,
        /// Number of the trial.
        number: u32,
        /// The peer's queue pair.
        peer: LaneRecord,
    },
    /// Destroy the queue pair of a trial, if it exists.
    EndTrial {
        /// Number of the rail.
        rail: usize,
        /// Number of the trial.
        number: u32,
    },
    /// Leader: the NICs of a rail do not reach each other, so it is not made. Its number may be used again.
    PathRefused {
        /// Its number.
        rail: usize,
        /// What was seen.
        reason: String,
    },
    /// Leader: both ends have a rail, and none of its lanes connects, as often as that was tried: another pair of NICs may take over. It is still
    /// tried, ever more rarely. Reported once.
    RailUnconnected {
        /// Its number.
        rail: usize,
        /// The last failure.
        reason: String,
    },
    /// Follower: the leader does not make the rail that it was asked for.
    RequestRefused {
        /// The NIC here.
        own: u16,
        /// The peer's.
        peer: u16,
        /// Why.
        why: RailRefusal,
    },
    /// Leader: a rail is not made. Its number may be used again.
    RailRefused {
        /// Its number.
        rail: usize,
        /// Why.
        why: RailRefusal,
    },
    /// Leader: the peer has need of a rail.
    RailRequested {
        /// The NIC here.
        own: u16,
        /// The peer's.
        peer: u16,
    },
    /// End the connection and everything on it. No action follows.
    Lose(LostReason),
}

/// Actions that wait for the driver.
///
/// Frames have a queue of their own with one entry for each subject, such as a lane, and one Pong: a newer frame replaces an older one
/// that the driver has not taken. So a peer that sends requests without end and reads nothing costs a fixed amount of
/// memory. The number of other actions is bounded by the driver's reports.
#[derive(Debug, Default)]
pub(super) struct Actions {
    local: VecDeque<Action>,
    frames: VecDeque<ChannelFrame>,
}

impl Actions {
    /// Adds an action other than a frame.
    pub(super) fn push(&mut self, action: Action) {
        self.local.push_back(action);
    }

    /// The peer asks for a rail. Of a peer that asks without end the first few count.
    pub(super) fn push_request(&mut self, own: u16, peer: u16) {
        let request = Action::RailRequested { own, peer };
        let waiting = self.local.iter().filter(|action| matches!(action, Action::RailRequested { .. }));
        if waiting.count() < MAX_RAILS && !self.local.contains(&request) {
            self.local.push_back(request);
        }
    }

    /// The leader has refused a rail that it was asked for. Of a peer that sends that without end the first few count.
    pub(super) fn push_refused_request(&mut self, own: u16, peer: u16, why: RailRefusal) {
        let refused = Action::RequestRefused { own, peer, why };
        let waiting = self.local.iter().filter(|action| matches!(action, Action::RequestRefused { .. }));
        if waiting.count() < MAX_RAILS {
            self.local.push_back(refused);
        }
    }

    /// Adds a frame; it replaces one of the same lane.
    pub(super) fn push_frame(&mut self, frame: ChannelFrame) {
        if let Subject::Lane(lane) = subject(&frame) {
            self.keep_behind_questions(lane);
        }
        let has_enough = self.has_enough(&frame);
        match self.frames.iter_mut().find(|waiting| subject(waiting) == subject(&frame)) {
            Some(waiting) => *waiting = frame,
            // The peer asks for more than there can be, and reads no answer.
            None if has_enough => {}
            None => self.frames.push_back(frame),
        }
    }

    fn has_enough(&self, frame: &ChannelFrame) -> bool {
        let is_one = |frame: &ChannelFrame| matches!(frame, ChannelFrame::RequestRefused { .. });
        is_one(frame) && self.frames.iter().filter(|waiting| is_one(waiting)).count() >= MAX_RAILS
    }

    /// Drops a frame about the rebuilds of a lane if a question about the lane, or an answer, waits: what takes its place comes behind
    /// these. A rebuild must not be over before the questions about the failure are answered.
    fn keep_behind_questions(&mut self, lane: u32) {
        let is_question = |frame: &ChannelFrame| matches!(subject(frame), Subject::Leaving(other) | Subject::Left(other) if other == lane);
        if self.frames.iter().any(is_question) {
            self.frames.retain(|frame| subject(frame) != Subject::Lane(lane));
        }
    }

    /// Takes back what would tell the peer that nothing of a lane arrives any more. Answers the question that is not answered then.
    pub(super) fn take_end(&mut self, lane: u32) -> Option<u32> {
        let mut question = None;
        self.frames.retain(|frame| match *frame {
            ChannelFrame::Refused { lane: other, .. } => other != lane,
            ChannelFrame::Quiesced { lane: other, number } if other == lane => {
                question = Some(number);
                false
            }
            _ => true,
        });
        question
    }

    /// Drops the frames.
    pub(super) fn drop_frames(&mut self) {
        self.frames.clear();
    }

    /// The next action other than a frame.
    pub(super) fn next_local(&mut self) -> Option<Action> {
        self.local.pop_front()
    }

    /// The next frame.
    pub(super) fn next_frame(&mut self) -> Option<ChannelFrame> {
        self.frames.pop_front()
    }

    /// Whether frames wait.
    pub(super) fn has_frames(&self) -> bool {
        !self.frames.is_empty()
    }

    /// Whether actions other than frames wait.
    pub(super) fn has_local(&self) -> bool {
        !self.local.is_empty()
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.local.len() + self.frames.len()
    }
}

/// What a frame is about: a newer one about the same takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Lane(u32),
    /// The sender leaves this lane, beside its rebuilds.
    Leaving(u32),
    /// The sender answers the question about this lane.
    Left(u32),
    Rail(u8),
    Request(u16, u16),
    RequestRefused(u16, u16),
    /// A question about a path, or the end of one, or an answer.
    Trial(u8),
    Other,
}

fn subject(frame: &ChannelFrame) -> Subject {
    match frame {
        ChannelFrame::Rebuild { lane, .. }
        | ChannelFrame::Rebuilt { lane, .. }
        | ChannelFrame::Ready { lane, .. }
        | ChannelFrame::Broken { lane }
        | ChannelFrame::NotNow { lane, .. }
        | ChannelFrame::Refused { lane, .. } => Subject::Lane(*lane),
        ChannelFrame::Quiesce { lane, .. } => Subject::Leaving(*lane),
        ChannelFrame::Quiesced { lane, .. } => Subject::Left(*lane),
        ChannelFrame::AddRail { rail, .. }
        | ChannelFrame::RailReady { rail }
        | ChannelFrame::RailRefused { rail, .. } => Subject::Rail(*rail),
        ChannelFrame::RequestRail { own, peer } => Subject::Request(*own, *peer),
        ChannelFrame::RequestRefused { own, peer, .. } => Subject::RequestRefused(*own, *peer),
        ChannelFrame::TryPath { rail, .. } | ChannelFrame::PathTried { rail, .. } => Subject::Trial(*rail),
        ChannelFrame::Ping(_) | ChannelFrame::Pong(_) | ChannelFrame::Goodbye => Subject::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_frame_takes_the_place_of_an_older_one() {
        let mut actions = Actions::default();
        for number in 0..100 {
            actions.push_frame(ChannelFrame::Pong(number));
            actions.push_frame(ChannelFrame::Ready { lane: 1, attempt: number as u32 });
            actions.push_frame(ChannelFrame::Broken { lane: 0 });
        }
        assert_eq!(actions.len(), 3);
        let frames: Vec<_> = std::iter::from_fn(|| actions.next_frame()).collect();
        let last = ChannelFrame::Ready { lane: 1, attempt: 99 };
        assert_eq!(frames, [ChannelFrame::Pong(99), last, ChannelFrame::Broken { lane: 0 }]);
    }
}
