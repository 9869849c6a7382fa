//! Why authentication failed.

/// Why two sides are not authenticated to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The peer's proof was made with another key.
    #[error("authentication failed: the peer's pre-shared key differs from ours (FLAGCX_P2P_AUTH_KEY_FILE)")]
    WrongKey,
    /// The peer has closed the connection where its proof was due: it does so when ours is wrong, and says nothing.
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
    /// A message does not fit its seal.
    #[error("authentication failed: a message of the peer was changed on its way")]
    Changed,
}
