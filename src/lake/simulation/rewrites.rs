//! Rewriting files: the same rows before and after, beside other writers, and less what is dropped.

use std::sync::Arc;

use object_store::ObjectStoreExt;
use object_store::path::Path;
use roaring::RoaringBitmap;

use super::{append, create, deletion, hex, live_tickets, memory, query, query_at, revision, rows, tags, tickets};
use crate::error::ErrorKind;
use crate::lake::Lake;
use crate::lake::manifest::{DataFile, Manifest};
use crate::lake::rewrite::{History, Replaced, Source, replace, rewrite};
use crate::model::Stream;

/// Every row that queries see of the tickets: live ones, and all versions; in an order of its own.
pub(super) async fn everything(lake: &Lake, manifest: &Arc<Manifest>) -> [Vec<Vec<String>>; 2] {
    let mut tables = [
        query_at(lake, manifest, "SELECT * FROM tickets").await,
        query_at(lake, manifest, "SELECT * FROM ticket_versions").await,
    ];
    for rows in &mut tables {
        rows.sort();
    }
    tables
}

async fn sources(lake: &Lake) -> Vec<Source> {
    lake.latest().await.unwrap().tables[&Stream::Tickets].files.iter().map(Source::whole).collect()
}

async fn files(lake: &Lake) -> Vec<Arc<DataFile>> {
    lake.latest().await.unwrap().tables[&Stream::Tickets].files.clone()
}

/// A lake of four commits with superseded rows and tombstones in between.
async fn aged() -> Lake {
    let lake = create(&memory()).await;
    append(&lake, tickets(&[revision(1, 1), revision(3, 1), revision(5, 1)])).await.unwrap();
    append(&lake, tickets(&[revision(2, 1), revision(3, 2)])).await.unwrap();
    append(&lake, tickets(&[deletion(1, 2), revision(9, 1), revision(3, 3)])).await.unwrap();
    append(&lake, tickets(&[revision(4, 1), deletion(9, 4)])).await.unwrap();
    lake
}

#[tokio::test]
async fn rewritten_files_hold_the_same_rows_and_older_versions_read_the_old_ones() {
    for history in [History::Kept, History::Apart] {
        let lake = aged().await;
        let before = lake.latest().await.unwrap();
        let expected = everything(&lake, &before).await;
        let change = rewrite(&lake.0, Stream::Tickets, &sources(&lake).await, history).await.unwrap();
        assert_eq!(everything(&lake, &lake.latest().await.unwrap()).await, expected, "nothing is visible yet");
        let Replaced::Done(after) = replace(&lake.0, &[change]).await.unwrap() else { panic!("gone") };
        assert_eq!(everything(&lake, &after).await, expected);
        assert_eq!(everything(&lake, &lake.at_version(before.version).await.unwrap()).await, expected);
        let shape: Vec<(u64, u64, u64)> =
            files(&lake).await.iter().map(|file| (file.rows, file.superseded.len(), file.live_rows())).collect();
        let apart = history == History::Apart;
        assert_eq!(shape, if apart { vec![(6, 0, 4), (4, 4, 0)] } else { vec![(10, 4, 4)] });
        let counts = append(&lake, tickets(&[revision(3, 3), revision(5, 2), revision(1, 2)])).await.unwrap();
        assert_eq!((counts.unchanged, counts.updated), (2, 1), "revisions are recognized in new files");
    }
}

#[tokio::test]
async fn rows_superseded_while_files_are_rewritten_are_superseded_in_the_new_ones() {
    for history in [History::Kept, History::Apart] {
        let lake = aged().await;
        let change = rewrite(&lake.0, Stream::Tickets, &sources(&lake).await, history).await.unwrap();
        append(&lake, tickets(&[revision(5, 7), deletion(2, 7), revision(7, 7)])).await.unwrap();
        let expected = everything(&lake, &lake.latest().await.unwrap()).await;
        let Replaced::Done(after) = replace(&lake.0, &[change]).await.unwrap() else { panic!("gone") };
        assert_eq!(everything(&lake, &after).await, expected);
        assert_eq!(
            after.tables[&Stream::Tickets].files.last().unwrap().superseded.len(),
            if history == History::Kept { 6 } else { 4 }
        );
    }
}

#[tokio::test]
async fn dropped_rows_are_gone_and_the_others_stay() {
    let lake = aged().await;
    let mut sources = sources(&lake).await;
    // Ticket 3 in all its revisions.
    sources[0].dropped = RoaringBitmap::from([1]);
    sources[1].dropped = RoaringBitmap::from([1]);
    sources[2].dropped = RoaringBitmap::from([1]);
    let change = rewrite(&lake.0, Stream::Tickets, &sources, History::Kept).await.unwrap();
    assert!(matches!(replace(&lake.0, &[change]).await.unwrap(), Replaced::Done(_)));
    assert_eq!(live_tickets(&lake).await, [(hex(2), 1), (hex(4), 1), (hex(5), 1)]);
    let left = query(&lake, &format!("SELECT count(*) FROM ticket_versions WHERE ticket_id = '{}'", hex(3))).await;
    assert_eq!(left, [["0"]]);
    assert_eq!(query(&lake, "SELECT count(*) FROM ticket_versions").await, [["7"]]);

    let file = files(&lake).await[0].clone();
    let all = Source { dropped: (0..u32::try_from(file.rows).unwrap()).collect(), file };
    let change = rewrite(&lake.0, Stream::Tickets, &[all], History::Kept).await.unwrap();
    assert!(matches!(replace(&lake.0, &[change]).await.unwrap(), Replaced::Done(_)));
    assert_eq!(files(&lake).await, []);
}

#[tokio::test]
async fn rewrite_whose_source_has_gone_changes_nothing() {
    let lake = aged().await;
    let sources = sources(&lake).await;
    let one = rewrite(&lake.0, Stream::Tickets, &sources[..2], History::Kept).await.unwrap();
    let other = rewrite(&lake.0, Stream::Tickets, &sources[1..], History::Kept).await.unwrap();
    let expected = everything(&lake, &lake.latest().await.unwrap()).await;
    assert!(matches!(replace(&lake.0, &[one]).await.unwrap(), Replaced::Done(_)));
    let version = lake.latest().await.unwrap().version;
    assert!(matches!(replace(&lake.0, &[other]).await.unwrap(), Replaced::Gone));
    assert_eq!(lake.latest().await.unwrap().version, version);
    assert_eq!(everything(&lake, &lake.latest().await.unwrap()).await, expected);
}

#[tokio::test]
async fn files_of_different_columns_are_not_joined() {
    let lake = create(&memory()).await;
    append(&lake, tickets(&[revision(1, 1)])).await.unwrap();
    let wider: &[(&str, &str)] = &[("status", "text"), ("priority", "int")];
    append(&lake, rows(Stream::Tickets, wider, &[revision(2, 1)])).await.unwrap();
    let error = rewrite(&lake.0, Stream::Tickets, &sources(&lake).await, History::Kept).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[tokio::test]
async fn replaced_table_is_still_recognized_after_its_file_was_rewritten() {
    let lake = create(&memory()).await.with_limits(2, 20);
    let three = [revision(1, 1), revision(2, 1), revision(3, 1)];
    assert_eq!(super::replace(&lake, tags(&three)).await, 1);
    let lake = lake.with_limits(10, 20);
    let sources: Vec<Source> =
        lake.latest().await.unwrap().tables[&Stream::Tags].files.iter().map(Source::whole).collect();
    assert_eq!(sources.len(), 2);
    let change = rewrite(&lake.0, Stream::Tags, &sources, History::Kept).await.unwrap();
    assert!(matches!(replace(&lake.0, &[change]).await.unwrap(), Replaced::Done(_)));
    assert_eq!(super::replace(&lake, tags(&three)).await, 2, "the same rows make no version");
}

#[tokio::test]
async fn damaged_source_is_refused_wherever_a_byte_differs() {
    let store = memory();
    let lake = create(&store).await;
    append(&lake, tickets(&[revision(1, 1), revision(2, 1), revision(3, 1)])).await.unwrap();
    let sources = sources(&lake).await;
    let path = Path::from(sources[0].file.path.as_str());
    let good = store.get(&path).await.unwrap().bytes().await.unwrap();
    let mut refused = 0;
    for at in 4..good.len() {
        let mut bad = good.to_vec();
        bad[at] ^= 0x40;
        store.put(&path, bad.into()).await.unwrap();
        let rewritten = rewrite(&lake.0, Stream::Tickets, &sources, History::Kept).await;
        let error = rewritten.expect_err(&format!("byte {at}"));
        assert_eq!(error.kind(), ErrorKind::Data, "byte {at}: {error}");
        assert!(error.to_string().contains(path.as_ref()), "{error}");
        refused += 1;
    }
    assert!(refused > 1_000);
    for cut in [0, 3, good.len() / 2, good.len() - 1] {
        store.put(&path, good.slice(..cut).into()).await.unwrap();
        let error = rewrite(&lake.0, Stream::Tickets, &sources, History::Kept).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "cut at {cut}: {error}");
    }
    store.delete(&path).await.unwrap();
    assert_eq!(rewrite(&lake.0, Stream::Tickets, &sources, History::Kept).await.unwrap_err().kind(), ErrorKind::Data);
}
