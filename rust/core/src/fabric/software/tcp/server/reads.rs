//! Answering READs.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::answer::{Answer, ReadRange};
use super::{Server, Stop, WaitsFor};
use crate::fabric::software::device_core::Core;
use crate::fabric::software::table::Right;
use crate::fabric::software::tcp::frame::{FrameKind, RequestHeader, WHOLE_READ};
use crate::fabric::software::work::PinSet;

impl Server {
    /// Prepares the answer to the READs that the group goes on with: a piece of a long one, or all of some in a row.
    pub(super) fn answer_reads(&mut self, core: &Core) {
        let mut pins = PinSet::new(core.regions.view());
        let mut ranges_read = std::mem::take(&mut self.ranges_read);
        let (mut total, mut offset, mut whole) = (0, self.offset, true);
        for header in self.pending.iter().take(self.most_at_once()) {
            let left = u64::from(header.length) - offset;
            let fits = left <= WHOLE_READ - total;
            let is_good = header.action == FrameKind::Read && left > 0 && may_read(&mut pins, header);
            if !is_good || (!fits && !ranges_read.is_empty()) {
                break;
            }
            let length = left.min(WHOLE_READ);
            ranges_read.push(ReadRange {
                sequence: header.sequence,
                rkey: header.rkey,
                address: header.remote_address + offset,
                length,
            });
            total += length;
            if !fits {
                whole = false;
                break;
            }
            offset = 0;
        }
        if ranges_read.is_empty() {
            self.refuse(core);
            return;
        }
        // The answer says that all before it is done.
        self.told = self.done;
        self.outgoing = Some(Answer::data(ranges_read, whole));
    }

    pub(super) fn send(&mut self, core: &Core, budget: &mut u64) -> Result<(), Stop> {
        let Some(outgoing) = &mut self.outgoing else { return Ok(()) };
        match outgoing.send(core, self.socket.as_fd()) {
            Ok(sent) => *budget = budget.saturating_sub(sent),
            Err(Errno::AGAIN) => return Err(Stop(WaitsFor::Write)),
            Err(_) => return Err(Stop(WaitsFor::Close)),
        }
        if let Some(answer) = self.outgoing.take_if(|outgoing| outgoing.is_sent()) {
            self.note_answered(&answer);
            if !answer.ranges_read().is_empty() {
                self.ranges_read = answer.into_room();
            }
        }
        Ok(())
    }

    fn note_answered(&mut self, answer: &Answer) {
        if answer.has_failed() {
            self.fail();
        } else if answer.ends_reads() {
            answer.ranges_read().iter().for_each(|_| self.next_request());
            self.told = self.done;
            // Most often nothing has come meanwhile: epoll tells, without a call that finds nothing.
            self.emptied = self.pending.is_empty();
        } else {
            self.offset += answer.ranges_read().iter().map(|range| range.length).sum::<u64>();
        }
    }
}

fn may_read(pins: &mut PinSet<'_>, header: &RequestHeader) -> bool {
    pins.check(header.rkey, header.remote_address, header.length.into(), Right::RemoteRead).is_ok()
}
