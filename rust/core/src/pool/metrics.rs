//! The metrics of a pool.

use super::WorkerPool;
use crate::observe::{Label, Snapshot, Source, WorkerCounters, metrics};

impl Source for WorkerPool {
    fn collect(&self, out: &mut Snapshot) {
        let attributes = self.device().attributes();
        let device: Label = ("device", attributes.name.clone());
        let port: Label = ("port", attributes.port.to_string());
        let labels = [device, port];
        let provider: Label = ("provider", attributes.provider.to_string());
        out.number(&metrics::DEVICE, &[labels.as_slice(), &[provider]].concat(), 1);
        out.number(&metrics::WORKERS, &labels, self.workers().len() as u64);
        let sum = |count: fn(&WorkerCounters) -> u64| {
            self.counters().iter().fold(0, |sum: u64, worker| sum.wrapping_add(count(worker)))
        };
        out.number(&metrics::POSTED, &labels, sum(WorkerCounters::posted_count));
        out.number(&metrics::REFUSED, &labels, sum(WorkerCounters::refused_count));
        out.number(&metrics::FAILED, &labels, sum(WorkerCounters::failed_count));
        out.number(
            &metrics::WAITING,
            &labels,
            self.workers().iter().map(|worker| worker.queued() as u64).sum(),
        );
        let mut latency = self.direct_latency();
        for worker in self.counters() {
            latency.merge(&worker.latency().snapshot());
        }
        let slow = self.slow_latency();
        out.number(&metrics::SLOW, &labels, slow.count());
        if slow.count() > 0 {
            out.histogram(&metrics::SLOW_LATENCY, &labels, slow);
        }
        if latency.count() > 0 {
            out.histogram(&metrics::LATENCY, &labels, latency);
        }
    }
}
