//! An allocation, the registrations that use it, and its end.
#![allow(unsafe_code, reason = "unmaps memory that nothing uses any more")]

use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::AllocationError;
use super::pages::Pages;
use super::table;
use crate::fabric::SharedFile;

/// Allocated memory. It stays mapped until it has been released and no registration uses it.
#[derive(Debug)]
pub struct Allocation {
    start: NonNull<u8>,
    length: usize,
    /// Of memory that peers can map; open as long as it is mapped.
    fd: Option<RawFd>,
    state: Mutex<State>,
}

// SAFETY: the memory belongs to no thread, and this module makes no references into it.
unsafe impl Send for Allocation {}
// SAFETY: as above.
unsafe impl Sync for Allocation {}

#[derive(Debug)]
struct State {
    /// `None` once it is unmapped.
    pages: Option<Pages>,
    /// Registrations that have not ended.
    uses: usize,
    /// Its owner does not need it any more. No new uses.
    released: bool,
    /// Its owner is about to release it, and may take that back. No new uses meanwhile.
    closing: bool,
    /// Another process may be in the middle of a copy by the kernel.
    unconfirmed: bool,
}

impl Allocation {
    /// Zeroed memory that peers of this host can map, in whole pages, all of them reserved. `huge`: in huge pages of the
    /// default size. `read_only`: peers only read it.
    ///
    /// # Errors
    /// [`AllocationError`] for no bytes, more than there are, or a system call that failed.
    pub fn shared(bytes: u64, huge: bool, read_only: bool) -> Result<Arc<Self>, AllocationError> {
        Ok(Self::of(Pages::shared(bytes, huge, read_only)?))
    }

    /// Zeroed memory of this process alone, of which no page is reserved.
    ///
    /// # Errors
    /// As [`Allocation::shared`].
    pub fn anonymous(bytes: u64) -> Result<Arc<Self>, AllocationError> {
        Ok(Self::of(Pages::anonymous(bytes)?))
    }

    fn of(pages: Pages) -> Arc<Self> {
        let (start, length, fd) = (pages.start(), pages.length(), pages.fd());
        let state =
            State { pages: Some(pages), uses: 0, released: false, closing: false, unconfirmed: false };
        let made = Arc::new(Self { start, length, fd, state: Mutex::new(state) });
        table::add(&made);
        made
    }

    /// The first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The address of the first byte.
    pub fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// Bytes, in whole pages.
    pub fn length(&self) -> u64 {
        self.length as u64
    }

    /// Whether peers of this host can map it.
    pub fn is_shared(&self) -> bool {
        self.fd.is_some()
    }

    /// Its owner does not need it any more: it is unmapped as soon as no registration uses it. Idempotent.
    pub fn release(&self) {
        let mut state = self.lock();
        state.released = true;
        self.unmap_unused(state);
    }

    /// Forbids new registrations, if at most `own` are there; otherwise changes nothing and tells how many more are.
    pub fn close_unless_used(&self, own: usize) -> Result<(), usize> {
        let mut state = self.lock();
        match state.uses.checked_sub(own) {
            None | Some(0) => {
                state.closing = true;
                Ok(())
            }
            Some(more) => Err(more),
        }
    }

    /// Takes [`Allocation::close_unless_used`] back.
    pub fn reopen(&self) {
        self.lock().closing = false;
    }

    /// A registration of `address..` begins; refused once its owner frees it.
    pub(super) fn use_from(self: &Arc<Self>, address: u64) -> Result<AllocationUse, BeingFreed> {
        let mut state = self.lock();
        if state.released || state.closing {
            return Err(BeingFreed);
        }
        state.uses += 1;
        let offset = address - self.address();
        Ok(AllocationUse { allocation: Arc::clone(self), offset, ended: AtomicBool::new(false) })
    }

    fn end_use(&self, confirmed: bool) {
        let mut state = self.lock();
        state.uses -= 1;
        state.unconfirmed |= !confirmed;
        self.unmap_unused(state);
    }

    fn unmap_unused(&self, mut state: MutexGuard<'_, State>) {
        if !state.released || state.uses > 0 {
            return;
        }
        let Some(pages) = state.pages.take() else { return };
        let unconfirmed = state.unconfirmed;
        drop(state);
        // Before the addresses can be those of something else.
        table::remove(self.address());
        // SAFETY: its owner has released it, no registration uses it, and none can begin.
        unsafe { if unconfirmed { pages.empty() } else { pages.unmap() } }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The memory is about to be unmapped: it cannot be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BeingFreed;

/// Keeps an allocation mapped while a registration of it, or of a part, is there.
#[derive(Debug)]
pub(crate) struct AllocationUse {
    allocation: Arc<Allocation>,
    /// Where the registered range begins in it.
    offset: u64,
    /// Set by the one call that ends it, in whichever thread: AcqRel, what that thread did before is done when another one
    /// unmaps the memory, which the lock of the state orders as well.
    ended: AtomicBool,
}

impl AllocationUse {
    /// The file that a peer maps for the registered range.
    pub(crate) fn file(&self) -> Option<SharedFile> {
        self.allocation.fd.map(|fd| SharedFile { fd, offset: self.offset, is_own: true })
    }

    /// The registration has ended. `confirmed`: no other process accesses the memory any more. Idempotent.
    pub(crate) fn end(&self, confirmed: bool) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            self.allocation.end_use(confirmed);
        }
    }
}

impl Drop for AllocationUse {
    /// Of a registration that did not come about.
    fn drop(&mut self) {
        self.end(true);
    }
}
