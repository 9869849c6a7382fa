//! Piece size against GB/s, a panel for each operation, with the machine's limits: an SVG.
//!
//! No PNG: it would need a font at run time or in the program, and an encoder; any viewer converts an SVG.

use std::path::Path;

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::combinators::LogCoord;
use plotters::prelude::{
    BLACK, Cartesian2d, Circle, Color, DashedLineSeries, DrawingArea, IntoDrawingArea, IntoLogRange,
    LineSeries, PathElement, RGBColor, SVGBackend, ShapeStyle, Text, WHITE,
};

use super::case::size_text;
use super::document::Document;
use super::limits::MachineLimit;
use super::row::{Operation, Pieces, Row};
use crate::error::{CliError, Result};

/// Pixels of a panel, and the width of the list of lines at their right.
const PANEL: (u32, u32) = (500, 420);
const LEGEND: u32 = 190;
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

type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<LogCoord<f64>, LogCoord<f64>>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A line of the plot.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    name: String,
    colour: RGBColor,
    thin: bool,
    dashed: bool,
    points: Vec<(f64, f64)>,
}

/// Refuses names that stand for something else than an SVG.
pub(crate) fn check_name(path: &Path) -> Result<()> {
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    match ending.as_deref() {
        Some("svg") => Ok(()),
        None if path.metadata().is_ok_and(|metadata| !metadata.is_file()) => Ok(()),
        _ => Err(CliError::usage(format!(
            "--plot {}: the plot is an SVG, so name it FILE.svg; `rsvg-convert FILE.svg -o FILE.png` makes a PNG of it",
            path.display()
        ))),
    }
}

/// The SVG of a run.
pub(crate) fn draw(document: &Document) -> Result<String> {
    let mut operations: Vec<String> = Vec::new();
    let mut all: Vec<Vec<Line>> = Vec::new();
    for row in &document.rows {
        let operation = row.key.operation_text();
        if !operations.contains(&operation) {
            all.push(lines(document, row.key.operation, &operation));
            operations.push(operation);
        }
    }
    let mut svg = String::new();
    let panels = operations.len().max(1);
    let width = PANEL.0 * u32::try_from(panels).unwrap_or(1);
    {
        let root = SVGBackend::with_string(&mut svg, (width + LEGEND, PANEL.1)).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        let root = root.titled(&title(document), ("sans-serif", 15)).map_err(failed)?;
        let (left, right) = root.split_horizontally(width);
        for ((area, operation), lines) in left.split_evenly((1, panels)).iter().zip(&operations).zip(&all) {
            panel(area, operation, lines, ranges(document))?;
        }
        legend(&right, all.first().map(Vec::as_slice).unwrap_or_default())?;
        root.present().map_err(failed)?;
    }
    Ok(svg)
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

fn panel(area: &Area<'_>, operation: &str, lines: &[Line], [sizes, rates]: [(f64, f64); 2]) -> Result<()> {
    let mut chart: Chart<'_> = ChartBuilder::on(area)
        .caption(operation, ("sans-serif", 17))
        .margin(8)
        .x_label_area_size(38)
        .y_label_area_size(56)
        .build_cartesian_2d((sizes.0..sizes.1).log_scale().base(4.0), (rates.0..rates.1).log_scale())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .y_labels(4)
        .label_style(("sans-serif", 13))
        .axis_desc_style(("sans-serif", 14))
        .x_desc("bytes per piece")
        .y_desc("GB/s")
        .x_label_formatter(&|size| size_text(*size as u64))
        .y_label_formatter(&|rate| if *rate < 1.0 { format!("{rate:.2}") } else { format!("{rate:.0}") })
        .draw()
        .map_err(failed)?;
    for line in lines {
        series(&mut chart, line)?;
    }
    Ok(())
}

/// What each line is; the same in all panels.
fn legend(area: &Area<'_>, lines: &[Line]) -> Result<()> {
    for (y, line) in (60..).step_by(18).zip(lines) {
        let style = line.style();
        let middle = if line.dashed { 7 } else { 12 };
        for (from, to) in [(0, middle), (12, 20)] {
            area.draw(&PathElement::new(vec![(from, y), (to, y)], style)).map_err(failed)?;
        }
        let text = Text::new(line.name.clone(), (28, y - 5), ("sans-serif", 13));
        area.draw(&text).map_err(failed)?;
    }
    Ok(())
}

fn series(chart: &mut Chart<'_>, line: &Line) -> Result<()> {
    let style = line.style();
    let points = line.points.iter().copied();
    if line.dashed {
        chart.draw_series(DashedLineSeries::new(points, 6, 4, style)).map_err(failed)?;
        return Ok(());
    }
    chart.draw_series(LineSeries::new(points.clone(), style)).map_err(failed)?;
    let mark = if line.thin { style } else { line.colour.filled() };
    chart.draw_series(points.map(|point| Circle::new(point, 3, mark))).map_err(failed)?;
    Ok(())
}

impl Line {
    fn style(&self) -> ShapeStyle {
        self.colour.stroke_width(if self.thin { 1 } else { 2 })
    }
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::other(format!("draw the plot: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!(check_name(Path::new("a.svg")).is_ok() && check_name(Path::new("/dev/null")).is_ok());
        for bad in ["a.png", "a", "svg"] {
            let text = check_name(Path::new(bad)).unwrap_err().to_string();
            assert!(text.contains("is an SVG"), "{text}");
        }
    }
}
