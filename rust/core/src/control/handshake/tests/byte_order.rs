//! Peers of the other byte order: what a big-endian machine would send, byte for byte.

use super::original::{MAGIC, bytes, send};
use super::*;

const MIRRORED: [u8; 8] = [0x56, 0x4a, 0xb9, 0xf2, 0xfc, 0x4b, 0x9d, 0x6c];

fn is_told(error: &HandshakeError) {
    let text = error.to_string();
    assert!(text.contains("the peer's numbers are big-endian") && text.contains("ARM64"), "{text}");
    assert!(!text.contains("malformed"), "{text}");
}

#[test]
fn an_initiator_of_the_other_byte_order_is_refused_at_its_first_bytes() {
    assert_eq!(MIRRORED.iter().rev().copied().collect::<Vec<_>>(), MAGIC);
    let (target, responding) = responder(limits());
    let bootstrap = connect(target, soon(), None).unwrap();
    send(&bootstrap, &[&MIRRORED, &[0, 0, 0, 1]]);
    is_told(&responding.join().unwrap().0.unwrap_err());
    assert!(bootstrap.read_exact_by(&mut [0], soon()).is_err(), "closed without an answer");
}

#[test]
fn a_responder_of_the_other_byte_order_is_refused_at_its_first_frame() {
    let listener = listener();
    let target = listener.local();
    let scripted = thread::spawn(move || {
        let bootstrap = listener.accept_by(Some(soon())).unwrap();
        bytes(&bootstrap, 12 + 8 + 128);
        send(&bootstrap, &[&[0, 0, 0, 4], &[0, 0, 0, 128], &[0; 128]]);
        bootstrap
    });
    let error = initiate(target, &side(1, &Vec::new), &mut FakeLanes::new(100), &limits()).unwrap_err();
    is_told(&error);
    scripted.join().unwrap();
}

/// The frame of one order around the handle of the other, as no machine sends it.
#[test]
fn a_handle_of_the_other_byte_order_is_refused() {
    let mut handle = original::handle(1);
    handle[32..40].copy_from_slice(&MIRRORED);
    let (target, responding) = responder(limits());
    let bootstrap = connect(target, soon(), None).unwrap();
    send(&bootstrap, &[&MAGIC, &[1, 0, 0, 0], &original::frame(4, &handle)]);
    is_told(&responding.join().unwrap().0.unwrap_err());
}
