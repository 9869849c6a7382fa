//! For tests: what a device does not do itself, it leaves to the one inside it.

/// All methods of `Device` but its attributes and the registration, of a type with a field `inner`.
macro_rules! delegate_to_inner {
    () => {
        fn port(&self) -> Result<$crate::fabric::PortAttributes, $crate::fabric::FabricError> {
            self.inner.port()
        }
        fn gids(&self) -> Result<Vec<$crate::fabric::GidEntry>, $crate::fabric::FabricError> {
            self.inner.gids()
        }
        fn create_completion_queue(
            self: std::sync::Arc<Self>,
            depth: u32,
        ) -> Result<Box<dyn $crate::fabric::CompletionQueue>, $crate::fabric::FabricError> {
            std::sync::Arc::clone(&self.inner).create_completion_queue(depth)
        }
        fn create_queue_pair(
            self: std::sync::Arc<Self>,
            queue: &$crate::fabric::QueueHandle,
            caps: &$crate::fabric::QueuePairCaps,
        ) -> Result<Box<dyn $crate::fabric::QueuePair>, $crate::fabric::FabricError> {
            std::sync::Arc::clone(&self.inner).create_queue_pair(queue, caps)
        }
        fn poll_event(&self) -> Option<$crate::fabric::DeviceEvent> {
            self.inner.poll_event()
        }
        fn event_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
            self.inner.event_fd()
        }
    };
}

pub(crate) use delegate_to_inner;
