//! A control channel that is made anew over another address, as `FLAGCX_P2P_CONTROL_REDIAL` has it at both ends.
//!
//! ```text
//! leader                                             follower
//!    ◀────────────────────────────── ResumeAt: name, token, addresses   (on the channel, once)
//!   the channel fails: no address, no answer, no route
//!   preamble, name, generation, random number ─────▶  its listener for nothing else
//!    ◀──────────────────────────────── random number
//!   proof, frames received ────────────────────────▶  takes the former socket out of use
//!    ◀─────────────────────── proof, frames received
//!   frames that the other has not received, then as before: both ways
//! ```
//! Frames but for pings, pongs and acknowledgements are numbered by their order on the connection. Each end keeps those that it
//! has sent until the other one has said that it has them ([`SentLog`]), and says how many it has received itself. That number is
//! final when it is told: the socket from which frames could still come is out of use by then. So a frame is sent again
//! if and only if it was not received. Frames that have arrived in part count as not received.
//!
//! A request is valid for one generation, which counts up, so what a former request has left in the network takes nothing over.
//! An end that has ended the connection meanwhile says so in the place of that number: the leader dials for that, the follower keeps a
//! record of the connection for as long as a leader dials.
//!
//! The proofs are those of `auth`, of a key made of the token, and of the pre-shared key where there is one.

mod entries;
mod exchange;
mod offer;
mod own_addresses;
mod redialing;
mod resume_listener;
mod sent_log;
mod ways;

pub use exchange::{Asked, ENDED, ResumeError, Resumed, ask, resume};
pub use offer::{MAX_RESUME_ADDRESSES, ResumeOffer};
pub use own_addresses::OwnAddresses;
pub use redialing::{Due, Redialing, Try, pause, try_limit};
pub use resume_listener::{Offered, ResumeEntry, ResumeListener, redial_bind};
pub use sent_log::{ReceivedCount, SentLog};
pub use ways::{FormerEnds, Way, find_ways};
