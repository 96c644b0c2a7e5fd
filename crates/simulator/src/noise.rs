//! Frames after the handshake: AES-256-GCM with one counter per direction, and binary XML inside.

use anyhow::Result;
use bytes::BytesMut;
use wacore_binary::OwnedNodeRef;
use wacore_binary::util::unpack_bytes;
use wacore_noise::NoiseCipher;
use wacore_noise::framing::append_frame_into;

/// Seals stanzas towards the client.
pub(crate) struct Sealer {
    cipher: NoiseCipher,
    counter: u32,
}

impl Sealer {
    pub(crate) fn new(cipher: NoiseCipher) -> Self {
        Self { cipher, counter: 0 }
    }

    /// Appends the frame of a marshalled stanza to `out`.
    pub(crate) fn seal(&mut self, stanza: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let sealed = self.cipher.encrypt_with_counter(self.counter, stanza)?;
        self.counter += 1;
        append_frame_into(&sealed, None, out)?;
        Ok(())
    }
}

/// Opens frames from the client.
pub(crate) struct Opener {
    cipher: NoiseCipher,
    counter: u32,
}

impl Opener {
    pub(crate) fn new(cipher: NoiseCipher) -> Self {
        Self { cipher, counter: 0 }
    }

    pub(crate) fn open(&mut self, mut frame: BytesMut) -> Result<OwnedNodeRef> {
        self.cipher
            .decrypt_in_place_with_counter(self.counter, &mut frame)?;
        self.counter += 1;
        Ok(OwnedNodeRef::new(unpack_bytes(frame)?)?)
    }
}
