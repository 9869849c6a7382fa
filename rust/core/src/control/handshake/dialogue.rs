//! One socket of a handshake: reads and writes under its deadline, with errors that name peer and step.

use std::time::Instant;

use super::error::{HandshakeError, Reason, Step};
use super::{Role, SocketAddr, Stream};
use crate::admission::SILENCE_LIMIT;
use crate::control::wire::{FRAME_HEADER_SIZE, FrameHeader, PREAMBLE_SIZE, SocketKind, Tag, WireError};
use crate::events::Waiter;

/// A socket of a handshake, with its deadline and the peer's name for errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialogue<'a> {
    pub(super) stream: &'a Stream,
    /// How reads and writes wait.
    pub(super) waiter: &'a Waiter,
    /// The address that errors name: the peer's control address, whichever socket this is.
    pub(super) peer: SocketAddr,
    pub(super) role: Role,
    pub(super) deadline: Instant,
}

impl Dialogue<'_> {
    /// A dialogue with the short deadline of steps that a peer does at once, so that a silent client holds its
    /// descriptors only briefly.
    pub(super) fn with_short_deadline(&self) -> Self {
        Self { deadline: self.deadline.min(Instant::now() + SILENCE_LIMIT), ..*self }
    }

    pub(super) fn fail(&self, step: Step, reason: impl Into<Reason>) -> HandshakeError {
        HandshakeError::new(self.peer, step, reason)
    }

    pub(super) async fn write(&self, step: Step, bytes: &[u8]) -> Result<(), HandshakeError> {
        let written = self.stream.write_all(bytes, self.deadline, self.waiter).await;
        written.map_err(|error| self.fail(step, error))
    }

    pub(super) async fn read<const N: usize>(&self, step: Step) -> Result<[u8; N], HandshakeError> {
        let mut bytes = [0; N];
        self.fill(step, &mut bytes).await?;
        Ok(bytes)
    }

    pub(super) async fn read_vec(&self, step: Step, size: usize) -> Result<Vec<u8>, HandshakeError> {
        let mut bytes = vec![0; size];
        self.fill(step, &mut bytes).await?;
        Ok(bytes)
    }

    async fn fill(&self, step: Step, bytes: &mut [u8]) -> Result<(), HandshakeError> {
        let read = self.stream.read_exact(bytes, self.deadline, self.waiter).await;
        read.map_err(|error| self.fail(step, error))
    }

    /// Reads the preamble of a socket that the peer opened.
    pub(super) async fn expect_preamble(&self, expected: SocketKind) -> Result<(), HandshakeError> {
        self.check_preamble(&self.read::<PREAMBLE_SIZE>(Step::Preamble).await?, expected)
    }

    /// Checks a preamble that has been read already.
    pub(super) fn check_preamble(&self, bytes: &[u8], expected: SocketKind) -> Result<(), HandshakeError> {
        let found = match SocketKind::decode(bytes).map_err(|error| self.fail(Step::Preamble, error))? {
            Ok(kind) if kind == expected => return Ok(()),
            Ok(kind) => kind as i32,
            Err(number) => number,
        };
        Err(self.fail(Step::Preamble, Reason::SocketKind { found, expected: expected as i32 }))
    }

    pub(super) async fn send_frame(
        &self,
        step: Step,
        tag: Tag,
        payload: &[u8],
    ) -> Result<(), HandshakeError> {
        let size = i32::try_from(payload.len())
            .map_err(|_| self.fail(step, WireError::new("frame", "too large to send")))?;
        let mut frame = FrameHeader { tag: tag as i32, size }.encode().to_vec();
        frame.extend_from_slice(payload);
        self.write(step, &frame).await
    }

    pub(super) async fn receive_frame(
        &self,
        step: Step,
        tag: Tag,
        limit: usize,
    ) -> Result<Vec<u8>, HandshakeError> {
        let header = self.receive_header(step).await?;
        self.receive_payload(step, header, tag, limit).await
    }

    pub(super) async fn receive_header(&self, step: Step) -> Result<FrameHeader, HandshakeError> {
        let header = self.read::<FRAME_HEADER_SIZE>(step).await?;
        FrameHeader::decode(&header).map_err(|error| self.fail(step, error))
    }

    /// The payload after a header; an error unless the header has the expected tag and size.
    pub(super) async fn receive_payload(
        &self,
        step: Step,
        header: FrameHeader,
        tag: Tag,
        limit: usize,
    ) -> Result<Vec<u8>, HandshakeError> {
        let size = header.expect(tag, limit).map_err(|error| self.fail(step, error))?;
        self.read_vec(step, size).await
    }

    /// Sends the first frame of a socket and receives the answer, a frame of the same tag. [`Reason::Unanswered`] when the
    /// peer closes the socket without one.
    pub(super) async fn open(
        &self,
        step: Step,
        tag: Tag,
        payload: &[u8],
        limit: usize,
    ) -> Result<Vec<u8>, HandshakeError> {
        // A peer that closes the socket when it sees the tag may make the rest of our frame fail.
        self.send_frame(step, tag, payload).await.map_err(unanswered)?;
        let header = self.receive_header(step).await.map_err(unanswered)?;
        self.receive_payload(step, header, tag, limit).await
    }

    /// Both sides send a frame, the initiator first. `payload` is called when it is our turn, with the peer's payload
    /// if the peer sent first.
    pub(super) async fn exchange_frames(
        &self,
        step: Step,
        tag: Tag,
        limit: usize,
        payload: impl FnOnce(Option<&[u8]>) -> Vec<u8>,
    ) -> Result<Vec<u8>, HandshakeError> {
        match self.role {
            Role::Initiator => {
                self.send_frame(step, tag, &payload(None)).await?;
                self.receive_frame(step, tag, limit).await
            }
            Role::Responder => {
                let theirs = self.receive_frame(step, tag, limit).await?;
                self.send_frame(step, tag, &payload(Some(&theirs))).await?;
                Ok(theirs)
            }
        }
    }
}

fn unanswered(error: HandshakeError) -> HandshakeError {
    match error.reason {
        Reason::Closed => HandshakeError { reason: Reason::Unanswered, ..error },
        _ => error,
    }
}
