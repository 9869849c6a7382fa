//! The exchange of proofs. It does no input or output: the caller sends what it returns and passes on what arrives.

use super::{AuthError, AuthKey, Nonce, Proof, Session};

/// What a socket is for. A proof for one purpose is invalid for every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purpose(&'static str);

impl Purpose {
    /// The handshake of two engines.
    pub const CONTROL: Self = Self("control");
    /// A data connection of the software fabric.
    pub const DATA: Self = Self("data");
    /// A connection to a notification receiver.
    pub const NOTIFICATIONS: Self = Self("notifications");
    /// A control channel that is made anew.
    pub const RESUME: Self = Self("resume");

    /// A purpose of a program around the engine; `name` must differ from the constants above.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }
}

/// The random numbers of one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonces {
    /// The initiator's.
    pub initiator: Nonce,
    /// The responder's.
    pub responder: Nonce,
}

/// The two sides of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Initiator,
    Responder,
}

impl Role {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }

    pub(super) fn name(self) -> &'static [u8] {
        match self {
            Self::Initiator => b"initiator",
            Self::Responder => b"responder",
        }
    }
}

/// An initiator that has made its proof and waits for the responder's.
#[derive(Debug)]
pub struct Initiator(Transcript);

impl Initiator {
    /// Makes the initiator's proof, once both random numbers are known.
    pub fn prove(key: &AuthKey, purpose: Purpose, nonces: Nonces) -> (Self, Proof) {
        let transcript = Transcript { key: key.clone(), purpose, nonces };
        let proof = transcript.prove(Role::Initiator);
        (Self(transcript), proof)
    }

    /// Verifies the responder's proof.
    pub fn verify(self, proof: &Proof) -> Result<Session, AuthError> {
        self.0.verify(Role::Responder, proof)?;
        Ok(self.0.session(Role::Initiator))
    }
}

/// A responder that has sent its random number and waits for the initiator's proof.
#[derive(Debug)]
pub struct Responder(Transcript);

impl Responder {
    /// A responder of these random numbers, its own among them.
    pub fn new(key: &AuthKey, purpose: Purpose, nonces: Nonces) -> Self {
        Self(Transcript { key: key.clone(), purpose, nonces })
    }

    /// Verifies the initiator's proof, and only then makes the responder's. After an error the socket must be closed
    /// without another byte.
    pub fn verify(self, proof: &Proof) -> Result<(Session, Proof), AuthError> {
        self.0.verify(Role::Initiator, proof)?;
        Ok((self.0.session(Role::Responder), self.0.prove(Role::Responder)))
    }
}

/// What a proof covers, apart from its sender's role.
#[derive(Debug)]
struct Transcript {
    key: AuthKey,
    purpose: Purpose,
    nonces: Nonces,
}

impl Transcript {
    fn prove(&self, role: Role) -> Proof {
        self.key.prove(&self.statement(role.name()))
    }

    fn verify(&self, role: Role, proof: &Proof) -> Result<(), AuthError> {
        match self.key.verify(&self.statement(role.name()), proof) {
            true => Ok(()),
            false => Err(AuthError::WrongKey),
        }
    }

    fn session(&self, role: Role) -> Session {
        Session::new(self.key.derive(&self.statement(b"session")), role)
    }

    fn statement<'a>(&'a self, what: &'a [u8]) -> [&'a [u8]; 4] {
        [what, self.purpose.0.as_bytes(), &self.nonces.initiator, &self.nonces.responder]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCES: Nonces = Nonces { initiator: [1; 16], responder: [2; 16] };

    fn key() -> AuthKey {
        AuthKey::new(b"the key of these tests")
    }

    /// Both proofs of an exchange.
    fn proofs(key: &AuthKey, purpose: Purpose, nonces: Nonces) -> [Proof; 2] {
        let (_, initiators) = Initiator::prove(key, purpose, nonces);
        let (_, responders) = Responder::new(key, purpose, nonces).verify(&initiators).unwrap();
        [initiators, responders]
    }

    #[test]
    fn two_sides_with_one_key_have_one_session() {
        let (initiator, proof) = Initiator::prove(&key(), Purpose::CONTROL, NONCES);
        let (responders, proof) = Responder::new(&key(), Purpose::CONTROL, NONCES).verify(&proof).unwrap();
        let initiators = initiator.verify(&proof).unwrap();
        let seal = initiators.seal("message", b"body");
        assert_eq!(responders.verify("message", b"body", &seal), Ok(()));
    }

    #[test]
    fn a_proof_is_good_for_its_key_purpose_role_and_nonces_only() {
        let good = (key(), Purpose::CONTROL, NONCES);
        let swapped = Nonces { initiator: NONCES.responder, responder: NONCES.initiator };
        let others = [
            (AuthKey::new(b"another key"), Purpose::CONTROL, NONCES),
            (key(), Purpose::DATA, NONCES),
            (key(), Purpose::NOTIFICATIONS, NONCES),
            (key(), Purpose::new(""), NONCES),
            (key(), Purpose::CONTROL, Nonces { initiator: [3; 16], ..NONCES }),
            (key(), Purpose::CONTROL, Nonces { responder: [3; 16], ..NONCES }),
            (key(), Purpose::CONTROL, swapped),
        ];
        let refuse = |(key, purpose, nonces): &(AuthKey, Purpose, Nonces), [first, second]: [Proof; 2]| {
            let (initiator, _) = Initiator::prove(key, *purpose, *nonces);
            assert_eq!(initiator.verify(&second).unwrap_err(), AuthError::WrongKey);
            let responder = Responder::new(key, *purpose, *nonces);
            assert_eq!(responder.verify(&first).unwrap_err(), AuthError::WrongKey);
        };
        let [first, second] = proofs(&good.0, good.1, good.2);
        for other in &others {
            refuse(other, [first, second]);
            refuse(&good, proofs(&other.0, other.1, other.2));
        }
        // Reflected to their sender, and all zeros.
        refuse(&good, [second, first]);
        refuse(&good, [[0; 32]; 2]);
        assert_ne!(first, second);
    }

    #[test]
    fn sessions_differ_with_everything_that_proofs_differ_with() {
        let session = |key: AuthKey, purpose, nonces| {
            let (initiator, _) = Initiator::prove(&key, purpose, nonces);
            initiator.verify(&proofs(&key, purpose, nonces)[1]).unwrap().seal("", b"")
        };
        let other = Nonces { responder: [3; 16], ..NONCES };
        let mut seals = vec![
            session(key(), Purpose::CONTROL, NONCES),
            session(key(), Purpose::DATA, NONCES),
            session(key(), Purpose::CONTROL, other),
            session(AuthKey::new(b"another key"), Purpose::CONTROL, NONCES),
        ];
        seals.extend(proofs(&key(), Purpose::CONTROL, NONCES));
        seals.sort_unstable();
        seals.dedup();
        assert_eq!(seals.len(), 6);
    }

    proptest! {
        #[test]
        fn every_flipped_bit_of_a_proof_or_a_nonce_is_noticed(bit in 0..(32 + 32) * 8_usize, initiators: bool) {
            let [first, second] = proofs(&key(), Purpose::DATA, NONCES);
            let mut bytes = [NONCES.initiator, NONCES.responder].concat();
            bytes.extend(if initiators { first } else { second });
            bytes[bit / 8] ^= 1 << (bit % 8);
            let nonces = Nonces { initiator: bytes[..16].try_into().unwrap(), responder: bytes[16..32].try_into().unwrap() };
            let proof: Proof = bytes[32..].try_into().unwrap();
            let refused = match initiators {
                true => Responder::new(&key(), Purpose::DATA, nonces).verify(&proof).is_err(),
                false => Initiator::prove(&key(), Purpose::DATA, nonces).0.verify(&proof).is_err(),
            };
            prop_assert!(refused);
        }
    }
}
