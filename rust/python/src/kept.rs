//! What keeps registered memory alive.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;

/// The owners of registered memory, by registration. An owner is dropped when nothing touches its memory any more.
///
/// Its lock is held with the interpreter's lock, and never while an owner is dropped: that may run any code.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<Owners>);

#[derive(Debug, Default)]
struct Owners {
    last: u64,
    owners: HashMap<u64, Owner>,
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
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.last += 1;
        let key = all.last;
        all.owners.insert(key, owner);
        Key(key)
    }

    /// Gives an owner up.
    pub(crate) fn release(&self, key: Key) {
        let owner = self.0.lock().unwrap_or_else(PoisonError::into_inner).owners.remove(&key.0);
        drop(owner);
    }

    /// Gives all up: the engine is closed.
    pub(crate) fn release_all(&self) {
        let owners = std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).owners);
        drop(owners);
    }
}
