//! Clients that hold descriptors.

use crate::victim::{LENGTH, Victim};
use crate::wire::{self, Client, FakeDevice};

/// What the attacks of this program rest on: the wire that they speak is the engine's.
#[test]
fn a_client_without_a_key_speaks_the_whole_wire() {
    let mut victim = Victim::start(&[]);
    let device = FakeDevice::start();
    let client = Client::connect(victim.port, &device, 2, 1000).unwrap();
    assert_eq!(client.notify_port, victim.notify_port);
    let region = client.regions.iter().find(|region| region.base == victim.address).unwrap();
    assert_eq!(region.size, LENGTH as u64);
    use std::io::Write;
    let mut data = client.data(0).unwrap();
    data.write_all(&wire::request(wire::WRITE, region.rkey, region.base, 8, 0)).unwrap();
    data.write_all(&[7; 8]).unwrap();
    // The header of an answer: done.
    wire::read_array::<16>(&mut data).unwrap();
    assert_eq!(victim.byte(7), 7);
    let mut notifications = wire::notifications(victim.notify_port).unwrap();
    notifications.write_all(&wire::message(b"name", b"text")).unwrap();
    crate::support::eventually("the notification arrives", || victim.notifications() == 1);
}
