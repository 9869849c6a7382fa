//! Changes in etcd, as a thread reads them from a streamed answer.
//!
//! The thread lists the names, tells how that differs from what it told before, and streams what follows. A stream that is silent
//! is opened anew after a few seconds, from where it ended: a server that is gone is found out so. When etcd has forgotten that
//! place, the thread lists again.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::fork::OfProcess;
use serde_json::json;

use super::answer::{Event, Line, Watched, parse};
use super::auth::code_in;
use super::client::Stream;
use super::store::Store;
use super::wait::Bell;
use super::watch_line::{LONGEST, Lines, NoLine};
use crate::static_list::{Names, differences};
use crate::watch::Changes;
use crate::{Change, Error, Watch};

/// Starts a watch of the names that begin with `prefix`.
pub(super) fn start(store: Arc<Store>, prefix: &str) -> Result<Watch, Error> {
    let (sender, receiver) = sync_channel(WAITING_CHANGES);
    let bell = Arc::new(Bell::default());
    let mut watching =
        Watching { store, prefix: prefix.to_owned(), told: Names::new(), sender, bell: Arc::clone(&bell) };
    let started = thread::Builder::new().name("fp2p-watch".to_owned()).spawn(move || watching.run());
    started.map_err(|error| Error::System {
        operation: "start the thread of a watch",
        reason: error.to_string(),
    })?;
    Ok(Watch::new(Box::new(OfProcess::new(Told { receiver, bell }))))
}

/// The end at which changes are taken.
#[derive(Debug)]
struct Told {
    receiver: Receiver<Result<Change, Error>>,
    bell: Arc<Bell>,
}

impl Changes for OfProcess<Told> {
    fn next(&mut self, timeout: Duration) -> Result<Option<Change>, Error> {
        match Self::here(self)?.receiver.recv_timeout(timeout) {
            Ok(change) => change.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Error::System {
                operation: "watch names",
                reason: "internal error: the thread of the watch has ended".to_owned(),
            }),
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.bell.stop();
    }
}

/// The thread.
struct Watching {
    store: Arc<Store>,
    prefix: String,
    /// What the other end knows, or will when it has taken all.
    told: Names,
    sender: SyncSender<Result<Change, Error>>,
    bell: Arc<Bell>,
}

/// Nothing takes changes any more.
struct Over;

/// How a stream went on.
enum Next {
    /// From this revision.
    From(i64),
    /// From there, after a pause: it failed.
    Later(i64),
    /// By a list: the server has forgotten the place.
    List,
}

impl Watching {
    fn run(&mut self) {
        let mut next = Next::List;
        loop {
            let pause = match next {
                Next::From(_) => Duration::ZERO,
                Next::Later(_) => PAUSE,
                Next::List => Duration::ZERO,
            };
            if self.bell.wait(pause) {
                return;
            }
            let went_on = match next {
                Next::From(revision) | Next::Later(revision) => self.stream(revision),
                Next::List => self.list(),
            };
            match went_on {
                Ok(went_on) => next = went_on,
                Err(Over) => return,
            }
        }
    }

    fn list(&mut self) -> Result<Next, Over> {
        match self.store.list(&self.prefix, Instant::now() + LIST_LIMIT) {
            Ok(listed) => {
                for change in differences(&self.told, &listed.names) {
                    self.tell(Ok(change))?;
                }
                self.told = listed.names;
                Ok(Next::From(listed.revision.saturating_add(1)))
            }
            Err(error) => {
                self.failed(error)?;
                Ok(Next::List)
            }
        }
    }

    fn stream(&mut self, revision: i64) -> Result<Next, Over> {
        let (key, range_end) = self.store.keys().range(&self.prefix);
        let body = json!({ "create_request": {
            "key": key, "range_end": range_end, "start_revision": revision.to_string(),
            // What is missed while no stream is open may be much: in lines of 2 MiB, not in one.
            "fragment": true,
        }});
        let bell = Arc::clone(&self.bell);
        match self.store.client().stream(OPERATION, "watch", &body, SILENCE, &|| bell.is_stopped()) {
            Ok(Ok(mut stream)) => {
                let mut revision = revision;
                self.read(&mut stream, &mut revision)
            }
            Ok(Err(reason)) => {
                tracing::debug!(reason, "a watch could not be opened; trying again");
                Ok(Next::Later(revision))
            }
            Err(error) => {
                self.failed(error)?;
                Ok(Next::Later(revision))
            }
        }
    }

    fn read(&mut self, stream: &mut Stream, revision: &mut i64) -> Result<Next, Over> {
        let body = std::mem::replace(&mut stream.body, Box::new(std::io::empty()));
        let mut lines = Lines::new(body);
        let (opened, bell) = (Instant::now(), Arc::clone(&self.bell));
        loop {
            let line = match lines.next(&|| bell.is_stopped()) {
                Ok(Some(line)) => line,
                Err(NoLine::Over) => return Err(Over),
                // As a rule the silence that ends a stream.
                Err(NoLine::Silent) if opened.elapsed() >= SILENCE => return Ok(Next::From(*revision)),
                Ok(None) | Err(NoLine::Silent | NoLine::Broken) => {
                    self.store.client().gave_up(stream);
                    return Ok(Next::Later(*revision));
                }
                Err(NoLine::TooLong) => {
                    self.failed(Error::TooLong {
                        operation: OPERATION.to_owned(),
                        endpoint: stream.endpoint.clone(),
                        limit: LONGEST as u64,
                    })?;
                    // From this revision on the same line would come again.
                    return Ok(Next::List);
                }
            };
            match parse::<Line<Watched>>(&line) {
                Ok(Line { error: Some(problem), .. }) => {
                    return self.ended(stream, problem.grpc_code, &problem.message, *revision);
                }
                Ok(Line { result: Some(watched), .. }) if watched.compact_revision > 0 => {
                    return Ok(Next::List);
                }
                Ok(Line { result: Some(watched), .. }) if watched.canceled => {
                    let code = code_in(&watched.cancel_reason);
                    return self.ended(stream, code, &watched.cancel_reason, *revision);
                }
                Ok(Line { result: Some(watched), .. }) => {
                    for event in &watched.events {
                        self.apply(event)?;
                    }
                    *revision = following(*revision, &watched);
                }
                Ok(Line { .. }) => {}
                Err(problem) => {
                    self.failed(Error::Answer {
                        operation: OPERATION.to_owned(),
                        endpoint: stream.endpoint.clone(),
                        problem,
                    })?;
                    return Ok(Next::Later(*revision));
                }
            }
        }
    }

    fn ended(&mut self, stream: &Stream, code: u32, message: &str, revision: i64) -> Result<Next, Over> {
        match self.store.client().ended(stream, OPERATION, code, message) {
            Some(error) => self.failed(error)?,
            None => tracing::debug!(message, "a watch was ended by the server; trying again"),
        }
        Ok(Next::Later(revision))
    }

    fn apply(&mut self, event: &Event) -> Result<(), Over> {
        let published = (event.kind != "DELETE").then(|| self.store.read(&event.kv)).flatten();
        if let Some((name, record)) = published {
            if self.told.get(&name) == Some(&record) {
                return Ok(());
            }
            self.told.insert(name.clone(), record.clone());
            return self.tell(Ok(Change::Published(name, record)));
        }
        // Withdrawn, or something that is no record took its place.
        match self.store.keys().name(&event.kv.key) {
            Some(name) if self.told.remove(&name).is_some() => self.tell(Ok(Change::Withdrawn(name))),
            _ => Ok(()),
        }
    }

    /// Tells an error of more than one server's absence, and waits a little.
    fn failed(&self, error: Error) -> Result<(), Over> {
        let pause = match error {
            Error::Unreachable { .. } | Error::Deadline { .. } => {
                tracing::debug!(%error, "a watch waits for etcd");
                PAUSE
            }
            error => {
                self.tell(Err(error))?;
                PAUSE_AFTER_ERROR
            }
        };
        if self.bell.wait(pause) { Err(Over) } else { Ok(()) }
    }

    fn tell(&self, change: Result<Change, Error>) -> Result<(), Over> {
        self.sender.send(change).map_err(|_| Over)
    }
}

/// Where a stream goes on after these events. Not after the revision in the answer's header: of a stream that catches up this is
/// the current one, while events before it are still to come. After a part of an answer, from its last revision on: more of that may
/// follow, and what was told already is no change.
fn following(revision: i64, watched: &Watched) -> i64 {
    let last = watched.events.iter().map(|event| event.kv.mod_revision).max();
    let after = i64::from(!watched.fragment);
    last.map_or(revision, |last| last.saturating_add(after).max(revision))
}

const OPERATION: &str = "watch names";

/// After this without a byte a stream is opened anew, and a watch that was dropped ends: at the next byte, where any come.
const SILENCE: Duration = Duration::from_secs(5);

/// Of one try to list.
const LIST_LIMIT: Duration = Duration::from_secs(10);

/// Before the next try after a failure.
const PAUSE: Duration = Duration::from_millis(250);

/// After an error that was told, as of a wrong password: it may be put right.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// Changes that wait to be taken; then the thread waits.
const WAITING_CHANGES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::answer::Stored;

    fn watched(fragment: bool, revisions: &[i64]) -> Watched {
        let event = |&mod_revision: &i64| Event {
            kv: Stored { mod_revision, ..Stored::default() },
            ..Event::default()
        };
        Watched { fragment, events: revisions.iter().map(event).collect(), ..Watched::default() }
    }

    #[test]
    fn a_stream_goes_on_after_its_last_event_and_never_further_back() {
        for (fragment, revisions, expected) in [
            (false, &[][..], 5),
            (false, &[7, 9], 10),
            (false, &[3], 5),
            (false, &[i64::MAX], i64::MAX),
            (false, &[i64::MIN], 5),
            (true, &[7, 9], 9),
            (true, &[3], 5),
        ] {
            assert_eq!(following(5, &watched(fragment, revisions)), expected, "{fragment} {revisions:?}");
        }
    }
}
