//! Peers that tell of queue pairs which are not theirs.

use crate::tables;
use crate::victim::Victim;
use crate::wire::{Client, FakeDevice};

/// What a notice tells: the sender's queue pair is gone, or has found that it had no access.
const GONE: u64 = 1;
const VIOLATION: u64 = 2;

/// The number of the only queue pair of each peer: each process counts by itself.
const NUMBER: u32 = 1000;

#[test]
fn a_peer_ends_the_queue_pairs_that_are_connected_to_it_and_no_others() {
    let victim = Victim::start(&[]);
    let devices = [FakeDevice::start(), FakeDevice::start()];
    let clients = devices.each_ref().map(|device| Client::connect(victim.port, device, 1, NUMBER).unwrap());
    let [(_first, link), (_second, other)] = clients.each_ref().map(|client| {
        let (socket, welcome) = client.hello(0, None).unwrap();
        (socket, tables::open(&welcome.name, welcome.token).unwrap())
    });
    let (target, known) = (clients[0].lanes[0].1.qpn, clients[0].regions[0].rkey);
    // The answer to a question shows that the notices before it were taken.
    other.tell(VIOLATION, NUMBER, target);
    other.tell(GONE, NUMBER, target);
    assert!(other.ask(known).is_some());
    let (_third, answer) = clients[0].hello(0, None).unwrap();
    assert_eq!(answer.reception, 0, "it was ended by another peer");
    link.tell(VIOLATION, NUMBER, target);
    assert!(link.ask(known).is_some());
    let (_fourth, answer) = clients[0].hello(0, None).unwrap();
    assert_ne!(answer.reception, 0, "its own peer has ended it");
}
