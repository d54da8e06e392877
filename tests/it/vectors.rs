//! Test vectors of the lake's format: a small lake that is kept in the repository, opened, read and verified.
//!
//! `tests/vectors/v1/` was written once by the generator at the end of this file. Whatever the format becomes, this program
//! must go on reading it; a new version gets a folder of its own. The root key stands here, so it protects nothing.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use counterfoil::clock::{ManualClock, SharedClock};
use counterfoil::keys::RootKey;
use counterfoil::lake::manifest::Watermark;
use counterfoil::lake::run::RunRecord;
use counterfoil::lake::{Lake, StoreSettings};
use counterfoil::model::Stream;
use counterfoil::policy::{Definitions, Policy, RedactedBatch};
use counterfoil::schema::Schemas;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::rows;

/// The root key of the vectors: 32 bytes from 0 to 31.
fn root_key() -> String {
    let bytes: Vec<u8> = (0..32).collect();
    format!("counterfoil-root-1:{}\n", STANDARD.encode(bytes))
}

/// The versions of the lake: the first has the tickets, the second changes some, the third has tags, the last is a run's.
/// A snapshot stands at every twentieth.
const VERSIONS: u64 = 22;

const TICKETS: &str = r#"
stream = "tickets"
[[column]]
name = "ticket_id"
path = "id"
type = "text"
class = "internal"
description = "Id."
[[column]]
name = "updated_at"
path = "attributes.updatedAt"
type = "timestamp"
class = "internal"
description = "Last change."
[[column]]
name = "rev"
path = "attributes.rev"
type = "int"
class = "internal"
description = "Revision."
[[column]]
name = "deleted"
path = "attributes.deleted"
type = "bool"
class = "internal"
description = "Whether it was deleted."
[[column]]
name = "status"
path = "attributes.status"
type = "text"
class = "internal"
description = "Status."
[[column]]
name = "tag_ids"
path = "attributes.tags"
type = "text_list"
class = "internal"
description = "Tags."
[[column]]
name = "satisfaction"
path = "attributes.satisfaction"
type = "float"
class = "internal"
description = "Score."
"#;

const TAGS: &str = r#"
stream = "tags"
[[column]]
name = "tag_id"
path = "id"
type = "text"
class = "internal"
description = "Id."
[[column]]
name = "name"
path = "attributes.name"
type = "text"
class = "internal"
description = "Name."
"#;

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new("2026-11-01T12:00:00Z".parse().unwrap()))
}

fn id(number: u64) -> String {
    format!("58228e05d4e96711{number:08x}")
}

fn ticket(number: u64, rev: i64, status: Option<&str>, deleted: bool) -> Value {
    let tags: Vec<String> = (0..number % 3).map(|tag| id(100 + tag)).collect();
    json!({ "type": "conversation", "id": id(number), "attributes": {
        "updatedAt": format!("2026-10-{:02}T08:30:{number:02}.250Z", rev + 1),
        "rev": rev, "deleted": deleted, "status": status, "tags": tags, "satisfaction": number as f64 / 4.0,
    }})
}

fn decoded(lake: &Lake, stream: Stream, records: &[Value]) -> RedactedBatch {
    let schemas = Schemas::from_files([("tickets.toml", TICKETS), ("tags.toml", TAGS)]).unwrap();
    let policy = Policy::compile(&schemas).unwrap();
    let keys = lake.ring().pseudonym_keys(1).unwrap();
    let mut decoder = policy.decoder(stream, &Definitions::default(), &keys).unwrap();
    decoder.push_page(&serde_json::to_vec(&json!({ "data": records })).unwrap()).unwrap();
    decoder.finish().unwrap()
}

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/v1")
}

/// Writes the root key where only its owner can read it, which a repository cannot keep.
fn write_root_key(folder: &Path) -> RootKey {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(folder.join("root.key")).unwrap().write_all(root_key().as_bytes()).unwrap();
    RootKey::read("file:root.key", folder).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A copy of the vectors, opened.
async fn opened() -> (TempDir, RootKey, Lake) {
    let folder = tempfile::tempdir().unwrap();
    copy(&vectors(), &folder.path().join("lake"));
    let root = write_root_key(folder.path());
    let lake = Lake::open(&StoreSettings::new("file:lake", folder.path()), &root, clock()).await.unwrap();
    (folder, root, lake)
}

async fn answers(lake: &Lake, version: u64, sql: &str) -> Vec<Value> {
    let manifest = lake.at_version(version).await.unwrap();
    rows(lake, manifest, clock(), sql).await
}

#[tokio::test]
async fn lake_of_format_1_opens_and_has_its_rows_in_every_version() {
    let (_folder, _, lake) = opened().await;
    assert_eq!(lake.latest().await.unwrap().version, VERSIONS);
    let sql = "SELECT ticket_id, rev, status, CAST(updated_at AS BIGINT) AS at, satisfaction, cardinality(tag_ids) AS tags \
               FROM tickets ORDER BY 1";
    let row = |number: u64, rev: i64, status: Option<&str>| {
        let at: jiff::Timestamp = format!("2026-10-{:02}T08:30:{number:02}.250Z", rev + 1).parse().unwrap();
        let at = at.as_millisecond();
        json!([id(number), rev, status, at, number as f64 / 4.0, number % 3])
    };
    let cells = |row: &Value| {
        let cell = |name: &str| row.get(name).cloned().unwrap_or_default();
        let tags = row.get("tags").cloned().filter(|tags| !tags.is_null()).unwrap_or(json!(0));
        json!([cell("ticket_id"), cell("rev"), cell("status"), cell("at"), cell("satisfaction"), tags])
    };
    let first: Vec<Value> = answers(&lake, 1, sql).await.iter().map(cells).collect();
    let opened = Some("open");
    assert_eq!(first, (1..=5).map(|number| row(number, 1, opened.filter(|_| number != 4))).collect::<Vec<_>>());
    let newest: Vec<Value> = answers(&lake, VERSIONS, sql).await.iter().map(cells).collect();
    assert_eq!(
        newest,
        [row(1, 1, opened), row(2, 2, Some("done")), row(4, 1, None), row(5, 1, opened), row(6, 1, opened)]
    );
    let count = answers(&lake, VERSIONS, "SELECT count(*) AS n, sum(rev) AS revs FROM ticket_versions").await;
    assert_eq!(count, [json!({ "n": 8, "revs": 5 + 2 + 2 + 1 })]);
    let tags = answers(&lake, VERSIONS, "SELECT tag_id, name FROM tags ORDER BY 1").await;
    assert_eq!(tags, [json!({ "tag_id": id(100), "name": "refund" }), json!({ "tag_id": id(101), "name": "VIP" })]);
    let runs = answers(&lake, VERSIONS, "SELECT run_id, outcome FROM runs").await;
    assert_eq!(runs, [json!({ "run_id": "run-of-the-vectors", "outcome": "complete" })]);
    let watermark = &lake.latest().await.unwrap().watermarks[&Stream::Tickets];
    assert_eq!(watermark.complete_through_ms, Some(1_790_000_000_000 + 21));
}

#[tokio::test]
async fn lake_of_format_1_is_sound() {
    let (_folder, root, lake) = opened().await;
    let report = lake.verify(&root, None, &|_| {}).await.unwrap();
    assert_eq!((&report.findings[..], &report.garbage[..]), (&[][..], &[][..]));
    assert_eq!((report.version, report.commits, report.snapshots, report.files), (VERSIONS, VERSIONS, 1, 3));
    assert_eq!((report.rows, report.live_rows), (10, 7));
}

#[tokio::test]
async fn lake_of_format_1_can_be_written_on() {
    let (_folder, _, lake) = opened().await;
    let mut change = lake.transaction();
    change.append(decoded(&lake, Stream::Tickets, &[ticket(1, 3, Some("done"), false)]));
    assert_eq!(change.commit().await.unwrap().version, VERSIONS + 1);
    let done = answers(&lake, VERSIONS + 1, "SELECT count(*) AS n FROM tickets WHERE status = 'done'").await;
    assert_eq!(done, [json!({ "n": 2 })]);
}

/// Writes the vectors anew: `rm -r tests/vectors/v1 && cargo test --test it vectors -- --ignored`.
#[tokio::test]
#[ignore = "writes tests/vectors/v1, which must not exist"]
async fn vectors_of_format_1_are_written() {
    assert!(!vectors().exists(), "vectors are written once; remove them first if no release has them yet");
    let folder = tempfile::tempdir().unwrap();
    let root = write_root_key(folder.path());
    let clock = clock();
    let shared: SharedClock = clock.clone();
    let lake = Lake::create(&StoreSettings::new("file:lake", folder.path()), &root, shared).await.unwrap();
    let opened = Some("open");
    let first: Vec<Value> = (1..=5).map(|number| ticket(number, 1, opened.filter(|_| number != 4), false)).collect();
    for version in 1..=VERSIONS {
        clock.advance(std::time::Duration::from_mins(1));
        let mut change = lake.transaction();
        match version {
            1 => change.append(decoded(&lake, Stream::Tickets, &first)),
            2 => {
                let records =
                    [ticket(2, 2, Some("done"), false), ticket(3, 2, None, true), ticket(6, 1, opened, false)];
                change.append(decoded(&lake, Stream::Tickets, &records));
            }
            3 => {
                let tag = |number: u64, name: &str| json!({ "type": "tag", "id": id(number), "attributes": { "name": name } });
                change.replace(decoded(&lake, Stream::Tags, &[tag(100, "refund"), tag(101, "VIP")]));
            }
            VERSIONS => change.record_run(RunRecord {
                id: "run-of-the-vectors".to_owned(),
                outcome: "complete".to_owned(),
                ..RunRecord::default()
            }),
            _ => {
                let complete_through_ms = Some(1_790_000_000_000 + version as i64);
                change.set_watermark(Stream::Tickets, Watermark { complete_through_ms, ..Watermark::default() });
            }
        }
        assert_eq!(change.commit().await.unwrap().version, version);
    }
    copy(&folder.path().join("lake"), &vectors());
}
