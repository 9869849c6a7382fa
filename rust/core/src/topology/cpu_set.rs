//! A set of CPUs, and the two forms in which the kernel writes one.

use std::collections::BTreeSet;
use std::fmt;

/// CPU numbers that are believed. Kernels are built for at most 8192.
const MAX_CPUS: u32 = 8192;

/// A set of CPU numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet(BTreeSet<u32>);

/// Why text is no CPU set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no list of CPUs such as `0-3,8`: {problem}")]
pub struct CpuSetError {
    /// The part that was not understood.
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
                // Digits only: `parse` alone would take a sign.
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                text.parse::<u32>().ok().filter(|_| digits).ok_or_else(|| error("expected a number"))
            };
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return Err(error("the range runs backwards"));
            }
            if last >= MAX_CPUS {
                return Err(error("no machine has that many CPUs"));
            }
            cpus.extend(first..=last);
        }
        Ok(Self(cpus))
    }

    /// Reads a mask as in `local_cpus`: words of 32 bits in hexadecimal, the highest first, with commas between.
    pub fn parse_mask(text: &str) -> Result<Self, CpuSetError> {
        let mut cpus = BTreeSet::new();
        let mut base = 0;
        for word in text.trim().rsplit(',') {
            let error = |problem| CpuSetError { text: word.to_owned(), problem };
            let digits = (1..=8).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_hexdigit());
            let bits = u32::from_str_radix(word, 16).ok().filter(|_| digits);
            let bits = bits.ok_or_else(|| error("expected up to eight hexadecimal digits"))?;
            if base >= MAX_CPUS {
                return Err(error("no machine has that many CPUs"));
            }
            cpus.extend((0..32).filter(|bit| bits >> bit & 1 == 1).map(|bit| base + bit));
            base += 32;
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

    #[test]
    fn masks_as_kernels_write_them() {
        let mask = |text| CpuSet::parse_mask(text).map(|set| set.to_string());
        assert_eq!(mask("3\n").unwrap(), "0-1");
        assert_eq!(mask("00000001,80000000").unwrap(), "31-32");
        assert_eq!(mask("0").unwrap(), "");
        assert_eq!(mask("ff,00000000,00000000").unwrap(), "64-71");
        for bad in ["", ",", "g", "100000000", "-1", "1,,1", "1,+1"] {
            assert!(mask(bad).is_err(), "{bad}");
        }
        assert!(CpuSet::parse_mask(&vec!["0"; 257].join(",")).is_err());
    }

    proptest! {
        #[test]
        fn a_printed_set_reads_back(cpus in proptest::collection::btree_set(0..MAX_CPUS, 0..60)) {
            let set: CpuSet = cpus.into_iter().collect();
            prop_assert_eq!(CpuSet::parse_list(&set.to_string()), Ok(set));
        }

        #[test]
        fn list_and_mask_agree(words in proptest::collection::vec(any::<u32>(), 1..8)) {
            let text: Vec<_> = words.iter().map(|word| format!("{word:08x}")).collect();
            let set = CpuSet::parse_mask(&text.join(",")).unwrap();
            prop_assert_eq!(set.len(), words.iter().map(|word| word.count_ones() as usize).sum::<usize>());
            prop_assert_eq!(CpuSet::parse_list(&set.to_string()), Ok(set));
        }

        #[test]
        fn any_text_is_a_set_or_an_error(text in "[0-9a-f,\\- ]{0,40}|.{0,20}") {
            let _ = CpuSet::parse_mask(&text);
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
