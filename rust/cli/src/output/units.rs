//! Numbers for people, and sizes from people.

use std::time::Duration;

/// `2.0 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// `1.23 GB/s`, decimal as links are sold.
pub(crate) fn rate(bytes: u64, elapsed: Duration) -> String {
    format!("{:.2} GB/s", gigabytes_per_second(bytes, elapsed))
}

/// Decimal gigabytes per second.
pub(crate) fn gigabytes_per_second(bytes: u64, elapsed: Duration) -> f64 {
    bytes as f64 / 1e9 / elapsed.as_secs_f64().max(1e-9)
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads `4096`, `64K`, `64KiB`, `1M`, `2G`: powers of 1024, any case.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.trim_end_matches("ib").trim_end_matches('b');
    let (digits, shift) = match number.strip_suffix(['k', 'm', 'g', 't']) {
        Some(digits) => (digits, number.chars().last()),
        None => (number, None),
    };
    let shift = match shift {
        Some('k') => 10,
        Some('m') => 20,
        Some('g') => 30,
        Some('t') => 40,
        _ => 0,
    };
    digits
        .trim()
        .parse::<u64>()
        .ok()
        .and_then(|value| value.checked_mul(1 << shift))
        .ok_or_else(|| format!("`{text}` is no size; expected a number with K, M, G or T, such as 64M"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, size) in [
            ("0", 0),
            ("4096", 4096),
            ("64K", 65536),
            ("64 KiB", 65536),
            ("1m", 1 << 20),
            ("2G", 2 << 30),
            ("1T", 1 << 40),
            ("7B", 7),
        ] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for text in ["", "G", "1.5G", "-1", "1X", "99999999T", "1 2"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates() {
        assert_eq!(rate(3_000_000_000, Duration::from_secs(2)), "1.50 GB/s");
        assert_eq!(hex(&[0, 255]), "00ff");
    }
}
