//! Requests of a connection that was reset while the victim was stopped: Linux keeps what came before the reset readable.

use std::io::Write;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use socket2::SockRef;

use crate::support;
use crate::victim::Victim;
use crate::wire::{self, Client, FakeDevice, PATIENCE};

const LENGTH: usize = 64;
const HEADER: usize = 32;

/// Its initiator has given the requests up, and perhaps sent others by a new connection.
#[test]
fn requests_of_a_connection_that_was_reset_are_not_carried_out() {
    // All of the request comes while the victim is stopped, or its second half.
    for before in [0, HEADER + LENGTH / 2] {
        let mut victim = Victim::start(&[]);
        let device = FakeDevice::start();
        let peer = Client::connect(victim.port, &device, 1, 1000).unwrap();
        let region = peer.regions.iter().find(|region| region.base == victim.address).unwrap();
        let mut data = peer.data(0).unwrap();
        let write = |sequence, byte| {
            let request = wire::request(wire::WRITE, region.rkey, region.base, LENGTH as u64, sequence);
            [request, vec![byte; LENGTH]].concat()
        };
        data.write_all(&write(0, 1)).unwrap();
        wire::read_array::<16>(&mut data).unwrap();
        let second = write(1, 2);
        data.write_all(&second[..before]).unwrap();
        let begun = Instant::now();
        while before > 0 && victim.byte(LENGTH / 2 - 1) != 2 {
            assert!(begun.elapsed() < PATIENCE, "the first half does not arrive");
        }
        // Stopped between its look for a reset and the reading of what came, it would read what comes next.
        support::eventually("the victim waits", || victim.is_asleep());
        let process = Pid::from_raw(victim.pid() as i32).unwrap();
        kill_process(process, Signal::STOP).unwrap();
        // Once all its threads are.
        waitpid(Some(process), WaitOptions::UNTRACED).unwrap();
        data.write_all(&second[before..]).unwrap();
        SockRef::from(&data).set_linger(Some(Duration::ZERO)).unwrap();
        drop(data);
        kill_process(process, Signal::CONT).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(victim.byte(LENGTH - 1), 1, "{before} bytes were there before");
    }
}
