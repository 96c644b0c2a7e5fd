use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// So much of an answer's body is read. An answer that goes on is cut off; its status counts.
const READ: usize = 64 * 1024;
/// So much of it is kept for the record.
const KEPT: usize = 4 * 1024;

/// The beginning of an answer's body.
#[derive(Default)]
pub(super) struct Kept(Vec<u8>);

impl Kept {
    /// Reads the body to its end or to the limit. What came before an error, or before the caller
    /// stopped waiting, is kept.
    pub(super) async fn read(&mut self, mut body: Incoming) -> hyper::Result<()> {
        let mut read = 0;
        while read < READ
            && let Some(frame) = body.frame().await
        {
            if let Ok(chunk) = frame?.into_data() {
                read += chunk.len();
                self.keep(&chunk);
            }
        }
        Ok(())
    }

    fn keep(&mut self, chunk: &Bytes) {
        let room = KEPT - self.0.len();
        self.0.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }

    /// As a text that PostgreSQL takes, of at most 4 KiB; `None` for an empty body.
    pub(super) fn into_text(self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let mut text = String::from_utf8_lossy(&self.0).replace('\0', "\u{fffd}");
        text.truncate(text.floor_char_boundary(KEPT));
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: &[u8]) -> Option<String> {
        let mut kept = Kept::default();
        for chunk in body.chunks(1000) {
            kept.keep(&Bytes::copy_from_slice(chunk));
        }
        kept.into_text()
    }

    #[test]
    fn an_empty_body_is_no_text() {
        assert_eq!(text(b""), None);
    }

    #[test]
    fn what_is_no_text_becomes_text_without_nul() {
        assert_eq!(text(b"a\0b\xffc").unwrap(), "a\u{fffd}b\u{fffd}c");
    }

    #[test]
    fn at_most_four_kib_are_kept_and_no_character_is_cut() {
        assert_eq!(text(&[b'x'; 5000]).unwrap().len(), KEPT);
        for body in ["é".repeat(5000), format!("a{}", "é".repeat(5000))] {
            let text = text(body.as_bytes()).unwrap();
            assert!(text.len() <= KEPT && body.starts_with(text.trim_end_matches('\u{fffd}')));
        }
        assert!(text(&[0xff; 5000]).unwrap().len() <= KEPT);
    }
}
