//! Rewriting: files of a table become other files that hold the same rows, less those that are to go.
//!
//! ```text
//! sources (encrypted, in memory) ─▶ keys ─▶ order by id and revision ─▶ column by column ─▶ new files ─▶ commit
//!     rows to drop ─────────────────┘                                                        │  Remove(old) + Add(new)
//!     rows superseded since ──────────── rebase through (old file, row) ▶ (new file, row) ───┘
//! ```
//!
//! Only rows that are in the lake go through here. They are read through the manifest's pins, and nothing outside this file
//! can make the rows that it hands to the encoder; so the lake still holds nothing but what a policy let in. The policy's
//! digest goes with the rows, and files of different policies or columns are never joined. Values change in two ways only:
//! those that name what is erased become null ([`Traces`]), and columns are restated by a policy ([`Restated`]), which alone
//! can make what restates them.
//!
//! What a rewrite holds: the encrypted bytes of its sources, the keys of their rows, where each row goes, and the decoded
//! values of one column of one row group.
//!
//! While it works, others may commit. Rows that they superseded in a source are superseded in the new file as well
//! ([`Rewritten::rebase`]); when a source has left the table, the rewrite is void. Readers of older versions read the old
//! files, which stay until they are collected as garbage.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, new_null_array};
use arrow::compute::interleave;
use arrow::datatypes::SchemaRef;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use roaring::RoaringBitmap;

use crate::error::{Error, Result};
use crate::lake::attempts::Attempts;
use crate::lake::commit::Action;
use crate::lake::erase::Traces;
use crate::lake::file::{Columns, ROW_GROUP_ROWS, relabelled, without_metadata};
use crate::lake::manifest::{DataFile, Manifest, TableState};
use crate::lake::scan::WholeFile;
use crate::lake::{Inner, put, restricted};
use crate::model::Stream;
use crate::policy::{Policy, RecordKey};

/// Rows of a new file at most.
pub(super) const TARGET_ROWS: usize = 262_144;

/// Files that are fetched at once.
const READS: usize = 8;

/// Files that a sample of a column is taken from.
const SAMPLED_FILES: usize = 4;

/// Rows of a sample; the encoder asks for as many.
const SAMPLED_ROWS: usize = 256;

/// A file to be rewritten, as the manifest names it, and the rows of it that are to go for good.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// The file.
    pub(super) file: Arc<DataFile>,
    /// Rows (positions) that no new file is to hold.
    pub(super) dropped: RoaringBitmap,
}

impl Source {
    /// Takes all rows of a file.
    pub(super) fn whole(file: &Arc<DataFile>) -> Self {
        Self { file: Arc::clone(file), dropped: RoaringBitmap::new() }
    }
}

/// Where superseded rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum History {
    /// Beside the rows that count, in the same files.
    Kept,
    /// Into files of their own, of which live scans read nothing.
    Apart,
}

/// Tells whether the rows of two files may stand in one: the same policy made them, and they have the same columns.
pub(super) fn is_alike(left: &DataFile, right: &DataFile) -> bool {
    let (one, other) = (left.schema.fields(), right.schema.fields());
    left.policy == right.policy
        && left.recording == right.recording
        && restricted::is_alike(&left.schema, &right.schema)
        && (Arc::ptr_eq(&left.schema, &right.schema)
            || one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| {
                    one.name() == other.name()
                        && one.is_nullable() == other.is_nullable()
                        && one.data_type().equals_datatype(other.data_type())
                }))
}

/// The new files of some sources, put and not yet committed.
#[derive(Debug)]
pub(super) struct Rewritten {
    stream: Stream,
    sources: Vec<Arc<DataFile>>,
    files: Vec<Arc<DataFile>>,
    /// For each source and row: new file and row there; [`DROPPED`] where there is none.
    moved: Vec<Vec<(u32, u32)>>,
}

const DROPPED: (u32, u32) = (u32::MAX, u32::MAX);

impl Rewritten {
    /// Describes files that leave the table and of which no row stays.
    pub(super) fn dropping(stream: Stream, sources: Vec<Arc<DataFile>>) -> Self {
        let moved = sources.iter().map(|_| Vec::new()).collect();
        Self { stream, sources, files: Vec::new(), moved }
    }

    /// Returns the new files, with the rows that were superseded when the sources were read.
    pub(super) fn files(&self) -> &[Arc<DataFile>] {
        &self.files
    }

    /// Carries over what others did to the sources since; `None` when one has left the table.
    pub(super) fn rebase(&self, now: &TableState) -> Option<Vec<Arc<DataFile>>> {
        let mut files = self.files.clone();
        for (number, source) in self.sources.iter().enumerate() {
            let present = now.files.iter().find(|file| file.path == source.path && file.rows == source.rows)?;
            if present.superseded == source.superseded {
                continue;
            }
            let moved = self.moved.get(number)?;
            for row in &present.superseded - &source.superseded {
                let (file, row) = moved.get(row as usize).copied().unwrap_or(DROPPED);
                if let Some(file) = files.get_mut(file as usize) {
                    Arc::make_mut(file).superseded.insert(row);
                }
            }
        }
        Some(files)
    }

    /// Forgets where each row went, which takes memory for each of them: a source of which others supersede rows meanwhile
    /// counts as gone.
    pub(super) fn without_places(self) -> Self {
        Self { moved: Vec::new(), ..self }
    }
}

/// Rewrites files of one table; nothing is visible before [`replace`] commits it.
///
/// # Errors
///
/// Those of reading the sources ([`Data`](crate::error::ErrorKind::Data), [`Denied`](crate::error::ErrorKind::Denied), also where
/// they have restricted columns whose key the ring does not have) and of putting files
/// ([`Unavailable`](crate::error::ErrorKind::Unavailable)); [`Internal`](crate::error::ErrorKind::Internal) when the sources are of several policies or columns.
pub(super) async fn rewrite(lake: &Inner, stream: Stream, sources: &[Source], history: History) -> Result<Rewritten> {
    rewrite_without(lake, stream, sources, history, Traces::default()).await
}

/// Rewrites files as [`rewrite`] does, and leaves values out that name what is to be erased.
pub(super) async fn rewrite_without(
    lake: &Inner,
    stream: Stream,
    sources: &[Source],
    history: History,
    traces: Traces,
) -> Result<Rewritten> {
    rewrite_edited(lake, stream, sources, history, Edit { traces, restated: None }).await
}

/// Makes what a policy allows of stored values.
pub(super) trait Restate: Send + Sync {
    /// Restates values of a column, by its name.
    fn column(&self, column: &str, values: ArrayRef) -> Result<ArrayRef>;
}

/// What a policy makes of the columns of files.
#[derive(Clone)]
pub(super) struct Restated {
    /// Makes the values; only `policy` has any.
    pub(super) by: Arc<dyn Restate>,
    /// The columns of the new files, each one of the sources by name and type. Metadata may say more than `by` does.
    pub(super) schema: SchemaRef,
    /// The policy of the new files.
    pub(super) policy: Arc<str>,
    /// Version of the pseudonyms in the new files.
    pub(super) pseudonyms: u32,
}

/// Rewrites files with their columns restated. Rows, their order, what is superseded or deleted and when it came in stay as
/// they are; several sources, of one policy and the same columns, are joined as [`rewrite`] joins them.
///
/// # Errors
///
/// Those of [`rewrite`].
pub(super) async fn restate(
    lake: &Inner,
    stream: Stream,
    sources: &[Source],
    restated: &Restated,
) -> Result<Rewritten> {
    let edit = Edit { traces: Traces::default(), restated: Some(restated.clone()) };
    rewrite_edited(lake, stream, sources, History::Kept, edit).await
}

/// What changes in the values of rows on their way.
#[derive(Default)]
struct Edit {
    /// What no value may name.
    traces: Traces,
    restated: Option<Restated>,
}

async fn rewrite_edited(
    lake: &Inner,
    stream: Stream,
    sources: &[Source],
    history: History,
    edit: Edit,
) -> Result<Rewritten> {
    let Some(last) = sources.last() else { return Ok(Rewritten::dropping(stream, Vec::new())) };
    if let Some(other) = sources.iter().find(|source| !is_alike(&source.file, &last.file)) {
        return Err(Error::internal("files of different policies or columns cannot be joined")
            .with_context("first", &other.file.path)
            .with_context("other", &last.file.path));
    }
    for source in sources {
        restricted::check_rewritable(&lake.ring, &source.file)?;
    }
    let written = edit.restated.as_ref().map_or(&last.file.schema, |restated| &restated.schema);
    restricted::check_writable(&lake.ring, written)?;
    let reads = sources.iter().map(|source| WholeFile::fetch(&lake.store, &lake.ring, &source.file).boxed());
    let reads: Vec<_> = reads.collect();
    let held: Vec<WholeFile> = stream::iter(reads).buffered(READS).try_collect().await?;
    let (schema, policy, pseudonyms) = if let Some(restated) = &edit.restated {
        (&restated.schema, &restated.policy, restated.pseudonyms)
    } else {
        // Only files without pseudonyms can be of several versions.
        let newest = sources.iter().map(|source| source.file.pseudonyms).max();
        (&last.file.schema, &last.file.policy, newest.unwrap_or(1))
    };
    let policy = Arc::clone(policy);
    let (schema, plain_schema) = (Arc::clone(schema), without_metadata(schema));
    let inputs = Arc::new(Inputs { held, schema, plain_schema, edit });

    let (reading, dropped) = (Arc::clone(&inputs), sources.iter().map(|source| source.dropped.clone()).collect());
    let limit = lake.rows_per_file.clamp(1, TARGET_ROWS);
    let sorting = tokio::task::spawn_blocking(move || reading.order(stream.key_column(), dropped, history, limit));
    let outputs =
        sorting.await.map_err(|error| Error::internal("failed to order the rows of files").with_source(error))??;

    let mut moved: Vec<Vec<(u32, u32)>> =
        sources.iter().map(|source| vec![DROPPED; usize::try_from(source.file.rows).unwrap_or(0)]).collect();
    let content = common_content(sources).filter(|_| inputs.edit.is_none());
    let updated_ms = sources.iter().filter_map(|source| source.file.updated_ms);
    let updated_ms = updated_ms.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
    let appended = sources.iter().filter_map(|source| source.file.appended);
    let appended = appended.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
    let mut files = Vec::new();
    for (number, rows) in (0_u32..).zip(outputs) {
        let mut superseded = RoaringBitmap::new();
        for (row, (source, old)) in (0_u32..).zip(&rows.places) {
            let source = *source as usize;
            moved[source][*old as usize] = (number, row);
            if sources[source].file.superseded.contains(*old) {
                superseded.insert(row);
            }
        }
        let rows = Rows::new(Arc::clone(&inputs), rows);
        let file = put::put_columns(lake, stream, Arc::clone(&policy), rows).await?;
        // Some tables do not show as a column what their bounds were taken from.
        files.push(Arc::new(DataFile {
            superseded,
            content,
            appended,
            pseudonyms,
            updated_ms: file.updated_ms.or(updated_ms),
            recording: last.file.recording.clone(),
            ..file
        }));
    }
    let sources = sources.iter().map(|source| Arc::clone(&source.file)).collect();
    Ok(Rewritten { stream, sources, files, moved })
}

impl Edit {
    /// Tells whether every value stays as it is.
    fn is_none(&self) -> bool {
        self.traces.is_empty() && self.restated.is_none()
    }

    fn apply(&self, column: &str, values: ArrayRef) -> Result<ArrayRef> {
        let values = if self.traces.is_empty() { values } else { self.traces.blank(&values)? };
        match &self.restated {
            Some(restated) => restated.by.column(column, values),
            None => Ok(values),
        }
    }
}

/// A table that was replaced as a whole stays recognizable as long as no row of it goes.
fn common_content(sources: &[Source]) -> Option<[u8; 32]> {
    let content = sources.first()?.file.content?;
    let kept = |source: &Source| source.file.content == Some(content) && source.dropped.is_empty();
    sources.iter().all(kept).then_some(content)
}

/// What came of a replacement.
#[derive(Debug)]
pub(super) enum Replaced {
    /// The new files are in this version.
    Done(Arc<Manifest>),
    /// A source had left its table, so nothing was changed.
    Gone,
}

/// Commits rewrites in one version: their sources leave the table, and their files join it.
///
/// # Errors
///
/// [`Conflict`](crate::error::ErrorKind::Conflict) when other writers won every attempt; [`Unavailable`](crate::error::ErrorKind::Unavailable) when the store fails: the commit
/// may then have been made or not. Both ways all rows are there once.
pub(super) async fn replace(lake: &Inner, changes: &[Rewritten]) -> Result<Replaced> {
    replace_with(lake, changes, |_| Some(Vec::new())).await
}

/// Commits as [`replace`] does, with further actions that are made for the version they follow. Without actions no version
/// is made, unless there are [`None`] of the further ones: then a version that changes nothing is wanted.
pub(super) async fn replace_with(
    lake: &Inner,
    changes: &[Rewritten],
    more: impl Fn(&Manifest) -> Option<Vec<Action>> + Send + Sync,
) -> Result<Replaced> {
    replace_under(lake, None, changes, more).await
}

/// Commits as [`replace_with`] does, and names the policy under which that is done.
pub(super) async fn replace_under(
    lake: &Inner,
    policy: Option<&Policy>,
    changes: &[Rewritten],
    more: impl Fn(&Manifest) -> Option<Vec<Action>> + Send + Sync,
) -> Result<Replaced> {
    let mut attempts = Attempts::begin(lake).await?.under(policy.map(|policy| Arc::clone(policy.rules())));
    loop {
        let base = attempts.base();
        let Some(mut actions) = actions(base, changes) else { return Ok(Replaced::Gone) };
        let more = more(base);
        let is_wanted = more.is_none();
        actions.extend(more.unwrap_or_default());
        if actions.is_empty() && !is_wanted {
            return Ok(Replaced::Done(Arc::clone(base)));
        }
        if let Some(manifest) = attempts.put(actions).await? {
            return Ok(Replaced::Done(manifest));
        }
    }
}

/// Plans the replacement of files on a version; `None` when a source has left it.
pub(super) fn actions(base: &Manifest, changes: &[Rewritten]) -> Option<Vec<Action>> {
    let mut actions = Vec::new();
    for change in changes {
        let files = change.rebase(base.tables.get(&change.stream)?)?;
        let removed = change.sources.iter().map(|file| Action::Remove(change.stream, file.path.clone()));
        actions.extend(removed);
        actions.extend(files.into_iter().map(|file| Action::Add(change.stream, file)));
    }
    Some(actions)
}

/// The sources of a rewrite in memory.
struct Inputs {
    held: Vec<WholeFile>,
    schema: SchemaRef,
    /// The same columns as the decoder yields them.
    plain_schema: SchemaRef,
    edit: Edit,
}

/// Rows of one new file: their keys, and where each stands (source, row).
#[derive(Default)]
struct Output {
    keys: Vec<RecordKey>,
    places: Vec<(u32, u32)>,
}

impl Inputs {
    /// Puts the rows that stay into the order of id, revision and age of their file, and deals them out to new files.
    fn order(
        &self,
        key_column: &str,
        dropped: Vec<RoaringBitmap>,
        history: History,
        limit: usize,
    ) -> Result<Vec<Output>> {
        let mut rows = Vec::new();
        for ((number, held), dropped) in (0_u32..).zip(&self.held).zip(dropped) {
            let keys = (0_u32..).zip(held.keys(key_column)?);
            rows.extend(keys.filter(|(row, _)| !dropped.contains(*row)).map(|(row, key)| (key, (number, row))));
        }
        rows.sort_unstable_by_key(|(key, place)| (key.id, key.updated_at_ms, key.rev, key.deleted, *place));
        let is_history = |(_, (source, row)): &(RecordKey, (u32, u32))| {
            history == History::Apart && self.held[*source as usize].file().superseded.contains(*row)
        };
        let (superseded, counting): (Vec<_>, Vec<_>) = rows.into_iter().partition(is_history);
        let outputs = counting.chunks(limit).chain(superseded.chunks(limit)).map(|rows| {
            let (keys, places) = rows.iter().copied().unzip();
            Output { keys, places }
        });
        Ok(outputs.collect())
    }
}

/// Rows of the lake on their way into a new file.
struct Rows {
    inputs: Arc<Inputs>,
    output: Output,
    sampled: Vec<usize>,
}

impl Rows {
    fn new(inputs: Arc<Inputs>, output: Output) -> Self {
        let mut by_source: Vec<Vec<usize>> = vec![Vec::new(); inputs.held.len()];
        for (place, (source, row)) in output.places.iter().enumerate() {
            // Of one row group, so that no other is decoded for the sample.
            if (*row as usize) < ROW_GROUP_ROWS {
                by_source[*source as usize].push(place);
            }
        }
        by_source.retain(|places| !places.is_empty());
        let files = by_source.iter().step_by(by_source.len().div_ceil(SAMPLED_FILES).max(1));
        let most = SAMPLED_ROWS / SAMPLED_FILES;
        let sampled = files.flat_map(|places| places.iter().step_by(places.len().div_ceil(most).max(1))).copied();
        let sampled = sampled.collect();
        Self { inputs, output, sampled }
    }
}

impl Columns for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.inputs.schema
    }

    fn keys(&self) -> &[RecordKey] {
        &self.output.keys
    }

    fn column(&self, index: usize, rows: impl Iterator<Item = usize>) -> Result<ArrayRef> {
        let absent = || Error::internal("column or row is not there").with_context("column", index);
        let field = self.inputs.plain_schema.fields().get(index).ok_or_else(absent)?;
        // What is wanted of each source: row, and place in the array that is asked for.
        let mut wanted: Vec<Vec<(u32, usize)>> = vec![Vec::new(); self.inputs.held.len()];
        let mut length = 0;
        for row in rows {
            let (source, row) = self.output.places.get(row).ok_or_else(absent)?;
            wanted[*source as usize].push((*row, length));
            length += 1;
        }
        // The first array is one null, for the rows of sources that have no value.
        let mut arrays = vec![new_null_array(field.data_type(), 1)];
        let mut places = vec![(0, 0); length];
        for (held, mut wanted) in self.inputs.held.iter().zip(wanted) {
            wanted.sort_unstable();
            let rows: Vec<u32> = wanted.iter().map(|(row, _)| *row).collect();
            let Some(values) = held.column(field.name(), &rows)? else { continue };
            for (at, (_, place)) in wanted.iter().enumerate() {
                places[*place] = (arrays.len(), at);
            }
            arrays.push(self.inputs.edit.apply(field.name(), relabelled(&values, field)?)?);
        }
        if arrays.len() == 1 {
            return Ok(new_null_array(field.data_type(), length));
        }
        let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
        interleave(&arrays, &places).map_err(|cause| {
            Error::internal("failed to join a column of several files")
                .with_context("column", field.name())
                .with_source(cause)
        })
    }

    fn expected_bytes(&self) -> usize {
        let (rows, bytes) = self
            .inputs
            .held
            .iter()
            .map(WholeFile::file)
            .fold((0, 0), |(rows, bytes), file| (rows + file.rows, bytes + file.bytes));
        let part = u128::from(bytes) * self.output.keys.len() as u128 / u128::from(rows.max(1));
        usize::try_from(part).unwrap_or_default()
    }

    fn sample(&self, index: usize, _most: usize) -> Result<ArrayRef> {
        self.column(index, self.sampled.iter().copied())
    }
}
