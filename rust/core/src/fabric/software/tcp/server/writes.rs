//! Receiving what WRITEs bring, right into its place.
#![allow(unsafe_code, reason = "receives into registered memory")]

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::{Server, Stop, WaitsFor};
use crate::fabric::software::device_core::Core;
use crate::fabric::software::socket::{Range, receive};
use crate::fabric::software::table::Right;
use crate::fabric::software::tcp::frame::{FrameKind, GROUP, REQUEST_SIZE};
use crate::fabric::software::work::PinSet;

/// Where the next bytes belong: payloads in a row, and the header behind them.
struct Places {
    ranges: [Range; GROUP + 1],
    used: usize,
    /// Bytes of payload.
    length: u64,
    /// Whether those are all of the group's: what follows is a header.
    ends_group: bool,
}

impl Server {
    /// Receives payloads of the group's next WRITEs, as many as come at once.
    pub(super) fn receive_writes(&mut self, core: &Core, budget: &mut u64) -> Result<(), Stop> {
        if self.emptied {
            return self.wait_for_more();
        }
        // Before each receipt, for this process may be stopped between two.
        self.look_for_the_end();
        if self.has_closed {
            return Err(Stop(WaitsFor::Close));
        }
        let mut pins = PinSet::new(core.regions.view());
        let mut places = self.places(&mut pins, *budget);
        if places.used == 0 {
            self.refuse(core);
            return Ok(());
        }
        if places.ends_group {
            places.push(Range::of_mut(self.buffer.room(REQUEST_SIZE)));
        }
        // SAFETY: the ranges were checked against their regions, which are pinned until after the call; the last one may
        // be the room of the buffer, which is ours.
        let mut answer = unsafe { receive(self.socket.as_fd(), places.ranges()) };
        if answer == Err(Errno::FAULT) && places.used > 1 {
            // Not always of the first range: the kernel takes segments whole.
            places.used = 1;
            // SAFETY: as above.
            answer = unsafe { receive(self.socket.as_fd(), places.ranges()) };
        }
        if answer == Err(Errno::FAULT) {
            self.refuse(core);
            return Ok(());
        }
        let received = self.note_receipt(answer)?;
        let of_payload = received.min(places.length);
        self.buffer.note((received - of_payload) as usize);
        self.emptied = received > 0 && received < places.room();
        *budget -= of_payload;
        self.note_payload(of_payload);
        Ok(())
    }

    fn places(&self, pins: &mut PinSet<'_>, budget: u64) -> Places {
        let mut places =
            Places { ranges: [Range::default(); GROUP + 1], used: 0, length: 0, ends_group: false };
        let (mut offset, most) = (self.offset, self.most_at_once());
        for header in self.pending.iter().take(most) {
            let left = u64::from(header.length) - offset;
            let length = left.min(budget - places.length);
            let may = |pins: &mut PinSet<'_>| {
                pins.check(header.rkey, header.remote_address, header.length.into(), Right::RemoteWrite)
            };
            if header.action != FrameKind::Write || (left > 0 && (length == 0 || may(pins).is_err())) {
                return places;
            }
            if length > 0 {
                places.push(Range::new(header.remote_address + offset, length));
                places.length += length;
            }
            if length < left {
                return places;
            }
            offset = 0;
        }
        places.ends_group = self.pending.len() <= most;
        places
    }

    fn note_payload(&mut self, mut received: u64) {
        while let Some(header) = self.pending.front() {
            let left = u64::from(header.length) - self.offset;
            if received < left || header.action != FrameKind::Write {
                self.offset += received;
                return;
            }
            received -= left;
            self.next_request();
        }
    }
}

impl Places {
    fn push(&mut self, range: Range) {
        if let Some(slot) = self.ranges.get_mut(self.used) {
            *slot = range;
            self.used += 1;
        }
    }

    fn ranges(&self) -> &[Range] {
        self.ranges.get(..self.used).unwrap_or(&[])
    }

    /// Bytes that the ranges take.
    fn room(&self) -> u64 {
        self.ranges().iter().map(|range| range.length as u64).sum()
    }
}
