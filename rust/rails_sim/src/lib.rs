//! Connections over several NICs in virtual time: the plan and the state machines of `flagcx_p2p::internals::rails`, as they are
//! shipped, over modelled NICs; beside them our models of what other engines publish.
//!
//! Modelled, not measured: no byte is moved. `network.rs` says what the model is of. A run is determined by its scenario, policy and
//! seed. `./x bench rails` runs all of them.
#![allow(
    clippy::indexing_slicing,
    reason = "a program that is not shipped: an index out of range is a defect of the model, and ends it"
)]

mod agenda;
mod connection;
mod driver;
mod formulas;
mod load;
mod measure;
mod network;
mod policy;
mod report;
mod rows;
mod scenario;
mod simulation;

pub use formulas::formulas;
pub use measure::Outcome;
pub use policy::Policy;
pub use report::{json, table};
pub use rows::{Row, rows};

#[cfg(test)]
mod tests;
