//! Runtime control: a client reads or changes an engine's slice settings, with one frame each way.
//!
//! The request is text: `GET`, or one or both of the lines `FLAGCX_P2P_SLICE_SIZE=decimal` and
//! `FLAGCX_P2P_FRAGMENT_LIMIT=decimal`. The answer is a JSON object of four members. It is written by hand: a JSON library
//! would be one more dependency for one shape, of which only the text of the error needs to be escaped.

use std::fmt::Write;
use std::str;

use super::WireError;

/// Longest request.
pub const MAX_RUNTIME_REQUEST: usize = 256;
/// Longest answer: clients refuse what is longer.
const MAX_RUNTIME_ANSWER: usize = 256;

/// Slice size and fragment limit, in bytes. In a request 0 keeps what there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SliceSettings {
    /// `FLAGCX_P2P_SLICE_SIZE`.
    pub slice_size: u32,
    /// `FLAGCX_P2P_FRAGMENT_LIMIT`.
    pub fragment_limit: u32,
}

const LEAST_SLICE: u32 = 4096;
const MOST: u32 = 1 << 30;

const SLICE_SIZE: &str = "FLAGCX_P2P_SLICE_SIZE";
const FRAGMENT_LIMIT: &str = "FLAGCX_P2P_FRAGMENT_LIMIT";

impl SliceSettings {
    /// Reads a request whole, or refuses it. `GET` changes nothing, so it is the request to keep both.
    pub fn parse_request(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.is_empty() || bytes.len() > MAX_RUNTIME_REQUEST {
            let problem = format!("{} bytes, expected 1 to {MAX_RUNTIME_REQUEST}", bytes.len());
            return Err(error(problem));
        }
        let text = str::from_utf8(bytes).map_err(|_| error("is not UTF-8 text"))?;
        if text.trim_end() == "GET" {
            return Ok(Self::default());
        }
        let (mut slice_size, mut fragment_limit) = (None, None);
        for line in text.lines() {
            let (name, value) = line
                .split_once('=')
                .ok_or_else(|| error(format!("{line:?} is not GET and not NAME=value")))?;
            let place = match name {
                SLICE_SIZE => &mut slice_size,
                FRAGMENT_LIMIT => &mut fragment_limit,
                _ => return Err(error(format!("{name:?} cannot be changed at run time"))),
            };
            if place.replace(parse_bytes(name, value)?).is_some() {
                return Err(error(format!("{name} is given twice")));
            }
        }
        let slice_size = slice_size.unwrap_or_default();
        if (1..LEAST_SLICE).contains(&slice_size) {
            return Err(error(format!("{SLICE_SIZE}={slice_size}, expected at least {LEAST_SLICE}")));
        }
        Ok(Self { slice_size, fragment_limit: fragment_limit.unwrap_or_default() })
    }

    /// Writes the answer. An empty `problem` says that the request was met.
    pub fn encode_answer(&self, problem: &str) -> String {
        let status = if problem.is_empty() { 0 } else { -1 };
        let Self { slice_size, fragment_limit } = self;
        let mut answer = format!(
            r#"{{"status":{status},"slice_size":{slice_size},"fragment_limit":{fragment_limit},"error":""#
        );
        escape(problem, &mut answer);
        answer + "\"}"
    }
}

fn parse_bytes(name: &str, value: &str) -> Result<u32, WireError> {
    // `parse` alone would take a sign.
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.parse().ok().filter(|number| digits && *number <= MOST);
    number.ok_or_else(|| error(format!("{name}={value:?}, expected a decimal number of at most {MOST}")))
}

/// Appends the content of a JSON string, as much of it as an answer has room for.
fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        // The longest escape, and the end of the answer.
        if out.len() + 6 + 2 > MAX_RUNTIME_ANSWER {
            return;
        }
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\0'..='\x1f' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
}

fn error(problem: impl Into<String>) -> WireError {
    WireError::new("runtime control", problem)
}
