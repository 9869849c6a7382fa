//! The task of one connection on the event loop: reports events to the machine, and carries out its actions.
//!
//! The task waits for the peer's frames, for a wake-up (a lane or the device has changed, a command has ended) and for
//! the machine's deadline. It never blocks: commands of the device go to helper threads, connects wait on the loop.

mod awaiting;
mod command;
mod flap_damping;
mod lane_failures;
mod lost;
mod need;
mod observation;
mod ordered_reports;
mod presence;
mod probes;
mod rails;
mod redial;
mod regions;
mod relinking;
mod sending;
mod telling_end;
mod trials;
mod waiting;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Instant;

use self::awaiting::Woken;
use self::need::{Need, NeedWatch};
use self::observation::{Observation, observe};
use self::redial::Redial;
pub(in crate::connection) use self::redial::RedialParts;
use self::watch::WatchedRails;
use super::rebuilds::{AttemptId, Rebuilds, TrialId};
use super::{Action, LostReason, Machine, RailRequests};
use crate::connection::close::Ending;
use crate::connection::rail_watch::RailWatch;
use crate::connection::regions::Exchange;
use crate::connection::{Connection, DRAIN_LIMIT, Presence};
use crate::control::wire::LaneRecord;
use crate::control::{Channel, ChannelFrame, RailRefusal, Received, Stream};
use crate::events::{EventLoopHandle, Wakeup, Watched, with_upgraded};
use crate::fork::OwnSocket;
use crate::sync::{Mutex, lock};

/// Frames of the peer that are read per turn: a peer that sends without end must not keep the task from its lanes,
/// nor the loop from other connections.
const FRAMES_PER_TURN: usize = 64;

/// Watches a connection and recovers its lanes, until it is lost or the task is stopped.
pub(in crate::connection) struct Driver {
    /// Weak: a connection that its owners have dropped ends, and stops this task.
    connection: Weak<Connection>,
    /// The socket of the channel; `None` while that is away.
    channel: Option<Watched<Arc<Stream>>>,
    socket: Arc<Channel>,
    wakeup: Arc<Wakeup>,
    machine: Machine,
    rebuilds: Arc<Rebuilds>,
    rail_requests: Arc<RailRequests>,
    /// Creations and connects that have ended since the last turn.
    ended: Arc<Mutex<Vec<CommandResult>>>,
    /// The exchange of regions, with a peer that announces changes.
    exchange: Option<Exchange>,
    /// The look at the rails, and what is remembered of them.
    watch: RailWatch,
    rails: WatchedRails,
    /// Of a connection with one rail: whether it needs another one.
    need: NeedWatch,
    /// This end adds rails.
    leads: bool,
    /// The peer has named its NICs.
    knows_nics: bool,
    /// Part of a frame waits for room in the socket, which is then watched for writing through a second descriptor,
    /// while the task goes on reading: the peer may be blocked in the same way.
    blocked: bool,
    writable: Option<Watched<OwnSocket<OwnedFd>>>,
    /// A frame other than one about regions is waiting.
    urgent: bool,
    /// When that frame must be sent. Frames about regions may wait for as long as the peer does not read.
    send_by: Option<Instant>,
    /// Detects the peer's end.
    presence: Presence,
    /// The peer may send pings.
    answers: bool,
    /// Received bytes that have been counted as signs of life.
    received: u64,
    /// With a channel that can be made anew.
    redial: Option<Redial>,
    /// The other end of the channel's socket, now or before.
    peer_address: SocketAddr,
    handle: EventLoopHandle,
}

/// The parts that a driver is made of.
#[derive(Debug)]
pub(in crate::connection) struct Parts {
    pub(in crate::connection) channel: Arc<Channel>,
    pub(in crate::connection) wakeup: Arc<Wakeup>,
    pub(in crate::connection) machine: Machine,
    pub(in crate::connection) rebuilds: Arc<Rebuilds>,
    pub(in crate::connection) rail_requests: Arc<RailRequests>,
    pub(in crate::connection) exchange: Option<Exchange>,
    pub(in crate::connection) presence: Presence,
    pub(in crate::connection) watch: RailWatch,
    /// This end has connected.
    pub(in crate::connection) leads: bool,
    /// The peer takes frames.
    pub(in crate::connection) heals: bool,
    /// The channel can be made anew.
    pub(in crate::connection) redial: Option<RedialParts>,
}

/// A command that has ended.
#[derive(Debug)]
enum CommandResult {
    Created { id: AttemptId, result: Result<LaneRecord, String> },
    Connected { id: AttemptId, result: Result<(), String> },
    RailOpened { rail: usize, result: Result<(), RailRefusal> },
    TrialCreated { id: TrialId, result: Result<LaneRecord, Option<RailRefusal>> },
    TrialWritten { id: TrialId, result: Result<(), String> },
}

/// What the task does after a turn.
enum Next {
    /// Wait for something to happen.
    Wait,
    /// Continue at once, after other tasks of the loop: the peer has sent more than a turn reads.
    GoOn,
    /// The connection is lost or dropped.
    End,
}

impl Driver {
    pub(in crate::connection) fn new(
        connection: &Weak<Connection>,
        parts: Parts,
        handle: EventLoopHandle,
    ) -> io::Result<Self> {
        let Parts {
            channel: socket,
            wakeup,
            machine,
            rebuilds,
            rail_requests,
            exchange,
            presence,
            watch,
            leads,
            heals,
            redial,
        } = parts;
        Ok(Self {
            connection: Weak::clone(connection),
            channel: socket.stream().map(|stream| handle.watch(stream)).transpose()?,
            peer_address: socket.peer(),
            socket,
            wakeup,
            machine,
            rebuilds,
            rail_requests,
            ended: Arc::default(),
            exchange,
            watch,
            rails: WatchedRails::default(),
            need: NeedWatch::default(),
            leads,
            knows_nics: false,
            blocked: false,
            writable: None,
            urgent: false,
            send_by: None,
            presence,
            answers: heals,
            received: 0,
            redial: redial.map(Redial::new),
            handle,
        })
    }

    pub(in crate::connection) async fn run(mut self) {
        loop {
            match self.turn().await {
                Next::Wait => while self.wait().await == Woken::ToLook && self.look_alone() {},
                Next::GoOn => self.handle.give_way().await,
                Next::End => return,
            }
        }
    }

    /// Reports events to the machine, and carries out its actions after each.
    async fn turn(&mut self) -> Next {
        let Some(mut seen) = self.observe() else { return Next::End };
        // Before any recovery of lanes that failed because of it.
        self.check_peer(&seen);
        self.tend_channel();
        self.tend_notifications();
        let mut more = false;
        if self.are_new_failures(&seen) {
            // The peer may have said already that it has left these lanes.
            more = self.receive().await;
            let Some(now) = self.observe() else { return Next::End };
            seen = now;
        }
        self.note_ports(&seen);
        self.tend_link();
        self.note_spare(&seen);
        for seen in seen {
            if self.watch_observation(&seen) {
                self.report_observation(seen);
                self.act().await;
            }
        }
        self.pass_rail_requests().await;
        more |= self.receive().await;
        self.note_activity();
        self.watch_failures();
        let ended = std::mem::take(&mut *lock(&self.ended));
        for ended in ended {
            self.report_command(ended);
            self.act().await;
        }
        if self.machine_deadline().is_some_and(|deadline| Instant::now() >= deadline) {
            self.machine.timeout(self.now());
        }
        self.act().await;
        self.watch_rails().await;
        self.watch_need();
        self.move_waiting().await;
        self.note_empty_lanes().await;
        self.note_undrained().await;
        let more = self.send_regions() || more;
        match (self.machine.is_over(), more) {
            (true, _) => Next::End,
            (false, true) => Next::GoOn,
            (false, false) => Next::Wait,
        }
    }

    /// The devices, and the lanes that are not healthy; `None` if the connection is dropped.
    fn observe(&self) -> Option<Vec<Observation>> {
        let made = self.machine.made_lanes();
        with_upgraded(&self.handle, &self.connection, |connection| observe(connection, made))
    }

    fn report_observation(&mut self, seen: Observation) {
        let now = self.now();
        match seen {
            Observation::Device { rail, health } => self.machine.device(rail, health, now),
            Observation::Broken { lane, reason, .. } => self.machine.lane_broken(lane, &reason, now),
            Observation::Drained { lane, reason, .. } => self.machine.lane_drained(lane, &reason, now),
            Observation::Closed { lane, leaks: false } => self.machine.lane_closed(lane, now),
            Observation::Closed { lane, leaks: true } => self.machine.lane_lingers(lane, now),
        }
    }

    /// Reads and reports frames of the peer, up to the limit of a turn; true if there may be more.
    async fn receive(&mut self) -> bool {
        for _ in 0..FRAMES_PER_TURN {
            match self.socket.try_read() {
                Ok(Received::Frame(frame)) => {
                    match frame {
                        ChannelFrame::RailReady { rail } => self.announce_rail(rail),
                        ChannelFrame::Quiesce { lane, .. } => self.rails.failures.left_by_peer(lane as usize),
                        ChannelFrame::Refused { .. } => self.look_for_spare(false),
                        _ => {}
                    }
                    self.machine.frame(frame, self.now());
                }
                Ok(Received::Regions(frame)) => self.receive_regions(frame).await,
                // Once: rails have their numbers by that list.
                Ok(Received::Nics(nics)) if self.machine.policy.rails && !self.knows_nics => {
                    self.knows_nics = true;
                    self.command(move |connection| connection.take_nic_list(&nics)).await;
                }
                Ok(Received::Offer(offer)) => self.take_offer(offer),
                Ok(Received::Acknowledgement(count)) => {
                    if let Err(error) = self.socket.acknowledged(count) {
                        self.channel_failed(&error);
                    }
                }
                Ok(Received::Nics(_) | Received::Unknown) => {}
                Ok(Received::Nothing) => return false,
                Err(error) => self.channel_failed(&error),
            }
            // The peer may wait for it, with no room for more.
            self.socket.acknowledge();
            self.act().await;
            if self.machine.is_over() || self.is_away() {
                return false;
            }
        }
        true
    }

    fn report_command(&mut self, ended: CommandResult) {
        let now = self.now();
        match ended {
            CommandResult::Created { id, result } => self.machine.created(id.lane, id.attempt, result, now),
            CommandResult::Connected { id, result } => {
                self.machine.connected(id.lane, id.attempt, result, now)
            }
            CommandResult::TrialCreated { .. } | CommandResult::TrialWritten { .. } => {
                self.report_trial(ended, now)
            }
            CommandResult::RailOpened { rail, result } => {
                // The peer announces its regions of the rail from RailReady on, or once it has that.
                if !self.leads && result.is_ok() {
                    self.announce_rail(rail as u8);
                }
                self.machine.rail_opened(rail, result, now);
            }
        }
    }

    /// Carries out the machine's actions in their order; frames when the socket accepts them.
    async fn act(&mut self) {
        loop {
            while let Some(action) = self.machine.next_local_action() {
                self.carry_out(action).await;
            }
            if !self.flush() || !self.socket.has_room() {
                return;
            }
            let Some(Action::Send(frame)) = self.machine.next_action() else { return };
            self.queue(&frame);
        }
    }

    async fn carry_out(&mut self, action: Action) {
        match action {
            Action::Send(frame) => self.queue(&frame),
            Action::Break { lane, reason } => {
                self.command(move |connection| connection.break_lane(lane, reason)).await;
            }
            Action::Destroy { lane } => self.destroy_undrained(lane).await,
            Action::Close { lane, reason } => {
                if self.answering(self.close_lane(lane, reason.to_string())).await {
                    self.machine.lane_lingers(lane, self.now());
                }
            }
            Action::Install { lane, attempt } => {
                self.rails.failures.replaced(lane);
                let rebuilds = Arc::clone(&self.rebuilds);
                self.command(move |connection| {
                    rebuilds
                        .install(AttemptId { lane, attempt }, |queue_pair| connection.heal(lane, queue_pair));
                })
                .await;
            }
            Action::Discard { lane, attempt } => {
                let rebuilds = Arc::clone(&self.rebuilds);
                self.handle.detach(move || drop(rebuilds.take(AttemptId { lane, attempt })));
            }
            Action::DiscardNow { lane, attempt } => {
                let rebuilds = Arc::clone(&self.rebuilds);
                self.command(move |_| drop(rebuilds.take(AttemptId { lane, attempt }))).await;
            }
            Action::Create { lane, attempt } => self.create(AttemptId { lane, attempt }, None),
            Action::CreateConnected { lane, attempt, peer } => {
                self.create(AttemptId { lane, attempt }, Some(peer));
            }
            Action::Connect { lane, attempt, peer } => self.connect(AttemptId { lane, attempt }, peer),
            Action::Lose(reason) => self.lose(&reason),
            Action::MoveParts { lane, both_ends } => {
                // What stays is tried again: `Driver::move_waiting`.
                let go = move |connection: &Connection| {
                    let _ = connection.move_parts(lane, both_ends);
                };
                self.command(go).await;
            }
            Action::OpenRail { rail, nic, peer, lanes } => self.open_rail(rail, (nic, peer), lanes),
            Action::CreateTrial { .. }
            | Action::AnswerTrial { .. }
            | Action::WriteTrial { .. }
            | Action::EndTrial { .. }
            | Action::PathRefused { .. }
            | Action::RailUnconnected { .. }
            | Action::RequestRefused { .. } => self.carry_out_trial(action).await,
            Action::RailRefused { rail, why } => {
                self.command(move |connection| connection.rail_refused(rail, why)).await;
            }
            Action::RailRequested { own, peer } => {
                self.command(move |connection| connection.rail_requested(own, peer)).await;
            }
        }
    }

    /// Ends the connection, also when the task is stopped meanwhile.
    fn lose(&self, reason: &LostReason) {
        let how = if *reason == LostReason::Goodbye { Ending::ClosedByPeer } else { Ending::Lost };
        let (connection, reason) = (Weak::clone(&self.connection), reason.to_string());
        // From now, not from the start of the helper: the time of many connections must not add up.
        let deadline = Instant::now() + DRAIN_LIMIT;
        self.handle.detach(move || {
            if let Some(connection) = connection.upgrade() {
                connection.lose(how, &reason, deadline);
            }
        });
    }

    /// Runs a command of the device on a helper thread, and waits for it here.
    async fn command(&self, call: impl FnOnce(&Connection) + Send + 'static) {
        let connection = Weak::clone(&self.connection);
        let call = move || {
            if let Some(connection) = connection.upgrade() {
                call(&connection);
            }
        };
        self.answering(self.handle.blocking(call)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::super::tests::LEADER;
    use super::*;
    use crate::control::channel_tests::{pair, soon};
    use crate::events::EventLoop;

    /// Of a leader with one lane that works.
    pub(super) fn parts_of(channel: Channel, presence: Presence, redial: Option<RedialParts>) -> Parts {
        let loads = Arc::new(crate::connection::rail_watch::RailLoads::new());
        Parts {
            channel: Arc::new(channel),
            wakeup: Arc::default(),
            machine: Machine::new(LEADER, 1),
            rebuilds: Arc::default(),
            rail_requests: Arc::default(),
            exchange: None,
            presence,
            watch: RailWatch::new(Default::default(), loads),
            leads: true,
            heals: true,
            redial,
        }
    }

    /// Also with frames of an unknown kind, as of a later version.
    #[test]
    fn a_peer_that_sends_without_end_has_its_share_of_a_turn() {
        let mut unknown = ChannelFrame::Pong(0).encode();
        unknown[6] = 99;
        let events = EventLoop::acquire().unwrap();
        for frame in [ChannelFrame::Pong(0).encode(), unknown] {
            let (channel, peer) = pair();
            peer.write_all_by(&frame.repeat(3 * FRAMES_PER_TURN), soon()).unwrap();
            peer.write_all_by(&ChannelFrame::Goodbye.encode(), soon()).unwrap();
            let (report, full_turns) = mpsc::channel();
            let task = events.spawn(move |handle| {
                let handle = handle.clone();
                async move {
                    let parts = parts_of(channel, Presence::Sockets, None);
                    let mut driver = Driver::new(&Weak::new(), parts, handle.clone()).unwrap();
                    let (mut full, deadline) = (0, soon());
                    while !driver.machine.is_over() {
                        assert!(Instant::now() < deadline, "the goodbye was not read");
                        full += usize::from(driver.receive().await);
                        handle.sleep(Duration::from_micros(10)).await;
                    }
                    report.send(full).unwrap();
                }
            });
            // Turns without a frame may come between, when not all has arrived yet.
            assert!(full_turns.recv().unwrap() >= 3);
            drop(task);
        }
    }
}
