//! Which names a served file may have.

use std::fmt;

use super::StoreError;

/// Longest name in bytes, as most file systems have it.
const MAX: usize = 255;

/// A file name that is one path component and nothing more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileName(String);

/// Whether a name with this character may look like another one: `exe.jpg` for `gpj.exe`.
fn turns_text(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl FileName {
    /// Checks a name: no directory part, not `.` or `..`, no control characters, none of the tool's own temporaries.
    pub(crate) fn new(name: &str) -> Result<Self, StoreError> {
        let problem = if name.is_empty() {
            "is empty"
        } else if name.contains('/') {
            "contains '/': a name is one path component"
        } else if name == "." || name == ".." {
            "names a directory"
        } else if name.len() > MAX {
            "is longer than 255 bytes"
        } else if name.chars().any(char::is_control) {
            "contains a control character"
        } else if name.contains(turns_text) {
            "contains a character that changes the direction of text"
        } else if name.starts_with(super::TEMPORARY) {
            "is reserved for temporary files of this tool"
        } else {
            return Ok(Self(name.to_owned()));
        };
        Err(StoreError::Name { name: name.escape_debug().to_string(), problem })
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let longest = "x".repeat(255);
        for good in ["a", "a.bin", ".hidden", "...", "a b", "ü", "-rf", "a\\b", longest.as_str()] {
            assert_eq!(FileName::new(good).unwrap().as_str(), good);
        }
        let too_long = "x".repeat(256);
        for bad in [
            "",
            ".",
            "..",
            "/",
            "a/b",
            "../a",
            "/etc/passwd",
            "a/",
            "a\0b",
            "a\nb",
            "a\u{1b}[2Jb",
            "\u{202e}gpj.exe",
            ".flagcx-p2p-1.part",
            too_long.as_str(),
        ] {
            let error = FileName::new(bad).unwrap_err();
            assert!(matches!(error, StoreError::Name { .. }), "{bad:?}: {error}");
            assert!(!error.to_string().contains(char::is_control), "{error}");
        }
    }
}
