//! The allocations behind a range of GPU memory.

use super::GpuError;

/// An allocation, or one that is mapped among others, which a walk over a range has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuAllocation {
    /// Where the walk has come into it: its start, or that of the range inside it.
    pub at: u64,
    /// Its start.
    pub start: u64,
    /// Its bytes.
    pub bytes: u64,
}

impl GpuAllocation {
    /// Where the next one may begin.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes)
    }
}

/// The allocations from `address` on, in the order of their addresses, until `length` bytes are covered. `look_up` names start and
/// bytes of the one around an address, and is asked for each when the walk comes to it; its first error ends the walk, and so does
/// an answer that does not hold the address.
pub fn allocations(
    runtime: &'static str,
    (address, length): (u64, u64),
    look_up: impl Fn(u64) -> Result<(u64, u64), GpuError>,
) -> impl Iterator<Item = Result<GpuAllocation, GpuError>> {
    let end = address.saturating_add(length);
    let mut next = Some(address);
    std::iter::from_fn(move || {
        let at = next.take().filter(|at| *at < end)?;
        let found = look_up(at).and_then(|(start, bytes)| {
            let allocation = GpuAllocation { at, start, bytes };
            if start <= at && at < allocation.end() {
                return Ok(allocation);
            }
            let answer = format!("{start:#x}+{bytes} as what is around {at:#x}");
            Err(GpuError::Malformed { runtime, operation: "name the allocation around an address", answer })
        });
        next = found.as_ref().ok().map(GpuAllocation::end);
        Some(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: GpuError = GpuError::Unsupported { runtime: "played", operation: "name an allocation" };

    fn walk(range: (u64, u64), known: &[(u64, u64)]) -> Vec<Option<(u64, u64)>> {
        let look_up = |at| known.iter().copied().find(|(start, _)| *start <= at).ok_or(NONE);
        let found = allocations("played", range, look_up);
        found.map(|found| found.ok().map(|found| (found.at, found.end()))).collect()
    }

    #[test]
    fn a_walk_goes_from_one_to_the_next_and_ends_with_the_range() {
        let known = [(300, 50), (100, 200)];
        assert_eq!(walk((150, 10), &known), [Some((150, 300))]);
        assert_eq!(walk((150, 151), &known), [Some((150, 300)), Some((300, 350))]);
        assert_eq!(walk((150, 0), &known), []);
    }

    #[test]
    fn an_error_and_an_answer_that_does_not_hold_the_address_end_it() {
        assert_eq!(walk((50, 10), &[]), [None]);
        assert_eq!(walk((150, 400), &[(100, 200)]), [Some((150, 300)), None], "the first one once more");
        assert_eq!(walk((150, 10), &[(100, u64::MAX)]), [Some((150, u64::MAX))]);
    }
}
