//! Brings a file from the media host to its reader, a piece at a time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use reqwest::Response;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::decrypt::Decryptor;
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
    pub(super) fn start(
        answer: Response,
        decryptor: Decryptor,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let _permit = permit;
            let pumped = timeout(LONGEST, pump(answer, decryptor, &sender)).await;
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
    mut answer: Response,
    mut decryptor: Decryptor,
    reader: &mpsc::Sender<Result<Bytes, Cut>>,
) -> anyhow::Result<()> {
    while let Some(piece) = next(&mut answer).await? {
        give(reader, decryptor.update(&piece)?).await?;
    }
    give(reader, decryptor.finish()?).await
}

async fn give(reader: &mpsc::Sender<Result<Bytes, Cut>>, piece: Bytes) -> anyhow::Result<()> {
    if piece.is_empty() {
        return Ok(());
    }
    let given = timeout(READER, reader.send(Ok(piece))).await;
    match given {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => anyhow::bail!("its reader is gone"),
        Err(_) => anyhow::bail!("its reader does not read"),
    }
}

/// A small file, checked.
pub(super) async fn whole(
    mut answer: Response,
    mut decryptor: Decryptor,
) -> anyhow::Result<BytesMut> {
    let mut file = BytesMut::new();
    while let Some(piece) = next(&mut answer).await? {
        file.extend_from_slice(&decryptor.update(&piece)?);
    }
    file.extend_from_slice(&decryptor.finish()?);
    Ok(file)
}

async fn next(answer: &mut Response) -> anyhow::Result<Option<Bytes>> {
    // The URL is as good as the file.
    let piece = answer.chunk().await;
    Ok(piece.map_err(reqwest::Error::without_url)?)
}
