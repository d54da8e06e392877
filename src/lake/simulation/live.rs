//! What a reconciliation asks and writes: live ids, newest revisions, owners, corrections.

use std::collections::{BTreeSet, HashSet};

use proptest::prelude::*;

use super::{Revision, append, create, deletion, hex, live_tickets, memory, query, revision, tickets};
use crate::lake::{Lake, RowCounts};
use crate::model::{ObjectId, Stream};
use crate::policy::RedactedBatch;

fn ids(numbers: &[u8]) -> HashSet<ObjectId> {
    numbers.iter().map(|number| hex(*number).parse().unwrap()).collect()
}

async fn live_ids(lake: &Lake, limit: usize) -> Vec<String> {
    let manifest = lake.latest().await.unwrap();
    let mut live = lake.live_ids(&manifest, Stream::Tickets).unwrap();
    let mut all = Vec::new();
    loop {
        let next = live.next(limit).await.unwrap();
        all.extend(next.iter().map(ToString::to_string));
        if next.len() < limit {
            return all;
        }
    }
}

async fn correct(lake: &Lake, rows: RedactedBatch) -> RowCounts {
    let mut change = lake.transaction();
    change.correct(rows);
    change.commit().await.unwrap().streams[0].1
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn live_ids_are_those_of_the_live_table_in_order(
        commits in prop::collection::vec(prop::collection::vec((0_u8..60, 1_i64..4, prop::bool::weighted(0.2)), 0..40), 0..8),
        limit in 1_usize..9,
    ) {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap().block_on(async {
            let lake = create(&memory()).await.with_limits(7, 100);
            let mut known = BTreeSet::new();
            for commit in commits {
                let revisions: Vec<Revision> =
                    commit.into_iter().map(|(id, rev, deleted)| Revision { id, rev, deleted }).collect();
                known.extend(revisions.iter().map(|revision| revision.id));
                append(&lake, tickets(&revisions)).await.unwrap();
            }
            let live: Vec<String> = live_tickets(&lake).await.into_iter().map(|(id, _)| id).collect();
            prop_assert_eq!(&live_ids(&lake, limit).await, &live);

            let all = ids(&known.iter().copied().chain([200]).collect::<Vec<u8>>());
            let manifest = lake.latest().await.unwrap();
            let newest = lake.newest_keys(&manifest, Stream::Tickets, &all).await.unwrap();
            prop_assert_eq!(newest.len(), known.len());
            let mut not_deleted: Vec<String> =
                newest.iter().filter(|key| !key.deleted).map(|key| key.id.to_string()).collect();
            not_deleted.sort();
            prop_assert_eq!(not_deleted, live);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn deleted_record_comes_back_with_a_later_revision_and_not_with_its_own() {
    let lake = create(&memory()).await;
    append(&lake, tickets(&[revision(1, 3), revision(2, 3)])).await.unwrap();
    append(&lake, tickets(&[deletion(1, 3), deletion(2, 4)])).await.unwrap();
    append(&lake, tickets(&[revision(1, 3), revision(2, 3)])).await.unwrap();
    assert_eq!(live_tickets(&lake).await, [], "a search index that lags brings nothing back");
    append(&lake, tickets(&[revision(1, 4), revision(2, 5)])).await.unwrap();
    assert_eq!(live_tickets(&lake).await, [(hex(1), 4), (hex(2), 5)]);
    assert_eq!(query(&lake, "SELECT count(*) FROM ticket_versions").await, [["6"]]);
}

#[tokio::test]
async fn correction_supersedes_the_same_revision_and_no_later_one() {
    let lake = create(&memory()).await;
    append(&lake, tickets(&[revision(1, 3), revision(2, 3), revision(3, 3)])).await.unwrap();
    append(&lake, tickets(&[deletion(2, 3), revision(3, 4)])).await.unwrap();
    let corrections = tickets(&[revision(1, 3), revision(2, 3), revision(3, 3), revision(4, 1)]);
    let counts = correct(&lake, corrections).await;
    assert_eq!(counts, RowCounts { updated: 2, unchanged: 1, inserted: 1, ..RowCounts::default() });
    assert_eq!(live_tickets(&lake).await, [(hex(1), 3), (hex(2), 3), (hex(3), 4), (hex(4), 1)]);
    append(&lake, tickets(&[revision(1, 4), deletion(2, 4)])).await.unwrap();
    assert_eq!(live_tickets(&lake).await, [(hex(1), 4), (hex(3), 4), (hex(4), 1)]);
}

#[tokio::test]
async fn tombstones_and_referring_rows_are_told_by_the_versions_in_which_rows_came() {
    let lake = create(&memory()).await;
    append(&lake, tickets(&[revision(1, 1), revision(2, 1), deletion(3, 1)])).await.unwrap();
    let earlier = lake.latest().await.unwrap();
    append(&lake, tickets(&[deletion(1, 2), revision(4, 1), deletion(5, 1), deletion(6, 1)])).await.unwrap();
    append(&lake, tickets(&[revision(6, 2)])).await.unwrap();
    let now = lake.latest().await.unwrap();
    let since = async |version| lake.tombstones_since(&now, version, Stream::Tickets).await.unwrap();
    assert_eq!(since(earlier.version).await, ids(&[1, 5]));
    assert_eq!(since(0).await, ids(&[1, 3, 5]));
    assert_eq!(since(now.version).await, ids(&[]));

    // The key column refers to itself here.
    let column = (Stream::Tickets, "ticket_id");
    let wanted = ids(&[1, 2, 4]);
    let found = lake.referring(&now, earlier.version, column, &wanted).await.unwrap();
    assert_eq!(found, [hex(2).parse().unwrap()], "1 is deleted and 4 is new");
    let found = lake.referring(&now, now.version, (Stream::Tickets, "status"), &wanted).await.unwrap();
    assert_eq!(found, [], "a column of something else refers to nothing");
    assert_eq!(lake.referring(&now, now.version, (Stream::Tickets, "absent"), &wanted).await.unwrap(), []);
}
