//! An engine at the other end: what it tells before a connection, and the connection itself.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::LaneEnds;
use flagcx_p2p::internals::control::wire::{Features, PROTOCOL_VERSION};
use flagcx_p2p::internals::fabric::{LINK_SOFTWARE, QpAddress};
use flagcx_p2p::{Config, Connection, Engine, EngineOptions};

use super::super::finding::Report;
use super::identify::Told;
use super::reach::Reached;
use crate::error::{CliError, Result, While};
use crate::settings;

/// What the bits of [`Features`] are called, and what is missing without.
const FEATURES: [(u32, &str, &str); 4] = [
    (Features::CHANNEL, "control channel", "its end is noticed late"),
    (Features::REBUILD, "rebuilt lanes", "a failed queue pair ends the connection"),
    (Features::REGIONS, "regions announced later", "memory that it registers later is not found"),
    (Features::LIVENESS, "pings", "a lost host is noticed by the kernel's probes alone"),
];

/// Reports its first answer: key, versions, features, address.
pub(super) fn told(told: &Told, reached: IpAddr, key: bool, report: &mut Report) {
    match (told.features.map(|features| features.has(Features::AUTH)), key) {
        (Some(true), true) => {
            report.ok("key", "key", "both ends have one; the connection shows whether it is the same")
        }
        (Some(true), false) => report.fail(
            "key",
            "key",
            "the peer requires one, and none is set here",
            "FLAGCX_P2P_AUTH_KEY_FILE names the file of the same key",
        ),
        (_, false) => report.ok("key", "key", "none at either end"),
        (Some(false), true) => report.fail(
            "key",
            "key",
            "we have one, and the peer has none",
            "set FLAGCX_P2P_AUTH_KEY_FILE there, or unset it here",
        ),
        (None, true) => report.fail(
            "key",
            "key",
            "we have one, and the original engine has none",
            "FLAGCX_P2P_AUTH_ALLOW_ORIGINAL=1 here accepts it",
        ),
    }
    told_of_engine(told, reached, report);
}

/// The same without the key.
pub(super) fn told_of_engine(told: &Told, reached: IpAddr, report: &mut Report) {
    let ours = format!("ours is flagcx-p2p {}, protocol {PROTOCOL_VERSION}", env!("CARGO_PKG_VERSION"));
    let Some(features) = told.features else {
        report.ok("version", "version", format!("FlagCX's original engine, which tells no features; {ours}"));
        return address(told.address.ip(), reached, false, report);
    };
    version(told.version, &ours, report);
    // With a key the first answer holds nothing else.
    if !features.has(Features::AUTH) {
        supported(features, report);
        address(told.address.ip(), reached, features.has(Features::ADVERTISED), report);
    }
}

fn version(theirs: Option<u16>, ours: &str, report: &mut Report) {
    match theirs {
        Some(version) if version < PROTOCOL_VERSION => report.warn(
            "version",
            "version",
            format!("an older engine, protocol {version}; {ours}"),
            "use the same release at both ends",
        ),
        Some(version) if version > PROTOCOL_VERSION => report.warn(
            "version",
            "version",
            format!("a newer engine, protocol {version}; {ours}"),
            "use the same release at both ends",
        ),
        Some(version) => report.ok("version", "version", format!("this engine, protocol {version}; {ours}")),
        None => report.warn(
            "version",
            "version",
            format!("not told; {ours}"),
            "use the same release at both ends",
        ),
    }
}

fn supported(features: Features, report: &mut Report) {
    let (has, lacks): (Vec<_>, Vec<_>) = FEATURES.into_iter().partition(|(bit, _, _)| features.has(*bit));
    let has: Vec<_> = has.iter().map(|(_, name, _)| *name).collect();
    report.ok(
        "features",
        "features of both",
        format!("{}; notifications of up to {} bytes", has.join(", "), features.max_notification.max(512)),
    );
    for (_, name, effect) in lacks {
        report.warn(
            "features",
            "features",
            format!("the peer has no {name}: {effect}"),
            "use this release at both ends",
        );
    }
}

/// Whether the peer is told about at the address where it was reached.
fn address(told: IpAddr, reached: IpAddr, is_forwarder: bool, report: &mut Report) {
    let (id, subject) = ("peer-address", "address that the peer announces");
    if told.is_unspecified() || told == reached {
        report.ok(id, subject, format!("{reached}, where it was reached"));
    } else if told.is_ipv4() != reached.is_ipv4() {
        report.ok(
            id,
            subject,
            format!("{told}, its address of the other family; it was reached at {reached} (FLAGCX_SOCKET_FAMILY there changes that)"),
        );
    } else if is_forwarder {
        report.ok(
            id,
            subject,
            format!("{told}, that of its forwarder (FLAGCX_P2P_ADVERTISE); it was reached at {reached}"),
        );
    } else {
        report.warn(
            id,
            subject,
            format!("{told}, but it was reached at {reached}: there is NAT or a forwarder between, or it has several interfaces"),
            "if the connection fails, set FLAGCX_P2P_ADVERTISE or FLAGCX_SOCKET_IFNAME there",
        );
    }
}

/// Connects as an engine does, and reports the path.
pub(super) fn connect(reached: &Reached, deadline: Instant, report: &mut Report) {
    let started = Instant::now();
    match attempt(reached, deadline) {
        Ok((connection, _engine)) => {
            report.ok("connection", "connection", format!("made in {} ms", started.elapsed().as_millis()));
            path(&connection, reached.peer.ip(), report);
        }
        Err(error) => report.fail(
            "connection",
            "connection",
            error.to_string(),
            "flagcx-p2p doctor at the peer's host, and its log (FLAGCX_DEBUG=INFO)",
        ),
    }
}

fn attempt(
    reached: &Reached,
    deadline: Instant,
) -> Result<(std::sync::Arc<Connection>, std::sync::Arc<Engine>)> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(10));
    let mut config = Config::clone(&*settings::config(Some(reached.own))?);
    config.connect_timeout = config.connect_timeout.min(left);
    config.handshake_timeout = config.handshake_timeout.min(left);
    let engine =
        Engine::open(config.into(), EngineOptions::default()).doing(|| "open an engine here".into())?;
    let connection = engine
        .connect(&reached.peer.ip().to_string(), reached.peer.port(), -1, false)
        .map_err(CliError::from)?;
    Ok((connection, engine))
}

/// How bytes travel, and between which ends.
pub(super) fn path(connection: &Connection, reached: IpAddr, report: &mut Report) {
    let info = connection.info();
    let host = if info.local { "the same host" } else { "another host" };
    report.ok(
        "path",
        "path",
        format!("{}, {} of {} lanes work, {host}", info.paths, info.healthy_lanes, info.lanes),
    );
    let peer = connection.peer().ip;
    // With a key it was not told before.
    if peer != reached && !report.has("peer-address") {
        address(peer, reached, false, report);
    }
    if let Some(ends) = connection.lane_ends() {
        gids(&ends, report);
    }
}

fn gids(ends: &LaneEnds, report: &mut Report) {
    report.ok("gids", "GIDs", format!("ours {}, the peer's {}", gid(&ends.own), gid(&ends.peer)));
    if ends.own.link_layer == LINK_SOFTWARE {
        return;
    }
    let (own, peer) = (mtu(&ends.own), mtu(&ends.peer));
    let found = format!("ours {own}, the peer's {peer}; packets have {}", own.min(peer));
    if own == peer {
        report.ok("path-mtu", "RDMA path MTU both ways", found);
    } else {
        report.warn(
            "path-mtu",
            "RDMA path MTU both ways",
            found,
            "set one MTU at both interfaces and the switches",
        );
    }
}

/// A GID; of the software fabric the data listener.
fn gid(end: &QpAddress) -> String {
    let address = Ipv6Addr::from(end.gid);
    match (end.link_layer, address.to_ipv4_mapped()) {
        (LINK_SOFTWARE, Some(v4)) => format!("{v4}:{} (software)", end.lid),
        (LINK_SOFTWARE, None) => format!("[{address}]:{} (software)", end.lid),
        _ if end.lid != 0 => format!("{address} (LID {})", end.lid),
        _ => address.to_string(),
    }
}

/// Of the verbs' enumeration, in bytes.
fn mtu(end: &QpAddress) -> u32 {
    128 << end.mtu.min(5)
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::Level;
    use super::*;

    const REACHED: &str = "192.0.2.7";

    fn of(bits: u32, announced: &str, version: Option<u16>, key: bool) -> Report {
        let features = Some(Features { bits, ..Features::default() });
        let engine = Told { address: (announced.parse::<IpAddr>().unwrap(), 1).into(), features, version };
        let mut found = Report::default();
        told(&engine, REACHED.parse().unwrap(), key, &mut found);
        found
    }

    const ALL: u32 = Features::CHANNEL | Features::REBUILD | Features::REGIONS | Features::LIVENESS;

    #[test]
    fn an_engine_like_this_one() {
        let found = of(ALL, REACHED, Some(PROTOCOL_VERSION), false);
        assert!(found.findings().all(|finding| finding.level == Level::Ok), "{found:?}");
    }

    #[test]
    fn addresses_that_differ() {
        let (level, line) = of(ALL, "10.0.0.7", Some(1), false).seen("peer-address");
        assert!(
            level == Level::Warn && line.contains("10.0.0.7, but it was reached at 192.0.2.7: there is NAT"),
            "{line}"
        );
        assert_eq!(
            of(ALL | Features::ADVERTISED, "10.0.0.7", Some(1), false).seen("peer-address").0,
            Level::Ok
        );
        let (level, line) = of(ALL, "2001:db8::7", Some(1), false).seen("peer-address");
        assert!(level == Level::Ok && line.contains("its address of the other family"), "{line}");
    }

    #[test]
    fn keys_versions_and_features_that_differ() {
        let (level, line) = of(Features::AUTH, "0.0.0.0", Some(1), false).seen("key");
        assert!(level == Level::Fail && line.contains("the peer requires one"), "{line}");
        assert_eq!(of(Features::AUTH, "0.0.0.0", Some(1), true).seen("key").0, Level::Ok);
        assert_eq!(of(ALL, REACHED, Some(1), true).seen("key").0, Level::Fail);
        assert_eq!(of(ALL, REACHED, Some(0), false).seen("version").0, Level::Warn);
        assert!(of(ALL, REACHED, Some(9), false).seen("version").1.contains("a newer engine, protocol 9"));
        let lacking = of(Features::CHANNEL | Features::REBUILD | Features::REGIONS, REACHED, Some(1), false);
        let warned: Vec<_> = lacking.findings().filter(|finding| finding.level == Level::Warn).collect();
        assert!(matches!(warned[..], [one] if one.finding.contains("no pings")), "{lacking:?}");
    }

    #[test]
    fn ends_of_lanes() {
        let end = |mtu, link_layer, lid| QpAddress { qpn: 1, gid: [0; 16], port: 1, link_layer, lid, mtu };
        let of = |own, peer| {
            let mut found = Report::default();
            gids(&LaneEnds { own, peer }, &mut found);
            found
        };
        assert_eq!(of(end(5, 2, 0), end(5, 2, 0)).seen("path-mtu").0, Level::Ok);
        let (level, line) = of(end(5, 2, 0), end(3, 2, 0)).seen("path-mtu");
        assert!(
            level == Level::Warn && line.contains("ours 4096, the peer's 1024; packets have 1024"),
            "{line}"
        );
        let found = of(end(5, LINK_SOFTWARE, 77), end(5, LINK_SOFTWARE, 78));
        assert!(
            found.seen("gids").1.contains("[::]:78 (software)") && found.findings().count() == 1,
            "{found:?}"
        );
    }
}
