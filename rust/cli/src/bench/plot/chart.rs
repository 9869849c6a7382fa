//! The picture of a plot, on any of plotters' backends.

use epaint_default_fonts::UBUNTU_LIGHT;
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::combinators::LogCoord;
use plotters::prelude::{
    Cartesian2d, Circle, Color, DashedLineSeries, DrawingArea, DrawingBackend, FontStyle, IntoLogRange,
    LineSeries, PathElement, ShapeStyle, Text, WHITE,
};
use plotters::style::register_font;

use super::super::case::size_text;
use super::failed;
use super::lines::{Line, Panel, Plot};
use crate::error::Result;

/// Pixels of a panel, and the width of the list of lines at their right.
const PANEL: (i32, i32) = (500, 420);
const LEGEND: i32 = 190;
const FONT: &str = "sans-serif";

type Chart<'a, B> = ChartContext<'a, B, Cartesian2d<LogCoord<f64>, LogCoord<f64>>>;
type Area<B> = DrawingArea<B, Shift>;

/// How many pixels a length of 1 has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale(i32);

impl Scale {
    pub(super) const SVG: Self = Self(1);
    pub(super) const PNG: Self = Self(2);

    fn px(self, length: i32) -> i32 {
        self.0 * length
    }

    fn font(self, height: i32) -> (&'static str, i32) {
        (FONT, self.px(height))
    }
}

/// Makes the font of this program the one that widths of texts are computed with, and that pixels of texts are drawn with. An
/// SVG names its kind alone.
pub(super) fn use_font() -> Result<()> {
    register_font(FONT, FontStyle::Normal, UBUNTU_LIGHT).map_err(|_| failed("the font cannot be read"))
}

/// Width and height of the picture.
pub(super) fn size(plot: &Plot, scale: Scale) -> (u32, u32) {
    let size = |length: i32| scale.px(length).unsigned_abs();
    (size(panels_width(plot) + LEGEND), size(PANEL.1))
}

fn panels_width(plot: &Plot) -> i32 {
    PANEL.0 * i32::try_from(plot.panels.len().max(1)).unwrap_or(1)
}

/// Draws all of it.
pub(super) fn draw<B: DrawingBackend>(plot: &Plot, root: &Area<B>, scale: Scale) -> Result<()> {
    root.fill(&WHITE).map_err(failed)?;
    // Pixels of a title reach above its place.
    let below = root.margin(scale.px(5), 0, 0, 0).titled(&plot.title, scale.font(15)).map_err(failed)?;
    let (left, right) = below.split_horizontally(scale.px(panels_width(plot)));
    for (area, panel) in left.split_evenly((1, plot.panels.len().max(1))).iter().zip(&plot.panels) {
        draw_panel(area, panel, plot, scale)?;
    }
    legend(&right, plot, scale)?;
    root.present().map_err(failed)
}

fn draw_panel<B: DrawingBackend>(area: &Area<B>, panel: &Panel, plot: &Plot, scale: Scale) -> Result<()> {
    let (sizes, rates) = (plot.sizes, plot.rates);
    let mut chart: Chart<'_, B> = ChartBuilder::on(area)
        .caption(&panel.operation, scale.font(17))
        .margin(scale.px(8))
        .x_label_area_size(scale.px(38))
        .y_label_area_size(scale.px(56))
        .build_cartesian_2d((sizes.0..sizes.1).log_scale().base(4.0), (rates.0..rates.1).log_scale())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .y_labels(4)
        .set_all_tick_mark_size(scale.px(5))
        .label_style(scale.font(13))
        .axis_desc_style(scale.font(14))
        .x_desc("bytes per piece")
        .y_desc("GB/s")
        .x_label_formatter(&|size| size_text(*size as u64))
        .y_label_formatter(&|rate| if *rate < 1.0 { format!("{rate:.2}") } else { format!("{rate:.0}") })
        .draw()
        .map_err(failed)?;
    for line in &panel.lines {
        series(&mut chart, line, scale)?;
    }
    Ok(())
}

/// What each line is; the same in all panels.
fn legend<B: DrawingBackend>(area: &Area<B>, plot: &Plot, scale: Scale) -> Result<()> {
    for (y, line) in (60..).step_by(18).zip(plot.legend()) {
        let style = style(line, scale);
        let middle = if line.dashed { 7 } else { 12 };
        for (from, to) in [(0, middle), (12, 20)] {
            let ends = [from, to].map(|x| (scale.px(x), scale.px(y)));
            area.draw(&PathElement::new(ends, style)).map_err(failed)?;
        }
        let place = (scale.px(28), scale.px(y - 5));
        area.draw(&Text::new(line.name.as_str(), place, scale.font(13))).map_err(failed)?;
    }
    Ok(())
}

fn series<B: DrawingBackend>(chart: &mut Chart<'_, B>, line: &Line, scale: Scale) -> Result<()> {
    let style = style(line, scale);
    let points = line.points.iter().copied();
    if line.dashed {
        let dashes = DashedLineSeries::new(points, scale.px(6), scale.px(4), style);
        chart.draw_series(dashes).map_err(failed)?;
        return Ok(());
    }
    chart.draw_series(LineSeries::new(points.clone(), style)).map_err(failed)?;
    let mark = if line.thin { style } else { line.colour.filled() };
    chart.draw_series(points.map(|point| Circle::new(point, scale.px(3), mark))).map_err(failed)?;
    Ok(())
}

fn style(line: &Line, scale: Scale) -> ShapeStyle {
    line.colour.stroke_width(scale.px(if line.thin { 1 } else { 2 }).unsigned_abs())
}
