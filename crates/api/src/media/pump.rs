//! Brings a file from the media host to its reader, a piece at a time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use media::Download;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::{Cut, count};

/// Pieces that wait for a slow reader.
const WAITING: usize = 2;
/// What one file may take in all, and what a reader may take for a piece.
const LONGEST: Duration = Duration::from_secs(15 * 60);
const READER: Duration = Duration::from_secs(60);

/// A file on its way. A reader that is gone ends it, and so does one that reads nothing any more.
pub(super) struct Pump(mpsc::Receiver<Result<Bytes, Cut>>);

impl Pump {
    /// The permit is given back with the end of the file.
    pub(super) fn start(download: Download, permit: OwnedSemaphorePermit) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let _permit = permit;
            let pumped = timeout(LONGEST, pump(download, &sender)).await;
            let Err(error) = pumped.unwrap_or_else(|_| Err(anyhow::anyhow!("it took too long")))
            else {
                return count("streamed");
            };
            tracing::warn!("a file was cut off: {error:#}");
            count("cut");
            // A reader that takes nothing finds the end of the channel, which is no good end either.
            let _ = sender.try_send(Err(Cut));
        });
        Self(receiver)
    }
}

impl Stream for Pump {
    type Item = Result<Bytes, Cut>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

async fn pump(
    mut download: Download,
    reader: &mpsc::Sender<Result<Bytes, Cut>>,
) -> anyhow::Result<()> {
    while let Some(piece) = download.next().await? {
        give(reader, piece).await?;
    }
    Ok(())
}

async fn give(reader: &mpsc::Sender<Result<Bytes, Cut>>, piece: Bytes) -> anyhow::Result<()> {
    let given = timeout(READER, reader.send(Ok(piece))).await;
    match given {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => anyhow::bail!("its reader is gone"),
        Err(_) => anyhow::bail!("its reader does not read"),
    }
}
