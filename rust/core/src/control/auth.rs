//! The pre-shared key: proofs that both ends know it, without ever sending it.

use std::fmt;
use std::io;
use std::sync::Arc;

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Bytes of a proof (HMAC-SHA-256).
pub const PROOF_SIZE: usize = 32;

/// A key. Its `Debug` form does not show it.
#[derive(Clone)]
pub struct AuthKey(Arc<[u8]>);

impl AuthKey {
    /// A key of these bytes; [`crate::config::Config::auth_key`] reads and checks the file.
    pub fn new(bytes: Arc<[u8]>) -> Self {
        Self(bytes)
    }

    /// A proof over `parts`. `purpose` keeps proofs of one kind from being used as another; parts are told apart by
    /// their lengths.
    pub fn prove(&self, purpose: &str, parts: &[&[u8]]) -> [u8; PROOF_SIZE] {
        self.mac(purpose, parts).finalize().into_bytes().into()
    }

    /// Checks a proof in constant time.
    pub fn verify(&self, purpose: &str, parts: &[&[u8]], proof: &[u8]) -> bool {
        self.mac(purpose, parts).verify_slice(proof).is_ok()
    }

    /// The key of one session: good for its other sockets only.
    pub fn session(&self, initiator_nonce: &[u8], responder_nonce: &[u8]) -> Self {
        Self(Arc::new(self.prove("session", &[initiator_nonce, responder_nonce])))
    }

    fn mac(&self, purpose: &str, parts: &[&[u8]]) -> Hmac<Sha256> {
        // HMAC takes keys of every length: an error cannot happen, and an empty key would be no worse than a wrong one.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0)
            .unwrap_or_else(|_| Hmac::<Sha256>::new(&Default::default()));
        mac.update(b"flagcx-p2p/1/");
        for part in std::iter::once(purpose.as_bytes()).chain(parts.iter().copied()) {
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

/// Unpredictable bytes.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(bytes: &[u8]) -> AuthKey {
        AuthKey::new(bytes.into())
    }

    #[test]
    fn a_proof_holds_for_its_key_purpose_and_parts_only() {
        let key_a = key(b"0123456789abcdef");
        let proof = key_a.prove("hello", &[b"one", b"two"]);
        assert!(key_a.verify("hello", &[b"one", b"two"], &proof));
        assert!(!key_a.verify("hullo", &[b"one", b"two"], &proof));
        assert!(!key_a.verify("hello", &[b"onet", b"wo"], &proof));
        assert!(!key_a.verify("hello", &[b"one"], &proof));
        assert!(!key_a.verify("hello", &[b"one", b"two"], &proof[..31]));
        assert!(!key(b"0123456789abcdeg").verify("hello", &[b"one", b"two"], &proof));
        assert!(!key_a.session(b"a", b"b").verify("hello", &[b"one", b"two"], &proof));
    }

    #[test]
    fn the_key_is_not_shown() {
        assert!(!format!("{:?}", key(b"secret secret secret")).contains("secret"));
    }

    #[test]
    fn random_bytes_differ() {
        assert_ne!(random::<16>().unwrap(), random::<16>().unwrap());
    }
}
