//! One row of results: a case in one direction over one path.

use flagcx_p2p::Opcode;
use serde::{Deserialize, Serialize};

use super::case::Case;

/// A row, as the JSON has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Which row it is.
    #[serde(flatten)]
    pub(crate) key: RowKey,
    /// Transfers and bytes of all repeats, of both directions where there are two.
    pub(crate) transfers: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// Median of the repeats, the least and the greatest, and all in order; decimal gigabytes.
    pub(crate) gigabytes_per_second: f64,
    pub(crate) gigabytes_per_second_min: f64,
    pub(crate) gigabytes_per_second_max: f64,
    pub(crate) repeats: Vec<f64>,
    /// The server's own share of the median.
    pub(crate) reverse_gigabytes_per_second: Option<f64>,
    /// Of this side, median of the repeats.
    pub(crate) transfers_per_second: f64,
    /// From the end of the transfer before it in its place to its own, of this side.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    pub(crate) cpu_seconds_per_gib_client: f64,
    /// None where both ends are one process.
    pub(crate) cpu_seconds_per_gib_server: Option<f64>,
    pub(crate) data: Data,
    pub(crate) pieces_compared: u64,
    pub(crate) pieces_wrong: u64,
}

/// What tells rows apart, and makes rows of two runs comparable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RowKey {
    pub(crate) path: String,
    pub(crate) operation: Operation,
    /// Bytes per piece, and pieces per transfer.
    pub(crate) size: u32,
    pub(crate) batch: u32,
    pub(crate) pieces: Pieces,
    pub(crate) bidirectional: bool,
    pub(crate) depth: u16,
    pub(crate) connections: u16,
    pub(crate) threads: u16,
    pub(crate) clients: u16,
}

/// What a transfer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operation {
    Write,
    Read,
}

/// Where pieces lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pieces {
    /// At random places of the pool.
    Scattered,
    /// Side by side: the engine joins them.
    Contiguous,
}

/// What is known of the bytes that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Data {
    Verified,
    Unverified,
    Corrupted,
}

impl RowKey {
    pub(crate) fn case(&self) -> Case {
        Case { batch: self.batch, size: self.size }
    }

    /// `write`, `read`, `write both ways`.
    pub(crate) fn operation_text(&self) -> String {
        format!("{}{}", self.operation.name(), if self.bidirectional { " both ways" } else { "" })
    }
}

impl Row {
    /// Half of the range of the repeats, as a part of the median.
    pub(crate) fn spread(&self) -> f64 {
        (self.gigabytes_per_second_max - self.gigabytes_per_second_min)
            / 2.0
            / self.gigabytes_per_second.max(1e-9)
    }
}

impl Operation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
        }
    }
}

impl From<Opcode> for Operation {
    fn from(opcode: Opcode) -> Self {
        match opcode {
            Opcode::Write => Self::Write,
            Opcode::Read => Self::Read,
        }
    }
}

impl Pieces {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Scattered => "scattered",
            Self::Contiguous => "contiguous",
        }
    }
}

impl Data {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Unverified => "unverified",
            Self::Corrupted => "CORRUPTED",
        }
    }
}

#[cfg(test)]
impl Row {
    /// A row of 64 pieces of 64 KiB.
    pub(crate) fn for_test() -> Self {
        Self {
            key: RowKey {
                path: "cross-memory".to_owned(),
                operation: Operation::Write,
                size: 65_536,
                batch: 64,
                pieces: Pieces::Scattered,
                bidirectional: false,
                depth: 1,
                connections: 1,
                threads: 1,
                clients: 1,
            },
            transfers: 2942,
            bytes: 12_340_000_000,
            seconds: 1.0,
            gigabytes_per_second: 12.34,
            gigabytes_per_second_min: 1.0,
            gigabytes_per_second_max: 12.4,
            repeats: vec![1.0, 12.34, 12.4],
            reverse_gigabytes_per_second: None,
            transfers_per_second: 2942.1,
            p50_us: 340.2,
            p99_us: 350.0,
            p999_us: 1000.0,
            max_us: 1234.0,
            cpu_seconds_per_gib_client: 0.123,
            cpu_seconds_per_gib_server: Some(0.0),
            data: Data::Verified,
            pieces_compared: 4096,
            pieces_wrong: 0,
        }
    }
}

/// The median; the mean of the two in the middle of an even number; zero of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        middle(half)
    } else {
        f64::midpoint(middle(half.wrapping_sub(1)), middle(half))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 9.0, 2.0]), 3.0);
    }
}
