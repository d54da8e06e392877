//! The key ring of a lake with rows: rotated, wrapped anew, destroyed, with crashes and rivals in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use proptest::prelude::*;

use super::faulty::{Fault, Faulty};
use super::rivals::Contested;
use super::{
    Revision, append, clock, create, deletion, live, live_tickets, memory, open, replace, revision, root, tags,
    tickets, versions,
};
use crate::error::{ErrorKind, Result};
use crate::keys::KeyState;
use crate::lake::protection::key_of_file;
use crate::lake::{Lake, Purpose, Rewrapped};
use crate::model::Stream;

type Rows = (Vec<(String, i64)>, usize, Vec<(String, i64)>);

/// Live tickets, all ticket versions, live tags.
async fn rows(lake: &Lake) -> Rows {
    let manifest = lake.latest().await.unwrap();
    let tickets = live(lake, &manifest, Stream::Tickets).await;
    (tickets, versions(lake, &manifest).await, live(lake, &manifest, Stream::Tags).await)
}

/// A lake with superseded rows, tombstones and a small table.
async fn filled(store: &Arc<dyn ObjectStore>) -> Lake {
    let lake = create(store).await.with_limits(2, 2);
    append(&lake, tickets(&[revision(1, 1), revision(2, 1), revision(3, 1)])).await.unwrap();
    append(&lake, tickets(&[revision(1, 2), deletion(2, 2), revision(4, 1)])).await.unwrap();
    replace(&lake, tags(&[revision(1, 1), revision(2, 1)])).await;
    lake
}

async fn rewrap(lake: &Lake) -> Result<Rewrapped> {
    let mut lease = lake.lease(Purpose::Maintenance, "test").await?;
    let done = lake.rewrap_files(&mut lease).await;
    lease.release().await?;
    done
}

async fn opened(store: &Arc<dyn ObjectStore>) -> Lake {
    open(store).await.unwrap().with_limits(2, 2)
}

/// The ring keys that the files of the newest version need.
async fn file_keys(lake: &Lake) -> Vec<String> {
    let manifest = lake.latest().await.unwrap();
    let mut keys = Vec::new();
    for file in manifest.tables.values().flat_map(|table| &table.files) {
        keys.push(key_of_file(&lake.0, file).await.unwrap().unwrap());
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

async fn names(store: &Arc<dyn ObjectStore>, folder: &str) -> Vec<String> {
    let listed: Vec<ObjectMeta> = store.list(Some(&Path::from(folder))).try_collect().await.unwrap();
    let mut names: Vec<String> = listed.iter().map(|object| object.location.filename().unwrap().to_owned()).collect();
    names.sort();
    names
}

async fn copied(store: &Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    let copy = memory();
    let listed: Vec<ObjectMeta> = store.list(None).try_collect().await.unwrap();
    for object in listed {
        let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
        copy.put(&object.location, bytes.into()).await.unwrap();
    }
    copy
}

#[tokio::test]
async fn destroyed_key_is_not_missed_once_its_files_and_the_log_were_wrapped_anew() {
    let store = memory();
    let lake = filled(&store).await;
    let before = rows(&lake).await;
    assert_eq!(lake.rotate_keys(&root(1)).await.unwrap().primary_id().unwrap(), "ring-2");

    let lake = opened(&store).await;
    assert_eq!(rows(&lake).await, before);
    assert_eq!(file_keys(&lake).await, ["ring-1"], "files keep their key");
    append(&lake, tickets(&[revision(9, 1)])).await.unwrap();
    assert_eq!(file_keys(&lake).await, ["ring-1", "ring-2"], "new ones have the new key");
    assert!(lake.protection().await.unwrap().needs("ring-1"));
    let before = rows(&lake).await;
    let old_version = lake.latest().await.unwrap().version;

    let plan = lake.plan_rewrap().await.unwrap();
    let done = rewrap(&lake).await.unwrap();
    assert_eq!((plan.files, plan.bytes), (done.files, done.bytes));
    assert!(done.files > 3 && done.version > old_version, "{done:?}");
    assert_eq!(rows(&lake).await, before);
    assert_eq!(file_keys(&lake).await, ["ring-2"]);
    let protection = lake.protection().await.unwrap();
    assert!(!protection.needs("ring-1"), "{protection:?}");
    assert!(protection.of("ring-1").other_files > 0, "earlier versions still name them");
    assert_eq!(lake.plan_rewrap().await.unwrap().files, 0);
    let again = rewrap(&lake).await.unwrap();
    assert_eq!((again.files, again.log, again.version), (0, false, done.version), "doing it again makes no version");

    let ring = lake.destroy_key(&root(1), "ring-1").await.unwrap();
    assert_eq!(ring.state("ring-1").unwrap(), KeyState::Destroyed);
    assert_eq!(names(&store, "keys").await, ["ring-00000003"], "no older ring holds the key");
    let lake = opened(&store).await;
    assert_eq!(rows(&lake).await, before);
    append(&lake, tickets(&[revision(1, 7)])).await.unwrap();
    assert_eq!(live_tickets(&lake).await[0].1, 7, "ids are looked up in the files that were wrapped anew");
    let error = lake.at_version(old_version - 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("ring-1") && cause.contains("destroyed"), "{cause}");
}

#[tokio::test]
async fn destroying_a_needed_key_loses_what_it_protects_and_says_which() {
    let store = memory();
    let lake = filled(&store).await;
    let bytes = *lake.ring().export("ring-1").unwrap().expose();
    lake.rotate_keys(&root(1)).await.unwrap();
    let lake = opened(&store).await;
    let protection = lake.protection().await.unwrap();
    let protected = protection.of("ring-1");
    assert!(protection.needs("ring-1") && !protection.needs("ring-2"));
    assert_eq!(protected.versions, [(1, 3)]);
    assert_eq!(protected.tables[&Stream::Tickets].live_rows, 3);
    assert_eq!(protected.tables[&Stream::Tags].live_rows, 2);

    lake.destroy_key(&root(1), "ring-1").await.unwrap();
    let lake = opened(&store).await;
    let error = lake.latest().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let shown = format!("{error:?}");
    assert!(shown.contains("ring-1"), "{shown}");
    let needle: Vec<String> = bytes.iter().map(u8::to_string).collect();
    assert!(!shown.contains(&needle[..4].join(", ")));
    assert_eq!(lake.protection().await.unwrap().version, None);
    assert_eq!(lake.ring().export("ring-1").unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn disabled_key_is_refused_until_it_is_enabled() {
    let store = memory();
    let lake = filled(&store).await;
    let before = rows(&lake).await;
    lake.rotate_keys(&root(1)).await.unwrap();
    opened(&store).await.disable_key(&root(1), "ring-1").await.unwrap();
    let disabled = opened(&store).await;
    assert_eq!(disabled.latest().await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(disabled.rotate_keys(&root(2)).await.unwrap().version(), 4, "another root key seals the next version");
    assert_eq!(open(&store).await.unwrap_err().kind(), ErrorKind::Denied, "and the old one does not open it");
    let other = root(2);
    let open_other = || Lake::open_on(Arc::clone(&store), "test:", &other, clock());
    open_other().await.unwrap().enable_key(&other, "ring-1").await.unwrap();
    assert_eq!(rows(&open_other().await.unwrap()).await, before);
}

#[tokio::test]
async fn one_of_two_rotations_wins_and_an_old_ring_gets_no_lease() {
    let store = memory();
    let (first, second) = (filled(&store).await, opened(&store).await);
    first.rotate_keys(&root(1)).await.unwrap();
    let lost = second.rotate_keys(&root(1)).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Conflict);
    for purpose in [Purpose::Extract, Purpose::Maintenance, Purpose::Record] {
        let refused = second.lease(purpose, "old").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert!(refused.hint().unwrap().contains("start again"), "{refused}");
        opened(&store).await.lease(purpose, "new").await.unwrap().release().await.unwrap();
    }
    // A process with the old ring that meets what the new one wrote is told to start again.
    append(&opened(&store).await, tickets(&[revision(8, 1)])).await.unwrap();
    let error = second.latest().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let cause = std::error::Error::source(&error).unwrap().downcast_ref::<crate::error::Error>().unwrap();
    assert!(cause.to_string().contains("ring-2"), "{cause}");
    assert!(cause.hint().unwrap().contains("start it again"), "{:?}", cause.hint());
}

#[tokio::test]
async fn rows_that_others_supersede_while_files_are_wrapped_anew_stay_superseded() {
    let inner = memory();
    filled(&inner).await.rotate_keys(&root(1)).await.unwrap();
    let rival = opened(&inner).await;
    let store: Arc<dyn ObjectStore> = Arc::new(Contested {
        inner: Arc::clone(&inner),
        rival,
        rounds: AtomicUsize::new(1),
        appends: vec![revision(3, 5), deletion(4, 5), revision(7, 1)],
    });
    let lake = opened(&store).await;
    rewrap(&lake).await.unwrap();
    let (tickets, all, _) = rows(&opened(&inner).await).await;
    assert_eq!(tickets.iter().map(|(_, rev)| *rev).collect::<Vec<_>>(), [2, 5, 1]);
    assert_eq!(all, 9);
    assert!(!lake.protection().await.unwrap().needs("ring-1"));
}

/// An operation on the ring, as a command does it: with leases, on a lake that was just opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Rotate,
    RewrapFiles,
    RewrapRing,
    Destroy,
}

async fn run(store: &Arc<dyn ObjectStore>, step: Step) -> Result<()> {
    let lake = open(store).await?.with_limits(2, 2);
    match step {
        Step::Rotate => lake.rotate_keys(&root(1)).await.map(drop),
        Step::RewrapFiles => {
            let mut lease = lake.lease(Purpose::Maintenance, "test").await?;
            lake.rewrap_files(&mut lease).await?;
            lease.release().await
        }
        Step::RewrapRing => lake.rewrap_ring(&root(2)).await.map(drop),
        Step::Destroy => lake.destroy_key(&root(1), "ring-1").await.map(drop),
    }
}

async fn open_with_either(store: &Arc<dyn ObjectStore>) -> (u8, Lake) {
    match open(store).await {
        Ok(lake) => (1, lake),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
            (2, Lake::open_on(Arc::clone(store), "test:", &root(2), clock()).await.unwrap())
        }
    }
}

#[tokio::test]
async fn crash_at_any_call_leaves_the_old_or_the_new_ring_and_doing_it_again_ends_right() {
    let start = memory();
    filled(&start).await;
    let rotated = copied(&start).await;
    run(&rotated, Step::Rotate).await.unwrap();
    let moved = copied(&rotated).await;
    run(&moved, Step::RewrapFiles).await.unwrap();
    let before = rows(&opened(&start).await).await;
    let mut crashes = 0;
    for (step, from) in
        [(Step::Rotate, &start), (Step::RewrapFiles, &rotated), (Step::RewrapRing, &rotated), (Step::Destroy, &moved)]
    {
        for (fault, for_good) in [(Fault::Before, true), (Fault::After, true), (Fault::After, false)] {
            for at in 0.. {
                let plain = copied(from).await;
                let faulty = Arc::new(Faulty {
                    inner: Arc::clone(&plain),
                    calls: Arc::new(AtomicUsize::new(0)),
                    at,
                    fault,
                    for_good,
                });
                let broken: Arc<dyn ObjectStore> = Arc::<Faulty>::clone(&faulty);
                let ended = run(&broken, step).await;
                let name = format!("{step:?}, {fault:?}, for good: {for_good}, at call {at}: {ended:?}");
                let (_, lake) = open_with_either(&plain).await;
                let live: u64 = lake
                    .latest()
                    .await
                    .unwrap()
                    .tables
                    .values()
                    .flat_map(|table| &table.files)
                    .map(|file| file.live_rows())
                    .sum();
                assert_eq!(live as usize, before.0.len() + before.2.len(), "{name}");

                if step == Step::RewrapFiles && ended.is_err() {
                    // The lease of a dead process on another machine ends by itself.
                    let leases = names(&plain, "leases/maintenance").await;
                    for lease in leases {
                        plain.delete(&Path::from(format!("leases/maintenance/{lease}"))).await.unwrap();
                    }
                }
                if step == Step::RewrapRing {
                    let (number, lake) = open_with_either(&plain).await;
                    assert_eq!(lake.ring().keys().len(), 2, "{name}");
                    lake.rewrap_ring(&root(2)).await.unwrap();
                    assert!(ended.is_err() || number == 2, "{name}");
                    assert_eq!(names(&plain, "keys").await.len(), 1, "{name}");
                    assert_eq!(open(&plain).await.unwrap_err().kind(), ErrorKind::Denied, "{name}");
                } else {
                    run(&plain, step).await.unwrap();
                }
                let (_, lake) = open_with_either(&plain).await;
                assert_eq!(rows(&lake).await, before, "{name}");
                let protection = lake.protection().await.unwrap();
                match step {
                    Step::Rotate => assert_ne!(lake.ring().primary_id().unwrap(), "ring-1", "{name}"),
                    Step::RewrapFiles => assert!(!protection.needs("ring-1"), "{name}"),
                    Step::RewrapRing => {}
                    Step::Destroy => {
                        assert_eq!(lake.ring().state("ring-1").unwrap(), KeyState::Destroyed, "{name}");
                        assert_eq!(names(&plain, "keys").await.len(), 1, "{name}");
                    }
                }
                if faulty.calls.load(Ordering::SeqCst) <= at {
                    assert!(ended.is_ok(), "{name}");
                    break;
                }
                crashes += 1;
            }
        }
    }
    assert!(crashes > 100, "{crashes}");
}

/// One step of random work.
#[derive(Debug, Clone)]
enum Work {
    Append(Vec<Revision>),
    Rotate,
    Rewrap,
    OtherRoot,
    Destroy(u8),
}

fn work() -> impl Strategy<Value = Vec<Work>> {
    let one = (0..12_u8, 0..6_i64, proptest::bool::weighted(0.2));
    let revisions = proptest::collection::vec(one.prop_map(|(id, rev, deleted)| Revision { id, rev, deleted }), 1..8);
    let one = prop_oneof![
        4 => revisions.prop_map(Work::Append),
        2 => Just(Work::Rotate),
        2 => Just(Work::Rewrap),
        1 => Just(Work::OtherRoot),
        3 => (1..4_u8).prop_map(Work::Destroy),
    ];
    proptest::collection::vec(one, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_work_on_the_ring_keeps_every_live_row(work in work()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let store = memory();
            create(&store).await;
            let mut number = 1;
            let mut newest: BTreeMap<u8, Revision> = BTreeMap::new();
            for work in work {
                let lake = Lake::open_on(Arc::clone(&store), "test:", &root(number), clock()).await.unwrap();
                let lake = lake.with_limits(3, 2);
                match work {
                    Work::Append(revisions) => {
                        append(&lake, tickets(&revisions)).await.unwrap();
                        for revision in revisions {
                            let known = newest.entry(revision.id).or_insert(revision);
                            *known = revision.max(*known);
                        }
                    }
                    Work::Rotate => drop(lake.rotate_keys(&root(number)).await.unwrap()),
                    Work::Rewrap => drop(rewrap(&lake).await.unwrap()),
                    Work::OtherRoot => {
                        number += 1;
                        lake.rewrap_ring(&root(number)).await.unwrap();
                    }
                    Work::Destroy(key) => {
                        let id = format!("ring-{key}");
                        let needed = lake.protection().await.unwrap().needs(&id);
                        match lake.ring().state(&id) {
                            Err(_) => {}
                            Ok(KeyState::Primary) => {
                                assert_eq!(lake.destroy_key(&root(number), &id).await.unwrap_err().kind(), ErrorKind::Config);
                            }
                            Ok(_) if needed => {}
                            Ok(_) => drop(lake.destroy_key(&root(number), &id).await.unwrap()),
                        }
                    }
                }
                let fresh = Lake::open_on(Arc::clone(&store), "test:", &root(number), clock()).await.unwrap();
                let found = live(&fresh, &fresh.latest().await.unwrap(), Stream::Tickets).await;
                let expected = newest.iter().filter(|(_, revision)| !revision.deleted);
                let expected: Vec<_> =
                    expected.map(|(id, revision)| (super::hex(*id), revision.rev)).collect();
                assert_eq!(found, expected);
            }
        });
    }
}
