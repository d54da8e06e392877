//! The index of a data file: where an id stands, and which revision stands there, by reading little.
//!
//! A commit asks of every file whose keys span its ids which rows it supersedes. The Parquet file could tell, at the price of
//! its footer (some hundred kilobytes for 250 columns) and of whole columns. The index, `data/<table>/<uuid>.index` beside
//! `data/<table>/<uuid>.parquet`, tells by its header alone which rows may hold an id, and by a block or two of 64 rows that
//! they do. It is made with the file, named by the same commit ([`DataFile::index`]), and goes with it. Files of small
//! tables have none; for a file without one the Parquet columns are read.
//!
//! ```text
//! offset  size  content
//! 0       H     header, sealed by `KeyRing::seal_object` for the purpose `index/<path of the data file>`; the manifest
//!               names H
//! H       …     blocks, each of B rows but the last, which has the rest: n = ceil(R / B) of them
//!
//! header:  0     1    format version, 1
//!          1     4    rows R, u32
//!          5     4    rows of a block B, u32, not 0
//!          9     32   key of the blocks, made for this index alone
//!          41    12n  id of the first row of each block, ascending
//!          …     4R   print of each row's id, u32: FNV-1a of 32 bits over its 12 bytes
//!
//! block:   0     12   nonce
//!          12    29m  AES-256-GCM ciphertext of m rows; associated data: the block's number from 0, u32
//!          …     16   tag
//!
//! row:     0     1    what is there: bit 0 `updated_at`, bit 1 `rev`
//!          1     12   id
//!          13    8    `updated_at` in milliseconds since 1970, i64; 0 when absent
//!          21    8    `rev`, i64; 0 when absent
//! ```
//!
//! Integers are little-endian. Rows stand in the order of the file, which is the order of ids, so that a row's place is its
//! position there; which rows are superseded or tombstones is told by the manifest's bitmaps. Values are those of the file's
//! columns: a column that it lacks is absent in each row.
//!
//! The seal binds the header to the lake and to the data file, the key binds the blocks to the header, and their number binds
//! them to their place; so a flipped bit, a cut, and the index of another file are found. Exchanging the ring's key seals the
//! header anew ([`reseal`]) and leaves the blocks.
//!
//! Reader rule: a version that it does not know is refused; lengths follow from R and B, and are compared with those that were
//! read before anything is allocated by them. Writer rule: any other layout raises the version; B is free.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use roaring::RoaringBitmap;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::keys::{BLOCK_OVERHEAD, BlockKey, KeyRing};
use crate::lake::layout;
use crate::lake::manifest::{DataFile, IndexSize};
use crate::lake::scan::{Access, Object};
use crate::model::ObjectId;

const VERSION: u8 = 1;

/// Rows of a block that is written: few, because a look-up mostly wants one of them.
pub(super) const BLOCK_ROWS: u32 = 64;

/// Header before the ids of the blocks.
const HEAD_BYTES: usize = 41;

const ID_BYTES: usize = 12;
const PRINT_BYTES: usize = 4;
const ROW_BYTES: usize = 29;

/// What a seal adds to a header at most.
const SEAL_BYTES: u64 = 7 + 255 + BLOCK_OVERHEAD as u64;

/// Words of the bits of what is wanted at most: 512 KiB.
const BITS_WORDS: usize = 1 << 16;

/// An index of at most this length is read in one call, because a second call costs more than the bytes.
const WHOLE_BYTES: u64 = 64 << 10;

const HAS_UPDATED_AT: u8 = 1;
const HAS_REV: u8 = 2;

/// What an index tells of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Id.
    pub(super) id: ObjectId,
    /// `updated_at` in milliseconds since 1970, where the file has it.
    pub(super) updated_at_ms: Option<i64>,
    /// `rev`, where the file has it.
    pub(super) rev: Option<i64>,
}

/// Ids that are looked for.
pub(super) struct Wanted {
    /// Ascending, each once.
    ids: Vec<(ObjectId, u32)>,
    by_print: Vec<(u32, ObjectId)>,
    /// A bit for each print's low bits: most prints of a file are told to be unwanted by it.
    bits: Vec<u64>,
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted").field("ids", &self.ids.len()).finish_non_exhaustive()
    }
}

impl Wanted {
    /// Takes the ids, in any order.
    pub(super) fn new(ids: impl Iterator<Item = ObjectId>) -> Self {
        let mut ids: Vec<(ObjectId, u32)> = ids.map(|id| (id, print(id))).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut by_print: Vec<(u32, ObjectId)> = ids.iter().map(|(id, print)| (*print, *id)).collect();
        by_print.sort_unstable();
        let mut bits = vec![0; ids.len().next_power_of_two().clamp(1, BITS_WORDS)];
        for (print, _) in &by_print {
            let (word, bit) = place(*print, bits.len());
            bits[word] |= bit;
        }
        Self { ids, by_print, bits }
    }

    /// Returns which of the ids lie between the keys of a file.
    pub(super) fn within(&self, file: &DataFile) -> Result<Range<usize>> {
        let (min, max) = file.key_range()?;
        Ok(self.ids.partition_point(|(id, _)| *id < min)..self.ids.partition_point(|(id, _)| *id <= max))
    }

    /// Returns the ids, ascending.
    pub(super) fn ids(&self) -> impl ExactSizeIterator<Item = ObjectId> + '_ {
        self.ids.iter().map(|(id, _)| *id)
    }

    /// Tells whether an id is wanted.
    pub(super) fn contains(&self, id: ObjectId) -> bool {
        self.ids.binary_search_by_key(&id, |(id, _)| *id).is_ok()
    }

    /// Returns the wanted ids of a print.
    fn of_print(&self, print: u32) -> impl Iterator<Item = ObjectId> + '_ {
        let (word, bit) = place(print, self.bits.len());
        let is_there = self.bits[word] & bit != 0;
        let from =
            if is_there { self.by_print.partition_point(|(known, _)| *known < print) } else { self.by_print.len() };
        self.by_print[from..].iter().take_while(move |(known, _)| *known == print).map(|(_, id)| *id)
    }
}

/// Returns the bit of a print among so many words, a power of two.
fn place(print: u32, words: usize) -> (usize, u64) {
    ((print >> 6) as usize & (words - 1), 1 << (print & 63))
}

/// Tells whether an index of so many rows can have this length.
pub(super) fn is_size_of(size: IndexSize, rows: u64) -> bool {
    let (row, overhead) = (ROW_BYTES as u64, BLOCK_OVERHEAD as u64);
    let longest = |each: u64, once: u64| rows.checked_mul(each).and_then(|bytes| bytes.checked_add(once));
    let header = longest((ID_BYTES + PRINT_BYTES) as u64, SEAL_BYTES + HEAD_BYTES as u64);
    let blocks = longest(row + overhead, 0);
    header.is_some_and(|header| size.header_bytes <= header)
        && size.bytes.checked_sub(size.header_bytes).zip(blocks).is_some_and(|(found, blocks)| found <= blocks)
}

/// The print of an id: FNV-1a, 32 bits.
fn print(id: ObjectId) -> u32 {
    id.as_bytes().iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn purpose(data_file: &str) -> String {
    format!("index/{data_file}")
}

fn damaged(data_file: &str) -> Error {
    Error::data("index of a data file is damaged or was tampered with")
        .with_context("file", layout::index_of(data_file))
        .with_hint("restore it from a backup of the lake")
}

/// Makes the index of a data file whose rows, in their order, are these.
///
/// # Errors
///
/// [`Denied`](crate::error::ErrorKind::Denied) when the ring has no primary key; [`Internal`](crate::error::ErrorKind::Internal)
/// when there are no rows or their ids do not ascend.
pub(super) fn encode(
    ring: &KeyRing,
    data_file: &str,
    rows_per_block: u32,
    entries: impl ExactSizeIterator<Item = Entry> + Clone,
) -> Result<(Bytes, IndexSize, Header)> {
    let wrong = |message| Error::internal(message).with_context("file", data_file);
    let rows = u32::try_from(entries.len()).ok().filter(|rows| *rows > 0 && rows_per_block > 0);
    let rows = rows.ok_or_else(|| wrong("an index cannot have so many rows"))?;
    let mut ids = entries.clone().map(|entry| entry.id);
    if !ids.clone().zip(ids.by_ref().skip(1)).all(|(id, next)| id <= next) {
        return Err(wrong("the rows of an index are not in the order of their ids"));
    }
    let block = rows_per_block as usize;
    let header = Header {
        rows,
        rows_per_block,
        key: BlockKey::generate()?,
        fences: entries.clone().step_by(block).map(|entry| entry.id).collect(),
        prints: entries.clone().map(|entry| print(entry.id)).collect(),
    };
    let sealed = ring.seal_object(&purpose(data_file), &header.write())?;
    let header_bytes = sealed.len() as u64;
    let mut bytes = Vec::with_capacity(sealed.len() + header.blocks_bytes() as usize);
    bytes.extend_from_slice(&sealed);
    let mut plain = Zeroizing::new(Vec::with_capacity(block.min(rows as usize) * ROW_BYTES));
    let mut entries = entries;
    for number in 0..header.fences.len() as u32 {
        plain.clear();
        entries.by_ref().take(block).for_each(|entry| entry.write(&mut plain));
        header.key.seal_into(&mut bytes, number, &plain)?;
    }
    let size = IndexSize { header_bytes, bytes: bytes.len() as u64 };
    Ok((bytes.into(), size, header))
}

/// Seals an index anew under the ring's primary key, for a data file at `to`, which may be the path it has.
///
/// # Errors
///
/// [`Data`](crate::error::ErrorKind::Data) when the bytes are not the file's index; [`Denied`](crate::error::ErrorKind::Denied)
/// when the ring does not have the key that sealed it, or no primary key.
pub(super) fn reseal(bytes: &Bytes, file: &DataFile, ring: &KeyRing, to: &str) -> Result<(Bytes, IndexSize)> {
    let (_, header, blocks) = split(bytes, file, ring)?;
    let mut sealed = ring.seal_object(&purpose(to), &header.write())?;
    let header_bytes = sealed.len() as u64;
    sealed.extend_from_slice(&blocks);
    let size = IndexSize { header_bytes, bytes: sealed.len() as u64 };
    Ok((sealed.into(), size))
}

/// Reads all rows of an index, and checks that its header tells the same.
///
/// # Errors
///
/// [`Data`](crate::error::ErrorKind::Data) when the bytes are not the file's index, here or in the first row that shows it.
pub(super) fn entries(bytes: &Bytes, file: &DataFile, ring: &KeyRing) -> Result<Entries> {
    let (path, header, blocks) = split(bytes, file, ring)?;
    Ok(Entries { path, header, blocks, row: 0, plain: Zeroizing::default(), last: None })
}

/// Splits an index into its header and its blocks.
fn split(bytes: &Bytes, file: &DataFile, ring: &KeyRing) -> Result<(String, Header, Bytes)> {
    let no_index = || Error::internal("data file has no index").with_context("file", &file.path);
    let size = file.index.ok_or_else(no_index)?;
    if bytes.len() as u64 != size.bytes || size.header_bytes > size.bytes {
        return Err(damaged(&file.path));
    }
    let header = Header::open(ring, file, size, &bytes[..size.header_bytes as usize])?;
    Ok((file.path.clone(), header, bytes.slice(size.header_bytes as usize..)))
}

impl Entry {
    fn write(self, out: &mut Vec<u8>) {
        let bit = |value: Option<i64>, bit: u8| if value.is_some() { bit } else { 0 };
        out.push(bit(self.updated_at_ms, HAS_UPDATED_AT) | bit(self.rev, HAS_REV));
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(&self.updated_at_ms.unwrap_or_default().to_le_bytes());
        out.extend_from_slice(&self.rev.unwrap_or_default().to_le_bytes());
    }

    fn read(row: &[u8]) -> Option<Self> {
        let (&[flags], row) = row.split_first_chunk()?;
        let (id, row) = row.split_first_chunk()?;
        let (updated_at, row) = row.split_first_chunk()?;
        let value = |bytes: &[u8; 8], bit| (flags & bit != 0).then(|| i64::from_le_bytes(*bytes));
        (flags <= HAS_UPDATED_AT | HAS_REV).then_some(Self {
            id: ObjectId::from_bytes(*id),
            updated_at_ms: value(updated_at, HAS_UPDATED_AT),
            rev: value(row.try_into().ok()?, HAS_REV),
        })
    }
}

/// The opened header of an index: enough to tell where an id may stand.
pub(super) struct Header {
    rows: u32,
    rows_per_block: u32,
    key: BlockKey,
    /// Id of the first row of each block.
    fences: Vec<ObjectId>,
    /// Print of each row's id.
    prints: Vec<u32>,
}

impl fmt::Debug for Header {
    /// Prints the lengths: ids and the key stay here.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("rows", &self.rows)
            .field("rows_per_block", &self.rows_per_block)
            .finish_non_exhaustive()
    }
}

impl Header {
    /// Returns the memory that the header takes, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(self.fences.as_slice()) + size_of_val(self.prints.as_slice())
    }

    fn write(&self) -> Zeroizing<Vec<u8>> {
        let size = HEAD_BYTES + self.fences.len() * ID_BYTES + self.prints.len() * PRINT_BYTES;
        let mut plain = Zeroizing::new(Vec::with_capacity(size));
        plain.push(VERSION);
        plain.extend_from_slice(&self.rows.to_le_bytes());
        plain.extend_from_slice(&self.rows_per_block.to_le_bytes());
        plain.extend_from_slice(self.key.expose());
        self.fences.iter().for_each(|id| plain.extend_from_slice(id.as_bytes()));
        self.prints.iter().for_each(|print| plain.extend_from_slice(&print.to_le_bytes()));
        plain
    }

    /// Opens the header of a file's index.
    fn open(ring: &KeyRing, file: &DataFile, size: IndexSize, sealed: &[u8]) -> Result<Self> {
        let opened = ring.open_object(&purpose(&file.path), sealed);
        let plain = Zeroizing::new(opened.map_err(|error| error.with_context("file", layout::index_of(&file.path)))?);
        if let Some(version) = plain.first().filter(|version| **version != VERSION) {
            return Err(Error::data("index of a data file has a format that this version does not read")
                .with_context("file", layout::index_of(&file.path))
                .with_context("format", version)
                .with_context("known", VERSION)
                .with_hint("upgrade counterfoil"));
        }
        let header = Self::read(&plain).filter(|header| {
            let key_range = file.key_range();
            u64::from(header.rows) == file.rows
                && size.bytes - size.header_bytes == header.blocks_bytes()
                && key_range.is_ok_and(|(min, _)| header.fences.first() == Some(&min))
                && header.fences.is_sorted()
        });
        header.ok_or_else(|| damaged(&file.path))
    }

    fn read(plain: &[u8]) -> Option<Self> {
        let (_, rest) = plain.split_first()?;
        let (rows, rest) = rest.split_first_chunk()?;
        let (rows_per_block, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_first_chunk()?;
        let (rows, rows_per_block) = (u32::from_le_bytes(*rows), u32::from_le_bytes(*rows_per_block));
        if rows == 0 || rows_per_block == 0 {
            return None;
        }
        let fences_bytes = (rows.div_ceil(rows_per_block) as usize).checked_mul(ID_BYTES)?;
        let (fences, prints) = rest.split_at_checked(fences_bytes)?;
        if prints.len() != (rows as usize).checked_mul(PRINT_BYTES)? {
            return None;
        }
        Some(Self {
            rows,
            rows_per_block,
            key: BlockKey::from_bytes(*key),
            fences: fences.as_chunks().0.iter().map(|id| ObjectId::from_bytes(*id)).collect(),
            prints: prints.as_chunks().0.iter().map(|print| u32::from_le_bytes(*print)).collect(),
        })
    }

    fn blocks_bytes(&self) -> u64 {
        u64::from(self.rows) * ROW_BYTES as u64 + self.fences.len() as u64 * BLOCK_OVERHEAD as u64
    }

    /// Returns where a block stands behind the header.
    fn block(&self, number: u32) -> Range<u64> {
        let whole = u64::from(self.rows_per_block) * ROW_BYTES as u64 + BLOCK_OVERHEAD as u64;
        let start = u64::from(number) * whole;
        start..(start + whole).min(self.blocks_bytes())
    }

    /// Returns the rows among which an id stands, if it stands here.
    fn rows_around(&self, id: ObjectId) -> Range<usize> {
        let until = self.fences.partition_point(|first| *first <= id);
        // A block ends where the next begins, so one id may stand in the block before its fence, too.
        let from = self.fences[..until].partition_point(|first| *first < id).saturating_sub(1);
        let block = self.rows_per_block as usize;
        from.saturating_mul(block)..until.saturating_mul(block).min(self.prints.len())
    }

    /// Finds the rows that may have one of the wanted ids at `places`, ascending; `skipped` are rows that nobody asks for.
    fn candidates(&self, wanted: &Wanted, places: Range<usize>, skipped: &RoaringBitmap) -> Vec<(u32, ObjectId)> {
        let ids = &wanted.ids[places];
        let (Some((first, _)), Some((last, _))) = (ids.first(), ids.last()) else { return Vec::new() };
        let span = self.rows_around(*first).start..self.rows_around(*last).end;
        let mut found = Vec::new();
        // The blocks around each id, or, where that comes to more, all blocks once.
        if ids.len().saturating_mul(2 * self.rows_per_block as usize) < span.len() {
            for (id, wanted) in ids {
                let rows = self.rows_around(*id);
                let same = self.prints[rows.clone()].iter().zip(rows).filter(|(print, _)| *print == wanted);
                found.extend(same.map(|(_, row)| (row as u32, *id)));
            }
            found.sort_unstable();
        } else {
            for (print, row) in self.prints[span.clone()].iter().zip(span) {
                found.extend(wanted.of_print(*print).map(|id| (row as u32, id)));
            }
        }
        found.retain(|(row, _)| !skipped.contains(*row));
        found
    }

    /// Decrypts a block.
    fn open_block(&self, data_file: &str, number: u32, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        self.key.open(number, sealed)?.ok_or_else(|| damaged(data_file).with_context("block", number))
    }
}

/// The rows of an index, in their order.
pub(super) struct Entries {
    path: String,
    header: Header,
    blocks: Bytes,
    row: u32,
    plain: Zeroizing<Vec<u8>>,
    last: Option<ObjectId>,
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").field("header", &self.header).field("row", &self.row).finish_non_exhaustive()
    }
}

impl Entries {
    fn read(&mut self) -> Result<Entry> {
        let (number, slot) = (self.row / self.header.rows_per_block, self.row % self.header.rows_per_block);
        if slot == 0 {
            let range = self.header.block(number);
            let sealed = self.blocks.slice(range.start as usize..range.end as usize);
            self.plain = self.header.open_block(&self.path, number, &sealed)?;
        }
        let place = slot as usize * ROW_BYTES;
        let entry = self.plain.get(place..place + ROW_BYTES).and_then(Entry::read);
        let entry = entry.filter(|entry| {
            print(entry.id) == self.header.prints[self.row as usize]
                && (slot != 0 || entry.id == self.header.fences[number as usize])
                && self.last.is_none_or(|last| last <= entry.id)
        });
        let entry = entry.ok_or_else(|| damaged(&self.path).with_context("row", self.row))?;
        self.last = Some(entry.id);
        Ok(entry)
    }
}

impl Iterator for Entries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.row >= self.header.rows {
            return None;
        }
        let entry = self.read();
        // After an error there is nothing to go on with.
        self.row = if entry.is_ok() { self.row + 1 } else { self.header.rows };
        Some(entry)
    }
}

/// Looks ids up in a file's index: the rows that have them, ascending by position, less those in `skipped`.
///
/// # Errors
///
/// [`Data`](crate::error::ErrorKind::Data) when the index is missing, damaged or another file's;
/// [`Denied`](crate::error::ErrorKind::Denied) when the ring does not have its key;
/// [`Unavailable`](crate::error::ErrorKind::Unavailable) when the store does not answer.
pub(super) async fn look_up(
    access: &Access,
    (file, size): (&DataFile, IndexSize),
    wanted: &Wanted,
    skipped: &RoaringBitmap,
) -> Result<Vec<(u32, Entry)>> {
    let places = wanted.within(file)?;
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let path = layout::index_of(&file.path);
    let object = Object { what: "index of a data file", path: &path, bytes: size.bytes };
    let (header, whole) = if let Some(header) = access.cache.index(file) {
        (header, None)
    } else {
        let read = if size.bytes <= WHOLE_BYTES { size.bytes } else { size.header_bytes };
        let bytes = access.ranges(object, std::slice::from_ref(&(0..read))).await?.pop().unwrap_or_default();
        let sealed = bytes.get(..size.header_bytes as usize).ok_or_else(|| damaged(&file.path))?;
        let header = Arc::new(Header::open(&access.ring, file, size, sealed)?);
        access.cache.insert_index(file, &header);
        (header, (read == size.bytes).then_some(bytes))
    };
    let candidates = header.candidates(wanted, places, skipped);

    // Blocks that stand side by side are read as one.
    let mut runs: Vec<Range<u32>> = Vec::new();
    for (row, _) in &candidates {
        let block = row / header.rows_per_block;
        match runs.last_mut() {
            Some(run) if block < run.end => {}
            Some(run) if block == run.end => run.end += 1,
            _ => runs.push(block..block + 1),
        }
    }
    let ranges: Vec<Range<u64>> = runs
        .iter()
        .map(|run| size.header_bytes + header.block(run.start).start..size.header_bytes + header.block(run.end - 1).end)
        .collect();
    let parts = match whole {
        _ if ranges.is_empty() => return Ok(Vec::new()),
        Some(whole) => ranges.iter().map(|range| whole.slice(range.start as usize..range.end as usize)).collect(),
        None => access.ranges(object, &ranges).await?,
    };

    let mut found = Vec::new();
    let mut candidates = candidates.into_iter().peekable();
    for (run, bytes) in runs.into_iter().zip(parts) {
        let first = header.block(run.start).start;
        for number in run {
            let range = header.block(number);
            let sealed = bytes.get((range.start - first) as usize..(range.end - first) as usize);
            let plain = header.open_block(&file.path, number, sealed.ok_or_else(|| damaged(&file.path))?)?;
            while let Some((row, id)) = candidates.next_if(|(row, _)| row / header.rows_per_block == number) {
                let place = (row % header.rows_per_block) as usize * ROW_BYTES;
                let entry = plain.get(place..place + ROW_BYTES).and_then(Entry::read);
                let entry = entry.ok_or_else(|| damaged(&file.path).with_context("row", row))?;
                if entry.id == id {
                    found.push((row, entry));
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
