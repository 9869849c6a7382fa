//! Why a handshake failed.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use crate::auth::AuthError;
use crate::control::wire::WireError;
use crate::fabric::FabricError;

/// A failed handshake: peer, step and reason.
#[derive(Clone, Debug, thiserror::Error)]
#[error("handshake with {peer}, {step}: {reason}")]
pub struct HandshakeError {
    /// The peer's address as far as it is known.
    pub peer: String,
    /// Where it failed.
    pub step: Step,
    /// Why.
    pub reason: Reason,
}

impl HandshakeError {
    pub(super) fn new(peer: SocketAddr, step: Step, reason: impl Into<Reason>) -> Self {
        Self { peer: peer.to_string(), step, reason: reason.into() }
    }

    /// Whether the other end does not speak this protocol, or sent nothing: an acceptor ignores it and continues.
    pub fn is_stray(&self) -> bool {
        match self.reason {
            Reason::Aborted | Reason::SocketKind { .. } => false,
            _ => self.step == Step::Preamble || self.step == Step::RuntimeControl,
        }
    }

    /// Whether this process ended the handshake itself.
    pub fn is_aborted(&self) -> bool {
        matches!(self.reason, Reason::Aborted)
    }
}

/// The steps of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// TCP connection to the control listener.
    Connect,
    /// First bytes of a socket.
    Preamble,
    /// Exchange of hellos, which only FlagCX's next version wants.
    Hello,
    /// Exchange of listen handles.
    Handles,
    /// Proof of the key.
    Authentication,
    /// TCP connection for the lanes.
    LaneSocket,
    /// Agreement on the number of lanes.
    LaneCount,
    /// Creation of our queue pairs.
    LaneCreation,
    /// Exchange of lane records.
    LaneRecords,
    /// Connection of our queue pairs to the peer's.
    LaneConnection,
    /// Both sides report that their lanes are ready.
    Ready,
    /// Exchange of control metas.
    Meta,
    /// Exchange of region tables.
    Regions,
    /// A request of the runtime control, in place of a handshake.
    RuntimeControl,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::Preamble => "preamble",
            Self::Hello => "exchange of hellos",
            Self::Handles => "exchange of handles",
            Self::Authentication => "proof of the key",
            Self::LaneSocket => "opening the lane socket",
            Self::LaneCount => "agreeing on the number of lanes",
            Self::LaneCreation => "creating lanes",
            Self::LaneRecords => "exchange of lane records",
            Self::LaneConnection => "connecting lanes",
            Self::Ready => "waiting for the peer's lanes",
            Self::Meta => "exchange of control metas",
            Self::Regions => "exchange of region tables",
            Self::RuntimeControl => "runtime control",
        })
    }
}

/// Why a handshake failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Reason {
    /// The peer closed the connection.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer closed the connection in place of the first answer.
    #[error("the peer closed the connection without an answer")]
    Unanswered,
    /// The client has asked for runtime control and has been answered.
    #[error("the client is not a peer: its runtime control request was answered")]
    RuntimeControl,
    /// The client has been told what listens here, and has left.
    #[error("the client has asked what listens here, as flagcx-p2p doctor does")]
    Question,
    /// The peer did not answer in time.
    #[error("no answer within the deadline (FLAGCX_P2P_CONNECT_TIMEOUT_MS, FLAGCX_P2P_HANDSHAKE_TIMEOUT_MS)")]
    TimedOut,
    /// This process ended it.
    #[error("ended by this process")]
    Aborted,
    /// A socket failed.
    #[error("{0}")]
    Io(String),
    /// The peer sent something malformed, or not expected at this step.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The peer speaks the protocol, but opened another kind of socket.
    #[error("socket of kind {found}, expected {expected}")]
    SocketKind {
        /// What it opened.
        found: i32,
        /// What was expected.
        expected: i32,
    },
    /// The two sides have not proven the same key.
    #[error(transparent)]
    Authentication(#[from] AuthError),
    /// One side refuses the connection.
    #[error("{0}")]
    Refused(&'static str),
    /// The two sides cannot reach each other.
    #[error("different link layers: the peer offers {theirs}, this side has {ours}")]
    LinkLayer {
        /// The peer's link layer.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// An announced address cannot be reached.
    #[error("{address} {problem} ({origin})")]
    Unreached {
        /// The address.
        address: SocketAddr,
        /// The result of the attempt.
        problem: String,
        /// The side that announced it, and how to change it.
        origin: &'static str,
    },
    /// A device failed.
    #[error(transparent)]
    Fabric(Box<FabricError>),
}

impl Reason {
    /// This side could not connect to an address, which it has from `origin`.
    pub(super) fn unreached(address: SocketAddr, origin: &'static str, error: io::Error) -> Self {
        let problem = match error.kind() {
            ErrorKind::ConnectionAborted => return Self::Aborted,
            ErrorKind::TimedOut => "did not answer within the deadline".to_owned(),
            ErrorKind::ConnectionRefused => "refused the connection".to_owned(),
            _ => format!("cannot be reached: {error}"),
        };
        Self::Unreached { address, problem, origin }
    }

    /// The peer has not connected to an address that this side announced.
    pub(super) fn not_found(address: SocketAddr, error: io::Error) -> Self {
        let problem = match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => {
                "was not connected to: the peer closed the connection"
            }
            ErrorKind::TimedOut => "was not connected to within the deadline",
            _ => return error.into(),
        };
        Self::Unreached { address, problem: problem.to_owned(), origin: WE_TOLD }
    }
}

/// Origins of the address of a [`Reason::Unreached`].
pub(super) const PEER_TOLD: &str = "announced by the peer: its chosen interface's, or its FLAGCX_P2P_ADVERTISE; \
    FLAGCX_SOCKET_IFNAME or FLAGCX_P2P_ADVERTISE there changes it";
const WE_TOLD: &str = "announced by us: flagcx-p2p doctor tells why; FLAGCX_SOCKET_IFNAME or \
    FLAGCX_P2P_ADVERTISE here changes it";

impl From<FabricError> for Reason {
    fn from(error: FabricError) -> Self {
        Self::Fabric(Box::new(error))
    }
}

impl From<io::Error> for Reason {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Self::Closed,
            ErrorKind::TimedOut => Self::TimedOut,
            // A peer's abort shows as a reset; this kind comes from this process's abort only.
            ErrorKind::ConnectionAborted => Self::Aborted,
            _ => Self::Io(error.to_string()),
        }
    }
}
