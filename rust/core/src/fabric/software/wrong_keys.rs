//! What keys that name no memory cost the peer that sends them: the first are free, for a request may race with the end of
//! a registration; after those it has to wait, so that guessing takes as long as 32 bits can make it.
//!
//! A peer is an address here, whatever number of connections it makes and whatever it says that it is.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::admission::network_of;
use crate::sync::{Mutex, lock};

/// Wrong keys that cost nothing.
const FREE: u32 = 16;
/// How long it takes until one of them is given back.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// What each further one costs, one after the other.
const COST: Duration = Duration::from_secs(1);
/// Requests of one peer that may wait for their turn; more are refused without a look.
const MOST_WAITING: u32 = 16;
/// Peers remembered one by one; more of them share one record.
const MOST_PEERS: usize = 4096;

/// The peers of a device that have named memory which is not there.
#[derive(Debug)]
pub(super) struct WrongKeys {
    peers: Mutex<HashMap<IpAddr, Arc<PeerRecord>>>,
    others: Arc<PeerRecord>,
}

/// The record of one peer, shared by its connections.
#[derive(Debug)]
pub(super) struct PeerRecord {
    /// What stands for it; unspecified for the one of many.
    address: IpAddr,
    /// Whether it has no free one left, as far as is known. Written under the lock of `record`, read by the threads that
    /// serve it; Relaxed, for it only tells them to look at `record`.
    limited: AtomicBool,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    /// Wrong keys that are not forgiven, [`FREE`] at most.
    wrong: u32,
    /// Up to when they are counted: what was to be forgiven until then is.
    counted: Option<Instant>,
    /// When the last request that waits has its turn.
    last_turn: Option<Instant>,
    told: bool,
}

impl Default for WrongKeys {
    fn default() -> Self {
        Self { peers: Mutex::default(), others: PeerRecord::new(Ipv6Addr::UNSPECIFIED.into()) }
    }
}

impl WrongKeys {
    /// The record of the peer at `address`.
    pub(super) fn of(&self, address: IpAddr, now: Instant) -> Arc<PeerRecord> {
        let address = network_of(address);
        let mut peers = lock(&self.peers);
        if let Some(known) = peers.get(&address) {
            return Arc::clone(known);
        }
        if peers.len() >= MOST_PEERS {
            peers.retain(|_, peer| Arc::strong_count(peer) > 1 || lock(&peer.record).wrong_at(now) > 0);
        }
        if peers.len() >= MOST_PEERS {
            return Arc::clone(&self.others);
        }
        Arc::clone(peers.entry(address).or_insert_with(|| PeerRecord::new(address)))
    }
}

impl PeerRecord {
    fn new(address: IpAddr) -> Arc<Self> {
        Arc::new(Self { address, limited: AtomicBool::new(false), record: Mutex::default() })
    }

    /// Its address, or the network that it is in.
    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether a key that it may have guessed must wait for its [`PeerRecord::turn`].
    pub(super) fn is_limited(&self) -> bool {
        self.limited.load(Ordering::Relaxed)
    }

    /// It has named a key that no region has. True once, when it is the last one that is free.
    pub(super) fn note_wrong_key(&self, now: Instant) -> bool {
        let mut record = lock(&self.record);
        record.wrong = (record.wrong_at(now) + 1).min(FREE);
        self.limited.store(record.wrong == FREE, Ordering::Relaxed);
        record.wrong == FREE && !std::mem::replace(&mut record.told, true)
    }

    /// When a key of it may be looked at: now, or in its turn. `None`: too many wait for theirs.
    pub(super) fn turn(&self, now: Instant) -> Option<Instant> {
        let mut record = lock(&self.record);
        if record.wrong_at(now) < FREE {
            self.limited.store(false, Ordering::Relaxed);
            return Some(now);
        }
        let turn = record.last_turn.map_or(now, |last| last.max(now)) + COST;
        if turn > now + COST * MOST_WAITING {
            return None;
        }
        record.last_turn = Some(turn);
        Some(turn)
    }
}

impl Record {
    /// Wrong keys that are not forgiven by `now`, which it keeps.
    fn wrong_at(&mut self, now: Instant) -> u32 {
        let counted = *self.counted.get_or_insert(now);
        let forgiven = now.saturating_duration_since(counted).as_secs() / FORGIVEN_AFTER.as_secs();
        let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
        self.wrong = self.wrong.saturating_sub(forgiven);
        self.counted =
            Some(if self.wrong == 0 { now } else { counted + FORGIVEN_AFTER.saturating_mul(forgiven) });
        self.wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn sixteen_are_free_and_each_further_one_waits_a_second_after_the_other() {
        let (wrong_keys, now) = (WrongKeys::default(), Instant::now());
        let peer = wrong_keys.of(address(1), now);
        let told: Vec<_> = (0..20)
            .map(|_| {
                assert_eq!(peer.turn(now) == Some(now), !peer.is_limited());
                peer.note_wrong_key(now)
            })
            .collect();
        assert_eq!(told.iter().position(|told| *told), Some(15), "said with the last one that is free");
        assert_eq!(told.iter().filter(|told| **told).count(), 1, "once");
        // Four were asked for above, and it made none of them wait: time stands still here.
        let turns: Vec<_> =
            std::iter::from_fn(|| peer.turn(now)).map(|turn| (turn - now).as_secs()).collect();
        assert_eq!(turns, (5..=16).collect::<Vec<_>>(), "then too many wait");
        assert_eq!(peer.turn(now + Duration::from_secs(16)), Some(now + Duration::from_secs(17)));
        assert!(wrong_keys.of(address(1), now).is_limited(), "the next connection has the same record");
        assert!(!wrong_keys.of(address(2), now).is_limited(), "another peer has another one");
    }

    #[test]
    fn one_is_given_back_each_minute() {
        let (wrong_keys, now) = (WrongKeys::default(), Instant::now());
        let peer = wrong_keys.of(address(1), now);
        for _ in 0..16 {
            peer.note_wrong_key(now);
        }
        let later = now + FORGIVEN_AFTER;
        assert_ne!(peer.turn(later - Duration::from_millis(1)).unwrap(), later - Duration::from_millis(1));
        assert_eq!(peer.turn(later), Some(later));
        assert!(!peer.is_limited());
        peer.note_wrong_key(later);
        assert!(peer.is_limited());
    }

    #[test]
    fn the_records_are_bounded_and_those_of_guessers_stay() {
        let (wrong_keys, now) = (WrongKeys::default(), Instant::now());
        wrong_keys.of(address(0), now).note_wrong_key(now);
        (1..3 * MOST_PEERS as u32).for_each(|number| drop(wrong_keys.of(address(number), now)));
        assert!(lock(&wrong_keys.peers).len() <= MOST_PEERS);
        assert_eq!(lock(&wrong_keys.of(address(0), now).record).wrong, 1);
        let held: Vec<_> =
            (0..2 * MOST_PEERS as u32).map(|number| wrong_keys.of(address(number), now)).collect();
        assert!(lock(&wrong_keys.peers).len() <= MOST_PEERS);
        assert!(Arc::ptr_eq(held.last().unwrap(), &wrong_keys.others));
    }

    #[test]
    fn a_host_is_one_peer_whatever_address_of_its_network_it_takes() {
        let (wrong_keys, now) = (WrongKeys::default(), Instant::now());
        let of = |text: &str| wrong_keys.of(text.parse().unwrap(), now);
        assert!(Arc::ptr_eq(&of("2001:db8::1"), &of("2001:db8::2:3:4")));
        assert!(!Arc::ptr_eq(&of("2001:db8::1"), &of("2001:db8:0:1::1")));
        assert!(Arc::ptr_eq(&of("::ffff:10.0.0.1"), &of("10.0.0.1")));
        assert!(!Arc::ptr_eq(&of("10.0.0.1"), &of("10.0.0.2")));
    }

    proptest! {
        /// However it spreads its guesses over time, connections and moments.
        #[test]
        fn no_peer_learns_more_than_its_free_keys_and_one_each_second(gaps in prop::collection::vec(0..3000_u64, 1..200)) {
            let (wrong_keys, start) = (WrongKeys::default(), Instant::now());
            let (mut now, mut looked_at) = (start, Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                let peer = wrong_keys.of(address(1), now);
                if let Some(turn) = peer.turn(now) {
                    looked_at.push(turn);
                    peer.note_wrong_key(turn);
                }
            }
            let spent = |until: Instant| (until - start).as_secs();
            for (place, turn) in looked_at.iter().enumerate() {
                let allowed = u64::from(FREE) + spent(*turn) + spent(*turn) / 60 + 1;
                prop_assert!(place as u64 <= allowed, "{} keys after {} s", place + 1, spent(*turn));
            }
        }
    }
}
