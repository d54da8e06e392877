//! What is taken of a result, and values that come back as they were written down.

use proptest::prelude::*;

use super::*;
use crate::clock::{ManualClock, SharedClock};
use crate::error::ErrorKind;
use crate::query::session::{QuerySettings, Session};
use crate::query::sink::{self, Format, Layout};

fn session() -> Session {
    let clock: SharedClock = Arc::new(ManualClock::new("2026-03-02T12:00:00.123456789Z".parse().unwrap()));
    let settings = QuerySettings { partitions: 1, batch_rows: 2, ..QuerySettings::default() };
    Session::with_tables(Vec::new(), &settings, &clock).unwrap()
}

fn id(number: u32) -> String {
    format!("{number:024x}")
}

/// Runs a query into a sink and records it.
async fn taken(sql: &str, format: Format, layout: &Layout) -> Result<(String, Taken)> {
    let session = session();
    let file = QueryFile::inline(sql)?;
    let plan = session.plan(&file, &Arguments::default()).await?;
    Recorder::check(&plan, &file.path)?;
    let (recorder, rows) = Recorder::new(session.stream(&plan).await?);
    let mut out = Vec::new();
    sink::write(rows, format, layout, &mut out).await?;
    Ok((String::from_utf8(out).unwrap(), recorder.finish().await?))
}

fn values(ids: &[String]) -> String {
    let rows: Vec<String> = ids.iter().map(|id| format!("('{id}')")).collect();
    format!("SELECT ticket_id FROM (VALUES {}) AS t (ticket_id)", rows.join(", "))
}

#[tokio::test]
async fn each_ticket_is_taken_once_in_the_order_of_the_result() {
    let ids = [9, 3, 9, 5, 3, 1].map(id);
    let (text, taken) = taken(&values(&ids), Format::Ids, &Layout::default()).await.unwrap();
    assert_eq!(text, ids.map(|id| id + "\n").concat(), "the result itself stays as it is");
    assert_eq!(taken.ids.iter().map(ToString::to_string).collect::<Vec<_>>(), [9, 3, 5, 1].map(id));
    assert_eq!(taken.repeated, 2);
}

#[tokio::test]
async fn rows_that_a_table_cuts_are_taken_all_the_same() {
    let ids: Vec<String> = (1..20).map(id).collect();
    let layout = Layout { max_rows: 3, ..Layout::default() };
    let (_, taken) = taken(&values(&ids), Format::Table, &layout).await.unwrap();
    assert_eq!(taken.ids.len(), 19);
}

#[tokio::test]
async fn results_that_are_no_ticket_list_are_refused_without_their_values() {
    for (sql, message) in [
        ("SELECT 1 AS n, 'x' AS ticket_id", "by `ticket_id` as its first column; the columns are n, ticket_id"),
        ("SELECT 'ada@example.com' AS ticket_id", "`ticket_id` is not a ticket's id in row 1"),
        ("SELECT CAST(NULL AS varchar) AS ticket_id", "`ticket_id` is NULL in row 1"),
        ("SELECT 7 AS ticket_id", "`ticket_id` is not a text in row 1"),
        (
            "SELECT '58228e05d4e96711004eccb7' AS ticket_id UNION ALL SELECT 'a@b.c' ORDER BY 1",
            "`ticket_id` is not a ticket's id in row 2",
        ),
    ] {
        let error = taken(sql, Format::Csv, &Layout::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Query, "{sql}");
        assert!(error.message().contains(message), "{sql}: {error}");
        assert!(!error.to_string().contains('@'), "{error}");
        assert!(error.hint().unwrap().contains("--record"));
    }
}

#[tokio::test]
async fn texts_of_every_form_are_taken() {
    for form in ["Utf8View", "LargeUtf8", "Dictionary(Int32, Utf8)"] {
        let sql = format!("SELECT arrow_cast('{}', '{form}') AS ticket_id", id(7));
        assert_eq!(taken(&sql, Format::Ids, &Layout::default()).await.unwrap().1.ids.len(), 1, "{form}");
    }
}

/// A file with a parameter of each type.
fn file() -> QueryFile {
    let params = ParameterType::ALL.iter().enumerate().map(|(number, kind)| format!("-- param p{number}: {kind}\n"));
    QueryFile::parse("q.sql", &format!("{}SELECT 1", params.collect::<String>())).unwrap()
}

/// Writes values down, as the log does, and reads them back.
fn replayed(given: &[(String, String)]) -> (Arguments, Arguments) {
    let file = file();
    let arguments = Arguments::parse(&file, given).unwrap();
    let bound = session().bound(&file, &arguments).unwrap();
    let parameters = recorded(&bound).unwrap();
    let recording = Recording { sql: file.sql.clone(), parameters, ..Recording::default() };
    let recording: Recording = serde_json::from_str(&serde_json::to_string(&recording).unwrap()).unwrap();
    (arguments, replay(&recording).unwrap().1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn values_are_the_same_after_they_were_written_down(
        text in ".*",
        int in any::<i64>(),
        double in prop::num::f64::NORMAL | prop::num::f64::ZERO | prop::num::f64::SUBNORMAL,
        flag in any::<bool>(),
        day in 0_i64..40_000,
        ms in 0_i64..4_000_000_000_000,
        months in 0_u32..500,
        days in 0_u32..500,
        seconds in 0_u32..100_000,
        texts in prop::collection::vec(".*", 0..4),
        ints in prop::collection::vec(any::<i64>(), 0..4),
    ) {
        let day = jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().days(day)).unwrap();
        let time = jiff::Timestamp::from_millisecond(ms).unwrap();
        let given = ParameterType::ALL.map(|kind| match kind.name() {
            "text" => text.clone(),
            "int" => int.to_string(),
            "double" => format!("{double:e}"),
            "bool" => flag.to_string(),
            "date" => day.to_string(),
            "timestamp" => time.to_string(),
            "interval" => format!("{months} months {days} days {seconds} seconds"),
            "text[]" => serde_json::to_string(&texts).unwrap(),
            "int[]" => serde_json::to_string(&ints).unwrap(),
            _ => kind.example().to_owned(),
        });
        let given: Vec<(String, String)> =
            given.into_iter().enumerate().map(|(number, text)| (format!("p{number}"), text)).collect();
        let (bound, again) = replayed(&given);
        prop_assert_eq!(again, bound);
    }
}

#[test]
fn defaults_are_written_down_as_they_were_evaluated() {
    let sql = "-- param since: timestamp = now() - interval '1 day'\n-- param n: int = 2\n-- param l: text[] = ['a']\nSELECT 1";
    let file = QueryFile::parse("q.sql", sql).unwrap();
    let bound = session().bound(&file, &Arguments::default()).unwrap();
    let recording = Recording { parameters: recorded(&bound).unwrap(), ..Recording::default() };
    assert_eq!(recording.parameters_json(), r#"{"l":["a"],"n":2,"since":"2026-03-01T12:00:00.123Z"}"#);
}
