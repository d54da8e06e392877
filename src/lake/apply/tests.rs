//! Applying a policy: what is named, what is rewritten, what is left, wherever it stops and whatever the policies are.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::util::display::array_value_to_string;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::error::ErrorKind;
use crate::lake::simulation::faulty::{Fault, Faulty};
use crate::lake::simulation::{append, create, hex, memory, open, query, query_at};
use crate::lake::{CompactSettings, RowCounts};
use crate::policy::RedactedBatch;
use crate::schema::Schemas;

/// Columns (name, type, method as TOML) and custom rules (pattern, method).
type Declared<'a> = (&'a [(&'a str, &'a str, &'a str)], &'a [(&'a str, &'a str)]);

const WIDE: Declared<'_> = (
    &[
        ("status", "text", "\"keep\""),
        ("opened_on", "timestamp", "\"keep\""),
        ("email", "text", "{ name = \"mask\", as = \"email\" }"),
    ],
    &[("*Num", "\"keep\"")],
);
const NARROW: Declared<'_> = (
    &[
        ("opened_on", "timestamp", "{ name = \"truncate\", to = \"month\" }"),
        ("email", "text", "{ name = \"pseudonymize\", domain = \"person\" }"),
    ],
    &[],
);

fn policy((columns, custom): Declared<'_>) -> Policy {
    let mut text = "stream = \"tickets\"\n".to_owned();
    let fixed = [
        ("ticket_id", "id", "text"),
        ("updated_at", "attributes.updatedAt", "timestamp"),
        ("rev", "attributes.rev", "int"),
        ("deleted", "attributes.deleted", "bool"),
    ];
    let mut declare = |name: &str, path: &str, kind: &str, method: &str| {
        writeln!(text, "[[column]]\nname = \"{name}\"\npath = \"{path}\"\ntype = \"{kind}\"").unwrap();
        writeln!(text, "class = \"personal\"\nmethod = {method}\ndescription = \"x\"").unwrap();
    };
    for (name, path, kind) in fixed {
        declare(name, path, kind, "\"keep\"");
    }
    for (name, kind, method) in columns {
        declare(name, &format!("attributes.{name}"), kind, method);
    }
    for (pattern, method) in custom {
        writeln!(text, "[[custom]]\npattern = \"{pattern}\"\nclass = \"personal\"\nmethod = {method}").unwrap();
    }
    Policy::compile(&Schemas::from_files([("tickets.toml", text.as_str())]).unwrap()).unwrap()
}

/// A record whose values all differ by id and revision.
fn record(id: u8, rev: i64) -> Value {
    let at = |seconds: i64| jiff::Timestamp::from_second(seconds).unwrap().to_string();
    json!({"type": "conversation", "id": hex(id), "attributes": {
        "updatedAt": at(1_760_000_000 + rev), "rev": rev, "deleted": false,
        "status": format!("needle-{id}-{rev}"),
        "opened_on": at(1_700_000_123 + 1_000_000 * i64::from(id) + rev),
        "email": format!("person{id}@example{rev}.org"),
        "amount": 1_000 * i64::from(id) + rev,
        "custom": {"feeNum": 7.5 + f64::from(id), "tierStr": format!("tier-{id}")},
    }})
}

fn batch(lake: &Lake, policy: &Policy, records: &[Value]) -> RedactedBatch {
    let mut definitions = Definitions::default();
    let answer =
        json!({"data": {"attributes": {"properties": {"feeNum": {"type": "number"}, "tierStr": {"type": "string"}}}}});
    definitions.add(Stream::Tickets, answer.to_string().as_bytes()).unwrap();
    let keys = lake.ring().pseudonym_keys(1).unwrap();
    let mut decoder = policy.decoder(Stream::Tickets, &definitions, &keys).unwrap();
    decoder.push_page(json!({ "data": records }).to_string().as_bytes()).unwrap();
    decoder.finish().unwrap()
}

async fn extract(lake: &Lake, policy: &Policy, revisions: &[(u8, i64)]) -> RowCounts {
    let records: Vec<Value> = revisions.iter().map(|(id, rev)| record(*id, *rev)).collect();
    let mut change = lake.transaction().under(policy);
    change.append(batch(lake, policy, &records));
    change.commit().await.unwrap().streams[0].1
}

/// A lake of three files under a policy, with superseded rows in two of them.
async fn written(store: &Arc<dyn ObjectStore>, policy: &Policy) -> Lake {
    let lake = create(store).await;
    extract(&lake, policy, &[(1, 1), (2, 1), (3, 1)]).await;
    extract(&lake, policy, &[(2, 2), (4, 1)]).await;
    extract(&lake, policy, &[(1, 3), (5, 1)]).await;
    lake
}

async fn apply(lake: &Lake, policy: &Policy) -> Result<ApplyReport> {
    lake.apply_policy(policy, &ApplySettings { task_files: 2, ..ApplySettings::default() }, "test", |_| ()).await
}

async fn survey(lake: &Lake, policy: &Policy) -> Survey {
    lake.survey(&lake.latest().await.unwrap(), policy).unwrap()
}

async fn columns(lake: &Lake) -> Vec<String> {
    let manifest = lake.latest().await.unwrap();
    manifest.tables[&Stream::Tickets].schema.fields().iter().map(|field| field.name().clone()).collect()
}

/// All rows of all revisions of some columns.
async fn rows(lake: &Lake, columns: &str) -> Vec<Vec<String>> {
    query(lake, &format!("SELECT ticket_id, rev, {columns} FROM ticket_versions ORDER BY 1, 2")).await
}

#[tokio::test]
async fn rules_are_kept_as_long_as_a_file_names_them() {
    let lake = create(&memory()).await;
    let (wide, narrow) = (policy(WIDE), policy(NARROW));
    extract(&lake, &wide, &[(1, 1)]).await;
    let first = lake.latest().await.unwrap();
    assert_eq!(first.policy.as_deref(), Some(wide.digest().as_ref()));
    assert_eq!(first.policies.values().collect::<Vec<_>>(), [wide.rules()]);
    extract(&lake, &narrow, &[(2, 1)]).await;
    let second = lake.latest().await.unwrap();
    assert_eq!((second.policies.len(), second.policy.as_deref()), (2, Some(narrow.digest().as_ref())));
    // A commit without a policy changes nothing of it.
    append(&lake, batch(&lake, &narrow, &[record(3, 1)])).await.unwrap();
    assert_eq!(lake.latest().await.unwrap().policies, second.policies);
    // The snapshot of a version says the same.
    let snapshot = second.to_snapshot("id".to_owned(), "test".to_owned());
    assert_eq!(Manifest::from_snapshot(snapshot).unwrap(), *second);
    apply(&lake, &narrow).await.unwrap();
    let applied = lake.latest().await.unwrap();
    let chain = format!("{}+{}", wide.digest(), narrow.digest());
    let mut named: Vec<&str> = applied.tables[&Stream::Tickets].files.iter().map(|file| file.policy.as_ref()).collect();
    named.sort_unstable_by_key(|policy| policy.len());
    assert_eq!(named, [narrow.digest().as_ref(), narrow.digest().as_ref(), chain.as_str()]);
    assert_eq!(applied.policies.len(), 2, "the chain names the first one still");
}

#[tokio::test]
async fn narrowed_columns_are_named_and_applied_in_every_file_with_all_else_as_it_was() {
    let store = memory();
    let (wide, narrow) = (policy(WIDE), policy(NARROW));
    let lake = written(&store, &wide).await;
    let before = lake.latest().await.unwrap();
    assert_eq!(survey(&lake, &wide).await, Survey::default());

    let found = survey(&lake, &narrow).await;
    assert_eq!((found.tables[0].files, found.tables[0].rows), (3, 7));
    let named: Vec<(&str, &str)> =
        found.tables[0].columns.iter().map(|column| (column.column.as_str(), column.becomes.as_str())).collect();
    assert_eq!(
        named,
        [
            ("status", "removed"),
            ("opened_on", "truncate(to=month) applied"),
            ("email", "emptied until a full extract"),
            ("custom_fee", "removed"),
        ]
    );
    let line = found.forbidden().unwrap();
    assert!(line.contains("tickets in 3 files (custom_fee, email, opened_on, status)"), "{line}");
    let plan = lake.plan_policy(&narrow, &ApplySettings::default()).await.unwrap();
    assert!(plan.to_string().starts_with("tickets: 3 files, 7 rows, "), "{plan}");
    assert!(plan.to_string().contains("  status: removed (3 files)\n"), "{plan}");
    assert_eq!(lake.latest().await.unwrap().version, before.version, "a plan changes nothing");

    let times = rows(&lake, "opened_on").await;
    let report = apply(&lake, &narrow).await.unwrap();
    assert_eq!(report.done.iter().map(|done| (done.files, done.rows)).collect::<Vec<_>>(), [(2, 5), (1, 2)]);
    let after = lake.latest().await.unwrap();
    let shape = |manifest: &Manifest| {
        let mut files: Vec<_> = manifest.tables[&Stream::Tickets]
            .files
            .iter()
            .map(|file| (file.appended, file.rows, file.superseded.clone(), file.tombstones.clone(), file.updated_ms))
            .collect();
        files.sort_by_key(|file| file.0);
        files
    };
    assert_eq!(shape(&after), shape(&before));
    let mut left = report.columns.clone();
    left.sort();
    assert_eq!(left, [(Stream::Tickets, "custom_fee".to_owned()), (Stream::Tickets, "status".to_owned())]);
    assert_eq!(columns(&lake).await, ["ticket_id", "updated_at", "rev", "deleted", "opened_on", "email"]);
    let restated = rows(&lake, "opened_on, email").await;
    for (old, new) in times.iter().zip(&restated) {
        assert_eq!((&old[..2], &new[2][..7], &new[2][7..]), (&new[..2], &old[2][..7], "-01T00:00:00Z"));
        assert_eq!(new[3], "", "the address was masked, so the pseudonym cannot be made of it");
    }
    // A second run has nothing to do, and says what older versions hold.
    let again = apply(&lake, &narrow).await.unwrap();
    assert_eq!((again.done.len(), again.columns.len(), again.older), (0, 0, OlderVersions { files: 3, versions: 5 }));
    assert_eq!(lake.latest().await.unwrap().version, after.version);
    let old = query_at(&lake, &before, "SELECT count(status) FROM ticket_versions").await;
    assert_eq!(old, [["7"]], "older versions stay as they are");
}

#[tokio::test]
async fn older_versions_end_when_that_is_asked_for_and_their_files_go() {
    let store = memory();
    let (wide, narrow) = (policy(WIDE), policy(NARROW));
    let lake = written(&store, &wide).await;
    let old: Vec<String> =
        lake.latest().await.unwrap().tables[&Stream::Tickets].files.iter().map(|file| file.path.clone()).collect();
    let expire = ApplySettings { expire: true, ..ApplySettings::default() };
    let extract_lease = lake.lease(Purpose::Extract, "an extract").await.unwrap();
    let error = lake.apply_policy(&narrow, &expire, "test", |_| ()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "no extract may run beside it");
    extract_lease.release().await.unwrap();
    let report = lake.apply_policy(&narrow, &expire, "test", |_| ()).await.unwrap();
    assert_eq!((report.older, report.deleted), (OlderVersions::default(), 6));
    assert!(report.expiry.is_some_and(|expiry| expiry.versions >= 3));
    for path in old {
        assert!(store.head(&path.into()).await.is_err());
    }
    let again = lake.apply_policy(&narrow, &expire, "test", |_| ()).await.unwrap();
    assert_eq!((again.expiry, again.deleted), (None, 0), "versions do not end without a reason");
}

#[tokio::test]
async fn widened_rules_are_told_until_a_full_extract_has_written_the_same_revisions_again() {
    let store = memory();
    let (wide, narrow) = (policy(WIDE), policy(NARROW));
    let lake = written(&store, &narrow).await;
    let found = survey(&lake, &wide).await;
    assert_eq!((found.tables[0].files, found.tables[0].lacking_rows), (3, 5), "pseudonyms are not masked addresses");
    let lacking: Vec<&str> = found.tables[0].lacking.iter().map(String::as_str).collect();
    assert_eq!(lacking, ["*Num", "email", "opened_on", "status"]);
    // What is applied takes nothing of it away, and does not hide it.
    apply(&lake, &wide).await.unwrap();
    let found = survey(&lake, &wide).await;
    assert_eq!((found.is_forbidden(), found.tables[0].lacking_rows), (false, 5));
    assert_eq!(found.tables[0].lacking.len(), 4);
    let line = found.lacking().unwrap();
    assert!(line.contains("tickets in 5 rows (*Num, email, opened_on, status)"), "{line}");

    let live = [(1, 3), (2, 2), (3, 1), (4, 1), (5, 1)];
    let counts = extract(&lake, &wide, &live).await;
    assert_eq!((counts.updated, counts.unchanged), (5, 0), "the same revisions are written again");
    assert_eq!(survey(&lake, &wide).await, Survey::default());
    let counts = extract(&lake, &wide, &live).await;
    assert_eq!((counts.updated, counts.unchanged), (0, 5));
    assert_eq!(
        query(&lake, "SELECT count(*), count(status), count(custom_fee), count(email) FROM tickets").await,
        [["5", "5", "5", "5"]]
    );
}

#[tokio::test]
async fn narrowing_alone_makes_files_of_the_present_policy() {
    let store = memory();
    let narrow = policy((&[("opened_on", "timestamp", "{ name = \"truncate\", to = \"month\" }")], &[]));
    let lake = written(&store, &policy(WIDE)).await;
    apply(&lake, &narrow).await.unwrap();
    assert_eq!(survey(&lake, &narrow).await, Survey::default());
    let manifest = lake.latest().await.unwrap();
    assert!(manifest.tables[&Stream::Tickets].files.iter().all(|file| file.policy == *narrow.digest()));
    assert_eq!(manifest.policies.len(), 1, "rules that nothing names are forgotten");
    let counts = extract(&lake, &narrow, &[(1, 3), (2, 2), (3, 1)]).await;
    assert_eq!((counts.unchanged, counts.updated), (3, 0), "the rows are what the policy would have stored");
}

#[tokio::test]
async fn compaction_joins_files_of_one_policy_only() {
    let store = memory();
    let (wide, narrow) = (policy(WIDE), policy(NARROW));
    let lake = written(&store, &wide).await;
    apply(&lake, &narrow).await.unwrap();
    extract(&lake, &narrow, &[(7, 1), (8, 1)]).await;
    extract(&lake, &narrow, &[(9, 1), (10, 1)]).await;
    let before = rows(&lake, "opened_on, email").await;
    lake.compact(&CompactSettings::default(), "test", |_| ()).await.unwrap();
    let manifest = lake.latest().await.unwrap();
    let mut policies: Vec<&str> =
        manifest.tables[&Stream::Tickets].files.iter().map(|file| file.policy.as_ref()).collect();
    policies.sort_unstable();
    policies.dedup();
    assert_eq!((policies.len(), manifest.tables[&Stream::Tickets].files.len()), (2, 2));
    assert_eq!(rows(&lake, "opened_on, email").await, before);
    assert!(survey(&lake, &narrow).await.is_lacking(), "the mark of an emptied column stays");
}

#[tokio::test]
async fn table_that_no_schema_declares_is_named_and_left_alone() {
    let lake = create(&memory()).await;
    let tags = crate::lake::simulation::tags(&[crate::lake::simulation::revision(1, 1)]);
    crate::lake::simulation::replace(&lake, tags).await;
    let narrow = policy(NARROW);
    assert_eq!(survey(&lake, &narrow).await.undeclared, ["tags"]);
    assert_eq!(apply(&lake, &narrow).await.unwrap(), ApplyReport::default());
    assert_eq!(query(&lake, "SELECT count(*) FROM tags").await, [["1"]]);
}

#[tokio::test]
async fn crash_at_any_call_loses_a_task_and_repeating_completes_it() {
    let (wide, narrow) = (policy(WIDE), policy(NARROW));
    let settings = ApplySettings { task_files: 1, expire: true, ..ApplySettings::default() };
    let mut crashes = 0;
    for (fault, for_good) in
        [(Fault::Before, true), (Fault::After, true), (Fault::Before, false), (Fault::After, false)]
    {
        for at in 0.. {
            let plain = memory();
            drop(written(&plain, &wide).await);
            let faulty = Arc::new(Faulty {
                inner: Arc::clone(&plain),
                calls: Arc::new(AtomicUsize::new(0)),
                at,
                fault,
                for_good,
            });
            let broken: Arc<dyn ObjectStore> = Arc::<Faulty>::clone(&faulty);
            if let Ok(lake) = open(&broken).await {
                let _ = lake.apply_policy(&narrow, &settings, "test", |_| ()).await;
            }
            let name = format!("{fault:?}, for good: {for_good}, at call {at}");
            let lake = open(&plain).await.unwrap();
            let ids = "SELECT count(*), count(DISTINCT ticket_id) FROM tickets";
            assert_eq!(query(&lake, ids).await, [["5", "5"]], "{name}");
            assert_eq!(query(&lake, "SELECT count(*) FROM ticket_versions").await, [["7"]], "{name}");
            free_leases(&plain).await;
            let report = lake.apply_policy(&narrow, &settings, "test", |_| ()).await.expect(&name);
            assert_eq!(report.older, OlderVersions::default(), "{name}");
            assert_eq!(query(&lake, ids).await, [["5", "5"]], "{name}");
            assert!(!survey(&lake, &narrow).await.is_forbidden(), "{name}");
            assert_eq!(
                columns(&lake).await,
                ["ticket_id", "updated_at", "rev", "deleted", "opened_on", "email"],
                "{name}"
            );
            if faulty.calls.load(Ordering::SeqCst) <= at {
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 100, "{crashes}");
}

/// Takes the leases of a process that died, as time would.
async fn free_leases(store: &Arc<dyn ObjectStore>) {
    use futures::TryStreamExt;
    let folder = object_store::path::Path::from("leases");
    let held: Vec<_> = store.list(Some(&folder)).map_ok(|object| object.location).try_collect().await.unwrap();
    for lease in held {
        store.delete(&lease).await.unwrap();
    }
}

/// Methods by type, as TOML and in the order of what they show where they have one.
const TEXT: [&str; 7] = [
    "\"drop\"",
    "\"keep\"",
    "\"mask\"",
    "{ name = \"mask\", as = \"email\" }",
    "{ name = \"truncate\", chars = 3 }",
    "{ name = \"truncate\", chars = 9 }",
    "{ name = \"pseudonymize\", domain = \"d\" }",
];
const TIME: [&str; 6] = [
    "\"drop\"",
    "\"keep\"",
    "{ name = \"truncate\", to = \"hour\" }",
    "{ name = \"truncate\", to = \"day\" }",
    "{ name = \"truncate\", to = \"week\" }",
    "{ name = \"truncate\", to = \"month\" }",
];
const NUMBER: [&str; 5] = [
    "\"drop\"",
    "\"keep\"",
    "{ name = \"bucket\", width = 10 }",
    "{ name = \"bucket\", width = 100 }",
    "{ name = \"bucket\", bounds = [0, 2000, 5000] }",
];

/// The values that a policy makes of records: (column, id, revision) to text.
fn values(lake: &Lake, policy: &Policy, records: &[Value]) -> BTreeMap<(String, String, String), String> {
    let batch = batch(lake, policy, records);
    let batch = batch.batch();
    let text = |name: &str, row| array_value_to_string(batch.column_by_name(name).unwrap(), row).unwrap();
    let mut found = BTreeMap::new();
    for field in batch.schema().fields() {
        for row in 0..batch.num_rows() {
            let key = (field.name().clone(), text("ticket_id", row), text("rev", row));
            found.insert(key, text(field.name(), row));
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn applying_leaves_nothing_forbidden_and_loses_nothing_allowed(
        methods in [(0..TEXT.len(), 0..TEXT.len()), (0..TEXT.len(), 0..TEXT.len()), (0..TIME.len(), 0..TIME.len()), (0..NUMBER.len(), 0..NUMBER.len())],
        custom in (0..3_usize, 0..3_usize),
    ) {
        let names = [("status", "text"), ("email", "text"), ("opened_on", "timestamp"), ("amount", "int")];
        let methods_of = [&TEXT[..], &TEXT, &TIME, &NUMBER];
        let customs: [&[(&str, &str)]; 3] = [&[], &[("*Num", "\"keep\""), ("tierStr", "\"mask\"")], &[("*", "\"keep\"")]];
        let declared = |pick: &dyn Fn(&(usize, usize)) -> usize| {
            let columns = names.iter().zip(methods_of).zip(&methods);
            columns.map(|(((name, kind), of), chosen)| (*name, *kind, of[pick(chosen)])).collect::<Vec<_>>()
        };
        let (first, second) = (declared(&|chosen| chosen.0), declared(&|chosen| chosen.1));
        let a = policy((first.as_slice(), customs[custom.0]));
        let b = policy((second.as_slice(), customs[custom.1]));
        let revisions = [(1_u8, 1_i64), (2, 1), (3, 1), (2, 2), (4, 1), (1, 3), (5, 1)];
        let records: Vec<Value> = revisions.iter().map(|(id, rev)| record(*id, *rev)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let lake = written(&memory(), &a).await;
            apply(&lake, &b).await.unwrap();
            let manifest = lake.latest().await.unwrap();
            let found = survey(&lake, &b).await;
            assert!(!found.is_forbidden(), "{found:?}");
            let (by_a, by_b) = (values(&lake, &a, &records), values(&lake, &b, &records));
            let rules = |policy: &Policy, name: &str| {
                let table = policy.rules().table("tickets").unwrap().clone();
                table.columns.into_iter().find(|column| column.name == name).map(|column| column.method)
            };
            let fields: Vec<String> = columns(&lake).await;
            for name in &fields {
                for file in manifest.tables[&Stream::Tickets].files.iter().filter(|file| file.policy == *b.digest()) {
                    assert!(file.schema.field_with_name(name).is_ok() || !by_b.keys().any(|key| key.0 == *name));
                }
                let stored = rows(&lake, &format!("{name} AS value")).await;
                assert_eq!(stored.len(), revisions.len());
                for row in stored {
                    let key = (name.clone(), row[0].clone(), row[1].clone());
                    let (was, would, is) = (by_a.get(&key), by_b.get(&key), &row[2]);
                    let method = rules(&b, name);
                    let hides_all = is == "***";
                    let is_as_it_was = was == Some(is)
                        && (hides_all || !method.as_deref().is_some_and(|method| method.starts_with("pseudonymize")));
                    let unchanged = || {
                        // Whoever hides no more than what is hidden already leaves it as it is.
                        let mut record = records[0].clone();
                        record["attributes"][name.as_str()] = match name.as_str() {
                            "amount" => is.parse::<i64>().unwrap().into(),
                            _ => is.as_str().into(),
                        };
                        let again = values(&lake, &b, &[record]);
                        again.iter().any(|(key, value)| key.0 == *name && value == is)
                    };
                    let is_custom = name.starts_with("custom_");
                    let is_allowed = is.is_empty() || would == Some(is) || (would.is_some() && is_as_it_was && (hides_all || is_custom || unchanged()));
                    assert!(is_allowed, "{name}: {was:?} is {is}, would be {would:?}");
                    if let (Some(was), Some(would)) = (was, would) {
                        let is_kept = rules(&a, name).as_deref() == Some("keep");
                        if is_kept || was == would { assert_eq!(is, would, "{name}") }
                        if rules(&b, name).as_deref() == Some("keep") { assert_eq!(is, was, "{name}") }
                    }
                }
            }
            let stored: Vec<&String> = by_b.keys().map(|key| &key.0).collect();
            assert!(fields.iter().all(|name| stored.contains(&name)), "{fields:?}");
            // Nothing is left to do, and a full extract ends in what the policy makes of the source.
            let again = apply(&lake, &b).await.unwrap();
            assert!(again.done.is_empty() && again.columns.is_empty(), "{again:?}");
            let live = [(1, 3), (2, 2), (3, 1), (4, 1), (5, 1)];
            extract(&lake, &b, &live).await;
            assert!(!survey(&lake, &b).await.is_lacking());
            for name in columns(&lake).await {
                let sql = format!("SELECT ticket_id, rev, {name} AS value FROM tickets");
                for row in query(&lake, &sql).await {
                    let key = (name.clone(), row[0].clone(), row[1].clone());
                    assert_eq!(by_b.get(&key), Some(&row[2]), "{name}");
                }
            }
        });
    }
}
