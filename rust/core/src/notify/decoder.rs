//! What arrives on one notification socket, as a state machine over bytes: no input or output in here.

use crate::control::AuthKey;
use crate::control::wire::notification::{
    CHALLENGE_SIZE, HEADER_SIZE, Header, NAME_SIZE, PROOF_SIZE, SESSION_ID_SIZE, decode_message,
};
use crate::control::wire::{PREAMBLE_SIZE, SocketKind, WireError};

use super::{LargeMessage, Message};

/// Who may send, and how much.
#[derive(Clone, Debug, Default)]
pub struct SenderPolicy {
    /// The key that senders must prove.
    pub key: Option<AuthKey>,
    /// With a key: let original engines, which cannot prove anything, send all the same.
    pub allow_original: bool,
    /// Bytes that a large message may have.
    pub max_bytes: usize,
}

/// What the bytes amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The preamble is right; the sender has proven nothing yet.
    Greeted,
    /// Messages of the sender are taken from now on.
    Admitted,
    /// The challenge must be sent to it.
    Challenge,
    /// A message.
    Message(Box<Message>),
    /// A large message.
    Large(Box<LargeMessage>),
}

/// The state machine of one socket.
#[derive(Debug)]
pub struct Decoder {
    phase: Phase,
    challenge: [u8; CHALLENGE_SIZE],
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Preamble,
    /// A key is set and nothing has been proven: the first header decides.
    Unproven,
    Proof([u8; SESSION_ID_SIZE]),
    Admitted,
}

impl Decoder {
    /// A decoder at the start of a socket. `challenge` is random, and sent when [`Event::Challenge`] asks for it.
    pub fn new(challenge: [u8; CHALLENGE_SIZE]) -> Self {
        Self { phase: Phase::Preamble, challenge }
    }

    /// The challenge of this socket.
    pub fn challenge(&self) -> &[u8; CHALLENGE_SIZE] {
        &self.challenge
    }

    /// Whether messages of this sender are taken.
    pub fn is_admitted(&self) -> bool {
        matches!(self.phase, Phase::Admitted)
    }

    /// Reads the next event from the front of `bytes`; answers it with the bytes that it takes. `None`: more bytes
    /// are needed. After an error the socket must be closed.
    pub fn next(&mut self, bytes: &[u8], policy: &SenderPolicy) -> Result<Option<(Event, usize)>, WireError> {
        match self.phase {
            Phase::Preamble => self.preamble(bytes, policy),
            Phase::Unproven => self.first_header(bytes, policy),
            Phase::Proof(session) => self.proof(bytes, &session, policy),
            Phase::Admitted => message(bytes, policy),
        }
    }

    fn preamble(&mut self, bytes: &[u8], policy: &SenderPolicy) -> Result<Option<(Event, usize)>, WireError> {
        let Some(preamble) = bytes.first_chunk::<PREAMBLE_SIZE>() else { return Ok(None) };
        match SocketKind::decode(preamble)? {
            Ok(SocketKind::Notifications) => {}
            other => return Err(WireError::new("notification socket", format!("socket of kind {other:?}"))),
        }
        let (phase, event) = match policy.key {
            None => (Phase::Admitted, Event::Admitted),
            Some(_) => (Phase::Unproven, Event::Greeted),
        };
        self.phase = phase;
        Ok(Some((event, PREAMBLE_SIZE)))
    }

    fn first_header(
        &mut self,
        bytes: &[u8],
        policy: &SenderPolicy,
    ) -> Result<Option<(Event, usize)>, WireError> {
        let Some(header) = bytes.first_chunk::<HEADER_SIZE>() else { return Ok(None) };
        match Header::decode(header)? {
            Header::Hello => {
                let rest = bytes.get(HEADER_SIZE..).unwrap_or_default();
                let Some(session) = rest.first_chunk::<SESSION_ID_SIZE>() else { return Ok(None) };
                self.phase = Phase::Proof(*session);
                Ok(Some((Event::Challenge, HEADER_SIZE + SESSION_ID_SIZE)))
            }
            Header::Message if policy.allow_original => {
                self.phase = Phase::Admitted;
                Ok(Some((Event::Admitted, 0)))
            }
            Header::Message | Header::Large(_) => {
                Err(WireError::new("notification socket", "the sender does not prove the key that is set"))
            }
        }
    }

    fn proof(
        &mut self,
        bytes: &[u8],
        session: &[u8],
        policy: &SenderPolicy,
    ) -> Result<Option<(Event, usize)>, WireError> {
        let Some(proof) = bytes.first_chunk::<PROOF_SIZE>() else { return Ok(None) };
        let valid = policy
            .key
            .as_ref()
            .is_some_and(|key| key.verify("notifications", &[session, &self.challenge], proof));
        if !valid {
            return Err(WireError::new("notification socket", "the sender does not know our key"));
        }
        self.phase = Phase::Admitted;
        Ok(Some((Event::Admitted, PROOF_SIZE)))
    }
}

fn message(bytes: &[u8], policy: &SenderPolicy) -> Result<Option<(Event, usize)>, WireError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_SIZE>() else { return Ok(None) };
    let header = Header::decode(header)?;
    match header {
        Header::Large(length) if length as usize > policy.max_bytes => {
            let problem = format!("{length} bytes, expected at most {}", policy.max_bytes);
            return Err(WireError::new("large notification", problem));
        }
        Header::Hello => return Err(WireError::new("notification socket", "a second hello")),
        Header::Message | Header::Large(_) => {}
    }
    let size = header.body_size();
    let Some(body) = rest.get(..size) else { return Ok(None) };
    let event = match body.split_first_chunk::<NAME_SIZE>() {
        Some((name, content)) if header != Header::Message => {
            Event::Large(Box::new(LargeMessage { name: *name, content: content.to_vec() }))
        }
        _ => {
            let (name, text) = decode_message(body)?;
            Event::Message(Box::new(Message { name, text }))
        }
    };
    Ok(Some((event, HEADER_SIZE + size)))
}
