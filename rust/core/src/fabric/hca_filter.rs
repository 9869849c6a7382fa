//! `FLAGCX_IB_HCA`: which devices and ports to use, as a pure function over names.
//!
//! Syntax: an optional `^` (all but these), an optional `=` (whole names; otherwise prefixes), then
//! `name[:port]` separated by commas. No port, or -1, means any port. An empty list means every device.

use super::FabricError;

/// Entries that a list may have.
const MOST_ENTRIES: usize = 32;

/// A parsed list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HcaFilter {
    exclude: bool,
    whole_names: bool,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    port: Option<u8>,
}

impl HcaFilter {
    /// Reads the variable's text.
    pub fn parse(text: &str) -> Result<Self, FabricError> {
        let rest = text.trim();
        let (exclude, rest) = rest.strip_prefix('^').map_or((false, rest), |rest| (true, rest));
        let (whole_names, rest) = rest.strip_prefix('=').map_or((false, rest), |rest| (true, rest));
        let entries = rest
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(|item| entry(item).ok_or_else(|| bad(text, &format!("`{item}` is not name[:port]"))))
            .collect::<Result<Vec<_>, _>>()?;
        if entries.len() > MOST_ENTRIES {
            return Err(bad(text, &format!("it has {} entries, {MOST_ENTRIES} are allowed", entries.len())));
        }
        Ok(Self { exclude, whole_names, entries })
    }

    /// Whether port `port` of `device` is to be used.
    pub fn allows(&self, device: &str, port: u8) -> bool {
        if self.entries.is_empty() {
            return true;
        }
        let listed = self.entries.iter().any(|entry| {
            let name = if self.whole_names { device == entry.name } else { device.starts_with(&entry.name) };
            name && entry.port.is_none_or(|wanted| wanted == port)
        });
        listed != self.exclude
    }
}

fn entry(item: &str) -> Option<Entry> {
    let (name, port) = item.split_once(':').map_or((item, None), |(name, port)| (name, Some(port)));
    let port = match port {
        None | Some("-1") => None,
        Some(number) => Some(number.parse().ok().filter(|&port| port > 0)?),
    };
    (!name.is_empty()).then(|| Entry { name: name.to_owned(), port })
}

fn bad(text: &str, why: &str) -> FabricError {
    FabricError::Unsupported(format!(
        "FLAGCX_IB_HCA=\"{text}\" cannot be read: {why}; write [^][=]name[:port],..., for example mlx5_0:1,mlx5_1"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(list: &str, device: &str, port: u8) -> bool {
        HcaFilter::parse(list).unwrap().allows(device, port)
    }

    #[test]
    fn empty_allows_everything() {
        for list in ["", "  ", "=", "^", "^=", ","] {
            assert!(allows(list, "mlx5_0", 1), "{list:?}");
        }
    }

    #[test]
    fn names_are_prefixes_unless_marked_whole() {
        assert!(allows("mlx5_1", "mlx5_10", 1));
        assert!(!allows("=mlx5_1", "mlx5_10", 1));
        assert!(allows("=mlx5_1", "mlx5_1", 1));
        assert!(!allows("mlx5_1", "mlx5_0", 1));
    }

    #[test]
    fn a_caret_turns_the_list_round() {
        assert!(!allows("^mlx5", "mlx5_3", 1));
        assert!(allows("^mlx5", "rxe0", 1));
        assert!(allows("^=mlx5_1", "mlx5_10", 1));
        assert!(!allows("^=mlx5_1", "mlx5_1", 2));
    }

    #[test]
    fn a_port_narrows_its_entry() {
        assert!(allows("mlx5_0:1,rxe0", "mlx5_0", 1));
        assert!(!allows("mlx5_0:1,rxe0", "mlx5_0", 2));
        assert!(allows("mlx5_0:-1", "mlx5_0", 2));
        assert!(allows("^mlx5_0:1", "mlx5_0", 2));
        assert!(!allows("^mlx5_0:1", "mlx5_0", 1));
    }

    #[test]
    fn nonsense_is_refused_with_the_syntax() {
        for list in ["mlx5_0:x", ":1", "mlx5_0:0", "mlx5_0:256", "mlx5_0:1:2"] {
            let error = HcaFilter::parse(list).unwrap_err().to_string();
            assert!(error.contains(list) && error.contains("[^][=]name[:port]"), "{error}");
        }
        let long = vec!["a"; 33].join(",");
        assert!(HcaFilter::parse(&long).unwrap_err().to_string().contains("33 entries"));
    }
}
