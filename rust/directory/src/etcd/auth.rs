//! The token of the user.

use std::sync::{Mutex, PoisonError};

use super::secret::Secret;

/// The token that requests carry, if the user has one by now.
#[derive(Debug, Default)]
pub(super) struct Token(Mutex<Option<Secret>>);

impl Token {
    pub(super) fn get(&self) -> Option<Secret> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, token: Secret) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
    }

    /// Forgets `token`, unless another thread has got a new one already.
    pub(super) fn forget(&self, token: Option<&Secret>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref() == token {
            *held = None;
        }
    }
}

/// What an error of the server is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Complaint {
    /// The token is unknown there, or too old: another one may be accepted.
    Token,
    /// User or password are wrong or missing, or the user may not do it.
    User,
    /// The server has no users: requests go without a token.
    NoUsers,
    /// The server cannot do it now: another one may, or the same one later.
    Busy,
    /// Anything else.
    Other,
}

/// What an error with this code of gRPC and this text is about.
pub(super) fn complaint(code: u32, message: &str) -> Complaint {
    let says = |text| message.contains(text);
    match code {
        UNAUTHENTICATED => Complaint::Token,
        INVALID_ARGUMENT if says("revision of auth store is old") => Complaint::Token,
        INVALID_ARGUMENT if says("authentication failed") || says("user name is empty") => Complaint::User,
        PERMISSION_DENIED => Complaint::User,
        FAILED_PRECONDITION if says("authentication is not enabled") => Complaint::NoUsers,
        UNAVAILABLE | DEADLINE_EXCEEDED | RESOURCE_EXHAUSTED | CANCELLED => Complaint::Busy,
        _ => Complaint::Other,
    }
}

/// The code in the text of a canceled watch, `rpc error: code = NAME desc = ...`, which has no field for it; UNAVAILABLE where it has none.
pub(super) fn code_in(reason: &str) -> u32 {
    let name = reason.split("code = ").nth(1).map(|rest| rest.split(' ').next().unwrap_or_default());
    let place = name.and_then(|name| NAMES.iter().position(|known| *known == name));
    place.and_then(|place| u32::try_from(place + 1).ok()).unwrap_or(UNAVAILABLE)
}

/// Of the codes from 1 on.
const NAMES: [&str; 16] = [
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

// Codes of gRPC.
const CANCELLED: u32 = 1;
const INVALID_ARGUMENT: u32 = 3;
const DEADLINE_EXCEEDED: u32 = 4;
pub(super) const NOT_FOUND: u32 = 5;
const PERMISSION_DENIED: u32 = 7;
const RESOURCE_EXHAUSTED: u32 = 8;
const FAILED_PRECONDITION: u32 = 9;
const UNAVAILABLE: u32 = 14;
const UNAUTHENTICATED: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_told_apart() {
        for (code, message, expected) in [
            (16, "etcdserver: invalid auth token", Complaint::Token),
            (3, "etcdserver: revision of auth store is old", Complaint::Token),
            (3, "etcdserver: authentication failed, invalid user ID or password", Complaint::User),
            (3, "etcdserver: user name is empty", Complaint::User),
            (7, "etcdserver: permission denied", Complaint::User),
            (9, "etcdserver: authentication is not enabled", Complaint::NoUsers),
            (14, "etcdserver: no leader", Complaint::Busy),
            (3, "etcdserver: key is not provided", Complaint::Other),
            (5, "etcdserver: requested lease not found", Complaint::Other),
        ] {
            assert_eq!(complaint(code, message), expected, "{code} {message}");
        }
    }

    #[test]
    fn a_canceled_watch_says_why() {
        let reason = "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old";
        assert_eq!(code_in(reason), INVALID_ARGUMENT);
        assert_eq!(code_in("rpc error: code = Unauthenticated desc = invalid auth token"), UNAUTHENTICATED);
        assert_eq!(code_in("rpc error: code = PermissionDenied desc = permission denied"), PERMISSION_DENIED);
        assert_eq!(code_in("rpc error: code = NotFound"), NOT_FOUND);
        assert_eq!(code_in("rpc error: code = Unavailable desc = no leader"), UNAVAILABLE);
        for without in ["no leader", "", "code = ", "code = What desc"] {
            assert_eq!(code_in(without), UNAVAILABLE);
        }
    }
}
