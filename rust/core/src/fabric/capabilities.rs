//! What kinds of device differ in, as far as the layers above the fabric act on it.

/// What a device can do, and what it needs of the layers above. They ask for these, and not for the provider's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Bytes move only while its completion queues are polled: without polling, a worker makes no progress.
    pub needs_polling: bool,
    /// Creating, registering and destroying are commands of the device, each of which blocks and may take long.
    pub blocking_commands: bool,
    /// Memory that the CPU cannot access, that of a GPU, can be registered and gets keys.
    pub gpu_memory: bool,
    /// Peers of the same host map the file of a range ([`MemoryRange::file`](super::MemoryRange::file)) and copy by themselves.
    pub shared_files: bool,
}
