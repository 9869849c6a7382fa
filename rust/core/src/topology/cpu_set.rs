//! A set of CPUs, and the list in which the kernel writes one.
//!
//! The parser is our own because it must bound what it reads: the crate `cpulist` expands `0-4294967295` to 16 GiB before a
//! caller can see it, and accepts signs and empty elements.

use std::collections::BTreeSet;
use std::fmt;

/// Limit of CPU numbers: kernels are built for at most 8192.
const MAX_CPUS: u32 = 8192;

/// A set of CPU numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet(BTreeSet<u32>);

/// Why a text is not a CPU list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed CPU list: `{text}`: {problem}; a list looks like `0-3,8`")]
pub struct CpuSetError {
    /// The malformed element.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl CpuSet {
    /// Reads a list as in `local_cpulist`: `0-3,8,10-11`. An empty text is the empty set.
    pub fn parse_list(text: &str) -> Result<Self, CpuSetError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::default());
        }
        let mut cpus = BTreeSet::new();
        for part in text.split(',') {
            let error = |problem| CpuSetError { text: part.to_owned(), problem };
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| {
                // Digits only: `parse` alone would accept a sign.
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                text.parse::<u32>().ok().filter(|_| digits).ok_or_else(|| error("expected a number"))
            };
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return Err(error("the range ends below its start"));
            }
            if last >= MAX_CPUS {
                return Err(error("the number is above 8191, the largest that Linux has"));
            }
            cpus.extend(first..=last);
        }
        Ok(Self(cpus))
    }

    /// CPUs in both sets.
    pub fn intersection(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }

    /// Whether it holds no CPU.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of CPUs.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The CPU numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }
}

impl FromIterator<u32> for CpuSet {
    /// CPU numbers beyond what a kernel can have are left out.
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        Self(cpus.into_iter().filter(|cpu| *cpu < MAX_CPUS).collect())
    }
}

impl fmt::Display for CpuSet {
    /// As a list: `0-3,8`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut cpus = self.iter().peekable();
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if_eq(&(last + 1)) {
                last = next;
            }
            write!(f, "{separator}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(text: &str) -> Vec<u32> {
        CpuSet::parse_list(text).unwrap().iter().collect()
    }

    #[test]
    fn lists_as_kernels_write_them() {
        assert_eq!(list("0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(list("7"), [7]);
        assert_eq!(list("\n"), [0; 0]);
        assert_eq!(list("3,1-2,2"), [1, 2, 3]);
        for bad in [",", "1,", "a", "1-", "-1", "3-1", "1--2", "+1", "0x1", "1 2", "0-8192", "99999999999"] {
            assert!(CpuSet::parse_list(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_set_reads_back(cpus in proptest::collection::btree_set(0..MAX_CPUS, 0..60)) {
            let set: CpuSet = cpus.into_iter().collect();
            prop_assert_eq!(CpuSet::parse_list(&set.to_string()), Ok(set));
        }

        #[test]
        fn any_text_is_a_set_or_an_error(text in "[0-9a-f,\\- ]{0,40}|.{0,20}") {
            if let Ok(set) = CpuSet::parse_list(&text) {
                prop_assert_eq!(CpuSet::parse_list(&set.to_string()), Ok(set));
            }
        }

        #[test]
        fn an_intersection_is_in_both(a in proptest::collection::btree_set(0_u32..64, 0..40),
                                      b in proptest::collection::btree_set(0_u32..64, 0..40)) {
            let both: CpuSet = a.intersection(&b).copied().collect();
            let (a, b): (CpuSet, CpuSet) = (a.into_iter().collect(), b.into_iter().collect());
            prop_assert_eq!(a.intersection(&b), both);
        }
    }
}
