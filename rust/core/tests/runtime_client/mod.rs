//! A client of the runtime control.
#![allow(dead_code, reason = "a module of each test that includes it, which uses its share")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use flagcx_p2p::internals::engine::Engine;

/// What each bootstrap socket begins with.
pub(crate) const PREAMBLE: &[u8] = b"\x6c\x9d\x4b\xfc\xf2\xb9\x4a\x56\x01\0\0\0";

/// A socket to the engine's control listener.
pub(crate) fn connect(engine: &Arc<Engine>) -> TcpStream {
    let socket = TcpStream::connect((engine.address(), engine.rpc_port().unwrap())).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    socket
}

/// The answer to a request. The engine must be waiting for peers.
pub(crate) fn ask(engine: &Arc<Engine>, request: &str) -> String {
    let mut socket = connect(engine);
    let size = u32::try_from(request.len()).unwrap().to_le_bytes();
    socket.write_all(&[PREAMBLE, b"1TXF", &size, request.as_bytes()].concat()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let (header, text) = answer.split_at(8);
    assert_eq!(header, [&b"1TXF"[..], &u32::try_from(text.len()).unwrap().to_le_bytes()].concat());
    String::from_utf8(text.to_vec()).unwrap()
}
