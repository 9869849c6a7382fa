//! A summary as lines of text.

use super::channels;
use super::columns::{self, Column, cut};
use super::page::{Event, SlowTransfer};
use super::rails;
use super::summary::{Device, Peer, Summary, Totals, Traffic};
use crate::output::units;

/// Transfers and events that are shown.
const SHOWN: usize = 5;
/// An unfinished transfer of this age draws attention.
const OLD_SECONDS: f64 = 1.0;

/// The parts of the view. A screen that is too small shows the beginning of each.
pub(super) struct View {
    pub(super) head: Vec<String>,
    /// The control channels that have failed, and whether one is away.
    pub(super) channels: Option<(String, bool)>,
    pub(super) devices: Vec<String>,
    /// Its first line is the heading. The others say whether they draw attention.
    pub(super) peers: Vec<(String, bool)>,
    /// As the peers. Empty while every connection has one rail, and it is up: nothing is to be told of it that the peers do not tell.
    pub(super) rails: Vec<(String, bool)>,
    pub(super) foot: Vec<String>,
}

/// The view of a summary, within `width` characters.
pub(super) fn view(summary: &Summary, width: usize) -> View {
    let Summary { version, host, pid, time, uptime_seconds, .. } = summary;
    let title = format!(
        "flagcx-p2p {version} on {host}, process {pid}, for {}, {} UTC",
        seconds(*uptime_seconds),
        time_of_day(*time)
    );
    let mut head: Vec<_> =
        [title].iter().chain(&totals(&summary.totals)).map(|line| cut(line, width)).collect();
    if summary.interval_seconds == 0.0 {
        head.push(cut("the process was started anew: no rates yet", width));
    }
    let rows: Vec<_> = summary.peers.iter().map(peer_cells).collect();
    let attention = std::iter::once(false).chain(summary.peers.iter().map(draws_attention));
    let mut foot: Vec<_> =
        summary.slow_transfers.iter().take(SHOWN).map(|slow| cut(&slow_line(slow), width)).collect();
    let newest = summary.events.len().saturating_sub(SHOWN);
    foot.extend(summary.events.iter().skip(newest).map(|event| cut(&event_line(event), width)));
    View {
        head,
        channels: channels::line(&summary.totals, &summary.connections, width),
        devices: columns::lines(
            DEVICE_COLUMNS,
            &summary.devices.iter().map(device_cells).collect::<Vec<_>>(),
            width,
        ),
        peers: columns::lines(PEER_COLUMNS, &rows, width).into_iter().zip(attention).collect(),
        rails: rails::lines(&summary.connections, width),
        foot,
    }
}

const DEVICE_COLUMNS: &[Column] = &[
    Column { heading: "device", rank: 0 },
    Column { heading: "provider", rank: 4 },
    Column { heading: "state", rank: 1 },
    Column { heading: "requests/s", rank: 2 },
    Column { heading: "p50", rank: 0 },
    Column { heading: "p99", rank: 0 },
    Column { heading: "queue", rank: 1 },
];

fn device_cells(device: &Device) -> Vec<String> {
    let state = match device.up {
        Some(true) => "up",
        Some(false) => "DOWN",
        None => "-",
    };
    vec![
        format!("{}/{}", device.device, device.port),
        device.provider.clone(),
        state.to_owned(),
        rate(device.requests_per_second),
        device.p50_seconds.map_or_else(dash, seconds),
        device.p99_seconds.map_or_else(dash, seconds),
        count(device.waiting),
    ]
}

const PEER_COLUMNS: &[Column] = &[
    Column { heading: "peer", rank: 0 },
    Column { heading: "path", rank: 3 },
    Column { heading: "conns", rank: 7 },
    Column { heading: "lanes", rank: 1 },
    Column { heading: "write GB/s", rank: 0 },
    Column { heading: "read GB/s", rank: 0 },
    Column { heading: "ops/s", rank: 2 },
    Column { heading: "in flight", rank: 2 },
    Column { heading: "bytes", rank: 6 },
    Column { heading: "oldest", rank: 1 },
    Column { heading: "retries", rank: 5 },
    Column { heading: "rebuilds", rank: 5 },
    Column { heading: "failures", rank: 4 },
];

fn peer_cells(peer: &Peer) -> Vec<String> {
    let traffic = &peer.traffic;
    vec![
        peer.peer.clone(),
        if peer.path.is_empty() { dash() } else { peer.path.clone() },
        count(peer.connections),
        format!("{}/{}", count(peer.healthy_lanes), count(peer.lanes)),
        gigabytes(traffic.write_bytes_per_second),
        gigabytes(traffic.read_bytes_per_second),
        rate(traffic.transfers_per_second),
        count(traffic.in_flight),
        units::bytes(traffic.in_flight_bytes as u64),
        seconds(traffic.oldest_age_seconds),
        count(traffic.retries),
        count(traffic.rebuilds),
        count(traffic.failures),
    ]
}

fn draws_attention(peer: &Peer) -> bool {
    peer.healthy_lanes < peer.lanes || peer.traffic.oldest_age_seconds >= OLD_SECONDS
}

fn totals(totals: &Totals) -> [String; 2] {
    let Totals { connections, traffic, waiting, p50_seconds, p99_seconds, .. } = totals;
    let Traffic { in_flight, in_flight_bytes, oldest_age_seconds, retries, rebuilds, failures, .. } =
        *traffic;
    [
        format!(
            "write {} GB/s, read {} GB/s, {} ops/s, p50 {}, p99 {}",
            gigabytes(traffic.write_bytes_per_second),
            gigabytes(traffic.read_bytes_per_second),
            rate(traffic.transfers_per_second),
            p50_seconds.map_or_else(dash, seconds),
            p99_seconds.map_or_else(dash, seconds),
        ),
        format!(
            "{} in flight ({}), oldest {}, queue {}, {} retries, {} rebuilds, {} failures, {} connections",
            count(in_flight),
            units::bytes(in_flight_bytes as u64),
            seconds(oldest_age_seconds),
            count(*waiting),
            count(retries),
            count(rebuilds),
            count(failures),
            count(*connections),
        ),
    ]
}

fn slow_line(slow: &SlowTransfer) -> String {
    let SlowTransfer { id, peer, opcode, path, bytes, lanes, pieces, pieces_done, age_seconds } = slow;
    format!(
        "unfinished for {}: {opcode} {id:#x} with {peer} over {path}, {} left, {pieces_done} of {pieces} pieces done, lanes {lanes:?}",
        seconds(*age_seconds),
        units::bytes(*bytes)
    )
}

fn event_line(event: &Event) -> String {
    format!("{} {}: {}", time_of_day(event.time), event.kind, event.text)
}

pub(super) fn dash() -> String {
    "-".to_owned()
}

pub(super) fn count(number: f64) -> String {
    format!("{number:.0}")
}

pub(super) fn rate(number: Option<f64>) -> String {
    number.map_or_else(dash, |number| format!("{number:.0}"))
}

pub(super) fn gigabytes(bytes: Option<f64>) -> String {
    bytes.map_or_else(dash, |bytes| format!("{:.2}", bytes / 1e9))
}

/// `250 ns`, `12.5 us`, `3.2 ms`, `1.5 s`, `2 min`, `3 h`; `> 100 s` beyond what a histogram bounds.
pub(super) fn seconds(seconds: f64) -> String {
    match seconds {
        seconds if seconds == f64::INFINITY => "> 100 s".to_owned(),
        0.0 => "0 s".to_owned(),
        seconds if seconds < 1e-6 => format!("{:.0} ns", seconds * 1e9),
        seconds if seconds < 1e-3 => format!("{:.1} us", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 120.0 => format!("{seconds:.1} s"),
        seconds if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.0} h", seconds / 3600.0),
    }
}

/// Hours, minutes and seconds of a time in seconds since 1970, UTC.
fn time_of_day(time: f64) -> String {
    let of_day = time as u64 % 86_400;
    format!("{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let times = [0.0, 2.5e-7, 1.25e-5, 0.0032, 1.5, 180.0, 7200.0, f64::INFINITY].map(seconds);
        assert_eq!(times, ["0 s", "250 ns", "12.5 us", "3.2 ms", "1.5 s", "3 min", "2 h", "> 100 s"]);
        assert_eq!(time_of_day(86_400.0 + 3661.9), "01:01:01");
    }

    #[test]
    fn an_event_and_a_slow_transfer() {
        let event = Event {
            sequence: 1,
            time: 1.0,
            kind: "lane_error".to_owned(),
            peer: Some("h:1".to_owned()),
            device: None,
            text: "lane 2 with h:1 failed".to_owned(),
        };
        assert_eq!(event_line(&event), "00:00:01 lane_error: lane 2 with h:1 failed");
        let slow = SlowTransfer {
            id: 16,
            peer: "h:1".to_owned(),
            opcode: "write".to_owned(),
            path: "tcp".to_owned(),
            bytes: 4096,
            lanes: vec![0, 2],
            pieces: 4,
            pieces_done: 3,
            age_seconds: 1.5,
        };
        let expected = "unfinished for 1.5 s: write 0x10 with h:1 over tcp, 4.00 KiB left, 3 of 4 pieces done, lanes [0, 2]";
        assert_eq!(slow_line(&slow), expected);
    }
}
