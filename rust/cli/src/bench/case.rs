//! What to measure: `64x4K`, lists of sizes and sweeps over them.

use std::fmt;
use std::str::FromStr;

use crate::output::units;

/// Largest piece.
pub(crate) const MAX_SIZE: u64 = 1 << 30;
/// Most pieces of a transfer.
pub(crate) const MAX_BATCH: u32 = 65_536;
/// Most cases of a run: a sweep over all sizes with several batches has fewer.
pub(crate) const MAX_CASES: usize = 1024;

/// Transfers of `batch` pieces of `size` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// Pieces per transfer.
    pub(crate) batch: u32,
    /// Bytes per piece.
    pub(crate) size: u32,
}

/// Sizes from one to another, each twice the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sweep {
    from: u32,
    to: u32,
}

impl Case {
    /// Bytes per transfer.
    pub(crate) fn bytes(self) -> u64 {
        u64::from(self.batch) * u64::from(self.size)
    }

    /// Every size with every number of pieces.
    pub(crate) fn product(sizes: &[u32], batches: &[u32]) -> Vec<Self> {
        sizes.iter().flat_map(|&size| batches.iter().map(move |&batch| Self { batch, size })).collect()
    }
}

impl Sweep {
    /// The sizes, smallest first.
    pub(crate) fn sizes(self) -> Vec<u32> {
        let doubled = |size: &u32| size.checked_mul(2).filter(|size| *size <= self.to);
        std::iter::successors(Some(self.from), doubled).collect()
    }
}

/// A size of pieces within 1 byte to 1 GiB.
pub(crate) fn parse_piece(text: &str) -> Result<u32, String> {
    let size = units::parse_size(text)?;
    let fits = (1..=MAX_SIZE).contains(&size);
    u32::try_from(size)
        .ok()
        .filter(|_| fits)
        .ok_or_else(|| format!("`{text}`: a piece has 1 byte to {}", units::bytes(MAX_SIZE)))
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) =
            text.split_once("..").ok_or_else(|| format!("`{text}`: expected FROM..TO, such as 4K..1G"))?;
        let (from, to) = (parse_piece(from)?, parse_piece(to)?);
        if from <= to {
            Ok(Self { from, to })
        } else {
            Err(format!("`{text}`: the first size is the larger"))
        }
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (batch, size) =
            text.split_once('x').ok_or_else(|| format!("`{text}`: expected BATCHxSIZE, such as 64x4K"))?;
        let batch = batch.trim().parse::<u32>().ok().filter(|batch| (1..=MAX_BATCH).contains(batch));
        let batch = batch.ok_or_else(|| format!("`{text}`: 1 to {MAX_BATCH} pieces per transfer"))?;
        Ok(Self { batch, size: parse_piece(size)? })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.batch, short_size(u64::from(self.size)))
    }
}

/// `4 KiB`, `1.50 MiB`: whole numbers without a fraction, so that columns stay narrow.
pub(crate) fn size_text(size: u64) -> String {
    units::bytes(size).replace(".00 ", " ")
}

/// `4K`, `1.5M`, `1000`: as sizes are given on the command line.
pub(crate) fn short_size(size: u64) -> String {
    for (unit, letter) in [(1 << 30, 'G'), (1 << 20, 'M'), (1 << 10, 'K')] {
        if size >= unit && size.is_multiple_of(unit / 4) {
            return format!("{}{letter}", size as f64 / unit as f64);
        }
    }
    size.to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cases() {
        assert_eq!("64x4K".parse(), Ok(Case { batch: 64, size: 4096 }));
        assert_eq!("1x1.5G".parse::<Case>().map_err(|text| text.contains("1 byte to 1.00 GiB")), Err(true));
        assert_eq!("2x1.5M".parse::<Case>().unwrap().bytes(), 3 << 20);
        for text in ["64x4K", "1x1.5M", "1x1G", "2x1000", "1x4.25K", "1x1025", "65536x1"] {
            assert_eq!(text.parse::<Case>().unwrap().to_string(), text);
        }
        for bad in ["", "4K", "0x4K", "1x0", "65537x1", "1x8G", "x", "64*4K"] {
            assert!(bad.parse::<Case>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sweeps() {
        let sizes = |text: &str| text.parse::<Sweep>().map(Sweep::sizes);
        assert_eq!(sizes("4K..32K"), Ok(vec![4096, 8192, 16384, 32768]));
        assert_eq!(sizes("4K..4K"), Ok(vec![4096]));
        assert_eq!(sizes("4K..1G").unwrap().len(), 19);
        for bad in ["", "4K", "4K..", "..4K", "8K..4K", "0..4K", "1K..2G", "4K-8K"] {
            assert!(sizes(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_size_meets_every_batch(sizes in proptest::collection::vec(1_u32..100, 0..8),
                                        batches in proptest::collection::vec(1_u32..100, 0..8)) {
            let cases = Case::product(&sizes, &batches);
            prop_assert_eq!(cases.len(), sizes.len() * batches.len());
            for size in &sizes {
                for batch in &batches {
                    let case = Case { batch: *batch, size: *size };
                    prop_assert!(cases.contains(&case));
                }
            }
        }

        #[test]
        fn a_sweep_doubles_within_its_bounds(from in 1_u32..1 << 30, to in 1_u32..1 << 30) {
            prop_assume!(from <= to);
            let sizes = Sweep { from, to }.sizes();
            prop_assert_eq!(sizes[0], from);
            prop_assert!(sizes.windows(2).all(|pair| pair[1] == 2 * pair[0]));
            let last = sizes[sizes.len() - 1];
            prop_assert!(last <= to && u64::from(last) * 2 > u64::from(to));
        }

        #[test]
        fn a_case_is_read_as_it_is_printed(batch in 1..=MAX_BATCH, size in 1..=MAX_SIZE as u32) {
            let case = Case { batch, size };
            prop_assert_eq!(case.to_string().parse(), Ok(case));
        }

        #[test]
        fn any_text_is_a_case_or_an_error(text in ".{0,20}") {
            if let Ok(case) = text.parse::<Case>() {
                prop_assert!(case.bytes() > 0 && case.batch <= MAX_BATCH);
            }
            let _ = text.parse::<Sweep>();
        }
    }
}
