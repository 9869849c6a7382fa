//! The session of two sides that have proven the key to each other.

use super::exchange::Role;
use super::{AuthError, AuthKey, Proof};

/// The key of one session, and this side's role. Its seals are valid within the session only.
#[derive(Debug)]
pub struct Session {
    key: AuthKey,
    role: Role,
}

impl Session {
    pub(super) fn new(key: AuthKey, role: Role) -> Self {
        Self { key, role }
    }

    /// Seals `body` as a message of this side with the purpose `label`. Two messages of the same label and body have
    /// the same seal: seals do not detect a repetition.
    pub fn seal(&self, label: &str, body: &[u8]) -> Proof {
        self.key.prove(&[self.role.name(), label.as_bytes(), body])
    }

    /// Checks, in constant time, that the peer has sealed `body` with the purpose `label`.
    pub fn verify(&self, label: &str, body: &[u8], seal: &Proof) -> Result<(), AuthError> {
        match self.key.verify(&[self.role.other().name(), label.as_bytes(), body], seal) {
            true => Ok(()),
            false => Err(AuthError::Changed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(key: &[u8]) -> [Session; 2] {
        [Role::Initiator, Role::Responder].map(|role| Session::new(AuthKey::new(key), role))
    }

    #[test]
    fn a_seal_is_good_for_its_session_side_label_and_body_only() {
        let [initiator, responder] = pair(b"session");
        for (from, to) in [(&initiator, &responder), (&responder, &initiator)] {
            let seal = from.seal("handle", b"body");
            assert_eq!(to.verify("handle", b"body", &seal), Ok(()));
            assert_eq!(from.verify("handle", b"body", &seal), Err(AuthError::Changed), "reflected");
            assert_eq!(to.verify("lanes", b"body", &seal), Err(AuthError::Changed));
            assert_eq!(to.verify("handleb", b"ody", &seal), Err(AuthError::Changed));
            assert_eq!(to.verify("handle", b"", &seal), Err(AuthError::Changed));
        }
        let seal = initiator.seal("handle", b"body");
        let [_, other] = pair(b"another session");
        assert_eq!(other.verify("handle", b"body", &seal), Err(AuthError::Changed));
    }

    proptest! {
        #[test]
        fn every_flipped_bit_is_noticed(body in proptest::collection::vec(any::<u8>(), 0..200), bit: usize) {
            let [initiator, responder] = pair(b"session");
            let mut bytes = initiator.seal("", &body).to_vec();
            bytes.extend(&body);
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (seal, body) = bytes.split_first_chunk().unwrap();
            prop_assert_eq!(responder.verify("", body, seal), Err(AuthError::Changed));
        }
    }
}
