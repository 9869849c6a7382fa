//! Why authentication failed.

/// Why an authentication between two sides failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The peer's proof was made with another key.
    #[error("authentication failed: the peer's pre-shared key differs from ours (FLAGCX_P2P_AUTH_KEY_FILE)")]
    WrongKey,
    /// The peer has closed the connection instead of sending its proof, as it does when ours is wrong.
    #[error(
        "authentication failed: the peer closed the connection after our proof; most likely its pre-shared key differs from ours (FLAGCX_P2P_AUTH_KEY_FILE)"
    )]
    Refused,
    /// The peer has a key and this side has none.
    #[error(
        "the peer requires a key; set FLAGCX_P2P_AUTH_KEY_FILE to a file with the same content as the peer's"
    )]
    KeyRequired,
    /// This side has a key and the peer has none.
    #[error("the peer has no key, and this side requires one; set FLAGCX_P2P_AUTH_KEY_FILE at the peer")]
    KeyMissing,
    /// The seal of a message is invalid.
    #[error("authentication failed: the seal of a message of the peer is invalid: it was changed on its way")]
    Changed,
}
