use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::{MakeVisitor, RecordFields, VisitOutput};
use tracing_subscriber::fmt::format::{DefaultFields, DefaultVisitor, Format, Full, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::mask::{mask, mask_json};

/// A format of tracing-subscriber with the service's name in each line.
pub(super) struct WithService<F> {
    format: F,
    prefix: String,
    /// What `prefix` stands in for at the start of the line.
    replaces: &'static str,
    /// Whether phone numbers in the line are masked. In text it is [`Fields`] that does so.
    masks: bool,
}

impl WithService<Format<Json>> {
    pub(super) fn json(service: &str, format: Format<Json>, masks: bool) -> Self {
        let service = serde_json::Value::from(service);
        let prefix = format!("{{\"service\":{service},");
        Self {
            format: format.flatten_event(true).with_current_span(false),
            prefix,
            replaces: "{",
            masks,
        }
    }
}

impl WithService<Format<Full>> {
    pub(super) fn text(service: &str, format: Format<Full>) -> Self {
        Self {
            format,
            prefix: format!("{service} "),
            replaces: "",
            masks: false,
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for WithService<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str(&self.prefix)?;
        if self.replaces.is_empty() {
            return self.format.format_event(context, writer, event);
        }
        let mut line = String::with_capacity(256);
        self.format
            .format_event(context, Writer::new(&mut line), event)?;
        let line = line.strip_prefix(self.replaces).unwrap_or(&line);
        match self.masks {
            true => writer.write_str(&mask_json(line)),
            false => writer.write_str(line),
        }
    }
}

/// The fields of text lines, whose phone numbers are masked where they are text: a line no longer tells
/// `%number` from a count.
pub(super) struct Fields {
    pub(super) masks: bool,
}

impl<'a> FormatFields<'a> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'a>, fields: R) -> fmt::Result {
        let mut visitor = DefaultFields::new().make_visitor(writer);
        match self.masks {
            true => fields.record(&mut Masked(&mut visitor)),
            false => fields.record(&mut visitor),
        }
        visitor.finish()
    }
}

struct Masked<'a, 'w>(&'a mut DefaultVisitor<'w>);

impl Visit for Masked<'_, '_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.record_f64(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.record_i64(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.record_u64(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.0.record_i128(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.0.record_u128(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.record_str(field, &mask(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        self.0
            .record_debug(field, &format_args!("{}", mask(&value)));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::fmt::format::JsonFields;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn json(masks: bool, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(JsonFields::new())
            .map_event_format(|format| WithService::json("recado-x", format.json(), masks))
            .with_writer(lines.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        lines.text()
    }

    fn text(masks: bool, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .fmt_fields(Fields { masks })
            .map_event_format(|format| WithService::text("recado-x", format))
            .with_writer(lines.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        lines.text()
    }

    #[test]
    fn a_json_line_carries_the_service_the_fields_and_the_spans() {
        let line = json(true, || {
            let _span = tracing::info_span!("delivery", event = 7).entered();
            tracing::warn!(status = 500, "refused");
        });
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["service"], "recado-x");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "refused");
        assert_eq!(line["status"], 500);
        assert_eq!(line["spans"][0]["event"], 7);
    }

    #[test]
    fn a_text_line_starts_with_the_service() {
        let line = text(true, || tracing::info!("up"));
        assert!(
            line.starts_with("recado-x 2") && line.ends_with(": up\n"),
            "{line}"
        );
    }

    const NUMBER: &str = "5511999999999";

    /// A number in all places that a line has for one, among numbers that are none.
    fn log() {
        let _span =
            tracing::info_span!("session", number = NUMBER, sequence = 12_345_678).entered();
        tracing::warn!(
            text = NUMBER,
            shown = %NUMBER,
            debugged = ?Some(NUMBER),
            count = 1_234_567_u64,
            duration_ms = 1_234_567.25,
            "for {NUMBER}\n{NUMBER}",
        );
    }

    #[test]
    fn numbers_are_masked_in_messages_fields_and_spans_and_counts_are_not() {
        for line in [json(true, log), text(true, log)] {
            assert!(!line.contains(NUMBER), "{line}");
            assert_eq!(line.matches("5511*******99").count(), 6, "{line}");
            for number in ["12345678", "1234567", "1234567.25"] {
                assert!(line.contains(number), "{number}: {line}");
            }
        }
        let line: serde_json::Value = serde_json::from_str(&json(true, log)).unwrap();
        assert_eq!(line["count"], 1_234_567);
    }

    #[test]
    fn whoever_wants_to_see_numbers_sees_them() {
        for line in [json(false, log), text(false, log)] {
            assert_eq!(line.matches(NUMBER).count(), 6, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_number_is_left_whatever_stands_around_it(
            before in "\\PC*",
            sign in "[ :=+(/\"\\n\u{8}é-]",
            number in "[1-9][0-9]{6,14}",
            after in "(|@s\\.whatsapp\\.net|:12@lid|\\.0:1@c\\.us|[ ,.)\"\\\\\\n])",
            more in "( \\PC*)?",
        ) {
            let said = format!("{before}{sign}{number}{after}{more}");
            let log = || tracing::info!(said, debugged = ?said, "{said}");
            for line in [json(true, log), text(true, log)] {
                prop_assert!(!line.contains(&number), "{line}");
            }
        }
    }
}
