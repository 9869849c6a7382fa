//! Engines that advertise another address than their own.

use super::*;

const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// A side that advertises `ELSEWHERE`, and listens on `address`.
fn advertising<'a>(
    gpu_index: i32,
    address: IpAddr,
    regions: &'a dyn Fn() -> Vec<RegionEntry>,
) -> LocalSide<'a> {
    LocalSide { address, advertise: Some(ELSEWHERE), ..side(gpu_index, regions) }
}

#[test]
fn both_sides_go_where_the_other_one_says() {
    let (receiver, their_receiver) = (listener_on(ELSEWHERE), listener_on(ELSEWHERE));
    let (port, their_port) = (receiver.local().port(), their_receiver.local().port());
    let listener = listener();
    let target = listener.local();
    let accepting = thread::spawn(move || {
        let local =
            LocalSide { notify_port: their_port, ..advertising(2, Ipv4Addr::UNSPECIFIED.into(), &Vec::new) };
        let stream = listener.accept_by(Some(soon())).unwrap();
        respond(stream, &local, &mut FakeLanes::new(200), &limits()).unwrap()
    });
    let local = LocalSide { notify_port: port, ..advertising(1, LOOPBACK, &Vec::new) };
    let peer = initiate(target, &local, &mut FakeLanes::new(100), &limits()).unwrap();
    let their_peer = accepting.join().unwrap();
    assert_eq!(peer.ip, ELSEWHERE);
    assert_eq!(peer.notify.as_ref().unwrap().peer(), their_receiver.local());
    // The lane socket came from another address than the initiator announced.
    assert_eq!(their_peer.notify.as_ref().unwrap().peer(), receiver.local());
    assert!(peer.local && their_peer.local, "one host, whatever it announces");
}

#[test]
fn an_address_that_leads_nowhere_is_named_by_both_sides() {
    let listener = listener();
    let target = listener.local();
    let accepting = thread::spawn(move || {
        let stream = listener.accept_by(Some(soon())).unwrap();
        respond(stream, &advertising(2, LOOPBACK, &Vec::new), &mut FakeLanes::new(200), &limits())
            .unwrap_err()
    });
    let error = initiate(target, &side(1, &Vec::new), &mut FakeLanes::new(100), &limits()).unwrap_err();
    let their_error = accepting.join().unwrap();
    for (error, origin) in [(error, "announced by the peer"), (their_error, "announced by us")] {
        assert_eq!(error.step, Step::LaneSocket);
        let Reason::Unreached { address, .. } = &error.reason else { panic!("{error}") };
        assert_eq!(address.ip(), ELSEWHERE);
        let text = error.to_string();
        assert!(text.contains(&address.to_string()) && text.contains(origin), "{text}");
        assert!(text.contains("FLAGCX_P2P_ADVERTISE"), "{text}");
    }
}

fn listener_on(address: IpAddr) -> Listener {
    Listener::bind(address, None, &Abort::new().unwrap()).unwrap()
}
