//! The state of a handle, bound to the process that made it.
#![allow(unsafe_code, reason = "drops by hand, in the owning process only")]

use std::mem::ManuallyDrop;
use std::ops::Deref;

use super::ProcessGeneration;

/// A handle was used in a forked child of the process that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process was forked from process {pid}, which made this handle and alone can use it: create an engine in this \
     process"
)]
pub struct Forked {
    /// The process that made it.
    pub pid: u32,
}

/// A value bound to the process that made it. In a forked child [`OfProcess::here`] fails and drop does nothing: its
/// locks may be held there for ever, and its sockets, threads and shared memory are the parent's.
#[derive(Debug)]
pub struct OfProcess<T> {
    value: ManuallyDrop<T>,
    generation: ProcessGeneration,
    pid: u32,
}

impl<T> OfProcess<T> {
    /// A value of this process.
    pub fn new(value: T) -> Self {
        Self {
            value: ManuallyDrop::new(value),
            generation: ProcessGeneration::current(),
            pid: std::process::id(),
        }
    }

    /// Whether this is the process that made it.
    #[inline(always)]
    pub fn is_here(this: &Self) -> bool {
        this.generation.is_current()
    }

    /// The value, in the process that made it; an error in a forked child.
    #[inline]
    pub fn here(this: &Self) -> Result<&T, Forked> {
        if Self::is_here(this) { Ok(&this.value) } else { Err(Forked { pid: this.pid }) }
    }

    /// Converts the value; the process stays.
    pub(super) fn map<U>(self, into: fn(T) -> U) -> OfProcess<U> {
        let (generation, pid) = (self.generation, self.pid);
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, so nothing else takes or drops the value.
        let value = unsafe { ManuallyDrop::take(&mut this.value) };
        OfProcess { value: ManuallyDrop::new(into(value)), generation, pid }
    }

    /// Takes the value out; `None` in a child, where it is never dropped.
    pub fn into_inner(mut this: Self) -> Option<T> {
        let is_here = Self::is_here(&this);
        // SAFETY: `this` is not dropped, so nothing else takes or drops the value.
        let value = is_here.then(|| unsafe { ManuallyDrop::take(&mut this.value) });
        std::mem::forget(this);
        value
    }
}

/// A read in a child sees the value as it was at the fork.
impl<T> Deref for OfProcess<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Drop for OfProcess<T> {
    fn drop(&mut self) {
        if Self::is_here(self) {
            // SAFETY: nothing uses the value after this.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}
