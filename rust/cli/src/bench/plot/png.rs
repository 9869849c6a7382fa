//! The picture as pixels: plotters draws them, the text with a font of this program, and the crate `png` packs them.

use plotters::prelude::{BitMapBackend, IntoDrawingArea};

use super::chart::{self, Scale, draw};
use super::failed;
use super::lines::Plot;
use crate::error::Result;

/// Bytes of a pixel: red, green, blue.
const PIXEL: usize = 3;

/// A PNG of twice the SVG's width and height: sharp on screens with small pixels, too.
pub(super) fn png(plot: &Plot) -> Result<Vec<u8>> {
    let scale = Scale::PNG;
    let (width, height) = chart::size(plot, scale);
    let pixels = [width, height].map(|side| usize::try_from(side).unwrap_or(0));
    let mut pixels = vec![0; pixels.iter().product::<usize>() * PIXEL];
    draw(plot, &BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area(), scale)?;
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&pixels).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::super::document::Document;
    use super::super::{Format, file};

    /// Width, height, and the pixels.
    fn decoded(document: &Document) -> (u32, u32, Vec<[u8; 3]>) {
        let bytes = file(document, Format::Png).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
        (
            info.width,
            info.height,
            pixels.chunks_exact(3).map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        )
    }

    /// Colours that the SVG of a run names.
    fn named(document: &Document) -> HashSet<[u8; 3]> {
        let svg = String::from_utf8(file(document, Format::Svg).unwrap()).unwrap();
        let names = svg.split("=\"#").skip(1).map(|rest| u32::from_str_radix(&rest[..6], 16).unwrap());
        names.map(|name| name.to_be_bytes()).map(|[_, red, green, blue]| [red, green, blue]).collect()
    }

    #[test]
    fn it_is_the_picture_of_the_svg_at_twice_its_size() {
        let document = Document::for_test();
        let svg = String::from_utf8(file(&document, Format::Svg).unwrap()).unwrap();
        let (width, height, pixels) = decoded(&document);
        assert!(
            svg.starts_with(&format!("<svg width=\"{}\" height=\"{}\"", width / 2, height / 2)),
            "{svg:.80}"
        );
        let seen: HashSet<_> = pixels.iter().copied().collect();
        // White, black, blue of the first path, and the greys of limits and lines.
        let named = named(&document);
        assert!(named.len() >= 6 && named.contains(&[0, 114, 178]), "{named:?}");
        assert!(named.is_subset(&seen), "{:?}", named.difference(&seen));
        let white = pixels.iter().filter(|pixel| **pixel == [255; 3]).count();
        assert!(white > pixels.len() / 2 && white < pixels.len() * 99 / 100, "{white} of {}", pixels.len());
    }

    #[test]
    fn rows_and_words_are_in_the_picture() {
        let document = Document::for_test();
        let (.., pixels) = decoded(&document);
        let other_rate = {
            let mut document = document.clone();
            document.rows[0].gigabytes_per_second = 13.0;
            document
        };
        let other_title = Document { version: "0.1.1".to_owned(), ..document.clone() };
        for other in [other_rate, other_title] {
            assert_ne!(pixels, decoded(&other).2);
        }
        assert_eq!(pixels, decoded(&document).2, "nothing else changes it");
    }
}
