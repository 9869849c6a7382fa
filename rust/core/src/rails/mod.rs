//! Rails: how a connection over several NICs spreads its transfers, and how it notices that one of them fails. The rules alone.
//!
//! A rail is a pair of NICs, one at each end, with lanes between them. Nothing here has a clock, a lock, a thread or a queue pair,
//! and nothing but [`rail_pairs`], [`Pairing`] and [`RailMap`] allocates: times are arguments, in nanoseconds of a clock that only goes forward, and what a driver
//! is to do is returned. Therefore a simulator runs all of it in virtual time.
//!
//! | module | what it decides |
//! |---|---|
//! | [`plan()`] | which rails a transfer uses, and with which shares |
//! | [`wanted_rail`] | when a further rail is made |
//! | [`RateMeter`] | the rate of a rail, from what its lanes count |
//! | [`RailTable`], [`RailMachine`] | which rails may be used: `Up`, `Paused` or `Down` |
//! | [`Quiesce`], [`QuiesceAnswer`] | when a part of a failed lane may be posted on another one |
//! | [`Homes`] | which rail a buffer used last |
//! | [`rail_pairs`], [`RailMap`] | which NIC of this host forms a rail with which one of the peer |
//! | [`Pairing`] | which pair takes the place of one that does not reach each other |
//!
//! What drives them is `connection`: its `rail_adding` and `rail_demand` have rails made, `rail_submit` plans, `rail_watch` looks, and its `recovery`
//! leaves rails by [`Quiesce`]; the end that answers has the state of its lane in the place of [`QuiesceAnswer`], which the simulator uses.
//! docs/rails.md describes the whole, and says what is missing.

mod demand;
mod homes;
mod load;
mod machine;
mod matching;
mod pairing;
mod path_latency;
mod plan;
mod quiesce;
mod rail_map;
mod rail_table;
mod rate;
mod silence;
mod state;

pub use demand::{MadeRails, wanted_rail};
pub use homes::Homes;
pub use load::{Flow, RailLoad};
pub use machine::{RailAction, RailMachine};
pub use matching::{NicEnd, NicPair, cut_map_warning, layer_warning, match_nics, rail_pairs};
pub use pairing::{Loss, Pairing};
pub use path_latency::PathLatency;
pub use plan::{PlanLimits, RailPlan, RailSet, RailShare, Shape, plan};
pub use quiesce::{AnswerAction, Quiesce, QuiesceAction, QuiesceAnswer, QuiesceState};
pub use rail_map::RailMap;
pub use rail_table::RailTable;
pub use rate::RateMeter;
pub use silence::RailCounts;
pub use state::{PauseReason, RailLimits, RailState};

/// Most rails that a connection has.
pub const MAX_RAILS: usize = 8;

/// A millisecond in the unit of all times here.
pub const MILLISECOND: u64 = 1_000_000;
