//! What a reconciliation asks of the lake: which records it holds, and whose they are.
//!
//! Ids only. They are merged from the files in their order, of which each is sorted, so that a table of any size is
//! walked within the memory of one batch per file.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::fmt;
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::error::Result;
use crate::lake::manifest::{DataFile, Manifest, TableState};
use crate::lake::scan::{self, Access, FileIds, FoundKey};
use crate::lake::{Inner, Lake};
use crate::model::{ObjectId, Stream};
use crate::policy::RecordKey;

/// The ids of the live rows of a table, ascending.
pub struct LiveIds {
    lake: Arc<Inner>,
    key_column: &'static str,
    /// Files that no id was read of yet, by smallest key, the first last.
    waiting: Vec<(ObjectId, Arc<DataFile>)>,
    open: Vec<FileIds>,
    /// The next id of each open file.
    next: BinaryHeap<Reverse<(ObjectId, usize)>>,
}

impl fmt::Debug for LiveIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveIds")
            .field("waiting", &self.waiting.len())
            .field("open", &self.open.len())
            .finish_non_exhaustive()
    }
}

impl LiveIds {
    /// Returns the next ids, at most `limit`; fewer only at the end.
    ///
    /// # Errors
    ///
    /// [`Data`](crate::error::ErrorKind::Data) when a file is missing or damaged;
    /// [`Unavailable`](crate::error::ErrorKind::Unavailable) when the store does not answer.
    pub async fn next(&mut self, limit: usize) -> Result<Vec<ObjectId>> {
        let mut ids = Vec::with_capacity(limit);
        while ids.len() < limit {
            while let Some((first, file)) = self.waiting.last() {
                if self.next.peek().is_some_and(|Reverse((next, _))| next < first) {
                    break;
                }
                let (store, cache, ring) = (&self.lake.store, &self.lake.look_ups, &self.lake.ring);
                let mut opened = FileIds::open(store, cache, ring, file, (self.key_column, None), dead(file)).await?;
                if let Some((id, _)) = opened.next().await? {
                    self.next.push(Reverse((id, self.open.len())));
                    self.open.push(opened);
                }
                self.waiting.pop();
            }
            let Some(Reverse((id, place))) = self.next.pop() else { break };
            ids.push(id);
            if let Some((following, _)) = self.open[place].next().await? {
                self.next.push(Reverse((following, place)));
            }
        }
        Ok(ids)
    }
}

impl Lake {
    /// Walks the ids of a table's live rows, ascending.
    ///
    /// # Errors
    ///
    /// [`Data`](crate::error::ErrorKind::Data) when the manifest names keys that are no record ids.
    pub fn live_ids(&self, manifest: &Manifest, stream: Stream) -> Result<LiveIds> {
        let files = files(manifest, stream).iter().filter(|file| file.live_rows() > 0);
        let mut waiting: Vec<(ObjectId, Arc<DataFile>)> =
            files.map(|file| Ok((file.key_range()?.0, Arc::clone(file)))).collect::<Result<_>>()?;
        waiting.sort_by_key(|(first, _)| Reverse(*first));
        Ok(LiveIds {
            lake: Arc::clone(&self.0),
            key_column: stream.key_column(),
            waiting,
            open: Vec::new(),
            next: BinaryHeap::new(),
        })
    }

    /// Finds the newest revisions that the lake has of these records, tombstones too; in no order.
    ///
    /// # Errors
    ///
    /// Those of [`LiveIds::next`].
    pub async fn newest_keys(
        &self,
        manifest: &Manifest,
        stream: Stream,
        ids: &HashSet<ObjectId>,
    ) -> Result<Vec<RecordKey>> {
        let (store, ring, cache) = (Arc::clone(&self.0.store), self.0.ring.clone(), self.0.look_ups.clone());
        let access = Access { store, ring, cache };
        let files = files(manifest, stream);
        let found = scan::find_counting(&access, files, stream.key_column(), ids.iter().copied()).await?;
        let key = |(_, row): (usize, FoundKey)| RecordKey {
            id: row.id,
            updated_at_ms: row.updated_at_ms,
            rev: row.rev,
            deleted: row.deleted,
        };
        Ok(found.into_iter().map(key).collect())
    }

    /// Finds the live rows whose `column` holds one of these ids, among those that came in up to a version; ascending.
    ///
    /// Files are told by the versions of their rows, so of one that was rewritten since all rows count that match.
    ///
    /// # Errors
    ///
    /// Those of [`LiveIds::next`].
    pub async fn referring(
        &self,
        manifest: &Manifest,
        version: u64,
        (stream, column): (Stream, &str),
        wanted: &HashSet<ObjectId>,
    ) -> Result<Vec<ObjectId>> {
        let mut found = Vec::new();
        let known = |file: &&Arc<DataFile>| file.appended.is_none_or(|(first, _)| first <= version);
        for file in files(manifest, stream).iter().filter(known) {
            let columns = (stream.key_column(), Some(column));
            let inner = &self.0;
            let mut rows = FileIds::open(&inner.store, &inner.look_ups, &inner.ring, file, columns, dead(file)).await?;
            while let Some((id, other)) = rows.next().await? {
                if other.is_some_and(|other| wanted.contains(&other)) {
                    found.push(id);
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Lists the records whose tombstones came in after a version.
    ///
    /// Files are told by the versions of their rows, so one that joins older and newer rows yields the older ones as well.
    ///
    /// # Errors
    ///
    /// Those of [`LiveIds::next`].
    pub async fn tombstones_since(
        &self,
        manifest: &Manifest,
        version: u64,
        stream: Stream,
    ) -> Result<HashSet<ObjectId>> {
        let mut found = HashSet::new();
        let newer = |file: &&Arc<DataFile>| file.appended.is_none_or(|(_, last)| last > version);
        for file in files(manifest, stream).iter().filter(newer) {
            let wanted = &file.tombstones - &file.superseded;
            if wanted.is_empty() {
                continue;
            }
            let rows = u32::try_from(file.rows).unwrap_or(u32::MAX);
            let mut others = RoaringBitmap::new();
            others.insert_range(0..rows);
            others -= wanted;
            let columns = (stream.key_column(), None);
            let inner = &self.0;
            let mut rows = FileIds::open(&inner.store, &inner.look_ups, &inner.ring, file, columns, others).await?;
            while let Some((id, _)) = rows.next().await? {
                found.insert(id);
            }
        }
        Ok(found)
    }
}

fn files(manifest: &Manifest, stream: Stream) -> &[Arc<DataFile>] {
    manifest.tables.get(&stream).map_or(&[][..], |table: &TableState| &table.files)
}

/// Returns the rows of a file that do not live.
fn dead(file: &DataFile) -> RoaringBitmap {
    &file.superseded | &file.tombstones
}
