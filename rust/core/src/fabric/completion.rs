//! How a work request has ended.

use std::fmt;

/// One completion as polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The request's id: [`super::Batch::id`].
    pub id: u64,
    /// How it ended.
    pub status: CompletionStatus,
    /// The vendor's own code, 0 if none.
    pub vendor_error: u32,
}

impl Default for Completion {
    fn default() -> Self {
        Self { id: 0, status: CompletionStatus::Success, vendor_error: 0 }
    }
}

/// Completion statuses, numbered as `enum ibv_wc_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CompletionStatus {
    /// Done.
    Success = 0,
    /// The local buffers' length is wrong for the request.
    LocalLength = 1,
    /// The queue pair cannot do this.
    LocalQpOperation = 2,
    /// A local key, bound or right does not fit.
    LocalProtection = 4,
    /// Not done: the queue pair was in ERROR.
    Flushed = 5,
    /// The peer's answer is malformed.
    BadResponse = 7,
    /// The peer cannot take such a request.
    RemoteInvalidRequest = 9,
    /// A remote key, bound or right does not fit.
    RemoteAccess = 10,
    /// The peer failed while doing it.
    RemoteOperation = 11,
    /// No answer within timeout and retries: peer dead or path broken.
    RetryExceeded = 12,
    /// The peer was never ready to receive.
    RnrRetryExceeded = 13,
    /// The device itself failed.
    Fatal = 19,
    /// Anything else.
    General = 21,
}

impl CompletionStatus {
    /// Whether the peer, or a check of this end, has refused the request itself: the path to the peer works.
    pub(crate) fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::LocalLength
                | Self::LocalProtection
                | Self::RemoteInvalidRequest
                | Self::RemoteAccess
                | Self::RemoteOperation
        )
    }

    /// From the number of `enum ibv_wc_status`; unknown ones become [`CompletionStatus::General`].
    #[doc(hidden)]
    pub fn from_code(code: u32) -> Self {
        match code {
            0 => Self::Success,
            1 => Self::LocalLength,
            2 => Self::LocalQpOperation,
            4 | 8 => Self::LocalProtection,
            5 => Self::Flushed,
            7 => Self::BadResponse,
            9 => Self::RemoteInvalidRequest,
            10 => Self::RemoteAccess,
            11 => Self::RemoteOperation,
            12 => Self::RetryExceeded,
            13 => Self::RnrRetryExceeded,
            19 => Self::Fatal,
            _ => Self::General,
        }
    }
}

impl fmt::Display for CompletionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "success",
            Self::LocalLength => "local length error",
            Self::LocalQpOperation => "local queue pair operation error",
            Self::LocalProtection => "local protection error",
            Self::Flushed => "flushed: the queue pair was in ERROR",
            Self::BadResponse => "bad response from the peer",
            Self::RemoteInvalidRequest => "remote invalid request",
            Self::RemoteAccess => "remote access error: key, bounds or rights",
            Self::RemoteOperation => "remote operation error",
            Self::RetryExceeded => "transport retries exceeded: peer dead or path broken",
            Self::RnrRetryExceeded => "receiver-not-ready retries exceeded",
            Self::Fatal => "device fatal error",
            Self::General => "general error",
        })
    }
}
