//! Clients of the runtime control, scripted byte for byte.

use std::cell::RefCell;

use super::original::{MAGIC, bytes, send};
use super::*;
use crate::control::socket::connect;

/// A request of the size that it says, or of another one.
fn request(size: i32, text: &[u8]) -> Vec<u8> {
    [&MAGIC[..], &[1, 0, 0, 0], b"1TXF", &size.to_le_bytes(), text].concat()
}

/// The answer that a client gets, and the changes that its request made.
fn ask(limits: &Limits, address: IpAddr, sent: &[u8]) -> (String, Vec<SliceSettings>, HandshakeError) {
    let listener = Listener::bind(address, None, &Abort::new().unwrap()).unwrap();
    let (target, sent) = (listener.local(), sent.to_vec());
    let client = thread::spawn(move || {
        let client = connect(target, soon(), None).unwrap();
        send(&client, &[&sent]);
        let mut header = [0; 8];
        if client.read_exact_by(&mut header, soon()).is_err() {
            return String::new();
        }
        assert_eq!(&header[..4], b"1TXF");
        let size = u32::from_le_bytes(header[4..].try_into().unwrap());
        let text = String::from_utf8(bytes(&client, size as usize)).unwrap();
        assert!(client.read_exact_by(&mut [0], soon()).is_err(), "one answer, and the socket is closed");
        text
    });
    let stream = listener.accept_by(Some(soon())).unwrap();
    let changes = RefCell::new(Vec::new());
    let change = |change: SliceSettings| {
        changes.borrow_mut().push(change);
        SliceSettings { slice_size: 65_536, fragment_limit: 4096 }
    };
    let local = LocalSide { slices: &change, ..side(2, &Vec::new) };
    let error = respond(stream, &local, &mut FakeLanes::new(200), limits).unwrap_err();
    assert!(error.is_stray(), "{error}");
    (client.join().unwrap(), changes.take(), error)
}

#[test]
fn bytes_of_a_request_and_its_answer() {
    let (target, responding) = responder(limits());
    let client = connect(target, soon(), None).unwrap();
    send(&client, &[&MAGIC, &[1, 0, 0, 0], &[0x31, 0x54, 0x58, 0x46, 3, 0, 0, 0, 0x47, 0x45, 0x54]]);
    assert_eq!(bytes(&client, 8), [0x31, 0x54, 0x58, 0x46, 69, 0, 0, 0]);
    assert_eq!(
        bytes(&client, 69),
        br#"{"status":0,"slice_size":1073741824,"fragment_limit":4096,"error":""}"#
    );
    assert!(matches!(responding.join().unwrap().0.unwrap_err().reason, Reason::RuntimeControl));
}

#[test]
fn requests_over_loopback_are_met() {
    let text = b"FLAGCX_P2P_SLICE_SIZE=65536\nFLAGCX_P2P_FRAGMENT_LIMIT=1000";
    let (answer, changes, _) = ask(&limits(), LOOPBACK, &request(text.len() as i32, text));
    assert_eq!(answer, r#"{"status":0,"slice_size":65536,"fragment_limit":4096,"error":""}"#);
    assert_eq!(changes, [SliceSettings { slice_size: 65_536, fragment_limit: 1000 }]);
    let (_, changes, _) = ask(&limits(), LOOPBACK, &request(3, b"GET"));
    assert_eq!(changes, [SliceSettings::default()]);
}

#[test]
fn malformed_requests_change_nothing_and_are_answered_with_the_reason() {
    for (size, text, named) in [
        (0, &b""[..], "0 bytes, expected 1 to 256"),
        (257, &[b'x'; 257], "257 bytes"),
        (i32::MAX, b"GET", "2147483647 bytes"),
        (-1, b"GET", "-1 bytes"),
        (27, b"FLAGCX_P2P_SLICE_SIZE=65536", ""),
        (26, b"FLAGCX_P2P_SLICE_SIZE=4095", "expected at least 4096"),
        (4, b"SET\xff", "UTF-8"),
        (5, b"\"\\\n=1", r#"\"\\\"\\\\\" is not GET"#),
    ] {
        let (answer, changes, _) = ask(&limits(), LOOPBACK, &request(size, &text[..text.len()]));
        if named.is_empty() {
            assert_eq!(changes.len(), 1, "{answer}");
            continue;
        }
        assert!(answer.starts_with(r#"{"status":-1,"slice_size":0,"#) && answer.contains(named), "{answer}");
        assert!(changes.is_empty(), "{answer}");
    }
}

#[test]
fn with_a_key_a_request_gets_no_byte() {
    let limits = Limits { runtime_control: true, ..limits_with_key(7) };
    let (answer, changes, error) = ask(&limits, LOOPBACK, &request(3, b"GET"));
    assert_eq!((answer.as_str(), changes.len()), ("", 0));
    assert!(error.to_string().contains("FLAGCX_P2P_AUTH_KEY_FILE"), "{error}");
}

/// It gets the reason, as peers without a proof are accepted, but it may change nothing.
#[test]
fn where_original_engines_are_let_in_beside_a_key_a_request_is_refused() {
    let limits = Limits { allow_original: true, runtime_control: true, ..limits_with_key(7) };
    let (answer, changes, _) = ask(&limits, LOOPBACK, &request(3, b"GET"));
    assert!(answer.contains("FLAGCX_P2P_AUTH_KEY_FILE") && answer.contains(r#""status":-1"#), "{answer}");
    assert!(changes.is_empty());
}

#[test]
fn from_afar_a_request_is_refused_unless_it_is_let_in() {
    let own = crate::control::local_address(&Config::from_source(&|_| None)).unwrap().own;
    if own.is_loopback() {
        println!(
            "not run: this host has no address but loopback; `clients_that_may_use_runtime_control` covers the rule"
        );
        return;
    }
    let (answer, changes, _) = ask(&limits(), own, &request(3, b"GET"));
    assert!(answer.contains("FLAGCX_P2P_RUNTIME_CONTROL=1") && answer.contains(r#""status":-1"#), "{answer}");
    assert!(changes.is_empty());
    let (answer, changes, _) = ask(&Limits { runtime_control: true, ..limits() }, own, &request(3, b"GET"));
    assert!(answer.contains(r#""status":0"#) && changes.len() == 1, "{answer}");
}

#[test]
fn a_client_that_stops_in_the_middle_is_dropped() {
    for sent in [request(256, b""), request(256, b"GET")] {
        let (target, responding) =
            responder(Limits { handshake_timeout: Duration::from_millis(150), ..limits() });
        let client = connect(target, soon(), None).unwrap();
        send(&client, &[&sent]);
        let error = responding.join().unwrap().0.unwrap_err();
        assert!(matches!(error.reason, Reason::TimedOut) && error.is_stray(), "{error}");

        let (target, responding) = responder(limits());
        let client = connect(target, soon(), None).unwrap();
        send(&client, &[&sent]);
        drop(client);
        let error = responding.join().unwrap().0.unwrap_err();
        assert!(matches!(error.reason, Reason::Closed) && error.is_stray(), "{error}");
    }
}
