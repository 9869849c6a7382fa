//! Names as keys of etcd.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::Name;

/// The keys of a directory.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// `/PREFIX/`.
    root: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { root: format!("/{prefix}/") }
    }

    /// The key of a name.
    pub(super) fn of(&self, name: &Name) -> String {
        encode(format!("{}{name}", self.root).as_bytes())
    }

    /// The range of all names that begin with `prefix`: its first key, and the first one after it.
    pub(super) fn range(&self, prefix: &str) -> (String, String) {
        let first = format!("{}{prefix}", self.root).into_bytes();
        let mut end = first.clone();
        while let Some(last) = end.pop() {
            if let Some(next) = last.checked_add(1) {
                end.push(next);
                break;
            }
        }
        (encode(&first), encode(&end))
    }

    /// The name of a key; `None` for a key of something else.
    pub(super) fn name(&self, key: &[u8]) -> Option<Name> {
        Name::new(std::str::from_utf8(key).ok()?.strip_prefix(&self.root)?).ok()
    }
}

/// Bytes as the gateway takes them.
pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The key right after `key`.
pub(super) fn after(key: &[u8]) -> String {
    encode(&[key, &[0]].concat())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_key_under_the_prefix() {
        let keys = Keys::new("site/one");
        let name = Name::new("a/b").unwrap();
        assert_eq!(keys.of(&name), encode(b"/site/one/a/b"));
        assert_eq!(keys.name(b"/site/one/a/b"), Some(name));
        for other in [&b"/site/one"[..], b"/site/one/", b"/site/two/a", b"/site/one/a b", b"\xff"] {
            assert_eq!(keys.name(other), None);
        }
        assert_eq!(keys.range(""), (encode(b"/site/one/"), encode(b"/site/one0")));
        assert_eq!(keys.range("a"), (encode(b"/site/one/a"), encode(b"/site/one/b")));
    }
}
