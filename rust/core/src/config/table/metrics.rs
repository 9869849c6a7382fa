//! Variables of the metrics endpoint.

use crate::config::Variable;

variables! {
    METRICS = Variable::text("FLAGCX_P2P_METRICS", "no endpoint", "`address:port`, `address:first-last` or `unix:path`; `%h` host, `%p` process, `%%`")
        .read_by("endpoint")
        .changes("Where the process answers `/metrics`, `/snapshot` and `/healthz` over HTTP, from its first engine to its last. Of a range the first free port is taken. There is no authentication.")
        .when("The engine is to be watched, by Prometheus or `flagcx-p2p stat`: [metrics](metrics.md).")
        .example("127.0.0.1:9400-9407");
}
