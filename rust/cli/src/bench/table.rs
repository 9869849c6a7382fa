//! Rows as lines of a table with columns of fixed width, so that each can be printed when it is measured; and as CSV.
//!
//! A table has the width of the terminal, or [`USUAL`]. Where not all columns fit, the least important are left out; the files
//! have them all.

use super::limits::MachineLimit;
use super::options::Workload;
use super::row::{Data, Row};

/// Characters of a line where there is no terminal.
pub(crate) const USUAL: usize = 100;
/// Spaces between columns.
const GAP: usize = 2;
/// The columns that name what is measured; the next one is the rate.
const NAMES: usize = 3;

/// The table of a run.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    left_out: Vec<&'static str>,
}

#[derive(Clone, Copy, Debug)]
struct Column {
    head: &'static str,
    width: usize,
    is_left_aligned: bool,
    /// Those of higher ranks are left out first, those of rank 0 never.
    rank: u8,
    cell: fn(&Row) -> String,
}

impl Table {
    /// A table with lines of at most `width` characters, if the columns that are never left out fit.
    pub(crate) fn new(width: usize, workload: &Workload) -> Self {
        let mut columns = columns(workload);
        let mut left_out = Vec::new();
        while columns.iter().map(|column| column.width + GAP).sum::<usize>() > width + GAP {
            let places = columns.iter().enumerate();
            let least = places.max_by_key(|(_, column)| column.rank).filter(|(_, column)| column.rank > 0);
            let Some((place, _)) = least else { break };
            left_out.push(columns.remove(place).head);
        }
        Self { columns, left_out }
    }

    /// What the lines lack, as a sentence.
    pub(crate) fn left_out(&self) -> Option<String> {
        let columns = self.left_out.join(", ");
        (!columns.is_empty()).then(|| format!("left out for width: {columns} (--json and --csv have them)"))
    }

    /// The line above the rows.
    pub(crate) fn header(&self) -> String {
        line(self.columns.iter().map(|column| column.aligned(column.head)))
    }

    /// One row.
    pub(crate) fn row(&self, row: &Row) -> String {
        line(self.columns.iter().map(|column| column.aligned(&(column.cell)(row))))
    }

    /// One limit of the machine: its name instead of those of a row, and its rate in the same column.
    pub(crate) fn limit(&self, limit: &MachineLimit) -> String {
        let (names, others) = self.columns.split_at(self.columns.len().min(NAMES));
        let size = limit.size.map(|size| super::case::short_size(u64::from(size))).unwrap_or_default();
        let text = format!("limit {}", limit.text());
        let room = line(names.iter().map(|column| column.aligned(column.head))).chars().count();
        let room = room.saturating_sub(text.chars().count());
        let rate = others.iter().take(1).map(|column| column.aligned(&number(limit.gigabytes_per_second)));
        line(std::iter::once(format!("{text}{size:>room$}")).chain(rate))
    }
}

fn columns(workload: &Workload) -> Vec<Column> {
    let transfers = workload.cases.iter().map(|case| case.to_string().len());
    let transfer = transfers.max().unwrap_or(0).max("transfer".len());
    let operation = if workload.bidirectional { "write both ways".len() } else { "write".len() };
    let data = if workload.verify { Data::Verified } else { Data::Unverified }.name().len();
    let left = |head, width, cell| Column { head, width, is_left_aligned: true, rank: 0, cell };
    let right = |head, width, rank, cell| Column { head, width, is_left_aligned: false, rank, cell };
    vec![
        left("path", 12, |row| row.key.path.clone()),
        left("op", operation, |row| row.key.operation_text()),
        right("transfer", transfer, 0, |row| row.key.case().to_string()),
        right("GB/s", 6, 0, |row| number(row.gigabytes_per_second)),
        right("+- %", 4, 2, |row| format!("{:.0}", row.spread() * 100.0)),
        right("transfers/s", 11, 8, |row| format!("{:.0}", row.transfers_per_second)),
        right("p50 us", 7, 1, |row| number(row.p50_us)),
        right("p99 us", 7, 3, |row| number(row.p99_us)),
        right("p99.9 us", 8, 6, |row| number(row.p999_us)),
        right("max us", 7, 7, |row| number(row.max_us)),
        right("CPU s/GiB", 9, 4, |row| number(row.cpu_seconds_per_gib_client)),
        right("server", 6, 5, |row| row.cpu_seconds_per_gib_server.map_or_else(|| "same".to_owned(), number)),
        left("data", data, |row| match row.data {
            Data::Corrupted => format!("CORRUPTED: {} of {} pieces", row.pieces_wrong, row.pieces_compared),
            data => data.name().to_owned(),
        }),
    ]
}

impl Column {
    fn aligned(&self, cell: &str) -> String {
        let width = self.width;
        if self.is_left_aligned { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    }
}

fn line(cells: impl Iterator<Item = String>) -> String {
    let cells: Vec<_> = cells.collect();
    cells.join(&" ".repeat(GAP)).trim_end().to_owned()
}

/// About three digits.
fn number(value: f64) -> String {
    match value {
        value if value >= 1e7 => format!("{value:.1e}"),
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

#[cfg(test)]
mod tests {
    use super::super::Case;
    use super::super::row::Operation;
    use super::*;

    fn a_limit(operation: Option<Operation>) -> MachineLimit {
        MachineLimit {
            name: "process_vm".to_owned(),
            operation,
            size: Some(65_536),
            gigabytes_per_second: 13.4,
        }
    }

    fn workload() -> Workload {
        Workload { cases: vec![Case { batch: 64, size: 65_536 }], ..Workload::for_test() }
    }

    #[test]
    fn without_a_terminal_lines_have_a_hundred_characters() {
        let table = Table::new(USUAL, &workload());
        assert_eq!(
            [table.header(), table.row(&Row::for_test()), table.limit(&a_limit(Some(Operation::Write)))],
            [
                "path          op     transfer    GB/s  +- %   p50 us   p99 us  p99.9 us  CPU s/GiB  server  data",
                "cross-memory  write    64x64K    12.3    46      340      350      1000      0.123   0.000  verified",
                "limit process_vm write    64K    13.4",
            ]
        );
        let left_out = table.left_out().unwrap();
        assert!(left_out.contains("transfers/s, max us (--json and --csv have them)"), "{left_out}");
    }

    #[test]
    fn wide_terminals_have_all_columns_and_narrow_ones_the_important_ones() {
        let table = Table::new(200, &workload());
        assert_eq!(table.left_out(), None);
        assert!(table.header().contains("transfers/s") && table.header().contains("max us"));
        let table = Table::new(80, &workload());
        assert_eq!(table.header(), "path          op     transfer    GB/s  +- %   p50 us   p99 us  data");
        let least = "path          op     transfer    GB/s  data";
        assert_eq!(
            (Table::new(47, &workload()).header(), Table::new(1, &workload()).header()),
            (least.to_owned(), least.to_owned())
        );
    }

    proptest::proptest! {
        #[test]
        fn no_line_is_wider(width in 60_usize..200, us in 0.001_f64..1e12, verify: bool, bidirectional: bool) {
            let workload = Workload { verify, bidirectional, ..workload() };
            let table = Table::new(width, &workload);
            let mut row = Row { p50_us: us, p99_us: us, p999_us: us, max_us: us, ..Row::for_test() };
            row.key.bidirectional = bidirectional;
            if !verify {
                row.data = Data::Unverified;
            }
            for line in [table.header(), table.row(&row), table.limit(&a_limit(None))] {
                proptest::prop_assert!(line.chars().count() <= width, "{}: {line}", line.len());
            }
        }
    }
}
