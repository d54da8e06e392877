//! Expiry of versions: what readers, writers and crashes meet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use super::*;
use crate::lake::manifest::Manifest;
use crate::lake::run::RunRecord;
use crate::lake::simulation::faulty::{Fault, Faulty};
use crate::lake::simulation::{append, create, live, live_tickets, memory, open, query, revision, tickets, versions};
use crate::model::Stream;

/// A lake of so many versions; version v holds the tickets 1 to v, and the first ticket at revision v.
async fn grown(store: &Arc<dyn ObjectStore>, count: u64) -> Lake {
    let lake = create(store).await.with_limits(1_000, 4);
    for version in 1..=count {
        grow(&lake, version).await;
    }
    lake
}

async fn grow(lake: &Lake, version: u64) {
    let mut rows = vec![revision(1, version as i64)];
    rows.extend((version > 1).then(|| revision(version as u8, 1)));
    append(lake, tickets(&rows)).await.unwrap();
}

async fn names(store: &Arc<dyn ObjectStore>) -> Vec<String> {
    let objects: Vec<ObjectMeta> = store.list(Some(&layout::LOG.into())).try_collect().await.unwrap();
    let short = |object: &ObjectMeta| object.location.filename().unwrap().trim_start_matches('0').to_owned();
    objects.iter().map(short).collect()
}

async fn rows(lake: &Lake, manifest: &Arc<Manifest>) -> usize {
    live(lake, manifest, Stream::Tickets).await.len()
}

#[tokio::test]
async fn versions_before_the_cut_end_and_later_ones_read_as_before() {
    let store = memory();
    let lake = grown(&store, 10).await;
    let expiry = lake.expire_at(7).await;
    assert_eq!(expiry, Expiry { oldest: 7, versions: 6, objects: 6 + 1 });
    assert_eq!(
        names(&store).await,
        ["7.commit", "7.snapshot", "7.start", "8.commit", "8.snapshot", "9.commit", "10.commit"]
    );
    for lake in [lake, open(&store).await.unwrap()] {
        assert_eq!(lake.latest().await.unwrap().version, 10);
        assert_eq!(live_tickets(&lake).await.len(), 10);
        for version in 7..=10 {
            let manifest = lake.at_version(version).await.unwrap();
            assert_eq!(rows(&lake, &manifest).await as u64, version);
            assert_eq!(versions(&lake, &manifest).await as u64, 2 * version - 1);
        }
        for version in 1..7 {
            let error = lake.at_version(version).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(&format!("version: {version}, oldest: 7")), "{error}");
        }
        assert_eq!(lake.at_version(11).await.unwrap_err().kind(), ErrorKind::Config);
        let history = lake.history(100).await.unwrap();
        assert_eq!(history.iter().map(|version| version.version).collect::<Vec<_>>(), [10, 9, 8, 7]);
        assert_eq!(lake.history(2).await.unwrap().len(), 2);
    }
    let lake = open(&store).await.unwrap();
    grow(&lake, 11).await;
    assert_eq!(open(&store).await.unwrap().latest().await.unwrap().version, 11);
}

impl Lake {
    /// Ends the versions before one.
    async fn expire_at(&self, version: u64) -> Expiry {
        let cut_ms = self.at_version(version).await.unwrap().committed_ms;
        if cut_ms == self.latest().await.unwrap().committed_ms {
            // The clock of these tests stands.
            self.0.log.begin_at(version, String::new(), String::new()).await.unwrap();
            let oldest_now = 1;
            let done = self.expire(Expire::Before(i64::MIN)).await.unwrap();
            return Expiry { versions: version - oldest_now, ..done };
        }
        self.expire(Expire::Before(cut_ms)).await.unwrap()
    }
}

#[tokio::test]
async fn all_but_the_newest_end_and_the_count_of_versions_goes_on() {
    let store = memory();
    let lake = grown(&store, 9).await;
    assert_eq!(lake.plan_expiry(Expire::AllButNewest).await.unwrap(), Expiry { oldest: 9, versions: 8, objects: 0 });
    assert_eq!(names(&store).await.len(), 9 + 2, "a plan changes nothing");
    let before = lake.latest().await.unwrap();
    assert_eq!(lake.expire(Expire::AllButNewest).await.unwrap(), Expiry { oldest: 9, versions: 8, objects: 10 });
    assert_eq!(lake.expire(Expire::AllButNewest).await.unwrap(), Expiry { oldest: 9, versions: 0, objects: 0 });
    assert_eq!(names(&store).await, ["9.commit", "9.snapshot", "9.start"]);
    let lake = open(&store).await.unwrap();
    assert_eq!(lake.latest().await.unwrap(), before);
    grow(&lake, 10).await;
    assert_eq!(open(&store).await.unwrap().latest().await.unwrap().version, 10);
    assert_eq!(query(&lake, "SELECT count(*) FROM ticket_versions").await, [["19"]]);
    let empty = create(&memory()).await;
    assert_eq!(empty.expire(Expire::AllButNewest).await.unwrap(), Expiry::default());
    assert_eq!(empty.expire(Expire::Before(i64::MAX)).await.unwrap(), Expiry::default());
}

#[tokio::test]
async fn missing_commit_is_damage_after_an_expiry_too() {
    for missing in [layout::commit(7), layout::snapshot(7), layout::commit(8), layout::commit(9)] {
        let store = memory();
        grown(&store, 10).await.expire_at(7).await;
        store.delete(&layout::snapshot(8)).await.unwrap();
        store.delete(&missing).await.unwrap();
        let error = open(&store).await.unwrap().latest().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{missing}");
        assert!(error.to_string().contains(missing.as_ref()), "{missing}: {error}");
    }
    // All commits gone: the count of versions does not begin anew.
    let store = memory();
    grown(&store, 3).await.expire(Expire::AllButNewest).await.unwrap();
    store.delete(&layout::commit(3)).await.unwrap();
    assert_eq!(open(&store).await.unwrap().latest().await.unwrap_err().kind(), ErrorKind::Data);
}

#[tokio::test]
async fn damaged_snapshot_of_the_oldest_version_ends_nothing() {
    let store = memory();
    let lake = grown(&store, 6).await;
    let other = store.get(&layout::snapshot(4)).await.unwrap().bytes().await.unwrap();
    store.put(&layout::snapshot(6), other.into()).await.unwrap();
    assert_eq!(lake.expire(Expire::AllButNewest).await.unwrap_err().kind(), ErrorKind::Data);
    store.delete(&layout::snapshot(6)).await.unwrap();
    assert_eq!(rows(&lake, &open(&store).await.unwrap().at_version(1).await.unwrap()).await, 1);
    // A snapshot that reads, and says something else.
    let wrong = lake.at_version(6).await.unwrap();
    let mut wrong = Manifest::clone(&wrong).to_snapshot(String::new(), String::new());
    wrong.actions.push(crate::lake::commit::Action::Run(Arc::new(RunRecord::default())));
    let sealed = lake.0.ring.seal_object("snapshot/6", &wrong.encode().unwrap()).unwrap();
    store.put(&layout::snapshot(6), sealed.into()).await.unwrap();
    let error = lake.expire(Expire::AllButNewest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(!names(&store).await.contains(&"6.start".to_owned()));
}

#[tokio::test]
async fn reader_and_writer_that_know_an_expired_version_go_on() {
    let store = memory();
    let lake = grown(&store, 5).await;
    let (reader, writer) = (open(&store).await.unwrap(), open(&store).await.unwrap());
    for known in [&reader, &writer] {
        known.latest().await.unwrap();
    }
    let held = reader.latest().await.unwrap();
    for version in 6..=9 {
        grow(&lake, version).await;
    }
    lake.expire(Expire::AllButNewest).await.unwrap();
    assert_eq!(rows(&reader, &held).await, 5, "its data files are still there");
    assert_eq!(reader.latest().await.unwrap().version, 9);
    grow(&writer, 10).await;
    assert_eq!(live_tickets(&open(&store).await.unwrap()).await.len(), 10);
}

#[tokio::test]
async fn commit_of_a_writer_that_slept_through_an_expiry_is_lost_and_made_again() {
    let store = memory();
    let lake = grown(&store, 5).await;
    let asleep = open(&store).await.unwrap();
    let base = asleep.latest().await.unwrap();
    for version in 6..=9 {
        grow(&lake, version).await;
    }
    lake.expire(Expire::AllButNewest).await.unwrap();
    // Its version is free again, so the put works.
    let commit = crate::lake::commit::Commit {
        version: 6,
        id: "late".to_owned(),
        committed_ms: base.committed_ms,
        writer: String::new(),
        policy: None,
        actions: Vec::new(),
    };
    let appended = asleep.0.log.append(&base, commit.clone()).await.unwrap();
    assert!(matches!(appended, crate::lake::log::Appended::Lost), "{appended:?}");
    assert_eq!(names(&store).await, ["9.commit", "9.snapshot", "9.start"]);
    // It may also die right after the put.
    let sealed = lake.0.ring.seal_object("commit/6", &commit.encode().unwrap()).unwrap();
    store.put(&layout::commit(6), sealed.into()).await.unwrap();
    let fresh = open(&store).await.unwrap();
    assert_eq!(fresh.latest().await.unwrap().version, 9);
    assert_eq!(fresh.at_version(6).await.unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(fresh.expire(Expire::Before(0)).await.unwrap().objects, 1);
}

#[tokio::test]
async fn crash_at_any_call_of_an_expiry_leaves_a_log_that_opens_and_repeating_completes_it() {
    let mut crashes = 0;
    for fault in [Fault::Before, Fault::After] {
        for at in 0.. {
            let plain = memory();
            grown(&plain, 9).await;
            let before = names(&plain).await;
            let calls = Arc::new(AtomicUsize::new(0));
            let inner = Arc::clone(&plain);
            let faulty: Arc<dyn ObjectStore> =
                Arc::new(Faulty { inner, calls: Arc::clone(&calls), at, fault, for_good: true });
            let outcome = match open(&faulty).await {
                Ok(lake) => lake.expire(Expire::AllButNewest).await.map(drop),
                Err(error) => Err(error),
            };
            let name = format!("{fault:?} at call {at}: {outcome:?}");
            let lake = open(&plain).await.unwrap();
            assert_eq!(lake.latest().await.unwrap().version, 9, "{name}");
            assert_eq!(live_tickets(&lake).await.len(), 9, "{name}");
            for version in 1..9 {
                match lake.at_version(version).await {
                    Ok(manifest) => assert_eq!(rows(&lake, &manifest).await as u64, version, "{name}"),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Config, "{name}: {error:?}"),
                }
            }
            let has_begun = names(&plain).await.contains(&"9.start".to_owned());
            assert_eq!(lake.at_version(1).await.is_err(), has_begun, "{name}: all versions end at once");
            assert!(!lake.history(100).await.unwrap().is_empty(), "{name}");
            lake.expire(Expire::AllButNewest).await.unwrap();
            assert_eq!(names(&plain).await, ["9.commit", "9.snapshot", "9.start"], "{name}");
            assert_eq!(live_tickets(&open(&plain).await.unwrap()).await.len(), 9, "{name}");
            if calls.load(Ordering::SeqCst) <= at {
                break;
            }
            assert!(outcome.is_err() || before.len() > 3, "{name}");
            crashes += 1;
        }
    }
    assert!(crashes > 40, "{crashes}");
}

#[tokio::test]
async fn time_travel_reaches_back_to_the_cut_and_says_so_before_it() {
    let store = memory();
    let lake = create(&store).await;
    let start_ms = lake.0.clock.now().as_millisecond();
    // Versions a second apart.
    for version in 1..=8_u64 {
        let base = lake.latest().await.unwrap();
        let run = RunRecord { id: version.to_string(), ..RunRecord::default() };
        let commit = crate::lake::commit::Commit {
            version,
            id: version.to_string(),
            committed_ms: start_ms + 1_000 * version as i64,
            writer: String::new(),
            policy: None,
            actions: vec![crate::lake::commit::Action::Run(Arc::new(run))],
        };
        lake.0.log.append(&base, commit).await.unwrap();
    }
    let nothing = lake.expire(Expire::Before(start_ms + 999)).await.unwrap();
    assert_eq!(nothing, Expiry { oldest: 1, versions: 0, objects: 0 });
    let expiry = lake.expire(Expire::Before(start_ms + 5_500)).await.unwrap();
    assert_eq!(expiry, Expiry { oldest: 5, versions: 4, objects: 4 });
    for lake in [lake, open(&store).await.unwrap()] {
        for (after_ms, version) in [(5_000, 5), (5_999, 5), (6_000, 6), (7_500, 7), (9_000, 8)] {
            assert_eq!(lake.at_time(start_ms + after_ms).await.unwrap().version, version);
        }
        let error = lake.at_time(start_ms + 4_999).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("no version that old is kept any more"), "{error}");
        assert!(error.to_string().contains("version: 5"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_beside_expiries_find_every_version_or_hear_that_it_is_not_kept() {
    let store = memory();
    let lake = grown(&store, 2).await;
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|number| {
            let (store, done) = (Arc::clone(&store), Arc::clone(&done));
            tokio::spawn(async move {
                let mut reads = 0_u64;
                while !done.load(Ordering::SeqCst) || reads == 0 {
                    let lake = open(&store).await.unwrap();
                    let newest = lake.latest().await.unwrap().version;
                    match lake.at_version((newest - (reads + number) % newest.min(3)).max(1)).await {
                        Ok(_) => {}
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Config, "{error:?}"),
                    }
                    lake.history(3).await.unwrap();
                    reads += 1;
                }
            })
        })
        .collect();
    for version in 3..=40 {
        grow(&lake, version).await;
        if version % 2 == 0 {
            lake.expire(Expire::AllButNewest).await.unwrap();
        }
    }
    done.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
}
