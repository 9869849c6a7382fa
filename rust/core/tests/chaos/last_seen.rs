//! What the memory of a peer held when it was last looked at, for READs of a peer that has been killed since: memory that both
//! processes map stays what it was.

use std::ops::Range;

/// How bytes compare with those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    Same,
    Different,
    /// Those that are known are the same.
    Unknown,
}

#[derive(Debug)]
pub struct LastSeen {
    bytes: Vec<u8>,
    /// A WRITE that was not looked at may have changed them.
    unknown: Vec<Range<usize>>,
}

impl LastSeen {
    /// Of memory that nothing is known of.
    pub fn nothing(length: usize) -> Self {
        let mut seen = Self { bytes: vec![0; length], unknown: Vec::new() };
        seen.forget(0..length);
        seen
    }

    /// `bytes` were written over it, as far as to `count`.
    pub fn filled(&mut self, bytes: &[u8], count: usize) {
        self.bytes[..count].copy_from_slice(&bytes[..count]);
        for range in &mut self.unknown {
            range.start = range.start.max(count);
        }
        self.unknown.retain(|range| range.start < range.end);
    }

    /// It was looked at.
    pub fn found(&mut self, content: &[u8]) {
        self.filled(content, content.len());
    }

    /// Something may change it there, or has.
    pub fn forget(&mut self, range: Range<usize>) {
        self.unknown.push(range);
    }

    /// How `other` compares with what is from `start` on.
    pub fn compare(&self, start: usize, other: &[u8]) -> Likeness {
        let is_unknown = |at: usize| self.unknown.iter().any(|range| range.contains(&at));
        let mut likeness = Likeness::Same;
        for (at, byte) in (start..).zip(other) {
            if is_unknown(at) {
                likeness = Likeness::Unknown;
            } else if self.bytes[at] != *byte {
                return Likeness::Different;
            }
        }
        likeness
    }
}

#[test]
fn what_was_seen_last_is_compared_and_what_was_not_is_unknown() {
    let mut seen = LastSeen::nothing(8);
    assert_eq!(seen.compare(0, b"12345678"), Likeness::Unknown);
    seen.filled(b"abcdefgh", 8);
    assert_eq!(seen.compare(2, b"cde"), Likeness::Same);
    assert_eq!(seen.compare(2, b"cdx"), Likeness::Different);
    seen.forget(2..6);
    assert_eq!(seen.compare(0, b"abxxxxgh"), Likeness::Unknown);
    assert_eq!(seen.compare(0, b"abxxxxgx"), Likeness::Different);
    // Cut short: the rest stays as it was.
    seen.filled(b"ABCDEFGH", 4);
    assert_eq!(seen.compare(0, b"ABCD"), Likeness::Same);
    assert_eq!(seen.compare(4, b"xxgh"), Likeness::Unknown);
    seen.found(b"12345678");
    assert_eq!(seen.compare(0, b"12345678"), Likeness::Same);
}
