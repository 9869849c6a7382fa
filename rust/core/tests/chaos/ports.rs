//! Ranges of ports for engines that are to have known ones.

use std::net::TcpListener;

use super::random::Random;

/// A range of 64 ports of which the first ones are free on loopback.
pub fn free_range(random: &mut Random) -> String {
    let first = free_ports(random, 4, &["127.0.0.1"]);
    format!("{first}-{}", first + 63)
}

/// The first of `count` ports that are free at each of `addresses`. Below those that the kernel chooses itself.
pub fn free_ports(random: &mut Random, count: u16, addresses: &[&str]) -> u16 {
    loop {
        let first = 20_000 + random.below(10_000) as u16;
        let is_free = |port| addresses.iter().all(|address| TcpListener::bind((*address, port)).is_ok());
        if (first..first + count).all(is_free) {
            return first;
        }
    }
}
