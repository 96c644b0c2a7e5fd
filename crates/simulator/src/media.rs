//! Encrypted files: uploaded and fetched over HTTP, kept in memory, the oldest forgotten first.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

mod reupload;

pub(crate) use reupload::asked;

/// What a file is encrypted with.
pub(crate) type MediaKey = [u8; 32];

/// The largest file.
pub(crate) const MAX_FILE: usize = 128 << 20;
/// So many, however small, and gone ones too.
const MAX_FILES: usize = 100_000;
/// All files together.
const MAX_TOTAL: usize = 512 << 20;

/// What can be asked about a file.
#[derive(Clone, Serialize)]
pub(crate) struct File {
    /// Where it is fetched.
    pub(crate) direct_path: String,
    pub(crate) kind: String,
    /// Of the encrypted bytes.
    pub(crate) size: usize,
    pub(crate) downloads: u64,
    pub(crate) corrupt: bool,
    /// The status that it is refused with.
    pub(crate) gone: Option<u16>,
    #[serde(skip)]
    bytes: Bytes,
    /// Of those that were made here.
    #[serde(skip)]
    key: Option<MediaKey>,
}

pub(crate) struct Media {
    /// What a client must show to upload.
    pub(crate) auth: String,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    files: HashMap<String, File>,
    oldest_first: VecDeque<String>,
    total: usize,
}

impl Default for Media {
    fn default() -> Self {
        Self {
            auth: BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 24]>()),
            inner: Mutex::default(),
        }
    }
}

/// What a download leads to.
pub(crate) enum Found {
    Bytes(Bytes),
    Gone(u16),
    Nothing,
}

impl Media {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while holding the media")
    }

    /// Where a file of that kind with that hash is.
    pub(crate) fn path(kind: &str, token: &str) -> String {
        format!("/v/{kind}/{token}_n.enc")
    }

    /// The name of a file by what is in it.
    pub(crate) fn token(bytes: &[u8]) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(bytes))
    }

    /// Keeps a file; the same one again is as new.
    pub(crate) fn add(&self, kind: &str, bytes: Bytes, key: Option<MediaKey>) -> String {
        let path = Self::path(kind, &Self::token(&bytes));
        let file = File {
            direct_path: path.clone(),
            kind: kind.to_owned(),
            size: bytes.len(),
            downloads: 0,
            corrupt: false,
            gone: None,
            bytes,
            key,
        };
        self.lock().insert(file);
        path
    }

    /// Puts a file that is gone where it can be fetched again: the newest of those whose key is
    /// the one that is meant. Its new place, and the key.
    pub(crate) fn put_back(&self, meant: impl Fn(&MediaKey) -> bool) -> Option<(String, MediaKey)> {
        let mut inner = self.lock();
        let newest_first = inner.oldest_first.iter().rev();
        let mut gone = newest_first.filter_map(|path| inner.files.get(path));
        let file =
            gone.find(|file| file.gone.is_some() && file.key.as_ref().is_some_and(&meant))?;
        let mut file = file.clone();
        let key = file.key?;
        let turn: u32 = rand::random();
        file.direct_path = format!(
            "/v/{}/{}_{turn:08x}.enc",
            file.kind,
            Self::token(&file.bytes)
        );
        file.gone = None;
        let path = file.direct_path.clone();
        inner.insert(file);
        Some((path, key))
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        let inner = self.lock();
        inner
            .files
            .get(path)
            .is_some_and(|file| file.gone.is_none())
    }

    pub(crate) fn fetch(&self, path: &str) -> Found {
        let mut inner = self.lock();
        let Some(file) = inner.files.get_mut(path) else {
            return Found::Nothing;
        };
        if let Some(status) = file.gone {
            return Found::Gone(status);
        }
        file.downloads += 1;
        Found::Bytes(file.bytes.clone())
    }

    /// It is refused with that status from now on; the phone that sent it still has it.
    pub(crate) fn forget(&self, path: &str, status: u16) -> bool {
        let mut inner = self.lock();
        let Some(file) = inner.files.get_mut(path) else {
            return false;
        };
        file.gone = Some(status);
        true
    }

    /// One byte of it is another from now on.
    pub(crate) fn corrupt(&self, path: &str) -> bool {
        let mut inner = self.lock();
        let Some(file) = inner.files.get_mut(path) else {
            return false;
        };
        let mut bytes = file.bytes.to_vec();
        if let Some(byte) = bytes.first_mut() {
            *byte ^= 0xff;
        }
        file.bytes = bytes.into();
        file.corrupt = true;
        true
    }

    pub(crate) fn list(&self) -> Vec<File> {
        let inner = self.lock();
        let paths = inner.oldest_first.iter();
        paths
            .filter_map(|path| inner.files.get(path).cloned())
            .collect()
    }
}

impl Inner {
    fn insert(&mut self, file: File) {
        let path = file.direct_path.clone();
        self.remove(&path);
        self.total += file.bytes.len();
        self.oldest_first.push_back(path.clone());
        self.files.insert(path, file);
        while (self.total > MAX_TOTAL || self.files.len() > MAX_FILES)
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            let forgotten = self.files.remove(&oldest);
            self.total -= forgotten.map_or(0, |file| file.bytes.len());
        }
    }

    fn remove(&mut self, path: &str) {
        if let Some(file) = self.files.remove(path) {
            self.total -= file.bytes.len();
            self.oldest_first.retain(|known| known != path);
        }
    }
}
