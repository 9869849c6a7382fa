//! One page of an endpoint, over HTTP.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::target::Endpoint;
use crate::dial::{self, DialError};
use crate::error::{CliError, Result};

/// How long a page may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Longest answer: a page of a thousand peers has less than two megabytes.
const MAX_ANSWER: usize = 64 << 20;
const IS_IT_THERE: &str =
    "is the process running, with an open engine, and with this address in its FLAGCX_P2P_METRICS?";

/// The body of `path`. An error if it is not answered with status 200.
pub(super) fn fetch(endpoint: &Endpoint, path: &str) -> Result<String> {
    fetch_within(endpoint, path, LIMIT)
}

/// The same of an endpoint that has `within` for its answer.
pub(super) fn fetch_within(endpoint: &Endpoint, path: &str, within: Duration) -> Result<String> {
    let answer = match endpoint {
        Endpoint::Unix(path_of) => {
            let mut stream = UnixStream::connect(path_of).map_err(|error| unreached(&error))?;
            exchange(&mut stream, path, within, |stream, left| {
                stream.set_read_timeout(Some(left))?;
                stream.set_write_timeout(Some(left))
            })
        }
        Endpoint::Tcp(address) => {
            let mut stream = dial::connect(address).map_err(|error| {
                CliError::other(match error {
                    DialError::Resolve(text) => text,
                    error @ DialError::Connect(_) => format!("{error}; {IS_IT_THERE}"),
                })
            })?;
            exchange(&mut stream, path, within, |stream, left| {
                stream.set_read_timeout(Some(left))?;
                stream.set_write_timeout(Some(left))
            })
        }
    };
    body(&answer.map_err(|error| CliError::other(describe(&error)))?)
}

fn unreached(error: &io::Error) -> CliError {
    CliError::other(match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => format!("{error}; {IS_IT_THERE}"),
        ErrorKind::PermissionDenied => {
            format!("{error}; the socket belongs to another user: run this as that one")
        }
        _ => describe(error),
    })
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            "no answer in time: the process may be stopped, or no metrics endpoint is behind this address"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

fn exchange<S: Read + Write>(
    stream: &mut S,
    path: &str,
    within: Duration,
    limit: impl Fn(&S, Duration) -> io::Result<()>,
) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + within;
    limit(stream, within)?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let (mut answer, mut part) = (Vec::new(), vec![0_u8; 64 << 10]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        if answer.len() > MAX_ANSWER {
            let text = format!("the answer has more than {} bytes: this is no metrics endpoint", MAX_ANSWER);
            return Err(io::Error::other(text));
        }
        limit(stream, left)?;
        match stream.read(&mut part) {
            Ok(0) => return Ok(answer),
            Ok(count) => {
                answer.extend_from_slice(part.get(..count).unwrap_or_default());
                // Another protocol's server may wait for more, and never close.
                if !b"HTTP/1.1 ".iter().zip(&answer).all(|(one, other)| one == other) {
                    return Ok(answer);
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The body of an answer, which ends with the connection.
fn body(answer: &[u8]) -> Result<String> {
    let foreign = || CliError::other("the answer is not that of a metrics endpoint");
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(head)) = response.parse(answer) else { return Err(foreign()) };
    let body = answer.get(head..).unwrap_or_default();
    let announced = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let announced = announced.and_then(|field| std::str::from_utf8(field.value).ok()?.parse::<usize>().ok());
    let text = std::str::from_utf8(body).map_err(|_| foreign())?;
    match (response.code, announced) {
        (Some(200), Some(length)) if body.len() < length => {
            Err(CliError::other(format!("the answer ended after {} of {length} bytes", body.len())))
        }
        (Some(200), _) => Ok(text.to_owned()),
        (code, _) => {
            let line = text.lines().next().unwrap_or_default().escape_debug();
            Err(CliError::other(format!("it answered with status {}: {line}", code.unwrap_or(0))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let read = |text: &str| body(text.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"), Ok("ab".to_owned()));
        let cases = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", "after 2 of 3 bytes"),
            ("HTTP/1.1 404 Not Found\r\n\r\nno\x1b[2J\nx", "status 404: no\\u{1b}[2J"),
            ("SSH-2.0-OpenSSH\r\n", "not that of a metrics endpoint"),
            ("", "not that of a metrics endpoint"),
        ];
        for (text, part) in cases {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = body(&bytes);
        }
    }
}
