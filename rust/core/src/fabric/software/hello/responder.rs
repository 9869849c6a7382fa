//! The responder's half of a hello, as a state machine over bytes.

use super::{GREETING_SIZE, Greeting, HelloError, OFFER_SIZE, Offer};
use crate::auth::{self, AuthKey, Nonce, Nonces, PROOF_SIZE, Purpose, Session};

/// A responder, and where in the hello it stands.
#[derive(Debug)]
pub(in super::super) struct Responder {
    key: Option<AuthKey>,
    nonce: Nonce,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Greeting,
    /// Greetings are exchanged; the initiator must prove the key.
    Proof(auth::Responder),
    Offer(Option<Session>),
    /// Nothing more is expected.
    Over,
}

/// What a message amounts to.
#[derive(Debug)]
pub(in super::super) enum Heard {
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
    pub(in super::super) reply: Option<[u8; GREETING_SIZE]>,
}

impl Responder {
    /// A responder at the start of a connection. `nonce` is random if there is a key, else zero.
    pub(in super::super) fn new(key: Option<AuthKey>, nonce: Nonce) -> Self {
        Self { key, nonce, phase: Phase::Greeting }
    }

    /// Bytes of the next message.
    pub(in super::super) fn expects(&self) -> usize {
        match self.phase {
            Phase::Greeting => GREETING_SIZE,
            Phase::Proof(_) => PROOF_SIZE,
            Phase::Offer(_) => OFFER_SIZE,
            Phase::Over => 0,
        }
    }

    /// Reads the next message: as many bytes as are expected.
    pub(in super::super) fn hear(&mut self, message: &[u8]) -> Result<Heard, Refusal> {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Greeting => self.greeting(message.try_into().map_err(|_| malformed())?),
            Phase::Proof(responder) => {
                let proof = message.try_into().map_err(|_| malformed())?;
                let (session, proof) = responder.verify(proof).map_err(silent)?;
                self.phase = Phase::Offer(Some(session));
                Ok(Heard::Reply(proof.to_vec()))
            }
            Phase::Offer(session) => {
                let message = message.try_into().map_err(|_| malformed())?;
                let offer = Offer::decode(message, session.as_ref()).map_err(silent)?;
                Ok(Heard::Offer(offer, session))
            }
            Phase::Over => Err(malformed()),
        }
    }

    fn greeting(&mut self, message: &[u8; GREETING_SIZE]) -> Result<Heard, Refusal> {
        let reply = Greeting { nonce: self.nonce, keyed: self.key.is_some() }.encode();
        let greeting = match Greeting::decode(message) {
            Ok(greeting) => greeting,
            // A reply tells a peer of another version what this side speaks.
            Err(error @ HelloError::Version(_)) => return Err(Refusal { error, reply: Some(reply) }),
            Err(error) => return Err(silent(error)),
        };
        greeting
            .check_keyed(self.key.is_some())
            .map_err(|error| Refusal { error: error.into(), reply: Some(reply) })?;
        self.phase = match &self.key {
            None => Phase::Offer(None),
            Some(key) => {
                let nonces = Nonces { initiator: greeting.nonce, responder: self.nonce };
                Phase::Proof(auth::Responder::new(key, Purpose::DATA, nonces))
            }
        };
        Ok(Heard::Reply(reply.to_vec()))
    }
}

/// All that a client of the data listener is sent that says `bytes`, up to its offer. `nonce` is the responder's random
/// number.
pub fn replies_to(bytes: &[u8], key: Option<&AuthKey>, nonce: Nonce) -> Vec<u8> {
    let (mut responder, mut rest, mut replies) = (Responder::new(key.cloned(), nonce), bytes, Vec::new());
    while let Some((message, next)) = rest.split_at_checked(responder.expects()) {
        rest = next;
        match responder.hear(message) {
            Ok(Heard::Reply(reply)) => replies.extend(reply),
            Err(Refusal { reply: Some(reply), .. }) => replies.extend(reply),
            Ok(Heard::Offer(..)) | Err(_) => {}
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
    use super::super::{Answer, VERSION};
    use super::*;
    use crate::auth::{AuthError, Initiator, Proof};

    const NONCE: Nonce = [2; 16];
    const NONCES: Nonces = Nonces { initiator: [1; 16], responder: NONCE };

    fn key() -> AuthKey {
        AuthKey::new(b"secret")
    }

    fn greeting(keyed: bool) -> [u8; GREETING_SIZE] {
        Greeting { nonce: NONCES.initiator, keyed }.encode()
    }

    fn reply(heard: Result<Heard, Refusal>) -> Vec<u8> {
        match heard {
            Ok(Heard::Reply(reply)) => reply,
            other => panic!("{other:?}"),
        }
    }

    /// A responder that has sent its random number.
    fn greeted() -> Responder {
        let mut responder = Responder::new(Some(key()), NONCE);
        assert_eq!(reply(responder.hear(&greeting(true))), Greeting { nonce: NONCE, keyed: true }.encode());
        responder
    }

    #[test]
    fn without_a_key_an_offer_follows_the_greetings() {
        let mut responder = Responder::new(None, [0; 16]);
        assert_eq!(responder.expects(), 32);
        let ours = Greeting { nonce: [0; 16], keyed: false }.encode();
        assert_eq!(reply(responder.hear(&ours)), ours);
        assert_eq!(responder.expects(), OFFER_SIZE);
        assert!(
            matches!(responder.hear(&offer().encode(None)), Ok(Heard::Offer(heard, None)) if heard == offer())
        );
        assert_eq!(responder.hear(&[]).unwrap_err(), malformed());
    }

    #[test]
    fn with_a_key_both_sides_prove_it_before_the_offer() {
        let mut responder = greeted();
        assert_eq!(responder.expects(), 32);
        let (initiator, proof) = Initiator::prove(&key(), Purpose::DATA, NONCES);
        let proof: Proof = reply(responder.hear(&proof)).try_into().unwrap();
        let session = initiator.verify(&proof).unwrap();
        let Ok(Heard::Offer(heard, Some(theirs))) = responder.hear(&offer().encode(Some(&session))) else {
            panic!("no offer");
        };
        assert_eq!(heard, offer());
        assert_eq!(Answer::decode(&answer().encode(Some(&theirs)), Some(&session)), Ok(answer()));
    }

    /// A greeting is all that it gets, and in it only the random number is not the same each time.
    #[test]
    fn an_initiator_without_the_key_gets_a_random_number_and_nothing_else() {
        let (_, guess) = Initiator::prove(&AuthKey::new(b"guess"), Purpose::DATA, NONCES);
        let (_, elsewhere) = Initiator::prove(&key(), Purpose::CONTROL, NONCES);
        for proof in [guess, elsewhere, [0; 32]] {
            assert_eq!(greeted().hear(&proof).unwrap_err(), silent(AuthError::WrongKey));
        }
        let mut responder = Responder::new(Some(key()), NONCE);
        let ours = Greeting { nonce: NONCE, keyed: true }.encode();
        let refusal = Refusal { error: AuthError::KeyMissing.into(), reply: Some(ours) };
        assert_eq!(responder.hear(&greeting(false)).unwrap_err(), refusal);
        assert_eq!(
            Responder::new(Some(key()), NONCE).hear(&[0x41; 32]).unwrap_err(),
            silent(HelloError::NotOurs)
        );
    }

    #[test]
    fn refusals_that_the_initiator_can_name_come_with_a_greeting() {
        let ours = Greeting { nonce: [0; 16], keyed: false }.encode();
        let refusal = Refusal { error: AuthError::KeyRequired.into(), reply: Some(ours) };
        assert_eq!(Responder::new(None, [0; 16]).hear(&greeting(true)).unwrap_err(), refusal);
        let mut other = greeting(false);
        other[8] = VERSION as u8 + 1;
        let refusal = Refusal { error: HelloError::Version(VERSION + 1), reply: Some(ours) };
        assert_eq!(Responder::new(None, [0; 16]).hear(&other).unwrap_err(), refusal);
    }

    proptest! {
        #[test]
        fn any_messages_are_heard_without_panic(messages: Vec<Vec<u8>>, keyed: bool, greeted: bool) {
            let mut responder = Responder::new(keyed.then(key), NONCE);
            if greeted {
                reply(responder.hear(&greeting(keyed)));
            }
            for message in messages {
                let mut message = message;
                message.resize(responder.expects(), 0);
                prop_assert!(!keyed || responder.hear(&message).is_err());
            }
        }
    }
}
