//! Rows as lines of a table with columns of fixed width, so that each can be printed when it is measured; and as CSV.

use super::limits::MachineLimit;
use super::row::{Data, Row};

/// Column heads and widths; a negative one is aligned to the left.
const COLUMNS: [(&str, isize); 14] = [
    ("path", -12),
    ("operation", -15),
    ("transfer", -14),
    ("pieces", -10),
    ("GB/s", 8),
    ("+- %", 5),
    ("transfers/s", 11),
    ("p50 us", 9),
    ("p99 us", 9),
    ("p99.9 us", 9),
    ("max us", 9),
    ("CPU s/GiB", 9),
    ("server", 7),
    ("data", -10),
];

/// The line above the rows.
pub(crate) fn header() -> String {
    line(COLUMNS.map(|(head, _)| head.to_owned()))
}

/// One row.
pub(crate) fn row(row: &Row) -> String {
    line([
        row.key.path.clone(),
        row.key.operation_text(),
        row.key.case().to_string(),
        row.key.pieces.name().to_owned(),
        number(row.gigabytes_per_second),
        format!("{:.0}", row.spread() * 100.0),
        format!("{:.0}", row.transfers_per_second),
        number(row.p50_us),
        number(row.p99_us),
        number(row.p999_us),
        number(row.max_us),
        number(row.cpu_seconds_per_gib_client),
        row.cpu_seconds_per_gib_server.map_or_else(|| "same".to_owned(), number),
        match row.data {
            Data::Corrupted => format!("CORRUPTED: {} of {} pieces", row.pieces_wrong, row.pieces_compared),
            data => data.name().to_owned(),
        },
    ])
}

/// One limit of the machine, in the same columns.
pub(crate) fn limit(limit: &MachineLimit) -> String {
    let size = limit.size.map(|size| super::case::size_text(u64::from(size))).unwrap_or_default();
    let mut cells = COLUMNS.map(|_| String::new());
    for (cell, text) in cells.iter_mut().zip([
        "limit".to_owned(),
        limit.text(),
        size,
        String::new(),
        number(limit.gigabytes_per_second),
    ]) {
        *cell = text;
    }
    line(cells)
}

fn line(cells: [String; 14]) -> String {
    let mut text = String::new();
    for (cell, (_, width)) in cells.iter().zip(COLUMNS) {
        if !text.is_empty() {
            text.push_str("  ");
        }
        let room = width.unsigned_abs();
        text.push_str(&if width < 0 { format!("{cell:<room$}") } else { format!("{cell:>room$}") });
    }
    text.trim_end().to_owned()
}

/// About three digits.
fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}

/// The heads of [`csv_row`].
pub(crate) const CSV_HEADER: &str = "path,operation,bidirectional,pieces,batch,size,depth,connections,threads,clients,\
    transfers,bytes,seconds,gigabytes_per_second,gigabytes_per_second_min,gigabytes_per_second_max,transfers_per_second,\
    p50_us,p99_us,p999_us,max_us,cpu_seconds_per_gib_client,cpu_seconds_per_gib_server,data";

/// One row as CSV; no value has a comma or a quote.
pub(crate) fn csv_row(row: &Row) -> String {
    let key = &row.key;
    [
        key.path.clone(),
        key.operation.name().to_owned(),
        key.bidirectional.to_string(),
        key.pieces.name().to_owned(),
        key.batch.to_string(),
        key.size.to_string(),
        key.depth.to_string(),
        key.connections.to_string(),
        key.threads.to_string(),
        key.clients.to_string(),
        row.transfers.to_string(),
        row.bytes.to_string(),
        row.seconds.to_string(),
        row.gigabytes_per_second.to_string(),
        row.gigabytes_per_second_min.to_string(),
        row.gigabytes_per_second_max.to_string(),
        row.transfers_per_second.to_string(),
        row.p50_us.to_string(),
        row.p99_us.to_string(),
        row.p999_us.to_string(),
        row.max_us.to_string(),
        row.cpu_seconds_per_gib_client.to_string(),
        row.cpu_seconds_per_gib_server.map(|value| value.to_string()).unwrap_or_default(),
        row.data.name().to_lowercase(),
    ]
    .join(",")
}
