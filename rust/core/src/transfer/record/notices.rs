//! Notices of the end, kept in the record until then.

use super::{TransferGeneration, TransferRecord};
use crate::pool::EndState;
use crate::sync::lock;
use crate::transfer::TransferId;
use crate::transfer::end_notice::EndNotice;

impl TransferRecord {
    /// Has `notice` told of the end of the generation that it names; at once if that is over. The record is being
    /// [watched](crate::pool::PartOwner::watch). A notice of the same generation is dropped for it. `remembered` answers how a transfer ended
    /// that has no record any more.
    pub(crate) fn tell_at_end(
        &self,
        notice: Box<EndNotice>,
        remembered: impl Fn(TransferId) -> Option<EndState>,
    ) {
        let generation = notice.generation();
        match self.set_notice(notice) {
            // It is over, and was not told of: its end came before it was there.
            Ok(Some(former)) if former.generation() != generation => {
                let state = remembered(former.id());
                former.fire(state);
            }
            Ok(_) => {}
            Err(late) => {
                let state = remembered(late.id());
                return late.fire(state);
            }
        }
        // What has ended it may have looked for a notice before this one was there.
        if self.is_ended() || self.generation() != generation {
            self.tell_missed(generation, remembered);
        }
    }

    /// Tells of the end of a generation that is over, if a notice of it is still there.
    fn tell_missed(
        &self,
        generation: TransferGeneration,
        remembered: impl Fn(TransferId) -> Option<EndState>,
    ) {
        if let Some(notice) = self.take_notice(generation) {
            let state = self.end_state_of(generation).or_else(|| remembered(notice.id()));
            notice.fire(state);
        }
    }

    /// Answers the notice that was here before; gives the new one back if its generation is over.
    fn set_notice(&self, mut notice: Box<EndNotice>) -> Result<Option<Box<EndNotice>>, Box<EndNotice>> {
        let mut gate = lock(&self.gate);
        if notice.generation() != self.generation() {
            return Err(notice);
        }
        if let Some(former) = gate.as_ref().filter(|former| former.generation() == notice.generation()) {
            notice.replace(former);
        }
        Ok(gate.replace(notice))
    }

    /// Takes the notice of a generation, if it has one.
    pub(super) fn take_notice(&self, generation: TransferGeneration) -> Option<Box<EndNotice>> {
        lock(&self.gate).take_if(|notice| notice.generation() == generation)
    }
}
