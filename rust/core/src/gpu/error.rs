//! Why a GPU runtime could not do something.

/// Why a GPU runtime could not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// The runtime has no such function.
    #[error("the {runtime} device runtime cannot {operation}")]
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
    /// The runtime answered something that makes no sense.
    #[error("{operation}: the {runtime} device runtime answered {answer}")]
    Nonsense {
        /// Which runtime.
        runtime: &'static str,
        /// The call that answered so.
        operation: &'static str,
        /// What it answered.
        answer: String,
    },
    /// The runtime's library is not there, or lacks a function.
    #[error("device runtime not available: {0}")]
    NotAvailable(String),
}
