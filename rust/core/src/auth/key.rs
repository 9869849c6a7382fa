//! The pre-shared key.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Bytes of a [`Proof`].
pub const PROOF_SIZE: usize = 32;

/// An HMAC-SHA-256: proves to a holder of the same key that its sender has the key.
pub type Proof = [u8; PROOF_SIZE];

/// A key. Its `Debug` form does not show it.
#[derive(Clone)]
pub struct AuthKey([u8; PROOF_SIZE]);

impl AuthKey {
    /// The key made of `bytes`, of any length. The caller checks the least length; see
    /// [`crate::config::Config::auth_key`].
    pub fn new(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Derives a key that only holders of this one can derive.
    pub(crate) fn derive(&self, statement: &[&[u8]]) -> Self {
        Self(self.prove(statement))
    }

    /// A proof over `statement`; the length of each part is part of the proof.
    pub(super) fn prove(&self, statement: &[&[u8]]) -> Proof {
        self.mac(statement).finalize().into_bytes().into()
    }

    /// Checks a proof over `statement`, in constant time.
    pub(super) fn verify(&self, statement: &[&[u8]], proof: &Proof) -> bool {
        self.mac(statement).verify_slice(proof).is_ok()
    }

    fn mac(&self, statement: &[&[u8]]) -> Hmac<Sha256> {
        let mut block = [0; BLOCK];
        block.iter_mut().zip(self.0).for_each(|(to, from)| *to = from);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        mac.update(DOMAIN);
        for part in statement {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac
    }
}

impl fmt::Debug for AuthKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthKey(..)")
    }
}

/// Domain separation: these proofs differ from every other use of the same key.
const DOMAIN: &[u8] = b"flagcx-p2p/auth/1/";
/// Bytes of a block of SHA-256, which HMAC fills with the key.
const BLOCK: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_good_for_its_key_and_statement_only() {
        let key = AuthKey::new(b"0123456789abcdef");
        let proof = key.prove(&[b"one", b"two"]);
        assert!(key.verify(&[b"one", b"two"], &proof));
        assert!(!key.verify(&[b"onet", b"wo"], &proof));
        assert!(!key.verify(&[b"one"], &proof));
        assert!(!key.verify(&[b"one", b"two", b""], &proof));
        for other in [&b"0123456789abcdeg"[..], b"0123456789abcdef\0", b""] {
            assert!(!AuthKey::new(other).verify(&[b"one", b"two"], &proof));
        }
        assert!(!key.derive(&[]).verify(&[b"one", b"two"], &proof));
    }

    /// HMAC-SHA-256 under the SHA-256 of the key's bytes, as docs/security.md says: computed once with Python's `hmac`.
    #[test]
    fn a_proof_has_the_bytes_that_other_programs_compute() {
        let hex: String = AuthKey::new(b"0123456789abcdef")
            .prove(&[b"one", b""])
            .map(|byte| format!("{byte:02x}"))
            .concat();
        assert_eq!(hex, "69b41d8e21622c22c062909f0384a70dc87f94eb0ba2b272fe585814ce351e9d");
    }

    #[test]
    fn the_key_is_not_shown() {
        let key = AuthKey::new(b"secret secret secret");
        assert_eq!(format!("{key:?}"), "AuthKey(..)");
    }
}
