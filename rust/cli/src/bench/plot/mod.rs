//! Piece size against GB/s, a panel for each operation, with the machine's limits: an SVG or a PNG of the same picture.

mod chart;
mod lines;
mod png;

use std::path::Path;

use plotters::prelude::{IntoDrawingArea, SVGBackend};

use super::document::Document;
use crate::error::{CliError, Result};
use chart::{Scale, draw, use_font};
use lines::Plot;

/// What kind of file a plot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Svg,
    Png,
}

impl Format {
    /// That of a file with this name. A device or a pipe without an ending gets an SVG.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
        match ending.as_deref() {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            None if path.metadata().is_ok_and(|metadata| !metadata.is_file()) => Ok(Self::Svg),
            _ => Err(CliError::usage(format!(
                "--plot {}: the plot is an SVG or a PNG, so name it FILE.svg or FILE.png",
                path.display()
            ))),
        }
    }
}

/// The file of a run's plot.
pub(crate) fn file(document: &Document, format: Format) -> Result<Vec<u8>> {
    use_font()?;
    let plot = Plot::of(document);
    match format {
        Format::Svg => svg(&plot),
        Format::Png => png::png(&plot),
    }
}

fn svg(plot: &Plot) -> Result<Vec<u8>> {
    let scale = Scale::SVG;
    let mut text = String::new();
    draw(plot, &SVGBackend::with_string(&mut text, chart::size(plot, scale)).into_drawing_area(), scale)?;
    Ok(text.into_bytes())
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::other(format!("draw the plot: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(Format::of(Path::new("a.svg")).unwrap(), Format::Svg);
        assert_eq!(Format::of(Path::new("/dev/null")).unwrap(), Format::Svg);
        assert_eq!(Format::of(Path::new("a.b.PNG")).unwrap(), Format::Png);
        for bad in ["a.jpg", "a", "svg", "a.png.gz"] {
            let text = Format::of(Path::new(bad)).unwrap_err().to_string();
            assert!(text.contains("an SVG or a PNG"), "{text}");
        }
    }
}
