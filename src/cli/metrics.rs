//! The figures of the last extract and of the lake, for the textfile collector of a Prometheus node exporter.
//!
//! The file is written whole beside its place and renamed, after every extract: complete, incomplete, failed, refused. The
//! collector reads files named `*.prom`. All figures are gauges, because each run writes its own; nothing here counts up
//! over runs. The text is the [exposition format](https://prometheus.io/docs/instrumenting/exposition_formats/), 0.0.4.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use jiff::Timestamp;
use tempfile::{Builder, NamedTempFile};

use crate::error::{Error, Result};
use crate::extract::price::{Bucket, Rates};
use crate::lake::manifest::Manifest;
use crate::lake::run::{RunRecord, StreamRun};

/// How runs end, as run records name it.
const OUTCOMES: [&str; 3] = ["complete", "incomplete", "failed"];

/// What is known of an extract when it has ended.
#[derive(Debug)]
pub(super) struct Figures<'a> {
    pub(super) started: Timestamp,
    pub(super) ended: Timestamp,
    pub(super) exit_code: u8,
    /// Absent when the run got nothing.
    pub(super) run: Option<&'a RunRecord>,
    /// Absent when the settings could not be read.
    pub(super) rates: Option<Rates>,
    /// Absent when the lake could not be read.
    pub(super) manifest: Option<&'a Manifest>,
}

/// Tells before a run whether its figures can be written after it.
pub(super) fn check(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(Error::config("metrics file is a folder")
            .with_context("file", path.display())
            .with_hint("name a file in it, such as counterfoil.prom"));
    }
    // Made and removed again: a run that is killed leaves nothing behind.
    beside(path).map(drop)
}

/// Writes the figures to a file that other users may read: the exporter is one of them.
pub(super) fn write(path: &Path, figures: &Figures<'_>) -> Result<()> {
    let mut file = beside(path)?;
    file.write_all(text(figures).as_bytes()).map_err(|source| failed(path, source))?;
    file.persist(path).map_err(|error| failed(path, error.error))?;
    Ok(())
}

fn beside(path: &Path) -> Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let mut builder = Builder::new();
    builder.prefix(".counterfoil-").suffix(".tmp");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    builder.tempfile_in(folder).map_err(|source| failed(path, source))
}

fn failed(path: &Path, source: std::io::Error) -> Error {
    Error::config("failed to write the metrics file").with_context("file", path.display()).with_source(source)
}

/// Collects families of samples; each begins with its HELP and TYPE lines.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP counterfoil_{name} {help}\n# TYPE counterfoil_{name} gauge");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let _ = write!(self.0, "counterfoil_{name}");
        for (index, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"{}\"", if index == 0 { '{' } else { ',' }, escaped(text));
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn single(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, help);
        self.sample(name, &[], value);
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

fn text(figures: &Figures<'_>) -> String {
    let mut text = Text(String::new());
    let started = figures.started.as_millisecond();
    let ended = figures.ended.as_millisecond();
    let outcome = figures.run.map_or("failed", |run| run.outcome.as_str());
    text.family("run_outcome", "How the last extract ended: 1 for its outcome, 0 for the others.");
    for known in OUTCOMES {
        text.sample("run_outcome", &[("outcome", known)], f64::from(u8::from(known == outcome)));
    }
    let code = f64::from(figures.exit_code);
    text.single("run_exit_code", "Exit code of the last extract.", code);
    text.single("run_start_timestamp_seconds", "When the last extract began.", seconds(started));
    text.single("run_end_timestamp_seconds", "When the last extract ended.", seconds(ended));
    text.single("run_duration_seconds", "How long the last extract took.", seconds(ended - started));
    if let Some(run) = figures.run {
        run_figures(&mut text, run);
    }
    if let Some(rates) = figures.rates {
        budget(&mut text, &rates);
    }
    if let Some(manifest) = figures.manifest {
        lake(&mut text, manifest);
    }
    text.0
}

/// A count of a stream's run.
type Count = fn(&StreamRun) -> u64;

fn run_figures(text: &mut Text, run: &RunRecord) {
    text.family("run_records", "Records of the last extract by stream and by what became of them.");
    let kinds: [(&str, Count); 9] = [
        ("expected", |stream| stream.expected),
        ("received", |stream| stream.received),
        ("distinct", |stream| stream.distinct),
        ("inserted", |stream| stream.inserted),
        ("updated", |stream| stream.updated),
        ("unchanged", |stream| stream.unchanged),
        ("deleted", |stream| stream.deleted),
        ("promised", |stream| stream.promised),
        ("rejected", |stream| stream.rejected),
    ];
    for stream in &run.streams {
        for (kind, count) in kinds {
            text.sample("run_records", &[("stream", &stream.stream), ("kind", kind)], count(stream) as f64);
        }
    }
    text.family("run_stream_complete", "Whether the last extract proved the stream complete.");
    for stream in &run.streams {
        text.sample("run_stream_complete", &[("stream", &stream.stream)], f64::from(u8::from(stream.complete)));
    }
    text.family("run_quarantined_fields", "Fields seen by the last extract and not stored as declared.");
    for stream in &run.streams {
        text.sample("run_quarantined_fields", &[("stream", &stream.stream)], stream.quarantined as f64);
    }
    for (name, label, help, counts) in [
        ("run_requests", "endpoint", "Requests of the last extract.", &run.requests),
        ("run_planned_requests", "endpoint", "Requests that the last extract expected to need.", &run.planned),
        ("run_failed_requests", "cause", "Requests of the last extract that gave nothing.", &run.failed),
        ("run_received_bytes", "endpoint", "Bodies that the last extract received.", &run.received_bytes),
    ] {
        text.family(name, help);
        for (named, count) in counts {
            text.sample(name, &[(label, named)], *count as f64);
        }
    }
    text.family("run_waited_seconds", "Time that requests of the last extract waited, by reason.");
    for (reason, wait_ms) in &run.waits_ms {
        text.sample("run_waited_seconds", &[("reason", reason)], *wait_ms as f64 / 1_000.0);
    }
}

fn budget(text: &mut Text, rates: &Rates) {
    text.single("budget_share_ratio", "Our part of the rate limits.", rates.share);
    let buckets = [(Bucket::Organisation, rates.org_rpm), (Bucket::Search, rates.search_rpm)];
    text.family(
        "budget_limit_requests_per_minute",
        "Rate limits of the source: as configured, unless it named others.",
    );
    for (bucket, limit) in buckets {
        text.sample("budget_limit_requests_per_minute", &[("bucket", bucket.name())], f64::from(limit));
    }
    text.family("budget_allowed_requests_per_minute", "What our share of the rate limits allows.");
    for (bucket, _) in buckets {
        let allowed = f64::from(rates.allowed(bucket));
        text.sample("budget_allowed_requests_per_minute", &[("bucket", bucket.name())], allowed);
    }
}

fn lake(text: &mut Text, manifest: &Manifest) {
    text.single("lake_version", "Newest version of the lake.", manifest.version as f64);
    text.family("lake_size_bytes", "Size of the data files by table.");
    for (stream, table) in &manifest.tables {
        let bytes: u64 = table.files.iter().map(|file| file.bytes).sum();
        text.sample("lake_size_bytes", &[("table", stream.table())], bytes as f64);
    }
    text.family("lake_live_rows", "Rows that are neither superseded nor tombstones, by table.");
    for (stream, table) in &manifest.tables {
        let rows: u64 = table.files.iter().map(|file| file.live_rows()).sum();
        text.sample("lake_live_rows", &[("table", stream.table())], rows as f64);
    }
    text.family("watermark_timestamp_seconds", "Time through which the stream is complete in the lake.");
    for (stream, watermark) in &manifest.watermarks {
        if let Some(through_ms) = watermark.complete_through_ms {
            text.sample("watermark_timestamp_seconds", &[("stream", stream.table())], seconds(through_ms));
        }
    }
    if let Some(ended_ms) =
        manifest.runs.iter().rev().find(|run| run.outcome == "complete").and_then(|run| run.ended_ms)
    {
        let help = "When the last complete extract ended.";
        text.single("last_complete_run_timestamp_seconds", help, seconds(ended_ms));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use super::*;
    use crate::lake::manifest::Watermark;
    use crate::model::Stream;

    type Samples = BTreeMap<String, BTreeMap<BTreeMap<String, String>, f64>>;

    fn is_name(text: &str) -> bool {
        text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    }

    /// Reads `label="value",…}`, with escapes, and returns what follows.
    fn labels(mut rest: &str) -> (BTreeMap<String, String>, &str) {
        let mut found = BTreeMap::new();
        loop {
            let (name, after) = rest.split_once("=\"").expect("a label has a value");
            assert!(is_name(name), "{name}");
            let mut value = String::new();
            let mut chars = after.char_indices();
            let end = loop {
                match chars.next().expect("a label's value ends") {
                    (at, '"') => break at + 1,
                    (_, '\\') => match chars.next().expect("an escape has two characters").1 {
                        'n' => value.push('\n'),
                        c @ ('\\' | '"') => value.push(c),
                        c => panic!("unknown escape {c}"),
                    },
                    (_, c) => value.push(c),
                }
            };
            assert!(found.insert(name.to_owned(), value).is_none(), "label {name} stands twice");
            match after.as_bytes()[end] {
                b',' => rest = &after[end + 1..],
                b'}' => return (found, &after[end + 1..]),
                c => panic!("{} after a label", c as char),
            }
        }
    }

    /// Reads the exposition format and panics on whatever a collector could stumble over.
    pub(super) fn parse(text: &str) -> Samples {
        assert!(text.ends_with('\n'), "the last line ends");
        let mut samples = Samples::new();
        let mut closed = BTreeSet::new();
        let (mut helped, mut typed) = (None::<String>, None::<String>);
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a family has a help");
                assert!(is_name(name) && !help.trim().is_empty() && !help.contains('\\'), "{line}");
                assert!(closed.insert(name.to_owned()), "{name} begins twice");
                helped = Some(name.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a family has a type");
                assert_eq!(helped.as_deref(), Some(name), "HELP comes before TYPE");
                assert_eq!(kind, "gauge");
                assert!(!name.ends_with("_total") && !name.ends_with("_count"), "{name} is no counter");
                typed = Some(name.to_owned());
            } else {
                let end = line.find(['{', ' ']).expect("a sample has a value");
                let name = &line[..end];
                assert_eq!(typed.as_deref(), Some(name), "a sample stands in its family");
                let (labels, rest) = match line[end..].strip_prefix('{') {
                    Some(rest) => labels(rest),
                    None => (BTreeMap::new(), &line[end..]),
                };
                let value = rest.strip_prefix(' ').expect("one space before the value").parse::<f64>().unwrap();
                assert!(value.is_finite());
                let family = samples.entry(name.to_owned()).or_default();
                assert!(family.insert(labels, value).is_none(), "{line} stands twice");
            }
        }
        samples
    }

    fn at(samples: &Samples, name: &str, wanted: &[(&str, &str)]) -> Option<f64> {
        let wanted = wanted.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
        samples.get(&format!("counterfoil_{name}"))?.get(&wanted).copied()
    }

    fn time(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    #[test]
    fn figures_of_a_run_are_read_back_from_the_exposition_format() {
        let stream = StreamRun {
            stream: "tickets".to_owned(),
            expected: 1_204,
            distinct: 1_204,
            inserted: 4,
            complete: true,
            ..StreamRun::default()
        };
        let run = RunRecord {
            outcome: "incomplete".to_owned(),
            ended_ms: Some(1_800_000_062_500),
            streams: vec![stream],
            requests: [("search".to_owned(), 12), ("users".to_owned(), 1)].into(),
            planned: [("search".to_owned(), 11)].into(),
            waits_ms: [("search budget".to_owned(), 30_500)].into(),
            failed: [("429".to_owned(), 2)].into(),
            received_bytes: [("search".to_owned(), 4_096)].into(),
            ..RunRecord::default()
        };
        let watermark = Watermark { complete_through_ms: Some(1_799_999_000_000), ..Watermark::default() };
        let manifest = Manifest {
            version: 7,
            watermarks: [(Stream::Tickets, watermark)].into(),
            runs: vec![Arc::new(RunRecord { outcome: "complete".to_owned(), ..run.clone() })],
            ..Manifest::default()
        };
        let text = text(&Figures {
            started: time(1_800_000_000_000),
            ended: time(1_800_000_062_500),
            exit_code: 7,
            run: Some(&run),
            rates: Some(Rates::new(1_000, 100, 0.5)),
            manifest: Some(&manifest),
        });
        let samples = parse(&text);
        for (name, labels, value) in [
            ("run_outcome", &[("outcome", "incomplete")][..], 1.0),
            ("run_outcome", &[("outcome", "complete")], 0.0),
            ("run_exit_code", &[], 7.0),
            ("run_duration_seconds", &[], 62.5),
            ("run_start_timestamp_seconds", &[], 1_800_000_000.0),
            ("run_records", &[("stream", "tickets"), ("kind", "inserted")], 4.0),
            ("run_stream_complete", &[("stream", "tickets")], 1.0),
            ("run_requests", &[("endpoint", "search")], 12.0),
            ("run_planned_requests", &[("endpoint", "search")], 11.0),
            ("run_waited_seconds", &[("reason", "search budget")], 30.5),
            ("run_failed_requests", &[("cause", "429")], 2.0),
            ("run_received_bytes", &[("endpoint", "search")], 4_096.0),
            ("run_records", &[("stream", "tickets"), ("kind", "rejected")], 0.0),
            ("watermark_timestamp_seconds", &[("stream", "tickets")], 1_799_999_000.0),
            ("lake_version", &[], 7.0),
            ("budget_allowed_requests_per_minute", &[("bucket", "search")], 50.0),
            ("last_complete_run_timestamp_seconds", &[], 1_800_000_062.5),
        ] {
            assert_eq!(at(&samples, name, labels), Some(value), "{name} {labels:?} in\n{text}");
        }
    }

    #[test]
    fn run_that_got_nothing_still_has_its_outcome() {
        let figures =
            Figures { started: time(0), ended: time(1_000), exit_code: 4, run: None, rates: None, manifest: None };
        let samples = parse(&text(&figures));
        assert_eq!(at(&samples, "run_outcome", &[("outcome", "failed")]), Some(1.0));
        assert_eq!(at(&samples, "run_exit_code", &[]), Some(4.0));
    }

    #[test]
    fn values_of_labels_are_escaped() {
        let mut text = Text(String::new());
        text.family("a", "b");
        text.sample("a", &[("x", "quote \" backslash \\ line\nend")], 1.0);
        let samples = parse(&text.0);
        assert_eq!(at(&samples, "a", &[("x", "quote \" backslash \\ line\nend")]), Some(1.0));
    }

    #[test]
    fn place_that_cannot_be_written_is_told_before() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check(&folder.path().join("nowhere/counterfoil.prom")).is_err());
        assert!(check(folder.path()).is_err(), "a folder");
        check(&folder.path().join("counterfoil.prom")).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a check leaves nothing");
    }
}
