//! The values of metrics on two pages, and what they have grown by in between.

use std::collections::{BTreeMap, HashMap};

use super::page::{Metric, Page};

/// Two pages of one process.
pub(super) struct Series<'a> {
    now: &'a Page,
    before: HashMap<(&'a str, &'a BTreeMap<String, String>), &'a Metric>,
    /// Seconds between the pages; 0 when the process was restarted in between, and nothing can be compared.
    pub(super) seconds: f64,
}

impl<'a> Series<'a> {
    pub(super) fn new(before: &'a Page, now: &'a Page) -> Self {
        let is_same = before.pid == now.pid && before.uptime_seconds <= now.uptime_seconds;
        let seconds = if is_same { now.uptime_seconds - before.uptime_seconds } else { 0.0 };
        let before = before.metrics.iter().map(|metric| ((metric.name.as_str(), &metric.labels), metric));
        Self { now, before: if is_same { before.collect() } else { HashMap::new() }, seconds }
    }

    /// The metric's values now that have these labels.
    pub(super) fn of(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &'a Metric> {
        let fits = |metric: &&Metric| {
            metric.name == name
                && labels
                    .iter()
                    .all(|(label, value)| metric.labels.get(*label).is_some_and(|found| found == value))
        };
        self.now.metrics.iter().filter(fits).collect::<Vec<_>>().into_iter()
    }

    /// The sum of a gauge, or of a counter since its start.
    pub(super) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of(name, labels).fold(0.0, |sum, metric| sum + metric.value)
    }

    /// The largest value of a gauge.
    pub(super) fn max(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of(name, labels).map(|metric| metric.value).fold(0.0, f64::max)
    }

    /// How much a counter has grown each second. `None` when that is not known.
    pub(super) fn rate(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        // An empty `sum` of floats is -0.
        let grown = self.of(name, labels).fold(0.0, |sum, metric| sum + self.growth(metric));
        (self.seconds > 0.0).then(|| grown / self.seconds)
    }

    fn growth(&self, metric: &Metric) -> f64 {
        let before = self.former(metric).map_or(0.0, |former| former.value);
        // One that has shrunk began anew at 0: its peer was gone meanwhile.
        if before <= metric.value { metric.value - before } else { metric.value }
    }

    fn former(&self, metric: &Metric) -> Option<&'a Metric> {
        self.before.get(&(metric.name.as_str(), &metric.labels)).copied()
    }

    /// The upper bound in seconds of the bucket with this percentile, of what a histogram has counted between the pages.
    /// `None` if that is nothing; infinite beyond the last bound.
    pub(super) fn percentile(&self, name: &str, labels: &[(&str, &str)], percent: f64) -> Option<f64> {
        let mut buckets: Vec<(f64, u64)> = Vec::new();
        for metric in self.of(name, labels) {
            let former = self.former(metric).map_or(&[] as &[_], |former| &former.buckets);
            for (index, (bound, count)) in metric.buckets.iter().enumerate() {
                let before = former.get(index).map_or(0, |(_, count)| *count);
                let grown = count.checked_sub(before).unwrap_or(*count);
                buckets.push((bound.unwrap_or(f64::INFINITY), grown));
            }
        }
        buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let total: u64 = buckets.iter().map(|(_, count)| count).sum();
        let rank = ((total as f64 * percent / 100.0).ceil() as u64).max(1);
        let mut seen = 0;
        buckets.into_iter().find_map(|(bound, count)| {
            seen += count;
            (seen >= rank).then_some(bound)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(uptime: f64, metrics: &[(&str, &str, f64)]) -> Page {
        let metrics = metrics.iter().map(|(name, peer, value)| {
            serde_json::json!({"name": name, "kind": "counter", "labels": {"peer": peer}, "value": value})
        });
        let metrics: Vec<_> = metrics.collect();
        let page = serde_json::json!({
            "version": "1", "host": "h", "pid": 1, "time": 0.0, "uptime_seconds": uptime, "metrics": metrics,
        });
        Page::parse(&page.to_string()).unwrap()
    }

    #[test]
    fn rates_are_differences_and_survive_resets() {
        let before = page(1.0, &[("a", "p", 10.0), ("a", "q", 100.0), ("a", "gone", 5.0)]);
        let now = page(3.0, &[("a", "p", 14.0), ("a", "q", 6.0), ("a", "new", 8.0)]);
        let series = Series::new(&before, &now);
        assert_eq!(series.rate("a", &[("peer", "p")]), Some(2.0));
        assert_eq!(series.rate("a", &[("peer", "q")]), Some(3.0), "it began anew");
        assert_eq!(series.rate("a", &[("peer", "new")]), Some(4.0));
        assert_eq!(series.rate("a", &[]), Some(9.0));
        assert!(series.rate("b", &[]).is_some_and(f64::is_sign_positive), "of no series");
        assert_eq!((series.sum("a", &[]), series.max("a", &[])), (28.0, 14.0));
    }

    #[test]
    fn a_restarted_process_has_no_rate() {
        let (before, now) = (page(9.0, &[("a", "p", 10.0)]), page(1.0, &[("a", "p", 14.0)]));
        assert_eq!(Series::new(&before, &now).rate("a", &[]), None);
        let mut other = page(10.0, &[("a", "p", 14.0)]);
        other.pid = 2;
        assert_eq!(Series::new(&before, &other).rate("a", &[]), None);
    }

    #[test]
    fn percentiles_are_those_of_the_interval() {
        let with = |uptime, counts: [u64; 3]| {
            let mut page = page(uptime, &[("h", "p", 0.0)]);
            let bounds = [Some(0.001), Some(0.01), None];
            page.metrics[0].buckets = bounds.into_iter().zip(counts).collect();
            page
        };
        let before = with(1.0, [100, 0, 0]);
        let percentile = |now: &Page, percent| Series::new(&before, now).percentile("h", &[], percent);
        assert_eq!(percentile(&with(2.0, [100, 0, 0]), 50.0), None);
        let now = with(2.0, [101, 8, 1]);
        assert_eq!(percentile(&now, 50.0), Some(0.01));
        assert_eq!(percentile(&now, 99.0), Some(f64::INFINITY));
        assert_eq!(percentile(&now, 1.0), Some(0.001));
    }
}
