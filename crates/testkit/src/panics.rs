//! What fails in this crate panics, which is a test's answer; a program wants to say why and go on.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use anyhow::anyhow;
use futures_util::FutureExt;

/// Does the work, and turns a panic in it into an error with the same words.
pub async fn caught<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    // All that the work had is gone with it.
    let ended = AssertUnwindSafe(work).catch_unwind().await;
    ended.unwrap_or_else(|panic| Err(anyhow!(words(panic.as_ref()))))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_with_its_words() {
        let why = "seven";
        for (work, expected) in [(0, "fixed words"), (1, "seven of nine"), (2, "as returned")] {
            let ended = caught(async {
                match work {
                    0 => panic!("fixed words"),
                    1 => panic!("{why} of nine"),
                    _ => Err::<(), _>(anyhow!("as returned")),
                }
            });
            assert_eq!(ended.await.unwrap_err().to_string(), expected);
        }
    }
}
