//! The task of one connection on the event loop: tells the machine what happens, and carries out what it wants done.
//!
//! The task waits for the peer's frames, for a wake-up (a lane or the device has changed, a command has ended) and for
//! the machine's deadline. It never blocks: commands of the device go to helper threads, connects wait on the loop.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::rebuilds::{Half, Rebuilds};
use super::{Action, Machine, STEP_LIMIT};
use crate::connection::lanes::connect_lane;
use crate::connection::{Connection, DRAIN_LIMIT};
use crate::control::wire::LaneRecord;
use crate::control::{Channel, Heard};
use crate::events::{Handle, Task, Waiter, Wakeup, Watched, first, with_upgraded};
use crate::fabric::QueuePair;
use crate::pool::LaneHealth;
use crate::sync::{Mutex, lock};

/// Frames of the peer that are read before it is the lanes' turn again: a peer that sends without end must not keep the
/// task from lanes that wait to be drained or given up, nor the loop from other connections.
const FRAMES_PER_TURN: usize = 64;

/// Watches a connection, and heals its lanes, until it is lost or the task is stopped.
pub(in crate::connection) struct Driver {
    /// Weak: a connection that its owners have dropped ends, and stops this task.
    connection: Weak<Connection>,
    channel: Watched<Arc<Channel>>,
    socket: Arc<Channel>,
    wakeup: Arc<Wakeup>,
    machine: Machine,
    rebuilds: Arc<Rebuilds>,
    /// Creations and connects under way, and what has ended of them since the last turn.
    commands: VecDeque<Task>,
    ended: Arc<Mutex<Vec<Ended>>>,
    /// When a frame that the socket did not take must be out.
    send_by: Option<Instant>,
    handle: Handle,
}

/// A command that has ended.
#[derive(Debug)]
enum Ended {
    Created { half: Half, result: Result<LaneRecord, String> },
    Connected { half: Half, result: Result<(), String> },
}

/// What a turn leaves.
enum Next {
    /// Wait for something to happen.
    Wait,
    /// Go on at once, after the others on the loop: the peer has said more than a turn takes.
    GoOn,
    /// The connection is lost, or gone.
    End,
}

impl Driver {
    pub(in crate::connection) fn new(
        connection: &Weak<Connection>,
        socket: Arc<Channel>,
        wakeup: Arc<Wakeup>,
        machine: Machine,
        rebuilds: Arc<Rebuilds>,
        handle: Handle,
    ) -> io::Result<Self> {
        Ok(Self {
            connection: Weak::clone(connection),
            channel: handle.watch(Arc::clone(&socket))?,
            socket,
            wakeup,
            machine,
            rebuilds,
            commands: VecDeque::new(),
            ended: Arc::default(),
            send_by: None,
            handle,
        })
    }

    pub(in crate::connection) async fn run(mut self) {
        loop {
            match self.turn().await {
                Next::Wait => self.wait().await,
                Next::GoOn => futures_lite::future::yield_now().await,
                Next::End => return,
            }
        }
    }

    async fn wait(&mut self) {
        let deadline = self.machine.deadline().into_iter().chain(self.send_by).min();
        let timed = first(self.wakeup.wait(), self.handle.sleep_until(deadline));
        match self.send_by {
            None => first(timed, self.channel.readable()).await,
            Some(_) => first(timed, self.channel.writable()).await,
        }
    }

    /// Tells the machine what has happened, and begins what it wants done.
    async fn turn(&mut self) -> Next {
        let (handle, connection) = (self.handle.clone(), Weak::clone(&self.connection));
        let Some(more) = with_upgraded(&handle, &connection, |connection| self.look(connection)) else {
            return Next::End;
        };
        self.take_ended();
        if self.machine.deadline().is_some_and(|deadline| Instant::now() >= deadline) {
            self.machine.timeout(Instant::now());
        }
        self.act().await;
        match (self.machine.is_over(), more) {
            (true, _) => Next::End,
            (false, true) => Next::GoOn,
            (false, false) => Next::Wait,
        }
    }

    /// Reads the state of the device and of the lanes, and what the peer has said; true if there may be more of that.
    fn look(&mut self, connection: &Connection) -> bool {
        self.machine.device(connection.context.device_health(), Instant::now());
        for (index, lane) in connection.lanes.iter().enumerate() {
            let now = Instant::now();
            match lane.status.health() {
                LaneHealth::Healthy => {}
                LaneHealth::Broken => {
                    self.machine.lane_broken(index, &lane.status.reason(), now);
                    // Its worker drains it, also when nothing else is to be done.
                    lane.worker.kick();
                }
                LaneHealth::Drained => self.machine.lane_drained(index, &lane.status.reason(), now),
                LaneHealth::Closed => self.machine.lane_closed(index, now),
            }
        }
        hear(&self.socket, &mut self.machine)
    }

    fn take_ended(&mut self) {
        for ended in std::mem::take(&mut *lock(&self.ended)) {
            match ended {
                Ended::Created { half, result } => {
                    self.machine.created(half.lane, half.attempt, result, Instant::now());
                }
                Ended::Connected { half, result } => {
                    self.machine.connected(half.lane, half.attempt, result, Instant::now());
                }
            }
        }
        self.commands.retain(|command| !command.is_ended());
    }

    /// Carries out the machine's actions in their order; frames when the socket takes them.
    async fn act(&mut self) {
        loop {
            while let Some(action) = self.machine.next_local_action() {
                self.carry_out(action).await;
            }
            if !self.flush() {
                return;
            }
            let Some(Action::Send(frame)) = self.machine.next_action() else { return };
            self.socket.queue(&frame);
        }
    }

    /// Sends what is queued; false if the socket takes no more now, or the connection is lost.
    fn flush(&mut self) -> bool {
        match self.socket.flush() {
            Ok(true) => {
                self.send_by = None;
                true
            }
            Ok(false) => {
                let send_by = *self.send_by.get_or_insert_with(|| Instant::now() + STEP_LIMIT);
                if Instant::now() >= send_by {
                    self.lose(&io::ErrorKind::TimedOut.into());
                }
                false
            }
            Err(error) => {
                self.lose(&error);
                false
            }
        }
    }

    fn lose(&mut self, error: &io::Error) {
        self.machine.channel_lost(error);
        while let Some(action) = self.machine.next_local_action() {
            if let Action::Lose(reason) = action {
                self.detach(move |connection| connection.lose(&reason.to_string()));
            }
        }
    }

    async fn carry_out(&mut self, action: Action) {
        match action {
            Action::Send(frame) => self.socket.queue(&frame),
            Action::Break { lane, reason } => {
                self.command(move |connection| connection.break_lane(lane, reason)).await;
            }
            Action::Close { lane, reason } => {
                let deadline = Instant::now() + DRAIN_LIMIT;
                self.command(move |connection| connection.give_up(lane, &reason.to_string(), deadline)).await;
            }
            Action::Install { lane, attempt } => {
                let queue_pair = self.rebuilds.take(Half { lane, attempt });
                self.command(move |connection| connection.heal(lane, queue_pair)).await;
            }
            Action::Discard { lane, attempt } => {
                let queue_pair = self.rebuilds.take(Half { lane, attempt });
                self.handle.detach(move || drop(queue_pair));
            }
            Action::Create { lane, attempt } => self.create(Half { lane, attempt }, None),
            Action::CreateConnected { lane, attempt, peer } => {
                self.create(Half { lane, attempt }, Some(peer));
            }
            Action::Connect { lane, attempt, peer } => self.connect(Half { lane, attempt }, peer),
            Action::Lose(reason) => {
                self.detach(move |connection| connection.lose(&reason.to_string()));
            }
        }
    }

    /// Runs a command of the device on a helper thread, and waits for it here.
    async fn command(&self, call: impl FnOnce(&Connection) + Send + 'static) {
        let connection = Weak::clone(&self.connection);
        let call = move || {
            if let Some(connection) = connection.upgrade() {
                call(&connection);
            }
        };
        self.handle.blocking(call).await;
    }

    /// The same without waiting, whatever becomes of the task.
    fn detach(&self, call: impl FnOnce(&Connection) + Send + 'static) {
        let connection = Weak::clone(&self.connection);
        self.handle.detach(move || {
            if let Some(connection) = connection.upgrade() {
                call(&connection);
            }
        });
    }

    /// Creates a queue pair, and connects it if the peer's is known already.
    fn create(&mut self, half: Half, peer: Option<LaneRecord>) {
        let (connection, handle) = (Weak::clone(&self.connection), self.handle.clone());
        let report = self.report();
        let rebuilds = Arc::clone(&self.rebuilds);
        self.commands.push_back(self.handle.spawn(async move {
            let result = create(connection, half, peer, &handle).await;
            let result = result.map(|(queue_pair, record)| {
                rebuilds.put(half, queue_pair);
                record
            });
            report(Ended::Created { half, result });
        }));
    }

    /// Connects a queue pair that was created before.
    fn connect(&mut self, half: Half, peer: LaneRecord) {
        let Some(queue_pair) = self.rebuilds.take(half) else { return };
        let (connection, handle) = (Weak::clone(&self.connection), self.handle.clone());
        let report = self.report();
        let rebuilds = Arc::clone(&self.rebuilds);
        self.commands.push_back(self.handle.spawn(async move {
            let result = connect(connection, queue_pair, peer, &handle).await;
            let result = result.map(|queue_pair| rebuilds.put(half, queue_pair));
            report(Ended::Connected { half, result });
        }));
    }

    fn report(&self) -> impl FnOnce(Ended) + 'static {
        let (ended, wakeup) = (Arc::clone(&self.ended), Arc::clone(&self.wakeup));
        move |what| {
            lock(&ended).push(what);
            wakeup.wake();
        }
    }
}

/// Passes on what the peer has said, up to the limit of a turn; true if there may be more.
fn hear(socket: &Channel, machine: &mut Machine) -> bool {
    for _ in 0..FRAMES_PER_TURN {
        match socket.try_read() {
            Ok(Heard::Frame(frame)) => machine.frame(frame, Instant::now()),
            Ok(Heard::Unknown) => {}
            Ok(Heard::Nothing) => return false,
            Err(error) => machine.channel_lost(&error),
        }
        if machine.is_over() {
            return false;
        }
    }
    true
}

async fn create(
    connection: Weak<Connection>,
    half: Half,
    peer: Option<LaneRecord>,
    handle: &Handle,
) -> Result<(Box<dyn QueuePair>, LaneRecord), String> {
    let owner = Weak::clone(&connection);
    let create = move || -> Result<_, String> {
        owner.upgrade().ok_or_else(gone)?.fresh_queue_pair(half.lane).map_err(|error| error.to_string())
    };
    let (queue_pair, record) = handle.blocking(create).await?;
    let queue_pair = match peer {
        Some(peer) => connect(connection, queue_pair, peer, handle).await?,
        None => queue_pair,
    };
    Ok((queue_pair, record))
}

async fn connect(
    connection: Weak<Connection>,
    queue_pair: Box<dyn QueuePair>,
    peer: LaneRecord,
    handle: &Handle,
) -> Result<Box<dyn QueuePair>, String> {
    let deadline = Instant::now() + STEP_LIMIT;
    let options = with_upgraded(handle, &connection, |connection| connection.path_options(deadline));
    let options = options.ok_or_else(gone)?;
    let waiter = Waiter::on_loop(handle);
    connect_lane(queue_pair, &peer.address, &options, &waiter).await.map_err(|error| error.to_string())
}

fn gone() -> String {
    "the connection has ended".to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::*;
    use crate::control::ChannelFrame;
    use crate::control::channel_tests::{pair, soon};

    /// Also with frames of a kind that a later version may know.
    #[test]
    fn a_peer_that_sends_without_end_has_its_share_of_a_turn() {
        let mut unknown = ChannelFrame::Pong(0).encode();
        unknown[6] = 99;
        for frame in [ChannelFrame::Pong(0).encode(), unknown] {
            let (channel, peer) = pair();
            let mut machine = Machine::new(Role { leads: true, heals: true }, 1);
            peer.write_all_by(&frame.repeat(3 * FRAMES_PER_TURN), soon()).unwrap();
            peer.write_all_by(&ChannelFrame::Goodbye.encode(), soon()).unwrap();
            let mut full_turns = 0;
            let deadline = soon();
            while !machine.is_over() {
                assert!(Instant::now() < deadline, "the goodbye was not read");
                full_turns += usize::from(hear(&channel, &mut machine));
            }
            // Turns that find nothing may come between, when not all has arrived yet.
            assert!(full_turns >= 3, "{full_turns}");
        }
    }
}
