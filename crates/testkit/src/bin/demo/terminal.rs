//! What the demo prints. A stdout that is closed is no reason to stop.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Instant;

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// A line.
pub(crate) fn say(line: impl Display) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A line below a step.
pub(crate) fn note(line: impl Display) {
    say(format_args!("     {line}"));
}

/// The steps, numbered, each with the time that it took.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    number: usize,
    begun: Option<Instant>,
}

impl Steps {
    /// The next step begins.
    pub(crate) fn next(&mut self, title: &str) {
        self.number += 1;
        self.begun = Some(Instant::now());
        say(format_args!("\n {:>2}  {title}", self.number));
    }

    /// The step is done.
    pub(crate) fn done(&self, what: impl Display) {
        let took = self.begun.map(|begun| begun.elapsed().as_secs_f64());
        note(format_args!(
            "✓ {what}  ({:.1} s)",
            took.unwrap_or_default()
        ));
    }
}

/// A QR code in half blocks, dark on light as phones want it, on a dark terminal too.
pub(crate) fn qr_code(text: &str) -> anyhow::Result<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L)?;
    let picture = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build();
    Ok(picture)
}
