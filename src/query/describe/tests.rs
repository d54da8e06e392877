//! Descriptions through SQL.

use std::collections::HashMap;

use arrow::datatypes::TimeUnit;
use datafusion::catalog::TableProvider;

use super::*;
use crate::clock::{ManualClock, SharedClock};
use crate::query::sink::{self, Format, Layout};
use crate::query::{Arguments, QueryFile, QuerySettings, Session};

fn session() -> Session {
    let told = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let waited = [
        ("unit", "ms"),
        ("class", "internal"),
        ("method", "keep"),
        ("description", "Time waited, from 'in' to \"out\"."),
    ];
    let fields = [
        Field::new("ticket_id", DataType::Utf8View, false),
        Field::new("wait_ms", DataType::Int64, true).with_metadata(told(&waited)),
        Field::new("tag_ids", DataType::new_list(DataType::Utf8View, true), true),
        Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
        Field::new("subject", DataType::Utf8, true).with_metadata(told(&[("method", "restrict(after=scrub)")])),
    ];
    let schema = Arc::new(Schema::new(fields.to_vec()));
    let table = |schema: &Arc<Schema>| -> Arc<dyn TableProvider> {
        Arc::new(MemTable::try_new(Arc::clone(schema), vec![Vec::new()]).unwrap())
    };
    let tables = ["tickets", "ticket_versions", "mine"].map(|name| (name.to_owned(), table(&schema))).to_vec();
    let clock: SharedClock = Arc::new(ManualClock::new("2026-03-02T12:00:00Z".parse().unwrap()));
    let mut session = Session::with_tables(tables, &QuerySettings::default(), &clock).unwrap();
    session.hide(vec!["tickets.subject".to_owned()]);
    session
}

async fn csv(sql: &str) -> String {
    let session = session();
    let plan = session.plan(&QueryFile::inline(sql).unwrap(), &Arguments::default()).await.unwrap();
    let mut out = Vec::new();
    sink::write(session.stream(&plan).await.unwrap(), Format::Csv, &Layout::default(), &mut out).await.unwrap();
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn table_is_described_with_what_its_columns_mean_and_whether_they_can_be_read() {
    let expected = "column_name,data_type,unit,class,method,is_readable,description\n\
                    ticket_id,text,,,,true,\n\
                    wait_ms,bigint,ms,internal,keep,true,\"Time waited, from 'in' to \"\"out\"\".\"\n\
                    tag_ids,text[],,,,true,\n\
                    at,timestamp,,,,true,\n\
                    subject,text,,,restrict(after=scrub),false,\n";
    for sql in
        ["DESCRIBE tickets", "DESC tickets", "describe TICKETS;", "DESCRIBE public.tickets", "DESCRIBE ticket_versions"]
    {
        assert_eq!(csv(sql).await, expected, "{sql}");
    }
    assert_eq!(
        csv("DESCRIBE mine").await,
        expected.replace(",false,", ",true,"),
        "another table's column is not hidden"
    );
}

#[tokio::test]
async fn query_is_described_by_the_columns_that_it_takes_over() {
    assert_eq!(
        csv("DESCRIBE SELECT wait_ms, wait_ms / 1000.0 AS seconds, subject AS title, subject FROM tickets").await,
        "column_name,data_type,unit,class,method,is_readable,description\n\
         wait_ms,bigint,ms,internal,keep,true,\"Time waited, from 'in' to \"\"out\"\".\"\n\
         seconds,double,,,,true,\n\
         title,text,,,restrict(after=scrub),false,\n\
         subject,text,,,restrict(after=scrub),false,\n"
    );
}

#[tokio::test]
async fn tables_are_shown_with_what_they_hold() {
    let shown = csv("SHOW TABLES").await;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], "table_name,columns,description");
    assert_eq!(lines[1], "mine,5,");
    assert!(lines[3].starts_with("tickets,5,\"Tickets as they are now"), "{shown}");
}

#[test]
fn every_stream_has_a_description() {
    for stream in Stream::ALL {
        assert!(TABLES.iter().any(|(name, _)| *name == stream.table()), "{stream}");
    }
}

#[test]
fn types_are_named_in_sql_words() {
    let entries = Field::new(
        "entries",
        DataType::Struct(
            vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Int64, true)].into(),
        ),
        false,
    );
    for (kind, expected) in [
        (DataType::Map(Arc::new(entries), false), "map(text, bigint)"),
        (DataType::Decimal128(10, 2), "decimal(10, 2)"),
        (DataType::new_large_list(DataType::Date32, true), "date[]"),
        (DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)), "text"),
        (DataType::Struct(vec![Field::new("a", DataType::Boolean, true)].into()), "struct(a boolean)"),
    ] {
        assert_eq!(sql_type(&kind), expected);
    }
}
