//! Whole numbers as C's `strtoll` with base 0 reads them.

/// Reads the number at the start of `text`: optional blanks and sign, then `0x` and hexadecimal digits, `0` and octal
/// digits, or decimal digits. What follows is ignored; no digits at all is 0; `None` when it does not fit.
pub fn parse_integer(text: &str) -> Option<i64> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (base, digits) = split_base(text);
    let mut magnitude: i128 = 0;
    for digit in digits.chars().map_while(|character| character.to_digit(base)) {
        magnitude = magnitude * i128::from(base) + i128::from(digit);
        if magnitude > i128::from(u64::MAX) {
            return None;
        }
    }
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

fn split_base(text: &str) -> (u32, &str) {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    match hexadecimal {
        // "0x" without a digit behind it is the number 0 followed by other text.
        Some(rest) if rest.starts_with(|character: char| character.is_ascii_hexdigit()) => (16, rest),
        _ if text.starts_with('0') => (8, text),
        _ => (10, text),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_integer;

    #[test]
    fn reads_as_strtoll_does() {
        let cases = [
            ("42", Some(42)),
            (" \t-7", Some(-7)),
            ("+5 apples", Some(5)),
            ("0x10", Some(16)),
            ("0X1fg", Some(31)),
            ("010", Some(8)),
            ("089", Some(0)),
            ("0x", Some(0)),
            ("0xg", Some(0)),
            ("yes", Some(0)),
            ("", Some(0)),
            ("-", Some(0)),
            ("4 096", Some(4)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999999999999999999999999999999999", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_integer(text), expected, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_number_survives(number: i64) {
            proptest::prop_assert_eq!(parse_integer(&number.to_string()), Some(number));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = parse_integer(&text);
        }
    }
}
