//! The lines of a streamed answer, each of bounded length.

use std::io::{self, BufRead, BufReader, Read};

/// Lines of a stream.
pub(super) struct Lines<R>(BufReader<R>);

impl<R: Read> Lines<R> {
    pub(super) fn new(stream: R) -> Self {
        Self(BufReader::new(stream))
    }

    /// The next line, without its end; `None` at the end of the stream.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        (&mut self.0).take(LONGEST).read_until(b'\n', &mut line)?;
        match line.pop() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(line)),
            Some(_) if line.len() as u64 + 1 == LONGEST => {
                Err(io::Error::other(format!("a line is longer than {LONGEST} bytes")))
            }
            Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Bytes of a line: etcd splits what is larger than 2 MiB in its own form, a third more in this one.
const LONGEST: u64 = 8 << 20;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_complete() {
        let mut lines = Lines::new(&b"one\n\ntwo\nrest"[..]);
        for expected in ["one", "", "two"] {
            assert_eq!(lines.next().unwrap().unwrap(), expected.as_bytes());
        }
        assert_eq!(lines.next().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(lines.next().unwrap().is_none());
        let error = Lines::new(io::repeat(b'x')).next().unwrap_err();
        assert!(error.to_string().contains("longer"), "{error}");
    }
}
