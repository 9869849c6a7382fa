//! The name of a lane.

/// Names a lane of a worker. The generation keeps a late completion of a former lane from being taken for this one's. The
/// default names none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneKey(
    /// The lane's index, and its generation above that: one word, for it is compared with every completion.
    u32,
);

impl LaneKey {
    pub(super) fn new(index: u16, generation: u16) -> Self {
        Self(u32::from(generation) << 16 | u32::from(index))
    }

    #[inline]
    pub(super) fn index(self) -> u16 {
        self.0 as u16
    }

    /// Another number than those of all other lanes of the worker.
    pub fn number(self) -> u32 {
        self.0
    }

    /// The upper half of the ids of its requests; the lower half is the sequence number.
    #[inline]
    pub(super) fn request_id(self, sequence: u32) -> u64 {
        u64::from(self.0) << 32 | u64::from(sequence)
    }

    #[inline]
    pub(super) fn of_request(id: u64) -> (Self, u32) {
        (Self((id >> 32) as u32), id as u32)
    }
}
