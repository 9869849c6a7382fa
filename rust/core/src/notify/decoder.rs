//! The decoder of one notification socket: a state machine over bytes, without input or output.
//!
//! With a key, the sender must prove it before any message is accepted:
//!
//! ```text
//! sender                                  receiver
//!   preamble, hello, random number ─────▶
//!     ◀─────────────────────── random number
//!   proof ──────────────────────────────▶  wrong: closes without another byte
//!     ◀─────────────────────────────── proof, once the sender is admitted
//!   messages ───────────────────────────▶
//! ```

use crate::auth::{AuthError, AuthKey, NONCE_SIZE, Nonce, Nonces, PROOF_SIZE, Proof, Purpose, Responder};
use crate::control::wire::notification::{
    FINGERPRINT_SIZE, HEADER_SIZE, Header, LINK_SIZE, NAME_SIZE, decode_message,
};
use crate::control::wire::{PREAMBLE_SIZE, SocketKind, WireError};
use crate::process::ProcessIdentity;

use super::{LargeMessage, Message};

/// Which senders are accepted, and how much they may send.
#[derive(Clone, Debug, Default)]
pub struct SenderPolicy {
    /// The key that senders must prove.
    pub key: Option<AuthKey>,
    /// With a key: accept original engines, which cannot prove it.
    pub allow_original: bool,
    /// Bytes that a large message may have.
    pub max_bytes: usize,
}

/// A decoded event.
#[derive(Debug, PartialEq, Eq)]
pub enum DecodedEvent {
    /// The preamble is valid; the sender is not authenticated yet.
    Greeted,
    /// This random number must be sent to it.
    Challenge(Nonce),
    /// Messages of the sender are accepted from now on. When it has proven the key, this proof must be sent to it.
    Admitted(Option<Proof>),
    /// The process of the socket, as announced by the sender.
    Owner(ProcessIdentity),
    /// The socket is of this link; `again` if the link has had another one before. How many messages of it have been delivered must be
    /// sent to it.
    Link {
        /// Its name.
        name: [u8; LINK_SIZE],
        /// It is not the first socket.
        again: bool,
    },
    /// A message.
    Message(Box<Message>),
    /// A large message.
    Large(Box<LargeMessage>),
}

/// The state machine of one socket.
#[derive(Debug)]
pub struct Decoder {
    phase: Phase,
    nonce: Nonce,
    /// The sender has announced the process of the socket.
    owned: bool,
    /// It has named its link.
    linked: bool,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Preamble,
    /// A key is set and nothing has been proven: the first header decides.
    Unproven,
    /// The random number is sent; the proof comes next.
    Proof(Nonces),
    Admitted,
}

impl Decoder {
    /// A decoder at the start of a socket. `nonce` is random, and sent when [`DecodedEvent::Challenge`] asks for it.
    pub fn new(nonce: Nonce) -> Self {
        Self { phase: Phase::Preamble, nonce, owned: false, linked: false }
    }

    /// Whether messages of this sender are accepted.
    pub fn is_admitted(&self) -> bool {
        matches!(self.phase, Phase::Admitted)
    }

    /// Decodes the next event at the start of `bytes`; returns it with its length in bytes. `None`: more bytes are
    /// needed. After an error the socket must be closed.
    pub fn next(
        &mut self,
        bytes: &[u8],
        policy: &SenderPolicy,
    ) -> Result<Option<(DecodedEvent, usize)>, WireError> {
        match self.phase {
            Phase::Preamble => self.preamble(bytes, policy),
            Phase::Unproven => self.first_header(bytes, policy),
            Phase::Proof(nonces) => self.proof(bytes, nonces, policy),
            Phase::Admitted => match owner(bytes)? {
                Some(_) if self.owned => Err(WireError::refused("notification socket", "a second owner")),
                Some(identity) => {
                    self.owned = true;
                    Ok(Some((DecodedEvent::Owner(identity), HEADER_SIZE + FINGERPRINT_SIZE)))
                }
                None => match link(bytes)? {
                    Some(_) if self.linked => Err(WireError::refused("notification socket", "a second link")),
                    Some((name, again)) => {
                        self.linked = true;
                        Ok(Some((DecodedEvent::Link { name, again }, HEADER_SIZE + LINK_SIZE)))
                    }
                    None => message(bytes, policy),
                },
            },
        }
    }

    fn preamble(
        &mut self,
        bytes: &[u8],
        policy: &SenderPolicy,
    ) -> Result<Option<(DecodedEvent, usize)>, WireError> {
        let Some(preamble) = bytes.first_chunk::<PREAMBLE_SIZE>() else { return Ok(None) };
        match SocketKind::decode(preamble)? {
            Ok(SocketKind::Notifications) => {}
            other => {
                return Err(WireError::refused("notification socket", format!("socket of kind {other:?}")));
            }
        }
        let (phase, event) = match policy.key {
            None => (Phase::Admitted, DecodedEvent::Admitted(None)),
            Some(_) => (Phase::Unproven, DecodedEvent::Greeted),
        };
        self.phase = phase;
        Ok(Some((event, PREAMBLE_SIZE)))
    }

    fn first_header(
        &mut self,
        bytes: &[u8],
        policy: &SenderPolicy,
    ) -> Result<Option<(DecodedEvent, usize)>, WireError> {
        let Some(header) = bytes.first_chunk::<HEADER_SIZE>() else { return Ok(None) };
        match Header::decode(header)? {
            Header::Hello => {
                let rest = bytes.get(HEADER_SIZE..).unwrap_or_default();
                let Some(initiator) = rest.first_chunk::<NONCE_SIZE>() else { return Ok(None) };
                self.phase = Phase::Proof(Nonces { initiator: *initiator, responder: self.nonce });
                Ok(Some((DecodedEvent::Challenge(self.nonce), HEADER_SIZE + NONCE_SIZE)))
            }
            Header::Message if policy.allow_original => {
                self.phase = Phase::Admitted;
                Ok(Some((DecodedEvent::Admitted(None), 0)))
            }
            Header::Message | Header::Large(_) | Header::Owner(_) | Header::Link(_) => {
                Err(refused(AuthError::KeyMissing))
            }
        }
    }

    fn proof(
        &mut self,
        bytes: &[u8],
        nonces: Nonces,
        policy: &SenderPolicy,
    ) -> Result<Option<(DecodedEvent, usize)>, WireError> {
        let Some(proof) = bytes.first_chunk::<PROOF_SIZE>() else { return Ok(None) };
        let key = policy.key.as_ref().ok_or_else(|| refused(AuthError::KeyRequired))?;
        let (_, ours) = Responder::new(key, Purpose::NOTIFICATIONS, nonces).verify(proof).map_err(refused)?;
        self.phase = Phase::Admitted;
        Ok(Some((DecodedEvent::Admitted(Some(ours)), PROOF_SIZE)))
    }
}

fn refused(error: AuthError) -> WireError {
    WireError::refused("notification socket", error.to_string())
}

/// The owner message at the start of `bytes`, if it is one and complete.
fn owner(bytes: &[u8]) -> Result<Option<ProcessIdentity>, WireError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_SIZE>() else { return Ok(None) };
    let Header::Owner(pid) = Header::decode(header)? else { return Ok(None) };
    let fingerprint = rest.first_chunk::<FINGERPRINT_SIZE>().copied().map(u64::from_le_bytes);
    Ok(fingerprint.map(|fingerprint| ProcessIdentity { pid, fingerprint }))
}

/// The link message at the start of `bytes`, if it is one and complete: the link's name, and whether it has had a socket before.
fn link(bytes: &[u8]) -> Result<Option<([u8; LINK_SIZE], bool)>, WireError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_SIZE>() else { return Ok(None) };
    let Header::Link(again) = Header::decode(header)? else { return Ok(None) };
    Ok(rest.first_chunk().map(|name| (*name, again)))
}

fn message(bytes: &[u8], policy: &SenderPolicy) -> Result<Option<(DecodedEvent, usize)>, WireError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_SIZE>() else { return Ok(None) };
    let header = Header::decode(header)?;
    match header {
        Header::Large(length) if length as usize > policy.max_bytes => {
            let problem = format!("{length} bytes, expected at most {}", policy.max_bytes);
            return Err(WireError::new("large notification", problem));
        }
        Header::Hello => return Err(WireError::refused("notification socket", "a second hello")),
        // Incomplete.
        Header::Owner(_) | Header::Link(_) => return Ok(None),
        Header::Message | Header::Large(_) => {}
    }
    let size = header.body_size();
    let Some(body) = rest.get(..size) else { return Ok(None) };
    let event = match body.split_first_chunk::<NAME_SIZE>() {
        Some((name, content)) if header != Header::Message => {
            DecodedEvent::Large(Box::new(LargeMessage { name: *name, content: content.to_vec() }))
        }
        _ => {
            let (name, text) = decode_message(body)?;
            DecodedEvent::Message(Box::new(Message { name, text }))
        }
    };
    Ok(Some((event, HEADER_SIZE + size)))
}
