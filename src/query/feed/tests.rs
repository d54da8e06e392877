//! Feeds over a lake in memory: what is written, what is kept, and what the manifest says.

use std::time::{Duration, SystemTime};

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::clock::ManualClock;
use crate::keys::RootKey;
use crate::lake::StoreSettings;
use crate::query::session::QuerySettings;

/// A value of a row, which no manifest may hold.
const NEEDLE: &str = "needle-in-the-haystack";

/// A lake, a library and a folder of results.
struct Bench {
    folder: TempDir,
    clock: Arc<ManualClock>,
    lake: Lake,
}

impl Bench {
    async fn new(queries: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new("2026-03-02T12:00:00Z".parse().unwrap()));
        let settings = StoreSettings::new("memory:", folder.path());
        let lake = Lake::create(&settings, &RootKey::from_bytes([1; 32]), clock.clone()).await.unwrap();
        fs::create_dir(folder.path().join("queries")).unwrap();
        let bench = Self { folder, clock, lake };
        for (name, sql) in queries {
            bench.query(name, sql);
        }
        bench
    }

    fn query(&self, name: &str, sql: &str) {
        fs::write(self.folder.path().join("queries").join(format!("{name}.sql")), sql).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("out").join(name)
    }

    /// Runs the library over a table of these numbers, an hour after the last time.
    async fn feed(&self, numbers: &[i64], format: Format, is_plaintext: bool) -> Result<FeedReport> {
        self.clock.advance(Duration::from_hours(1));
        let shared: SharedClock = self.clock.clone();
        let columns: [(&str, ArrayRef); 2] = [
            ("n", Arc::new(Int64Array::from(numbers.to_vec()))),
            ("text", Arc::new(StringArray::from(vec![NEEDLE; numbers.len()]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let table: Arc<dyn TableProvider> = Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap());
        let settings = QuerySettings { partitions: 1, ..QuerySettings::default() };
        let session = Session::with_tables(vec![("numbers".to_owned(), table)], &settings, &shared).unwrap();
        let library = Library::load(&self.folder.path().join("queries")).unwrap();
        let destination = Destination::try_new(self.folder.path().join("out"), format, is_plaintext)?;
        let manifest = self.lake.latest().await.unwrap();
        run(&library, &session, (&self.lake, &manifest), &destination, &shared).await
    }

    /// Names in the folder of results, without the lock.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path().join("out")).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != LOCK);
        names.sort();
        names
    }
}

fn outcomes(report: &FeedReport) -> Vec<(&str, &str)> {
    report.record.results.iter().map(|entry| (entry.name.as_str(), entry.outcome.name())).collect()
}

fn entry<'a>(report: &'a FeedReport, name: &str) -> &'a Entry {
    report.record.results.iter().find(|entry| entry.name == name).unwrap()
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

const ALL: (&str, &str) = ("all", "SELECT n, text FROM numbers ORDER BY n");
const SUM: (&str, &str) = ("sum", "-- param least: int = 0\nSELECT sum(n) AS total FROM numbers WHERE n >= $least");

#[tokio::test]
async fn unchanged_rows_are_not_written_again_and_changed_ones_are() {
    for (format, is_plaintext) in [(Format::Csv, false), (Format::Parquet, true), (Format::Parquet, false)] {
        let bench = Bench::new(&[ALL, SUM]).await;
        let first = bench.feed(&[1, 2, 3], format, is_plaintext).await.unwrap();
        assert_eq!(outcomes(&first), [("all", "written"), ("sum", "written")]);
        assert!(first.error().is_none());
        let (all, sum) = (bench.path(&format!("all.{format}")), bench.path(&format!("sum.{format}")));
        assert_eq!(bench.names(), [&format!("all.{format}"), "manifest.json", &format!("sum.{format}")]);
        let before = (modified(&all), fs::read(&all).unwrap());

        let second = bench.feed(&[3, 2, 1], format, is_plaintext).await.unwrap();
        assert_eq!(outcomes(&second), [("all", "unchanged"), ("sum", "unchanged")], "{format}");
        assert_eq!((modified(&all), fs::read(&all).unwrap()), before);
        let (old, new) = (entry(&first, "all").file.clone().unwrap(), entry(&second, "all").file.clone().unwrap());
        assert_eq!((&new.written_at, new.rows, new.bytes), (&old.written_at, 3, old.bytes));
        assert_ne!(new.now, old.now, "the manifest says that the rows were looked at again");

        // Other rows of the same sum, and a file that somebody else wrote.
        fs::write(&sum, "other").unwrap();
        let third = bench.feed(&[1, 5], format, is_plaintext).await.unwrap();
        assert_eq!(outcomes(&third), [("all", "written"), ("sum", "written")], "{format}");
        assert_ne!(fs::read(&all).unwrap(), before.1);
        assert_eq!(entry(&third, "all").file.as_ref().unwrap().rows, 2);
    }
}

#[tokio::test]
async fn manifest_says_what_lies_there_and_no_value_of_a_row() {
    let bench = Bench::new(&[ALL, SUM]).await;
    let report = bench.feed(&[41], Format::Parquet, false).await.unwrap();
    let text = fs::read_to_string(bench.path(MANIFEST)).unwrap();
    assert!(!text.contains(NEEDLE));
    let read = Record::read(&bench.folder.path().join("out")).unwrap().unwrap();
    assert_eq!(read.results, report.record.results);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["counterfoil_feed"], &json["format"]), (&1.into(), &"parquet".into()));
    assert_eq!(json["lake"], bench.lake.id());
    let file = &json["results"][1]["file"];
    assert_eq!((&file["path"], &file["rows"], &file["keys"][0]), (&"sum.parquet".into(), &1.into(), &"ring-1".into()));
    assert_eq!(file["parameters"], serde_json::json!([{ "name": "least", "type": "int", "default": "0" }]));
    let stored = fs::read(bench.path("sum.parquet")).unwrap();
    assert_eq!(file["bytes"], stored.len());
    assert_eq!(file["sha256"], hex(ring::digest::digest(&SHA256, &stored).as_ref()));
    assert!(stored.ends_with(b"PARE"), "encrypted unless plain text is asked for");

    // A sum that one can guess is not found by its digest: that is keyed by the ring.
    let other = Bench::new(&[SUM]).await;
    let elsewhere = other.feed(&[41], Format::Parquet, false).await.unwrap();
    let digest = |report: &FeedReport| entry(report, "sum").file.as_ref().unwrap().rows_digest.clone();
    assert_eq!(digest(&report).len(), 64);
    assert_ne!(digest(&report), digest(&elsewhere));
}

#[tokio::test]
async fn failing_query_keeps_its_older_result_and_the_others_are_written() {
    let bench = Bench::new(&[ALL, SUM]).await;
    bench.feed(&[1, 2], Format::Csv, false).await.unwrap();
    bench.query("all", "SELECT 1 / (n - 2) AS n FROM numbers");
    bench.query("broken", "-- nmae: x\nSELECT 1");
    bench.query("aged", "-- max_age: 1h\nSELECT n FROM numbers");
    bench.query("asks", "-- param day: date\nSELECT $day AS day");
    let report = bench.feed(&[1, 2, 3], Format::Csv, false).await.unwrap();
    let expected =
        [("aged", "failed"), ("all", "failed"), ("asks", "skipped"), ("sum", "written"), ("broken", "failed")];
    assert_eq!(outcomes(&report), expected);
    assert_eq!(fs::read_to_string(bench.path("all.csv")).unwrap().lines().count(), 3, "the older result");
    assert_eq!(fs::read_to_string(bench.path("sum.csv")).unwrap(), "total\n6\n");
    let failed = entry(&report, "all");
    assert_eq!(failed.error, Some(Failure { kind: "query".to_owned(), exit_code: 6 }));
    assert_eq!(failed.file.as_ref().unwrap().rows, 2);
    assert_eq!(entry(&report, "aged").error.as_ref().unwrap().exit_code, 8);
    assert_eq!(
        (entry(&report, "asks").needs.as_slice(), &entry(&report, "broken").file),
        (&["day".to_owned()][..], &None)
    );
    let error = report.error().unwrap();
    assert_eq!(error.kind(), ErrorKind::Query, "6 comes before 8");
    assert_eq!(error.message(), "3 of 5 queries of the library failed");
    assert_eq!(bench.names(), ["all.csv", "manifest.json", "sum.csv"], "no temporary file");

    // What is mended is written; what left the library is named and kept, also where it failed before.
    bench.query("all", ALL.1);
    for gone in ["broken", "aged", "asks", "sum"] {
        fs::remove_file(bench.folder.path().join("queries").join(format!("{gone}.sql"))).unwrap();
    }
    let report = bench.feed(&[1, 2, 3], Format::Csv, false).await.unwrap();
    assert_eq!(outcomes(&report), [("all", "written"), ("sum", "orphaned")]);
    assert!(report.error().is_none());
    let again = bench.feed(&[1, 2, 3], Format::Csv, false).await.unwrap();
    assert_eq!(outcomes(&again), [("all", "unchanged"), ("sum", "orphaned")]);
    fs::remove_file(bench.path("sum.csv")).unwrap();
    assert_eq!(outcomes(&bench.feed(&[1], Format::Csv, false).await.unwrap()), [("all", "written")]);
}

#[tokio::test]
async fn names_that_would_be_one_file_are_refused() {
    let bench =
        Bench::new(&[("Same", "SELECT 1 AS n"), ("same", "SELECT 2 AS n"), ("manifest", "SELECT 3 AS n")]).await;
    let report = bench.feed(&[], Format::Json, false).await.unwrap();
    assert_eq!(outcomes(&report), [("Same", "written"), ("manifest", "failed"), ("same", "failed")]);
    assert!(Record::read(&bench.folder.path().join("out")).unwrap().is_some(), "the manifest is no result");
    bench.query("other", "-- name: same\nSELECT 4 AS n");
    let report = bench.feed(&[], Format::Csv, false).await.unwrap();
    // A file that claims the name of another is called by its own.
    assert!(outcomes(&report).contains(&("same", "failed")), "{:?}", outcomes(&report));
    assert_eq!(fs::read_to_string(bench.path("Same.csv")).unwrap(), "n\n1\n");
}

#[tokio::test]
async fn second_feed_at_the_same_time_changes_nothing_and_what_a_killed_one_left_goes() {
    let bench = Bench::new(&[SUM]).await;
    bench.feed(&[1], Format::Csv, false).await.unwrap();
    let before = fs::read(bench.path(MANIFEST)).unwrap();
    let lock = File::options().append(true).open(bench.path(LOCK)).unwrap();
    lock.try_lock().unwrap();
    let leftover = bench.path(&format!("{PREFIX}x"));
    fs::write(&leftover, "half").unwrap();
    let error = bench.feed(&[2], Format::Csv, false).await.unwrap_err();
    assert_eq!((error.kind(), error.kind().exit_code()), (ErrorKind::Conflict, 9));
    assert_eq!(fs::read(bench.path(MANIFEST)).unwrap(), before);
    assert!(leftover.exists(), "it may be the other's");
    drop(lock);
    bench.feed(&[2], Format::Csv, false).await.unwrap();
    assert!(!leftover.exists());
}

#[tokio::test]
async fn folder_with_something_else_in_its_manifest_is_left_alone() {
    let bench = Bench::new(&[SUM]).await;
    fs::create_dir(bench.folder.path().join("out")).unwrap();
    for (text, words) in [
        ("{\"name\": \"a web page\"}", "no manifest of a feed"),
        ("not JSON", "no manifest of a feed"),
        ("{\"counterfoil_feed\": 2}", "does not know"),
        ("{\"counterfoil_feed\": 1}", "damaged"),
    ] {
        fs::write(bench.path(MANIFEST), text).unwrap();
        let error = bench.feed(&[1], Format::Csv, false).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{text}");
        assert!(error.message().contains(words) && error.hint().is_some(), "{error}");
        assert_eq!(fs::read_to_string(bench.path(MANIFEST)).unwrap(), text);
        assert!(!bench.path("sum.csv").exists());
    }
    fs::remove_file(bench.path(MANIFEST)).unwrap();
    bench.feed(&[1], Format::Csv, false).await.unwrap();
    // A manifest that names files outside its folder does not reach them.
    let text = fs::read_to_string(bench.path(MANIFEST)).unwrap().replace("sum.csv", "../queries/sum.sql");
    fs::write(bench.path(MANIFEST), text).unwrap();
    let report = bench.feed(&[1], Format::Csv, false).await.unwrap();
    assert_eq!(outcomes(&report), [("sum", "written")]);

    let missing = bench.folder.path().join("no/such");
    for (folder, format, is_plaintext, words) in [
        (missing, Format::Csv, false, "cannot be used"),
        (bench.path("sum.csv"), Format::Csv, false, "cannot be used"),
        (bench.path("x"), Format::Table, false, "does not write table"),
        (bench.path("x"), Format::Csv, true, "--plaintext belongs to parquet"),
    ] {
        let made = Destination::try_new(folder, format, is_plaintext).and_then(|destination| destination.open());
        let error = made.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{words}");
        assert!(error.message().contains(words) && error.hint().is_some(), "{error:?}");
    }
}

#[tokio::test]
async fn encrypted_results_are_written_anew_under_a_new_ring_key() {
    let bench = Bench::new(&[SUM]).await;
    let first = bench.feed(&[1], Format::Parquet, false).await.unwrap();
    assert_eq!(entry(&first, "sum").file.as_ref().unwrap().keys, ["ring-1"]);
    let text = fs::read_to_string(bench.path(MANIFEST)).unwrap().replace("ring-1", "ring-0");
    fs::write(bench.path(MANIFEST), text).unwrap();
    let second = bench.feed(&[1], Format::Parquet, false).await.unwrap();
    assert_eq!(outcomes(&second), [("sum", "written")]);
    // The other way round: what was encrypted is written in the clear when that is asked for, and back.
    for is_plaintext in [true, false] {
        let report = bench.feed(&[1], Format::Parquet, is_plaintext).await.unwrap();
        assert_eq!(outcomes(&report), [("sum", "written")]);
        let magic: &[u8] = if is_plaintext { b"PAR1" } else { b"PARE" };
        assert!(fs::read(bench.path("sum.parquet")).unwrap().ends_with(magic));
    }
}

/// Digests rows of one text and one number in batches that are cut at these places.
fn digested(rows: &[(Option<String>, i64)], cuts: &[usize], is_ordered: bool) -> [u8; 32] {
    let texts: StringArray = rows.iter().map(|(text, _)| text.clone()).collect();
    let numbers: Int64Array = rows.iter().map(|(_, number)| Some(*number)).collect();
    let columns: [(&str, ArrayRef); 2] = [("text", Arc::new(texts)), ("n", Arc::new(numbers))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let digest = RowsDigest::new(&batch.schema(), is_ordered);
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (rows.len() + 1)).chain([0, rows.len()]).collect();
    cuts.sort_unstable();
    for part in cuts.windows(2) {
        digest.take(&batch.slice(part[0], part[1] - part[0])).unwrap();
    }
    digest.finish().unwrap()
}

proptest! {
    #[test]
    fn digest_follows_the_rows_and_not_how_they_come(
        rows in prop::collection::vec((prop::option::of("[ab]{0,2}"), -2_i64..3), 1..30),
        cuts in prop::collection::vec(0_usize..30, 0..5),
        turn in 0_usize..30,
        changed in 0_usize..30,
    ) {
        for is_ordered in [false, true] {
            let whole = digested(&rows, &[], is_ordered);
            prop_assert_eq!(digested(&rows, &cuts, is_ordered), whole);
            let mut turned = rows.clone();
            turned.rotate_left(turn % rows.len());
            prop_assert_eq!(digested(&turned, &[], is_ordered) == whole, !is_ordered || turned == rows);
            let mut other = rows.clone();
            other[changed % rows.len()].1 += 7;
            prop_assert_ne!(digested(&other, &cuts, is_ordered), whole);
            let longer: Vec<_> = rows.iter().cloned().chain([(None, 0)]).collect();
            prop_assert_ne!(digested(&longer, &cuts, is_ordered), whole);
        }
        prop_assert_ne!(digested(&rows, &[], false), digested(&rows[1..], &[], false));
    }
}
