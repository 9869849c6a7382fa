//! Numbers as they are printed, and sizes as they are given on the command line.

use std::time::Duration;

use parse_size::Config;

/// `2.00 GiB`.
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

/// Reads `4096`, `64K`, `64KB`, `64KiB`, `1.5G`: K, M, G and T are powers of 1024 with or without `iB` or `B`, in any case.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    if text.contains(',') {
        return Err(format!("`{text}` is not a size; write a fraction with a point, such as 1.5G"));
    }
    SIZES.parse_size(text.trim()).map_err(|error| {
        format!("`{text}` is not a size ({error}); expected a number with K, M, G or T, such as 64M")
    })
}

/// `64K` is 65,536: chunks and rings are counted in pages.
const SIZES: Config = Config::new().with_binary();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, size) in [
            ("0", 0),
            ("4096", 4096),
            ("64K", 65536),
            ("64KB", 65536),
            (" 64 KiB ", 65536),
            ("1m", 1 << 20),
            ("1.5M", 3 << 19),
            ("2G", 2 << 30),
            ("1.5G", 3 << 29),
            ("0.5k", 512),
            ("1T", 1 << 40),
            ("7B", 7),
        ] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for text in ["1,5", "1,5G", "1,000"] {
            assert!(parse_size(text).unwrap_err().ends_with("with a point, such as 1.5G"), "{text}");
        }
        for text in ["", "G", "-1", "1X", "99999999T", "1K1", "0x10"] {
            let error = parse_size(text).unwrap_err();
            assert!(error.starts_with(&format!("`{text}` is not a size")), "{error}");
        }
    }

    #[test]
    fn rates() {
        assert_eq!(rate(3_000_000_000, Duration::from_secs(2)), "1.50 GB/s");
        assert_eq!(hex(&[0, 255]), "00ff");
    }
}
