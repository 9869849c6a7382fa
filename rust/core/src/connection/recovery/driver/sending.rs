//! Frames of the machine on their way into the socket.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use super::super::{Action, STEP_LIMIT};
use super::Driver;
use crate::control::ChannelFrame;
use crate::fork::OwnSocket;

impl Driver {
    pub(super) fn queue(&mut self, frame: &ChannelFrame) {
        self.urgent = true;
        self.socket.queue(frame);
    }

    /// Sends queued frames; false if the socket accepts no more now, or the connection is lost.
    pub(super) fn flush(&mut self) -> bool {
        if self.is_away() {
            return false;
        }
        match self.socket.flush() {
            Ok(true) => {
                (self.blocked, self.urgent, self.send_by) = (false, false, None);
                true
            }
            Ok(false) => {
                self.wait_for_socket();
                false
            }
            Err(error) => {
                self.fail(&error);
                false
            }
        }
    }

    fn wait_for_socket(&mut self) {
        self.blocked = true;
        if self.writable.is_none() {
            let Some(stream) = self.socket.stream() else { return };
            let descriptor = stream.as_fd().try_clone_to_owned();
            match descriptor.and_then(|descriptor| self.handle.watch(OwnSocket::new(descriptor))) {
                Ok(writable) => self.writable = Some(writable),
                Err(error) => return self.fail(&error),
            }
        }
        if self.urgent || self.machine.has_frames() {
            let send_by = *self.send_by.get_or_insert_with(|| Instant::now() + STEP_LIMIT);
            if Instant::now() >= send_by {
                self.fail(&io::ErrorKind::TimedOut.into());
            }
        }
    }

    /// The channel has failed while frames were sent.
    pub(super) fn fail(&mut self, error: &io::Error) {
        self.channel_failed(error);
        if self.is_away() {
            return;
        }
        while let Some(action) = self.machine.next_local_action() {
            if let Action::Lose(reason) = action {
                self.lose(&reason);
            }
        }
    }
}
