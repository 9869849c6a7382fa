//! Trials of paths, as part of the task of a connection: their queue pairs are created by helpers, and polled by tasks of their own.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::super::rebuilds::{Rebuilds, TrialId};
use super::super::{Action, STEP_LIMIT};
use super::{CommandResult, Driver};
use crate::connection::Connection;
use crate::connection::path_trial::PathTrial;
use crate::control::RailRefusal;
use crate::control::wire::LaneRecord;
use crate::events::{EventLoopHandle, with_upgraded};
use crate::fabric::PathOptions;

/// How long the leader's request may take, once the queue pairs are connected.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Interval at which the queue of a trial is polled: first, and later.
const FIRST_LOOK: Duration = Duration::from_micros(100);
const LAST_LOOK: Duration = Duration::from_millis(4);

/// What the steps of a trial need.
struct Steps {
    connection: Weak<Connection>,
    rebuilds: Arc<Rebuilds>,
    handle: EventLoopHandle,
    id: TrialId,
}

impl Driver {
    /// Carries out an action of a trial or its consequence, and none of anything else.
    pub(super) async fn carry_out_trial(&self, action: Action) {
        match action {
            Action::CreateTrial { rail, number, nic } => self.create_trial(TrialId { rail, number }, nic),
            Action::AnswerTrial { rail, number, nic, peer } => {
                self.answer_trial(TrialId { rail, number }, nic, peer);
            }
            Action::WriteTrial { rail, number, peer } => self.write_trial(TrialId { rail, number }, peer),
            Action::EndTrial { rail, number } => {
                let rebuilds = Arc::clone(&self.rebuilds);
                self.handle.detach(move || drop(rebuilds.take_trial(TrialId { rail, number })));
            }
            Action::PathRefused { rail, reason } => {
                self.command(move |connection| connection.path_refused(rail, &reason)).await;
            }
            Action::RailUnconnected { rail, reason } => {
                self.command(move |connection| connection.rail_unconnected(rail, &reason)).await;
            }
            Action::RequestRefused { own, peer, why } => {
                self.command(move |connection| connection.request_refused(own, peer, why)).await;
            }
            _ => {}
        }
    }

    /// Reports what has come of a step of a trial, and nothing else.
    pub(super) fn report_trial(&mut self, ended: CommandResult, now: Instant) {
        match ended {
            CommandResult::TrialCreated { id, result } => {
                self.machine.trial_created(id.rail, id.number, result, now)
            }
            CommandResult::TrialWritten { id, result } => {
                self.machine.trial_written(id.rail, id.number, result)
            }
            _ => {}
        }
    }

    /// Leader: creates the queue pair of a trial.
    fn create_trial(&self, id: TrialId, nic: u16) {
        let (steps, report) = (self.steps(id), self.report());
        self.rebuilds.add_command(self.handle.spawn(async move {
            let result = steps.create(nic).await.map_err(Some).map(|(trial, record)| {
                steps.put(trial);
                record
            });
            report(CommandResult::TrialCreated { id, result });
        }));
    }

    /// Follower: creates the queue pair of a trial and connects it to the leader's. Then its device works for as long as it is there.
    fn answer_trial(&self, id: TrialId, nic: u16, peer: LaneRecord) {
        let (steps, report) = (self.steps(id), self.report());
        self.rebuilds.add_command(self.handle.spawn(async move {
            let (trial, record) = match steps.create(nic).await {
                Ok(created) => created,
                Err(why) => return report(CommandResult::TrialCreated { id, result: Err(Some(why)) }),
            };
            let connected = steps.connect(trial, peer).await;
            let result = connected.map(|trial| steps.put(trial)).map(|()| record);
            if let Err(error) = &result {
                tracing::debug!(nic, rail = id.rail, "a path that the peer tries does not connect: {error}");
            }
            report(CommandResult::TrialCreated { id, result: result.map_err(|_| None) });
            let (mut look, until) = (FIRST_LOOK, Instant::now() + 2 * STEP_LIMIT);
            while Instant::now() < until && steps.rebuilds.advance_trial(id) {
                steps.handle.sleep(look).await;
                look = (look * 2).min(LAST_LOOK);
            }
        }));
    }

    /// Leader: connects the queue pair of a trial, and waits for the end of one request on it.
    fn write_trial(&self, id: TrialId, peer: LaneRecord) {
        let Some(trial) = self.rebuilds.take_trial(id) else { return };
        let (steps, report) = (self.steps(id), self.report());
        self.rebuilds.add_command(self.handle.spawn(async move {
            let result = match steps.connect(trial, peer).await {
                Ok(trial) => steps.write(trial).await,
                Err(error) => Err(error),
            };
            report(CommandResult::TrialWritten { id, result });
        }));
    }

    fn steps(&self, id: TrialId) -> Steps {
        Steps {
            connection: Weak::clone(&self.connection),
            rebuilds: Arc::clone(&self.rebuilds),
            handle: self.handle.clone(),
            id,
        }
    }
}

impl Steps {
    async fn create(&self, nic: u16) -> Result<(PathTrial, LaneRecord), RailRefusal> {
        let (connection, rail) = (Weak::clone(&self.connection), self.id.rail);
        let create = move || {
            let connection = connection.upgrade().ok_or(RailRefusal::Unusable)?;
            connection.create_trial(rail, nic)
        };
        // A device may have to be opened.
        self.handle.blocking_long(create).await
    }

    async fn connect(&self, trial: PathTrial, peer: LaneRecord) -> Result<PathTrial, String> {
        let deadline = Instant::now() + STEP_LIMIT / 2;
        let options = with_upgraded(&self.handle, &self.connection, |connection| {
            connection.trial_options(&trial, deadline)
        });
        let options: PathOptions = options.ok_or_else(|| "the connection has ended".to_owned())?;
        trial.connect(&peer.address, options, &self.handle).await
    }

    /// Stores the queue pair of the trial; one that comes too late is destroyed by a helper.
    fn put(&self, trial: PathTrial) {
        if let Some(late) = self.rebuilds.put_trial(self.id, trial) {
            self.handle.detach(move || drop(late));
        }
    }

    /// The queue pair is kept for the end of the trial, also when this task is stopped.
    async fn write(&self, trial: PathTrial) -> Result<(), String> {
        let put = |trial| self.put(trial);
        let mut trial = scopeguard::guard(trial, put);
        trial.post()?;
        let (mut look, until) = (FIRST_LOOK, Instant::now() + ANSWER_LIMIT);
        loop {
            if let Some(ended) = trial.ended() {
                return ended;
            }
            if Instant::now() >= until {
                let limit = ANSWER_LIMIT.as_secs();
                return Err(format!("a request of no bytes was not answered in {limit} s"));
            }
            self.handle.sleep(look).await;
            look = (look * 2).min(LAST_LOOK);
        }
    }
}
