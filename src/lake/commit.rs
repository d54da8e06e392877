//! A commit: one atomic change of the lake, as an object of the log.
//!
//! ```text
//! log/00000000000000000007.commit = seal_object("commit/7", zstd(JSON))
//!
//! { "format": 1, "version": 7, "id": "<uuid>", "committed_ms": 1763820000000, "writer": "counterfoil 0.1.0",
//!   "policy": "<digest of the writer's policy, hex>",
//!   "schemas": ["<base64 of an Arrow IPC Schema flatbuffer>", …],
//!   "actions": [
//!     {"policy":    {"digest": "<hex>", "tables": […]}},
//!     {"declare":   {"table": "tickets", "schema": 0}},
//!     {"redeclare": {"table": "tickets", "schema": 0}},
//!     {"remove":    {"table": "tags", "path": "data/tags/….parquet"}},
//!     {"supersede": {"table": "tickets", "path": "data/tickets/….parquet", "rows": "<roaring>"}},
//!     {"add":       {"table": "tickets", "schema": 0, "path": …, "bytes": …, "rows": …, "pin": "<base64>", "tail_bytes": …,
//!                    "min_key": …, "max_key": …, "updated_ms": [from, to], "created_ms": [from, to],
//!                    "policy": …, "content": "<base64>",
//!                    "appended": [first, last], "pseudonyms": 2, "restricted_key": "restricted-1",
//!                    "recording": "<uuid>", "superseded": "<roaring>", "tombstones": "<roaring>", "index": {"header_bytes": …, "bytes": …}}},
//!     {"pseudonyms": {"version": 2}},
//!     {"list":      {"id": "<uuid>", "list": "vip_week", "recorded_ms": …, …}},
//!     {"unlist":    {"id": "<uuid>"}},
//!     {"watermark": {"table": "tickets", "to": {…}}},
//!     {"run":       {…}},
//!     {"quarantine": {"table": "tickets", "seen": {"whole": true, "fields": [{"path": …, "type": "text", "reason": "undeclared",
//!                    "count": …, "first_ms": …, "last_ms": …, "run": …}], "declared": ["attributes.…", …],
//!                    "attributes": {"tierStr": false, "ssnStr": true}}}} ] }
//! ```
//!
//! `index` is there when an index stands beside the file (`lake/index.rs`), which takes the same name. `restricted_key` is
//! there when the file has restricted columns: the id of the key that wraps theirs (`lake/restricted.rs`).
//! `<roaring>` is base64 of the portable serialization of a roaring bitmap over row positions of the file. Actions apply
//! in their order. `schema` is an index into `schemas`: the columns of the file, field metadata included. `appended` says in
//! which versions the rows of the file came in; without it they came with this commit. A snapshot has
//! the same form under the purpose `snapshot/<version>`: it is the commit that makes its version out of nothing, so there
//! is one codec and one set of checks.
//!
//! `policy` is there when the writer had one. The first commit that names a digest has the action `policy` with the rules
//! ([`Rules`]); they are kept as long as a file, the newest run or the newest commit with a policy names the digest, by the
//! same reasoning as the runs below. The policy of a file is one digest, or several joined by `+` where stored columns were
//! restated by later policies and the file still lacks what the last of them would store: `lake/apply.rs`.
//!
//! `declare` joins columns with those that the table has; `redeclare` says which columns it has, and none of its files may
//! have another.
//!
//! `pseudonyms` as an action brings a version of pseudonyms into force, and is absent as long as that is 1; of a file it is the
//! version that was in force when the file was written, absent when 1. The pseudonyms in all files of a version of the lake are
//! of the version in force: a commit after which they are not is refused.
//!
//! Runs are kept up to a number, 1,000 in this format: a `run` of a new id beyond it removes the oldest. Each reader applies
//! the rule while it applies the commits, so a version holds the same runs whether it is made from commits or from a
//! snapshot, and no action has to name what goes.
//!
//! `quarantine` adds fields that were seen and not stored to those of the table (`lake/quarantine.rs`): counts by path, type
//! and reason. `whole` (absent: false) says that every record was seen, so that the entries before it go; `declared` (absent:
//! none) are paths whose entries go because something declares them now; `attributes` (absent: as before) are the custom
//! attributes that the source defines, with its mark for sensitive ones. Entries are bounded by each reader alike.
//!
//! `list` is the record of a ticket list ([`Recording`]), new or told anew; `unlist` forgets one, whose files must have left the
//! table `ticket_lists` by then. Files of that table, and no others, name the `recording` whose ids they hold.
//!
//! The seal binds the object to the lake and to its version, so a commit that was put under another number, or taken from
//! another lake, does not open. `id` lets a writer recognize its own commit when a store reports a put twice.
//!
//! Reader rule: `format` above the known one is refused; an unknown action is refused; unknown fields are ignored.
//! Writer rule: a field that an older reader must not ignore, or a new action, raises `format`.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::convert::{IpcSchemaEncoder, fb_to_schema};
use arrow::ipc::root_as_schema;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::lake::layout;
use crate::lake::lists::Recording;
use crate::lake::manifest::{DataFile, IndexSize, Watermark};
use crate::lake::quarantine::Seen;
use crate::lake::run::RunRecord;
use crate::model::Stream;
use crate::policy::Rules;

/// Bound of a commit before compression; a snapshot of a hundred thousand files stays below it.
pub(super) const PLAIN_LIMIT_BYTES: u64 = 512 << 20;

/// Level of zstd: commits are written once and read at every open.
const ZSTD_LEVEL: i32 = 3;

/// One version's change.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Commit {
    /// The version that it makes.
    pub(super) version: u64,
    /// Its own id.
    pub(super) id: String,
    /// When, milliseconds since 1970; never before the version it follows.
    pub(super) committed_ms: i64,
    /// Program and version that wrote it.
    pub(super) writer: String,
    /// Digest of the writer's policy, where it has one.
    pub(super) policy: Option<Arc<str>>,
    /// What changes, in order.
    pub(super) actions: Vec<Action>,
}

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// A policy that this version or a later one names.
    Policy(Arc<Rules>),
    /// The table has these columns, besides those it had.
    Declare(Stream, SchemaRef),
    /// The table has these columns and no others.
    Redeclare(Stream, SchemaRef),
    /// A file joins the table.
    Add(Stream, Arc<DataFile>),
    /// A file leaves the table.
    Remove(Stream, String),
    /// Rows (positions) of a file no longer count.
    Supersede(Stream, String, RoaringBitmap),
    /// The stream is complete up to here.
    Watermark(Stream, Watermark),
    /// A run, new or told anew.
    Run(Arc<RunRecord>),
    /// Pseudonyms of this version are in force.
    Pseudonyms(u32),
    /// Fields of the stream that were seen and not stored.
    Quarantine(Stream, Arc<Seen>),
    /// The record of a ticket list, new or told anew.
    List(Arc<Recording>),
    /// The recording of this id is forgotten.
    Unlist(String),
}

#[derive(Serialize, Deserialize)]
struct WireCommit {
    format: u32,
    version: u64,
    id: String,
    committed_ms: i64,
    writer: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    #[serde(default)]
    schemas: Vec<String>,
    actions: Vec<WireAction>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireAction {
    Policy(Box<Rules>),
    Declare { table: String, schema: usize },
    Redeclare { table: String, schema: usize },
    Add(Box<WireFile>),
    Remove { table: String, path: String },
    Supersede { table: String, path: String, rows: String },
    Watermark { table: String, to: Watermark },
    Run(Box<RunRecord>),
    Pseudonyms { version: u32 },
    Quarantine { table: String, seen: Seen },
    List(Box<Recording>),
    Unlist { id: String },
}

/// The version of pseudonyms that is in force in a lake where none was ever rotated.
fn first_version() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_first_version(version: &u32) -> bool {
    *version == 1
}

#[derive(Serialize, Deserialize)]
struct WireFile {
    table: String,
    schema: usize,
    path: String,
    bytes: u64,
    rows: u64,
    pin: String,
    tail_bytes: u64,
    min_key: String,
    max_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    updated_ms: Option<(i64, i64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created_ms: Option<(i64, i64)>,
    policy: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    appended: Option<(u64, u64)>,
    #[serde(default = "first_version", skip_serializing_if = "is_first_version")]
    pseudonyms: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    superseded: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    tombstones: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<IndexSize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restricted_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recording: Option<String>,
}

impl Commit {
    /// Encodes the commit: compressed JSON, to be sealed.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let mut schemas = SchemaTable::default();
        let actions = self.actions.iter().map(|action| action.to_wire(&mut schemas)).collect::<Result<_>>()?;
        let wire = WireCommit {
            format: layout::FORMAT,
            version: self.version,
            id: self.id.clone(),
            committed_ms: self.committed_ms,
            writer: self.writer.clone(),
            policy: self.policy.as_deref().map(str::to_owned),
            schemas: schemas.encoded,
            actions,
        };
        let failed = |error| Error::internal("failed to encode a commit").with_source(error);
        let json = serde_json::to_vec(&wire)
            .map_err(|error| failed(Box::new(error) as Box<dyn std::error::Error + Send + Sync>))?;
        if json.len() as u64 > PLAIN_LIMIT_BYTES {
            return Err(Error::config("the commit is too large")
                .with_context("bytes", json.len())
                .with_context("limit", PLAIN_LIMIT_BYTES)
                .with_hint("commit fewer rows at once"));
        }
        zstd::stream::encode_all(json.as_slice(), ZSTD_LEVEL).map_err(|error| failed(error.into()))
    }

    /// Decodes what [`encode`](Self::encode) made; `object` is its name, for messages.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Data`](crate::error::ErrorKind::Data) for anything else.
    pub(super) fn decode(object: &str, bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let json = inflate(object, bytes)?;
        let damaged = |error: serde_json::Error| {
            Error::data("failed to decode a commit").with_context("object", object).with_source(error)
        };
        // The format first: a newer one may have any other form.
        let Head { format } = serde_json::from_slice(&json).map_err(damaged)?;
        layout::check_format(object, format)?;
        let wire: WireCommit = serde_json::from_slice(&json).map_err(damaged)?;
        wire.into_commit().map_err(|error| error.with_context("object", object))
    }
}

fn inflate(object: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let damaged =
        |error| Error::data("failed to decompress a commit").with_context("object", object).with_source(error);
    let mut json = Vec::new();
    let decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(damaged)?;
    decoder.take(PLAIN_LIMIT_BYTES + 1).read_to_end(&mut json).map_err(damaged)?;
    if json.len() as u64 > PLAIN_LIMIT_BYTES {
        return Err(Error::data("a commit is larger than any that is written")
            .with_context("object", object)
            .with_context("limit", PLAIN_LIMIT_BYTES));
    }
    Ok(json)
}

/// The schemas of a commit, each once.
#[derive(Default)]
struct SchemaTable {
    encoded: Vec<String>,
    /// By address first: files of one commit share their schema.
    known: HashMap<*const Schema, usize>,
}

impl SchemaTable {
    fn index(&mut self, schema: &SchemaRef) -> usize {
        if let Some(index) = self.known.get(&Arc::as_ptr(schema)) {
            return *index;
        }
        let text = BASE64.encode(IpcSchemaEncoder::new().schema_to_fb(schema).finished_data());
        let index = self.encoded.iter().position(|known| *known == text).unwrap_or_else(|| {
            self.encoded.push(text);
            self.encoded.len() - 1
        });
        self.known.insert(Arc::as_ptr(schema), index);
        index
    }
}

impl Action {
    fn to_wire(&self, schemas: &mut SchemaTable) -> Result<WireAction> {
        Ok(match self {
            Self::Policy(rules) => WireAction::Policy(Box::new(Rules::clone(rules))),
            Self::Declare(stream, schema) => {
                WireAction::Declare { table: stream.to_string(), schema: schemas.index(schema) }
            }
            Self::Redeclare(stream, schema) => {
                WireAction::Redeclare { table: stream.to_string(), schema: schemas.index(schema) }
            }
            Self::Add(stream, file) => WireAction::Add(Box::new(WireFile {
                table: stream.to_string(),
                schema: schemas.index(&file.schema),
                path: file.path.clone(),
                bytes: file.bytes,
                rows: file.rows,
                pin: BASE64.encode(file.pin),
                tail_bytes: file.tail_bytes,
                min_key: file.min_key.clone(),
                max_key: file.max_key.clone(),
                updated_ms: file.updated_ms,
                created_ms: file.created_ms,
                policy: file.policy.to_string(),
                content: file.content.map(|digest| BASE64.encode(digest)),
                appended: file.appended,
                pseudonyms: file.pseudonyms,
                superseded: bitmap_text(&file.superseded)?,
                tombstones: bitmap_text(&file.tombstones)?,
                index: file.index,
                restricted_key: file.restricted_key.as_deref().map(str::to_owned),
                recording: file.recording.as_deref().map(str::to_owned),
            })),
            Self::Remove(stream, path) => WireAction::Remove { table: stream.to_string(), path: path.clone() },
            Self::Supersede(stream, path, rows) => {
                WireAction::Supersede { table: stream.to_string(), path: path.clone(), rows: bitmap_text(rows)? }
            }
            Self::Watermark(stream, to) => WireAction::Watermark { table: stream.to_string(), to: to.clone() },
            Self::Run(run) => WireAction::Run(Box::new(RunRecord::clone(run))),
            Self::Pseudonyms(version) => WireAction::Pseudonyms { version: *version },
            Self::Quarantine(stream, seen) => {
                WireAction::Quarantine { table: stream.to_string(), seen: Seen::clone(seen) }
            }
            Self::List(recording) => WireAction::List(Box::new(Recording::clone(recording))),
            Self::Unlist(id) => WireAction::Unlist { id: id.clone() },
        })
    }
}

impl WireCommit {
    fn into_commit(self) -> Result<Commit> {
        let schemas = self.schemas.iter().map(|text| schema(text)).collect::<Result<Vec<_>>>()?;
        let actions = self.actions.into_iter().map(|action| action.into_action(&schemas)).collect::<Result<_>>()?;
        Ok(Commit {
            version: self.version,
            id: self.id,
            committed_ms: self.committed_ms,
            writer: self.writer,
            policy: self.policy.map(Arc::from),
            actions,
        })
    }
}

impl WireAction {
    fn into_action(self, schemas: &[SchemaRef]) -> Result<Action> {
        let columns = |index: usize| {
            schemas.get(index).cloned().ok_or_else(|| Error::data("a schema is missing").with_context("schema", index))
        };
        Ok(match self {
            Self::Policy(rules) => Action::Policy(Arc::from(rules)),
            Self::Declare { table, schema } => Action::Declare(stream(&table)?, columns(schema)?),
            Self::Redeclare { table, schema } => Action::Redeclare(stream(&table)?, columns(schema)?),
            Self::Add(file) => Action::Add(
                stream(&file.table)?,
                Arc::new(DataFile {
                    schema: columns(file.schema)?,
                    path: file.path,
                    bytes: file.bytes,
                    rows: file.rows,
                    pin: digest(&file.pin)?,
                    tail_bytes: file.tail_bytes,
                    min_key: file.min_key,
                    max_key: file.max_key,
                    updated_ms: file.updated_ms,
                    created_ms: file.created_ms,
                    policy: file.policy.into(),
                    content: file.content.as_deref().map(digest).transpose()?,
                    appended: file.appended,
                    pseudonyms: file.pseudonyms,
                    superseded: bitmap(&file.superseded)?,
                    tombstones: bitmap(&file.tombstones)?,
                    index: file.index,
                    restricted_key: file.restricted_key.map(Arc::from),
                    recording: file.recording.map(Arc::from),
                }),
            ),
            Self::Remove { table, path } => Action::Remove(stream(&table)?, path),
            Self::Supersede { table, path, rows } => Action::Supersede(stream(&table)?, path, bitmap(&rows)?),
            Self::Watermark { table, to } => Action::Watermark(stream(&table)?, to),
            Self::Run(run) => Action::Run(Arc::from(run)),
            Self::Pseudonyms { version } => Action::Pseudonyms(version),
            Self::Quarantine { table, seen } => Action::Quarantine(stream(&table)?, Arc::new(seen)),
            Self::List(recording) => Action::List(Arc::from(recording)),
            Self::Unlist { id } => Action::Unlist(id),
        })
    }
}

fn stream(table: &str) -> Result<Stream> {
    Stream::of_table(table).ok_or_else(|| Error::data("a commit names an unknown table").with_context("table", table))
}

fn bytes(text: &str) -> Result<Vec<u8>> {
    BASE64.decode(text).map_err(|error| Error::data("a commit holds wrong base64").with_source(error))
}

fn digest(text: &str) -> Result<[u8; 32]> {
    bytes(text)?.try_into().map_err(|_| Error::data("a digest in a commit has not 32 bytes"))
}

fn schema(text: &str) -> Result<SchemaRef> {
    let bytes = bytes(text)?;
    let schema = root_as_schema(&bytes)
        .map_err(|error| Error::data("a commit holds a wrong schema").with_source(error.to_string()))?;
    Ok(Arc::new(fb_to_schema(schema)))
}

/// The empty bitmap is the empty text: most files have one.
fn bitmap_text(rows: &RoaringBitmap) -> Result<String> {
    if rows.is_empty() {
        return Ok(String::new());
    }
    let mut bytes = Vec::with_capacity(rows.serialized_size());
    rows.serialize_into(&mut bytes)
        .map_err(|error| Error::internal("failed to encode row positions").with_source(error))?;
    Ok(BASE64.encode(bytes))
}

fn bitmap(text: &str) -> Result<RoaringBitmap> {
    if text.is_empty() {
        return Ok(RoaringBitmap::new());
    }
    RoaringBitmap::deserialize_from(bytes(text)?.as_slice())
        .map_err(|error| Error::data("a commit holds wrong row positions").with_source(error))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;
    use crate::error::ErrorKind;
    use crate::lake::lists::{RecordedParameter, RecordedValue};
    use crate::lake::quarantine::SeenField;
    use crate::policy::{AttributeRule, ColumnRule, RulesOfTable};

    fn columns() -> SchemaRef {
        let described = [("description".to_owned(), "Id".to_owned()), ("class".to_owned(), "internal".to_owned())];
        Arc::new(Schema::new(vec![
            Field::new("ticket_id", DataType::Utf8, false).with_metadata(described.into()),
            Field::new_list("tags", Field::new_list_field(DataType::Utf8, true), true),
        ]))
    }

    /// A commit with every action.
    fn commit() -> Commit {
        let file = DataFile {
            path: "data/tickets/0198d2a0-0000-7000-8000-000000000001.parquet".to_owned(),
            bytes: 900,
            rows: 70_000,
            pin: [7; 32],
            tail_bytes: 90,
            min_key: "000000000000000000000001".to_owned(),
            max_key: "0000000000000000000000ff".to_owned(),
            updated_ms: Some((-1, i64::MAX)),
            created_ms: Some((i64::MIN, 5)),
            policy: "abc".into(),
            schema: columns(),
            content: Some([9; 32]),
            appended: Some((3, 6)),
            pseudonyms: 2,
            restricted_key: None,
            recording: Some("r".into()),
            superseded: (0..69_000).collect(),
            tombstones: [5, 69_999].into_iter().collect(),
            index: Some(IndexSize { header_bytes: 300_000, bytes: 2_000_000 }),
        };
        let bare = DataFile {
            content: None,
            appended: None,
            pseudonyms: 1,
            updated_ms: None,
            created_ms: None,
            index: None,
            recording: None,
            superseded: RoaringBitmap::new(),
            ..file.clone()
        };
        let watermark = Watermark {
            complete_through_ms: Some(5),
            complete_from_ms: Some(1),
            target_ms: None,
            remaining_ms: vec![(1, 2), (3, 4)],
        };
        let run =
            RunRecord { id: "run".to_owned(), requests: [("search".to_owned(), 4)].into(), ..RunRecord::default() };
        let column = ColumnRule { name: "ticket_id".to_owned(), ..ColumnRule::default() };
        let custom = AttributeRule { pattern: "*Num".to_owned(), ..AttributeRule::default() };
        let table = RulesOfTable { table: "tickets".to_owned(), columns: vec![column], custom: vec![custom] };
        let rules = Rules { digest: "abc".to_owned(), tables: vec![table] };
        let seen = Seen {
            whole: true,
            fields: vec![SeenField {
                path: "attributes.custom.ssnStr".to_owned(),
                json_type: "text".to_owned(),
                reason: "sensitive".to_owned(),
                count: 4,
                first_ms: 1,
                last_ms: 2,
                run: "run".to_owned(),
            }],
            declared: vec!["attributes.area".to_owned()],
            attributes: Some([("ssnStr".to_owned(), true)].into()),
        };
        Commit {
            version: 7,
            id: "id".to_owned(),
            committed_ms: 1_760_000_000_000,
            writer: "counterfoil test".to_owned(),
            policy: Some("abc".into()),
            actions: vec![
                Action::Declare(Stream::Tickets, columns()),
                Action::Remove(Stream::Tags, "data/tags/x.parquet".to_owned()),
                Action::Supersede(Stream::Tickets, bare.path.clone(), [1, 65_536].into_iter().collect()),
                Action::Add(Stream::Tickets, Arc::new(file)),
                Action::Add(Stream::Customers, Arc::new(bare)),
                Action::Watermark(Stream::Tickets, watermark),
                Action::Run(Arc::new(run)),
                Action::Pseudonyms(2),
                Action::Policy(Arc::new(rules)),
                Action::Redeclare(Stream::Tickets, columns()),
                Action::Quarantine(Stream::Tickets, Arc::new(seen)),
                Action::Quarantine(Stream::Tags, Arc::new(Seen::default())),
                Action::Unlist("q".to_owned()),
                Action::List(Arc::new(Recording {
                    id: "r".to_owned(),
                    list: "x".to_owned(),
                    parameters: vec![RecordedParameter {
                        name: "since".to_owned(),
                        kind: "text[]".to_owned(),
                        value: RecordedValue::List(vec![Some("a".to_owned()), None]),
                    }],
                    ..Recording::default()
                })),
            ],
        }
    }

    fn sealed_json(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
        let json = zstd::stream::decode_all(commit().encode().unwrap().as_slice()).unwrap();
        let mut value = serde_json::from_slice(&json).unwrap();
        change(&mut value);
        zstd::stream::encode_all(serde_json::to_vec(&value).unwrap().as_slice(), 1).unwrap()
    }

    #[test]
    fn commit_reads_what_it_writes() {
        let commit = commit();
        assert_eq!(Commit::decode("c", &commit.encode().unwrap()).unwrap(), commit);
    }

    #[test]
    fn one_schema_is_written_once() {
        let bytes = sealed_json(|value| assert_eq!(value["schemas"].as_array().unwrap().len(), 1));
        assert_eq!(Commit::decode("c", &bytes).unwrap(), commit());
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let bytes = sealed_json(|value| {
            value["later"] = 1.into();
            value["actions"][3]["add"]["later"] = 2.into();
        });
        assert_eq!(Commit::decode("c", &bytes).unwrap(), commit());
    }

    #[test]
    fn what_no_writer_writes_is_a_data_error_naming_the_object() {
        type Change = fn(&mut serde_json::Value);
        let cases: [(&str, Change); 9] = [
            ("newer format", |value| value["format"] = 2.into()),
            ("no format", |value| value["format"] = serde_json::Value::Null),
            ("unknown action", |value| value["actions"][0] = serde_json::json!({"compact": {}})),
            ("unknown table", |value| value["actions"][0]["declare"]["table"] = "notes".into()),
            ("missing schema", |value| value["actions"][0]["declare"]["schema"] = 4.into()),
            ("schema is no flatbuffer", |value| value["schemas"][0] = "AAAA".into()),
            ("no base64", |value| value["actions"][2]["supersede"]["rows"] = "?".into()),
            ("no bitmap", |value| value["actions"][2]["supersede"]["rows"] = "AAAAAAAA".into()),
            ("short pin", |value| value["actions"][3]["add"]["pin"] = "AAAA".into()),
        ];
        for (name, change) in cases {
            let error = Commit::decode("log/7.commit", &sealed_json(change)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data, "{name}");
            assert!(error.to_string().contains("log/7.commit"), "{name}: {error}");
        }
        for bytes in [&b""[..], b"not zstd", &commit().encode().unwrap()[..40]] {
            assert_eq!(Commit::decode("c", bytes).unwrap_err().kind(), ErrorKind::Data);
        }
    }

    #[test]
    fn decompression_is_bounded() {
        let mut bomb = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        let zeros = vec![b' '; 1 << 20];
        for _ in 0..=PLAIN_LIMIT_BYTES >> 20 {
            std::io::Write::write_all(&mut bomb, &zeros).unwrap();
        }
        let error = Commit::decode("c", &bomb.finish().unwrap()).unwrap_err();
        assert!(error.to_string().contains("larger than any"), "{error}");
    }
}
