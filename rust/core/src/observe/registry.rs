//! The list of everything that counts.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::fork::PerProcess;

use super::{SlowTransfer, Snapshot};

/// An object with counters.
pub trait Source: Send + Sync {
    /// Adds its values to `out`. Called from the reader's thread; must not block on work in progress.
    fn collect(&self, out: &mut Snapshot);

    /// Adds its transfers that have been unfinished for at least `older_than`. As [`Source::collect`] otherwise.
    fn slow_transfers(&self, older_than: Duration, out: &mut Vec<SlowTransfer>) {
        let _ = (older_than, out);
    }
}

/// The sources of a process. It holds them weakly, so a source needs no call at its end.
#[derive(Default)]
pub struct Registry {
    sources: Mutex<Vec<Weak<dyn Source>>>,
}

/// The process's registry.
pub fn registry() -> &'static Registry {
    static REGISTRY: PerProcess<Registry> = PerProcess::new(Registry::default);
    REGISTRY.get()
}

impl Registry {
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

    /// The values of every live source now. The lock is not held meanwhile: a source may drop others, or add some.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for source in self.live() {
            source.collect(&mut snapshot);
        }
        snapshot
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

    fn live(&self) -> Vec<Arc<dyn Source>> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.iter().filter_map(Weak::upgrade).collect()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_struct("Registry").field("sources", &sources).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Value, metrics};
    use super::*;

    struct Lanes(u64);

    impl Source for Lanes {
        fn collect(&self, out: &mut Snapshot) {
            out.number(&metrics::PEER_LANES, &[("peer", "p".to_owned())], self.0);
        }
    }

    fn values(registry: &Registry) -> Vec<Value> {
        registry.snapshot().of(&metrics::PEER_LANES).map(|sample| sample.value.clone()).collect()
    }

    #[test]
    fn only_live_sources_are_collected() {
        let registry = Registry::default();
        let (one, two) = (Arc::new(Lanes(1)), Arc::new(Lanes(2)));
        registry.add(&one);
        registry.add(&two);
        assert_eq!(values(&registry), [Value::Number(1), Value::Number(2)]);
        drop(one);
        assert_eq!(values(&registry), [Value::Number(2)]);
    }

    #[test]
    fn ended_sources_are_removed() {
        let registry = Registry::default();
        for _ in 0..10_000 {
            registry.add(&Arc::new(Lanes(0)));
        }
        assert!(registry.sources.lock().unwrap().capacity() <= 16);
    }
}
