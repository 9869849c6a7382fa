//! Names in the order in which an operator counts them: `mlx5_2` before `mlx5_10`.

use std::cmp::Ordering;

/// Compares two names: digits by the number that they are, everything else byte by byte.
pub fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let ((text_a, rest_a), (text_b, rest_b)) = (split(left, false), split(right, false));
        let ((number_a, rest_a), (number_b, rest_b)) = (split(rest_a, true), split(rest_b, true));
        let (value_a, value_b) = (number_a.trim_start_matches('0'), number_b.trim_start_matches('0'));
        let order = text_a
            .cmp(text_b)
            .then(number_a.is_empty().cmp(&number_b.is_empty()).reverse())
            .then(value_a.len().cmp(&value_b.len()))
            .then(value_a.cmp(value_b));
        if order != Ordering::Equal {
            return order;
        }
        if rest_a.is_empty() && rest_b.is_empty() {
            // `a01` and `a1` count the same, and are two names.
            return a.cmp(b);
        }
        (left, right) = (rest_a, rest_b);
    }
}

/// The leading digits of a text, or what is before the first digit; and the rest.
fn split(text: &str, digits: bool) -> (&str, &str) {
    let end = text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_one_counts() {
        let mut names = [
            "mlx5_10",
            "mlx5_bond_0",
            "mlx5_2",
            "rocep1s0f10",
            "mlx5_1",
            "rocep1s0f2",
            "mlx5",
            "ib01",
            "ib1",
        ];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(
            names,
            [
                "ib01",
                "ib1",
                "mlx5",
                "mlx5_1",
                "mlx5_2",
                "mlx5_10",
                "mlx5_bond_0",
                "rocep1s0f2",
                "rocep1s0f10"
            ]
        );
    }

    proptest! {
        #[test]
        fn an_order_of_all_names(a in "[a0-2_]{0,6}", b in "[a0-2_]{0,6}", c in "[a0-2_]{0,6}") {
            prop_assert_eq!(natural_order(&a, &b), natural_order(&b, &a).reverse());
            prop_assert_eq!(natural_order(&a, &b) == Ordering::Equal, a == b);
            let mut names = [a.as_str(), b.as_str(), c.as_str()];
            names.sort_by(|a, b| natural_order(a, b));
            prop_assert!(natural_order(names[0], names[2]) != Ordering::Greater);
        }

        #[test]
        fn numbers_of_any_length(a: u64, b: u64) {
            prop_assert_eq!(natural_order(&format!("n{a}"), &format!("n{b}")), a.cmp(&b));
        }
    }
}
