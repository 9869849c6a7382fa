//! Both ends in this process.

use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::Engine;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::observe::{EventKind, event_log};

use crate::alone;
use crate::nics::{PATIENT, up};
use crate::rail_pair::RailPair;
use crate::support::eventually;
use crate::support::own_time::OwnTime;

const OPCODES: [Opcode; 2] = [Opcode::Write, Opcode::Read];
const REDIAL: (&str, &str) = ("FLAGCX_P2P_CONTROL_REDIAL", "10000");

fn resumed(connection: &Connection) -> u64 {
    connection.channel_record().resumed()
}

#[test]
fn transfers_rails_and_regions_go_on() {
    let _alone = alone();
    let pair = RailPair::of_length(16 << 20, [2, 2], None, [&[REDIAL, PATIENT]; 2]);
    pair.make_rails(2);
    for turn in 0..8 {
        let before = [resumed(&pair.here), resumed(&pair.there)];
        let opcode = OPCODES[turn % 2];
        let bytes = pair.fill(opcode, turn as u64);
        let id = pair.submit_all(opcode);
        let breaker = if turn % 4 < 2 { &pair.here } else { &pair.there };
        breaker.break_channel();
        // A region of the follower that the leader has not been told of.
        let region = pair.server.allocate(4096).unwrap();
        pair.check_done(opcode, id, &bytes, Duration::ZERO);
        let found = || pair.here.describe_remote(region.address(), 4096).is_some();
        eventually("the new region is announced", found);
        eventually("both ends have it anew", || {
            [resumed(&pair.here), resumed(&pair.there)] == before.map(|before| before + 1)
        });
        assert_eq!(up(&pair.here).len(), 2, "{:#?}", pair.here.rails());
    }
    // Other tests have lost connections.
    let peers = [&pair.here, &pair.there].map(|end| Some(end.info().peer));
    let events = event_log().recent().into_iter().filter(|event| peers.contains(&event.peer));
    let kinds: Vec<_> = events.map(|event| event.kind).collect();
    let count = |kind| kinds.iter().filter(|found| **found == kind).count();
    assert!(count(EventKind::ChannelLost) >= 16 && count(EventKind::ChannelResumed) >= 16);
    assert_eq!(count(EventKind::ConnectionLost), 0);
}

#[test]
fn a_connection_without_it_at_one_end_ends_as_ever() {
    let _alone = alone();
    for settings in [[&[REDIAL][..], &[]], [&[], &[REDIAL][..]]] {
        let pair = RailPair::of_length(4 << 20, [1, 1], None, settings);
        pair.here.break_channel();
        let time = OwnTime::start();
        eventually("both ends have ended", || !pair.here.is_usable() && !pair.there.is_usable());
        assert!(!time.exceeds(Duration::from_secs(2)), "{:?}", time.elapsed());
        assert_eq!([resumed(&pair.here), resumed(&pair.there)], [0, 0]);
    }
}

/// Each end sends numbered notifications of all sizes while sockets of both kinds fail.
#[test]
fn notifications_arrive_once_and_in_order() {
    let _alone = alone();
    let settings: &[(&str, &str)] = &[REDIAL, ("FLAGCX_P2P_NOTIF_MAX_BYTES", "100000")];
    let pair = RailPair::of_length(1 << 20, [1, 1], None, [settings, settings]);
    eventually("the leader knows where to dial", || pair.here.channel_record().is_resumable());
    const COUNT: usize = 3000;
    let received = &|engine: &Engine, deadline: Instant| {
        let mut numbers = Vec::new();
        while numbers.len() < COUNT && Instant::now() < deadline {
            for notification in engine.take_all_notifications() {
                numbers.push(u64::from_le_bytes(notification.content()[..8].try_into().unwrap()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        numbers
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    let (client, server, here, there): (&Engine, &Engine, &Connection, &Connection) =
        (&pair.client, &pair.server, &pair.here, &pair.there);
    std::thread::scope(|scope| {
        let send = &|connection: &Connection| {
            for number in 0..COUNT {
                let content =
                    [&(number as u64).to_le_bytes()[..], &vec![7; number % 97 * number % 3001]].concat();
                connection.send_notification_bytes(b"number", &content).unwrap();
                if number % 16 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        };
        scope.spawn(move || send(here));
        scope.spawn(move || send(there));
        let at_server = scope.spawn(move || received(server, deadline));
        let at_client = scope.spawn(move || received(client, deadline));
        // On a busy machine more of them meet a channel that is away already.
        for turn in (0..).take_while(|turn| *turn < 40 || resumed(here) <= 5 && Instant::now() < deadline) {
            std::thread::sleep(Duration::from_millis(7));
            match turn % 4 {
                0 => pair.here.break_channel(),
                1 => pair.there.break_channel(),
                2 => pair.here.break_notifications(),
                _ => pair.there.break_notifications(),
            }
        }
        let expected: Vec<u64> = (0..COUNT as u64).collect();
        assert!(at_server.join().unwrap() == expected);
        assert!(at_client.join().unwrap() == expected);
    });
    assert!(resumed(&pair.here) > 5 && pair.here.is_usable() && pair.there.is_usable());
}

/// A sender that has sent them and closes at once, to an application that takes them late: all of them arrive.
#[test]
fn notifications_sent_before_the_end_arrive() {
    let _alone = alone();
    let pair = RailPair::of_length(1 << 20, [1, 1], None, [&[REDIAL], &[REDIAL]]);
    const COUNT: u64 = 1000;
    for number in 0..COUNT {
        pair.here
            .send_notification_bytes(b"number", &[&number.to_le_bytes()[..], &[7; 400]].concat())
            .unwrap();
    }
    pair.here.close();
    let mut numbers = Vec::new();
    eventually("all of them have arrived", || {
        let taken = pair.server.take_all_notifications();
        numbers.extend(taken.iter().map(|one| u64::from_le_bytes(one.content()[..8].try_into().unwrap())));
        numbers.len() as u64 >= COUNT
    });
    assert!(numbers == (0..COUNT).collect::<Vec<_>>());
}
