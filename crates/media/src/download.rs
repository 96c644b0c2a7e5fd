use bytes::{Bytes, BytesMut};
use domain::media::File;
use reqwest::Response;

use crate::decrypt::Decryptor;
use crate::host::Error;

/// A file on its way, decrypted as it comes.
pub struct Download {
    answer: Response,
    /// `None` once its end was given.
    decryptor: Option<Decryptor>,
}

impl Download {
    pub(crate) fn new(answer: Response, file: &File) -> Self {
        Self {
            answer,
            decryptor: Some(Decryptor::new(file)),
        }
    }

    /// The next piece, which is not empty; `None` behind the last. That the file is the one that was sent is
    /// known when the last piece comes, and not before.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(decryptor) = &mut self.decryptor {
            while let Some(chunk) = self.answer.chunk().await.map_err(Error::of_request)? {
                let piece = decryptor.update(&chunk)?;
                if !piece.is_empty() {
                    return Ok(Some(piece));
                }
            }
        }
        let end = self.decryptor.take().map(Decryptor::finish).transpose()?;
        Ok(end.filter(|end| !end.is_empty()))
    }

    /// All of a small file, checked. It is no larger than its sender said.
    pub async fn whole(mut self) -> Result<Bytes, Error> {
        let mut file = BytesMut::new();
        while let Some(piece) = self.next().await? {
            file.extend_from_slice(&piece);
        }
        Ok(file.freeze())
    }
}
