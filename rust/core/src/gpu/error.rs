//! Why a GPU runtime could not do something.

/// Why a GPU runtime could not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// The runtime has no such function.
    #[error("the {runtime} GPU runtime cannot {operation}")]
    Unsupported {
        /// Which runtime.
        runtime: &'static str,
        /// What was attempted.
        operation: &'static str,
    },
    /// A call failed.
    #[error("{operation} failed: {runtime} error {code}{text}")]
    Call {
        /// Which runtime.
        runtime: &'static str,
        /// The call that failed.
        operation: &'static str,
        /// Its code.
        code: i32,
        /// The code in words, empty or starting with `, `.
        text: String,
    },
    /// The GPU, or the context of a stream, has failed or is gone: nothing of it runs any more, and nothing will.
    #[error("{operation} failed: {runtime} error {code}{text}: the GPU or its context is lost")]
    Lost {
        /// Which runtime.
        runtime: &'static str,
        /// The call that failed.
        operation: &'static str,
        /// Its code.
        code: i32,
        /// The code in words, empty or starting with `, `.
        text: String,
    },
    /// The runtime's answer is malformed.
    #[error("{operation}: the {runtime} GPU runtime answered {answer}")]
    Malformed {
        /// Which runtime.
        runtime: &'static str,
        /// The call that answered so.
        operation: &'static str,
        /// What it answered.
        answer: String,
    },
    /// The address is not that of GPU memory.
    #[error(
        "{operation}: {address:#x} is no GPU memory that the {runtime} GPU runtime knows: it was freed, or never was a GPU's. \
         Pass an address inside memory that is allocated"
    )]
    NoMemory {
        /// Which runtime.
        runtime: &'static str,
        /// What was attempted.
        operation: &'static str,
        /// The address.
        address: u64,
    },
    /// A range is not GPU memory from its first byte to its last, or no copy may span it.
    #[error(
        "{length} bytes from {address:#x} on are not one range of GPU memory: {problem} at {at:#x}. Register each allocation by \
         itself, no longer than it is"
    )]
    Range {
        /// Start.
        address: u64,
        /// Bytes.
        length: u64,
        /// What is wrong with it.
        problem: &'static str,
        /// Where that begins.
        at: u64,
    },
    /// GPU memory that another process cannot open, or that cannot be opened here.
    #[error("the GPU memory cannot be shared between processes: {reason}")]
    NotShared {
        /// What is missing, and what to try.
        reason: String,
    },
    /// The runtime's library is not there, or lacks a function.
    #[error("GPU runtime not available: {0}")]
    NotAvailable(String),
}

impl GpuError {
    /// The runtime's own code; 0 if there is none.
    pub fn code(&self) -> i32 {
        match self {
            Self::Call { code, .. } | Self::Lost { code, .. } => *code,
            _ => 0,
        }
    }

    /// Whether the runtime has no such function.
    pub(super) fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported { .. })
    }

    /// The same failure as [`GpuError::Lost`] if its code is one that `proves` a lost GPU or context.
    pub(super) fn lost_if(self, proves: impl Fn(i32) -> bool) -> Self {
        match self {
            Self::Call { runtime, operation, code, text } if proves(code) => {
                Self::Lost { runtime, operation, code, text }
            }
            other => other,
        }
    }
}
