//! Names of peers.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// The name of a peer in a directory: 1 to 253 of the characters `A-Z a-z 0-9 . _ -`, in groups that are separated by `/`.
///
/// `decode-3` and `tenant-a/decode/3` are names. There is no `:` in one, so a name is never taken for `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// A name, checked.
    ///
    /// # Errors
    /// [`Error::Name`] with what is wrong.
    pub fn new(text: &str) -> Result<Self, Error> {
        match problem(text) {
            None => Ok(Self(text.to_owned())),
            Some(problem) => Err(Error::Name { name: text.chars().take(SHOWN).collect(), problem }),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::new(text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn problem(text: &str) -> Option<&'static str> {
    if text.is_empty() || text.len() > LONGEST {
        return Some("it has 1 to 253 bytes");
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte)) {
        return Some("it consists of A-Z a-z 0-9 . _ - and / between groups");
    }
    text.split('/').any(str::is_empty).then_some("a / stands between two groups, and none of them is empty")
}

/// As long as a name of the DNS may be.
const LONGEST: usize = 253;

/// Characters of a malformed name in an error.
const SHOWN: usize = 64;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_in_groups() {
        for good in ["a", "decode-3", "tenant_a/decode.x/3", &"n".repeat(253)] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        let long = "n".repeat(254);
        for bad in ["", "/", "/a", "a/", "a//b", "host:7000", "a b", "ä", "a\n", "a%2f", &long] {
            assert!(matches!(Name::new(bad), Err(Error::Name { .. })), "{bad:?}");
        }
    }
}
