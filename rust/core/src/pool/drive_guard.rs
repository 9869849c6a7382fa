//! While one of these lives, a worker's thread drives, also if callers did a moment ago.

use std::sync::Arc;

use super::shared_worker::Worker;

/// For a sleeping caller.
#[derive(Debug)]
pub struct DriveGuard<'a> {
    worker: &'a Worker,
}

impl<'a> DriveGuard<'a> {
    /// The worker has counted the caller.
    pub(super) fn new(worker: &'a Worker) -> Self {
        Self { worker }
    }
}

impl Drop for DriveGuard<'_> {
    fn drop(&mut self) {
        self.worker.end_driving();
    }
}

/// As [`DriveGuard`], for as long as a transfer takes. May be dropped under the worker's lock: others have references.
#[derive(Debug)]
pub(crate) struct OwnedDriveGuard {
    worker: Arc<Worker>,
}

impl OwnedDriveGuard {
    /// The worker has counted the transfer.
    pub(super) fn new(worker: Arc<Worker>) -> Self {
        Self { worker }
    }
}

impl Drop for OwnedDriveGuard {
    fn drop(&mut self) {
        self.worker.end_driving();
    }
}
