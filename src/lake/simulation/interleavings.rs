//! Interleavings: several processes at work on one store, call by call in an order that a schedule decides.
//!
//! Each process has a store of its own that waits at every call until it is its turn. A turn is given when all processes
//! wait, so a schedule is an interleaving of their calls, and proptest looks for one that loses a ticket or doubles it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use proptest::prelude::*;
use tokio::sync::{Notify, oneshot};

use super::{Revision, append, clock, create, hex, live_tickets, memory, open, revision, root, tickets};
use crate::error::ErrorKind;
use crate::lake::{CompactSettings, Lake, Purpose};

/// Who waits, and who is at work.
#[derive(Debug, Default)]
struct Turns {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<(usize, oneshot::Sender<()>)>,
    unfinished: BTreeSet<usize>,
}

impl Turns {
    /// Waits until the process may make its next call.
    async fn wait(&self, process: usize) {
        let (turn, given) = oneshot::channel();
        self.state.lock().unwrap().waiting.push((process, turn));
        self.changed.notify_one();
        given.await.unwrap();
    }

    fn finish(&self, process: usize) {
        self.state.lock().unwrap().unfinished.remove(&process);
        self.changed.notify_one();
    }

    /// Gives turns until all processes are done: each number of the schedule chooses among those that wait.
    async fn run(&self, schedule: &[u8]) {
        let mut choices = schedule.iter().copied().cycle();
        loop {
            let turn = {
                let mut state = self.state.lock().unwrap();
                if state.unfinished.is_empty() {
                    return;
                }
                let waiting: BTreeSet<usize> = state.waiting.iter().map(|(process, _)| *process).collect();
                if state.unfinished.iter().all(|process| waiting.contains(process)) {
                    let process = waiting.iter().nth(usize::from(choices.next().unwrap()) % waiting.len()).unwrap();
                    let place = state.waiting.iter().position(|(waiting, _)| waiting == process).unwrap();
                    Some(state.waiting.remove(place).1)
                } else {
                    None
                }
            };
            match turn {
                // A call that was given up no longer waits.
                Some(turn) => drop(turn.send(())),
                None => self.changed.notified().await,
            }
        }
    }
}

/// The store as one process sees it.
#[derive(Debug)]
struct Turned {
    inner: Arc<dyn ObjectStore>,
    turns: Arc<Turns>,
    process: usize,
}

impl fmt::Display for Turned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.process, self.inner)
    }
}

impl Turned {
    fn listing(
        &self,
        list: impl FnOnce(&dyn ObjectStore) -> BoxStream<'static, object_store::Result<ObjectMeta>> + Send + 'static,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let (inner, turns, process) = (Arc::clone(&self.inner), Arc::clone(&self.turns), self.process);
        async move {
            turns.wait(process).await;
            list(inner.as_ref())
        }
        .into_stream()
        .flatten()
        .boxed()
    }
}

#[async_trait]
impl ObjectStore for Turned {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        self.turns.wait(self.process).await;
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.turns.wait(self.process).await;
        self.inner.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.turns.wait(self.process).await;
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let (inner, turns, process) = (Arc::clone(&self.inner), Arc::clone(&self.turns), self.process);
        paths
            .and_then(move |path| {
                let (inner, turns) = (Arc::clone(&inner), Arc::clone(&turns));
                async move {
                    turns.wait(process).await;
                    inner.delete(&path).await.map(|()| path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let prefix = prefix.cloned();
        self.listing(move |inner| inner.list(prefix.as_ref()))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let (prefix, offset) = (prefix.cloned(), offset.clone());
        self.listing(move |inner| inner.list_with_offset(prefix.as_ref(), &offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.turns.wait(self.process).await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// What one process does, from opening the lake to its end.
#[derive(Debug, Clone)]
enum Work {
    /// Commits these, one after the other.
    Append(Vec<Vec<Revision>>),
    /// Joins small files, moves superseded rows to history files, also where that is not worth while yet.
    Compact,
    /// Wraps all files anew.
    Rewrap,
}

impl Work {
    async fn run(self, lake: &Lake) -> crate::error::Result<()> {
        match self {
            Self::Append(batches) => {
                for batch in batches {
                    append(lake, tickets(&batch)).await?;
                }
                Ok(())
            }
            Self::Compact => {
                let settings = CompactSettings { superseded_percent: 0, ..CompactSettings::default() };
                lake.compact(&settings, "test", |_| {}).await.map(drop)
            }
            Self::Rewrap => {
                let mut lease = lake.lease(Purpose::Maintenance, "test").await?;
                let done = lake.rewrap_files(&mut lease).await;
                lease.release().await?;
                done.map(drop)
            }
        }
    }
}

fn works() -> impl Strategy<Value = Vec<Work>> {
    let one = (0..10_u8, 0..6_i64, proptest::bool::weighted(0.2));
    let revisions = proptest::collection::vec(one.prop_map(|(id, rev, deleted)| Revision { id, rev, deleted }), 1..5);
    let append = proptest::collection::vec(revisions, 1..4).prop_map(Work::Append);
    let one = prop_oneof![4 => append, 2 => Just(Work::Compact), 1 => Just(Work::Rewrap)];
    proptest::collection::vec(one, 2..5)
}

/// Plays processes side by side over one store; returns the errors that they ended with.
async fn play(store: &Arc<dyn ObjectStore>, works: &[Work], schedule: &[u8]) -> Vec<crate::error::Error> {
    let turns = Arc::new(Turns::default());
    turns.state.lock().unwrap().unfinished.extend(0..works.len());
    let processes: Vec<_> = works
        .iter()
        .cloned()
        .enumerate()
        .map(|(process, work)| {
            let inner = Arc::clone(store);
            let turns = Arc::clone(&turns);
            tokio::spawn(async move {
                let own: Arc<dyn ObjectStore> = Arc::new(Turned { inner, turns: Arc::clone(&turns), process });
                let done = async {
                    let lake = Lake::open_on(own, "test:", &root(1), clock()).await?.with_limits(3, 2);
                    work.run(&lake).await
                };
                let done = done.await;
                turns.finish(process);
                done
            })
        })
        .collect();
    turns.run(schedule).await;
    let ends = futures::future::join_all(processes).await;
    ends.into_iter().filter_map(|end| end.unwrap().err()).collect()
}

/// The newest revision of each id.
fn newest(works: &[Work]) -> BTreeMap<u8, Revision> {
    let mut newest: BTreeMap<u8, Revision> = BTreeMap::new();
    for work in works {
        let Work::Append(batches) = work else { continue };
        for revision in batches.iter().flatten() {
            let known = newest.entry(revision.id).or_insert(*revision);
            *known = (*known).max(*revision);
        }
    }
    newest
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_interleaving_loses_a_ticket_or_doubles_it(works in works(), schedule in proptest::collection::vec(any::<u8>(), 1..200)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let store = memory();
            // Files of an older ring key, and an older one that is superseded.
            let first = Work::Append(vec![vec![revision(0, 0), revision(3, 0), revision(7, 0)], vec![revision(3, 1)]]);
            let lake = create(&store).await.with_limits(3, 2);
            first.clone().run(&lake).await.unwrap();
            lake.rotate_keys(&root(1)).await.unwrap();
            let errors = play(&store, &works, &schedule).await;
            for error in &errors {
                assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
            }
            // Whoever lost every race does its work again.
            let lake = open(&store).await.unwrap().with_limits(3, 2);
            if !errors.is_empty() {
                for work in works.clone() {
                    work.run(&lake).await.unwrap();
                }
            }
            let everything: Vec<Work> = std::iter::once(first).chain(works).collect();
            let alive = newest(&everything).into_values().filter(|revision| !revision.deleted);
            let expected: Vec<(String, i64)> = alive.map(|revision| (hex(revision.id), revision.rev)).collect();
            assert_eq!(live_tickets(&lake).await, expected);
        });
    }
}
