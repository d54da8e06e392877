//! Compaction: nothing that a query sees changes, whatever the history, whoever else is at work, wherever it stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use object_store::ObjectStore;
use proptest::prelude::*;

use super::faulty::{Fault, Faulty};
use super::rewrites::everything;
use super::{
    Revision, STATUS, append, create, deletion, live, memory, open, query, replace, revision, rows, tags, tickets,
};
use crate::error::{ErrorKind, Result};
use crate::lake::compact::run_task;
use crate::lake::manifest::DataFile;
use crate::lake::{CompactReport, CompactSettings, LEASE_DURATION, Lake, MaintainSettings, Purpose};
use crate::model::Stream;

/// Targets so small that a few rows fill a file.
fn small() -> CompactSettings {
    CompactSettings { target_rows: 24, ..CompactSettings::default() }
}

async fn compact(lake: &Lake) -> Result<CompactReport> {
    lake.compact(&small(), "test", |_| ()).await
}

async fn files(lake: &Lake) -> Vec<Arc<DataFile>> {
    lake.latest().await.unwrap().tables[&Stream::Tickets].files.clone()
}

async fn is_planned(lake: &Lake) -> bool {
    !Lake::plan_compaction(&lake.latest().await.unwrap(), &small()).is_empty()
}

/// A lake of many small commits: new tickets, changes, deletions.
async fn grown(store: &Arc<dyn ObjectStore>, commits: u8) -> Lake {
    let lake = create(store).await;
    for number in 0..commits {
        let round = i64::from(number) + 1;
        let mut changes = vec![revision(number, round), revision(100 + number, round)];
        match number % 4 {
            1 => changes.push(revision(number / 2, round)),
            3 => changes.push(deletion(number - 1, round)),
            _ => {}
        }
        append(&lake, tickets(&changes)).await.unwrap();
    }
    lake
}

#[tokio::test]
async fn many_small_files_become_few_that_hold_the_same_rows() {
    let store = memory();
    let lake = grown(&store, 24).await;
    let before = lake.latest().await.unwrap();
    let expected = everything(&lake, &before).await;
    let mut told = 0;
    let report = lake.compact(&small(), "test", |_| told += 1).await.unwrap();
    let after = lake.latest().await.unwrap();
    assert_eq!((told, report.dropped), (report.done.len(), 0));
    assert_eq!(after.version, before.version + report.done.len() as u64, "each task is a version");
    assert_eq!(everything(&lake, &after).await, expected);
    assert_eq!(everything(&open(&store).await.unwrap(), &after).await, expected);
    assert_eq!(everything(&lake, &lake.at_version(before.version).await.unwrap()).await, expected, "old files stay");
    assert!(files(&lake).await.len() <= 8, "{:#?}", files(&lake).await);
    let (rows, moved): (u64, u64) =
        report.done.iter().fold((0, 0), |sum, done| (sum.0 + done.rows, sum.1 + done.rows_moved));
    assert!(rows >= 60 && moved > 0, "{report:?}");

    assert!(!is_planned(&lake).await, "{:#?}", Lake::plan_compaction(&after, &small()).to_string());
    assert_eq!(compact(&lake).await.unwrap(), CompactReport::default());
    assert_eq!(lake.latest().await.unwrap().version, after.version, "a second run makes no version");
}

#[tokio::test]
async fn files_of_another_policy_or_with_other_columns_are_kept_apart() {
    let lake = create(&memory()).await;
    let wider: &[(&str, &str)] = &[("status", "text"), ("priority", "int")];
    for number in 0..8 {
        let columns = if number % 2 == 0 { STATUS } else { wider };
        append(&lake, rows(Stream::Tickets, columns, &[revision(number, 1)])).await.unwrap();
    }
    let expected = everything(&lake, &lake.latest().await.unwrap()).await;
    compact(&lake).await.unwrap();
    assert_eq!(everything(&lake, &lake.latest().await.unwrap()).await, expected);
    let mut found: Vec<(u64, usize)> =
        files(&lake).await.iter().map(|file| (file.rows, file.schema.fields().len())).collect();
    found.sort_unstable();
    assert_eq!(found, [(4, 5), (4, 6)]);
}

#[tokio::test]
async fn tables_replaced_as_a_whole_are_left_alone() {
    let lake = create(&memory()).await.with_limits(1, 20);
    replace(&lake, tags(&[revision(1, 1), revision(2, 1), revision(3, 1)])).await;
    assert_eq!(lake.latest().await.unwrap().tables[&Stream::Tags].files.len(), 3);
    assert!(!is_planned(&lake).await);
}

#[tokio::test]
async fn plan_is_of_one_table_where_one_is_named_and_says_what_becomes_of_which_file() {
    let lake = grown(&memory(), 4).await;
    for number in 0..4 {
        append(&lake, rows(Stream::Customers, STATUS, &[revision(number, 1)])).await.unwrap();
    }
    let manifest = lake.latest().await.unwrap();
    let all = Lake::plan_compaction(&manifest, &small());
    let streams: Vec<Stream> = all.tasks.iter().map(|task| task.stream).collect();
    assert!(streams.contains(&Stream::Tickets) && streams.contains(&Stream::Customers));
    let one = CompactSettings { table: Some(Stream::Customers), ..small() };
    let plan = Lake::plan_compaction(&manifest, &one);
    let text = plan.to_string();
    assert!(text.starts_with("customers: 4 files, 4 rows, "), "{text}");
    assert_eq!(text.lines().count(), 5);
    assert!(manifest.tables[&Stream::Customers].files.iter().all(|file| text.contains(&file.path)));
    lake.compact(&one, "test", |_| ()).await.unwrap();
    assert_eq!(files(&lake).await.len(), 4);
}

#[tokio::test]
async fn tasks_stay_within_their_bounds() {
    let lake = grown(&memory(), 30).await;
    let manifest = lake.latest().await.unwrap();
    let largest = manifest.tables[&Stream::Tickets].files.iter().map(|file| file.bytes).max().unwrap();
    let bounds = [
        CompactSettings { target_rows: 20, ..small() },
        CompactSettings { target_rows: 1_000, target_bytes: 5 * largest, ..small() },
        CompactSettings { target_rows: 1_000, max_files: 4, ..small() },
    ];
    for settings in bounds {
        let plan = Lake::plan_compaction(&manifest, &settings);
        assert!(plan.tasks.len() > 1, "{plan}");
        for task in plan.tasks {
            assert!(task.rows() <= settings.target_rows && task.bytes() <= settings.target_bytes, "{task}");
            assert!(task.files.len() <= settings.max_files, "{task}");
        }
    }
}

#[tokio::test]
async fn rows_are_rewritten_a_few_times_however_many_commits_come() {
    let lake = create(&memory()).await;
    let settings = CompactSettings { target_rows: 1 << 20, ..CompactSettings::default() };
    let mut rewritten = 0;
    for number in 0..64 {
        append(&lake, tickets(&[revision(number, 1)])).await.unwrap();
        let report = lake.compact(&settings, "test", |_| ()).await.unwrap();
        rewritten += report.done.iter().map(|done| done.rows).sum::<u64>();
    }
    assert!(rewritten <= 64 * 6, "each of 64 rows at most once per doubling: {rewritten}");
    assert!(files(&lake).await.len() <= 7);
}

#[tokio::test]
async fn rows_that_others_write_during_a_compaction_are_kept() {
    for others in 1..6 {
        let store = memory();
        let lake = grown(&store, 20).await;
        let rival = open(&store).await.unwrap();
        let control = memory();
        let untouched = grown(&control, 20).await;
        // An append after the first tasks, which the plan does not know of.
        let (at, seen) = (others, AtomicUsize::new(0));
        let changes = tickets(&[revision(0, 90), deletion(5, 90), revision(103, 91), revision(200, 90)]);
        append(&untouched, changes.clone()).await.unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let report = lake
            .compact(&small(), "test", |_| {
                if seen.fetch_add(1, Ordering::SeqCst) + 1 == at {
                    let (rival, changes, sender) = (rival.clone(), changes.clone(), sender.clone());
                    // Beside the compaction, which goes on meanwhile.
                    tokio::spawn(async move { sender.send(append(&rival, changes).await.is_ok()) });
                }
            })
            .await
            .unwrap();
        drop(report);
        if seen.load(Ordering::SeqCst) < at {
            append(&rival, changes).await.unwrap();
        } else {
            while receiver.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
        }
        let expected = everything(&untouched, &untouched.latest().await.unwrap()).await;
        assert_eq!(everything(&lake, &lake.latest().await.unwrap()).await, expected, "after task {at}");
    }
}

#[tokio::test]
async fn second_compaction_at_once_is_refused_and_one_without_the_lease_finds_its_files_gone() {
    let store = memory();
    let lake = grown(&store, 12).await;
    let expected = everything(&lake, &lake.latest().await.unwrap()).await;
    let held = lake.lease(Purpose::Maintenance, "another").await.unwrap();
    let error = compact(&lake).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("another"), "{error}");
    let report = lake
        .maintain(&MaintainSettings { compact: small(), due_files: 2, ..MaintainSettings::default() }, "test")
        .await
        .unwrap();
    assert!(report.is_held && report.compacted.done.is_empty());
    held.release().await.unwrap();

    // Both plan the same; whoever commits later drops the task.
    let rival = open(&store).await.unwrap();
    let plan = Lake::plan_compaction(&lake.latest().await.unwrap(), &small());
    let ours = futures::future::join_all(plan.tasks.iter().map(|task| run_task(&lake.0, task)));
    let theirs = futures::future::join_all(plan.tasks.iter().map(|task| run_task(&rival.0, task)));
    let (ours, theirs) = tokio::join!(ours, theirs);
    for (ours, theirs) in ours.into_iter().zip(theirs) {
        assert_eq!(u8::from(ours.unwrap().is_some()) + u8::from(theirs.unwrap().is_some()), 1);
    }
    assert_eq!(everything(&lake, &lake.latest().await.unwrap()).await, expected);
}

#[tokio::test]
async fn maintenance_waits_until_it_is_due_and_then_leaves_nothing() {
    let lake = create(&memory()).await;
    let settings = MaintainSettings { compact: small(), due_files: 4, ..MaintainSettings::default() };
    let mut ran = Vec::new();
    for number in 0..12 {
        append(&lake, tickets(&[revision(number, 1)])).await.unwrap();
        let report = lake.maintain(&settings, "test").await.unwrap();
        if !report.compacted.done.is_empty() {
            ran.push(number);
            assert!(!is_planned(&lake).await);
        }
    }
    assert_eq!(ran, [3, 7, 11], "4 files of one row; 4 more with the file of 4, which is full then; 4 more");
    assert_eq!(lake.lease_holder(Purpose::Maintenance).await.unwrap(), None);
    // A tenth of a full file.
    append(&lake, tickets(&[revision(0, 2)])).await.unwrap();
    let report = lake.maintain(&settings, "test").await.unwrap();
    assert_eq!(report.compacted.done.iter().map(|done| done.rows_moved).sum::<u64>(), 1, "{report:?}");
}

#[tokio::test]
async fn compaction_that_stops_at_any_call_loses_nothing_and_the_next_one_ends_it() {
    let plain = memory();
    let lake = grown(&plain, 5).await;
    let expected = everything(&lake, &lake.latest().await.unwrap()).await;
    let mut crashes = 0;
    for (fault, for_good) in
        [(Fault::Before, true), (Fault::After, true), (Fault::Before, false), (Fault::After, false)]
    {
        for at in 0.. {
            let plain = memory();
            grown(&plain, 5).await;
            let faulty = Arc::new(Faulty {
                inner: Arc::clone(&plain),
                calls: Arc::new(AtomicUsize::new(0)),
                at,
                fault,
                for_good,
            });
            let broken: Arc<dyn ObjectStore> = Arc::<Faulty>::clone(&faulty);
            let name = format!("{fault:?}, for good: {for_good}, at call {at}");
            let crashed = match open(&broken).await {
                Ok(lake) => compact(&lake).await.is_err(),
                Err(_) => true,
            };
            let lake = open(&plain).await.unwrap();
            assert_eq!(everything(&lake, &lake.latest().await.unwrap()).await, expected, "{name}");
            // The lease of the crashed run ends by itself.
            lake.0.clock.sleep(LEASE_DURATION).await;
            compact(&lake).await.unwrap();
            assert_eq!(everything(&lake, &lake.latest().await.unwrap()).await, expected, "{name}");
            assert!(!is_planned(&lake).await, "{name}");
            if faulty.calls.load(Ordering::SeqCst) <= at {
                assert!(!crashed, "{name}");
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 50, "{crashes}");
}

/// One commit of a random history: which columns, and which revisions.
fn history() -> impl Strategy<Value = Vec<(bool, Vec<Revision>)>> {
    let one = (0..20_u8, 0..8_i64, proptest::bool::weighted(0.2));
    let revisions = proptest::collection::vec(one.prop_map(|(id, rev, deleted)| Revision { id, rev, deleted }), 1..7);
    proptest::collection::vec((proptest::bool::weighted(0.2), revisions), 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn compaction_changes_nothing_that_a_query_sees(
        history in history(),
        target in 2_u64..24,
        percent in 0_u64..60,
        later in history(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let wider: &[(&str, &str)] = &[("status", "text"), ("priority", "int")];
            let settings =
                CompactSettings { target_rows: target, superseded_percent: percent, ..CompactSettings::default() };
            let (store, control) = (memory(), memory());
            let (lake, untouched) = (create(&store).await, create(&control).await);
            for half in [&history, &later] {
                for (is_wider, revisions) in half {
                    let batch = rows(Stream::Tickets, if *is_wider { wider } else { STATUS }, revisions);
                    let counts = append(&lake, batch.clone()).await.unwrap();
                    assert_eq!(counts, append(&untouched, batch).await.unwrap(), "merges find the same rows");
                }
                let before = lake.latest().await.unwrap();
                let seen = everything(&lake, &before).await;
                lake.compact(&settings, "test", |_| ()).await.unwrap();
                let after = lake.latest().await.unwrap();
                assert_eq!(everything(&lake, &after).await, seen);
                assert_eq!(everything(&untouched, &untouched.latest().await.unwrap()).await, seen);
                assert_eq!(everything(&lake, &lake.at_version(before.version).await.unwrap()).await, seen);
                let counts = |files: &[Arc<DataFile>]| {
                    let sum = |of: fn(&DataFile) -> u64| files.iter().map(|file| of(file)).sum::<u64>();
                    (
                        sum(|file| file.rows),
                        sum(|file| file.superseded.len()),
                        sum(|file| file.tombstones.len()),
                        sum(DataFile::live_rows),
                    )
                };
                let (old, new) = (&before.tables[&Stream::Tickets].files, &after.tables[&Stream::Tickets].files);
                assert_eq!(counts(old), counts(new));
                let bounds = |files: &[Arc<DataFile>]| {
                    (files.iter().map(|file| file.min_key.clone()).min(), files.iter().map(|file| file.max_key.clone()).max())
                };
                assert_eq!(bounds(old), bounds(new));
                assert!(Lake::plan_compaction(&after, &settings).is_empty(), "{}", Lake::plan_compaction(&after, &settings));
                assert_eq!(live(&lake, &after, Stream::Tickets).await, live(&untouched, &untouched.latest().await.unwrap(), Stream::Tickets).await);
            }
            assert_eq!(query(&lake, "SELECT count(*) FROM tickets").await, query(&untouched, "SELECT count(*) FROM tickets").await);
        });
    }
}
