//! More NICs than rails use: what an engine says of it once.

use crate::control::wire::MAX_NICS;
use crate::rails::MAX_RAILS;

/// What to say of NICs with these names, in the order of their numbers; `None` where rails may use all of them.
pub(super) fn nics_beyond_rails(names: &[String]) -> Option<String> {
    if names.len() <= MAX_RAILS {
        return None;
    }
    let not_told = match names.get(MAX_NICS..).unwrap_or_default() {
        [] => String::new(),
        names => format!(", and peers are told of the first {MAX_NICS}, not of {}", names.join(", ")),
    };
    Some(format!(
        "{} NICs: rails use at most {MAX_RAILS} of them, which ones depends on the peer's NICs{not_told}; FLAGCX_IB_HCA names those that \
         are to be used",
        names.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nics_that_rails_do_not_use_are_counted_and_those_that_peers_do_not_know_are_named() {
        let of = |count: usize| {
            let names: Vec<_> = (0..count).map(|number| format!("nv{number}:1")).collect();
            nics_beyond_rails(&names)
        };
        assert_eq!(of(MAX_RAILS), None);
        let text = of(MAX_RAILS + 1).unwrap();
        assert!(text.starts_with("9 NICs: rails use at most 8") && !text.contains("told"), "{text}");
        assert!(!of(MAX_NICS).unwrap().contains("told"));
        let text = of(MAX_NICS + 2).unwrap();
        assert!(text.contains("18 NICs") && text.contains("not of nv16:1, nv17:1;"), "{text}");
    }
}
