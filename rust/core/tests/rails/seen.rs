//! What operators see of rails: by the API, metrics and events.

use flagcx_p2p::PauseReason;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::observe::{
    EventKind, Metric, RailStatus, Value, event_log, metrics, prometheus_text, registry,
};

use crate::alone;
use crate::nics::{carried, nic_number};
use crate::rail_pair::RailPair;
use crate::support::eventually;

/// The values of a metric of a peer, with the values of its other labels.
fn series(metric: &'static Metric, peer: &str) -> Vec<(String, u64)> {
    let snapshot = registry().snapshot();
    let of_peer = snapshot.of(metric).filter(|sample| sample.labels[0] == ("peer", peer.to_owned()));
    let text = |labels: &[(&str, String)]| {
        labels[1..].iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(" ")
    };
    of_peer
        .map(|sample| match sample.value {
            Value::Number(number) => (text(&sample.labels), number),
            _ => panic!("{sample:?}"),
        })
        .collect()
}

/// The kinds of the events about rails with a peer over a NIC.
fn events(peer: &str, nic: &str) -> Vec<EventKind> {
    use EventKind::{PartsMoved, RailAdded, RailPaused, RailRefused, RailUp};
    let about = [PartsMoved, RailAdded, RailPaused, RailRefused, RailUp];
    let recent = event_log().recent().into_iter().filter(|event| {
        event.peer.as_deref() == Some(peer)
            && event.device.as_deref() == Some(nic)
            && about.contains(&event.kind)
    });
    recent.map(|event| event.kind).collect()
}

#[test]
fn each_rail_is_told_and_a_port_that_goes_down_is_seen_everywhere() {
    let _alone = alone();
    let pair = RailPair::patient(2, 2, 2);
    eventually("both rails carry something", || {
        pair.check_all(Opcode::Write, 1);
        carried(&pair.here).iter().all(|bytes| *bytes > 0)
    });
    let (rails, info) = (pair.here.rails(), pair.here.info());
    assert_eq!(rails.iter().map(|rail| rail.rail).collect::<Vec<_>>(), [0, 1], "{rails:#?}");
    assert!(rails[0].nic != rails[1].nic && rails[0].peer_nic != rails[1].peer_nic, "{rails:#?}");
    assert!(rails.iter().all(|rail| !rail.peer_nic.is_empty() && rail.written_bytes > 0), "{rails:#?}");
    assert_eq!(info.lanes, rails.iter().map(|rail| rail.lanes).sum::<usize>());

    let written: Vec<_> = series(&metrics::PEER_RAIL_BYTES, &info.peer)
        .into_iter()
        .filter(|(labels, _)| labels.ends_with("write"))
        .collect();
    let expected = rails.iter().map(|rail| (format!("{} {} write", rail.rail, rail.nic), rail.written_bytes));
    assert_eq!(written, expected.collect::<Vec<_>>());
    let lanes = series(&metrics::PEER_LANE_REBUILDS, &info.peer);
    let further =
        lanes.iter().filter(|(lane, rebuilds)| lane.parse::<usize>().unwrap() >= 8 && *rebuilds == 0);
    assert_eq!(further.count(), 0, "{lanes:?}");
    let page = prometheus_text(&registry().snapshot()).unwrap();
    let line = format!(
        "flagcx_p2p_peer_rails{{peer=\"{}\",rail=\"1\",nic=\"{}\",state=\"up\"}} 1",
        info.peer, rails[1].nic
    );
    assert!(page.lines().any(|found| found == line), "{line} not in\n{page}");
    let listed = registry().rails().into_iter().find(|of| of.peer == info.peer).unwrap();
    assert_eq!(listed.rails.len(), 2, "{listed:#?}");

    let nic = nic_number(&rails[1].nic);
    pair.near.set_port(nic, false);
    // That its lanes have failed is seen before its state is told.
    eventually("the rail is down", || {
        let rail = pair.here.rails().remove(1);
        rail.status == RailStatus::Down && rail.pauses > 0
    });
    let down = pair.here.rails().remove(1);
    assert_eq!(
        (down.pauses, down.last_pause.map(|pause| pause.reason)),
        (1, Some(PauseReason::PortDown)),
        "{down:#?}"
    );
    let labels = format!("1 {} ", rails[1].nic);
    let pauses = series(&metrics::PEER_RAIL_PAUSES, &info.peer);
    let pauses: Vec<_> = pauses.into_iter().filter(|(found, _)| found.starts_with(&labels)).collect();
    assert_eq!(pauses, [(format!("{labels}port_down"), 1)]);
    let states = series(&metrics::PEER_RAILS, &info.peer);
    assert!(
        states.contains(&(format!("{labels}down"), 1)) && states.contains(&(format!("{labels}up"), 0)),
        "{states:?}"
    );

    pair.near.set_port(nic, true);
    eventually("the rail is up again", || {
        pair.check_all(Opcode::Write, 2);
        pair.here.rails()[1].status == RailStatus::Up
    });
    // It was away once, though it was paused for a moment when its port was back.
    let pauses = series(&metrics::PEER_RAIL_PAUSES, &info.peer);
    assert!(pauses.contains(&(format!("{labels}port_down"), 1)), "{pauses:?}");
    let kinds = events(&info.peer, &rails[1].nic);
    let began = [EventKind::RailAdded, EventKind::RailPaused];
    assert!(kinds.starts_with(&began) && kinds.contains(&EventKind::RailUp), "{kinds:?}");
}
