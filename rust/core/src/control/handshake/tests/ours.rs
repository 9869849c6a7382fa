//! Two engines of this kind.

use super::*;
use crate::fabric::{LINK_ETHERNET, LINK_INFINIBAND};

#[test]
fn both_sides_learn_the_same() {
    let ((initiator, lanes), (responder, their_lanes)) =
        shake((FakeLanes::new(100), limits()), (FakeLanes::new(200), limits()));
    let (initiator, responder) = (initiator.unwrap(), responder.unwrap());
    assert_eq!((initiator.gpu_index, responder.gpu_index), (2, 1));
    assert_eq!((initiator.regions, responder.regions), (regions(3), regions(2)));
    assert_eq!((initiator.lanes, responder.lanes), (4, 4));
    assert_eq!(lanes.peer_qpns(), [200, 201, 202, 203]);
    assert_eq!(their_lanes.peer_qpns(), [100, 101, 102, 103]);
    let capabilities = LaneCapabilities { rd_atomic_initiator: 16, rd_atomic_responder: 32 };
    assert_eq!(initiator.capabilities, PeerCapabilities { ours: true, lanes: capabilities });
    assert_eq!(lanes.peer, Some(initiator.capabilities));
    assert_eq!(initiator.features.unwrap().incarnation, 1002);
    assert_eq!(responder.features.unwrap().incarnation, 1001);
    assert_eq!(responder.features.unwrap().max_notification, 4096);
    assert!(initiator.local && responder.local);
    assert!(!initiator.same_process && !responder.same_process);
    assert!(initiator.notify.is_none() && responder.notify.is_none());
    assert_eq!(initiator.ip, LOOPBACK);
    initiator.channel.write_all_by(b"still open", soon()).unwrap();
    let mut bytes = [0; 10];
    responder.channel.read_exact_by(&mut bytes, soon()).unwrap();
    assert_eq!(&bytes, b"still open");
}

#[test]
fn the_smaller_offer_counts() {
    for (offer, their_offer) in [(1, 8), (8, 2)] {
        let mut lanes = FakeLanes::new(100);
        lanes.offer = offer;
        let mut their_lanes = FakeLanes::new(200);
        their_lanes.offer = their_offer;
        let ((initiator, lanes), (responder, their_lanes)) =
            shake((lanes, limits()), (their_lanes, limits()));
        let agreed = offer.min(their_offer);
        assert_eq!((initiator.unwrap().lanes, responder.unwrap().lanes), (agreed, agreed));
        assert_eq!((lanes.created, their_lanes.created), (agreed, agreed));
    }
}

#[test]
fn different_links_end_at_once_and_are_named() {
    for (link, their_link) in [(LINK_SOFTWARE, LINK_ETHERNET), (LINK_INFINIBAND, LINK_ETHERNET), (9, 9)] {
        let mut lanes = FakeLanes::new(100);
        lanes.link_layer = link;
        let mut their_lanes = FakeLanes::new(200);
        their_lanes.link_layer = their_link;
        let start = Instant::now();
        let ((initiator, lanes), (responder, _)) = shake((lanes, limits()), (their_lanes, limits()));
        assert!(start.elapsed() < Duration::from_secs(1));
        assert!(lanes.connected.is_empty());
        for error in [initiator.unwrap_err(), responder.unwrap_err()] {
            assert_eq!(error.step, Step::LaneRecords);
            assert!(error.to_string().contains("peer offers"), "{error}");
        }
    }
}

#[test]
fn one_process_is_recognised_only_when_the_caller_says_so() {
    let listener = listener();
    let target = listener.local();
    let accepting = thread::spawn(move || {
        let mut lanes = FakeLanes::new(200);
        let stream = listener.accept_by(Some(soon())).unwrap();
        respond(stream, &side(2, &Vec::new), &mut lanes, &limits()).unwrap()
    });
    let local = LocalSide { same_process: true, notify_port: 9, ..side(1, &Vec::new) };
    let peer = initiate(target, &local, &mut FakeLanes::new(100), &limits()).unwrap();
    let their_peer = accepting.join().unwrap();
    assert!(peer.same_process && their_peer.same_process);
    assert!(their_peer.notify.is_none(), "no socket within one process");
}

#[test]
fn notification_sockets_are_opened_both_ways() {
    let (receiver, their_receiver) = (listener(), listener());
    let (port, their_port) = (receiver.local().port(), their_receiver.local().port());
    let listener = listener();
    let target = listener.local();
    let accepting = thread::spawn(move || {
        let local = LocalSide { notify_port: their_port, ..side(2, &Vec::new) };
        let stream = listener.accept_by(Some(soon())).unwrap();
        respond(stream, &local, &mut FakeLanes::new(200), &limits()).unwrap()
    });
    let local = LocalSide { notify_port: port, ..side(1, &Vec::new) };
    let peer = initiate(target, &local, &mut FakeLanes::new(100), &limits()).unwrap();
    let their_peer = accepting.join().unwrap();
    for (receiver, sender) in [(their_receiver, peer), (receiver, their_peer)] {
        let accepted = receiver.accept_by(Some(soon())).unwrap();
        let mut preamble = [0; 12];
        accepted.read_exact_by(&mut preamble, soon()).unwrap();
        assert_eq!(preamble, [0x6c, 0x9d, 0x4b, 0xfc, 0xf2, 0xb9, 0x4a, 0x56, 2, 0, 0, 0]);
        assert_eq!(accepted.peer(), sender.notify.unwrap().local());
    }
}

/// Also on a host with several addresses, where the kernel would choose another one: a receiver does not displace
/// senders of the hosts that the handshake has recorded.
#[test]
fn a_notification_socket_comes_from_the_host_that_was_entered() {
    let receiver = listener();
    let port = receiver.local().port();
    let listener = listener();
    let target = listener.local();
    let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let accepting = thread::spawn(move || {
        let local = LocalSide { address, ..side(2, &Vec::new) };
        let stream = listener.accept_by(Some(soon())).unwrap();
        respond(stream, &local, &mut FakeLanes::new(200), &limits()).unwrap()
    });
    let limits = limits();
    let local = LocalSide { notify_port: port, ..side(1, &Vec::new) };
    let peer = initiate(target, &local, &mut FakeLanes::new(100), &limits).unwrap();
    let their_peer = accepting.join().unwrap();
    assert_eq!(receiver.accept_by(Some(soon())).unwrap().peer().ip(), address);
    assert!(their_peer.notify.is_some() && limits.connected_hosts.contains(address));
    drop(peer);
    assert!(!limits.connected_hosts.contains(address));
}

#[test]
fn a_missing_notification_receiver_is_no_failure() {
    let gone = listener().local().port();
    let listener = listener();
    let target = listener.local();
    let accepting = thread::spawn(move || {
        let local = LocalSide { notify_port: gone, ..side(2, &Vec::new) };
        let stream = listener.accept_by(Some(soon())).unwrap();
        respond(stream, &local, &mut FakeLanes::new(200), &limits()).unwrap()
    });
    let peer = initiate(target, &side(1, &Vec::new), &mut FakeLanes::new(100), &limits()).unwrap();
    accepting.join().unwrap();
    assert!(peer.notify.is_none());
}

#[test]
fn many_handshakes_at_once_never_mix_up_their_peers() {
    const PEERS: u32 = 24;
    let listener = Arc::new(listener());
    let target = listener.local();
    let acceptors: Vec<_> = (0..PEERS)
        .map(|index| {
            let listener = listener.clone();
            thread::spawn(move || {
                let stream = listener.accept_by(Some(soon())).unwrap();
                let mut lanes = FakeLanes::new(1000 * (index + 1));
                let peer = respond(stream, &side(index as i32, &Vec::new), &mut lanes, &limits()).unwrap();
                (peer.gpu_index, lanes)
            })
        })
        .collect();
    let initiators: Vec<_> = (0..PEERS)
        .map(|index| {
            thread::spawn(move || {
                let mut lanes = FakeLanes::new(100_000 + 1000 * index);
                let local = side(500 + index as i32, &Vec::new);
                let peer = initiate(target, &local, &mut lanes, &limits()).unwrap();
                (peer.gpu_index, lanes)
            })
        })
        .collect();
    let responders: Vec<_> = acceptors.into_iter().map(|thread| thread.join().unwrap()).collect();
    for (index, thread) in initiators.into_iter().enumerate() {
        let (peer, lanes) = thread.join().unwrap();
        let (their_peer, their_lanes) = &responders[peer as usize];
        assert_eq!(*their_peer, 500 + index as i32);
        assert_eq!(lanes.connected[0].qpn, their_lanes.first_qpn);
        assert_eq!(their_lanes.connected[0].qpn, lanes.first_qpn);
    }
}

#[test]
fn full_region_tables_are_exchanged_quickly() {
    let table = Arc::new(regions(crate::control::wire::MAX_REGIONS as u64 + 5));
    let listener = listener();
    let target = listener.local();
    let their_table = table.clone();
    let start = Instant::now();
    let accepting = thread::spawn(move || {
        let stream = listener.accept_by(Some(soon())).unwrap();
        let regions = || their_table.to_vec();
        respond(stream, &side(2, &regions), &mut FakeLanes::new(200), &limits()).unwrap()
    });
    let peer = initiate(target, &side(1, &|| table.to_vec()), &mut FakeLanes::new(100), &limits()).unwrap();
    let their_peer = accepting.join().unwrap();
    println!("two tables of 65,536 regions: {:?}", start.elapsed());
    assert_eq!(peer.regions, table[..65_536]);
    assert_eq!(their_peer.regions.len(), 65_536);
    // Optimised it takes some milliseconds; the other limit is for an unoptimised build on a busy machine.
    let limit = if cfg!(debug_assertions) { 2000 } else { 100 };
    assert!(start.elapsed() < Duration::from_millis(limit));
}

#[test]
fn a_side_bound_to_any_address_announces_the_one_it_was_reached_at() {
    let listener = listener();
    let target = listener.local();
    let accepting = thread::spawn(move || {
        let local = LocalSide { address: Ipv4Addr::UNSPECIFIED.into(), ..side(2, &Vec::new) };
        let stream = listener.accept_by(Some(soon())).unwrap();
        respond(stream, &local, &mut FakeLanes::new(200), &limits()).unwrap()
    });
    let peer = initiate(target, &side(1, &Vec::new), &mut FakeLanes::new(100), &limits()).unwrap();
    assert_eq!(peer.ip, LOOPBACK);
    assert!(accepting.join().unwrap().local);
}

#[test]
fn an_abort_ends_both_roles() {
    let abort = Abort::new().unwrap();
    let limits =
        Limits { abort: Some(abort.clone()), handshake_timeout: Duration::from_secs(60), ..limits() };
    let silent = listener();
    let target = silent.local();
    let initiating = {
        let limits = limits.clone();
        thread::spawn(move || {
            initiate(target, &side(1, &Vec::new), &mut FakeLanes::new(100), &limits).unwrap_err()
        })
    };
    let _unanswered = silent.accept_by(Some(soon())).unwrap();
    thread::sleep(Duration::from_millis(20));
    abort.abort();
    let error = initiating.join().unwrap();
    assert!(error.is_aborted(), "{error}");
}

/// An engine that knows no segments takes their flag for a bit of the id, and could not remove the region later.
#[test]
fn only_a_peer_that_knows_segments_is_told_which_entries_continue() {
    let changes = Features::CHANNEL | Features::REGIONS;
    let segments = 128;
    for (ours, theirs, continues) in [
        (changes | segments, changes | segments, true),
        (changes | segments, changes, false),
        (changes, changes | segments, false),
    ] {
        let of_bits = |bits, index| {
            let features = Features { bits, ..side(index, &Vec::new).features };
            LocalSide { features, ..side(index, &|| regions_of_ours(3)) }
        };
        let listener = listener();
        let target = listener.local();
        let accepting = thread::spawn(move || {
            let stream = listener.accept_by(Some(soon())).unwrap();
            respond(stream, &of_bits(theirs, 2), &mut FakeLanes::new(200), &limits()).unwrap()
        });
        let peer = initiate(target, &of_bits(ours, 1), &mut FakeLanes::new(100), &limits()).unwrap();
        let expected: Vec<_> =
            regions_of_ours(3).into_iter().map(|entry| RegionEntry { continues, ..entry }).collect();
        assert_eq!((peer.regions, accepting.join().unwrap().regions), (expected.clone(), expected));
    }
}
