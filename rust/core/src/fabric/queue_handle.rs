//! A completion queue as queue pairs are created on it.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// Names a completion queue to [`Device::create_queue_pair`](super::Device::create_queue_pair), on any thread and without
/// the lock under which the queue is polled. Keeps alive what queue pairs need of the queue.
#[derive(Clone)]
pub struct QueueHandle(Arc<dyn Any + Send + Sync>);

impl QueueHandle {
    /// For a provider: a handle that stands for `queue`, the part of a completion queue that its queue pairs share.
    pub fn new<T: Send + Sync + 'static>(queue: Arc<T>) -> Self {
        Self(queue)
    }

    /// For a provider: what the handle stands for; `None` if another kind of provider made it.
    pub fn downcast<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        Arc::clone(&self.0).downcast().ok()
    }
}

impl fmt::Debug for QueueHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueHandle").finish_non_exhaustive()
    }
}
