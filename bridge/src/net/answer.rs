//! The one place where an error of the adaptor table becomes a log line and a `flagcxResult_t`.

use std::fmt::Display;

use flagcx_p2p::internals::control::{HandshakeError, Reason, Step};
use flagcx_p2p::internals::engine::EngineError;
use flagcx_p2p::internals::fabric::FabricError;
use flagcx_p2p::internals::memory::RegistryError;
use flagcx_p2p::internals::pool::PoolError;
use flagcx_p2p::internals::transfer::SubmitError;

use super::ffi::Answer;
use crate::refusal::refuse;

/// Why a function of the table failed.
#[derive(Debug)]
pub(super) struct NetError {
    answer: Answer,
    reason: String,
}

impl NetError {
    fn new(answer: Answer, reason: impl Display) -> Self {
        Self { answer, reason: reason.to_string() }
    }

    /// An invalid argument.
    pub(super) fn invalid(reason: impl Display) -> Self {
        Self::new(Answer::InvalidArgument, reason)
    }

    /// Everything that the original engine answers so.
    pub(super) fn internal(reason: impl Display) -> Self {
        Self::new(Answer::InternalError, reason)
    }
}

/// What a function of the table answers; an error is logged and remembered under `call`, the name of the member.
pub(super) fn answer<T>(call: &str, result: Result<T, NetError>, keep: impl FnOnce(T)) -> Answer {
    match result {
        Ok(value) => {
            keep(value);
            Answer::Success
        }
        Err(error) => {
            refuse(&format!("flagcxNetIbP2p.{call}"), &error.reason);
            error.answer
        }
    }
}

impl From<HandshakeError> for NetError {
    fn from(error: HandshakeError) -> Self {
        let answer = match (&error.reason, error.step) {
            (_, Step::Handles) => Answer::InvalidArgument,
            (Reason::Closed, _) => Answer::RemoteError,
            (Reason::TimedOut | Reason::Io(_) | Reason::Unreached { .. }, _) => Answer::SystemError,
            _ => Answer::InternalError,
        };
        Self::new(answer, error)
    }
}

impl From<SubmitError> for NetError {
    fn from(error: SubmitError) -> Self {
        let answer = match error {
            SubmitError::Down { .. } => Answer::RemoteError,
            _ => Answer::InternalError,
        };
        Self::new(answer, error)
    }
}

impl From<RegistryError> for NetError {
    fn from(error: RegistryError) -> Self {
        let answer = match error {
            RegistryError::Fabric(_) | RegistryError::Inaccessible(_) => Answer::SystemError,
            _ => Answer::InvalidArgument,
        };
        Self::new(answer, error)
    }
}

impl From<EngineError> for NetError {
    fn from(error: EngineError) -> Self {
        Self::internal(error)
    }
}

impl From<FabricError> for NetError {
    fn from(error: FabricError) -> Self {
        Self::new(Answer::SystemError, error)
    }
}

impl From<PoolError> for NetError {
    fn from(error: PoolError) -> Self {
        Self::new(Answer::SystemError, error)
    }
}
