//! What the machine carries without an engine: copies of the same pieces within this process, and a socket to the same
//! server. Measured in the same run, and kept simple.

use std::io::Write;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::layout::{Layout, LayoutSpec};
use super::protocol::{ANSWER_TIMEOUT, Frame, Stream, StreamError};
use crate::error::{CliError, Result};
use crate::output::units::gigabytes_per_second;

/// A limit, as the JSON has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MachineLimit {
    pub(crate) name: String,
    /// Bytes per piece; none where it does not depend on that.
    pub(crate) size: Option<u32>,
    pub(crate) gigabytes_per_second: f64,
}

/// Copies of pieces by one thread.
pub(crate) const MEMCPY: &str = "memcpy";
/// One blocking socket to the server, without an engine.
pub(crate) const SOCKET: &str = "tcp socket";

/// Time for a limit.
const TIME: Duration = Duration::from_millis(100);
/// Bytes that a socket writes at a time.
const BLOCK: usize = 1 << 20;
/// Bytes by which the rate of a socket is estimated.
const FIRST: u64 = 8 << 20;

/// Memory that pieces are copied within.
#[derive(Debug)]
pub(crate) struct Copies {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Copies {
    /// Two pools of so many bytes, with every page in place.
    pub(crate) fn new(pool: u64) -> Result<Self> {
        let length = usize::try_from(pool).unwrap_or(usize::MAX);
        let filled = |value: u8| {
            let mut bytes = Vec::new();
            let reserved = bytes.try_reserve_exact(length);
            reserved.map_err(|error| CliError::other(format!("memory for the limits: {error}")))?;
            bytes.resize(length, value);
            Ok::<_, CliError>(bytes)
        };
        Ok(Self { from: filled(1)?, to: filled(2)? })
    }

    /// The rate at which pieces of this size are copied, scattered or not, as those of the transfers are.
    pub(crate) fn memcpy(&mut self, piece: u32, contiguous: bool) -> Result<MachineLimit> {
        let length = self.from.len() as u64;
        let layout = Layout::new(LayoutSpec { seed: 1, start: 0, length, piece, contiguous });
        let layout = layout.ok_or_else(|| CliError::other("a piece is larger than the pool"))?;
        let piece = usize::try_from(piece).unwrap_or(usize::MAX);
        let mut rate = 0.0_f64;
        // The first round brings the caches into the state of a long run.
        for time in [TIME / 4, TIME] {
            let started = Instant::now();
            let mut copied = 0;
            for k in 0.. {
                let [from, to] = [layout.source(k), layout.destination(k)]
                    .map(|place| usize::try_from(place).unwrap_or(usize::MAX));
                let source = self.from.get(from..).and_then(|rest| rest.get(..piece));
                let target = self.to.get_mut(to..).and_then(|rest| rest.get_mut(..piece));
                if let (Some(source), Some(target)) = (source, target) {
                    target.copy_from_slice(std::hint::black_box(source));
                    std::hint::black_box(&target);
                }
                copied += piece as u64;
                // A look at the clock costs as much as some hundred bytes.
                if (piece >= 65_536 || k % 16 == 15) && started.elapsed() >= time {
                    break;
                }
            }
            rate = gigabytes_per_second(copied, started.elapsed());
        }
        Ok(MachineLimit {
            name: MEMCPY.to_owned(),
            size: u32::try_from(piece).ok(),
            gigabytes_per_second: rate,
        })
    }
}

/// The rate of a socket to the server: the control stream itself, between two frames.
pub(crate) fn socket(stream: &mut Stream) -> Result<MachineLimit, StreamError> {
    let estimated = send(stream, FIRST)?;
    let bytes = (FIRST as f64 * TIME.as_secs_f64() / estimated.as_secs_f64().max(1e-6)) as u64;
    let bytes = bytes.clamp(1 << 16, 1 << 34);
    let elapsed = send(stream, bytes)?;
    let gigabytes_per_second = gigabytes_per_second(bytes, elapsed);
    Ok(MachineLimit { name: SOCKET.to_owned(), size: None, gigabytes_per_second })
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
