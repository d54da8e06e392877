//! Names of lists, the table, and which files a filter on it reads.

use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::*;
use crate::lake::Lake;
use crate::lake::manifest::Manifest;
use crate::lake::simulation::{append, create, hex, memory, open, query, revision, tickets};
use crate::model::{ObjectId, Stream};

#[test]
fn names_that_could_be_an_id_or_an_address_are_refused() {
    for name in ["vip", "qa/2026-11", "_x.y", "café_3"] {
        assert!(is_list_name(name), "{name}");
    }
    for name in ["", "1st", "a@2", "a b", "-x", "x_58228e05d4e96711004eccb7", &"x".repeat(129)] {
        assert!(!is_list_name(name), "{name}");
    }
}

fn recording(lake: &Lake, list: &str, lake_version: u64) -> Recording {
    Recording {
        id: lake.new_recording_id(),
        list: list.to_owned(),
        recorded_ms: 1_760_000_000_000,
        sql: "SELECT ticket_id FROM tickets".to_owned(),
        sql_digest: "d".repeat(64),
        parameters: vec![RecordedParameter {
            name: "n".to_owned(),
            kind: "int".to_owned(),
            value: RecordedValue::Text("3".to_owned()),
        }],
        now: "2025-10-09T08:53:20Z".to_owned(),
        lake_version,
        ..Recording::default()
    }
}

fn ids(numbers: &[u8]) -> Vec<ObjectId> {
    numbers.iter().map(|number| hex(*number).parse().unwrap()).collect()
}

async fn record(lake: &Lake, list: &str, numbers: &[u8]) -> Recorded {
    let version = lake.latest().await.unwrap().version;
    lake.record(recording(lake, list, version), &ids(numbers), "test").await.unwrap()
}

#[tokio::test]
async fn table_is_there_without_a_recording_and_holds_what_was_recorded() {
    let store = memory();
    let lake = create(&store).await;
    assert_eq!(query(&lake, "SELECT count(*) FROM ticket_lists").await, [["0"]]);
    append(&lake, tickets(&[revision(1, 1), revision(2, 1), revision(3, 1)])).await.unwrap();
    let first = record(&lake, "vip", &[3, 1]).await;
    assert_eq!((first.address.as_str(), first.count, first.version), ("vip@1", 2, 2));
    record(&lake, "other", &[]).await;
    assert_eq!(record(&lake, "vip", &[2]).await.address, "vip@2");
    let lake = open(&store).await.unwrap();
    let sql = "SELECT ticket_id, position, list, lake_version, parameters, recorded_at FROM ticket_lists ORDER BY lake_version, position";
    let row = |id: u8, position: &str, version: &str| {
        [hex(id).as_str(), position, "vip", version, "{\"n\":3}", "2025-10-09T08:53:20Z"].map(str::to_owned).to_vec()
    };
    assert_eq!(query(&lake, sql).await, [row(3, "1", "1"), row(1, "2", "1"), row(2, "1", "3")]);
    let left = "SELECT ticket_id FROM tickets WHERE ticket_id NOT IN (SELECT ticket_id FROM ticket_lists WHERE list = 'vip' AND lake_version = 1)";
    assert_eq!(query(&lake, left).await, [[hex(2)]]);
    let manifest = lake.latest().await.unwrap();
    assert_eq!(manifest.lists.iter().map(|known| known.count).collect::<Vec<_>>(), [2, 0, 1]);
    assert_eq!(Manifest::from_snapshot(manifest.to_snapshot("s".to_owned(), "w".to_owned())).unwrap(), *manifest);
}

#[tokio::test]
async fn filter_on_what_a_recording_is_reads_no_file_of_another() {
    let store = memory();
    let lake = create(&store).await;
    for number in 0..20 {
        record(&lake, &format!("list{number}"), &[number]).await;
    }
    let lake = open(&store).await.unwrap();
    let manifest = lake.latest().await.unwrap();
    // Whoever reads another file fails.
    for file in &manifest.tables[&Stream::TicketLists].files {
        let recording = manifest.lists.iter().find(|known| Some(known.id.as_str()) == file.recording.as_deref());
        if recording.unwrap().list != "list7" {
            store.delete(&Path::from(file.path.as_str())).await.unwrap();
        }
    }
    for filter in [
        "list = 'list7'".to_owned(),
        "list IN ('list7', 'x')".to_owned(),
        format!("recording = '{}'", manifest.lists[7].id),
        "lake_version = 7".to_owned(),
        "list LIKE 'list7%'".to_owned(),
        "upper(list) = 'LIST7' AND position > 0".to_owned(),
    ] {
        let sql = format!("SELECT ticket_id FROM ticket_lists WHERE {filter}");
        assert_eq!(query(&lake, &sql).await, [[hex(7)]], "{filter}");
    }
}
