//! Copies of pieces by one thread within this process.

use std::time::Instant;

use super::super::layout::{Layout, LayoutSpec};
use super::{MachineLimit, TIME, filled};
use crate::error::{CliError, Result};
use crate::output::units::gigabytes_per_second;

const MEMCPY: &str = "memcpy";

/// Memory that pieces are copied within.
#[derive(Debug)]
pub(crate) struct Copies {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Copies {
    /// Two pools of so many bytes, with every page in place.
    pub(crate) fn new(pool: u64) -> Result<Self> {
        let length = usize::try_from(pool).unwrap_or(usize::MAX);
        Ok(Self { from: filled(length, 1)?, to: filled(length, 2)? })
    }

    /// The rate at which pieces of this size are copied, scattered or not, as those of the transfers are.
    pub(crate) fn memcpy(&mut self, piece: u32, contiguous: bool) -> Result<MachineLimit> {
        let length = self.from.len() as u64;
        let layout = Layout::new(LayoutSpec { seed: 1, start: 0, length, piece, contiguous });
        let layout = layout.ok_or_else(|| CliError::other("a piece is larger than the pool"))?;
        let piece = usize::try_from(piece).unwrap_or(usize::MAX);
        let mut rate = 0.0_f64;
        // The first round brings the caches into the state of a long run.
        for time in [TIME / 4, TIME] {
            let started = Instant::now();
            let mut copied = 0;
            for k in 0.. {
                let [from, to] = [layout.source(k), layout.destination(k)]
                    .map(|place| usize::try_from(place).unwrap_or(usize::MAX));
                let source = self.from.get(from..).and_then(|rest| rest.get(..piece));
                let target = self.to.get_mut(to..).and_then(|rest| rest.get_mut(..piece));
                if let (Some(source), Some(target)) = (source, target) {
                    target.copy_from_slice(std::hint::black_box(source));
                    std::hint::black_box(&target);
                }
                copied += piece as u64;
                // A look at the clock costs as much as some hundred bytes.
                if (piece >= 65_536 || k % 16 == 15) && started.elapsed() >= time {
                    break;
                }
            }
            rate = gigabytes_per_second(copied, started.elapsed());
        }
        Ok(MachineLimit {
            name: MEMCPY.to_owned(),
            operation: None,
            size: u32::try_from(piece).ok(),
            gigabytes_per_second: rate,
        })
    }
}
