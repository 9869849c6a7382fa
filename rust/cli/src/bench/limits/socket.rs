//! One blocking socket to the server, without an engine.

use std::io::Write;
use std::time::{Duration, Instant};

use super::super::protocol::{ANSWER_TIMEOUT, Frame, Stream, StreamError};
use super::{MachineLimit, TIME};
use crate::output::units::gigabytes_per_second;

const SOCKET: &str = "tcp socket";
/// Bytes that it writes at a time.
const BLOCK: usize = 1 << 20;
/// Bytes by which its rate is estimated.
const FIRST: u64 = 8 << 20;

/// The rate of a socket to the server: the control stream itself, between two frames.
pub(crate) fn socket(stream: &mut Stream) -> Result<MachineLimit, StreamError> {
    let estimated = send(stream, FIRST)?;
    let bytes = (FIRST as f64 * TIME.as_secs_f64() / estimated.as_secs_f64().max(1e-6)) as u64;
    let bytes = bytes.clamp(1 << 16, 1 << 34);
    let elapsed = send(stream, bytes)?;
    let gigabytes_per_second = gigabytes_per_second(bytes, elapsed);
    Ok(MachineLimit { name: SOCKET.to_owned(), operation: None, size: None, gigabytes_per_second })
}

/// How long so many bytes take, with the answer that they have arrived.
fn send(stream: &mut Stream, bytes: u64) -> Result<Duration, StreamError> {
    let block = vec![7; BLOCK];
    let started = Instant::now();
    stream.send(&Frame::Raw { bytes })?;
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        let sent = stream.socket().write_all(block.get(..part).unwrap_or_default());
        sent.map_err(|error| StreamError::Io(error.to_string()))?;
        left -= part as u64;
    }
    stream.done(ANSWER_TIMEOUT)?;
    Ok(started.elapsed())
}
