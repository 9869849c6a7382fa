//! What is to be said to the peer about regions, and what becomes of what it says: the part of the connection's task.

use std::sync::Arc;

use super::Questions;
use crate::control::RegionFrame;
use crate::control::wire::RegionChanges;
use crate::memory::{RemoteRegions, Subscription};

/// The exchange with a peer that tells changes.
#[derive(Debug)]
pub(in crate::connection) struct Exchange {
    /// Our regions, as far as the peer has been told.
    ours: Subscription,
    theirs: Arc<RemoteRegions>,
    questions: Arc<Questions>,
    /// The peer's last question that is not answered, and the version of our regions when it came.
    asked: Option<(u64, u64)>,
}

impl Exchange {
    pub(in crate::connection) fn new(
        ours: Subscription,
        theirs: Arc<RemoteRegions>,
        questions: Arc<Questions>,
    ) -> Self {
        Self { ours, theirs, questions, asked: None }
    }

    /// The next frame for the peer; `None` if there is nothing to say.
    pub(in crate::connection) fn next(&mut self) -> Option<RegionFrame> {
        if let Some(number) = self.questions.next() {
            return Some(RegionFrame::Sync(number));
        }
        if let Some((number, _)) = self.asked.filter(|(_, version)| self.ours.told() >= *version) {
            self.asked = None;
            return Some(RegionFrame::Synced(number));
        }
        self.ours.next().map(RegionFrame::Changes)
    }

    /// The peer has said something. Answers the changes that are to be applied to [`Exchange::theirs`], which may take
    /// long.
    pub(in crate::connection) fn hear(&mut self, frame: RegionFrame) -> Option<RegionChanges> {
        match frame {
            RegionFrame::Changes(changes) => return Some(changes),
            RegionFrame::Sync(number) => self.asked = Some((number, self.ours.version())),
            RegionFrame::Synced(number) => self.questions.answered(number),
        }
        None
    }

    /// The peer's regions.
    pub(in crate::connection) fn theirs(&self) -> &Arc<RemoteRegions> {
        &self.theirs
    }
}
