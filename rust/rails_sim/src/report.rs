//! The rows as a table and as JSON.

use flagcx_p2p::internals::rails::{Homes, MAX_RAILS, PathLatency, RailCounts, RailTable, RateMeter};

use crate::policy::Policy;
use crate::rows::Row;

/// The table, in Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "Modelled, not measured. Of each row the worst of its seeds. Rivals are our models of what is published.\n\n\
         | scenario | policy | seeds | share | Jain | failed | written late | pauses | probes | detection | recovery | used again | p99 |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let millis =
            |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1} ms"));
        text += &format!(
            "| {} | {} | {} | {:.3} | {:.3} | {} | {} | {} | {} | {} | {} | {} | {:.0} us |\n",
            row.scenario,
            row.policy.name(),
            row.seeds,
            row.share,
            row.jain,
            row.failed,
            row.late,
            row.pauses,
            row.probes,
            millis(row.detection_ms),
            millis(row.recovery_ms),
            millis(row.reuse_ms),
            row.p99_us,
        );
    }
    for row in rows {
        if let (Some(loaded), Some(others)) = (row.loaded_gpu, row.other_gpus) {
            let name = row.policy.name();
            text += &format!(
                "\n{name}, I: the loaded GPU {loaded:.2} NICs, each other one at least {others:.2} of its load"
            );
        }
    }
    let made = rows.iter().find(|row| row.scenario.starts_with('H') && row.policy == Policy::Ours);
    if let Some(row) = made {
        text += &format!(
            "\nours, H: {:.1} rails and {:.1} queue pairs a peer, {} of a further rail before it is used, and {} bytes of state for up to \
             {MAX_RAILS} rails",
            row.rails_made,
            row.queue_pairs,
            row.unused_lanes,
            state_per_peer(),
        );
    }
    text += "\n";
    for row in rows {
        for miss in &row.misses {
            text += &format!("\nMISSED by {}, {}: {miss}", row.policy.name(), row.scenario);
        }
    }
    text
}

/// Bytes that the state of all rails of a connection takes, beside that of its lanes.
fn state_per_peer() -> usize {
    let rail = size_of::<RateMeter>() + size_of::<PathLatency>() + size_of::<RailCounts>();
    size_of::<RailTable>() + size_of::<Homes>() + MAX_RAILS * rail
}

/// The rows as JSON.
///
/// # Errors
/// Those of the serializer; none are expected.
pub fn json(rows: &[Row]) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(rows)
}
