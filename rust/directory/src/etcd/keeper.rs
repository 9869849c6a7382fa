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
    granting: Mutex<()>,
    bell: Arc<Bell>,
}

#[derive(Debug, Default)]
struct State {
    /// 0 without one.
    lease: i64,
    /// When it has run out, unless a server says otherwise.
    good_until: Option<Instant>,
    names: HashMap<Name, Entry>,
    /// Names that could not be withdrawn, and that the lease may still hold.
    leftover: HashSet<Name>,
    /// When a withdrawal has failed for want of a server.
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
}

const HELD: u8 = 0;
/// Its lease ran out.
const RUN_OUT: u8 = 1;
/// Another engine has it, for good.
const TAKEN: u8 = 2;

impl Keeper {
    pub(super) fn new(store: Arc<Store>, ttl: Duration) -> Self {
        Self { store, ttl, state: Mutex::default(), granting: Mutex::default(), bell: Arc::default() }
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
        let mut condition = If::Free;
        while left(deadline).is_some() {
            let lease = self.lease(deadline)?;
            match self.store.put(name, &entry.text, lease, condition, deadline)? {
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
        Err(Error::Deadline {
            operation: format!("publish {:?}", name.as_str()),
            time: begun.elapsed(),
            reason: "the name changed at each try".to_owned(),
        })
    }

    /// Withdraws a name that was published with `place`. What fails is tried again by the thread.
    pub(super) fn withdraw(&self, name: &Name, place: &Arc<Place>, deadline: Instant) -> Result<(), Error> {
        let mut state = self.state();
        let is_ours = state.names.get(name).is_some_and(|entry| Arc::ptr_eq(&entry.place, place));
        if !is_ours {
            return Ok(());
        }
        state.names.remove(name);
        let lease = state.lease;
        drop(state);
        if lease == 0 || place.is_taken() {
            return Ok(());
        }
        let removed = self.store.remove(name, lease, deadline);
        if removed.is_err() {
            let mut state = self.state();
            state.leftover.insert(name.clone());
            state.unanswered = Some(Instant::now());
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
        let _granting = self.granting.lock().unwrap_or_else(PoisonError::into_inner);
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
            Ok(()) => {
                if std::mem::take(&mut self.state().fails) {
                    tracing::info!("the lease of the published names is prolonged again");
                }
                interval
            }
            Err(error) => {
                self.note_failure(&error);
                RETRY.min(interval)
            }
        }
    }

    fn prolong(&self, deadline: Instant, verifies: bool) -> Result<(), Error> {
        let lease = self.state().lease;
        let asked = Instant::now();
        if lease == 0 || !self.store.keep_alive(lease, deadline)? {
            if lease != 0 {
                tracing::warn!(
                    "the lease of the published names has run out at etcd: they are published again"
                );
            }
            self.forget(lease);
            self.state().leftover.clear();
            return self.publish_again(self.entries(), None, Instant::now() + self.ttl);
        }
        self.state().good_until = Some(asked + self.ttl);
        self.remove_leftovers(lease, deadline)?;
        if verifies || self.some_run_out() {
            // A name that is published from now on is not looked for.
            let entries = self.entries();
            let held = self.store.names_of(lease, deadline)?;
            return self.publish_again(entries, held, Instant::now() + self.ttl);
        }
        Ok(())
    }

    fn remove_leftovers(&self, lease: i64, deadline: Instant) -> Result<(), Error> {
        let leftover: Vec<_> = self.state().leftover.iter().cloned().collect();
        for name in leftover {
            self.store.remove(&name, lease, deadline)?;
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

    /// Publishes again what is not in `held`, the names that the lease has.
    fn publish_again(
        &self,
        entries: Vec<(Name, Entry)>,
        held: Option<Vec<Name>>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let held: HashSet<_> = held.into_iter().flatten().collect();
        for (name, entry) in entries.into_iter().filter(|(_, entry)| !entry.place.is_taken()) {
            if held.contains(&name) {
                entry.place.set(HELD);
            } else {
                self.publish_one_again(&name, &entry, deadline)?;
            }
        }
        Ok(())
    }

    fn publish_one_again(&self, name: &Name, entry: &Entry, deadline: Instant) -> Result<(), Error> {
        entry.place.set(RUN_OUT);
        let mut condition = If::Free;
        while left(deadline).is_some() && self.has(name, &entry.place) {
            let lease = self.lease(deadline)?;
            match self.store.put(name, &entry.text, lease, condition, deadline)? {
                Put::Done => {
                    entry.place.set(HELD);
                    tracing::warn!(%name, address = entry.record.address, "published again: the name was gone from the directory");
                    if !self.has(name, &entry.place) {
                        // Withdrawn meanwhile.
                        return self.store.remove(name, lease, deadline);
                    }
                    return Ok(());
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
                        return Ok(());
                    }
                },
                Put::NoLease => self.forget(lease),
            }
        }
        Ok(())
    }

    fn has(&self, name: &Name, place: &Arc<Place>) -> bool {
        self.state().names.get(name).is_some_and(|entry| Arc::ptr_eq(&entry.place, place))
    }

    fn note_failure(&self, error: &Error) {
        let mut state = self.state();
        let is_first = !std::mem::replace(&mut state.fails, true);
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
        if lease != 0
            && let Err(error) = self.store.revoke(lease, Instant::now() + REVOKE_LIMIT)
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

/// How often a lease is prolonged within its time: two of three may fail.
const TURNS: u32 = 3;

/// Until the next try after a failed one.
const RETRY: Duration = Duration::from_millis(500);

/// Of one request: several fit into the time of a lease.
const LONGEST_TRY: Duration = Duration::from_secs(3);

/// A drop of a name waits so long for the servers.
const WITHDRAW_LIMIT: Duration = Duration::from_secs(2);

/// The end of a directory waits so long for the servers.
const REVOKE_LIMIT: Duration = Duration::from_secs(2);
