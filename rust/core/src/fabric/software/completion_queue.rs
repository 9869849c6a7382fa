//! The completion queue as its worker owns it.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::denial;
use super::device_core::Core;
use super::shared_queue::SharedQueue;
use crate::fabric::{Completion, CompletionQueue, FabricError, Progress, QueueHandle};

/// The handle that its worker owns. Bytes move in [`CompletionQueue::poll`] until [`CompletionQueue::detach_progress`].
#[derive(Debug)]
pub(super) struct SoftwareCompletionQueue {
    shared: Arc<SharedQueue>,
    progress_is_detached: bool,
}

impl SoftwareCompletionQueue {
    pub(super) fn new(device: Arc<Core>, depth: u32) -> Result<Self, FabricError> {
        let name = device.name().to_owned();
        let shared = SharedQueue::new(device, depth)
            .map_err(|error| denial::failure("create completion queue", &name, &error))?;
        Ok(Self { shared: Arc::new(shared), progress_is_detached: false })
    }
}

impl CompletionQueue for SoftwareCompletionQueue {
    fn poll(&mut self, out: &mut [Completion]) -> Result<usize, FabricError> {
        if !self.progress_is_detached {
            self.shared.run();
        }
        self.shared.report(out)
    }

    fn detach_progress(&mut self) -> Option<Arc<dyn Progress>> {
        self.progress_is_detached = true;
        Some(Arc::clone(&self.shared) as Arc<dyn Progress>)
    }

    fn arm(&mut self) -> Result<bool, FabricError> {
        self.shared.arm()
    }

    fn acknowledge(&mut self) -> Result<(), FabricError> {
        self.shared.acknowledge();
        Ok(())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.shared.fd()
    }

    fn depth(&self) -> u32 {
        self.shared.depth()
    }

    fn handle(&self) -> QueueHandle {
        QueueHandle::new(Arc::clone(&self.shared))
    }
}
