//! The lines of a streamed answer, each of bounded length and time.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::time::{Duration, Instant};

/// Lines of a stream.
pub(super) struct Lines<R> {
    stream: BufReader<R>,
    /// Of one line, from its first byte on.
    limit: Duration,
}

/// Why there is no line.
#[derive(Debug)]
pub(super) enum NoLine {
    /// The reader does not want one any more.
    Over,
    /// Nothing of it has come; the stream has failed, or was silent.
    Silent,
    /// Its end has not come.
    Broken,
    /// It is longer than [`LONGEST`].
    TooLong,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream: BufReader::new(stream), limit: SLOWEST }
    }

    /// The next line, without its end; `None` at the end of the stream. Whether it `is_over` is looked at after each read.
    pub(super) fn next(&mut self, is_over: &dyn Fn() -> bool) -> Result<Option<Vec<u8>>, NoLine> {
        let mut line = Vec::new();
        let mut begun: Option<Instant> = None;
        loop {
            if is_over() {
                return Err(NoLine::Over);
            }
            // A server that sends byte after byte, and no line, is as good as gone.
            if begun.is_some_and(|begun| begun.elapsed() >= self.limit) {
                return Err(NoLine::Broken);
            }
            let read = match self.stream.fill_buf() {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) if line.is_empty() => return Err(NoLine::Silent),
                Err(_) => return Err(NoLine::Broken),
            };
            if read.is_empty() {
                return if line.is_empty() { Ok(None) } else { Err(NoLine::Broken) };
            }
            begun.get_or_insert_with(Instant::now);
            let end = read.iter().position(|byte| *byte == b'\n');
            let (taken, used) = match end {
                Some(end) => (read.get(..end).unwrap_or_default(), end + 1),
                None => (read, read.len()),
            };
            if line.len() + taken.len() > LONGEST {
                return Err(NoLine::TooLong);
            }
            line.extend_from_slice(taken);
            self.stream.consume(used);
            if end.is_some() {
                return Ok(Some(line));
            }
        }
    }
}

/// Bytes of a line: etcd is asked to split what is larger than 2 MiB in its own form, a third more in this one. A single value can be
/// larger where its `--max-request-bytes` is.
pub(super) const LONGEST: usize = 8 << 20;

/// Of one line: the longest, over 2 Mbit/s.
const SLOWEST: Duration = Duration::from_secs(30);

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::cell::Cell;
    use std::io;

    use super::*;

    const GO_ON: &dyn Fn() -> bool = &|| false;

    /// A byte of each read, with a pause before it.
    struct Drip(Duration);

    impl Read for Drip {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            std::thread::sleep(self.0);
            into.iter_mut().take(1).for_each(|byte| *byte = b' ');
            Ok(1)
        }
    }

    #[test]
    fn lines_are_bounded_and_complete() {
        let mut lines = Lines::new(&b"one\n\ntwo\nrest"[..]);
        for expected in ["one", "", "two"] {
            assert_eq!(lines.next(GO_ON).unwrap().unwrap(), expected.as_bytes());
        }
        assert!(matches!(lines.next(GO_ON), Err(NoLine::Broken)));
        assert!(lines.next(GO_ON).unwrap().is_none());
        let error = Lines::new(io::repeat(b'x')).next(GO_ON);
        assert!(matches!(error, Err(NoLine::TooLong)), "{error:?}");
    }

    #[test]
    fn a_line_ends_with_its_reader_and_with_its_time() {
        let reads = Cell::new(0);
        let mut lines = Lines::new(Drip(Duration::ZERO));
        let is_over = || reads.replace(reads.get() + 1) == 3;
        assert!(matches!(lines.next(&is_over), Err(NoLine::Over)));
        let mut lines =
            Lines { limit: Duration::from_millis(20), ..Lines::new(Drip(Duration::from_millis(1))) };
        let begun = Instant::now();
        assert!(matches!(lines.next(GO_ON), Err(NoLine::Broken)));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}
