//! Random work against an oracle: a map of the newest revision per id.

use std::collections::BTreeMap;

use object_store::ObjectStoreExt;
use proptest::prelude::*;

use super::{Revision, create, hex, live, memory, open, replace, tickets, versions};
use crate::lake::layout;
use crate::model::Stream;

/// One step of random work.
#[derive(Debug, Clone)]
enum Work {
    Append(Vec<Vec<Revision>>),
    Replace(Vec<Revision>),
    Reopen,
}

fn revisions(most: usize) -> impl Strategy<Value = Vec<Revision>> {
    let one = (0..12_u8, 0..6_i64, proptest::bool::weighted(0.2));
    proptest::collection::vec(one.prop_map(|(id, rev, deleted)| Revision { id, rev, deleted }), 0..most)
}

fn work() -> impl Strategy<Value = Vec<Work>> {
    let one = prop_oneof![
        6 => proptest::collection::vec(revisions(8), 1..3).prop_map(Work::Append),
        1 => revisions(6).prop_map(Work::Replace),
        1 => Just(Work::Reopen),
    ];
    proptest::collection::vec(one, 1..8)
}

/// The newest revision per id, and how many rows were ever written.
#[derive(Debug, Default)]
struct Oracle {
    newest: BTreeMap<u8, Revision>,
    versions: usize,
}

impl Oracle {
    fn apply(&mut self, revisions: impl IntoIterator<Item = Revision>) {
        let mut batch = BTreeMap::new();
        for revision in revisions {
            let newest = batch.entry(revision.id).or_insert(revision);
            *newest = revision.max(*newest);
        }
        for (id, revision) in batch {
            if self.newest.get(&id).is_none_or(|present| *present < revision) {
                self.newest.insert(id, revision);
                self.versions += 1;
            }
        }
    }

    fn live(&self) -> Vec<(String, i64)> {
        let live = self.newest.values().filter(|revision| !revision.deleted);
        live.map(|revision| (hex(revision.id), revision.rev)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_work_equals_the_oracle(work in work()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let store = memory();
            let mut lake = create(&store).await.with_limits(3, 2);
            let mut oracle = Oracle::default();
            let mut by_version = vec![Vec::new()];
            for work in work {
                match work {
                    Work::Append(batches) => {
                        let mut change = lake.transaction();
                        for batch in &batches {
                            change.append(tickets(batch));
                        }
                        oracle.apply(batches.into_iter().flatten());
                        change.commit().await.unwrap();
                    }
                    Work::Replace(revisions) => {
                        oracle = Oracle::default();
                        replace(&lake, tickets(&revisions)).await;
                        oracle.apply(revisions);
                    }
                    Work::Reopen => lake = open(&store).await.unwrap().with_limits(3, 2),
                }
                let manifest = lake.latest().await.unwrap();
                let live = live(&lake, &manifest, Stream::Tickets).await;
                assert_eq!(live, oracle.live());
                assert_eq!(versions(&lake, &manifest).await, oracle.versions);
                by_version.truncate(manifest.version as usize);
                by_version.push(live);
            }
            let fresh = open(&store).await.unwrap();
            assert_eq!(fresh.latest().await.unwrap(), lake.latest().await.unwrap());
            for (version, expected) in by_version.iter().enumerate() {
                let manifest = fresh.at_version(version as u64).await.unwrap();
                assert_eq!(&live(&fresh, &manifest, Stream::Tickets).await, expected, "version {version}");
            }
            // Without its snapshots the log says the same.
            for version in 1..by_version.len() as u64 {
                let _ = store.delete(&layout::snapshot(version)).await;
            }
            assert_eq!(open(&store).await.unwrap().latest().await.unwrap(), fresh.latest().await.unwrap());
        });
    }
}
