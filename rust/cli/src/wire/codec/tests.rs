use proptest::collection::vec;
use proptest::prelude::*;

use super::super::{Slot, Small};
use super::*;
use crate::framing::MAX_TEXT;
use crate::store::{Attributes, Listed, Time};

fn decode(bytes: &[u8]) -> Result<Frame, FrameError> {
    let (header, payload) = bytes.split_first_chunk().ok_or(FrameError::NotOurs)?;
    assert_eq!(decode_header(*header)?, payload.len());
    decode_payload(payload)
}

fn slot() -> impl Strategy<Value = Slot> {
    any::<(u64, u32, u32)>().prop_map(|(address, size, rkey)| Slot { address, size, rkey })
}

fn attributes() -> impl Strategy<Value = Attributes> {
    any::<(bool, Option<(i64, u32)>)>().prop_map(|(executable, modified)| {
        let modified = modified.map(|(seconds, nanoseconds)| Time { seconds, nanoseconds });
        Attributes { executable, modified }
    })
}

fn small() -> impl Strategy<Value = Small> {
    let numbers = any::<(bool, u64, u32, [u8; 32])>();
    (".{0,80}", attributes(), numbers).prop_map(|(name, attributes, (force, sequence, length, hash))| Small {
        name,
        force,
        attributes,
        sequence,
        length,
        hash,
    })
}

fn listed() -> impl Strategy<Value = Listed> {
    (".{0,80}", any::<(u64, i64)>()).prop_map(|(name, (size, seconds))| Listed { name, size, seconds })
}

fn file_frame() -> impl Strategy<Value = Frame> {
    let text = || ".{0,80}";
    prop_oneof![
        small().prop_map(Frame::Small),
        Just(Frame::Sync),
        any::<(u64, [u8; 32])>().prop_map(|(bytes, hash)| Frame::Kept { bytes, hash }),
        any::<u64>().prop_map(|offset| Frame::Start { offset }),
        any::<u64>().prop_map(|request| Frame::Abort { request }),
        text().prop_map(|text| Frame::Failed { text }),
        Just(Frame::Working),
        text().prop_map(|folder| Frame::List { folder }),
        vec(listed(), 0..=8).prop_map(|entries| Frame::Entries { entries }),
        any::<u64>().prop_map(|skipped| Frame::Listed { skipped }),
        Just(Frame::Opened),
        any::<(u32, u16)>().prop_map(|(chunk, slots)| Frame::Allocate { chunk, slots }),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    let text = || ".{0,80}";
    prop_oneof![
        any::<[u8; 16]>().prop_map(|nonce| Frame::Open { nonce }),
        (text(), any::<u32>(), vec(slot(), 0..=8)).prop_map(|(metadata, chunk, slots)| Frame::Ring {
            metadata,
            chunk,
            slots
        }),
        (text(), any::<(Option<u64>, bool, bool)>(), attributes()).prop_map(
            |(name, (size, force, resume), attributes)| Frame::Put { name, size, force, resume, attributes }
        ),
        (text(), any::<(u64, [u8; 32])>()).prop_map(|(name, (kept, hash))| Frame::Get { name, kept, hash }),
        (any::<(u64, u64)>(), attributes()).prop_map(|((size, offset), attributes)| Frame::Ready {
            size,
            offset,
            attributes
        }),
        any::<(u64, u32)>().prop_map(|(sequence, length)| Frame::Filled { sequence, length }),
        any::<u64>().prop_map(|sequence| Frame::Credit { sequence }),
        any::<(u64, [u8; 32])>().prop_map(|(bytes, hash)| Frame::Finish { bytes, hash }),
        text().prop_map(|text| Frame::Refused { text }),
        Just(Frame::KeepAlive),
        any::<[u8; 16]>().prop_map(|nonce| Frame::Challenge { nonce }),
        any::<[u8; 32]>().prop_map(|proof| Frame::Proof { proof }),
        file_frame(),
    ]
}

fn is_malformed(result: &Result<Frame, FrameError>) -> bool {
    result.as_ref().is_err_and(|error| error.to_string().starts_with("malformed frame: "))
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(frame in frame()) {
        prop_assert_eq!(decode(&encode(&frame).unwrap()), Ok(frame));
    }

    #[test]
    fn any_payload_is_a_frame_or_malformed(mut payload in vec(any::<u8>(), 0..300), kind in 0_u8..28) {
        if let Some(first) = payload.first_mut() {
            *first = kind;
        }
        match decode_payload(&payload) {
            // Numbers have longer forms as well, so the bytes may differ; the frame does not.
            Ok(frame) => prop_assert_eq!(decode(&encode(&frame).unwrap()), Ok(frame)),
            result => prop_assert!(is_malformed(&result), "{:?}", result),
        }
    }

    #[test]
    fn a_changed_frame_is_a_frame_or_an_error(frame in frame(), at: prop::sample::Index, value: u8) {
        let mut payload = encode(&frame).unwrap().split_off(HEADER);
        let at = at.index(payload.len());
        payload[at] = value;
        let result = decode_payload(&payload);
        prop_assert!(result.is_ok() || is_malformed(&result), "{:?}", result);
    }

    #[test]
    fn a_cut_or_longer_payload_is_malformed(frame in frame(), extra: u8) {
        let mut payload = encode(&frame).unwrap().split_off(HEADER);
        payload.push(extra);
        prop_assert_eq!(decode_payload(&payload), Err(FrameError::Trailing(1)));
        payload.truncate(payload.len() - 2);
        let cut = decode_payload(&payload);
        prop_assert!(is_malformed(&cut), "{:?}", cut);
    }

    #[test]
    fn headers_never_promise_more_than_allowed(tail: [u8; 4], version in 0_u8..8) {
        let [a, b, c, d] = tail;
        if let Ok(length) = decode_header([b'F', b'2', version, a, b, c, d]) {
            prop_assert!(version == VERSION && length <= MAX_PAYLOAD);
        }
    }
}

#[test]
fn the_bytes_on_the_wire() {
    let bytes = |frame| encode(&frame).unwrap();
    assert_eq!(bytes(Frame::KeepAlive), *b"F2\x05\x01\0\0\0\x09");
    let modified = Some(Time { seconds: -1, nanoseconds: 5 });
    let attributes = Attributes { executable: true, modified };
    let put = Frame::Put { name: "ab".into(), size: Some(300), force: true, resume: false, attributes };
    assert_eq!(bytes(put), *b"F2\x05\x0d\0\0\0\x02\x02ab\x01\xac\x02\x01\x00\x01\x01\x01\x05");
    assert_eq!(bytes(Frame::Listed { skipped: 2 }), *b"F2\x05\x02\0\0\0\x15\x02");
    let ring =
        Frame::Ring { metadata: "m".into(), chunk: 1, slots: vec![Slot { address: 2, size: 3, rkey: 4 }] };
    assert_eq!(bytes(ring), *b"F2\x05\x08\0\0\0\x01\x01m\x01\x01\x02\x03\x04");
}

#[test]
fn headers_that_are_refused() {
    let header = |version, length: u32| {
        let [a, b, c, d] = length.to_le_bytes();
        decode_header([b'F', b'2', version, a, b, c, d])
    };
    let too_long = |length| FrameError::TooLong { length, most: MAX_PAYLOAD };
    assert_eq!(header(VERSION, 32 * 1024), Ok(MAX_PAYLOAD));
    assert_eq!(header(VERSION, 32 * 1024 + 1), Err(too_long(MAX_PAYLOAD + 1)));
    assert_eq!(header(VERSION, u32::MAX), Err(too_long(u32::MAX as usize)));
    assert_eq!(header(4, 8), Err(FrameError::Version { theirs: 4, ours: VERSION }));
    assert_eq!(decode_header(*b"HTTP/1."), Err(FrameError::NotOurs));
    assert_eq!(decode_header(*b"FB\x01\0\0\0\0"), Err(FrameError::OtherCommand));
}

#[test]
fn limits_hold_at_both_ends() {
    let (text, slots) =
        ("x".repeat(MAX_TEXT + 1), vec![Slot { address: 0, size: 0, rkey: 0 }; MAX_SLOTS + 1]);
    let long = FrameError::LongText(MAX_TEXT + 1);
    let attributes = Attributes::default();
    let small = |name: &String| {
        let (name, hash) = (name.clone(), [0; 32]);
        Frame::Small(Small { name, force: false, attributes, sequence: 0, length: 0, hash })
    };
    let listed = |name: &String| Listed { name: name.clone(), size: 0, seconds: 0 };
    let put = |name: &String| Frame::Put {
        name: name.clone(),
        size: None,
        force: false,
        resume: false,
        attributes,
    };
    for (frame, error) in [
        (Frame::Get { name: text.clone(), kept: 0, hash: [0; 32] }, long.clone()),
        (put(&text), long.clone()),
        (small(&text), long.clone()),
        (Frame::List { folder: text.clone() }, long.clone()),
        (Frame::Refused { text: text.clone() }, long.clone()),
        (Frame::Failed { text: text.clone() }, long.clone()),
        (Frame::Entries { entries: vec![listed(&text)] }, long.clone()),
        (
            Frame::Entries { entries: vec![listed(&String::new()); MAX_ENTRIES + 1] },
            FrameError::TooMany { what: "entries", count: MAX_ENTRIES + 1, most: MAX_ENTRIES },
        ),
        (Frame::Ring { metadata: text, chunk: 1, slots: Vec::new() }, long),
        (
            Frame::Ring { metadata: String::new(), chunk: 1, slots },
            FrameError::TooMany { what: "slots", count: MAX_SLOTS + 1, most: MAX_SLOTS },
        ),
    ] {
        assert_eq!(encode(&frame), Err(error.clone()));
        assert_eq!(decode_payload(&postcard::to_allocvec(&frame).unwrap()), Err(error));
    }
}

#[test]
fn a_long_refusal_is_cut_at_a_character() {
    let text = "é".repeat(MAX_TEXT);
    let Ok(Frame::Refused { text: cut }) = decode(&encode(&Frame::refused(&text)).unwrap()) else {
        panic!("not decoded");
    };
    assert_eq!(cut.len(), MAX_TEXT);
    assert!(text.starts_with(&cut));
}

#[test]
fn the_largest_ring_fits() {
    let slots = vec![Slot { address: u64::MAX, size: u32::MAX, rkey: u32::MAX }; MAX_SLOTS];
    let bytes = encode(&Frame::Ring { metadata: "m".repeat(MAX_TEXT), chunk: u32::MAX, slots }).unwrap();
    assert!(bytes.len() - HEADER <= MAX_PAYLOAD);
    assert!(decode(&bytes).is_ok());
}
