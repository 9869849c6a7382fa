//! Descriptors held by unauthenticated clients, by source: pure, with time as an argument.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Instant;

use super::{GRACE, GRACE_OF_HANDSHAKES, Source};
use crate::events::Wakeup;

/// The clients, oldest first: at most [`super::MOST`], so a linear search is enough.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    clients: BTreeMap<u64, Client>,
    next: u64,
    /// Set when a source holds more than its half and all of its clients are within their grace period: no client is
    /// accepted before this time.
    blocked_until: Option<Instant>,
}

#[derive(Debug)]
struct Client {
    /// `None` until its socket is accepted.
    holder: Option<(Source, RawFd)>,
    descriptors: usize,
    /// It has sent a valid first message.
    has_begun: bool,
    since: Instant,
    /// Its socket has been shut down.
    is_displaced: bool,
    /// Woken when the client is displaced.
    displaced: Arc<Wakeup>,
}

impl Ledger {
    /// Reserves a number for the next client. When the limit is reached: the socket of the client to displace, if
    /// there is one.
    pub(super) fn reserve(&mut self, limit: usize, now: Instant) -> Result<u64, Option<RawFd>> {
        if self.is_full(limit, now) {
            return Err(self.source_to_displace(now).and_then(|source| self.displace(source, now)));
        }
        self.blocked_until = None;
        let number = self.next;
        self.next += 1;
        let client = Client {
            holder: None,
            descriptors: 1,
            has_begun: false,
            since: now,
            is_displaced: false,
            displaced: Arc::default(),
        };
        self.clients.insert(number, client);
        Ok(number)
    }

    /// Whether the next client has to wait.
    pub(super) fn is_full(&self, limit: usize, now: Instant) -> bool {
        self.blocked_until.is_some_and(|until| now < until) || self.used() >= limit
    }

    /// Sets the source of a client. When that source now holds more than `share`: the socket of its client to displace.
    pub(super) fn describe(
        &mut self,
        number: u64,
        source: Source,
        socket: RawFd,
        share: usize,
        now: Instant,
    ) -> Option<RawFd> {
        self.clients.get_mut(&number)?.holder = Some((source, socket));
        if self.used_by(source) <= share {
            return None;
        }
        let victim = self.displace(source, now);
        if victim.is_none() {
            self.blocked_until =
                self.of(source).filter(|client| !client.is_displaced).map(Client::safe_until).min();
        }
        victim
    }

    /// Notes that a client has sent a valid first message and holds `descriptors` now.
    pub(super) fn begin(&mut self, number: u64, descriptors: usize) {
        if let Some(client) = self.clients.get_mut(&number) {
            client.descriptors = descriptors;
            client.has_begun = true;
        }
    }

    /// What is woken when the client is displaced; `None` once it has been released.
    pub(super) fn displaced(&self, number: u64) -> Option<Arc<Wakeup>> {
        self.clients.get(&number).map(|client| Arc::clone(&client.displaced))
    }

    /// The wakeup of a displaced client, by its socket.
    pub(super) fn displaced_from(&self, socket: RawFd) -> Option<Arc<Wakeup>> {
        let client = self
            .clients
            .values()
            .find(|client| client.is_displaced && client.holder.is_some_and(|(_, other)| other == socket));
        client.map(|client| Arc::clone(&client.displaced))
    }

    pub(super) fn release(&mut self, number: u64) {
        self.clients.remove(&number);
        // A listener that waits for a grace period to end may accept again.
        self.blocked_until = None;
    }

    pub(super) fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Descriptors held.
    fn used(&self) -> usize {
        self.clients.values().map(|client| client.descriptors).sum()
    }

    /// The source that loses a client: of the sources with a client past its grace period, the one that holds the
    /// most descriptors; among equals, the one with the oldest client. With any other choice among equals each new
    /// client would be displaced by the next, and older ones never.
    fn source_to_displace(&self, now: Instant) -> Option<Source> {
        let mut used: BTreeMap<Source, usize> = BTreeMap::new();
        for client in self.clients.values() {
            let Some((source, _)) = client.holder else { continue };
            *used.entry(source).or_default() += client.descriptors;
        }
        let late = self.clients.values().filter(|client| !client.is_displaced && now >= client.safe_until());
        let late = late.filter_map(|client| Some((client.holder?.0, client.since)));
        let source_to_displace = late.max_by_key(|(source, since)| (used.get(source), Reverse(*since)));
        source_to_displace.map(|(source, _)| source)
    }

    /// The source with the most clients, and how many those are.
    pub(super) fn largest(&self) -> Option<(Source, usize)> {
        let mut counts: Vec<(Source, usize)> = Vec::new();
        for (source, _) in self.clients.values().filter_map(|client| client.holder) {
            match counts.iter_mut().find(|(other, _)| *other == source) {
                Some((_, count)) => *count += 1,
                None => counts.push((source, 1)),
            }
        }
        counts.into_iter().max_by_key(|(_, count)| *count)
    }

    /// The clients of a source.
    fn of(&self, source: Source) -> impl Iterator<Item = &Client> {
        self.clients.values().filter(move |client| client.holder.is_some_and(|(other, _)| other == source))
    }

    /// Displaced clients count until they are released: their descriptors are still open.
    fn used_by(&self, source: Source) -> usize {
        self.of(source).map(|client| client.descriptors).sum()
    }

    /// Displaces a client of a source that is past its grace period: the oldest that has sent nothing, else the oldest.
    fn displace(&mut self, source: Source, now: Instant) -> Option<RawFd> {
        let late = self.clients.values_mut().filter(|client| {
            let is_of_source = client.holder.is_some_and(|(other, _)| other == source);
            is_of_source && !client.is_displaced && now >= client.safe_until()
        });
        let victim = late.min_by_key(|client| (client.has_begun, client.since))?;
        victim.is_displaced = true;
        victim.holder.map(|(_, socket)| socket)
    }
}

impl Client {
    fn safe_until(&self) -> Instant {
        self.since + if self.has_begun { GRACE_OF_HANDSHAKES } else { GRACE }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use super::*;

    const LIMIT: usize = 8;

    fn host(number: u8) -> Source {
        Source::of(IpAddr::V4(Ipv4Addr::new(10, 0, 0, number)))
    }

    fn enter(ledger: &mut Ledger, source: Source, socket: RawFd, now: Instant) -> (u64, Option<RawFd>) {
        let number = ledger.reserve(LIMIT, now).unwrap();
        (number, ledger.describe(number, source, socket, LIMIT / 2, now))
    }

    #[test]
    fn one_source_has_half_of_the_places() {
        let (mut ledger, begin) = (Ledger::default(), Instant::now());
        for socket in 0..4 {
            assert_eq!(enter(&mut ledger, host(1), socket, begin).1, None);
        }
        assert!(!ledger.is_full(LIMIT, begin));
        // One more waits here, and later ones in the backlog, until the grace period of the oldest ends.
        assert_eq!(enter(&mut ledger, host(1), 4, begin).1, None);
        assert_eq!(ledger.reserve(LIMIT, begin + GRACE / 2), Err(None));
        // Then each new client displaces the oldest.
        let late = begin + GRACE;
        assert_eq!(enter(&mut ledger, host(1), 5, late).1, Some(0));
        assert_eq!(enter(&mut ledger, host(2), 6, late).1, None, "another source displaces no client");
    }

    #[test]
    fn a_peer_that_ends_its_handshake_makes_room_at_once() {
        let (mut ledger, begin) = (Ledger::default(), Instant::now());
        let entered: Vec<_> = (0..5).map(|socket| enter(&mut ledger, host(1), socket, begin).0).collect();
        assert_eq!(ledger.reserve(LIMIT, begin), Err(None));
        ledger.release(entered[2]);
        assert_eq!(enter(&mut ledger, host(1), 9, begin).1, None);
    }

    #[test]
    fn when_all_places_are_taken_the_largest_source_makes_room() {
        let (mut ledger, begin) = (Ledger::default(), Instant::now());
        enter(&mut ledger, host(2), 20, begin);
        for socket in 0..4 {
            enter(&mut ledger, host(1), socket, begin);
        }
        for socket in 30..33 {
            enter(&mut ledger, Source::Unix, socket, begin);
        }
        assert_eq!(ledger.reserve(LIMIT, begin), Err(None));
        assert_eq!(ledger.reserve(LIMIT, begin + GRACE), Err(Some(0)));
        assert_eq!(
            ledger.reserve(LIMIT, begin + GRACE),
            Err(Some(1)),
            "the descriptors are free once their owner releases the client"
        );
        ledger.release(1);
        assert!(ledger.reserve(LIMIT, begin + GRACE).is_ok());
    }

    #[test]
    fn those_that_leave_count_for_their_source_until_they_are_gone() {
        let (mut ledger, begin) = (Ledger::default(), Instant::now());
        let (first, _) = enter(&mut ledger, host(1), 0, begin);
        ledger.begin(first, LIMIT / 2);
        let late = begin + GRACE_OF_HANDSHAKES;
        assert_eq!(enter(&mut ledger, host(1), 1, late).1, Some(0));
        // It has not closed yet: its descriptors are not available to another client of that source.
        assert_eq!(enter(&mut ledger, host(1), 2, late).1, None);
        assert!(ledger.is_full(LIMIT, late));
        ledger.release(first);
        assert!(!ledger.is_full(LIMIT, late));
        assert!(ledger.displaced(first).is_none());
    }

    #[test]
    fn of_many_sources_with_a_client_each_the_one_that_came_first_makes_room() {
        let (mut ledger, begin) = (Ledger::default(), Instant::now());
        let millisecond = Duration::from_millis(1);
        let enter_next =
            |ledger: &mut Ledger, number: u8, now| enter(ledger, host(number), number.into(), now).0;
        let first: Vec<_> = (0..8)
            .map(|number| enter_next(&mut ledger, number, begin + millisecond * number.into()))
            .collect();
        // A peer has begun its handshake, holds more descriptors, and has the longer grace period.
        ledger.release(first[7]);
        let late = begin + GRACE + millisecond * 10;
        let peer = enter_next(&mut ledger, 100, late);
        ledger.begin(peer, 3);
        assert_eq!(ledger.reserve(LIMIT, late), Err(Some(0)));
        ledger.release(first[0]);
        // The same when the peer itself is past its grace period.
        ledger.begin(peer, 1);
        let later = late + GRACE_OF_HANDSHAKES;
        enter_next(&mut ledger, 101, later);
        assert_eq!(ledger.reserve(LIMIT, later), Err(Some(1)));
    }

    #[test]
    fn descriptors_count_not_clients() {
        let (mut ledger, begin) = (Ledger::default(), Instant::now());
        let (number, _) = enter(&mut ledger, host(1), 1, begin);
        ledger.begin(number, LIMIT);
        assert!(ledger.is_full(LIMIT, begin + Duration::from_secs(9)));
        ledger.begin(number, 2);
        assert!(!ledger.is_full(LIMIT, begin));
    }
}
