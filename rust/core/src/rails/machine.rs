//! The state machine of one rail.

use super::silence::{RailCounts, Silence};
use super::state::{PauseReason, RailLimits, RailState};

/// What the driver of a rail is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RailAction {
    /// Post a request of no bytes on a queue pair of the rail that has nothing else to do, and report its completion by
    /// [`RailMachine::answered`] with this number.
    Probe(u32),
    /// Take every part from the rail: quiesce its lanes, and post their parts elsewhere.
    Move(PauseReason),
    /// Make the lanes of the rail again, once they are quiet, and report [`RailMachine::rebuilt`] with this number.
    Rebuild(u32),
}

/// The state of one rail: events with their times in, actions out.
///
/// ```text
///          silent and no answer, errors, port down           until: Probe ── answered: Rebuild ── rebuilt
///   Up ──────────────────── Move ───────────────▶ Paused ─────────────────────────────────────────────▶ Up
///                                                  ▲  │ no answer, the probe failed, not rebuilt: twice as long
///                            Down ── port up ──────┘◀─┘
/// ```
/// A rail that was left has no queue pair to be asked on: these are made first ([`RailMachine::has_no_lane`]). A probe that is answered
/// late is answered, also in the next pause. What was asked without an answer makes only the pauses between questions longer, not
/// those of the next failures.
#[derive(Clone, Debug)]
pub struct RailMachine {
    limits: RailLimits,
    state: State,
    silence: Silence,
    /// Pauses in a row, without those between questions.
    pauses: u32,
    /// Questions of this pause that were not answered in time.
    unanswered: u32,
    reason: Option<PauseReason>,
    /// When it was last said to be up.
    up_since: u64,
    /// When the first failure of the current window came, and how many have come since.
    errors: (u64, u32),
    /// Answers in a row without progress: each doubles the time until the next probe.
    patience: u32,
    /// When it may be asked again.
    ask_at: u64,
    /// The number of the last probe, and of the last one before it was left.
    probe: u32,
    left_at: u32,
    /// The number of the last rebuild.
    rebuild: u32,
    /// A probe of this silence was not answered, at a time when no other rail completed anything either.
    unheard: bool,
    /// An answer to a probe has come since the last look: the peer is there.
    was_heard: bool,
    /// Until when its answer as a witness is waited for.
    witness_until: u64,
    last_look: u64,
    actions: Actions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up {
        asked: Option<Asked>,
    },
    Waiting {
        until: u64,
    },
    Asking {
        until: u64,
    },
    /// Its lanes are being made, to be asked then.
    Making {
        since: u64,
    },
    Rebuilding {
        since: u64,
    },
    Down {
        lost: bool,
    },
}

/// A probe that is under way: its number is the machine's last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    until: u64,
}

/// What waits to be taken: at most one of each kind.
#[derive(Clone, Copy, Debug, Default)]
struct Actions {
    moves: Option<PauseReason>,
    probe: Option<u32>,
    rebuild: Option<u32>,
}

/// So often is the time until the next probe doubled: up to 64 times the silence that is looked for.
const MOST_PATIENCE: u32 = 6;

impl RailMachine {
    /// A rail that is up.
    pub fn new(limits: RailLimits, now: u64) -> Self {
        Self {
            limits,
            state: State::Up { asked: None },
            silence: Silence::default(),
            pauses: 0,
            unanswered: 0,
            reason: None,
            up_since: now,
            errors: (0, 0),
            patience: 0,
            ask_at: now,
            probe: 0,
            left_at: 0,
            rebuild: 0,
            unheard: false,
            was_heard: false,
            witness_until: 0,
            last_look: now,
            actions: Actions::default(),
        }
    }

    /// Whether it may be used.
    pub fn state(&self) -> RailState {
        match self.state {
            State::Up { .. } => RailState::Up,
            State::Waiting { until } | State::Asking { until } => RailState::Paused(until),
            State::Making { since } | State::Rebuilding { since } => RailState::Paused(since),
            State::Down { .. } => RailState::Down,
        }
    }

    /// Whether it takes parts.
    #[inline]
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// Why it was paused or went down last; `None` if it never was.
    pub fn reason(&self) -> Option<PauseReason> {
        self.reason
    }

    /// When a look last found that it had completed something.
    pub fn progressed_at(&self) -> u64 {
        self.silence.progressed_at
    }

    /// When it last gave a sign of the peer, as a look at these counters finds it: as [`RailMachine::progressed_at`], or by the answer to a
    /// probe since the last look.
    pub(super) fn sign_seen_by(&self, now: u64, counts: RailCounts) -> u64 {
        let gives_one = self.was_heard || self.silence.would_progress(counts);
        if gives_one { now } else { self.silence.progressed_at }
    }

    /// Whether it is silent and only another rail can tell whether the peer is as well.
    pub(super) fn wants_witness(&self, now: u64) -> bool {
        let is_asked = matches!(self.state, State::Up { asked: Some(_) });
        self.is_up() && self.silence.lasts(now) >= self.silence_limit() && (is_asked || now >= self.ask_at)
    }

    /// Has nothing to complete, and so is asked: its answer is a sign of the peer. Not again before that has come, or may be lost.
    pub(super) fn call_as_witness(&mut self, now: u64) {
        if self.state == (State::Up { asked: None }) && now >= self.witness_until {
            self.witness_until = now.saturating_add(self.limits.answer);
            self.ask();
        }
    }

    /// Looks at the counters of its lanes. `others_progressed_at` is the latest [`RailMachine::progressed_at`] of the connection's
    /// other rails, or of an answer to a probe of theirs: if none of them gives a sign either, it is the peer that is silent, not this rail.
    ///
    /// So a rail is asked only while another one completes something, and paused without an answer only if another one still does
    /// when the answer is due. If none does then, it is asked once more as soon as one does again.
    pub fn look(&mut self, now: u64, counts: RailCounts, others_progressed_at: u64) {
        self.last_look = now;
        self.was_heard = false;
        self.silence.look(now, counts);
        let State::Up { asked } = self.state else {
            self.silence.reset();
            return;
        };
        if self.silence.progressed_at == now {
            (self.patience, self.ask_at, self.unheard) = (0, now, false);
            self.state = State::Up { asked: None };
            self.settle(now);
        } else if let Some(asked) = asked {
            if now >= asked.until && self.silence.since.is_some() {
                if self.unheard || self.are_alive(now, others_progressed_at) {
                    self.pause(PauseReason::Silent, now);
                } else {
                    self.unheard = true;
                    self.state = State::Up { asked: None };
                }
            }
        } else if self.is_silent(now, others_progressed_at) {
            self.state = State::Up { asked: Some(Asked { until: now + self.limits.answer }) };
            self.ask();
        }
    }

    /// The probe with this number was answered. Answers to others are ignored, but for those since it was left: each of them says that
    /// it works again.
    pub fn answered(&mut self, number: u32, now: u64) {
        let is_of_pause =
            !self.is_up() && self.probe.wrapping_sub(number) < self.probe.wrapping_sub(self.left_at);
        if number != self.probe && !is_of_pause {
            return;
        }
        if self.is_up() {
            (self.was_heard, self.witness_until) = (true, 0);
        }
        match self.state {
            State::Up { asked: Some(_) } => {
                self.state = State::Up { asked: None };
                self.patience = (self.patience + 1).min(MOST_PATIENCE);
                self.ask_at = now.saturating_add(self.silence_limit() << self.patience);
                self.actions.probe = None;
                self.unheard = false;
            }
            State::Waiting { .. } | State::Asking { .. } if is_of_pause => {
                self.actions.probe = None;
                self.state = State::Rebuilding { since: now };
                self.rebuild = self.rebuild.wrapping_add(1);
                self.actions.rebuild = Some(self.rebuild);
            }
            _ => {}
        }
    }

    /// There is no queue pair that its last probe could be posted on. They are to be made, and [`RailMachine::has_lane`] then reported.
    pub fn has_no_lane(&mut self, now: u64) {
        if matches!(self.state, State::Asking { .. }) {
            self.state = State::Making { since: now };
        }
    }

    /// It has a queue pair again. Ignored if it does not wait for one.
    pub fn has_lane(&mut self, now: u64) {
        if matches!(self.state, State::Making { .. }) {
            self.state = State::Asking { until: now.saturating_add(self.limits.answer) };
            self.ask();
        }
    }

    /// A lane of it has failed with an error that was made by neither this end nor a refused request. Counts one, however many requests were flushed. A rail
    /// that is asked has failed with its probe: the next pause is longer.
    pub fn failed(&mut self, now: u64) {
        if matches!(self.state, State::Asking { .. } | State::Making { .. } | State::Rebuilding { .. }) {
            self.actions = Actions { moves: self.actions.moves, ..Actions::default() };
            return self.wait(PauseReason::Errors, now);
        }
        let (since, count) = self.errors;
        self.errors = if count > 0 && now.saturating_sub(since) <= self.limits.window {
            (since, count + 1)
        } else {
            (now, 1)
        };
        if self.is_up() && self.errors.1 >= self.limits.errors {
            self.pause(PauseReason::Errors, now);
        }
    }

    /// One of its last failures was none.
    pub fn not_failed(&mut self) {
        self.errors.1 = self.errors.1.saturating_sub(1);
    }

    /// The port at one of its ends went down.
    pub fn port_down(&mut self) {
        self.take_down(PauseReason::PortDown, false);
    }

    /// The ports at both ends are up again. Ignored if it is not down.
    pub fn port_up(&mut self, now: u64) {
        if self.state == (State::Down { lost: false }) {
            self.wait(PauseReason::PortDown, now);
        }
    }

    /// The device at one of its ends is lost, for good.
    pub fn device_lost(&mut self) {
        self.take_down(PauseReason::DeviceLost, true);
    }

    /// [`RailAction::Rebuild`] with this number has ended. The end of an earlier one is ignored: the rail may have left again since
    /// it began.
    pub fn rebuilt(&mut self, number: u32, is_rebuilt: bool, now: u64) {
        if number != self.rebuild || !matches!(self.state, State::Rebuilding { .. }) {
            return;
        }
        if !is_rebuilt {
            return self.wait(PauseReason::Errors, now);
        }
        self.state = State::Up { asked: None };
        self.silence.reset();
        self.unheard = false;
        self.up_since = now;
        self.errors = (0, 0);
        (self.patience, self.ask_at) = (0, now);
    }

    /// When to look at a rail that has something under way, or to call [`RailMachine::timeout`]; `None`: no deadline is set, and
    /// the next one is when it is given something to do.
    pub fn deadline(&self) -> Option<u64> {
        match self.state {
            State::Up { asked } => {
                self.silence.since?;
                let look = self.last_look + RailLimits::interval(self.silence_limit() << self.patience);
                Some(asked.map_or(look, |asked| look.min(asked.until)))
            }
            State::Waiting { until } | State::Asking { until } => Some(until),
            State::Making { .. } | State::Rebuilding { .. } | State::Down { .. } => None,
        }
    }

    /// Handles the deadline of a rail that is not up. Does nothing before it.
    pub fn timeout(&mut self, now: u64) {
        match self.state {
            State::Waiting { until } if now >= until => {
                self.state = State::Asking { until: now + self.limits.answer };
                self.ask();
            }
            State::Asking { until } if now >= until => {
                self.unanswered = self.unanswered.saturating_add(1);
                self.reason = Some(PauseReason::Silent);
                self.state = State::Waiting { until: now.saturating_add(self.silent_pause()) };
            }
            _ => {}
        }
    }

    /// The next thing to do: moves before all others.
    pub fn next_action(&mut self) -> Option<RailAction> {
        if let Some(reason) = self.actions.moves.take() {
            return Some(RailAction::Move(reason));
        }
        if let Some(number) = self.actions.probe.take() {
            return Some(RailAction::Probe(number));
        }
        self.actions.rebuild.take().map(RailAction::Rebuild)
    }

    /// Requests a probe of a rail that is up and has not been asked, to learn the latency of its path. Its answer changes nothing.
    pub fn measure(&mut self) {
        if self.state == (State::Up { asked: None }) {
            self.ask();
        }
    }

    fn is_silent(&self, now: u64, others_progressed_at: u64) -> bool {
        self.silence.since.is_some_and(|since| others_progressed_at > since)
            && self.silence.lasts(now) >= self.silence_limit()
            && now >= self.ask_at
            && self.are_alive(now, others_progressed_at)
    }

    /// Whether another rail completes requests: at this look or at the one before.
    fn are_alive(&self, now: u64, others_progressed_at: u64) -> bool {
        now.saturating_sub(others_progressed_at) <= self.limits.look_interval()
    }

    fn silence_limit(&self) -> u64 {
        // An hour at most, so that it can be doubled.
        self.silence.limit(self.limits.silence, self.limits.gaps).min(3_600_000 * super::MILLISECOND)
    }

    fn ask(&mut self) {
        self.probe = self.probe.wrapping_add(1);
        self.actions.probe = Some(self.probe);
    }

    /// It works: once it has worked for long enough, its next pause is the first one again.
    fn settle(&mut self, now: u64) {
        let needed = self.limits.window.max(self.pause_length(0, self.limits.longest_pause));
        if self.pauses > 0 && now.saturating_sub(self.up_since) >= needed {
            self.pauses = 0;
        }
    }

    fn pause(&mut self, reason: PauseReason, now: u64) {
        self.actions = Actions { moves: Some(reason), ..Actions::default() };
        self.silence.reset();
        self.unheard = false;
        self.wait(reason, now);
    }

    fn wait(&mut self, reason: PauseReason, now: u64) {
        self.pauses = self.pauses.saturating_add(1);
        self.unanswered = 0;
        self.left_at = self.probe;
        self.reason = Some(reason);
        self.errors = (0, 0);
        let pause = match reason {
            PauseReason::Silent => self.silent_pause(),
            _ => self.pause_length(0, self.limits.longest_pause),
        };
        self.state = State::Waiting { until: now.saturating_add(pause) };
    }

    fn silent_pause(&self) -> u64 {
        self.pause_length(self.unanswered, self.limits.longest_silent_pause)
    }

    /// The length of the last of `pauses` pauses, or of the one that is so many later.
    fn pause_length(&self, later: u32, longest: u64) -> u64 {
        let doublings = self.pauses.saturating_sub(1).saturating_add(later).min(32);
        self.limits.first_pause.saturating_mul(1 << doublings).min(longest)
    }

    fn take_down(&mut self, reason: PauseReason, lost: bool) {
        if let State::Down { lost: before } = self.state {
            self.state = State::Down { lost: lost || before };
            return;
        }
        let moves = if self.is_up() { Some(reason) } else { self.actions.moves };
        self.actions = Actions { moves, ..Actions::default() };
        self.silence.reset();
        self.reason = Some(reason);
        self.state = State::Down { lost };
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
