//! What a plot shows: a line for each path and number of pieces, and one for each limit of the machine.

use plotters::prelude::{BLACK, RGBColor};

use super::super::case::size_text;
use super::super::document::Document;
use super::super::limits::MachineLimit;
use super::super::row::{Operation, Pieces, Row};

/// One for each path, distinct for those with colour blindness, too.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
/// Those of limits, in the order in which they are measured: copies, those by the kernel, a socket.
const LIMIT_COLOURS: [RGBColor; 3] = [RGBColor(60, 60, 60), RGBColor(110, 110, 110), RGBColor(160, 160, 160)];

/// All that is drawn.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plot {
    pub(super) title: String,
    pub(super) panels: Vec<Panel>,
    /// Bytes per piece, and GB/s, from the least to the greatest that a panel has room for.
    pub(super) sizes: (f64, f64),
    pub(super) rates: (f64, f64),
}

/// The lines of one operation.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Panel {
    pub(super) operation: String,
    pub(super) lines: Vec<Line>,
}

/// Points of bytes per piece and GB/s.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) colour: RGBColor,
    pub(super) thin: bool,
    pub(super) dashed: bool,
    pub(super) points: Vec<(f64, f64)>,
}

impl Plot {
    /// That of a run.
    pub(super) fn of(document: &Document) -> Self {
        let mut panels: Vec<Panel> = Vec::new();
        for row in &document.rows {
            let operation = row.key.operation_text();
            if !panels.iter().any(|panel| panel.operation == operation) {
                let lines = lines(document, row.key.operation, &operation);
                panels.push(Panel { operation, lines });
            }
        }
        let [sizes, rates] = ranges(document);
        Self { title: title(document), panels, sizes, rates }
    }

    /// The lines that need a name: all panels have the same.
    pub(super) fn legend(&self) -> &[Line] {
        self.panels.first().map(|panel| panel.lines.as_slice()).unwrap_or_default()
    }
}

fn title(document: &Document) -> String {
    let pieces = match document.rows.first().map(|row| row.key.pieces) {
        Some(Pieces::Contiguous) => "contiguous pieces",
        _ => "scattered pieces",
    };
    format!(
        "flagcx-p2p {}, {}, {} processors, {}: {pieces}, pool {}",
        document.version,
        document.host.processor,
        document.host.processors,
        document.date.split('T').next().unwrap_or_default(),
        size_text(document.settings.pool_bytes)
    )
}

/// Sizes and rates that all panels show.
fn ranges(document: &Document) -> [(f64, f64); 2] {
    let sizes = document.rows.iter().map(|row| f64::from(row.key.size));
    let rates = document.rows.iter().map(|row| row.gigabytes_per_second);
    let limits = document.limits.iter().map(|limit| limit.gigabytes_per_second);
    let around = |values: &mut dyn Iterator<Item = f64>, factor: f64| {
        let (least, most) = values
            .filter(|value| *value > 0.0)
            .fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
        if most > 0.0 { (least / factor, most * factor) } else { (1.0, 10.0) }
    };
    [around(&mut sizes.into_iter(), 1.5), around(&mut rates.chain(limits), 1.3)]
}

fn lines(document: &Document, operation: Operation, text: &str) -> Vec<Line> {
    let mut paths: Vec<&str> = Vec::new();
    let mut lines: Vec<Line> = Vec::new();
    for row in document.rows.iter().filter(|row| row.key.operation_text() == text) {
        if !paths.contains(&row.key.path.as_str()) {
            paths.push(&row.key.path);
        }
        let name = name(row);
        let point = (f64::from(row.key.size), row.gigabytes_per_second.max(1e-6));
        if let Some(line) = lines.iter_mut().find(|line| line.name == name) {
            line.points.push(point);
            continue;
        }
        let path = paths.iter().position(|path| *path == row.key.path).unwrap_or(0);
        let colour = COLOURS.get(path % COLOURS.len()).copied().unwrap_or(BLACK);
        lines.push(Line { name, colour, thin: row.key.batch == 1, dashed: false, points: vec![point] });
    }
    lines.extend(limit_lines(document, operation));
    for line in &mut lines {
        line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    lines
}

fn name(row: &Row) -> String {
    let several = if row.key.batch > 1 { format!(", {} pieces", row.key.batch) } else { String::new() };
    format!("{}{several}", row.key.path)
}

/// A limit with sizes is a line over them, one without is level.
fn limit_lines(document: &Document, operation: Operation) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let [(least, most), _] = ranges(document);
    let holds = |limit: &&MachineLimit| limit.operation.is_none_or(|of| of == operation);
    for limit in document.limits.iter().filter(holds) {
        let rate = limit.gigabytes_per_second.max(1e-6);
        let points = match limit.size {
            Some(size) => vec![(f64::from(size), rate)],
            None => vec![(least, rate), (most, rate)],
        };
        let name = format!("limit: {}", limit.name);
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.extend(points),
            None => {
                let colour = LIMIT_COLOURS.get(lines.len() % LIMIT_COLOURS.len()).copied().unwrap_or(BLACK);
                lines.push(Line { name, colour, thin: true, dashed: true, points });
            }
        }
    }
    lines
}
