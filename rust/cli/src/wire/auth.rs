//! The closed door of the control stream: with `FLAGCX_P2P_AUTH_KEY_FILE` set, both sides prove that they know the key
//! before any name, address or memory key is told. The server proves it first.
//!
//! A proof is a keyed blake3 hash over the prover's role and both nonces, so that none can be replayed or reflected.

use super::control::{Control, ControlError};
use super::{Frame, Hash, Nonce};

/// Keeps these proofs apart from every other use of the same key.
const PURPOSE: &str = "flagcx-p2p command line tool, control stream, version 1";

/// The pre-shared key of one side, if it has one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Door(Option<[u8; 32]>);

impl Door {
    /// `key` is the content of the key file.
    pub(crate) fn new(key: Option<&[u8]>) -> Self {
        Self(key.map(|key| blake3::derive_key(PURPOSE, key)))
    }

    /// The server's side, after `Open` has come with the client's nonce.
    pub(crate) fn admit(&self, control: &Control, client: &Nonce) -> Result<(), ControlError> {
        let Some(key) = &self.0 else { return Ok(()) };
        let server = nonce()?;
        control.send(&Frame::Challenge { nonce: server, proof: proof(key, b"server", client, &server) })?;
        match control.receive()? {
            Frame::Proof { proof: theirs } if same(&theirs, &proof(key, b"client", client, &server)) => {
                Ok(())
            }
            Frame::Proof { .. } => {
                Err(ControlError::Protocol("it does not know this server's key".to_owned()))
            }
            other => Err(ControlError::Protocol(format!("expected its proof, not {other:?}"))),
        }
    }

    /// The client's side: takes what the server said after `Open`, and gives its next frame once both are sure.
    pub(crate) fn enter(&self, control: &Control, client: &Nonce) -> Result<Frame, ControlError> {
        match (control.receive()?, &self.0) {
            (Frame::Challenge { nonce: server, proof: theirs }, Some(key)) => {
                if !same(&theirs, &proof(key, b"server", client, &server)) {
                    let text = "it does not know our key (FLAGCX_P2P_AUTH_KEY_FILE differs)";
                    return Err(ControlError::Protocol(text.to_owned()));
                }
                control.send(&Frame::Proof { proof: proof(key, b"client", client, &server) })?;
                control.receive()
            }
            (Frame::Challenge { .. }, None) => {
                Err(ControlError::Protocol("it wants a key; set FLAGCX_P2P_AUTH_KEY_FILE".to_owned()))
            }
            (_, Some(_)) => {
                let text = "it has no key and ours is set (FLAGCX_P2P_AUTH_KEY_FILE)";
                Err(ControlError::Protocol(text.to_owned()))
            }
            (frame, None) => Ok(frame),
        }
    }
}

/// A fresh random number.
pub(crate) fn nonce() -> Result<Nonce, ControlError> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| ControlError::Io(format!("no random numbers: {error}")))?;
    Ok(nonce)
}

fn proof(key: &[u8; 32], role: &[u8; 6], client: &Nonce, server: &Nonce) -> Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(role).update(client).update(server);
    hasher.finalize().into()
}

/// In constant time, as comparing blake3 hashes is.
fn same(a: &Hash, b: &Hash) -> bool {
    blake3::Hash::from_bytes(*a) == blake3::Hash::from_bytes(*b)
}
