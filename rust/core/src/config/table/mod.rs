//! The table of variables: the parser, `docs/configuration.md` and the `config` command all read it.

use super::variable::Variable;

/// Declares the variables of one group, and `ALL` of them in the order of the documentation.
macro_rules! variables {
    ($($(#[$doc:meta])* $ident:ident = $value:expr;)*) => {
        $($(#[$doc])* pub(in crate::config) static $ident: $crate::config::Variable = $value;)*
        /// Every variable of this group.
        pub(super) static ALL: &[&$crate::config::Variable] = &[$(&$ident),*];
    };
}

pub(super) mod deadlines;
pub(super) mod directory;
pub(super) mod fabric;
pub(super) mod logging;
pub(super) mod metrics;
pub(super) mod network;
pub(super) mod notifications;
pub(super) mod queues;
pub(super) mod rails;
pub(super) mod rdma;
pub(super) mod security;
pub(super) mod slices;

/// Variables that belong together.
#[derive(Clone, Copy, Debug)]
pub struct VariableGroup {
    /// Heading.
    pub title: &'static str,
    /// What they have in common, one or two sentences.
    pub about: &'static str,
    /// The variables.
    pub variables: &'static [&'static Variable],
}

/// All variables, grouped, in the order of the documentation.
pub fn groups() -> [VariableGroup; 12] {
    [
        VariableGroup {
            title: "Fabric",
            about: "What moves the bytes: RDMA devices, or software where there is none.",
            variables: fabric::ALL,
        },
        VariableGroup {
            title: "RDMA devices",
            about: "Where a setting exists under both names, an explicitly set `FLAGCX_P2P_*` wins over \
                    `FLAGCX_IB_*`, which wins over the default.",
            variables: rdma::ALL,
        },
        VariableGroup {
            title: "Workers and queues",
            about: "How many threads and queue pairs there are, and how much may wait in them.",
            variables: queues::ALL,
        },
        VariableGroup {
            title: "Slices",
            about: "How a transfer is cut into work requests.",
            variables: slices::ALL,
        },
        VariableGroup {
            title: "Rails",
            about: "Connections over several NICs, with peers that can do it too.",
            variables: rails::ALL,
        },
        VariableGroup { title: "Deadlines", about: "The limits of every wait.", variables: deadlines::ALL },
        VariableGroup {
            title: "Network",
            about: "Addresses and ports of the control, data and notification listeners.",
            variables: network::ALL,
        },
        VariableGroup {
            title: "Notifications",
            about: "Bounds of what peers may leave in this process before it is fetched.",
            variables: notifications::ALL,
        },
        VariableGroup {
            title: "Security",
            about: "Which peers may connect. With a malformed value here no engine opens: a typing error \
                    never admits more than intended.",
            variables: security::ALL,
        },
        VariableGroup {
            title: "Directory",
            about: "Where names of peers are published and looked up.",
            variables: directory::ALL,
        },
        VariableGroup { title: "Logging", about: "What is written, and where.", variables: logging::ALL },
        VariableGroup {
            title: "Metrics",
            about: "How a running process is watched.",
            variables: metrics::ALL,
        },
    ]
}

/// Variables of the original engine that have no effect in this one, and why.
pub static RETIRED: &[(&str, &str)] = &[
    (
        "FLAGCX_IB_MERGE_NICS",
        "ports are never merged: of merged ones the original's engine used the first alone",
    ),
    ("FLAGCX_IB_MERGE_VFS", "ports are never merged"),
    ("FLAGCX_MR_SORTED_LOOKUP", "regions are always looked up in address order"),
    (
        "FLAGCX_P2P_READ_BATCH_WINDOW",
        "READs in flight follow from what both devices allow; the original dropped this variable too",
    ),
];
