//! Decrypted file metadata, kept by file identity.
//!
//! DataFusion's own cache is off for encrypted files, so that each query would decrypt each footer anew. This one belongs
//! to one open lake: decrypted metadata hold statistics and what opens the pages, so they are never shared with a session
//! of other keys, and never global.
//!
//! Beside them stand filters: four bytes of each id of a file that was written or read whole. A first extract of millions of
//! tickets asks of every file whether it holds the ids at hand, and the filters answer nearly always that it does not,
//! without a read.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parquet::file::metadata::ParquetMetaData;

use crate::lake::manifest::DataFile;
use crate::model::ObjectId;

/// Default bound: the metadata of about 500 files of 250 columns and one row group (130 KB each).
const DEFAULT_BYTES: usize = 64 << 20;

/// Filters of 8 million ids.
const FILTER_BYTES: usize = 32 << 20;

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
    filters: Mutex<Filters>,
}

/// Filters, oldest first to go.
#[derive(Default)]
struct Filters {
    by_identity: HashMap<Identity, IdFilter>,
    by_age: VecDeque<Identity>,
    bytes: usize,
}

/// The fingerprints of all ids of a file, ascending.
#[derive(Clone)]
pub(in crate::lake) struct IdFilter(Arc<[u32]>);

impl IdFilter {
    pub(in crate::lake) fn new(ids: impl Iterator<Item = ObjectId>) -> Self {
        let mut fingerprints: Vec<u32> = ids.map(fingerprint).collect();
        fingerprints.sort_unstable();
        Self(fingerprints.into())
    }

    /// Keeps of some ids, given by ascending fingerprint, those that the file may hold.
    pub(in crate::lake) fn select(&self, wanted: &[(u32, ObjectId)]) -> Vec<ObjectId> {
        let mut held = self.0.iter().copied().peekable();
        let mut kept = Vec::new();
        for (fingerprint, id) in wanted {
            while held.next_if(|held| held < fingerprint).is_some() {}
            if held.peek() == Some(fingerprint) {
                kept.push(*id);
            }
        }
        kept
    }
}

/// Mixes an id into 32 bits; ids of one process differ in their last bytes only.
pub(in crate::lake) fn fingerprint(id: ObjectId) -> u32 {
    let bytes = id.as_bytes();
    let (first, last) = (bytes.first_chunk::<4>(), bytes.last_chunk::<8>());
    let first = u64::from(u32::from_le_bytes(first.copied().unwrap_or_default()));
    let mixed = (u64::from_le_bytes(last.copied().unwrap_or_default()) ^ first.rotate_left(32))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32
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
            filters: Mutex::default(),
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

    pub(in crate::lake) fn filter(&self, file: &DataFile) -> Option<IdFilter> {
        self.filters().by_identity.get(&identity(file)).cloned()
    }

    pub(in crate::lake) fn insert_filter(&self, file: &DataFile, filter: IdFilter) {
        let size = size_of_val(&*filter.0);
        let mut filters = self.filters();
        if size > FILTER_BYTES || filters.by_identity.contains_key(&identity(file)) {
            return;
        }
        while filters.bytes + size > FILTER_BYTES {
            let Some(oldest) = filters.by_age.pop_front() else { break };
            if let Some(freed) = filters.by_identity.remove(&oldest) {
                filters.bytes -= size_of_val(&*freed.0);
            }
        }
        filters.bytes += size;
        filters.by_age.push_back(identity(file));
        filters.by_identity.insert(identity(file), filter);
    }

    fn filters(&self) -> MutexGuard<'_, Filters> {
        self.0.filters.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u32) -> ObjectId {
        let mut bytes = [7; 12];
        bytes[8..].copy_from_slice(&number.to_be_bytes());
        ObjectId::from_bytes(bytes)
    }

    proptest! {
        #[test]
        fn filter_keeps_every_id_that_is_there(held in prop::collection::vec(0_u32..2_000, 0..300), asked in prop::collection::vec(0_u32..2_000, 0..300)) {
            let filter = IdFilter::new(held.iter().map(|number| id(*number)));
            let mut wanted: Vec<(u32, ObjectId)> = asked.iter().map(|number| (fingerprint(id(*number)), id(*number))).collect();
            wanted.sort_unstable();
            let kept = filter.select(&wanted);
            for number in &asked {
                prop_assert!(!held.contains(number) || kept.contains(&id(*number)));
            }
        }
    }

    #[test]
    fn filter_rejects_nearly_every_id_that_is_not_there() {
        let filter = IdFilter::new((0..20_000).map(id));
        let mut wanted: Vec<(u32, ObjectId)> =
            (20_000..40_000).map(|number| (fingerprint(id(number)), id(number))).collect();
        wanted.sort_unstable();
        assert!(filter.select(&wanted).len() < 5);
    }

    #[test]
    fn filters_stay_within_their_bound() {
        let cache = MetadataCache::default();
        let many = FILTER_BYTES / size_of::<u32>() / 4;
        let ring = crate::keys::KeyRing::generate("lake", 0).unwrap();
        let (_, file) = crate::lake::scan::fixtures::encoded(&ring, "a", 0, 1);
        let files: Vec<DataFile> =
            (0..6).map(|number| DataFile { path: format!("{number}"), ..file.clone() }).collect();
        for file in &files {
            cache.insert_filter(file, IdFilter((0..many as u32).collect()));
        }
        let held: Vec<bool> = files.iter().map(|file| cache.filter(file).is_some()).collect();
        assert_eq!(held, [false, false, true, true, true, true]);
    }
}
