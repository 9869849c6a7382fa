//! The bytes of each message, written from the format: x86-64 and ARM64 must both write these, and read them.

use super::message::tests::{answer, offer};
use super::{ANSWER_SIZE, DataHello, HELLO_SIZE, HelloAnswer, OFFER_SIZE, Offer};

/// Bytes from a text of hexadecimal digits, each `NN*COUNT` a run; as many as there are to be.
fn bytes<const SIZE: usize>(text: &str) -> [u8; SIZE] {
    let run = |word: &str| {
        let (byte, count) = word.split_once('*').unwrap_or((word, "1"));
        vec![u8::from_str_radix(byte, 16).unwrap(); count.parse().unwrap()]
    };
    text.split_whitespace().flat_map(run).collect::<Vec<_>>().try_into().unwrap()
}

const IDENTITY: &str = "01 00*3 02 00*3 03*16 04 00*7 05*16 06 00*7 00*8";

#[test]
fn hellos() {
    let wire: [u8; HELLO_SIZE] = bytes("46 43 58 50 32 50 73 77 05 00 01 00*5 07*16");
    let hello = DataHello { nonce: [7; 16], keyed: true };
    assert_eq!(hello.encode(), wire);
    assert_eq!(DataHello::decode(&wire), Ok(hello));
}

#[test]
fn offers() {
    let wire: [u8; OFFER_SIZE] =
        bytes(&format!("00*32 07 00*3 08*16 09 00*3 01 53 05 00 00*4 0a 00*3 00*4 {IDENTITY}"));
    assert_eq!(offer().encode(None), wire);
    assert_eq!(Offer::decode(&wire, None), Ok(offer()));
}

#[test]
fn answers() {
    let name = "61 2d 6e 61 6d 65 00*58";
    let wire: [u8; ANSWER_SIZE] =
        bytes(&format!("00*32 03 00 06 00*5 0b 00*3 00*4 0c 00*7 {IDENTITY} {name}"));
    assert_eq!(answer().encode(None), wire);
    assert_eq!(HelloAnswer::decode(&wire, None), Ok(answer()));
}
