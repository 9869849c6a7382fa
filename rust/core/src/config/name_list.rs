//! Lists of device or interface names: `[^][=]name[:port],...`.

/// Names a list may hold; further ones are ignored, as the original engine does.
const MAX_NAMES: usize = 32;

/// A parsed list. A leading `^` excludes, a `=` after it matches whole names instead of prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameList {
    exclude: bool,
    exact: bool,
    names: Vec<Name>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    text: String,
    port: Option<u32>,
}

impl NameList {
    /// Parses a list; every text has a meaning.
    pub fn parse(text: &str) -> Self {
        let (exclude, text) = strip_flag(text, '^');
        let (exact, text) = strip_flag(text, '=');
        let names =
            text.split(',').filter(|name| !name.is_empty()).take(MAX_NAMES).map(Name::parse).collect();
        Self { exclude, exact, names }
    }

    /// The text, if it is a list as an operator means it: it has names, none is empty, and each is one that a device can have.
    pub fn check(text: &str) -> Result<String, String> {
        let (_, rest) = strip_flag(text, '^');
        let (_, rest) = strip_flag(rest, '=');
        for (index, element) in rest.split(',').enumerate() {
            let (name, port) =
                element.split_once(':').map_or((element, None), |(name, port)| (name, Some(port)));
            let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'@');
            let is_port = |port: &str| port == "-1" || port.parse::<u8>().is_ok();
            if name.is_empty() || !name.bytes().all(known) || !port.is_none_or(is_port) {
                return Err(format!("element {} ({element:?}) is not a name or name:port", index + 1));
            }
        }
        Ok(text.to_owned())
    }

    /// Whether it has no names: then it matches everything.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether it names what is left out.
    pub fn is_exclusion(&self) -> bool {
        self.exclude
    }

    /// Whether a name passes the list. `port` is `None` where ports mean nothing (network interfaces).
    pub fn matches(&self, name: &str, port: Option<u32>) -> bool {
        if self.names.is_empty() {
            return true;
        }
        let listed = self.names.iter().any(|entry| entry.matches(name, port, self.exact));
        listed != self.exclude
    }
}

impl Name {
    /// A port that is -1, missing or not a number means any port.
    fn parse(text: &str) -> Self {
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, port.parse().ok()),
            None => (text, None),
        };
        Self { text: name.to_owned(), port }
    }

    fn matches(&self, name: &str, port: Option<u32>, exact: bool) -> bool {
        let same_name = if exact { name == self.text } else { name.starts_with(&self.text) };
        let same_port = match (self.port, port) {
            (Some(expected), Some(port)) => expected == port,
            _ => true,
        };
        same_name && same_port
    }
}

fn strip_flag(text: &str, flag: char) -> (bool, &str) {
    match text.strip_prefix(flag) {
        Some(rest) => (true, rest),
        None => (false, text),
    }
}

#[cfg(test)]
mod tests {
    use super::NameList;

    #[test]
    fn an_empty_list_matches_everything() {
        for text in ["", "^", "=", "^=", ",,"] {
            assert!(NameList::parse(text).matches("mlx5_0", Some(1)), "{text:?}");
        }
    }

    #[test]
    fn names_match_by_prefix_or_exactly() {
        let cases = [
            ("mlx5", "mlx5_0", true),
            ("mlx5_1", "mlx5_10", true),
            ("=mlx5_1", "mlx5_10", false),
            ("=mlx5_1", "mlx5_1", true),
            ("^mlx5_1", "mlx5_10", false),
            ("^=mlx5_1", "mlx5_10", true),
            ("eth,ib", "ib0", true),
            ("eth,ib", "docker0", false),
            ("^docker,lo", "eth0", true),
        ];
        for (list, name, expected) in cases {
            assert_eq!(NameList::parse(list).matches(name, None), expected, "{list} against {name}");
        }
    }

    #[test]
    fn ports_count_for_devices_only() {
        let list = NameList::parse("=mlx5_0:2,mlx5_1,mlx5_2:-1");
        assert!(list.matches("mlx5_0", Some(2)));
        assert!(!list.matches("mlx5_0", Some(1)));
        assert!(list.matches("mlx5_1", Some(7)));
        assert!(list.matches("mlx5_2", Some(1)));
        assert!(list.matches("mlx5_0", None));
    }

    #[test]
    fn only_the_first_names_count() {
        let text = (0..40).map(|index| format!("dev{index}")).collect::<Vec<_>>().join(",");
        let list = NameList::parse(&format!("={text}"));
        assert!(list.matches("dev31", None));
        assert!(!list.matches("dev32", None));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text: String, name: String, port: Option<u32>) {
            let _ = NameList::parse(&text).matches(&name, port);
        }
    }
}
