//! The responder's half of a hello, as a state machine over bytes.

use super::{DataHello, HELLO_SIZE, HelloError, OFFER_SIZE, Offer};
use crate::auth::{self, AuthKey, Nonce, Nonces, PROOF_SIZE, Purpose, Session};

/// A responder, and where in the hello it stands.
#[derive(Debug)]
pub(in super::super) struct HelloResponder {
    key: Option<AuthKey>,
    nonce: Nonce,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Hello,
    /// Hellos are exchanged; the initiator must prove the key.
    Proof(auth::Responder),
    Offer(Option<Session>),
    /// Nothing more is expected.
    Over,
}

/// What a message amounts to.
#[derive(Debug)]
pub(in super::super) enum Received {
    /// These bytes must be sent.
    Reply(Vec<u8>),
    /// An offer, which must be answered under the session if there is one.
    Offer(Offer, Option<Session>),
}

/// The connection must be closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Refusal {
    pub(in super::super) error: HelloError,
    /// Must be sent before, if anything: then the initiator can say why.
    pub(in super::super) reply: Option<[u8; HELLO_SIZE]>,
}

impl HelloResponder {
    /// A responder at the start of a connection. `nonce` is random if there is a key, else zero.
    pub(in super::super) fn new(key: Option<AuthKey>, nonce: Nonce) -> Self {
        Self { key, nonce, phase: Phase::Hello }
    }

    /// Bytes of the next message.
    pub(in super::super) fn expects(&self) -> usize {
        match self.phase {
            Phase::Hello => HELLO_SIZE,
            Phase::Proof(_) => PROOF_SIZE,
            Phase::Offer(_) => OFFER_SIZE,
            Phase::Over => 0,
        }
    }

    /// Reads the next message: as many bytes as are expected.
    pub(in super::super) fn receive(&mut self, message: &[u8]) -> Result<Received, Refusal> {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Hello => self.hello(message.try_into().map_err(|_| malformed())?),
            Phase::Proof(responder) => {
                let proof = message.try_into().map_err(|_| malformed())?;
                let (session, proof) = responder.verify(proof).map_err(silent)?;
                self.phase = Phase::Offer(Some(session));
                Ok(Received::Reply(proof.to_vec()))
            }
            Phase::Offer(session) => {
                let message = message.try_into().map_err(|_| malformed())?;
                let offer = Offer::decode(message, session.as_ref()).map_err(silent)?;
                Ok(Received::Offer(offer, session))
            }
            Phase::Over => Err(malformed()),
        }
    }

    fn hello(&mut self, message: &[u8; HELLO_SIZE]) -> Result<Received, Refusal> {
        let reply = DataHello { nonce: self.nonce, keyed: self.key.is_some() }.encode();
        let hello = match DataHello::decode(message) {
            Ok(hello) => hello,
            // A reply tells a peer of another version what this side speaks.
            Err(error @ HelloError::Version(_)) => return Err(Refusal { error, reply: Some(reply) }),
            Err(error) => return Err(silent(error)),
        };
        hello
            .check_keyed(self.key.is_some())
            .map_err(|error| Refusal { error: error.into(), reply: Some(reply) })?;
        self.phase = match &self.key {
            None => Phase::Offer(None),
            Some(key) => {
                let nonces = Nonces { initiator: hello.nonce, responder: self.nonce };
                Phase::Proof(auth::Responder::new(key, Purpose::DATA, nonces))
            }
        };
        Ok(Received::Reply(reply.to_vec()))
    }
}

/// All that a client of the data listener is sent that says `bytes`, up to its offer. `nonce` is the responder's random
/// number.
pub fn replies_to(bytes: &[u8], key: Option<&AuthKey>, nonce: Nonce) -> Vec<u8> {
    let (mut responder, mut rest, mut replies) =
        (HelloResponder::new(key.cloned(), nonce), bytes, Vec::new());
    while let Some((message, next)) = rest.split_at_checked(responder.expects()) {
        rest = next;
        match responder.receive(message) {
            Ok(Received::Reply(reply)) => replies.extend(reply),
            Err(Refusal { reply: Some(reply), .. }) => replies.extend(reply),
            Ok(Received::Offer(..)) | Err(_) => {}
        }
        if matches!(responder.phase, Phase::Over) {
            break;
        }
    }
    replies
}

/// Nothing is said to the initiator.
fn silent(error: impl Into<HelloError>) -> Refusal {
    Refusal { error: error.into(), reply: None }
}

fn malformed() -> Refusal {
    silent(HelloError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::message::tests::{answer, offer};
    use super::super::{HelloAnswer, VERSION};
    use super::*;
    use crate::auth::{AuthError, Initiator, Proof};

    const NONCE: Nonce = [2; 16];
    const NONCES: Nonces = Nonces { initiator: [1; 16], responder: NONCE };

    fn key() -> AuthKey {
        AuthKey::new(b"secret")
    }

    fn hello(keyed: bool) -> [u8; HELLO_SIZE] {
        DataHello { nonce: NONCES.initiator, keyed }.encode()
    }

    fn reply(received: Result<Received, Refusal>) -> Vec<u8> {
        match received {
            Ok(Received::Reply(reply)) => reply,
            other => panic!("{other:?}"),
        }
    }

    /// A responder that has sent its random number.
    fn after_hello() -> HelloResponder {
        let mut responder = HelloResponder::new(Some(key()), NONCE);
        assert_eq!(reply(responder.receive(&hello(true))), DataHello { nonce: NONCE, keyed: true }.encode());
        responder
    }

    #[test]
    fn without_a_key_an_offer_follows_the_hellos() {
        let mut responder = HelloResponder::new(None, [0; 16]);
        assert_eq!(responder.expects(), 32);
        let ours = DataHello { nonce: [0; 16], keyed: false }.encode();
        assert_eq!(reply(responder.receive(&ours)), ours);
        assert_eq!(responder.expects(), OFFER_SIZE);
        assert!(
            matches!(responder.receive(&offer().encode(None)), Ok(Received::Offer(received, None)) if received == offer())
        );
        assert_eq!(responder.receive(&[]).unwrap_err(), malformed());
    }

    #[test]
    fn with_a_key_both_sides_prove_it_before_the_offer() {
        let mut responder = after_hello();
        assert_eq!(responder.expects(), 32);
        let (initiator, proof) = Initiator::prove(&key(), Purpose::DATA, NONCES);
        let proof: Proof = reply(responder.receive(&proof)).try_into().unwrap();
        let session = initiator.verify(&proof).unwrap();
        let Ok(Received::Offer(received, Some(theirs))) = responder.receive(&offer().encode(Some(&session)))
        else {
            panic!("no offer");
        };
        assert_eq!(received, offer());
        assert_eq!(HelloAnswer::decode(&answer().encode(Some(&theirs)), Some(&session)), Ok(answer()));
    }

    /// A hello is all that it gets, and in it only the random number is not the same each time.
    #[test]
    fn an_initiator_without_the_key_gets_a_random_number_and_nothing_else() {
        let (_, guess) = Initiator::prove(&AuthKey::new(b"guess"), Purpose::DATA, NONCES);
        let (_, elsewhere) = Initiator::prove(&key(), Purpose::CONTROL, NONCES);
        for proof in [guess, elsewhere, [0; 32]] {
            assert_eq!(after_hello().receive(&proof).unwrap_err(), silent(AuthError::WrongKey));
        }
        let mut responder = HelloResponder::new(Some(key()), NONCE);
        let ours = DataHello { nonce: NONCE, keyed: true }.encode();
        let refusal = Refusal { error: AuthError::KeyMissing.into(), reply: Some(ours) };
        assert_eq!(responder.receive(&hello(false)).unwrap_err(), refusal);
        assert_eq!(
            HelloResponder::new(Some(key()), NONCE).receive(&[0x41; 32]).unwrap_err(),
            silent(HelloError::NotOurs)
        );
    }

    #[test]
    fn refusals_that_the_initiator_can_name_come_with_a_hello() {
        let ours = DataHello { nonce: [0; 16], keyed: false }.encode();
        let refusal = Refusal { error: AuthError::KeyRequired.into(), reply: Some(ours) };
        assert_eq!(HelloResponder::new(None, [0; 16]).receive(&hello(true)).unwrap_err(), refusal);
        let mut other = hello(false);
        other[8] = VERSION as u8 + 1;
        let refusal = Refusal { error: HelloError::Version(VERSION + 1), reply: Some(ours) };
        assert_eq!(HelloResponder::new(None, [0; 16]).receive(&other).unwrap_err(), refusal);
    }

    proptest! {
        #[test]
        fn any_messages_are_received_without_panic(messages: Vec<Vec<u8>>, keyed: bool, is_after_hello: bool) {
            let mut responder = HelloResponder::new(keyed.then(key), NONCE);
            if is_after_hello {
                reply(responder.receive(&hello(keyed)));
            }
            for message in messages {
                let mut message = message;
                message.resize(responder.expects(), 0);
                prop_assert!(!keyed || responder.receive(&message).is_err());
            }
        }
    }
}
