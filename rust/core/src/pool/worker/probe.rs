//! Probes: requests of no bytes, by which a lane that has nothing under way shows that its NICs work.

use super::WorkerState;
use crate::pool::groups::Group;
use crate::pool::lane::break_lane;
use crate::pool::lane_key::LaneKey;
use crate::pool::part_list::NONE;

/// Why a probe was not posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The lane is not in working order, or not there.
    #[error("the lane is not in working order")]
    Down,
    /// Something is under way on it, perhaps an earlier probe, or its worker has no credit: another lane, or later.
    #[error("the lane has something under way")]
    Busy,
    /// The lane leads to no peer.
    #[error("the lane leads to no peer")]
    Unsupported,
    /// The queue pair refused it with this errno, and the lane is broken.
    #[error("the queue pair refused a probe: {}", std::io::Error::from_raw_os_error(*.0))]
    Refused(i32),
}

impl WorkerState {
    /// Posts an RDMA WRITE of no bytes on a lane that is healthy and has nothing outstanding. Once it is carried out,
    /// [`LaneStatus::probe_answered`](crate::pool::LaneStatus::probe_answered) is `number`, not 0, and the lane's watcher is called. If it fails, the lane breaks
    /// as it does by any request.
    ///
    /// `remote` is an address and a key of the peer's. No memory is touched, and an adapter is not to check the key of a request
    /// without bytes (InfiniBand specification 1.4, C9-88), but those of a region are right for one that does.
    pub fn post_probe(&mut self, key: LaneKey, number: u32, remote: (u64, u32)) -> Result<(), ProbeError> {
        let left = self.limits.left(self.posted);
        let Some(lane) = self.lanes.get(key).filter(|lane| lane.is_healthy()) else {
            return Err(ProbeError::Down);
        };
        if lane.outstanding > 0 || left == 0 {
            return Err(ProbeError::Busy);
        }
        let before = lane.posted();
        let first = before as u32;
        let answer = lane.queue_pair.post_empty(lane.key.request_id(first), remote);
        let Some(errno) = answer.errno else {
            lane.probe = number;
            lane.groups.push_back(Group { part: NONE, first, count: 1, start: 0 });
            lane.note_posted(before, 1);
            self.posted += 1;
            return Ok(());
        };
        let error = match errno.get() {
            libc::ENOMEM => return Err(ProbeError::Busy),
            libc::EOPNOTSUPP => return Err(ProbeError::Unsupported),
            errno => ProbeError::Refused(errno),
        };
        break_lane(lane, &error.to_string());
        self.settle_lane(key.index());
        Err(error)
    }
}
