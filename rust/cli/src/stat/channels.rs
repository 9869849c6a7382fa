//! The control channels that have failed, in a line.

use super::columns::cut;
use super::rails::ConnectionRails;
use super::summary::Totals;
use super::view::{count, seconds};

/// How many have failed and were made anew, and for how long which are away, the longest first. `None` while none has ever failed. It
/// draws attention while one is away.
pub(super) fn line(totals: &Totals, connections: &[ConnectionRails], width: usize) -> Option<(String, bool)> {
    let mut away: Vec<_> = connections
        .iter()
        .filter_map(|of| of.channel.away_seconds.map(|seconds| (of.peer.as_str(), seconds)))
        .collect();
    if totals.channels_lost == 0.0 && away.is_empty() {
        return None;
    }
    away.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let mut text = format!(
        "control channels: {} lost, {} made anew",
        count(totals.channels_lost),
        count(totals.channels_resumed)
    );
    for (index, (peer, away)) in away.iter().enumerate() {
        let before = if index == 0 { "; away: " } else { ", " };
        text.push_str(&format!("{before}{peer} for {}", seconds(*away)));
    }
    Some((cut(&text, width), !away.is_empty()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::page::Page;
    use super::super::summary::Summary;
    use super::*;

    /// A page with these counters, and these connections of which the channel is away, for so long.
    fn summary(lost: u64, resumed: u64, away: &[(&str, Option<f64>)]) -> Summary {
        let counter = |name: &str, value: u64| json!({"name": name, "kind": "counter", "value": value});
        let connection = |(number, (peer, away)): (usize, &(&str, Option<f64>))| {
            let channel = json!({"lost": 1, "resumed": 0, "away_seconds": away});
            json!({"connection": number, "peer": peer, "channel": channel, "rails": []})
        };
        let page = json!({
            "version": "1", "host": "h", "pid": 1, "time": 0.0, "uptime_seconds": 1.0,
            "metrics": [
                counter("flagcx_p2p_channels_lost", lost),
                counter("flagcx_p2p_channels_resumed", resumed),
            ],
            "connections": away.iter().enumerate().map(connection).collect::<Vec<_>>(),
        });
        let page = Page::parse(&page.to_string()).unwrap();
        Summary::between(&page, &page)
    }

    fn line_of(summary: &Summary) -> Option<(String, bool)> {
        line(&summary.totals, &summary.connections, 200)
    }

    #[test]
    fn what_has_not_failed_is_not_told() {
        assert_eq!(line_of(&summary(0, 0, &[("h:1", None)])), None);
    }

    #[test]
    fn those_that_are_away_are_named_the_longest_first() {
        let all_there = summary(3, 3, &[("h:1", None)]);
        assert_eq!(line_of(&all_there), Some(("control channels: 3 lost, 3 made anew".to_owned(), false)));
        let away = summary(5, 3, &[("h:1", Some(0.25)), ("h:2", None), ("h:3", Some(1.5))]);
        let expected = "control channels: 5 lost, 3 made anew; away: h:3 for 1.5 s, h:1 for 250.0 ms";
        assert_eq!(line_of(&away), Some((expected.to_owned(), true)));
        assert_eq!(serde_json::to_value(&away).unwrap()["connections"][2]["channel"]["away_seconds"], 1.5);
    }

    #[test]
    fn a_process_of_an_earlier_release_tells_nothing_of_them() {
        let page = json!({
            "version": "1", "host": "h", "pid": 1, "time": 0.0, "uptime_seconds": 1.0, "metrics": [],
            "connections": [{"connection": 1, "peer": "h:1", "rails": []}],
        });
        let page = Page::parse(&page.to_string()).unwrap();
        assert_eq!(line_of(&Summary::between(&page, &page)), None);
    }
}
