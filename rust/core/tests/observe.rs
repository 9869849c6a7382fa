//! What operators see of two engines that move data.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside #[test] functions")]

mod support;

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::observe::{Metric, Value, metrics, prometheus_text, registry};
use flagcx_p2p::internals::transfer::Outcome;
use support::{Pair, outcome};

fn numbers(metric: &'static Metric) -> Vec<u64> {
    let number = |value: &Value| match value {
        Value::Number(number) => *number,
        Value::Histogram(_) | Value::Seconds(_) => 0,
    };
    registry().snapshot().of(metric).map(|sample| number(&sample.value)).collect()
}

#[test]
fn requests_and_lanes_are_counted_and_closed_connections_are_gone() {
    let posted = |()| numbers(&metrics::POSTED).iter().sum::<u64>();
    let pair = Pair::new(256 << 10);
    let before = posted(());
    let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 256 << 10)][..]).unwrap();
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
    assert!(posted(()) > before);
    assert_eq!(numbers(&metrics::FAILED).iter().sum::<u64>(), 0);
    // Both ends are in this process.
    assert_eq!(numbers(&metrics::PEER_HEALTHY_LANES), numbers(&metrics::PEER_LANES));
    assert_eq!(numbers(&metrics::PEER_LANES).len(), 2);
    let page = prometheus_text(&registry().snapshot()).unwrap();
    assert!(page.contains("flagcx_p2p_device_info{") && page.contains("provider=\"software\""), "{page}");
    drop(pair);
    assert_eq!(numbers(&metrics::PEER_LANES), [0; 0]);
}
