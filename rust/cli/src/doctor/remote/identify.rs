//! What listens at an address: asked as an engine asks, then as FlagCX's next version, then as `put` does, then as `bench run` does.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::control::wire::{
    FRAME_HEADER_SIZE, Features, FrameHeader, HANDLE_SIZE, Handle, Hello, RAW_HANDLE_SIZE, SocketKind, Tag,
};

use crate::bench;
use crate::wire::codec::{self, VERSION};
use crate::wire::{Frame, authenticate};

/// The version of our control stream.
pub(super) const OUR_STREAM: u8 = VERSION;
/// Longest wait for the answer to one question: an engine answers at once.
const ANSWER: Duration = Duration::from_secs(2);
/// Bytes of an unknown answer that are shown.
const SHOWN: usize = 40;

/// What listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Listener {
    /// An engine, ours or an original one.
    Engine(Told),
    /// An engine of FlagCX's next version.
    NextVersion(Hello),
    /// `flagcx-p2p serve`.
    Serve { version: u8 },
    /// `flagcx-p2p bench serve`.
    BenchServe,
    /// Another program, which begins with this.
    Other(String),
    /// Accepts, and sends nothing.
    Silent,
    /// Accepts, and closes.
    Closes,
}

/// What an engine's first answer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Where its lane socket listens; unspecified where a key comes first.
    pub(super) address: SocketAddr,
    /// `None` for an original engine.
    pub(super) features: Option<Features>,
    /// Version of its protocol.
    pub(super) version: Option<u16>,
}

/// The answer to one question.
enum Answer {
    Bytes(Vec<u8>),
    Closed,
    Silent,
}

/// Whether a control stream of this version is ours.
pub(super) fn is_our_stream(version: u8) -> bool {
    version == OUR_STREAM
}

/// Asks the listener at `address`; `key`: this side has a key.
pub(super) fn listener(address: SocketAddr, key: bool, deadline: Instant) -> io::Result<Listener> {
    let mut silent = false;
    // `serve` and `bench serve` without a key answer the first; with one, only what opens their own session.
    for question in [handle_question(key), hello_question(), stream_question()?, bench_question()?] {
        match ask(address, &question, deadline)? {
            Answer::Bytes(bytes) => return Ok(classify(&bytes)),
            Answer::Closed => {}
            // Other questions would take as long, and be answered alike.
            Answer::Silent => {
                silent = true;
                break;
            }
        }
    }
    Ok(if silent { Listener::Silent } else { Listener::Closes })
}

fn ask(address: SocketAddr, question: &[u8], deadline: Instant) -> io::Result<Answer> {
    let until = deadline.min(Instant::now() + ANSWER);
    let left = || until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let mut stream = TcpStream::connect_timeout(&address, left())?;
    stream.set_write_timeout(Some(left()))?;
    // One that closes at the first byte may have answered before.
    let _ = stream.write_all(question);
    let mut bytes = Vec::new();
    let mut buffer = [0; FRAME_HEADER_SIZE + HANDLE_SIZE];
    loop {
        stream.set_read_timeout(Some(left()))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
                    && bytes.is_empty() =>
            {
                return Ok(Answer::Silent);
            }
            Err(_) => break,
        }
        if is_whole(&bytes) || Instant::now() >= until {
            break;
        }
    }
    Ok(if bytes.is_empty() { Answer::Closed } else { Answer::Bytes(bytes) })
}

/// Whether more bytes would tell nothing more.
fn is_whole(bytes: &[u8]) -> bool {
    match FrameHeader::decode(bytes) {
        Ok(header) if header.has(Tag::Handle) => bytes.len() >= FRAME_HEADER_SIZE + HANDLE_SIZE,
        Ok(header) if header.has(Tag::Hello) => bytes.len() >= FRAME_HEADER_SIZE + Hello::OURS.encode().len(),
        Ok(_) => true,
        Err(_) => false,
    }
}

/// What an answer shows.
fn classify(bytes: &[u8]) -> Listener {
    if let [b'F', b'2', version, ..] = bytes {
        return Listener::Serve { version: *version };
    }
    if bytes.starts_with(&bench::MAGIC) {
        return Listener::BenchServe;
    }
    let other = || {
        let shown = bytes.get(..SHOWN).unwrap_or(bytes);
        Listener::Other(shown.escape_ascii().to_string())
    };
    let Ok(header) = FrameHeader::decode(bytes) else { return other() };
    let payload = bytes.get(FRAME_HEADER_SIZE..).unwrap_or_default();
    if header.has(Tag::Hello) {
        return Hello::decode(payload).map_or_else(|_| other(), Listener::NextVersion);
    }
    match Handle::decode(payload) {
        Ok(Handle { address, features }) if header.has(Tag::Handle) => {
            let version = payload.get(RAW_HANDLE_SIZE..).and_then(Features::version);
            Listener::Engine(Told { address, features, version })
        }
        _ => other(),
    }
}

/// The first bytes of an engine. The handle has no address: no lane socket follows.
fn handle_question(key: bool) -> Vec<u8> {
    let bits = if key { Features::AUTH } else { 0 };
    let features = Some(Features { bits, ..Features::default() });
    let handle = Handle { address: (Ipv4Addr::UNSPECIFIED, 0).into(), features };
    frame(Tag::Handle, &handle.encode())
}

fn hello_question() -> Vec<u8> {
    frame(Tag::Hello, &Hello::OURS.encode())
}

fn frame(tag: Tag, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader { tag: tag as i32, size: i32::try_from(payload.len()).unwrap_or(0) };
    [&SocketKind::Bootstrap.encode()[..], &header.encode(), payload].concat()
}

fn stream_question() -> io::Result<Vec<u8>> {
    let nonce = authenticate::nonce().map_err(io::Error::other)?;
    codec::encode(&Frame::Open { nonce }).map_err(io::Error::other)
}

fn bench_question() -> io::Result<Vec<u8>> {
    bench::question().map_err(|error| io::Error::other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    /// A listener that answers each connection with `answer`, once it has read something, and closes it.
    fn answering(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(answer);
            }
        });
        address
    }

    #[test]
    fn other_programs() {
        let found = listener(answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), false, soon()).unwrap();
        assert_eq!(found, Listener::Other("HTTP/1.1 400 Bad Request\\r\\n\\r\\n".to_owned()));
        assert_eq!(listener(answering(b""), false, soon()).unwrap(), Listener::Closes);
        assert_eq!(listener(answering(b"F2\x02"), false, soon()).unwrap(), Listener::Serve { version: 2 });
        assert_eq!(listener(answering(b"FB\x01"), false, soon()).unwrap(), Listener::BenchServe);
    }

    #[test]
    fn a_silent_program_takes_no_longer_than_the_deadline() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let started = Instant::now();
        let found = listener(silent.local_addr().unwrap(), false, started + Duration::from_millis(200));
        assert_eq!(found.unwrap(), Listener::Silent);
        assert!(started.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn engines_of_all_kinds() {
        let address: SocketAddr = "192.0.2.7:4711".parse().unwrap();
        let answer = |features| {
            let handle = Handle { address, features }.encode();
            let header = FrameHeader { tag: Tag::Handle as i32, size: HANDLE_SIZE as i32 }.encode();
            classify(&[&header[..], &handle].concat())
        };
        let features = Features { bits: Features::AUTH, ..Features::default() };
        assert_eq!(
            answer(Some(features)),
            Listener::Engine(Told { address, features: Some(features), version: Some(1) })
        );
        assert_eq!(answer(None), Listener::Engine(Told { address, features: None, version: None }));
        let hello = frame(Tag::Hello, &Hello::OURS.encode());
        assert_eq!(
            classify(&hello[SocketKind::Bootstrap.encode().len()..]),
            Listener::NextVersion(Hello::OURS)
        );
    }

    proptest::proptest! {
        #[test]
        fn no_answer_panics(bytes: Vec<u8>) {
            let _ = (classify(&bytes), is_whole(&bytes));
        }
    }
}
