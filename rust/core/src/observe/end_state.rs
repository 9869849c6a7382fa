//! How transfers end, without the details.

/// How a transfer ended, or has gone so far. What a worker reports, a caller gets and an operator reads are these four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EndState {
    /// All its requests succeeded, of those that have ended.
    Done = 0,
    /// A request failed.
    Failed = 1,
    /// The deadline passed.
    TimedOut = 2,
    /// The caller, or the end of its connection, ended it.
    Cancelled = 3,
}

impl EndState {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Done, Self::Failed, Self::TimedOut, Self::Cancelled];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state that has the number in the two lowest bits of `code`.
    #[inline(always)]
    pub fn from_code(code: u8) -> Self {
        match code & 3 {
            0 => Self::Done,
            1 => Self::Failed,
            2 => Self::TimedOut,
            _ => Self::Cancelled,
        }
    }
}

#[cfg(test)]
#[cfg(not(flagcx_p2p_loom))]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_that_of_its_state_whatever_the_other_bits_are() {
        for (number, state) in EndState::ALL.into_iter().enumerate() {
            let number = number as u8;
            assert_eq!([EndState::from_code(number), EndState::from_code(number | 0xFC)], [state; 2]);
            assert_eq!(state as u8, number);
        }
    }
}
