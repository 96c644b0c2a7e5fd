//! What comes over the socket, cut into the protocol's frames.

use actix_ws::{AggregatedMessage, AggregatedMessageStream, Session};
use anyhow::Result;
use bytes::BytesMut;
use futures_util::StreamExt as _;
use wacore_noise::framing::{FRAME_LENGTH_SIZE, FrameDecoder};

use crate::handshake;

/// Cuts the socket's messages into frames.
pub(super) struct Frames {
    messages: AggregatedMessageStream,
    socket: Session,
    /// Until the connection header has been read.
    header: Option<BytesMut>,
    decoder: FrameDecoder,
    /// How much of what was fed is still in the decoder.
    inside: usize,
}

impl Frames {
    pub(super) fn new(messages: AggregatedMessageStream, socket: Session) -> Self {
        Self {
            messages,
            socket,
            header: Some(BytesMut::new()),
            decoder: FrameDecoder::new(),
            inside: 0,
        }
    }

    pub(super) async fn next(&mut self) -> Result<Option<BytesMut>> {
        loop {
            if let Some(frame) = self.decoder.decode_frame() {
                self.inside = self.inside.saturating_sub(frame.len() + FRAME_LENGTH_SIZE);
                if self.inside == 0 {
                    // A big frame's buffer would stay with the connection for good.
                    self.decoder = FrameDecoder::new();
                }
                return Ok(Some(frame));
            }
            match self.messages.next().await {
                Some(Ok(AggregatedMessage::Binary(bytes))) => self.feed(&bytes)?,
                Some(Ok(AggregatedMessage::Ping(bytes))) => self.socket.pong(&bytes).await?,
                Some(Ok(AggregatedMessage::Pong(_) | AggregatedMessage::Text(_))) => {}
                Some(Ok(AggregatedMessage::Close(_))) | None => return Ok(None),
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }

    /// Listens, and says nothing, until the client has had enough.
    pub(super) async fn ignore(&mut self) {
        while let Ok(Some(_)) = self.next().await {}
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(buffer) = &mut self.header else {
            self.inside += bytes.len();
            self.decoder.feed(bytes);
            return Ok(());
        };
        buffer.extend_from_slice(bytes);
        if handshake::take_header(buffer)?.is_some() {
            self.inside += buffer.len();
            self.decoder.feed(buffer);
            self.header = None;
        }
        Ok(())
    }
}
