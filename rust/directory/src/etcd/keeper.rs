//! The lease that holds all names of a directory.
//!
//! One thread prolongs it, three times within its time. A lease that has run out is replaced, and the names are published again,
//! if nothing else has taken them meanwhile. Once within its time the thread also asks which names the lease still has: a name
//! that was taken over, or removed by hand, is found out so.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::fork::OfProcess;

use super::busy::Busy;
use super::store::{If, Put, Store};
use super::takeover::may_take_over;
use super::wait::Bell;
use crate::deadline::{left, within};
use crate::{Error, Name, Record};

/// Holds the published names of a directory.
#[derive(Debug)]
pub(super) struct Keeper {
    store: Arc<Store>,
    ttl: Duration,
    state: Mutex<State>,
    /// Taken by the thread that gets a lease.
    granting: Busy<()>,
    /// Names that a thread publishes or withdraws: a name is written and noted in `state` by one thread at a time.
    in_work: Busy<Name>,
    bell: Arc<Bell>,
}

#[derive(Debug, Default)]
struct State {
    /// 0 without one.
    lease: i64,
    /// When it has run out, unless a server says otherwise.
    good_until: Option<Instant>,
    names: HashMap<Name, Entry>,
    /// Names that could not be withdrawn, and that the lease may still hold. Not removed while `names` has them.
    leftover: HashSet<Name>,
    /// When servers have last not answered, unless they have since.
    unanswered: Option<Instant>,
    has_thread: bool,
    /// Whether the last try to prolong the lease has failed.
    fails: bool,
}

#[derive(Clone, Debug)]
struct Entry {
    record: Record,
    text: String,
    place: Arc<Place>,
}

/// Whether a published name is still there. Written by the keeper's thread, and by one that publishes; read by all. Relaxed: it
/// guards nothing.
#[derive(Debug, Default)]
pub(super) struct Place(AtomicU8);

impl Place {
    /// See [`crate::Lease::lost`].
    pub(super) fn is_lost(&self) -> bool {
        self.0.load(Ordering::Relaxed) != HELD
    }

    fn is_taken(&self) -> bool {
        self.0.load(Ordering::Relaxed) == TAKEN
    }

    fn set(&self, state: u8) {
        self.0.store(state, Ordering::Relaxed);
    }

    /// Another thread may publish the name anew meanwhile, which ends this place for good.
    fn set_unless_taken(&self, state: u8) {
        let _ =
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now != TAKEN).then_some(state));
    }
}

const HELD: u8 = 0;
/// Its lease ran out.
const RUN_OUT: u8 = 1;
/// Another engine has it, for good.
const TAKEN: u8 = 2;

impl Keeper {
    pub(super) fn new(store: Arc<Store>, ttl: Duration) -> Self {
        Self {
            store,
            ttl,
            state: Mutex::default(),
            granting: Busy::default(),
            in_work: Busy::default(),
            bell: Arc::default(),
        }
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Publishes a name and keeps it from then on.
    pub(super) fn publish(
        &self,
        name: &Name,
        record: &Record,
        deadline: Instant,
    ) -> Result<Arc<Place>, Error> {
        let begun = Instant::now();
        let entry = Entry { record: record.clone(), text: record.encode(name)?, place: Arc::default() };
        let late = |reason: &str| Error::Deadline {
            operation: format!("publish {:?}", name.as_str()),
            time: begun.elapsed(),
            reason: reason.to_owned(),
        };
        let _working = self.in_work.take(name, deadline).ok_or_else(|| late(BUSY))?;
        let mut condition = If::Free;
        while left(deadline).is_some() {
            let lease = self.lease(deadline)?;
            let put = self.store.put(name, &entry.text, lease, condition, deadline);
            match put.inspect_err(|error| self.may_be_there(name, error))? {
                Put::Done => {
                    let mut state = self.state();
                    if state.lease == lease {
                        let place = Arc::clone(&entry.place);
                        state.leftover.remove(name);
                        if let Some(former) = state.names.insert(name.clone(), entry) {
                            former.place.set(TAKEN);
                        }
                        return Ok(place);
                    }
                    // The lease was replaced meanwhile.
                    condition = If::Free;
                }
                Put::Not(None) => condition = If::Free,
                Put::Not(Some(stored)) => {
                    let theirs = Record::decode(name.as_str(), &stored.value)?;
                    may_take_over(name, &theirs, record, deadline)?;
                    condition = If::Unchanged(stored.mod_revision);
                }
                Put::NoLease => self.forget(lease),
            }
        }
        Err(late("the name changed at each try"))
    }

    /// A request that failed may have been carried out, unless a server has said that it was not.
    fn may_be_there(&self, name: &Name, error: &Error) {
        if matches!(error, Error::Denied { .. } | Error::Refused { .. }) {
            return;
        }
        let mut state = self.state();
        if !state.names.contains_key(name) {
            state.leftover.insert(name.clone());
        }
    }

    /// Withdraws a name that was published with `place`. What fails is tried again by the thread.
    pub(super) fn withdraw(&self, name: &Name, place: &Arc<Place>, deadline: Instant) -> Result<(), Error> {
        let begun = Instant::now();
        let working = self.in_work.take(name, deadline);
        let mut state = self.state();
        let is_ours = state.names.get(name).is_some_and(|entry| Arc::ptr_eq(&entry.place, place));
        if !is_ours {
            return Ok(());
        }
        state.names.remove(name);
        if place.is_taken() {
            return Ok(());
        }
        if working.is_none() {
            // The other thread may be about to write it.
            state.leftover.insert(name.clone());
            return Err(Error::Deadline {
                operation: format!("withdraw {:?}", name.as_str()),
                time: begun.elapsed(),
                reason: BUSY.to_owned(),
            });
        }
        let lease = state.lease;
        drop(state);
        if lease == 0 {
            return Ok(());
        }
        let had_time = left(deadline).is_some();
        let removed = self.store.remove(name, lease, deadline);
        if let Err(error) = &removed {
            let mut state = self.state();
            state.leftover.insert(name.clone());
            if had_time && is_silence(error) {
                state.unanswered = Some(Instant::now());
            }
        }
        removed
    }

    /// How long a drop may wait for the servers: not again for each of many names when they are gone.
    pub(super) fn patience(&self) -> Duration {
        let recently = |since: Instant| since.elapsed() < self.ttl;
        if self.state().unanswered.is_some_and(recently) { Duration::ZERO } else { WITHDRAW_LIMIT }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lease, a new one if there is none.
    fn lease(&self, deadline: Instant) -> Result<i64, Error> {
        let begun = Instant::now();
        let _granting = self.granting.take(&(), deadline).ok_or_else(|| Error::Deadline {
            operation: "get a lease".to_owned(),
            time: begun.elapsed(),
            reason: "another thread waits for the answer of etcd".to_owned(),
        })?;
        let lease = self.state().lease;
        if lease != 0 {
            return Ok(lease);
        }
        let asked = Instant::now();
        let granted = self.store.grant(self.ttl, deadline)?;
        let mut state = self.state();
        (state.lease, state.good_until) = (granted, Some(asked + self.ttl));
        Ok(granted)
    }

    fn forget(&self, lease: i64) {
        let mut state = self.state();
        if state.lease == lease {
            state.lease = 0;
        }
    }

    /// One turn of the thread. The answer is the time until the next one.
    fn turn(&self, verifies: bool) -> Duration {
        let interval = self.ttl / TURNS;
        match self.prolong(within(Instant::now() + interval, LONGEST_TRY), verifies) {
            Ok(is_all) => {
                let mut state = self.state();
                state.unanswered = None;
                if std::mem::take(&mut state.fails) {
                    tracing::info!("the lease of the published names is prolonged again");
                }
                if is_all { interval } else { RETRY.min(interval) }
            }
            Err(error) => {
                self.note_failure(&error);
                RETRY.min(interval)
            }
        }
    }

    /// False: names are left over for the next turn.
    fn prolong(&self, deadline: Instant, verifies: bool) -> Result<bool, Error> {
        let lease = self.state().lease;
        if lease == 0 || !self.keep(lease, deadline)? {
            if lease != 0 {
                tracing::warn!(
                    "the lease of the published names has run out at etcd: they are published again"
                );
            }
            self.forget(lease);
            return self.publish_again(self.entries(), None);
        }
        self.remove_leftovers(lease, deadline)?;
        if verifies || self.some_run_out() {
            // A name that is published from now on is not looked for.
            let entries = self.entries();
            let held = self.store.names_of(lease, deadline)?;
            return self.publish_again(entries, held);
        }
        Ok(true)
    }

    /// Prolongs the lease; false when there is none of that number any more.
    fn keep(&self, lease: i64, deadline: Instant) -> Result<bool, Error> {
        let asked = Instant::now();
        let kept = self.store.keep_alive(lease, deadline)?;
        let mut state = self.state();
        if kept && state.lease == lease {
            state.good_until = Some(asked + self.ttl);
        }
        Ok(kept)
    }

    fn remove_leftovers(&self, lease: i64, deadline: Instant) -> Result<(), Error> {
        let leftover: Vec<_> = self.state().leftover.iter().cloned().collect();
        for name in leftover {
            // What another thread works on is looked at in the next turn.
            let Some(_working) = self.in_work.try_take(&name) else { continue };
            if !self.state().names.contains_key(&name) {
                match self.store.remove(&name, lease, deadline) {
                    Err(error) if is_silence(&error) => return Err(error),
                    // Asking again would answer the same, and keep the other names from being looked after.
                    Err(error) => {
                        tracing::warn!(%name, %error, "not withdrawn: the name vanishes with the lease")
                    }
                    Ok(()) => {}
                }
            }
            self.state().leftover.remove(&name);
        }
        Ok(())
    }

    fn entries(&self) -> Vec<(Name, Entry)> {
        self.state().names.iter().map(|(name, entry)| (name.clone(), entry.clone())).collect()
    }

    fn some_run_out(&self) -> bool {
        self.state().names.values().any(|entry| entry.place.is_lost() && !entry.place.is_taken())
    }

    /// Publishes again what is not in `held`, the names that the lease has. Many names may take longer than the lease lasts, so
    /// that it is prolonged between them. False, as well as an error: some are left over for the next turn.
    fn publish_again(&self, entries: Vec<(Name, Entry)>, held: Option<Vec<Name>>) -> Result<bool, Error> {
        let held: HashSet<_> = held.into_iter().flatten().collect();
        let (there, gone): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .filter(|(_, entry)| !entry.place.is_taken())
            .partition(|(name, _)| held.contains(name));
        there.iter().for_each(|(_, entry)| entry.place.set_unless_taken(HELD));
        // All before the first request: what an error leaves over is found by it.
        gone.iter().for_each(|(_, entry)| entry.place.set_unless_taken(RUN_OUT));
        let interval = self.ttl / TURNS;
        let (mut prolonged, mut is_all, mut problem) = (Instant::now(), true, None);
        for (name, entry) in &gone {
            if prolonged.elapsed() >= interval {
                prolonged = Instant::now();
                let lease = self.state().lease;
                if lease != 0 && !self.keep(lease, within(prolonged + interval, LONGEST_TRY))? {
                    self.forget(lease);
                    return Ok(false);
                }
            }
            match self.publish_one_again(name, entry, within(Instant::now() + interval, LONGEST_TRY)) {
                Ok(is_done) => is_all &= is_done,
                // The others would wait as long, one after another.
                Err(error) if is_silence(&error) => return Err(error),
                Err(error) => problem = Some(error),
            }
        }
        problem.map_or(Ok(is_all), Err)
    }

    /// False: the name is left over for the next turn.
    fn publish_one_again(&self, name: &Name, entry: &Entry, deadline: Instant) -> Result<bool, Error> {
        let Some(_working) = self.in_work.try_take(name) else { return Ok(false) };
        let mut condition = If::Free;
        while self.has(name, &entry.place) {
            if left(deadline).is_none() {
                return Ok(false);
            }
            let lease = self.lease(deadline)?;
            match self.store.put(name, &entry.text, lease, condition, deadline)? {
                Put::Done => {
                    // A withdrawal that could not wait for this has left the name to `remove_leftovers`.
                    entry.place.set(HELD);
                    tracing::warn!(%name, address = entry.record.address, "published again: the name was gone from the directory");
                    return Ok(true);
                }
                Put::Not(None) => condition = If::Free,
                Put::Not(Some(stored)) => match Record::decode(name.as_str(), &stored.value) {
                    Ok(theirs) if theirs == entry.record || theirs.is_of_the_engine_of(&entry.record) => {
                        condition = If::Unchanged(stored.mod_revision);
                    }
                    found => {
                        entry.place.set(TAKEN);
                        let by = found.map_or_else(|error| error.to_string(), |theirs| theirs.address);
                        tracing::warn!(%name, by, "lost: another engine has taken the name over");
                        return Ok(true);
                    }
                },
                Put::NoLease => self.forget(lease),
            }
        }
        Ok(true)
    }

    fn has(&self, name: &Name, place: &Arc<Place>) -> bool {
        self.state().names.get(name).is_some_and(|entry| Arc::ptr_eq(&entry.place, place))
    }

    fn note_failure(&self, error: &Error) {
        let mut state = self.state();
        let is_first = !std::mem::replace(&mut state.fails, true);
        if is_silence(error) {
            state.unanswered = Some(Instant::now());
        }
        let has_run_out = state.good_until.is_none_or(|until| Instant::now() >= until);
        let held: Vec<_> = state.names.values().filter(|entry| !entry.place.is_lost()).collect();
        if has_run_out && !held.is_empty() {
            held.iter().for_each(|entry| entry.place.set(RUN_OUT));
            tracing::warn!(
                names = held.len(),
                %error,
                "the published names have run out, because etcd has not answered for the time of their lease; they are \
                 published again when it does"
            );
        } else if is_first {
            tracing::info!(%error, "the lease of the published names could not be prolonged; trying again");
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.bell.stop();
        let lease = self.state().lease;
        // Without time where servers have just not answered.
        if lease != 0
            && let Err(error) = self.store.revoke(lease, Instant::now() + self.patience())
        {
            tracing::info!(%error, "the lease was not ended: it runs out by itself");
        }
    }
}

/// Starts the thread, unless there is one.
pub(super) fn start(keeper: &Arc<OfProcess<Keeper>>) -> Result<(), Error> {
    let mut state = keeper.state();
    if state.has_thread {
        return Ok(());
    }
    let (bell, weak, ttl) = (Arc::clone(&keeper.bell), Arc::downgrade(keeper), keeper.ttl);
    let started =
        thread::Builder::new().name("fp2p-lease".to_owned()).spawn(move || run(&weak, &bell, ttl / TURNS));
    started.map_err(|error| Error::System {
        operation: "start the thread that keeps a lease",
        reason: error.to_string(),
    })?;
    state.has_thread = true;
    Ok(())
}

fn run(keeper: &Weak<OfProcess<Keeper>>, bell: &Bell, first: Duration) {
    let mut wait = first;
    let mut verified = Instant::now();
    while !bell.wait(wait) {
        let Some(keeper) = keeper.upgrade() else { return };
        let verifies = verified.elapsed() >= keeper.ttl;
        if verifies {
            verified = Instant::now();
        }
        wait = keeper.turn(verifies);
    }
}

/// Whether no server has answered.
fn is_silence(error: &Error) -> bool {
    matches!(error, Error::Unreachable { .. } | Error::Deadline { .. })
}

/// What a call waits for when its name is in work.
const BUSY: &str = "another thread publishes or withdraws the name";

/// How often a lease is prolonged within its time: two of three may fail.
const TURNS: u32 = 3;

/// Until the next try after a failed one.
const RETRY: Duration = Duration::from_millis(500);

/// Of one request: several fit into the time of a lease.
const LONGEST_TRY: Duration = Duration::from_secs(3);

/// A drop of a name, and the end of a directory, wait so long for the servers.
const WITHDRAW_LIMIT: Duration = Duration::from_secs(2);
