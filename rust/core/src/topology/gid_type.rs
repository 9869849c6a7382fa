//! What sysfs reports of an entry of a port's GID table.

/// RoCE version of a GID, 1 or 2, from the text of `gid_attrs/types/<index>`; `None` for a text that names neither.
pub fn roce_version(text: &str) -> Option<u8> {
    match text.trim() {
        "IB/RoCE v1" | "RoCE v1" => Some(1),
        "RoCE v2" => Some(2),
        _ => None,
    }
}

/// Network interface of a GID, from the text of `gid_attrs/ndevs/<index>`; `None` for a text that cannot be a name.
pub fn gid_interface(text: &str) -> Option<&str> {
    let name = text.trim();
    let fits =
        (1..LONGEST_NAME).contains(&name.len()) && !name.contains(|c: char| c == '/' || c.is_whitespace());
    fits.then_some(name)
}

/// IFNAMSIZ: the kernel's bound of an interface's name, its NUL included.
const LONGEST_NAME: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let found = ["IB/RoCE v1\n", "RoCE v1", "RoCE v2\n", "RoCE v3", "", "2"].map(roce_version);
        assert_eq!(found, [Some(1), Some(1), Some(2), None, None, None]);
    }

    #[test]
    fn interfaces() {
        let found = ["eth0\n", "", "\n", "two words", "../etc", "fifteen-letters", "sixteen--letters"];
        assert_eq!(
            found.map(gid_interface),
            [Some("eth0"), None, None, None, None, Some("fifteen-letters"), None]
        );
    }
}
