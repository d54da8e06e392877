//! Whatever the policy says and whatever a record holds: nothing that is forbidden leaves the decoder, in any form.
//!
//! The policies and the records are those of `planted.rs`. The first test looks at every byte of record batches, reports and
//! errors of many policies; the others run whole extracts through a relay that plants values in the sandbox's records, and
//! look at every file, table, log line and report.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "functions of tests, which clippy.toml exempts only where they carry #[test]"
)]

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, ArrayData};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use counterfoil::extract::ExtractSettings;
use counterfoil::lake::Lake;
use counterfoil::model::Stream;
use counterfoil::policy::{Decoder, Definitions, Policy};
use counterfoil::sandbox::SandboxSettings;
use counterfoil::schema::Schemas;
use counterfoil::secret::{PseudonymKey, PseudonymKeys, SecretKey};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::commands::Bench;
use crate::planted::{Dice, Key, Rules, Search};
use crate::world::{World, rows};

const STREAMS: [Stream; 2] = [Stream::Tickets, Stream::Customers];

fn decoder(rules: &Rules) -> Decoder {
    let file = format!("{}.toml", rules.stream());
    let policy = Policy::compile(&Schemas::from_files([(file.as_str(), rules.text.as_str())]).unwrap())
        .unwrap_or_else(|error| panic!("{error}\n{}", rules.text));
    let mut definitions = Definitions::default();
    definitions.add(rules.stream(), &Rules::definitions()).unwrap();
    let key = PseudonymKey { version: 1, key: SecretKey::new([7; 32]) };
    let keys = PseudonymKeys::try_new([Arc::new(key)]).unwrap();
    policy.decoder(rules.stream(), &definitions, &keys).unwrap()
}

fn page(rules: &Rules, count: u8, dice: &mut Dice, kept: &mut Vec<String>) -> String {
    let records: Vec<String> = (0..count)
        .map(|number| {
            let key = Key {
                id: format!("{:08x}{number:016x}", 0x5822_0000_u32),
                updated_at: "2026-01-02T03:04:05.006Z".to_owned(),
                rev: number.to_string(),
                deleted: dice.one_in(2),
            };
            rules.record(&key, dice, kept)
        })
        .collect();
    around(&records.join(","), &format!(r#""total":{count},"timed_out":false"#))
}

/// Puts marks where a page has room for more than its records.
fn around(records: &str, meta: &str) -> String {
    format!(
        r#"{{"qjxvkw":"QJXVKW","meta":{{{meta},"query":"QJXVKW","aggregations":{{"QJXVKW":7319468}}}},
        "links":{{"self":"/v1/x?email=qjxvkw@example.com","first":null,"next":null}},"data":[{records}],
        "included":[{{"type":"customer","id":"QJXVKW","attributes":{{"name":"鰐鱻龘"}}}}]}}"#
    )
}

/// Every byte that an array holds, those behind its end too.
fn bytes_of(array: &ArrayData, out: &mut Vec<u8>) {
    for buffer in array.buffers() {
        out.extend_from_slice(buffer.as_slice());
    }
    for child in array.child_data() {
        bytes_of(child, out);
    }
}

fn shown(batch: &RecordBatch, out: &mut String) {
    for column in batch.columns() {
        for row in 0..batch.num_rows() {
            let _ = writeln!(out, "{}", array_value_to_string(column, row).unwrap());
        }
    }
}

#[test]
fn nothing_forbidden_leaves_the_decoder() {
    let search = Search::new();
    let cases: u64 =
        std::env::var("COUNTERFOIL_REDACTION_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(250);
    let (mut stored, mut refused) = (0, 0);
    for seed in 0..cases {
        let mut dice = Dice(seed);
        let rules = Rules::random(STREAMS[dice.below(2)], &mut dice);
        let mut kept = Vec::new();
        let text = page(&rules, 6, &mut dice, &mut kept);
        assert!(search.find(text.as_bytes()).is_some(), "seed {seed}: values are planted");

        let mut decoder = decoder(&rules);
        let summary = decoder.push_page(text.as_bytes()).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{text}"));
        assert_eq!((summary.records.len(), summary.rejected.len()), (6, 0), "seed {seed}");
        let told = format!("{decoder:?} {summary:?} {:?}", decoder.quarantine());
        let batch = decoder.finish().unwrap();
        let mut bytes = Vec::new();
        let mut cells = String::new();
        for column in batch.batch().columns() {
            bytes_of(&column.to_data(), &mut bytes);
        }
        shown(batch.batch(), &mut cells);
        for (what, found) in [
            ("a buffer", search.find(&bytes)),
            ("a cell", search.find(cells.as_bytes())),
            ("a report", search.find(told.as_bytes())),
            ("debug output", search.find(format!("{batch:?} {:?}", batch.schema_text()).as_bytes())),
        ] {
            assert_eq!(found, None, "seed {seed}: {what}\n{}\n{text}", rules.text);
        }
        // What may be stored is: a decoder that drops all would pass otherwise.
        for value in &kept {
            assert!(cells.contains(value.as_str()), "seed {seed}: {value} is not stored\n{}\n{text}", rules.text);
        }
        stored += kept.len();

        // Pages that are cut or garbled: the error tells where, and nothing of what stands there.
        for _ in 0..8 {
            let mut broken = text.clone().into_bytes();
            let at = dice.below(broken.len());
            match dice.below(3) {
                0 => broken.truncate(at),
                1 => broken[at] = dice.next() as u8,
                _ => drop(broken.splice(at..at, *b"\"}]\xff,{")),
            }
            if let Err(error) = decoder.push_page(&broken) {
                let told = chain(&error);
                assert_eq!(search.find(told.as_bytes()), None, "seed {seed}: an error\n{told}");
                refused += 1;
            }
        }
    }
    assert!(stored as u64 > cases * 10 && refused > cases * 4, "{stored} values kept, {refused} pages refused");
}

/// The schema of a batch with its metadata, as programs print it.
trait SchemaText {
    fn schema_text(&self) -> String;
}

impl SchemaText for counterfoil::policy::RedactedBatch {
    fn schema_text(&self) -> String {
        format!("{:?}", self.batch().schema())
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = format!("{error}\n{error:?}");
    let mut next = error.source();
    while let Some(cause) = next {
        let _ = write!(text, "\n{cause}\n{cause:?}");
        next = cause.source();
    }
    text
}

/// Plants values in the answers of a sandbox, and spoils some answers the first time.
struct Planter {
    rules: Vec<Rules>,
    origin: String,
    http: reqwest::Client,
    seed: u64,
    spoils: bool,
    asked: Mutex<HashSet<String>>,
    kept: Mutex<Vec<String>>,
}

impl Planter {
    /// Answers on a port of its own, and returns its address.
    async fn serve(self: Arc<Self>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(self);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        url
    }

    fn new(rules: Vec<Rules>, origin: &str, seed: u64, spoils: bool) -> Arc<Self> {
        Arc::new(Self {
            rules,
            origin: origin.trim_end_matches('/').to_owned(),
            http: reqwest::Client::new(),
            seed,
            spoils,
            asked: Mutex::default(),
            kept: Mutex::default(),
        })
    }

    /// The same record is planted the same way each time it is asked for.
    fn planted(&self, page: &Value) -> Option<String> {
        let mut records = Vec::new();
        for record in page["data"].as_array()? {
            let stream = match record["type"].as_str()? {
                "conversation" => Stream::Tickets,
                "customer" => Stream::Customers,
                _ => return None,
            };
            let attributes = record.get("attributes")?;
            let rules = self.rules.iter().find(|rules| rules.stream() == stream)?;
            let key = Key {
                id: record["id"].as_str()?.to_owned(),
                updated_at: attributes["updatedAt"].as_str()?.to_owned(),
                rev: attributes["rev"].to_string(),
                deleted: attributes["deleted"].as_bool().unwrap_or_default(),
            };
            let id = key.id.bytes().fold(self.seed, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
            records.push(rules.record(&key, &mut Dice(id), &mut self.kept.lock().unwrap()));
        }
        let meta = page["meta"].to_string();
        Some(around(&records.join(","), meta.trim_start_matches('{').trim_end_matches('}')))
    }
}

async fn answer(
    State(planter): State<Arc<Planter>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Vec<u8>) {
    if uri.path().starts_with("/v1/metadata/") {
        return (StatusCode::OK, Rules::definitions());
    }
    let asked = format!("{method} {uri} {}", String::from_utf8_lossy(&body));
    let is_first = planter.asked.lock().unwrap().insert(asked.clone());
    let mut request = planter.http.request(method, format!("{}{uri}", planter.origin)).body(body);
    for name in ["authorization", "content-type"] {
        if let Some(value) = headers.get(name) {
            request = request.header(name, value);
        }
    }
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let body = answer.bytes().await.unwrap();
    let page: Option<Value> = serde_json::from_slice(&body).ok();
    let Some(planted) = page.filter(|_| status == StatusCode::OK).and_then(|page| planter.planted(&page)) else {
        return (status, body.to_vec());
    };
    let mut planted = planted.into_bytes();
    let mut dice = Dice(asked.bytes().fold(7, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())));
    if planter.spoils && is_first && dice.one_in(3) {
        let at = dice.below(planted.len());
        match dice.below(4) {
            0 => planted.truncate(at),
            1 => planted[at] = 0xff,
            2 => {
                let error =
                    r#"{"errors":[{"code":"QJXVKW","title":"鰐鱻龘 of qjxvkw@example.com","meta":{"x":"QJXVKW"}}]}"#;
                return (StatusCode::SERVICE_UNAVAILABLE, error.into());
            }
            _ => drop(planted.splice(at..at, *b"}]{")),
        }
    }
    (status, planted)
}

fn files(folder: &Path, out: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, out);
        } else {
            out.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
}

/// Collects what is logged on this thread.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Settings of a run that looks at everything.
fn settings() -> ExtractSettings {
    ExtractSettings { index_lag: Duration::ZERO, page_size: 40, ..ExtractSettings::default() }
}

// On one thread, so that its log is the log of the run.
#[tokio::test(flavor = "current_thread")]
async fn nothing_forbidden_is_in_any_file_table_log_or_report_of_a_run() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let search = Search::new();
    let mut stored = 0;
    for seed in [3, 11, 29] {
        let mut world =
            World::new(SandboxSettings { tickets: 150, customers: 40, seed, ..SandboxSettings::default() }).await;
        let mut dice = Dice(seed);
        let rules: Vec<Rules> = STREAMS.into_iter().map(|stream| Rules::random(stream, &mut dice)).collect();
        let named: Vec<(String, &str)> =
            rules.iter().map(|rules| (format!("{}.toml", rules.stream()), rules.text.as_str())).collect();
        let schemas = Schemas::from_files(named.iter().map(|(file, text)| (file.as_str(), *text))).unwrap();
        world.policy = Policy::compile(&schemas).unwrap();
        let planter = Planter::new(rules, world.sandbox.base_url(), seed, true);
        let url = Arc::clone(&planter).serve().await;
        let client = world.client_of(&url, world.sandbox.api_key());
        let mut said = String::new();
        for _ in 0..2 {
            match world.extract_with(&client, &settings()).await {
                Ok(report) => {
                    let _ = writeln!(said, "{report:?}\n{}", report.to_json());
                    assert!(report.complete, "seed {seed}: {report:?}");
                }
                Err(error) => panic!("seed {seed}: {}", chain(&error)),
            }
            world.sandbox.organisation().touch(&[1, 2, 3]);
            world.clock.advance(Duration::from_mins(20));
        }
        let manifest = world.lake.latest().await.unwrap();
        let mut cells = String::new();
        for table in Lake::table_names(&manifest) {
            for sql in [format!("SELECT * FROM {table}"), format!("DESCRIBE {table}")] {
                for row in rows(&world.lake, Arc::clone(&manifest), world.shared_clock(), &sql).await {
                    let _ = writeln!(cells, "{row}");
                }
            }
        }
        let mut found = vec![
            ("a report".to_owned(), search.find(said.as_bytes())),
            ("a table".to_owned(), search.find(cells.as_bytes())),
            ("the log".to_owned(), search.find(&log.0.lock().unwrap())),
        ];
        let mut kept_files = Vec::new();
        files(world.folder.path(), &mut kept_files);
        found.extend(kept_files.into_iter().map(|(name, bytes)| (name, search.find(&bytes))));
        for (what, found) in found {
            assert_eq!(found, None, "seed {seed}: {what}");
        }
        for value in planter.kept.lock().unwrap().iter() {
            // As JSON writes it.
            let value = Value::from(value.as_str()).to_string();
            assert!(cells.contains(value.trim_matches('"')), "seed {seed}: {value} is not stored");
            stored += 1;
        }
    }
    assert!(!log.0.lock().unwrap().is_empty() && stored > 1_000, "{stored}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_forbidden_is_in_what_the_binary_writes() {
    let search = Search::new();
    let bench = Bench::with(SandboxSettings { tickets: 60, customers: 20, ..SandboxSettings::default() }).await;
    let mut dice = Dice(5);
    let rules: Vec<Rules> = STREAMS.into_iter().map(|stream| Rules::random(stream, &mut dice)).collect();
    for rules in &rules {
        fs::write(bench.path().join(format!("schemas/{}.toml", rules.stream())), &rules.text).unwrap();
    }
    let planter = Planter::new(rules, bench.sandbox.base_url(), 5, true);
    let url = Arc::clone(&planter).serve().await;
    let environment = [("COUNTERFOIL_SOURCE__BASE_URL", url.as_str()), ("COUNTERFOIL_SOURCE__ATTEMPTS", "5")];
    let mut said = Vec::new();
    for (number, command) in [
        &["extract", "--report", "report.json", "--metrics-file", "metrics.prom"][..],
        &["extract", "--full"],
        &["lake", "status"],
        &["lake", "history"],
        &["lake", "files"],
        &["lake", "verify"],
        &["query", "-e", "SELECT * FROM tickets", "--format", "csv"],
        &["query", "-e", "SELECT * FROM customers", "--format", "json"],
        &["query", "-e", "SELECT * FROM ticket_versions"],
        &["query", "-e", "SELECT * FROM runs"],
        &["query", "-e", "SELECT * FROM tickets WHERE ticket_id = 7 AND nothing = 'x'"],
    ]
    .into_iter()
    .enumerate()
    {
        let log = if number % 2 == 0 { "json" } else { "text" };
        let arguments = [&["-vvv", "--log-format", log][..], command].concat();
        let output = bench.run_with(&environment, &arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), number < 10, "{command:?}: {stderr}");
        said.extend([output.stdout, output.stderr].concat());
    }
    let mut found = vec![("what was said".to_owned(), search.find(&said))];
    let mut written = Vec::new();
    files(bench.path(), &mut written);
    assert!(written.iter().any(|(name, _)| name.ends_with("metrics.prom")));
    found.extend(written.into_iter().map(|(name, bytes)| (name, search.find(&bytes))));
    for (what, found) in found {
        assert_eq!(found, None, "{what}");
    }
    let kept = planter.kept.lock().unwrap();
    let said = String::from_utf8_lossy(&said);
    assert!(kept.iter().any(|value| said.contains(value.as_str())), "what may be stored is shown");
}
