//! What two processes say to each other before bytes flow: pure encoding and decoding.
//!
//! ```text
//! initiator                         responder
//!   Greeting{nonce}         ──▶
//!                           ◀──   Greeting{nonce, proof of both nonces}
//!   Offer{.., proof}        ──▶
//!                           ◀──   Answer{.., proof}
//! ```
//!
//! With a pre-shared key each proof is an HMAC-SHA256 over its sender's role, both nonces and the message's body, so
//! neither side says more than a nonce to somebody who does not know the key. Without one, proofs are zero. All
//! numbers are little-endian, all messages have a fixed size.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::identity::Identity;
use crate::fabric::{LINK_SOFTWARE, QpAddress};

/// First bytes of every greeting.
const MAGIC: [u8; 8] = *b"FCXP2Psw";
/// Changes with the hello, the frames, or the layout of the shared tables.
pub(super) const VERSION: u16 = 1;
const PROOF: usize = 32;
const NONCE: usize = 16;
const ADDRESS: usize = 32;
const IDENTITY: usize = 64;
const NAME: usize = 64;

/// Size of a [`Greeting`] on the wire.
pub(super) const GREETING_SIZE: usize = 16 + NONCE + PROOF;
/// Size of an [`Offer`] on the wire, its proof included.
pub(super) const OFFER_SIZE: usize = PROOF + OFFER_BODY;
/// Size of an [`Answer`] on the wire, its proof included.
pub(super) const ANSWER_SIZE: usize = PROOF + ANSWER_BODY;
const OFFER_BODY: usize = ADDRESS + 8 + IDENTITY;
const ANSWER_BODY: usize = 24 + IDENTITY + NAME;

/// Random bytes of one side.
pub(super) type Nonce = [u8; NONCE];

/// Why a message is not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HelloError {
    #[error("what answers there is not a software fabric of this engine")]
    NotOurs,
    #[error(
        "it speaks version {0} of the software fabric's hello, this side {VERSION}: use the same release on both"
    )]
    Version(u16),
    #[error("it requires a pre-shared key and this side has none")]
    KeyRequired,
    #[error("it has no pre-shared key and this side requires one")]
    KeyMissing,
    #[error("its pre-shared key is another one")]
    WrongKey,
    #[error("its hello makes no sense")]
    Malformed,
}

/// The first message of each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) nonce: Nonce,
    /// Whether the sender has a pre-shared key.
    pub(super) keyed: bool,
    /// Zero from the initiator, which does not know the other nonce yet.
    proof: [u8; PROOF],
}

impl Greeting {
    pub(super) fn of_initiator(nonce: Nonce, key: Option<&[u8]>) -> Self {
        Self { nonce, keyed: key.is_some(), proof: [0; PROOF] }
    }

    pub(super) fn of_responder(nonces: &Nonces, key: Option<&[u8]>) -> Self {
        let proof = nonces.prove(key, Role::Greeting, &[]);
        Self { nonce: nonces.responder, keyed: key.is_some(), proof }
    }

    pub(super) fn encode(&self) -> [u8; GREETING_SIZE] {
        let mut out = Writer::new();
        out.put(&MAGIC).put(&VERSION.to_le_bytes()).put(&[u8::from(self.keyed)]).put(&[0; 5]);
        out.put(&self.nonce).put(&self.proof);
        out.finish()
    }

    pub(super) fn decode(bytes: &[u8; GREETING_SIZE]) -> Result<Self, HelloError> {
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
        Ok(Self { nonce: input.take()?, keyed: keyed != 0, proof: input.take()? })
    }

    /// Whether both sides have a key or neither, seen from the side that has `key`.
    pub(super) fn check_keyed(&self, key: Option<&[u8]>) -> Result<(), HelloError> {
        match (self.keyed, key.is_some()) {
            (true, false) => Err(HelloError::KeyRequired),
            (false, true) => Err(HelloError::KeyMissing),
            _ => Ok(()),
        }
    }

    /// The initiator's check of the responder's greeting.
    pub(super) fn verify(&self, nonces: &Nonces, key: Option<&[u8]>) -> Result<(), HelloError> {
        self.check_keyed(key)?;
        nonces.verify(key, Role::Greeting, &[], &self.proof)
    }
}

/// Whose proof it is, so that none can be sent back to where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Role {
    Greeting = 1,
    Offer = 2,
    Answer = 3,
}

/// The nonces of one hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nonces {
    pub(super) initiator: Nonce,
    pub(super) responder: Nonce,
}

impl Nonces {
    fn prove(&self, key: Option<&[u8]>, role: Role, body: &[u8]) -> [u8; PROOF] {
        key.and_then(|key| Some(self.mac(key, role, body)?.finalize().into_bytes().into()))
            .unwrap_or([0; PROOF])
    }

    fn verify(
        &self,
        key: Option<&[u8]>,
        role: Role,
        body: &[u8],
        proof: &[u8; PROOF],
    ) -> Result<(), HelloError> {
        let expected = self.prove(key, role, body);
        if bool::from(expected.ct_eq(proof)) { Ok(()) } else { Err(HelloError::WrongKey) }
    }

    fn mac(&self, key: &[u8], role: Role, body: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
        mac.update(&MAGIC);
        mac.update(&[role as u8]);
        mac.update(&self.initiator);
        mac.update(&self.responder);
        mac.update(body);
        Some(mac)
    }
}

/// What the initiator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    /// Its queue pair.
    pub(super) sender: QpAddress,
    /// The responder's queue pair that it wants to reach.
    pub(super) target: u32,
    pub(super) identity: Identity,
}

impl Offer {
    pub(super) fn encode(&self, nonces: &Nonces, key: Option<&[u8]>) -> [u8; OFFER_SIZE] {
        let mut body = Writer::<OFFER_BODY>::new();
        body.put(&encode_address(&self.sender)).put(&self.target.to_le_bytes()).put(&[0; 4]);
        body.put(&encode_identity(&self.identity));
        seal(nonces, key, Role::Offer, &body.finish())
    }

    pub(super) fn decode(
        bytes: &[u8; OFFER_SIZE],
        nonces: &Nonces,
        key: Option<&[u8]>,
    ) -> Result<Self, HelloError> {
        let mut input = unseal(bytes, nonces, key, Role::Offer)?;
        let sender = decode_address(&input.take()?)?;
        let target = input.u32()?;
        input.take::<4>()?;
        Ok(Self { sender, target, identity: decode_identity(&input.take()?)? })
    }
}

/// How the responder stands to an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Reception {
    Welcome = 0,
    NoSuchQueuePair = 1,
    ConnectedElsewhere = 2,
    InError = 3,
}

impl Reception {
    pub(super) fn explain(self) -> &'static str {
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
pub(super) struct Answer {
    pub(super) reception: Reception,
    /// Slot of the target in the queue pair table.
    pub(super) slot: u32,
    /// To be shown at the Unix socket.
    pub(super) token: u64,
    pub(super) identity: Identity,
    /// Abstract name of the Unix socket where the shared tables are given out; `len` 0: not offered.
    pub(super) name: SocketName,
}

/// Name of an abstract Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SocketName {
    bytes: [u8; NAME],
    len: u8,
}

impl SocketName {
    pub(super) const NONE: Self = Self { bytes: [0; NAME], len: 0 };

    pub(super) fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; NAME];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self { bytes, len: u8::try_from(text.len()).ok()? })
    }

    /// `None` when not offered.
    pub(super) fn get(&self) -> Option<&[u8]> {
        self.bytes.get(..usize::from(self.len)).filter(|name| !name.is_empty())
    }
}

impl Answer {
    pub(super) fn encode(&self, nonces: &Nonces, key: Option<&[u8]>) -> [u8; ANSWER_SIZE] {
        let mut body = Writer::<ANSWER_BODY>::new();
        body.put(&(self.reception as u16).to_le_bytes()).put(&[self.name.len, 0, 0, 0, 0, 0]);
        body.put(&self.slot.to_le_bytes()).put(&[0; 4]).put(&self.token.to_le_bytes());
        body.put(&encode_identity(&self.identity)).put(&self.name.bytes);
        seal(nonces, key, Role::Answer, &body.finish())
    }

    pub(super) fn decode(
        bytes: &[u8; ANSWER_SIZE],
        nonces: &Nonces,
        key: Option<&[u8]>,
    ) -> Result<Self, HelloError> {
        let mut input = unseal(bytes, nonces, key, Role::Answer)?;
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

fn seal<const BODY: usize, const SIZE: usize>(
    nonces: &Nonces,
    key: Option<&[u8]>,
    role: Role,
    body: &[u8; BODY],
) -> [u8; SIZE] {
    let mut out = Writer::<SIZE>::new();
    out.put(&nonces.prove(key, role, body)).put(body);
    out.finish()
}

fn unseal<'a>(
    bytes: &'a [u8],
    nonces: &Nonces,
    key: Option<&[u8]>,
    role: Role,
) -> Result<Reader<'a>, HelloError> {
    let (proof, body) = bytes.split_first_chunk().ok_or(HelloError::Malformed)?;
    nonces.verify(key, role, body, proof)?;
    Ok(Reader(body))
}

fn encode_address(address: &QpAddress) -> [u8; ADDRESS] {
    let mut out = Writer::new();
    out.put(&address.qpn.to_le_bytes()).put(&address.gid).put(&address.lid.to_le_bytes());
    out.put(&[address.port, address.link_layer, address.mtu, 0]).put(&[0; 4]);
    out.finish()
}

fn decode_address(bytes: &[u8; ADDRESS]) -> Result<QpAddress, HelloError> {
    let mut input = Reader(bytes);
    let (qpn, gid, lid) = (input.u32()?, input.take()?, input.u32()?);
    let [port, link_layer, mtu, _] = input.take()?;
    if link_layer != LINK_SOFTWARE || qpn == 0 {
        return Err(HelloError::Malformed);
    }
    Ok(QpAddress { qpn, gid, port, link_layer, lid, mtu })
}

fn encode_identity(identity: &Identity) -> [u8; IDENTITY] {
    let mut out = Writer::new();
    out.put(&identity.pid.to_le_bytes()).put(&identity.uid.to_le_bytes()).put(&identity.boot_id);
    out.put(&identity.incarnation.to_le_bytes()).put(&identity.probe);
    out.put(&identity.probe_address.to_le_bytes()).put(&[0; 8]);
    out.finish()
}

fn decode_identity(bytes: &[u8; IDENTITY]) -> Result<Identity, HelloError> {
    let mut input = Reader(bytes);
    Ok(Identity {
        pid: input.u32()?,
        uid: input.u32()?,
        boot_id: input.take()?,
        incarnation: input.u64()?,
        probe: input.take()?,
        probe_address: input.u64()?,
    })
}

/// Fills an array from the front.
struct Writer<const N: usize> {
    bytes: [u8; N],
    used: usize,
}

impl<const N: usize> Writer<N> {
    fn new() -> Self {
        Self { bytes: [0; N], used: 0 }
    }

    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        let end = self.used + bytes.len();
        debug_assert!(end <= N, "a message is larger than its size");
        if let Some(to) = self.bytes.get_mut(self.used..end) {
            to.copy_from_slice(bytes);
        }
        self.used = end;
        self
    }

    fn finish(&self) -> [u8; N] {
        debug_assert_eq!(self.used, N, "a message is smaller than its size");
        self.bytes
    }
}

/// Takes a slice apart from the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], HelloError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(HelloError::Malformed)?;
        self.0 = tail;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, HelloError> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, HelloError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, HelloError> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONCES: Nonces = Nonces { initiator: [1; NONCE], responder: [2; NONCE] };

    fn identity() -> Identity {
        Identity { pid: 1, uid: 2, boot_id: [3; 16], incarnation: 4, probe: [5; 16], probe_address: 6 }
    }

    fn offer() -> Offer {
        let sender = QpAddress { qpn: 7, gid: [8; 16], port: 1, link_layer: LINK_SOFTWARE, lid: 9, mtu: 5 };
        Offer { sender, target: 10, identity: identity() }
    }

    fn answer() -> Answer {
        let name = SocketName::new("a-name").unwrap();
        Answer { reception: Reception::InError, slot: 11, token: 12, identity: identity(), name }
    }

    #[test]
    fn messages_survive_the_wire() {
        for key in [None, Some(b"secret".as_slice())] {
            let greeting = Greeting::of_responder(&NONCES, key);
            assert_eq!(Greeting::decode(&greeting.encode()), Ok(greeting));
            assert_eq!(greeting.verify(&NONCES, key), Ok(()));
            assert_eq!(Offer::decode(&offer().encode(&NONCES, key), &NONCES, key), Ok(offer()));
            let decoded = Answer::decode(&answer().encode(&NONCES, key), &NONCES, key).unwrap();
            assert_eq!(decoded, answer());
            assert_eq!(decoded.name.get(), Some(b"a-name".as_slice()));
        }
        assert_eq!(SocketName::NONE.get(), None);
        assert!(SocketName::new(&"x".repeat(65)).is_none());
    }

    #[test]
    fn keys_must_agree() {
        let (ours, theirs) = (Some(b"ours".as_slice()), Some(b"theirs".as_slice()));
        let greeting = |key| Greeting::of_responder(&NONCES, key);
        assert_eq!(greeting(theirs).verify(&NONCES, ours), Err(HelloError::WrongKey));
        assert_eq!(greeting(None).verify(&NONCES, ours), Err(HelloError::KeyMissing));
        assert_eq!(greeting(ours).verify(&NONCES, None), Err(HelloError::KeyRequired));
        let bytes = offer().encode(&NONCES, theirs);
        assert_eq!(Offer::decode(&bytes, &NONCES, ours), Err(HelloError::WrongKey));
    }

    #[test]
    fn a_proof_is_good_for_one_hello_and_one_direction() {
        let key = Some(b"secret".as_slice());
        let swapped = Nonces { initiator: NONCES.responder, responder: NONCES.initiator };
        assert_eq!(Greeting::of_responder(&NONCES, key).verify(&swapped, key), Err(HelloError::WrongKey));
        let bytes = offer().encode(&NONCES, key);
        assert_eq!(Offer::decode(&bytes, &swapped, key), Err(HelloError::WrongKey));
        assert!(unseal(&bytes, &NONCES, key, Role::Answer).is_err());
    }

    #[test]
    fn other_programs_and_other_versions_are_told_apart() {
        let mut bytes = Greeting::of_initiator([0; NONCE], None).encode();
        bytes[8] = 9;
        assert_eq!(Greeting::decode(&bytes), Err(HelloError::Version(9)));
        bytes[0] = b'H';
        assert_eq!(Greeting::decode(&bytes), Err(HelloError::NotOurs));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(bytes: [[u8; 32]; 6]) {
            let bytes = bytes.concat();
            let _ = Greeting::decode(bytes.first_chunk().unwrap());
            let _ = Offer::decode(bytes.first_chunk().unwrap(), &NONCES, None);
            let mut unproven = bytes;
            unproven[..PROOF].fill(0);
            let _ = Offer::decode(unproven.first_chunk().unwrap(), &NONCES, None);
            let _ = Answer::decode(unproven.first_chunk().unwrap(), &NONCES, None);
        }

        #[test]
        fn every_flipped_bit_of_a_keyed_offer_is_noticed(bit in 0..OFFER_SIZE * 8) {
            let key = Some(b"secret".as_slice());
            let mut bytes = offer().encode(&NONCES, key);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Offer::decode(&bytes, &NONCES, key), Err(HelloError::WrongKey));
        }
    }
}
