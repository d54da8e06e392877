//! Garbage: what is unused, what is spared, what a crash leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;

use super::*;
use crate::clock::{ManualClock, SharedClock};
use crate::error::ErrorKind;
use crate::lake::StoreSettings;
use crate::lake::expire::Expire;
use crate::lake::simulation::faulty::{Fault, Faulty};
use crate::lake::simulation::{append, create, live, live_tickets, revision, root, tickets};

/// A clock far after the moment at which the store in memory says that objects were put.
fn late() -> SharedClock {
    Arc::new(ManualClock::new("2190-01-01T00:00:00Z".parse().unwrap()))
}

/// A clock before that moment: everything is young.
fn early() -> SharedClock {
    Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()))
}

async fn open_at(store: &Arc<dyn ObjectStore>, clock: SharedClock) -> Result<Lake> {
    Lake::open_on(Arc::clone(store), "test:", &root(1), clock).await
}

/// A lake of three versions; the files of the first are in no later one, and two files were never committed.
async fn filled() -> (Arc<InMemory>, [Path; 2]) {
    let memory = Arc::new(InMemory::new());
    let store: Arc<dyn ObjectStore> = memory.clone();
    let lake = create(&store).await;
    for rev in 1..=3 {
        let mut change = lake.transaction();
        change.replace(crate::lake::simulation::tags(&[revision(1, rev)]));
        change.append(tickets(&[revision(rev as u8, rev)]));
        change.commit().await.unwrap();
    }
    let strays = [(); 2].map(|()| layout::new_data_file(Stream::Tickets, lake.0.clock.as_ref()));
    let strays = [Path::from(strays[0].as_str()), Path::from(strays[1].replace(".parquet", ".index"))];
    for stray in &strays {
        store.put(stray, Bytes::from_static(b"stray").into()).await.unwrap();
    }
    (memory, strays)
}

async fn names(store: &Arc<dyn ObjectStore>) -> Vec<String> {
    let objects: Vec<ObjectMeta> = store.list(None).try_collect().await.unwrap();
    objects.into_iter().map(|object| object.location.to_string()).collect()
}

#[tokio::test]
async fn only_old_files_that_no_kept_version_names_are_deleted() {
    let (memory, strays) = filled().await;
    let store: Arc<dyn ObjectStore> = memory;
    let before = names(&store).await;
    let young = open_at(&store, early()).await.unwrap().garbage(DEFAULT_GC_AFTER).await.unwrap();
    assert_eq!(young, Garbage::default(), "files of an extract in progress are young");
    let lake = open_at(&store, late()).await.unwrap();
    let plan = lake.garbage(DEFAULT_GC_AFTER).await.unwrap();
    assert_eq!(names(&store).await, before, "a plan changes nothing");
    let mut found: Vec<&Path> = plan.data.iter().map(|(object, _)| object).collect();
    found.sort();
    let mut expected: Vec<&Path> = strays.iter().collect();
    expected.sort();
    assert_eq!((found, plan.data_bytes(), plan.objects()), (expected, 10, 2));
    lake.delete_garbage(&plan).await.unwrap();
    for version in 1..=3 {
        let manifest = lake.at_version(version).await.unwrap();
        assert_eq!(live(&lake, &manifest, Stream::Tags).await.len(), 1);
        assert_eq!(live(&lake, &manifest, Stream::Tickets).await.len() as u64, version);
    }
    // Files of versions that end become garbage, and those of the kept one do not.
    let reader = lake.at_version(3).await.unwrap();
    lake.expire(Expire::AllButNewest).await.unwrap();
    let garbage = lake.gc(DEFAULT_GC_AFTER, "test").await.unwrap();
    assert_eq!(garbage.data.len(), 2, "the tags of two versions");
    assert_eq!(live(&lake, &reader, Stream::Tickets).await.len(), 3, "a reader of a kept version reads on");
    assert_eq!(live(&lake, &reader, Stream::Tags).await.len(), 1);
    assert_eq!(lake.gc(DEFAULT_GC_AFTER, "test").await.unwrap().data, []);
}

#[tokio::test]
async fn index_stays_with_its_data_file_and_foreign_objects_stay() {
    let (memory, _) = filled().await;
    let store: Arc<dyn ObjectStore> = memory;
    let lake = open_at(&store, late()).await.unwrap();
    let manifest = lake.latest().await.unwrap();
    let index = manifest.tables[&Stream::Tickets].files[0].path.replace(".parquet", ".index");
    let foreign = ["data/note.txt", "data/tickets/note.parquet", "data/other/x.parquet"];
    for name in foreign.iter().copied().chain([index.as_str()]) {
        store.put(&Path::from(name), Bytes::from_static(b"x").into()).await.unwrap();
    }
    assert_eq!(lake.gc(DEFAULT_GC_AFTER, "test").await.unwrap().data.len(), 2);
    let left = names(&store).await;
    assert!(foreign.iter().chain([&index.as_str()]).all(|name| left.contains(&(*name).to_owned())), "{left:?}");
}

#[tokio::test]
async fn nothing_is_deleted_when_a_kept_commit_cannot_be_read() {
    for damage in [1, 2, 3] {
        let (memory, _) = filled().await;
        let store: Arc<dyn ObjectStore> = memory;
        store.put(&layout::commit(damage), Bytes::from_static(b"damaged").into()).await.unwrap();
        let before = names(&store).await;
        let lake = open_at(&store, late()).await.unwrap();
        assert_eq!(lake.garbage(Duration::ZERO).await.unwrap_err().kind(), ErrorKind::Data);
        let left: Vec<String> = names(&store).await;
        assert_eq!(left, before);
    }
    // A log that was lost names nothing, and its files stay.
    let (memory, _) = filled().await;
    let store: Arc<dyn ObjectStore> = memory;
    for version in 1..=3 {
        store.delete(&layout::commit(version)).await.unwrap();
    }
    let lake = open_at(&store, late()).await.unwrap();
    assert_eq!(lake.garbage(Duration::ZERO).await.unwrap().data, []);
}

#[tokio::test]
async fn leases_of_lower_numbers_and_old_probes_are_deleted() {
    let (memory, _) = filled().await;
    let store: Arc<dyn ObjectStore> = memory;
    let lake = open_at(&store, late()).await.unwrap();
    let held = lake.lease(Purpose::Extract, "run").await.unwrap();
    let number = lease::list(store.as_ref(), Purpose::Extract).await.unwrap()[0];
    let lower = [layout::lease(Purpose::Extract, 0), layout::probe(lake.0.clock.as_ref())];
    for object in &lower {
        store.put(object, Bytes::from_static(b"{}").into()).await.unwrap();
    }
    let garbage = lake.gc(DEFAULT_GC_AFTER, "test").await.unwrap();
    assert_eq!(garbage.leases, lower);
    assert_eq!(lease::list(store.as_ref(), Purpose::Extract).await.unwrap(), [number]);
    held.release().await.unwrap();
}

#[tokio::test]
async fn file_that_is_put_and_not_yet_committed_survives_and_its_commit_lands() {
    let (memory, _) = filled().await;
    let store: Arc<dyn ObjectStore> = memory;
    let writer = open_at(&store, early()).await.unwrap();
    let rows = crate::policy::SortedRows::try_new(&[tickets(&[revision(9, 9)])]).unwrap();
    let file = crate::lake::put::put_rows(&writer.0, rows).await.unwrap();
    open_at(&store, early()).await.unwrap().gc(DEFAULT_GC_AFTER, "test").await.unwrap();
    let base = writer.latest().await.unwrap();
    let commit = crate::lake::commit::Commit {
        version: base.version + 1,
        id: "x".to_owned(),
        committed_ms: base.committed_ms.max(writer.0.clock.now().as_millisecond()),
        writer: String::new(),
        policy: None,
        actions: vec![crate::lake::commit::Action::Add(Stream::Tickets, Arc::new(file))],
    };
    writer.0.log.append(&base, commit).await.unwrap();
    assert_eq!(live_tickets(&writer).await.len(), 4);
}

#[tokio::test]
async fn crash_at_any_call_deletes_nothing_that_is_used_and_repeating_completes_it() {
    let (filled, strays) = filled().await;
    let mut crashes = 0;
    for fault in [Fault::Before, Fault::After] {
        for at in 0.. {
            let plain: Arc<dyn ObjectStore> = Arc::new(filled.fork());
            let calls = Arc::new(AtomicUsize::new(0));
            let inner = Arc::clone(&plain);
            let faulty: Arc<dyn ObjectStore> =
                Arc::new(Faulty { inner, calls: Arc::clone(&calls), at, fault, for_good: true });
            let outcome = match open_at(&faulty, late()).await {
                Ok(lake) => match lake.garbage(DEFAULT_GC_AFTER).await {
                    Ok(garbage) => lake.delete_garbage(&garbage).await.map(drop),
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            let name = format!("{fault:?} at call {at}: {outcome:?}");
            let lake = open_at(&plain, late()).await.unwrap();
            assert_eq!(live_tickets(&lake).await.len(), 3, "{name}");
            lake.gc(DEFAULT_GC_AFTER, "test").await.unwrap();
            let left = names(&plain).await;
            assert!(strays.iter().all(|stray| !left.contains(&stray.to_string())), "{name}");
            let manifest = lake.at_version(1).await.unwrap();
            assert_eq!(live(&lake, &manifest, Stream::Tags).await.len(), 1, "{name}");
            if calls.load(Ordering::SeqCst) <= at {
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 10, "{crashes}");
}

#[tokio::test]
async fn staged_files_of_puts_that_were_cut_off_are_removed_when_they_are_old() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::create(&StoreSettings::new("file:lake", folder.path()), &root(1), late()).await.unwrap();
    append(&lake, tickets(&[revision(1, 1)])).await.unwrap();
    let root = folder.path().join("lake");
    let staged = [root.join("data/tickets/x.parquet#1"), root.join("log/y.commit#23"), root.join("leases/z#4")];
    let others = [root.join("data/tickets/x#y"), root.join("data/tickets/z#")];
    std::fs::create_dir_all(root.join("leases")).unwrap();
    for file in staged.iter().chain(&others) {
        std::fs::write(file, "x").unwrap();
    }
    let garbage = lake.garbage(DEFAULT_GC_AFTER).await.unwrap();
    assert_eq!(garbage.staged, staged.iter().map(|file| file.canonicalize().unwrap()).collect::<Vec<_>>().sorted());
    let young = Lake::open(&StoreSettings::new("file:lake", folder.path()), &crate::lake::simulation::root(1), early())
        .await
        .unwrap();
    assert_eq!(young.garbage(DEFAULT_GC_AFTER).await.unwrap().staged, Vec::<PathBuf>::new());
    assert_eq!(lake.unused(None).await.unwrap().staged.len(), 2, "a lease may be being renewed");
    lake.gc(DEFAULT_GC_AFTER, "test").await.unwrap();
    assert!(staged.iter().all(|file| !file.exists()) && others.iter().all(|file| file.exists()));
    assert_eq!(live_tickets(&lake).await.len(), 1);
}

trait Sorted {
    fn sorted(self) -> Self;
}

impl Sorted for Vec<PathBuf> {
    fn sorted(mut self) -> Self {
        self.sort();
        self
    }
}
