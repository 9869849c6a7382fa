//! The messages of a hello: pure encoding and decoding. All numbers are little-endian, all messages have a fixed size.

use super::fields::{
    ADDRESS, IDENTITY, Reader, Writer, decode_address, decode_identity, encode_address, encode_identity,
};
use super::{HelloError, VERSION};
use crate::auth::{AuthError, NONCE_SIZE, Nonce, PROOF_SIZE, Session};
use crate::fabric::QpAddress;
use crate::fabric::software::identity::Identity;

/// Size of a [`DataHello`] on the wire.
pub(in super::super) const HELLO_SIZE: usize = 16 + NONCE_SIZE;
/// Size of an [`Offer`] on the wire, its seal included.
pub(in super::super) const OFFER_SIZE: usize = PROOF_SIZE + OFFER_BODY;
/// Size of an [`HelloAnswer`] on the wire, its seal included.
pub(in super::super) const ANSWER_SIZE: usize = PROOF_SIZE + ANSWER_BODY;

/// The first message of each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct DataHello {
    /// Zero without a key.
    pub(in super::super) nonce: Nonce,
    /// Whether the sender has a pre-shared key.
    pub(in super::super) keyed: bool,
}

impl DataHello {
    pub(in super::super) fn encode(&self) -> [u8; HELLO_SIZE] {
        let mut out = Writer::new();
        out.put(&MAGIC).put(&VERSION.to_le_bytes()).put(&[u8::from(self.keyed)]).put(&[0; 5]);
        out.put(&self.nonce);
        out.finish()
    }

    pub(in super::super) fn decode(bytes: &[u8; HELLO_SIZE]) -> Result<Self, HelloError> {
        let mut input = Reader(bytes);
        if input.take::<8>()? != MAGIC {
            return Err(HelloError::NotOurs);
        }
        let version = input.u16()?;
        if version != VERSION {
            return Err(HelloError::Version(version));
        }
        let [keyed] = input.take::<1>()?;
        input.take::<5>()?;
        Ok(Self { nonce: input.take()?, keyed: keyed != 0 })
    }

    /// Whether both sides have a key or neither, seen from the side that has got this hello.
    pub(in super::super) fn check_keyed(&self, keyed: bool) -> Result<(), AuthError> {
        match (self.keyed, keyed) {
            (true, false) => Err(AuthError::KeyRequired),
            (false, true) => Err(AuthError::KeyMissing),
            _ => Ok(()),
        }
    }
}

/// What the initiator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Offer {
    /// Its queue pair.
    pub(in super::super) sender: QpAddress,
    /// The responder's queue pair that it wants to reach.
    pub(in super::super) target: u32,
    pub(in super::super) identity: Identity,
}

impl Offer {
    pub(in super::super) fn encode(&self, session: Option<&Session>) -> [u8; OFFER_SIZE] {
        let mut body = Writer::<OFFER_BODY>::new();
        body.put(&encode_address(&self.sender)).put(&self.target.to_le_bytes()).put(&[0; 4]);
        body.put(&encode_identity(&self.identity));
        seal(session, OFFER, &body.finish())
    }

    pub(in super::super) fn decode(
        bytes: &[u8; OFFER_SIZE],
        session: Option<&Session>,
    ) -> Result<Self, HelloError> {
        let mut input = unseal(bytes, session, OFFER)?;
        let sender = decode_address(&input.take()?)?;
        let target = input.u32()?;
        input.take::<4>()?;
        Ok(Self { sender, target, identity: decode_identity(&input.take()?)? })
    }
}

/// How the responder stands to an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(in super::super) enum Reception {
    Welcome = 0,
    NoSuchQueuePair = 1,
    ConnectedElsewhere = 2,
    InError = 3,
}

impl Reception {
    pub(in super::super) fn explain(self) -> &'static str {
        match self {
            Self::Welcome => "welcome",
            Self::NoSuchQueuePair => "that process has no such queue pair",
            Self::ConnectedElsewhere => "that queue pair is connected to another one",
            Self::InError => "that queue pair is in ERROR",
        }
    }
}

/// What the responder says to an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct HelloAnswer {
    pub(in super::super) reception: Reception,
    /// Slot of the target in the queue pair table.
    pub(in super::super) slot: u32,
    /// To be shown at the Unix socket.
    pub(in super::super) token: u64,
    pub(in super::super) identity: Identity,
    /// Abstract name of the Unix socket where the shared tables are given out; `len` 0: not offered.
    pub(in super::super) name: SocketName,
}

/// Name of an abstract Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct SocketName {
    bytes: [u8; NAME],
    len: u8,
}

impl SocketName {
    pub(in super::super) const NONE: Self = Self { bytes: [0; NAME], len: 0 };

    pub(in super::super) fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; NAME];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self { bytes, len: u8::try_from(text.len()).ok()? })
    }

    /// `None` when not offered.
    pub(in super::super) fn get(&self) -> Option<&[u8]> {
        self.bytes.get(..usize::from(self.len)).filter(|name| !name.is_empty())
    }
}

impl HelloAnswer {
    pub(in super::super) fn encode(&self, session: Option<&Session>) -> [u8; ANSWER_SIZE] {
        let mut body = Writer::<ANSWER_BODY>::new();
        body.put(&(self.reception as u16).to_le_bytes()).put(&[self.name.len, 0, 0, 0, 0, 0]);
        body.put(&self.slot.to_le_bytes()).put(&[0; 4]).put(&self.token.to_le_bytes());
        body.put(&encode_identity(&self.identity)).put(&self.name.bytes);
        seal(session, ANSWER, &body.finish())
    }

    pub(in super::super) fn decode(
        bytes: &[u8; ANSWER_SIZE],
        session: Option<&Session>,
    ) -> Result<Self, HelloError> {
        let mut input = unseal(bytes, session, ANSWER)?;
        let reception = match input.u16()? {
            0 => Reception::Welcome,
            1 => Reception::NoSuchQueuePair,
            2 => Reception::ConnectedElsewhere,
            3 => Reception::InError,
            _ => return Err(HelloError::Malformed),
        };
        let [len, ..] = input.take::<6>()?;
        let slot = input.u32()?;
        input.take::<4>()?;
        let token = input.u64()?;
        let identity = decode_identity(&input.take()?)?;
        let bytes = input.take::<NAME>()?;
        if usize::from(len) > NAME {
            return Err(HelloError::Malformed);
        }
        Ok(Self { reception, slot, token, identity, name: SocketName { bytes, len } })
    }
}

/// Puts the session's seal in front of `body`; zeros without a session.
fn seal<const BODY: usize, const SIZE: usize>(
    session: Option<&Session>,
    label: &str,
    body: &[u8; BODY],
) -> [u8; SIZE] {
    let mut out = Writer::<SIZE>::new();
    out.put(&session.map_or([0; PROOF_SIZE], |session| session.seal(label, body))).put(body);
    out.finish()
}

fn unseal<'a>(bytes: &'a [u8], session: Option<&Session>, label: &str) -> Result<Reader<'a>, HelloError> {
    let (seal, body) = bytes.split_first_chunk().ok_or(HelloError::Malformed)?;
    if let Some(session) = session {
        session.verify(label, body, seal)?;
    }
    Ok(Reader(body))
}

/// First bytes of every hello.
const MAGIC: [u8; 8] = *b"FCXP2Psw";
const NAME: usize = 64;
const OFFER_BODY: usize = ADDRESS + 8 + IDENTITY;
const ANSWER_BODY: usize = 24 + IDENTITY + NAME;
const OFFER: &str = "offer";
const ANSWER: &str = "answer";

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::{AuthKey, Initiator, Nonces, Purpose, Responder};
    use crate::fabric::LINK_SOFTWARE;

    /// Both sides of a session: the initiator's, the responder's.
    pub(in super::super) fn sessions() -> [Session; 2] {
        let (key, nonces) = (AuthKey::new(b"secret"), Nonces { initiator: [1; 16], responder: [2; 16] });
        let (initiator, proof) = Initiator::prove(&key, Purpose::DATA, nonces);
        let (responders, proof) = Responder::new(&key, Purpose::DATA, nonces).verify(&proof).unwrap();
        [initiator.verify(&proof).unwrap(), responders]
    }

    fn identity() -> Identity {
        Identity { pid: 1, uid: 2, boot_id: [3; 16], incarnation: 4, probe: [5; 16], probe_address: 6 }
    }

    pub(in super::super) fn offer() -> Offer {
        let sender = QpAddress { qpn: 7, gid: [8; 16], port: 1, link_layer: LINK_SOFTWARE, lid: 9, mtu: 5 };
        Offer { sender, target: 10, identity: identity() }
    }

    pub(in super::super) fn answer() -> HelloAnswer {
        let name = SocketName::new("a-name").unwrap();
        HelloAnswer { reception: Reception::InError, slot: 11, token: 12, identity: identity(), name }
    }

    #[test]
    fn messages_survive_the_wire() {
        for hello in [DataHello { nonce: [0; 16], keyed: false }, DataHello { nonce: [7; 16], keyed: true }] {
            assert_eq!(DataHello::decode(&hello.encode()), Ok(hello));
        }
        let [ours, theirs] = sessions();
        for (ours, theirs) in [(None, None), (Some(&ours), Some(&theirs))] {
            assert_eq!(Offer::decode(&offer().encode(ours), theirs), Ok(offer()));
            let decoded = HelloAnswer::decode(&answer().encode(theirs), ours).unwrap();
            assert_eq!(decoded, answer());
            assert_eq!(decoded.name.get(), Some(b"a-name".as_slice()));
        }
        assert_eq!(SocketName::NONE.get(), None);
        assert!(SocketName::new(&"x".repeat(65)).is_none());
    }

    #[test]
    fn both_sides_have_a_key_or_neither() {
        let hello = |keyed| DataHello { nonce: [0; 16], keyed };
        assert_eq!(hello(true).check_keyed(false), Err(AuthError::KeyRequired));
        assert_eq!(hello(false).check_keyed(true), Err(AuthError::KeyMissing));
        assert!(hello(true).check_keyed(true).is_ok() && hello(false).check_keyed(false).is_ok());
    }

    #[test]
    fn a_seal_is_good_for_one_direction_and_one_kind_of_message() {
        let [ours, theirs] = sessions();
        let changed = Err(HelloError::Auth(AuthError::Changed));
        assert_eq!(Offer::decode(&offer().encode(Some(&ours)), Some(&ours)), changed);
        assert_eq!(Offer::decode(&offer().encode(None), Some(&theirs)), changed);
        assert!(unseal(&offer().encode(Some(&ours)), Some(&theirs), ANSWER).is_err());
    }

    #[test]
    fn other_programs_and_other_versions_are_told_apart() {
        let mut bytes = DataHello { nonce: [0; 16], keyed: false }.encode();
        bytes[8] = 9;
        assert_eq!(DataHello::decode(&bytes), Err(HelloError::Version(9)));
        bytes[0] = b'H';
        assert_eq!(DataHello::decode(&bytes), Err(HelloError::NotOurs));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(bytes: [[u8; 32]; 6]) {
            let bytes = bytes.concat();
            let _ = DataHello::decode(bytes.first_chunk().unwrap());
            let _ = Offer::decode(bytes.first_chunk().unwrap(), None);
            let _ = HelloAnswer::decode(bytes.first_chunk().unwrap(), None);
        }

        #[test]
        fn every_flipped_bit_of_a_keyed_offer_is_noticed(bit in 0..OFFER_SIZE * 8) {
            let [ours, theirs] = sessions();
            let mut bytes = offer().encode(Some(&ours));
            bytes[bit / 8] ^= 1 << (bit % 8);
            let changed = Err(HelloError::Auth(AuthError::Changed));
            prop_assert_eq!(Offer::decode(&bytes, Some(&theirs)), changed);
        }
    }
}
