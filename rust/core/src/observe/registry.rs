//! The list of everything that counts.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::fork::PerProcess;

use super::ended_connections::EndedConnections;
use super::peer_names::PeerNames;
use super::{
    ConnectionRails, ConnectionReport, SlowTransfer, Snapshot, TransferSource, TransferTotals, process_counts,
};

/// An object with counters.
pub trait Source: Send + Sync {
    /// Adds its values to `out`. Called from the reader's thread; must not block on work in progress.
    fn collect(&self, out: &mut Snapshot);

    /// Adds its transfers that have been unfinished for at least `older_than`. As [`Source::collect`] otherwise.
    fn slow_transfers(&self, older_than: Duration, out: &mut Vec<SlowTransfer>) {
        let _ = (older_than, out);
    }

    /// Its rails, if it is a connection. As [`Source::collect`] otherwise.
    fn rails(&self) -> Option<ConnectionRails> {
        None
    }
}

/// The sources of a process. It holds them weakly, so a source needs no call at its end.
#[derive(Default)]
pub struct MetricRegistry {
    sources: Mutex<Vec<Weak<dyn Source>>>,
    /// Held while a snapshot is made, so that a connection which ends is counted in it once.
    ended: Mutex<EndedConnections>,
    peer_names: Mutex<PeerNames>,
}

/// The process's registry.
pub fn registry() -> &'static MetricRegistry {
    static REGISTRY: PerProcess<MetricRegistry> = PerProcess::new(MetricRegistry::default);
    REGISTRY.get()
}

impl MetricRegistry {
    /// Adds `source`, for as long as it lives.
    pub fn add<S: Source + 'static>(&self, source: &Arc<S>) {
        let weak: Weak<dyn Source> = Arc::<S>::downgrade(source);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        // Ended sources are removed when the list would have to grow, so that adding stays cheap.
        if sources.len() == sources.capacity() {
            sources.retain(|source| source.strong_count() > 0);
        }
        sources.push(weak);
    }

    /// The values of every live source now, with those of the process. Connections that end meanwhile wait for it.
    pub fn snapshot(&self) -> Snapshot {
        // Dropped last: a connection of which this is the last reference ends then, and waits for the lock.
        let sources = self.live();
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let mut snapshot = Snapshot::default();
        for source in &sources {
            source.collect(&mut snapshot);
        }
        ended.add_late();
        let mut unplaced = TransferTotals::default();
        process_counts().unplaced().add_to(&mut unplaced);
        process_counts().collect(&mut snapshot);
        snapshot.finish(&ended, &unplaced);
        drop(ended);
        snapshot
    }

    /// The name under which a peer is counted, for as long as the answer and its copies live.
    pub fn peer_name(&self, peer: &str) -> Arc<str> {
        self.peer_names.lock().unwrap_or_else(PoisonError::into_inner).acquire(peer)
    }

    /// A connection has ended: what `report` answers is part of the sums from now on. `report` is called while no snapshot is
    /// made, and after it the connection must not report to one. Its transfers are those of `counts`; what is counted there later
    /// becomes part of the sums too.
    pub fn end_connection(
        &self,
        peer: &Arc<str>,
        counts: Vec<Arc<dyn TransferSource>>,
        report: impl FnOnce() -> ConnectionReport,
    ) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.add(peer, counts, report());
    }

    /// The transfers of the process that have been unfinished for at least `older_than`, the oldest first.
    pub fn slow_transfers(&self, older_than: Duration) -> Vec<SlowTransfer> {
        let mut slow = Vec::new();
        for source in self.live() {
            source.slow_transfers(older_than, &mut slow);
        }
        slow.sort_by_key(|transfer| std::cmp::Reverse(transfer.age));
        slow
    }

    /// The rails of the connections of the process: those of which the control channel is away first, then those with most rails.
    pub fn rails(&self) -> Vec<ConnectionRails> {
        let mut connections: Vec<_> = self.live().iter().filter_map(|source| source.rails()).collect();
        connections.sort_by_key(|connection| {
            std::cmp::Reverse((connection.channel.away.is_some(), connection.rails.len()))
        });
        connections
    }

    fn live(&self) -> Vec<Arc<dyn Source>> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.iter().filter_map(Weak::upgrade).collect()
    }
}

impl std::fmt::Debug for MetricRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_struct("MetricRegistry").field("sources", &sources).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Amount, Direction, MOST_PEERS, Metric, OTHER_PEERS, PathNames, Sample, SharedCounts, Value, metrics,
    };
    use super::*;

    struct Lanes(u64);

    impl Source for Lanes {
        fn collect(&self, out: &mut Snapshot) {
            out.number(&metrics::PEER_LANES, &[("peer", self.0.to_string())], self.0);
        }
    }

    fn values(registry: &MetricRegistry) -> Vec<Value> {
        registry.snapshot().of(&metrics::PEER_LANES).map(|sample| sample.value.clone()).collect()
    }

    #[test]
    fn only_live_sources_are_collected() {
        let registry = MetricRegistry::default();
        let (one, two) = (Arc::new(Lanes(1)), Arc::new(Lanes(2)));
        registry.add(&one);
        registry.add(&two);
        assert_eq!(values(&registry), [Value::Number(1), Value::Number(2)]);
        drop(one);
        assert_eq!(values(&registry), [Value::Number(2)]);
    }

    #[test]
    fn every_series_is_there_once() {
        let registry = MetricRegistry::default();
        let lanes = [Arc::new(Lanes(2)), Arc::new(Lanes(3)), Arc::new(Lanes(2))];
        lanes.iter().for_each(|lanes| registry.add(lanes));
        assert_eq!(values(&registry), [Value::Number(4), Value::Number(3)]);
    }

    /// A connection with so many transfers done.
    struct Peer {
        name: Arc<str>,
        done: u64,
        ended: std::sync::atomic::AtomicBool,
    }

    impl Peer {
        fn new(registry: &MetricRegistry, name: &str, done: u64) -> Arc<Self> {
            let peer = Arc::new(Self { name: registry.peer_name(name), done, ended: false.into() });
            registry.add(&peer);
            peer
        }

        fn report(&self) -> ConnectionReport {
            let mut report = ConnectionReport::default();
            let totals = report.transfers.of(Direction::Read, "tcp");
            totals.started = Amount { transfers: self.done + 1, bytes: 0 };
            totals.ended[0] = Amount { transfers: self.done, bytes: 0 };
            report
        }

        fn end(&self, registry: &MetricRegistry) {
            registry.end_connection(&self.name, Vec::new(), || {
                self.ended.store(true, std::sync::atomic::Ordering::Relaxed);
                self.report()
            });
        }
    }

    impl Source for Peer {
        fn collect(&self, out: &mut Snapshot) {
            if !self.ended.load(std::sync::atomic::Ordering::Relaxed) {
                out.connection(&self.name, &self.report());
            }
        }
    }

    fn number(registry: &MetricRegistry, metric: &'static Metric, label: Option<&str>) -> Option<u64> {
        let snapshot = registry.snapshot();
        let numbers = snapshot
            .of(metric)
            .filter(|sample| label.is_none_or(|label| sample.labels.iter().any(|(_, value)| value == label)));
        let value = |sample: &Sample| match sample.value {
            Value::Number(number) => number,
            _ => 0,
        };
        numbers.map(value).reduce(|sum, more| sum + more)
    }

    #[test]
    fn sums_stay_when_connections_end_and_the_series_of_their_peers_go() {
        let registry = MetricRegistry::default();
        let [one, two, more] =
            [("a", 5), ("b", 7), ("a", 11)].map(|(name, done)| Peer::new(&registry, name, done));
        assert_eq!(number(&registry, &metrics::ENDED, None), Some(23));
        assert_eq!(
            number(&registry, &metrics::PEER_ENDED, Some("a")),
            Some(16),
            "two connections, one series"
        );
        assert_eq!(number(&registry, &metrics::IN_FLIGHT, None), Some(3));
        two.end(&registry);
        assert_eq!(number(&registry, &metrics::ENDED, None), Some(23));
        drop(two);
        assert_eq!(number(&registry, &metrics::ENDED, None), Some(23));
        assert_eq!(number(&registry, &metrics::PEER_ENDED, Some("b")), None);
        assert_eq!(number(&registry, &metrics::IN_FLIGHT, None), Some(2), "what has ended is not in flight");
        assert_eq!(number(&registry, &metrics::CONNECTIONS_ENDED, None), Some(1));
        assert_eq!(number(&registry, &metrics::CONNECTIONS, None), Some(2));
        [&one, &more].iter().for_each(|peer| peer.end(&registry));
        assert_eq!(number(&registry, &metrics::ENDED, None), Some(23));
    }

    #[test]
    fn the_series_of_a_peer_goes_on_when_one_of_its_connections_ends() {
        let registry = MetricRegistry::default();
        let [one, two] = [5, 11].map(|done| Peer::new(&registry, "a", done));
        one.end(&registry);
        drop(one);
        assert_eq!(number(&registry, &metrics::PEER_ENDED, Some("a")), Some(16));
        assert_eq!(number(&registry, &metrics::PEER_IN_FLIGHT, Some("a")), Some(1), "of what exists");
        assert_eq!(number(&registry, &metrics::PEER_CONNECTIONS, Some("a")), Some(1));
        assert_eq!(number(&registry, &metrics::ENDED, None), Some(16));
        two.end(&registry);
        drop(two);
        let back = Peer::new(&registry, "a", 1);
        assert_eq!(number(&registry, &metrics::PEER_ENDED, Some("a")), Some(1), "it comes back");
        assert_eq!(number(&registry, &metrics::ENDED, None), Some(17));
        back.end(&registry);
    }

    #[test]
    fn what_is_counted_after_the_end_of_a_connection_is_part_of_the_sums() {
        let registry = MetricRegistry::default();
        let (name, other) = (registry.peer_name("a"), Peer::new(&registry, "a", 1));
        let counts = Arc::new(SharedCounts::new(PathNames { write: "tcp", read: "tcp" }));
        counts.start(Direction::Read, 1, 8);
        registry.end_connection(&name, vec![Arc::clone(&counts) as _], || {
            let mut report = ConnectionReport::default();
            counts.add_to(&mut report.transfers);
            report
        });
        let done = |registry: &MetricRegistry| number(registry, &metrics::ENDED, None);
        assert_eq!(done(&registry), Some(1));
        for transfers in 2..4 {
            counts.end(Direction::Read, super::super::EndState::Done, 1, 8);
            assert_eq!(done(&registry), Some(transfers));
            assert_eq!(number(&registry, &metrics::PEER_ENDED, Some("a")), Some(transfers));
        }
        counts.end(Direction::Read, super::super::EndState::Done, 1, 8);
        // The last that had them drops them before the next snapshot.
        drop(counts);
        assert_eq!((done(&registry), done(&registry)), (Some(4), Some(4)));
        drop(other);
    }

    #[test]
    fn the_series_of_many_peers_are_bounded_and_none_goes_down() {
        let registry = MetricRegistry::default();
        let mut peers: Vec<_> =
            (0..MOST_PEERS + 20).map(|number| Peer::new(&registry, &number.to_string(), 1)).collect();
        let series = |registry: &MetricRegistry| registry.snapshot().of(&metrics::PEER_ENDED).count();
        assert_eq!(series(&registry), MOST_PEERS + 1);
        assert_eq!(number(&registry, &metrics::PEER_ENDED, Some(OTHER_PEERS)), Some(20));
        // Those of others go on to count for the others.
        peers.drain(MOST_PEERS..).for_each(|peer| peer.end(&registry));
        assert_eq!(number(&registry, &metrics::PEER_ENDED, Some(OTHER_PEERS)), Some(20));
        assert_eq!(number(&registry, &metrics::ENDED, None), Some(MOST_PEERS as u64 + 20));
    }

    #[test]
    fn ended_sources_are_removed() {
        let registry = MetricRegistry::default();
        for _ in 0..10_000 {
            registry.add(&Arc::new(Lanes(0)));
        }
        assert!(registry.sources.lock().unwrap().capacity() <= 16);
    }
}
