//! Decrypted file metadata, kept by file identity.
//!
//! DataFusion's own cache is off for encrypted files, so that each query would decrypt each footer anew. This one belongs
//! to one open lake: decrypted metadata hold statistics and what opens the pages, so they are never shared with a session
//! of other keys, and never global.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parquet::file::metadata::ParquetMetaData;

use crate::lake::manifest::DataFile;

/// Default bound: the metadata of about 2,000 files of a hundred columns and one row group (130 KB each).
const DEFAULT_BYTES: usize = 256 << 20;

/// A file's path and pin.
type Identity = (String, [u8; 32]);

/// A cache of decrypted metadata, bounded in memory, oldest entries first to go. Cheap to clone.
#[derive(Clone)]
pub struct MetadataCache(Arc<Shared>);

struct Shared {
    capacity_bytes: usize,
    hits: AtomicU64,
    misses: AtomicU64,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    by_identity: HashMap<Identity, (Arc<ParquetMetaData>, usize)>,
    by_age: VecDeque<Identity>,
    bytes: usize,
}

impl MetadataCache {
    /// Makes an empty cache that holds up to `capacity_bytes` of metadata.
    #[must_use]
    pub fn with_capacity(capacity_bytes: usize) -> Self {
        Self(Arc::new(Shared {
            capacity_bytes,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            entries: Mutex::default(),
        }))
    }

    /// Returns how often metadata were found, and how often they had to be read.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.0.hits.load(Ordering::Relaxed), self.0.misses.load(Ordering::Relaxed))
    }

    pub(super) fn get(&self, file: &DataFile) -> Option<Arc<ParquetMetaData>> {
        let found = self.entries().by_identity.get(&identity(file)).map(|(metadata, _)| Arc::clone(metadata));
        let counter = if found.is_some() { &self.0.hits } else { &self.0.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    pub(super) fn insert(&self, file: &DataFile, metadata: &Arc<ParquetMetaData>) {
        let size = metadata.memory_size();
        let mut entries = self.entries();
        if size > self.0.capacity_bytes || entries.by_identity.contains_key(&identity(file)) {
            return;
        }
        while entries.bytes + size > self.0.capacity_bytes {
            let Some(oldest) = entries.by_age.pop_front() else { break };
            if let Some((_, freed)) = entries.by_identity.remove(&oldest) {
                entries.bytes -= freed;
            }
        }
        entries.bytes += size;
        entries.by_age.push_back(identity(file));
        entries.by_identity.insert(identity(file), (Arc::clone(metadata), size));
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn identity(file: &DataFile) -> Identity {
    (file.path.clone(), file.pin)
}

impl Default for MetadataCache {
    fn default() -> Self {
        Self::with_capacity(DEFAULT_BYTES)
    }
}

impl fmt::Debug for MetadataCache {
    // The metadata hold values of rows and keys of files: only their number is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetadataCache").field("files", &self.entries().by_identity.len()).finish_non_exhaustive()
    }
}
