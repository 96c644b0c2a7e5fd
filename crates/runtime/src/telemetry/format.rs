use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// A format of tracing-subscriber with the service's name in each line.
pub(super) struct WithService<F> {
    format: F,
    prefix: String,
    /// What `prefix` stands in for at the start of the line.
    replaces: &'static str,
}

impl WithService<Format<Json>> {
    pub(super) fn json(service: &str, format: Format<Json>) -> Self {
        let service = serde_json::Value::from(service);
        let prefix = format!("{{\"service\":{service},");
        Self {
            format: format.flatten_event(true).with_current_span(false),
            prefix,
            replaces: "{",
        }
    }
}

impl WithService<Format<Full>> {
    pub(super) fn text(service: &str, format: Format<Full>) -> Self {
        Self {
            format,
            prefix: format!("{service} "),
            replaces: "",
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
        writer.write_str(line.strip_prefix(self.replaces).unwrap_or(&line))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

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

    #[test]
    fn a_json_line_carries_the_service_the_fields_and_the_spans() {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(JsonFields::new())
            .map_event_format(|format| WithService::json("recado-x", format.json()))
            .with_writer(lines.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("delivery", event = 7).entered();
            tracing::warn!(status = 500, "refused");
        });
        let line: serde_json::Value = serde_json::from_str(&lines.text()).unwrap();
        assert_eq!(line["service"], "recado-x");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "refused");
        assert_eq!(line["status"], 500);
        assert_eq!(line["spans"][0]["event"], 7);
    }

    #[test]
    fn a_text_line_starts_with_the_service() {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .map_event_format(|format| WithService::text("recado-x", format))
            .with_writer(lines.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || tracing::info!("up"));
        let text = lines.text();
        assert!(
            text.starts_with("recado-x 2") && text.ends_with(": up\n"),
            "{text}"
        );
    }
}
