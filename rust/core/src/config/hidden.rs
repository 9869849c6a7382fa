//! Texts that no log, no listing of the settings and no `Debug` shows.

use std::fmt;

/// A text with a secret in it, or that may have one.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(String);

impl Hidden {
    /// Hides a text.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself. It must not be written anywhere.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}

/// A URL with stars in place of its password.
pub(super) fn url_without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // To the last `@`: a password may hold one, which is hidden too then.
    match rest.rsplit_once('@') {
        Some((user, servers)) => match user.split_once(':') {
            Some((user, _)) => format!("{scheme}://{user}:***@{servers}"),
            None => url.to_owned(),
        },
        None => url.to_owned(),
    }
}

/// What stands for a text that is a secret as a whole.
pub(super) fn set(_: &str) -> String {
    "***".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for (url, shown) in [
            ("static:a=192.0.2.7:1", "static:a=192.0.2.7:1"),
            ("etcd://h:2379/p", "etcd://h:2379/p"),
            ("etcd://user@h:2379", "etcd://user@h:2379"),
            ("etcd://user:secret@h:2379,i:2379/p", "etcd://user:***@h:2379,i:2379/p"),
            ("etcds://user:sec/r@t@h", "etcds://user:***@h"),
        ] {
            assert_eq!(url_without_password(url), shown);
        }
        assert_eq!(format!("{:?}", Hidden::new("secret".to_owned())), "Hidden");
        assert_eq!(set("secret"), "***");
    }
}
