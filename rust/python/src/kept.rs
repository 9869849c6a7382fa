//! What keeps registered memory alive, and frees allocated memory.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use flagcx_p2p::internals::engine::free_kept;
use flagcx_p2p::{Engine as CoreEngine, RegionId};
use pyo3::prelude::*;

/// What an engine keeps for its registrations.
///
/// No lock of it is held while an owner is dropped: that may run any code.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Locked with the interpreter's lock held, and for moments: a forked child, in which owners are dropped too, finds it unlocked.
    owners: Mutex<Owners>,
    unfreed: Mutex<Unfreed>,
}

/// Allocated memory to which no Python object refers any more, and in which there are registrations.
#[derive(Debug, Default)]
struct Unfreed {
    addresses: Vec<u64>,
    /// How often it was looked for what can be freed.
    looks: u64,
}

impl Unfreed {
    fn take(&mut self) -> Vec<u64> {
        self.looks += 1;
        std::mem::take(&mut self.addresses)
    }
}

/// The owners of registered memory, by registration. An owner is dropped when nothing touches its memory any more.
#[derive(Debug, Default)]
struct Owners {
    last: u64,
    owners: HashMap<u64, Owner>,
    /// Of registrations that have ended while their region goes on: it has another owner, or something still touches it.
    ended: HashMap<RegionId, Vec<Owner>>,
}

/// A Python object, or what else owns the memory.
pub(crate) type Owner = Box<dyn Keeps>;

/// Keeps memory alive while it is there.
pub(crate) trait Keeps: std::fmt::Debug + Send {}

impl Keeps for Py<PyAny> {}
impl Keeps for pyo3::buffer::PyUntypedBuffer {}

/// Names an owner in [`Kept`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u64);

impl Kept {
    /// Keeps an owner until it is released.
    pub(crate) fn keep(&self, owner: Owner) -> Key {
        let mut all = lock(&self.owners);
        all.last += 1;
        let key = all.last;
        all.owners.insert(key, owner);
        Key(key)
    }

    /// Gives an owner up that was kept for nothing.
    pub(crate) fn release(&self, key: Key) {
        let owner = lock(&self.owners).owners.remove(&key.0);
        drop(owner);
    }

    /// Gives the owner of an ended registration up. Unless nothing touches the region any more (`over`) that waits for the
    /// last registration of the same region, at most for the end of the engine.
    pub(crate) fn end(&self, key: Option<Key>, region: RegionId, over: bool) {
        let mut all = lock(&self.owners);
        let owner = key.and_then(|key| all.owners.remove(&key.0));
        let unused = if over {
            all.ended.remove(&region).into_iter().flatten().chain(owner).collect()
        } else {
            all.ended.entry(region).or_default().extend(owner);
            Vec::new()
        };
        drop(all);
        drop(unused);
    }

    /// Frees memory that the engine has allocated: now, or with the last registration in it that the program has made.
    pub(crate) fn free(&self, core: &CoreEngine, address: u64) {
        loop {
            let looks = lock(&self.unfreed).looks;
            if core.free(address).is_ok() || free_kept(address).is_ok() {
                return;
            }
            let mut unfreed = lock(&self.unfreed);
            // The registration that ended meanwhile may have been the last, and has not found this address.
            if unfreed.looks == looks {
                return unfreed.addresses.push(address);
            }
        }
    }

    /// Frees what could not be freed before: a registration has ended.
    pub(crate) fn free_unused(&self, core: &CoreEngine) {
        let unfreed = lock(&self.unfreed).take();
        for address in unfreed {
            self.free(core, address);
        }
    }

    /// Gives all up: the engine is closed.
    pub(crate) fn release_all(&self) {
        let mut all = lock(&self.owners);
        let owners = (std::mem::take(&mut all.owners), std::mem::take(&mut all.ended));
        drop(all);
        drop(owners);
        let unfreed = lock(&self.unfreed).take();
        for address in unfreed {
            // Refused of what is free already.
            let _ = free_kept(address);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
