//! Decrypted metadata of files, kept by file identity.
//!
//! DataFusion's own cache is off for encrypted files, so that each query would decrypt each footer anew. This one belongs
//! to one open lake: decrypted metadata hold statistics and what opens the pages, so they are never shared with a session
//! of other keys, and never global. Those of a file with restricted columns are known by the restricted ring, too, by which
//! they were opened, or by its absence: whoever hands one cache to sessions of different rights shares nothing by it.
//!
//! Beside them stand the headers of the files' indexes, of files that were written and of files that were asked. A first
//! extract of millions of tickets asks of every file whether it holds the ids at hand, and the headers answer nearly always
//! that it does not, without a read.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parquet::file::metadata::ParquetMetaData;

use crate::keys::KeyRing;
use crate::lake::index::Header;
use crate::lake::manifest::DataFile;

/// Default bound: the metadata of about 500 files of 250 columns and one row group (130 KB each).
const DEFAULT_BYTES: usize = 64 << 20;

/// Headers of the indexes of 8 million rows.
const INDEX_BYTES: usize = 32 << 20;

/// A file's path and pin, and the version of the restricted ring that opened its restricted columns.
type Identity = (String, [u8; 32], Option<u32>);

/// A cache of decrypted metadata, bounded in memory, oldest entries first to go. Cheap to clone.
#[derive(Clone)]
pub struct MetadataCache(Arc<Shared>);

struct Shared {
    hits: AtomicU64,
    misses: AtomicU64,
    metadata: Mutex<Entries<ParquetMetaData>>,
    indexes: Mutex<Entries<Header>>,
}

/// What is kept, oldest first to go, with the memory that each takes.
struct Entries<T> {
    capacity_bytes: usize,
    by_identity: HashMap<Identity, (Arc<T>, usize)>,
    by_age: VecDeque<Identity>,
    bytes: usize,
}

impl<T> Entries<T> {
    fn with_capacity(capacity_bytes: usize) -> Mutex<Self> {
        Mutex::new(Self { capacity_bytes, by_identity: HashMap::new(), by_age: VecDeque::new(), bytes: 0 })
    }

    fn get(&self, identity: &Identity) -> Option<Arc<T>> {
        self.by_identity.get(identity).map(|(entry, _)| Arc::clone(entry))
    }

    fn insert(&mut self, identity: Identity, entry: &Arc<T>, size: usize) {
        if size > self.capacity_bytes || self.by_identity.contains_key(&identity) {
            return;
        }
        while self.bytes + size > self.capacity_bytes {
            let Some(oldest) = self.by_age.pop_front() else { break };
            if let Some((_, freed)) = self.by_identity.remove(&oldest) {
                self.bytes -= freed;
            }
        }
        self.bytes += size;
        self.by_age.push_back(identity.clone());
        self.by_identity.insert(identity, (Arc::clone(entry), size));
    }
}

impl MetadataCache {
    /// Makes an empty cache that holds up to `capacity_bytes` of metadata, and the headers of indexes in a bound of their own.
    #[must_use]
    pub fn with_capacity(capacity_bytes: usize) -> Self {
        Self(Arc::new(Shared {
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            metadata: Entries::with_capacity(capacity_bytes),
            indexes: Entries::with_capacity(INDEX_BYTES),
        }))
    }

    /// Returns how often metadata were found, and how often they had to be read.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.0.hits.load(Ordering::Relaxed), self.0.misses.load(Ordering::Relaxed))
    }

    pub(super) fn get(&self, file: &DataFile, ring: &KeyRing) -> Option<Arc<ParquetMetaData>> {
        let found = lock(&self.0.metadata).get(&identity(file, Some(ring)));
        let counter = if found.is_some() { &self.0.hits } else { &self.0.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    pub(super) fn insert(&self, file: &DataFile, ring: &KeyRing, metadata: &Arc<ParquetMetaData>) {
        lock(&self.0.metadata).insert(identity(file, Some(ring)), metadata, metadata.memory_size());
    }

    /// Returns the header of a file's index.
    pub(in crate::lake) fn index(&self, file: &DataFile) -> Option<Arc<Header>> {
        lock(&self.0.indexes).get(&identity(file, None))
    }

    /// Keeps the header of a file's index.
    pub(in crate::lake) fn insert_index(&self, file: &DataFile, header: &Arc<Header>) {
        lock(&self.0.indexes).insert(identity(file, None), header, header.memory_bytes());
    }
}

fn lock<T>(entries: &Mutex<Entries<T>>) -> MutexGuard<'_, Entries<T>> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

fn identity(file: &DataFile, ring: Option<&KeyRing>) -> Identity {
    let restricted = ring.filter(|_| file.restricted_key.is_some()).and_then(KeyRing::restricted);
    (file.path.clone(), file.pin, restricted.map(KeyRing::version))
}

impl Default for MetadataCache {
    fn default() -> Self {
        Self::with_capacity(DEFAULT_BYTES)
    }
}

impl fmt::Debug for MetadataCache {
    // The metadata hold values of rows and keys of files: only their number is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetadataCache")
            .field("files", &lock(&self.0.metadata).by_identity.len())
            .field("indexes", &lock(&self.0.indexes).by_identity.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_entries_make_room_and_too_large_ones_are_not_kept() {
        let entries = Entries::with_capacity(10);
        let files: Vec<DataFile> =
            (0..6).map(|number| DataFile { path: format!("{number}"), ..DataFile::default() }).collect();
        for (file, size) in files.iter().zip([4, 4, 3, 3, 11, 4]) {
            lock(&entries).insert(identity(file, None), &Arc::new(file.path.clone()), size);
        }
        let held: Vec<bool> = files.iter().map(|file| lock(&entries).get(&identity(file, None)).is_some()).collect();
        assert_eq!((held, lock(&entries).bytes), (vec![false, false, true, true, false, true], 10));
        let other = DataFile { pin: [1; 32], ..files[5].clone() };
        assert!(lock(&entries).get(&identity(&other, None)).is_none(), "a file is known by its pin, too");
    }
}
