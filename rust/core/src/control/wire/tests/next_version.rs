//! The opening frames of the next version of the original engine: its hello, and the control of a running engine.

use super::*;

#[test]
fn hello_bytes() {
    let bytes = hex("31 50 58 46 03 00 01 00 01 00 00 00 10 00 00 00");
    assert_eq!(Hello::OURS.encode().as_slice(), bytes);
    assert_eq!(Hello::decode(&bytes), Ok(Hello::OURS));
    let header = FrameHeader { tag: Tag::Hello as i32, size: 16 };
    assert_eq!(header.encode().as_slice(), hex("31 50 58 46 10 00 00 00"));

    let shared = Hello { version: 5, implementation: 2, ..Hello::OURS };
    assert_eq!(shared.encode().as_slice(), hex("31 50 58 46 05 00 02 00 01 00 00 00 10 00 00 00"));
    let barex = Hello { transport: 2, ..Hello::OURS };
    assert_eq!(barex.encode().as_slice(), hex("31 50 58 46 03 00 01 00 02 00 00 00 10 00 00 00"));
}

#[test]
fn each_field_of_a_hello_must_be_ours() {
    assert_eq!(Hello::OURS.check(), Ok(()));
    for (theirs, named) in [
        (Hello { version: 5, implementation: 2, ..Hello::OURS }, "version 5 of implementation 2 (shared)"),
        (Hello { version: 4, ..Hello::OURS }, "version 4 of implementation 1 (legacy)"),
        (Hello { implementation: 9, ..Hello::OURS }, "implementation 9 over"),
        (Hello { transport: 2, ..Hello::OURS }, "transport 2 (BAREX)"),
        (Hello { reserved: 1, ..Hello::OURS }, "reserved field 1, size 16"),
        (Hello { wire_size: 24, ..Hello::OURS }, "reserved field 0, size 24"),
    ] {
        assert_eq!(Hello::decode(&theirs.encode()), Ok(theirs));
        let problem = theirs.check().unwrap_err().problem;
        let ours = "version 3 of implementation 1 (legacy) over transport 1 (IBRC)";
        assert!(problem.contains(named) && problem.contains(ours), "{problem}");
    }
    let mut bytes = Hello::OURS.encode();
    bytes[0] = b'2';
    assert!(Hello::decode(&bytes).unwrap_err().problem.contains("magic 0x46585032"));
    assert!(Hello::decode(&bytes[..15]).unwrap_err().problem.contains("15 bytes, expected 16"));
}

#[test]
fn runtime_control_bytes() {
    let header = FrameHeader { tag: Tag::RuntimeControl as i32, size: 3 };
    let frame = [&header.encode()[..], b"GET"].concat();
    assert_eq!(frame, hex("31 54 58 46 03 00 00 00 47 45 54"));
    let settings = SliceSettings { slice_size: 65_536, fragment_limit: 4096 };
    assert_eq!(
        settings.encode_answer(""),
        r#"{"status":0,"slice_size":65536,"fragment_limit":4096,"error":""}"#
    );
    assert_eq!(
        settings.encode_answer("\"a\\b\"\n\u{1f}ä"),
        r#"{"status":-1,"slice_size":65536,"fragment_limit":4096,"error":"\"a\\b\"\u000a\u001fä"}"#
    );
    let cut = settings.encode_answer(&"\u{1f}".repeat(300));
    assert!((250..=256).contains(&cut.len()) && cut.ends_with(r#"\u001f"}"#), "{cut}");
}

#[test]
fn requests_of_the_runtime_control() {
    let parse = |text: &str| {
        SliceSettings::parse_request(text.as_bytes()).map(|set| (set.slice_size, set.fragment_limit))
    };
    for (text, expected) in [
        ("GET", (0, 0)),
        ("GET\n", (0, 0)),
        ("FLAGCX_P2P_SLICE_SIZE=65536", (65_536, 0)),
        ("FLAGCX_P2P_FRAGMENT_LIMIT=1000\n", (0, 1000)),
        ("FLAGCX_P2P_FRAGMENT_LIMIT=1073741824\r\nFLAGCX_P2P_SLICE_SIZE=1073741824", (1 << 30, 1 << 30)),
        ("FLAGCX_P2P_SLICE_SIZE=4096\nFLAGCX_P2P_FRAGMENT_LIMIT=0", (4096, 0)),
        ("FLAGCX_P2P_SLICE_SIZE=0", (0, 0)),
        ("FLAGCX_P2P_SLICE_SIZE=00004096", (4096, 0)),
    ] {
        assert_eq!(parse(text), Ok(expected), "{text}");
    }
    for (text, named) in [
        ("", "0 bytes, expected 1 to 256"),
        (&"G".repeat(257), "257 bytes"),
        ("get", "not GET"),
        ("GET\nFLAGCX_P2P_SLICE_SIZE=65536", "\"GET\" is not GET and not"),
        ("FLAGCX_P2P_SLICE_SIZE=65536\nGET", "not NAME=value"),
        ("\nFLAGCX_P2P_SLICE_SIZE=65536", "\"\" is not"),
        (" FLAGCX_P2P_SLICE_SIZE=65536", "cannot be changed"),
        ("FLAGCX_P2P_MAX_SGE=2", "\"FLAGCX_P2P_MAX_SGE\" cannot be changed"),
        ("FLAGCX_P2P_SLICE_SIZE=4096\nFLAGCX_P2P_SLICE_SIZE=8192", "given twice"),
        ("FLAGCX_P2P_SLICE_SIZE=0\nFLAGCX_P2P_SLICE_SIZE=0", "given twice"),
        ("FLAGCX_P2P_SLICE_SIZE=4095", "at least 4096"),
        ("FLAGCX_P2P_SLICE_SIZE=1073741825", "at most 1073741824"),
        ("FLAGCX_P2P_FRAGMENT_LIMIT=99999999999999999999999", "at most"),
        ("FLAGCX_P2P_FRAGMENT_LIMIT=", "decimal"),
        ("FLAGCX_P2P_FRAGMENT_LIMIT=+1", "decimal"),
        ("FLAGCX_P2P_FRAGMENT_LIMIT=-1", "decimal"),
        ("FLAGCX_P2P_FRAGMENT_LIMIT=0x10", "decimal"),
        ("FLAGCX_P2P_FRAGMENT_LIMIT=1 ", "decimal"),
    ] {
        let problem = parse(text).unwrap_err().problem;
        assert!(problem.contains(named), "{text:?}: {problem}");
    }
    assert!(SliceSettings::parse_request(b"\xff").unwrap_err().problem.contains("UTF-8"));
}
