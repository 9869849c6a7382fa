//! What a connection needs when it is not idle: the peer says something or hangs up, or a lane has failed.
//!
//! # How a lane heals
//!
//! The side that connected leads, so that both never ask at once. A lane heals in its place:
//!
//! ```text
//! leader: lane broken -> drained -> new queue pair ── Rebuild ──▶ follower: breaks and drains its lane,
//!                                                                 new queue pair, connects it to the leader's
//!         connects its own, lane healthy  ◀── Rebuilt ──
//!                                          ── Ready ──▶           lane healthy
//! ```
//! A follower whose lane fails first says Broken and waits to be asked. Interrupted requests are posted again only
//! after this, when the old queue pairs of both ends are in ERROR and drained, so nothing of the old ones can still
//! arrive.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Connection, DeviceHealth, LaneBuilder, LaneHandle};
use crate::control::wire::LaneRecord;
use crate::control::{Channel, ChannelFrame, Heard, LaneSetup};
use crate::fabric::{FabricError, QueuePair};
use crate::pool::{LaneHealth, Verdict};

/// Rebuilds of one lane that may fail in a row before it is given up. A lane that comes back and fails again starts
/// anew: what bounds a transfer then is how often one of its parts may be interrupted.
const MAX_ATTEMPTS: u32 = 3;

/// How long one step of a rebuild may take.
const STEP_LIMIT: Duration = Duration::from_secs(3);

/// How long a follower waits to be asked for a rebuild: longer than a leader that lives tries.
const FOLLOW_LIMIT: Duration = Duration::from_secs(12);

/// How long lanes wait for a port that is down before they are given up: with a rebuild behind it, shorter than a
/// follower waits.
const PORT_LIMIT: Duration = Duration::from_secs(8);

/// How often a care-taker looks at lanes that are being drained.
const LOOK: Duration = Duration::from_millis(1);

/// Frames of the peer that are dealt with before it is the lanes' turn again. All lanes together are answered with fewer;
/// a peer that sends without end must not keep the care-taker from lanes that wait to be drained or given up.
const FRAMES_PER_ROUND: usize = 64;

/// State of the rebuilding, kept between care-takers.
#[derive(Debug, Default)]
pub(super) struct Care {
    lanes: Vec<LaneCare>,
}

#[derive(Debug, Default)]
struct LaneCare {
    attempts: u32,
    /// Leader: asked, waiting for the answer. Follower: answered, waiting for Ready.
    pending: Option<Pending>,
    /// Follower: when the leader was told.
    told: Option<Instant>,
}

#[derive(Debug)]
struct Pending {
    attempt: u32,
    queue_pair: Box<dyn QueuePair>,
    until: Instant,
}

impl Connection {
    /// Starts a care-taker unless one is at work.
    pub(super) fn attend(self: &Arc<Self>) {
        self.wanted.store(true, Ordering::SeqCst);
        if self.attended.swap(true, Ordering::SeqCst) {
            return;
        }
        let connection = Arc::clone(self);
        let spawned =
            std::thread::Builder::new().name("p2p-care".to_owned()).spawn(move || connection.care());
        if let Err(error) = spawned {
            tracing::error!(peer = %self.peer.control, "no thread to look after a connection: {error}");
            self.attended.store(false, Ordering::SeqCst);
            self.lose("no thread could be started to look after it");
        }
    }

    fn care(self: &Arc<Self>) {
        loop {
            self.wanted.store(false, Ordering::SeqCst);
            let busy = match self.care_once() {
                Ok(busy) => busy,
                Err(reason) => {
                    self.lose(&reason);
                    false
                }
            };
            if busy && !self.is_closed() {
                self.pause();
                continue;
            }
            self.attended.store(false, Ordering::SeqCst);
            // Whoever wanted care after our last look found `attended` set; take the turn back for them.
            if self.is_closed()
                || !self.wanted.load(Ordering::SeqCst)
                || self.attended.swap(true, Ordering::SeqCst)
            {
                break;
            }
        }
        if !self.is_closed() {
            self.monitor.resume(self.number, self);
        }
    }

    /// One round; true if something is still going on. An error says why the peer is lost.
    fn care_once(&self) -> Result<bool, String> {
        if let DeviceHealth::Lost(reason) = self.context.device_health() {
            return Err(reason.to_owned());
        }
        let mut busy = read_some(&self.channel, |frame| self.handle(frame))?;
        if self.is_closed() {
            return Ok(false);
        }
        for (index, lane) in self.lanes.iter().enumerate() {
            busy |= match lane.status.health() {
                LaneHealth::Healthy | LaneHealth::Closed => false,
                LaneHealth::Broken => {
                    self.drive(lane);
                    true
                }
                LaneHealth::Drained => self.tend(index, lane)?,
            };
        }
        if self.lanes.iter().all(|lane| lane.status.health() == LaneHealth::Closed) {
            return Err("no lane is left".to_owned());
        }
        Ok(busy)
    }

    fn handle(&self, frame: ChannelFrame) -> Result<(), String> {
        match frame {
            ChannelFrame::Ping(number) => self.say(&ChannelFrame::Pong(number)),
            ChannelFrame::Pong(_) => Ok(()),
            ChannelFrame::Goodbye => Err("the peer has closed the connection".to_owned()),
            ChannelFrame::Broken { lane } => {
                if let Some(lane) = self.lanes.get(lane as usize).filter(|_| self.leads) {
                    self.break_lane(lane, "the peer's end of the lane has failed");
                }
                Ok(())
            }
            ChannelFrame::Rebuild { lane, attempt, record } => self.follow(lane, attempt, &record),
            ChannelFrame::Rebuilt { lane, attempt, record } => self.finish(lane, attempt, &record),
            ChannelFrame::Ready { lane, attempt } => self.install(lane, attempt),
            ChannelFrame::Refused { lane, .. } => {
                if let Some(lane) = self.lanes.get(lane as usize) {
                    self.give_up(lane, "the peer could not rebuild the lane");
                }
                Ok(())
            }
        }
    }

    /// Looks after a drained lane; true while something is expected.
    fn tend(&self, index: usize, lane: &LaneHandle) -> Result<bool, String> {
        if !self.heals {
            self.give_up(lane, &lane.status.reason());
            return Ok(false);
        }
        let now = Instant::now();
        let mut care = self.care.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(state) = self.lane_care(&mut care, index) else { return Ok(false) };
        if let Some(pending) = &state.pending {
            if now < pending.until {
                return Ok(true);
            }
            tracing::warn!(peer = %self.peer.control, lane = index, "the peer did not answer a rebuild in time");
            state.pending = None;
        }
        if !self.leads {
            let told = state.told;
            state.told.get_or_insert(now);
            drop(care);
            match told {
                None => self.say(&ChannelFrame::Broken { lane: index as u32 })?,
                Some(since) if now - since > FOLLOW_LIMIT => {
                    self.give_up(lane, "the peer did not ask for a rebuild");
                    return Ok(false);
                }
                Some(_) => {}
            }
            return Ok(true);
        }
        if let DeviceHealth::PortDown(since) = self.context.device_health() {
            drop(care);
            if since.elapsed() > PORT_LIMIT {
                self.give_up(lane, &format!("the port has been down for {} s", PORT_LIMIT.as_secs()));
                return Ok(false);
            }
            return Ok(true);
        }
        if state.attempts == MAX_ATTEMPTS {
            drop(care);
            self.give_up(lane, &format!("{MAX_ATTEMPTS} rebuilds did not help: {}", lane.status.reason()));
            return Ok(false);
        }
        state.attempts += 1;
        let attempt = self.attempt.fetch_add(1, Ordering::Relaxed) + 1;
        let (queue_pair, record) = match self.fresh_queue_pair(lane) {
            Ok(fresh) => fresh,
            Err(error) => {
                drop(care);
                self.give_up(lane, &format!("no queue pair for a rebuild: {error}"));
                return Ok(false);
            }
        };
        self.put(state, Pending { attempt, queue_pair, until: now + STEP_LIMIT });
        drop(care);
        tracing::info!(peer = %self.peer.control, lane = index, attempt, reason = lane.status.reason(), "rebuilding a lane");
        self.say(&ChannelFrame::Rebuild { lane: index as u32, attempt, record })?;
        Ok(true)
    }

    /// Follower: makes the other half of a rebuilt lane.
    fn follow(&self, index: u32, attempt: u32, record: &LaneRecord) -> Result<(), String> {
        let Some(lane) = self.lanes.get(index as usize).filter(|_| !self.leads) else { return Ok(()) };
        self.break_lane(lane, "the peer asks for a rebuild");
        if matches!(self.context.device_health(), DeviceHealth::PortDown(_)) {
            // Without an answer the leader asks again: by then the port may be back.
            tracing::info!(peer = %self.peer.control, lane = index, "a rebuild must wait: the port is down");
            return Ok(());
        }
        let deadline = Instant::now() + STEP_LIMIT;
        while lane.status.health() == LaneHealth::Broken && Instant::now() < deadline {
            self.drive(lane);
            std::thread::sleep(LOOK);
        }
        let made = if lane.status.health() == LaneHealth::Drained {
            self.connected_queue_pair(lane, record, deadline).map_err(|error| error.to_string())
        } else {
            Err("it could not be drained".to_owned())
        };
        match made {
            Ok((queue_pair, ours)) => {
                let mut care = self.care.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(state) = self.lane_care(&mut care, index as usize) {
                    self.put(state, Pending { attempt, queue_pair, until: Instant::now() + STEP_LIMIT });
                }
                drop(care);
                self.say(&ChannelFrame::Rebuilt { lane: index, attempt, record: ours })
            }
            Err(reason) => {
                tracing::warn!(peer = %self.peer.control, lane = index, "a lane is not rebuilt: {reason}");
                self.say(&ChannelFrame::Refused { lane: index, attempt })?;
                self.give_up(lane, &reason);
                Ok(())
            }
        }
    }

    /// Leader: connects its half and declares the lane ready.
    fn finish(&self, index: u32, attempt: u32, record: &LaneRecord) -> Result<(), String> {
        let mut care = self.care.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(state) = self.lane_care(&mut care, index as usize) else { return Ok(()) };
        let Some(mut pending) = state.pending.take_if(|pending| pending.attempt == attempt) else {
            return Ok(());
        };
        drop(care);
        let options =
            LaneBuilder::path_options(&self.context, self.capabilities, Instant::now() + STEP_LIMIT);
        if let Err(error) = pending.queue_pair.connect(&record.address, &options) {
            tracing::warn!(peer = %self.peer.control, lane = index, "a rebuilt queue pair did not connect: {error}");
            return Ok(());
        }
        self.say(&ChannelFrame::Ready { lane: index, attempt })?;
        self.heal(index as usize, pending.queue_pair);
        Ok(())
    }

    /// Follower: the leader is connected too. If it says so when we have given our half up, it takes a lane to be ready
    /// that leads nowhere, and must be told.
    fn install(&self, index: u32, attempt: u32) -> Result<(), String> {
        let Some(lane) = self.lanes.get(index as usize).filter(|_| !self.leads) else { return Ok(()) };
        let mut care = self.care.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(state) = self.lane_care(&mut care, index as usize) else { return Ok(()) };
        if let Some(pending) = state.pending.take_if(|pending| pending.attempt == attempt) {
            state.told = None;
            drop(care);
            self.heal(index as usize, pending.queue_pair);
            return Ok(());
        }
        if state.pending.is_some() || lane.status.health() != LaneHealth::Drained {
            return Ok(());
        }
        state.told = Some(Instant::now());
        drop(care);
        self.say(&ChannelFrame::Broken { lane: index })
    }

    /// Keeps a queue pair until the peer answers; not once the connection has ended, when nobody looks after it.
    fn put(&self, state: &mut LaneCare, pending: Pending) {
        state.pending = Some(pending).filter(|_| !self.is_closed());
    }

    /// The connection has ended: destroys the queue pairs of rebuilds under way, which the peer may be connected to.
    pub(super) fn end_rebuilds(&self) {
        self.care.lock().unwrap_or_else(PoisonError::into_inner).lanes.clear();
    }

    fn heal(&self, index: usize, queue_pair: Box<dyn QueuePair>) {
        let Some(lane) = self.lanes.get(index) else { return };
        if lane.worker.with_state(|state| state.heal_lane(lane.key, queue_pair)).is_err() {
            return;
        }
        if let Some(state) =
            self.lane_care(&mut self.care.lock().unwrap_or_else(PoisonError::into_inner), index)
        {
            state.attempts = 0;
        }
        self.rebuilds.fetch_add(1, Ordering::Relaxed);
        tracing::info!(peer = %self.peer.control, lane = index, "a lane is back in working order");
        lane.worker.kick();
    }

    fn fresh_queue_pair(&self, lane: &LaneHandle) -> Result<(Box<dyn QueuePair>, LaneRecord), FabricError> {
        let queue_pair = LaneBuilder::create_on(&self.context, &lane.worker)?;
        let granted = queue_pair.caps();
        // The requests that wait were made for what the lanes were granted at first.
        if !self.policy.fits(granted.max_sge, granted.max_inline) {
            return Err(FabricError::Unsupported(format!(
                "it was granted {} entries per request and {} bytes inline, less than the one before",
                granted.max_sge, granted.max_inline
            )));
        }
        let capabilities = Some(LaneBuilder::new(Arc::clone(&self.context)).capabilities());
        let record = LaneRecord { address: queue_pair.address(), capabilities };
        Ok((queue_pair, record))
    }

    fn connected_queue_pair(
        &self,
        lane: &LaneHandle,
        peer: &LaneRecord,
        deadline: Instant,
    ) -> Result<(Box<dyn QueuePair>, LaneRecord), FabricError> {
        let (mut queue_pair, record) = self.fresh_queue_pair(lane)?;
        let options = LaneBuilder::path_options(&self.context, self.capabilities, deadline);
        queue_pair.connect(&peer.address, &options)?;
        Ok((queue_pair, record))
    }

    /// The state of a lane; `None` if there is no such lane, whatever the peer says.
    fn lane_care<'a>(&self, care: &'a mut Care, index: usize) -> Option<&'a mut LaneCare> {
        care.lanes.resize_with(self.lanes.len(), LaneCare::default);
        care.lanes.get_mut(index)
    }

    fn break_lane(&self, lane: &LaneHandle, reason: &str) {
        lane.worker.with_state(|state| state.break_lane(lane.key, reason));
    }

    /// Closes one lane for good; the others go on.
    fn give_up(&self, lane: &LaneHandle, reason: &str) {
        tracing::warn!(peer = %self.peer.control, "a lane is given up: {reason}");
        self.close_lane(lane, Verdict::Failed, reason);
    }

    fn say(&self, frame: &ChannelFrame) -> Result<(), String> {
        self.channel
            .send(frame, Instant::now() + STEP_LIMIT)
            .map_err(|error| format!("the control connection failed: {error}"))
    }

    fn drive(&self, lane: &LaneHandle) {
        let _ = lane.worker.drive_as_caller();
    }

    /// Waits a moment, or until the peer says something.
    fn pause(&self) {
        let mut fds = [PollFd::from_borrowed_fd(self.channel.as_fd(), PollFlags::IN)];
        let _ = poll(&mut fds, Timespec::try_from(LOOK).ok().as_ref());
    }
}

/// Passes on what the peer has said, up to the limit of a round; true if there may be more. An error is final.
fn read_some(
    channel: &Channel,
    mut handle: impl FnMut(ChannelFrame) -> Result<(), String>,
) -> Result<bool, String> {
    for _ in 0..FRAMES_PER_ROUND {
        match channel.try_read().map_err(|error| lost(&error))? {
            Heard::Frame(frame) => handle(frame)?,
            Heard::Unknown => {}
            Heard::Nothing => return Ok(false),
        }
    }
    Ok(true)
}

fn lost(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "the peer has closed the connection or died".to_owned(),
        _ => format!("the control connection failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::channel_tests::{pair, soon};

    /// Also with frames of a kind that a later version may know.
    #[test]
    fn a_peer_that_sends_without_end_has_its_share_of_a_round() {
        let mut unknown = ChannelFrame::Pong(0).encode();
        unknown[6] = 99;
        for frame in [ChannelFrame::Pong(0).encode(), unknown] {
            let (channel, peer) = pair();
            peer.write_all_by(&frame.repeat(3 * FRAMES_PER_ROUND), soon()).unwrap();
            peer.write_all_by(&ChannelFrame::Goodbye.encode(), soon()).unwrap();
            let rounds = std::iter::from_fn(|| {
                let mut frames = 0;
                let round = read_some(&channel, |frame| {
                    frames += 1;
                    (frame != ChannelFrame::Goodbye).then_some(()).ok_or_else(String::new)
                });
                assert!(frames <= FRAMES_PER_ROUND);
                round.ok()
            });
            // Rounds that find nothing may come between, when not all has arrived yet.
            assert!(rounds.take(100_000).filter(|more| *more).count() >= 3);
        }
    }
}
