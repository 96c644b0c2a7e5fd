//! A QR code as a picture.

use qrcode::render::svg;
use qrcode::types::QrResult;
use qrcode::{Color, EcLevel, QrCode};

/// Pixels per module of the PNG.
const SCALE: usize = 6;
/// Modules of white around the code: the standard asks for four.
const QUIET: usize = 4;

/// Reads best from a screen: nothing is smudged there, so the modules may be large instead.
fn encode(text: &str) -> QrResult<QrCode> {
    QrCode::with_error_correction_level(text, EcLevel::L)
}

/// An error when the text is too long for any QR code.
pub(crate) fn svg(text: &str) -> QrResult<String> {
    let code = encode(text)?;
    Ok(code
        .render::<svg::Color<'_>>()
        .min_dimensions(320, 320)
        .build())
}

/// A greyscale PNG with one bit per pixel. An error when the text is too long for any QR code.
pub(crate) fn png(text: &str) -> QrResult<Vec<u8>> {
    let code = encode(text)?;
    let (modules, dark) = (code.width(), code.to_colors());
    let width = (modules + 2 * QUIET) * SCALE;
    let is_dark = |x: usize, y: usize| {
        let inside = |at: usize| (at / SCALE).checked_sub(QUIET).filter(|at| *at < modules);
        match (inside(x), inside(y)) {
            (Some(x), Some(y)) => dark[y * modules + x] == Color::Dark,
            _ => false,
        }
    };
    let row_bytes = width.div_ceil(8);
    let mut pixels = vec![0xff; row_bytes * width];
    for y in 0..width {
        for x in (0..width).filter(|x| is_dark(*x, y)) {
            pixels[y * row_bytes + x / 8] &= !(0x80 >> (x % 8));
        }
    }
    Ok(write_png(width, &pixels))
}

fn write_png(width: usize, pixels: &[u8]) -> Vec<u8> {
    let width = u32::try_from(width).expect("a code has at most 177 modules a side");
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, width);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(pixels))
        .expect("the pixels fill the picture, and memory takes what is written");
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As long as WhatsApp's.
    const TEXT: &str = "2@2vyrc2iIxwqcUYjNMXwdf0GLLi3ONx5hcBrCzIDaV6a8CXZWrXjRdBVLiWzc9w1lGgsvNmSSvQ0OCr+w5KpYGXKn,Oq6bJbsKb1yGYHK2lwu2pbKH5LGw0tPmvQbXRhq9lXg=,8Jb5Rq8gGXmVt1h0n3o9c1VbW1l0m2Qq3S0dYxJtWmU=,mFQmCkBz2s0R0p1GzZq0G0F4b1m8B0y7x6w5v4u3t2s=";

    #[test]
    fn every_module_of_the_code_is_a_square_of_pixels_in_the_picture() {
        let png = png(TEXT).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(png))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        let code = encode(TEXT).unwrap();
        assert_eq!(info.width as usize, (code.width() + 2 * QUIET) * SCALE);

        let light =
            |x: usize, y: usize| pixels[y * info.line_size + x / 8] & (0x80 >> (x % 8)) != 0;
        assert!(light(0, 0) && light(QUIET * SCALE - 1, QUIET * SCALE - 1));
        for y in 0..code.width() {
            for x in 0..code.width() {
                let dark = code[(x, y)] == Color::Dark;
                let (left, top) = ((x + QUIET) * SCALE, (y + QUIET) * SCALE);
                assert_eq!(light(left, top), !dark);
                assert_eq!(light(left + SCALE - 1, top + SCALE - 1), !dark);
            }
        }
    }

    #[test]
    fn the_svg_is_a_picture_and_a_text_that_no_code_holds_is_an_error() {
        assert!(svg(TEXT).unwrap().contains("<svg"));
        let long = "x".repeat(3000);
        assert!(svg(&long).is_err() && png(&long).is_err());
    }
}
