//! The functions through SQL, over small tables in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder,
    TimestampMillisecondArray,
};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Int32Type, Int64Type, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session as EngineSession, TableProvider};
use datafusion::common::Result as EngineResult;
use datafusion::datasource::{MemTable, TableType};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use futures::future::join_all;

use crate::clock::{ManualClock, SharedClock};
use crate::error::{ErrorKind, Result};
use crate::query::{Arguments, QueryFile, QuerySettings, Session};

/// A table that counts how often it is read.
#[derive(Debug)]
struct Counted {
    table: MemTable,
    scans: Arc<AtomicUsize>,
}

#[async_trait]
impl TableProvider for Counted {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn EngineSession,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        self.scans.fetch_add(1, Ordering::SeqCst);
        // Others may come in between.
        tokio::task::yield_now().await;
        self.table.scan(state, projection, filters, limit).await
    }
}

fn lists(values: &[Option<&[&str]>]) -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for value in values {
        for text in value.unwrap_or_default() {
            lists.values().append_value(text);
        }
        lists.append(value.is_some());
    }
    Arc::new(lists.finish())
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(values.iter().collect::<StringArray>())
}

fn schedules() -> RecordBatch {
    let office: &[&str] = &["mon 09:00-17:00", "tue 09:00-17:00"];
    RecordBatch::try_from_iter([
        ("schedule_id", texts(&[Some("s1"), Some("s2"), Some("s3"), Some("s4"), Some("s5")])),
        ("name", texts(&[Some("Support"), Some("Nights"), Some("Support"), None, Some("Broken")])),
        ("timezone", texts(&[Some("UTC"), Some("Europe/Berlin"), Some("UTC"), Some("UTC"), Some("Mars/Base")])),
        ("hours", lists(&[Some(&["mon 00:00-24:00"]), Some(&["mon 22:00-06:00"]), Some(office), None, Some(&[])])),
        ("holidays", lists(&[None, None, Some(&["2026-01-06/2026-01-06"]), None, None])),
        ("is_default", Arc::new(BooleanArray::from(vec![None, None, Some(true), None, None])) as ArrayRef),
        ("deleted", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), None, None]))),
    ])
    .unwrap()
}

fn waits() -> RecordBatch {
    let at = |texts: &[Option<&str>]| {
        let ms = texts.iter().map(|text| text.map(|text| text.parse::<jiff::Timestamp>().unwrap().as_millisecond()));
        Arc::new(ms.collect::<TimestampMillisecondArray>().with_timezone("UTC")) as ArrayRef
    };
    let monday = Some("2026-01-05T12:00:00Z");
    let names = [Some("Support"), Some("s1"), Some("gone"), None, Some("Nights")];
    RecordBatch::try_from_iter([
        ("ticket_id", texts(&[Some("a"), Some("b"), Some("c"), Some("d"), Some("e")])),
        ("made_at", at(&[monday, monday, monday, monday, None])),
        ("done_at", at(&[Some("2026-01-06T12:00:00Z"); 5])),
        ("schedule", texts(&names)),
        ("schedule_view", cast(&texts(&names), &DataType::Utf8View).unwrap()),
        ("schedule_large", cast(&texts(&names), &DataType::LargeUtf8).unwrap()),
        (
            "schedule_coded",
            cast(&texts(&names), &DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))).unwrap(),
        ),
    ])
    .unwrap()
}

fn session(tables: &[(&str, RecordBatch)]) -> (Session, Arc<AtomicUsize>) {
    let scans = Arc::new(AtomicUsize::new(0));
    let counted = |batch: &RecordBatch| {
        let table = MemTable::try_new(batch.schema(), vec![vec![batch.clone()]]).unwrap();
        Arc::new(Counted { table, scans: Arc::clone(&scans) }) as Arc<dyn TableProvider>
    };
    let tables = tables.iter().map(|(name, batch)| ((*name).to_owned(), counted(batch))).collect();
    let clock: SharedClock = Arc::new(ManualClock::new("2026-03-02T12:00:00Z".parse().unwrap()));
    (Session::with_tables(tables, &QuerySettings::default(), &clock).unwrap(), scans)
}

async fn rows(session: &Session, sql: &str) -> Result<RecordBatch> {
    let plan = session.plan(&QueryFile::inline(sql)?, &Arguments::default()).await?;
    let mut rows = session.stream(&plan).await?;
    let (schema, mut batches) = (rows.schema(), Vec::new());
    while let Some(batch) = rows.next().await? {
        batches.push(batch);
    }
    Ok(concat_batches(&schema, &batches).unwrap())
}

async fn numbers(session: &Session, sql: &str) -> Result<Vec<Option<i64>>> {
    let rows = rows(session, sql).await?;
    Ok(rows.columns().iter().flat_map(|column| column.as_primitive::<Int64Type>().iter()).collect())
}

#[tokio::test]
async fn business_seconds_takes_the_schedule_by_id_by_name_and_by_default() {
    let (session, _) = session(&[("schedules", schedules()), ("waits", waits())]);
    let hour = 3_600;
    for (schedule, expected) in [
        // Monday from noon and no Tuesday, which is a holiday; the deleted one of the same name is all of Monday.
        ("'Support'", Some(5 * hour)),
        ("'s3'", Some(5 * hour)),
        ("'default'", Some(5 * hour)),
        ("'s1'", Some(12 * hour)),
        ("'Nights'", Some(8 * hour)),
        ("arrow_cast('Nights', 'Utf8View')", Some(8 * hour)),
        ("NULL", None),
    ] {
        let sql =
            format!("SELECT business_seconds(made_at, done_at, {schedule}) AS s FROM waits WHERE ticket_id = 'a'");
        assert_eq!(numbers(&session, &sql).await.unwrap(), [expected], "{schedule}");
    }
    for column in ["schedule", "schedule_view", "schedule_large", "schedule_coded"] {
        let sql = format!("SELECT business_seconds(made_at, done_at, {column}) AS s FROM waits ORDER BY ticket_id");
        assert_eq!(
            numbers(&session, &sql).await.unwrap(),
            [Some(5 * hour), Some(12 * hour), None, None, None],
            "{column}"
        );
    }
}

#[tokio::test]
async fn business_seconds_takes_instants_in_every_form() {
    let (session, _) = session(&[("schedules", schedules()), ("waits", waits())]);
    for (from, to, expected) in [
        ("'2026-01-05T10:00:00Z'", "'2026-01-05T11:00:00Z'", Some(3_600)),
        ("'2026-01-05T11:00:00Z'", "'2026-01-05T10:00:00Z'", Some(-3_600)),
        ("timestamp '2026-01-05 10:00:00'", "timestamp '2026-01-05 10:00:01.999'", Some(1)),
        ("date '2026-01-05'", "date '2026-01-08'", Some(8 * 3_600)),
        ("NULL", "now()", None),
        (
            "arrow_cast('2026-01-05T10:00:00+01:00', 'Timestamp(Nanosecond, Some(\"Europe/Berlin\"))')",
            "timestamp '2026-01-05 10:00:00'",
            Some(3_600),
        ),
    ] {
        let sql = format!("SELECT business_seconds({from}, {to}, 'Support') AS s");
        assert_eq!(numbers(&session, &sql).await.unwrap(), [expected], "{from} {to}");
    }
    let error = numbers(&session, "SELECT business_seconds(1, 2, 'Support')").await.unwrap_err();
    assert!(error.message().contains("business_seconds takes a timestamp, not Int64"), "{error}");
    let error = numbers(&session, "SELECT business_seconds(now(), now())").await.unwrap_err();
    assert!(error.message().contains("takes two instants and a schedule"), "{error}");
}

#[tokio::test]
async fn schedule_that_is_not_there_or_not_understood_is_an_error_with_the_way_out() {
    let (with, _) = session(&[("schedules", schedules()), ("waits", waits())]);
    let (without, _) = session(&[("waits", waits())]);
    for (session, schedule, message, hint) in [
        (&with, "Suport", "no business schedule has the id or the name `Suport`", "did you mean `Support`?"),
        (&with, "Broken", "`Broken` has the time zone `Mars/Base`", "SELECT * FROM schedules"),
        (&with, "s4", "`s4` has no hours", "SELECT * FROM schedules"),
        (&without, "Support", "no business schedule", "counterfoil extract"),
    ] {
        let sql = format!("SELECT business_seconds(made_at, done_at, '{schedule}') FROM waits");
        let error = numbers(session, &sql).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Query);
        assert!(error.message().contains(message), "{error}");
        assert!(error.hint().unwrap().contains(hint), "{error:?}");
    }
}

#[tokio::test]
async fn dictionaries_are_read_once_however_many_plans_use_them_at_once() {
    let users = RecordBatch::try_from_iter([
        ("user_id", cast(&texts(&[Some("u1")]), &DataType::Utf8View).unwrap()),
        ("name", cast(&texts(&[Some("Ada")]), &DataType::Utf8View).unwrap()),
    ])
    .unwrap();
    let (session, scans) = session(&[("schedules", schedules()), ("users", users)]);
    let names = join_all((0..8).map(|_| rows(&session, "SELECT user_name('u1') AS n"))).await;
    for name in names {
        let name = cast(name.unwrap().column(0), &DataType::Utf8).unwrap();
        assert_eq!(name.as_string::<i32>().value(0), "Ada");
    }
    assert_eq!(scans.load(Ordering::SeqCst), 1);
    for _ in 0..3 {
        numbers(
            &session,
            "SELECT business_seconds(now(), now(), 'Support') AS a, length(user_name('u1'))::bigint AS b",
        )
        .await
        .unwrap();
    }
    assert_eq!(scans.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn functions_take_text_in_every_encoding() {
    let ids = [Some("58228e05d4e96711004eccb7"), None, Some("x")];
    let coded = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let users =
        RecordBatch::try_from_iter([("user_id", texts(&ids)), ("name", texts(&[Some("Ada"), None, Some("Bo")]))]);
    let mut columns: Vec<(String, ArrayRef)> = vec![("n".to_owned(), Arc::new(Int64Array::from(vec![1, 2, 3])))];
    let kinds =
        [("utf8", DataType::Utf8), ("large", DataType::LargeUtf8), ("view", DataType::Utf8View), ("coded", coded)];
    for (name, kind) in &kinds {
        columns.push(((*name).to_owned(), cast(&texts(&ids), kind).unwrap()));
    }
    let tickets = RecordBatch::try_from_iter(columns).unwrap();
    assert_eq!(tickets.column(4).as_dictionary::<Int32Type>().len(), 3);
    let (session, _) = session(&[("users", users.unwrap()), ("tickets", tickets)]);
    for (name, _) in kinds {
        let sql = format!(
            "SELECT (sample_key(7, {name}) * 1e15)::bigint AS k, length(user_name({name}))::bigint AS l,
                    length(tag_names([{name}])[1])::bigint AS t FROM tickets ORDER BY n"
        );
        let key = |id: &str| Some((super::sample::sample_key("7", id) * 1e15) as i64);
        let expected = [key("58228e05d4e96711004eccb7"), None, key("x"), Some(3), None, Some(2), None, None, None];
        assert_eq!(numbers(&session, &sql).await.unwrap(), expected, "{name}");
    }
}
