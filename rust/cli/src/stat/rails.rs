//! The rails of connections between two pages, and how they are shown.

use std::collections::HashMap;

use serde::Serialize;

use super::columns::{self, Column};
use super::page::{Channel, Page, Pause, Rail};
use super::view::{count, dash, gigabytes, seconds};
use crate::output::units;

/// The rails of a connection between two pages, and its control channel.
#[derive(Debug, Serialize)]
pub(super) struct ConnectionRails {
    /// Names it in its process.
    connection: u64,
    pub(super) peer: String,
    pub(super) channel: Channel,
    rails: Vec<RailSummary>,
}

#[derive(Debug, Serialize)]
struct RailSummary {
    /// `null` while it is not known: the process, the connection or the rail is new.
    write_bytes_per_second: Option<f64>,
    read_bytes_per_second: Option<f64>,
    #[serde(flatten)]
    now: Rail,
}

/// The rails of the connections of `now`, with their rates over so many seconds; 0: the process was started anew in between.
pub(super) fn between(before: &Page, now: &Page, seconds: f64) -> Vec<ConnectionRails> {
    let rails = before.connections.iter().flat_map(|connection| {
        connection.rails.iter().map(move |rail| ((connection.connection, rail.rail), rail))
    });
    let former: HashMap<_, _> = rails.collect();
    let rate = |before: u64, now: u64| {
        let grown = now.checked_sub(before).filter(|_| seconds > 0.0)?;
        Some(grown as f64 / seconds)
    };
    let summary = |connection: u64, rail: &Rail| {
        let former = former.get(&(connection, rail.rail));
        RailSummary {
            write_bytes_per_second: former.and_then(|former| rate(former.written_bytes, rail.written_bytes)),
            read_bytes_per_second: former.and_then(|former| rate(former.read_bytes, rail.read_bytes)),
            now: rail.clone(),
        }
    };
    now.connections
        .iter()
        .map(|of| ConnectionRails {
            connection: of.connection,
            peer: of.peer.clone(),
            channel: of.channel,
            rails: of.rails.iter().map(|rail| summary(of.connection, rail)).collect(),
        })
        .collect()
}

const COLUMNS: &[Column] = &[
    Column { heading: "rails of", rank: 0 },
    Column { heading: "rail", rank: 0 },
    Column { heading: "nic", rank: 0 },
    Column { heading: "to", rank: 4 },
    Column { heading: "state", rank: 0 },
    Column { heading: "lanes", rank: 5 },
    Column { heading: "write GB/s", rank: 0 },
    Column { heading: "read GB/s", rank: 0 },
    Column { heading: "can GB/s", rank: 2 },
    Column { heading: "in flight", rank: 3 },
    Column { heading: "moved", rank: 6 },
    Column { heading: "pauses", rank: 1 },
    Column { heading: "last pause", rank: 3 },
];

/// A heading, and the rails of the connections that have several, or one that is not up. Empty if there are none of these. Each line
/// says whether it draws attention.
pub(super) fn lines(connections: &[ConnectionRails], width: usize) -> Vec<(String, bool)> {
    let (mut rows, mut attention) = (Vec::new(), vec![false]);
    for of in connections.iter().filter(|of| is_shown(&of.rails)) {
        for rail in &of.rails {
            rows.push(cells(&of.peer, rail));
            attention.push(rail.now.state != "up");
        }
    }
    if rows.is_empty() {
        return Vec::new();
    }
    columns::lines(COLUMNS, &rows, width).into_iter().zip(attention).collect()
}

fn is_shown(rails: &[RailSummary]) -> bool {
    rails.len() > 1 || rails.iter().any(|rail| rail.now.state != "up")
}

fn cells(peer: &str, rail: &RailSummary) -> Vec<String> {
    let now = &rail.now;
    let measured = Some(now.rate_bytes_per_second as f64).filter(|rate| *rate > 0.0);
    let last = |pause: &Pause| format!("{} {} ago", pause.reason, seconds(pause.seconds_ago));
    vec![
        peer.to_owned(),
        now.rail.to_string(),
        now.nic.clone(),
        if now.peer_nic.is_empty() { dash() } else { now.peer_nic.clone() },
        state(now),
        format!("{}/{}", now.healthy_lanes, now.lanes),
        gigabytes(rail.write_bytes_per_second),
        gigabytes(rail.read_bytes_per_second),
        gigabytes(measured),
        units::bytes(now.in_flight_bytes),
        count(now.moved_parts as f64),
        count(now.pauses as f64),
        now.last_pause.as_ref().map_or_else(dash, last),
    ]
}

fn state(rail: &Rail) -> String {
    match (rail.state.as_str(), rail.paused_seconds) {
        // Behind its pause it is being tried, without an end that is known.
        ("paused", Some(left)) if left > 0.0 => format!("paused {}", seconds(left)),
        ("down", _) => "DOWN".to_owned(),
        (state, _) => state.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A page with a connection of one rail, and one with these two.
    fn page(uptime: f64, written: u64, state: &str) -> Page {
        let rail = |number: u8, written: u64, state: &str| {
            let paused = state == "paused";
            json!({
                "rail": number, "nic": format!("mlx5_{number}:1"), "peer_nic": "", "state": state,
                "paused_seconds": if paused { json!(0.004) } else { json!(null) }, "lanes": 8, "healthy_lanes": 8,
                "written_bytes": written, "read_bytes": 0, "in_flight_bytes": 4096,
                "rate_bytes_per_second": if number == 1 { 50_000_000_000_u64 } else { 0 },
                "moved_parts": 3, "pauses": u8::from(paused),
                "last_pause": if paused { json!({"reason": "silent", "seconds_ago": 0.002}) } else { json!(null) },
                "latency_seconds": null,
            })
        };
        let page = json!({
            "version": "1", "host": "h", "pid": 1, "time": 0.0, "uptime_seconds": uptime, "metrics": [],
            "connections": [
                {"connection": 7, "peer": "h:2", "rails": [rail(0, written, "up"), rail(1, written, state)]},
                {"connection": 8, "peer": "h:1", "rails": [rail(0, 0, "up")]},
            ],
        });
        Page::parse(&page.to_string()).unwrap()
    }

    #[test]
    fn rails_have_the_rates_of_the_interval() {
        let (before, now) = (page(1.0, 1_000_000_000, "up"), page(3.0, 5_000_000_000, "paused"));
        let rails = serde_json::to_value(between(&before, &now, 2.0)).unwrap();
        assert_eq!(rails[0]["rails"][1]["write_bytes_per_second"], 2e9);
        assert_eq!(rails[0]["rails"][1]["state"], "paused");
        assert_eq!(rails[0]["rails"][1]["last_pause"]["reason"], "silent");
        assert_eq!((&rails[1]["peer"], rails[1]["rails"].as_array().unwrap().len()), (&json!("h:1"), 1));
        let anew = serde_json::to_value(between(&before, &now, 0.0)).unwrap();
        assert_eq!(anew[0]["rails"][0]["write_bytes_per_second"], json!(null));
        let mut unknown = before.clone();
        unknown.connections.clear();
        let first = serde_json::to_value(between(&unknown, &now, 2.0)).unwrap();
        assert_eq!(first[0]["rails"][0]["write_bytes_per_second"], json!(null));
    }

    #[test]
    fn connections_with_several_rails_are_shown() {
        let (before, now) = (page(1.0, 0, "up"), page(2.0, 1_500_000_000, "paused"));
        let shown = lines(&between(&before, &now, 1.0), 200);
        let texts: Vec<_> =
            shown.iter().map(|(text, _)| text.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            texts,
            [
                "rails of rail nic to state lanes write GB/s read GB/s can GB/s in flight moved pauses last pause",
                "h:2 0 mlx5_0:1 - up 8/8 1.50 0.00 - 4.00 KiB 3 0 -",
                "h:2 1 mlx5_1:1 - paused 4.0 ms 8/8 1.50 0.00 50.00 4.00 KiB 3 1 silent 2.0 ms ago",
            ]
        );
        assert_eq!(shown.iter().map(|(_, attention)| *attention).collect::<Vec<_>>(), [false, false, true]);
    }

    #[test]
    fn a_rail_of_which_the_pause_is_over_has_no_time_left() {
        let (before, mut now) = (page(1.0, 0, "up"), page(2.0, 0, "paused"));
        now.connections[0].rails[1].paused_seconds = Some(0.0);
        let shown = lines(&between(&before, &now, 1.0), 200);
        let words: Vec<_> = shown[2].0.split_whitespace().collect();
        assert_eq!(words[4..6], ["paused", "8/8"], "{shown:?}");
        assert!(shown[2].1, "{shown:?}");
    }

    #[test]
    fn one_rail_that_is_up_says_nothing_that_its_peer_does_not() {
        let (mut before, mut now) = (page(1.0, 0, "up"), page(2.0, 0, "up"));
        [&mut before, &mut now].into_iter().for_each(|page| drop(page.connections.remove(0)));
        assert_eq!(lines(&between(&before, &now, 1.0), 200), []);
        now.connections[0].rails[0].state = "down".to_owned();
        let shown = lines(&between(&before, &now, 1.0), 200);
        assert!(shown[1].0.contains("DOWN") && shown[1].1, "{shown:?}");
    }
}
