//! One error for the whole tool: what was attempted, and why it did not work. Printed as one line.

use std::fmt;

use flagcx_p2p::{EngineError, FabricError, SubmitError};

use crate::bench::StreamError;
use crate::framing::FrameError;
use crate::store::StoreError;
use crate::wire::control::ControlError;

/// Why a command failed, and during what.
#[derive(Debug)]
pub(crate) struct CliError {
    /// What was attempted, with which peer (`put a.bin to 10.0.0.2:7733`), outermost last.
    doing: Vec<String>,
    problem: Box<Problem>,
}

/// The reason itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Benchmark(#[from] StreamError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Fabric(#[from] FabricError),
    #[error("transfer not accepted: {0}")]
    Submit(#[from] SubmitError),
    #[error("transfer of chunk {sequence} {outcome}")]
    Transfer { sequence: u64, outcome: String },
    #[error("the data that arrived differs from the data that was sent ({0}); it was not stored")]
    Mismatch(String),
    #[error("{0}")]
    Other(String),
    /// By the signal of this number.
    #[error("interrupted{}{kept}", if kept.is_empty() { "" } else { "; " })]
    Interrupted { signal: i32, kept: &'static str },
    /// Only its status: every file's failure is printed already.
    #[error("{failed} of {files} files failed; the others are complete")]
    SomeFailed { failed: u64, files: u64 },
}

/// Result of a step of a command.
pub(crate) type Result<T, E = CliError> = std::result::Result<T, E>;

impl CliError {
    /// A mistake in how the tool was called.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Problem::Usage(text.into()).into()
    }

    /// A file or directory of the command line is missing or cannot be used: most likely mistyped.
    pub(crate) fn argument(error: StoreError) -> Self {
        match error {
            StoreError::SizeUnknown(_) | StoreError::Changed { .. } => error.into(),
            error => Self::usage(format!("{error}; check the path on the command line")),
        }
    }

    /// Anything that has no case of its own.
    pub(crate) fn other(text: impl Into<String>) -> Self {
        Problem::Other(text.into()).into()
    }

    /// An unexpected or malformed frame of the peer.
    pub(crate) fn protocol(text: impl Into<String>) -> Self {
        ControlError::Protocol(text.into()).into()
    }

    /// The reason.
    pub(crate) fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Whether the peer has asked what listens here, and nothing else: no trouble.
    pub(crate) fn is_question(&self) -> bool {
        matches!(
            *self.problem,
            Problem::Control(ControlError::Frame(FrameError::Engine))
                | Problem::Benchmark(StreamError::Frame(FrameError::Engine))
        )
    }

    /// 2 for a mistake in how the tool was called, 128 + its number for a signal, 1 for everything else.
    pub(crate) fn exit_code(&self) -> u8 {
        match *self.problem {
            Problem::Usage(_) => 2,
            Problem::Interrupted { signal, .. } => u8::try_from(signal).unwrap_or(0).saturating_add(128),
            _ => 1,
        }
    }
}

impl<E: Into<Problem>> From<E> for CliError {
    fn from(error: E) -> Self {
        Self { doing: Vec::new(), problem: Box::new(error.into()) }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for doing in self.doing.iter().rev() {
            write!(f, "{doing}: ")?;
        }
        // One line, whatever the reason's text holds.
        f.write_str(&self.problem.to_string().replace(['\n', '\r'], " "))
    }
}

/// Adds what was being done to an error.
pub(crate) trait While<T> {
    /// `doing` reads like "put a.bin to host:port".
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<CliError>> While<T> for std::result::Result<T, E> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let mut error = error.into();
            error.doing.push(doing());
            error
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_outermost_first() {
        let failed: Result<()> = Err(CliError::other("disk full\non /data"));
        let error = failed.doing(|| "write a.bin".into()).doing(|| "get a.bin from h:1".into()).unwrap_err();
        assert_eq!(error.to_string(), "get a.bin from h:1: write a.bin: disk full on /data");
        assert_eq!((error.exit_code(), CliError::usage("x").exit_code()), (1, 2));
        let interrupted = |signal, kept| CliError::from(Problem::Interrupted { signal, kept });
        assert_eq!((interrupted(2, "").exit_code(), interrupted(15, "").exit_code()), (130, 143));
        assert_eq!(interrupted(2, "").to_string(), "interrupted");
        assert_eq!(interrupted(2, "rows are kept").to_string(), "interrupted; rows are kept");
    }
}
