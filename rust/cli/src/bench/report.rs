//! Results as a table, or as JSON.

use std::time::Duration;

use flagcx_p2p::Opcode;
use serde_json::json;

use super::{BenchOptions, Measured};
use crate::client::Client;
use crate::output::{self, units};

/// Prints all results.
pub(super) fn print(client: &Client, options: &BenchOptions, all: &[Measured]) {
    let info = client.info();
    if options.json {
        let results: Vec<_> = all.iter().map(as_json).collect();
        let report = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "path": info.path.to_string(),
            "lanes": info.lanes,
            "in_process": options.in_process,
            "depth": options.depth,
            "pieces": "adjacent",
            "results": results,
        });
        output::line(&format!("{report:#}"));
        return;
    }
    let mut table = output::table([
        "operation",
        "transfer",
        "GB/s",
        "transfers/s",
        "p50 us",
        "p99 us",
        "CPU s/GiB here",
        "there",
    ]);
    for one in all {
        table.add_row([
            operation(one).to_owned(),
            one.case.to_string(),
            format!("{:.2}", units::gigabytes_per_second(one.bytes, one.elapsed)),
            format!("{:.0}", per_second(one)),
            format!("{:.1}", micros(one.p50)),
            format!("{:.1}", micros(one.p99)),
            format!("{:.3}", per_gib(one.own_cpu, one.bytes)),
            if options.in_process {
                "(same)".to_owned()
            } else {
                format!("{:.3}", per_gib(one.server_cpu, one.bytes))
            },
        ]);
    }
    output::line(&format!(
        "path {}, {} lanes, {} in flight; data checked",
        info.path, info.lanes, options.depth
    ));
    if options.cases.iter().any(|case| case.batch > 1) {
        output::line(
            "the pieces of a transfer are adjacent, so that the engine joins them: not what scattered ones cost",
        );
    }
    output::line(&table.to_string());
}

fn as_json(one: &Measured) -> serde_json::Value {
    json!({
        "operation": operation(one),
        "batch": one.case.batch,
        "size": one.case.size,
        "transfers": one.transfers,
        "bytes": one.bytes,
        "seconds": one.elapsed.as_secs_f64(),
        "gigabytes_per_second": units::gigabytes_per_second(one.bytes, one.elapsed),
        "p50_us": micros(one.p50),
        "p99_us": micros(one.p99),
        "cpu_seconds_per_gib_client": per_gib(one.own_cpu, one.bytes),
        "cpu_seconds_per_gib_server": per_gib(one.server_cpu, one.bytes),
        "verified": true,
    })
}

fn operation(one: &Measured) -> &'static str {
    match one.opcode {
        Opcode::Write => "put (WRITE)",
        Opcode::Read => "get (READ)",
    }
}

fn per_second(one: &Measured) -> f64 {
    one.transfers as f64 / one.elapsed.as_secs_f64().max(1e-9)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn per_gib(time: Duration, bytes: u64) -> f64 {
    time.as_secs_f64() / (bytes.max(1) as f64 / f64::from(1 << 30))
}
