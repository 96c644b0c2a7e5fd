//! The file behind the journal: `{length u32, crc u32, operations}` after one another.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Found;

const HEADER: usize = 8;
const PUT: u8 = 1;
const DELETE: u8 = 2;
/// Below this size the file is left alone.
const COMPACT_FROM: u64 = 64 << 20;

pub(super) fn encode_put(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    out.push(PUT);
    encode_bytes(out, key.as_bytes());
    encode_bytes(out, value);
}

pub(super) fn encode_delete(out: &mut Vec<u8>, key: &str) {
    out.push(DELETE);
    encode_bytes(out, key.as_bytes());
}

fn encode_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("no key or value has 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// One operation of a batch; `value` is relative to the start of the batch.
struct Operation<'a> {
    key: &'a str,
    value: Option<std::ops::Range<usize>>,
}

fn decode(batch: &[u8]) -> Result<Vec<Operation<'_>>> {
    let mut operations = Vec::new();
    let mut at = 0;
    while at < batch.len() {
        let kind = batch[at];
        at += 1;
        let key = decode_bytes(batch, &mut at)?;
        let key = std::str::from_utf8(&batch[key]).context("a key is not text")?;
        let value = match kind {
            PUT => Some(decode_bytes(batch, &mut at)?),
            DELETE => None,
            other => anyhow::bail!("unknown operation {other}"),
        };
        operations.push(Operation { key, value });
    }
    Ok(operations)
}

fn decode_bytes(batch: &[u8], at: &mut usize) -> Result<std::ops::Range<usize>> {
    let length = batch.get(*at..*at + 4).context("a batch ends early")?;
    let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
    let start = *at + 4;
    anyhow::ensure!(start + length <= batch.len(), "a batch ends early");
    *at = start + length;
    Ok(start..start + length)
}

pub(super) struct Log {
    dir: PathBuf,
    file: File,
    size: u64,
    /// Where the live value of a key is: offset and length in the file.
    live: HashMap<String, (u64, u32)>,
    live_size: u64,
}

impl Log {
    pub(super) fn open(dir: &Path) -> Result<(Self, Found)> {
        let path = dir.join("journal");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        let mut log = Self {
            dir: dir.to_owned(),
            file: file.try_clone()?,
            size: 0,
            live: HashMap::new(),
            live_size: 0,
        };
        let mut found = Found::new();
        let mut reader = BufReader::with_capacity(1 << 20, &mut file);
        while let Some(batch) = read_batch(&mut reader)? {
            for operation in decode(&batch)? {
                match &operation.value {
                    Some(value) => found.insert(operation.key.into(), batch[value.clone()].into()),
                    None => found.remove(operation.key),
                };
            }
            log.index(&batch)?;
            log.size += (HEADER + batch.len()) as u64;
        }
        // What follows the last whole batch was being written when the process died.
        log.file.set_len(log.size)?;
        log.file.seek(SeekFrom::Start(log.size))?;
        Ok((log, found))
    }

    pub(super) fn append(&mut self, batches: &[Vec<u8>]) -> Result<()> {
        let mut bytes = Vec::with_capacity(batches.iter().map(|b| b.len() + HEADER).sum());
        for batch in batches {
            frame(&mut bytes, batch);
        }
        self.file.write_all(&bytes)?;
        for batch in batches {
            self.index(batch)?;
            self.size += (HEADER + batch.len()) as u64;
        }
        Ok(())
    }

    /// Enters the batch that starts at the current size.
    fn index(&mut self, batch: &[u8]) -> Result<()> {
        let start = self.size + HEADER as u64;
        for operation in decode(batch)? {
            let size = |length: u32| operation.key.len() as u64 + u64::from(length);
            let previous = match &operation.value {
                Some(value) => {
                    let length = u32::try_from(value.len())?;
                    self.live_size += size(length);
                    let place = (start + value.start as u64, length);
                    self.live.insert(operation.key.to_owned(), place)
                }
                None => self.live.remove(operation.key),
            };
            if let Some((_, length)) = previous {
                self.live_size -= size(length);
            }
        }
        Ok(())
    }

    /// Rewrites the file with the live values only, when most of it is dead.
    pub(super) fn compact_when_worth_it(&mut self) -> Result<()> {
        if self.size < COMPACT_FROM || self.size < 3 * self.live_size {
            return Ok(());
        }
        let path = self.dir.join("journal.new");
        let mut new = Self {
            dir: self.dir.clone(),
            file: OpenOptions::new()
                .create(true)
                .truncate(true)
                .read(true)
                .write(true)
                .open(&path)?,
            size: 0,
            live: HashMap::with_capacity(self.live.len()),
            live_size: 0,
        };
        let mut batch = Vec::new();
        for (key, (offset, length)) in &self.live {
            let mut value = vec![0; *length as usize];
            self.file.read_exact_at(&mut value, *offset)?;
            encode_put(&mut batch, key, &value);
            if batch.len() >= 1 << 20 {
                new.append(&[std::mem::take(&mut batch)])?;
            }
        }
        new.append(&[batch])?;
        new.file.sync_data()?;
        std::fs::rename(&path, self.dir.join("journal"))?;
        *self = new;
        Ok(())
    }
}

fn frame(out: &mut Vec<u8>, batch: &[u8]) {
    let length = u32::try_from(batch.len()).expect("no batch has 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(batch).to_le_bytes());
    out.extend_from_slice(batch);
}

/// The next whole batch; `None` at the end or at a torn tail.
fn read_batch(reader: &mut impl std::io::Read) -> Result<Option<Vec<u8>>> {
    let mut header = [0; HEADER];
    if !read_fully(reader, &mut header)? {
        return Ok(None);
    }
    let (length, crc) = header.split_at(4);
    let length = u32::from_le_bytes(length.try_into().expect("four bytes"));
    let crc = u32::from_le_bytes(crc.try_into().expect("four bytes"));
    let mut batch = Vec::new();
    reader.take(u64::from(length)).read_to_end(&mut batch)?;
    Ok((batch.len() == length as usize && crc32fast::hash(&batch) == crc).then_some(batch))
}

fn read_fully(reader: &mut impl std::io::Read, buffer: &mut [u8]) -> Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error.into()),
    }
}
