//! Decrypting a file while it comes. AES-256 in CBC mode; behind it the first ten bytes of an HMAC-SHA256 over
//! all of it; the keys are derived from the message's for the file's kind. Pure.
//!
//! That the file is the one that was sent is known at its end only. The end is therefore held back until then.

use aes::Aes256;
use aes::cipher::array::Array;
use aes::cipher::{BlockModeDecrypt, KeyIvInit};
use bytes::{Bytes, BytesMut};
use domain::media::{Bytes32, File};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

const BLOCK: usize = 16;
const MAC: usize = 10;
/// Two blocks and the MAC: the last block may be padding and nothing else, and what is held back must hold
/// some of the file.
const HELD: usize = 2 * BLOCK + MAC;

/// Why a file is not the one that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Tampered {
    #[error("its length is not that of an encrypted file")]
    Length,
    #[error("its MAC is wrong")]
    Mac,
    #[error("its padding is wrong")]
    Padding,
    #[error("the hash of the encrypted file is another")]
    EncryptedHash,
    #[error("the hash of the file is another")]
    Hash,
    #[error("it is larger or smaller than its sender said")]
    Size,
}

/// A file under way.
pub(crate) struct Decryptor {
    cipher: cbc::Decryptor<Aes256>,
    mac: Hmac<Sha256>,
    encrypted: Sha256,
    plain: Sha256,
    /// What came and is not decrypted yet.
    held: BytesMut,
    given: u64,
    size: u64,
    file_enc_sha256: Bytes32,
    file_sha256: Bytes32,
}

/// Bytes of a file once it is encrypted: padded by one byte to a block, and its MAC.
pub(crate) fn encrypted_size(size: u64) -> u64 {
    (size / BLOCK as u64)
        .saturating_add(1)
        .saturating_mul(BLOCK as u64)
        .saturating_add(MAC as u64)
}

impl Decryptor {
    pub(crate) fn new(file: &File) -> Self {
        let mut keys = [0; 112];
        Hkdf::<Sha256>::new(None, &file.media_key.0)
            .expand(file.kind.key_info().as_bytes(), &mut keys)
            .expect("HKDF gives so many bytes");
        let (iv, keys) = keys.split_at(BLOCK);
        let (cipher_key, keys) = keys.split_at(32);
        let mut mac = Hmac::<Sha256>::new_from_slice(&keys[..32]).expect("a key of any length");
        mac.update(iv);
        Self {
            cipher: cbc::Decryptor::new_from_slices(cipher_key, iv).expect("of these lengths"),
            mac,
            encrypted: Sha256::new(),
            plain: Sha256::new(),
            held: BytesMut::new(),
            given: 0,
            size: file.size,
            file_enc_sha256: file.file_enc_sha256,
            file_sha256: file.file_sha256,
        }
    }

    /// What can be given away of the file now that more of it is here.
    pub(crate) fn update(&mut self, chunk: &[u8]) -> Result<Bytes, Tampered> {
        self.held.extend_from_slice(chunk);
        let ready = self.held.len().saturating_sub(HELD) / BLOCK * BLOCK;
        let mut blocks = self.held.split_to(ready);
        self.decrypt(&mut blocks);
        self.given += ready as u64;
        match self.given <= self.size {
            true => {
                self.plain.update(&blocks);
                Ok(blocks.freeze())
            }
            false => Err(Tampered::Size),
        }
    }

    /// The end of the file, if it is the one that was sent.
    pub(crate) fn finish(mut self) -> Result<Bytes, Tampered> {
        let mut blocks = std::mem::take(&mut self.held);
        let length = blocks.len().checked_sub(MAC).ok_or(Tampered::Length)?;
        let tag = blocks.split_off(length);
        if length == 0 || !length.is_multiple_of(BLOCK) {
            return Err(Tampered::Length);
        }
        self.decrypt(&mut blocks);
        self.mac
            .verify_truncated_left(&tag)
            .map_err(|_| Tampered::Mac)?;
        self.encrypted.update(&tag);
        if self.encrypted.finalize()[..] != self.file_enc_sha256.0 {
            return Err(Tampered::EncryptedHash);
        }
        let length = unpadded(&blocks).ok_or(Tampered::Padding)?;
        blocks.truncate(length);
        if self.given + length as u64 != self.size {
            return Err(Tampered::Size);
        }
        self.plain.update(&blocks);
        match self.plain.finalize()[..] == self.file_sha256.0 {
            true => Ok(blocks.freeze()),
            false => Err(Tampered::Hash),
        }
    }

    fn decrypt(&mut self, blocks: &mut [u8]) {
        self.mac.update(blocks);
        self.encrypted.update(&*blocks);
        let (blocks, _) = Array::slice_as_chunks_mut(blocks);
        self.cipher.decrypt_blocks(blocks);
    }
}

/// Bytes without the padding (PKCS #7).
fn unpadded(blocks: &[u8]) -> Option<usize> {
    let last = usize::from(*blocks.last()?);
    let length = blocks.len().checked_sub(last)?;
    let padding = &blocks[length..];
    let is_good =
        (1..=BLOCK).contains(&last) && padding.iter().all(|byte| usize::from(*byte) == last);
    is_good.then_some(length)
}

#[cfg(test)]
mod tests;
