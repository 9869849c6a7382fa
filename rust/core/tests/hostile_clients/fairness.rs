//! A peer that floods its data socket, beside one that asks for 8 bytes at a time.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::victim::Victim;
use crate::wire::{self, Client, FakeDevice};

/// Generous for a busy machine: a turn of every flooding peer takes well under a millisecond.
const BOUND: Duration = Duration::from_millis(50);

/// A WRITE without access is refused, and its payload thrown away for a while so that the peer can read the reason. It must
/// not cost others their turn.
#[test]
fn a_peer_with_a_refused_write_delays_no_other() {
    let victim = Victim::start(&[]);
    let device = FakeDevice::start();
    let peer = Client::connect(victim.port, &device, 1, 1000).unwrap();
    let region = peer.regions.iter().find(|region| region.base == victim.address).unwrap();
    let mut data = peer.data(0).unwrap();
    let (over, flooded) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        for index in 0..2 {
            let (victim, device, over, flooded) = (&victim, &device, &over, &flooded);
            scope.spawn(move || {
                let client = Client::connect(victim.port, device, 1, 2000 + index).unwrap();
                let mut socket = client.data(0).unwrap();
                let refused = wire::request(wire::WRITE, 0x7777_7777, victim.address, 1 << 30, 0);
                socket.write_all(&refused).unwrap();
                let piece = vec![0; 1 << 20];
                // The victim closes the socket when the time for it is over.
                while !over.load(Ordering::Relaxed) && socket.write_all(&piece).is_ok() {
                    flooded.fetch_add(piece.len() as u64, Ordering::Relaxed);
                }
            });
        }
        while flooded.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(1) {
            let asked = Instant::now();
            let request = wire::request(wire::READ, region.rkey, region.base, 8, times.len() as u64);
            data.write_all(&request).unwrap();
            // A header, 8 bytes, and the header that ends it.
            wire::read_array::<40>(&mut data).unwrap();
            times.push(asked.elapsed());
        }
        over.store(true, Ordering::Relaxed);
    });
    times.sort_unstable();
    let late = times[times.len() * 99 / 100];
    println!(
        "{} MB thrown away beside {} reads: 99th percentile {late:?}, longest {:?}",
        flooded.load(Ordering::Relaxed) >> 20,
        times.len(),
        times.last()
    );
    assert!(late < BOUND, "{late:?}");
}
