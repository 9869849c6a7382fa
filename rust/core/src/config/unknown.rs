//! Names that look like variables of this engine and are not: mistyped ones, mostly.

use super::table::{RETIRED, groups};

const PREFIX: &str = "FLAGCX_P2P_";
/// Read by other programs than the engine: the Python package, the tests and `x`.
const OF_OTHER_PROGRAMS: &[&str] = &[
    "FLAGCX_P2P_LIBRARY",
    "FLAGCX_P2P_SECONDS",
    "FLAGCX_P2P_SEED",
    "FLAGCX_P2P_NULLVERBS",
    "FLAGCX_P2P_TEST_",
];
/// Most letters in which a mistyped name differs.
const MAX_DISTANCE: usize = 4;

/// A line for each of `names` that nothing reads.
pub(super) fn remarks(names: impl Iterator<Item = String>) -> Vec<String> {
    let known: Vec<_> =
        groups().iter().flat_map(|group| group.variables).map(|variable| variable.name).collect();
    let is_known = |name: &str| {
        known.contains(&name)
            || RETIRED.iter().any(|(retired, _)| *retired == name)
            || OF_OTHER_PROGRAMS.iter().any(|other| name.starts_with(other))
    };
    let mut unknown: Vec<_> = names.filter(|name| name.starts_with(PREFIX) && !is_known(name)).collect();
    unknown.sort_unstable();
    unknown.dedup();
    let remark = |name: String| match closest(&name, &known) {
        Some(meant) => {
            format!("{name} is not a variable of this engine and has no effect; did you mean {meant}?")
        }
        None => format!("{name} is not a variable of this engine and has no effect"),
    };
    unknown.into_iter().map(remark).collect()
}

/// The variable with the most similar name, if one is similar.
pub fn closest_variable(name: &str) -> Option<&'static str> {
    let known: Vec<_> =
        groups().iter().flat_map(|group| group.variables).map(|variable| variable.name).collect();
    closest(name, &known)
}

fn closest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let near = known
        .iter()
        .map(|known| (strsim::levenshtein(name, known), *known))
        .filter(|(distance, _)| *distance <= MAX_DISTANCE);
    near.min().map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_is_pointed_out_with_the_one_that_was_meant() {
        let names = ["PATH", "FLAGCX_P2P_FABRC", "FLAGCX_P2P_FABRIC", "FLAGCX_P2P_FABRC", "FLAGCX_IB_HCAS"];
        let remarks = remarks(names.map(str::to_owned).into_iter());
        assert_eq!(remarks.len(), 1);
        assert!(
            remarks[0].contains("FLAGCX_P2P_FABRC ")
                && remarks[0].ends_with("; did you mean FLAGCX_P2P_FABRIC?")
        );
    }

    #[test]
    fn a_fallback_is_a_variable_and_of_the_same_range() {
        let all: Vec<_> = groups().into_iter().flat_map(|group| group.variables).collect();
        let with = all.iter().filter(|variable| !variable.fallback.is_empty());
        assert_eq!(with.clone().count(), 3);
        for variable in with {
            let fallback = all.iter().find(|other| other.name == variable.fallback).unwrap();
            assert_eq!(variable.range_text().split("..").last(), fallback.range_text().split("..").last());
        }
    }

    #[test]
    fn names_that_are_read_give_no_line() {
        let read =
            groups().into_iter().flat_map(|group| group.variables).map(|variable| variable.name.to_owned());
        let others = OF_OTHER_PROGRAMS.iter().map(|name| (*name).to_owned());
        assert_eq!(remarks(read.chain(others)), Vec::<String>::new());
        assert!(!remarks(["FLAGCX_P2P_SOMETHING_ELSE_ENTIRELY".to_owned()].into_iter())[0].contains(';'));
    }
}
