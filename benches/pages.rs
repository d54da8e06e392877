//! Pages of search to encrypted Parquet: ours by stage, and DuckDB doing the same from the same pages, side by side.
//!
//! ```text
//! cargo bench --bench pages -- [--tickets 100000] [--rounds 5] [--pages DIR] [--duckdb PYTHON] [--only-whole]
//! ```
//!
//! Pages of 500 come from the sandbox once and are kept in a folder. Each round runs, one after the other, on the same two
//! threads at most: decoding with redaction (one thread), the whole way into a lake on disk (decoding on two threads, commits
//! beside them), and DuckDB (`duckdb_pages.py`, two threads) writing the same columns to one encrypted Parquet file. Ratios
//! are of the medians; absolute times say little on a shared machine. `serde_json::Value` is the simple version to compare
//! decoding with.
//!
//! What redaction costs is the ratio to *decoding alone*: the same decoder under a policy that stores the same columns and
//! changes none of them. Each column of the shipped policy is there with the same name, path and type and the method `keep`,
//! a custom attribute by its name; what that policy drops is dropped here too. So both walk the same tree, skip the same
//! bytes and fill the same builders, and what differs is what the methods do. A decoder that kept all would store more
//! than a third as much again, and one without a tree would not be a decoder of this table. The strict policy is the shipped
//! one with a method on texts, lists and times that nearly every ticket has. Passes are taken in turns, page by page, so that
//! a machine that slows down slows all of them down; the ratio is the median of the rounds'.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench ends where it fails"
)]
#![expect(clippy::disallowed_methods, reason = "a bench measures the machine's time")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, Schema};
use counterfoil::clock::{SharedClock, SystemClock};
use counterfoil::keys::RootKey;
use counterfoil::kustomer::{Client, ClientSettings, Credential, Endpoint, SearchObject, SearchRequest};
use counterfoil::lake::{Lake, StoreSettings};
use counterfoil::model::Stream;
use counterfoil::policy::{Decoder, Definitions, Policy, RedactedBatch};
use counterfoil::sandbox::{Sandbox, SandboxSettings};
use counterfoil::schema::{BUILTIN, Schemas};
use counterfoil::secret::SecretString;

struct Options {
    tickets: u64,
    rounds: usize,
    pages: Option<PathBuf>,
    duckdb: Option<PathBuf>,
    commit_bytes: usize,
    only_whole: bool,
}

fn main() {
    let mut options =
        Options { tickets: 100_000, rounds: 5, pages: None, duckdb: None, commit_bytes: 10 << 20, only_whole: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().expect("a value after the option");
        match name.as_str() {
            "--tickets" => options.tickets = value().parse().unwrap(),
            "--rounds" => options.rounds = value().parse().unwrap(),
            "--pages" => options.pages = Some(value().into()),
            "--duckdb" => options.duckdb = Some(value().into()),
            "--commit-bytes" => options.commit_bytes = value().parse().unwrap(),
            "--only-whole" => options.only_whole = true,
            // Cargo passes it to every bench.
            "--bench" => {}
            other => panic!("unknown option {other}"),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let folder = options.pages.clone().unwrap_or_else(|| temporary.path().join("pages"));
    if !folder.join("definitions.json").exists() {
        runtime.block_on(fetch(&folder, options.tickets));
    }
    let pages = read(&folder);
    let bytes: usize = pages.iter().map(Vec::len).sum();
    let policy = Policy::compile(&Schemas::builtin().unwrap()).unwrap();
    let mut definitions = Definitions::default();
    definitions.add(Stream::Tickets, &std::fs::read(folder.join("definitions.json")).unwrap()).unwrap();
    let root_key = temporary.path().join("root.key");
    RootKey::create_file(&root_key).unwrap();
    let root = RootKey::read("file:root.key", temporary.path()).unwrap();
    let clock: SharedClock = Arc::new(SystemClock);
    let memory = StoreSettings::new("memory:", temporary.path());
    let scratch = runtime.block_on(Lake::create(&memory, &root, Arc::clone(&clock))).unwrap();
    let decoder = policy.decoder(Stream::Tickets, &definitions, &scratch.ring().pseudonym_keys(1).unwrap()).unwrap();
    write_columns(&decoder, &folder.join("columns.tsv"));

    let _ = manifest_rows(&pages);
    let alone = policy_of(&alone(&decoder.schema()));
    let strict = policy_of(&strict());
    let keys = scratch.ring().pseudonym_keys(1).unwrap();
    let alone = alone.decoder(Stream::Tickets, &definitions, &keys).unwrap();
    let strict = strict.decoder(Stream::Tickets, &definitions, &keys).unwrap();
    assert_eq!(columns_of(&alone), columns_of(&decoder), "decoding alone fills the same columns");
    let decoders = [&alone, &decoder, &strict];
    let mut passes: [Vec<Duration>; 5] = Default::default();
    let mut whole = Vec::new();
    let mut duckdb = Vec::new();
    let mut plain = Vec::new();
    let (mut files, mut stored) = (0, 0);
    for round in 0..options.rounds {
        if !options.only_whole {
            for (times, time) in passes.iter_mut().zip(in_turns(&pages, decoders)) {
                times.push(time);
            }
        }
        let place = format!("file:lake{round}");
        whole.push(timed(|| {
            let lake = runtime
                .block_on(Lake::create(&StoreSettings::new(&*place, temporary.path()), &root, Arc::clone(&clock)))
                .unwrap();
            into_lake(&runtime, &lake, &decoder, &pages, options.commit_bytes);
            let manifest = runtime.block_on(lake.latest()).unwrap();
            let table = &manifest.tables[&Stream::Tickets];
            files = table.files.len();
            stored = table.files.iter().map(|file| file.bytes).sum::<u64>();
            assert_eq!(table.files.iter().map(|file| file.live_rows()).sum::<u64>(), manifest_rows(&pages));
        }));
        if let Some(python) = &options.duckdb {
            let (encrypted, unencrypted) = peer(python, &folder, temporary.path());
            duckdb.push(encrypted);
            plain.push(unencrypted);
        }
    }
    let tickets = manifest_rows(&pages);
    println!(
        "pages: {} of {tickets} tickets, {:.0} MB of JSON, {} rounds, medians",
        pages.len(),
        bytes as f64 / 1e6,
        options.rounds
    );
    let rate = |times: &mut Vec<Duration>, what: &str, threads: u32| {
        times.sort();
        if times.is_empty() {
            return f64::NAN;
        }
        let median = times[times.len() / 2].as_secs_f64();
        println!(
            "{what:<58} {threads} thread{} {median:>7.3} s {:>6.0} MB/s {:>9.0} tickets/s",
            if threads == 1 { " " } else { "s" },
            bytes as f64 / 1e6 / median,
            tickets as f64 / median
        );
        median
    };
    let ratios: Vec<Option<f64>> = passes.iter().map(|times| ratio(times, &passes[2])).collect();
    let names = [
        "reading JSON and keeping nothing",
        "reading JSON into serde_json::Value",
        "decoding alone: every column as it is",
        "decode and redact, the shipped policy",
        "decode and redact, a strict policy",
    ];
    for ((times, what), ratio) in passes.iter_mut().zip(names).zip(ratios) {
        rate(times, what, 1);
        if let Some(ratio) = ratio {
            println!("  {ratio:.2} times the time of decoding alone, median of the rounds");
        }
    }
    let ours = rate(&mut whole, "decode, redact, encrypt, commit to a lake on disk", 2);
    println!("  {files} files, {:.1} MB", stored as f64 / 1e6);
    if !duckdb.is_empty() {
        let theirs = rate(&mut duckdb, "DuckDB: read_json, select, COPY to encrypted Parquet", 2);
        let unencrypted = rate(&mut plain, "DuckDB: the same to plain Parquet", 2);
        println!(
            "ratio: {:.2} times the tickets a second of DuckDB ({:.2} of its plain COPY)",
            theirs / ours,
            unencrypted / ours
        );
    }
}

/// Takes every page through each pass before the next page, in an order that turns; returns the time of each pass: skipping,
/// `serde_json::Value`, and the decoders.
fn in_turns(pages: &[Vec<u8>], decoders: [&Decoder; 3]) -> [Duration; 5] {
    let mut decoders = decoders.map(Decoder::fork);
    let mut times = [Duration::ZERO; 5];
    for (number, page) in pages.iter().enumerate() {
        for turn in 0..times.len() {
            let pass = (number + turn) % times.len();
            times[pass] += timed(|| match pass {
                0 => {
                    serde_json::from_slice::<serde::de::IgnoredAny>(page).unwrap();
                }
                1 => {
                    let value: serde_json::Value = serde_json::from_slice(page).unwrap();
                    assert!(value["data"].is_array());
                }
                _ => {
                    decoders[pass - 2].push_page(page).unwrap();
                    decoders[pass - 2].finish().unwrap();
                }
            });
        }
    }
    times
}

/// Returns the median over the rounds of how many times as long a pass took as another.
fn ratio(times: &[Duration], base: &[Duration]) -> Option<f64> {
    let mut ratios: Vec<f64> =
        times.iter().zip(base).map(|(time, base)| time.as_secs_f64() / base.as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied()
}

fn policy_of(tickets: &str) -> Policy {
    Policy::compile(&Schemas::from_files([("tickets.toml", tickets)]).unwrap()).unwrap()
}

fn columns_of(decoder: &Decoder) -> Vec<(String, DataType)> {
    let schema = decoder.schema();
    let mut columns: Vec<_> =
        schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect();
    columns.sort_by(|a, b| a.0.cmp(&b.0));
    columns
}

/// The columns of a decoder, custom attributes among them, each kept as it is; and the drops of the shipped policy.
fn alone(schema: &Schema) -> String {
    let mut text = String::from("stream = \"tickets\"\n");
    let mut column = |name: &str, path: &str, column_type: &str, method: &str| {
        let _ = write!(
            text,
            "[[column]]\nname = \"{name}\"\npath = \"{path}\"\ntype = \"{column_type}\"\nclass = \"internal\"\n\
             method = \"{method}\"\ndescription = \"A column.\"\n"
        );
    };
    for field in schema.fields() {
        let column_type = match field.data_type() {
            DataType::Int64 => "int",
            DataType::Float64 => "float",
            DataType::Boolean => "bool",
            DataType::Timestamp(..) => "timestamp",
            DataType::List(_) => "text_list",
            _ => "text",
        };
        column(field.name(), &field.metadata()["path"], column_type, "keep");
    }
    let shipped = Schemas::builtin().unwrap();
    let dropped = shipped.table(Stream::Tickets).unwrap().columns.iter().filter(|column| column.method.name == "drop");
    for dropped in dropped {
        column(&dropped.name, &dropped.path.join("."), "any", "drop");
    }
    for pattern in ["*Url", "*Txt"] {
        let _ = write!(text, "[[custom]]\npattern = \"{pattern}\"\nclass = \"personal\"\nmethod = \"drop\"\n");
    }
    text
}

/// The shipped policy with methods on columns that nearly every ticket fills.
fn strict() -> String {
    let mut text = shipped_tickets().to_owned();
    for (column, method) in [
        ("customer_id", r#""pseudonymize""#),
        ("created_by_id", r#""pseudonymize""#),
        ("assigned_user_ids", r#"{ name = "pseudonymize", domain = "user" }"#),
        ("first_response_user_id", r#"{ name = "pseudonymize", domain = "user" }"#),
        ("first_message_in_id", r#"{ name = "mask", keep_last = 4 }"#),
        ("last_message_in_id", r#""mask""#),
        ("default_lang", r#"{ name = "truncate", chars = 2 }"#),
        ("created_at", r#"{ name = "truncate", to = "day" }"#),
        ("last_activity_at", r#"{ name = "truncate", to = "hour" }"#),
        ("first_response_ms", r#"{ name = "bucket", width = 60000 }"#),
        ("message_count", r#"{ name = "bucket", bounds = [0, 2, 5, 10] }"#),
    ] {
        // A declaration ends with its description; where none is written, the method of `internal` is `keep`.
        let start = text.find(&format!("name = \"{column}\"\n")).unwrap();
        let end = start + text[start..].find("description = ").unwrap();
        assert!(!text[start..end].contains("method"), "{column}");
        text.insert_str(end, &format!("method = {method}\n"));
    }
    // What people wrote can be stored only so: the subject, which is a text of most tickets.
    let start = text.find("name = \"name\"\n").unwrap();
    let end = start + text[start..].find("description = ").unwrap();
    let declared = text[start..end].replace("method = \"drop\"", "method = \"scrub\"");
    text.replace_range(start..end, &declared);
    text
}

fn shipped_tickets() -> &'static str {
    BUILTIN.iter().find(|(file, _)| *file == "tickets.toml").unwrap().1
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn manifest_rows(pages: &[Vec<u8>]) -> u64 {
    static ROWS: AtomicUsize = AtomicUsize::new(0);
    if ROWS.load(Ordering::Relaxed) == 0 {
        let rows = pages.iter().map(|page| {
            let value: serde_json::Value = serde_json::from_slice(page).unwrap();
            value["data"].as_array().unwrap().len()
        });
        ROWS.store(rows.sum(), Ordering::Relaxed);
    }
    ROWS.load(Ordering::Relaxed) as u64
}

/// Decodes on two threads and commits beside them, as a run of `extract` does.
fn into_lake(
    runtime: &tokio::runtime::Runtime,
    lake: &Lake,
    decoder: &Decoder,
    pages: &[Vec<u8>],
    commit_bytes: usize,
) {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::sync_channel::<RedactedBatch>(8);
    std::thread::scope(|threads| {
        for _ in 0..2 {
            let (sender, next) = (sender.clone(), &next);
            threads.spawn(move || {
                let mut decoder = decoder.fork();
                while let Some(page) = pages.get(next.fetch_add(1, Ordering::Relaxed)) {
                    decoder.push_page(page).unwrap();
                    sender.send(decoder.finish().unwrap()).unwrap();
                }
            });
        }
        drop(sender);
        let mut transaction = lake.transaction();
        let mut waiting = 0;
        for rows in receiver {
            waiting += rows.batch().get_array_memory_size();
            transaction.append(rows);
            if waiting >= commit_bytes {
                waiting = 0;
                let full = std::mem::replace(&mut transaction, lake.transaction());
                runtime.block_on(full.commit()).unwrap();
            }
        }
        runtime.block_on(transaction.commit()).unwrap();
    });
}

/// Runs the peer over the same pages, encrypted and plain; it prints its own times in seconds, so that starting Python does not count.
fn peer(python: &Path, folder: &Path, temporary: &Path) -> (Duration, Duration) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/duckdb_pages.py");
    let output = Command::new(python).arg(script).arg(folder).arg(temporary.join("peer.parquet")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let mut seconds = text.split_whitespace().map(|seconds| Duration::from_secs_f64(seconds.parse().unwrap()));
    (seconds.next().unwrap(), seconds.next().unwrap())
}

fn read(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("page-")))
        .collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Writes name, type and path of each column, for the peer.
fn write_columns(decoder: &Decoder, path: &Path) {
    let lines: Vec<String> = decoder
        .schema()
        .fields()
        .iter()
        .map(|field| format!("{}\t{}\t{}\n", field.name(), field.data_type(), field.metadata().get("path").unwrap()))
        .collect();
    std::fs::write(path, lines.concat()).unwrap();
}

/// Fetches all tickets from a sandbox, walking by key as simply as can be: without ties a page begins where the last ended.
async fn fetch(folder: &Path, tickets: u64) {
    std::fs::create_dir_all(folder).unwrap();
    let clock: SharedClock = Arc::new(SystemClock);
    let settings = SandboxSettings {
        tickets,
        ties: false,
        org_rpm: 1_000_000,
        search_rpm: 1_000_000,
        ..SandboxSettings::default()
    };
    let sandbox = Sandbox::start(settings, Arc::clone(&clock)).await.unwrap();
    let settings = ClientSettings {
        base_url: sandbox.base_url().parse().unwrap(),
        credential: Credential::ApiKey(SecretString::new(sandbox.api_key().to_owned())),
        org_rpm: 1_000_000,
        search_rpm: 1_000_000,
        share: 1.0,
        reserve: 0,
        timeout: Duration::from_secs(30),
        attempts: 3,
    };
    let client = Client::try_new(settings, clock, 1).unwrap();
    let page = |from_ms, page| {
        SearchRequest::builder(SearchObject::Conversation)
            .updated_between(from_ms, i64::from(i32::MAX) * 1_000)
            .unwrap()
            .page(page, 500)
            .build()
    };
    let (mut from_ms, mut seen, mut number) = (0, std::collections::HashSet::new(), 0);
    loop {
        let body = client.search(&page(from_ms, 1)).await.unwrap();
        let mut value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let rows = value["data"].as_array_mut().unwrap();
        let last =
            rows.last().unwrap()["attributes"]["updatedAt"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        let whole = rows.len();
        rows.retain(|row| seen.insert(row["id"].as_str().unwrap().to_owned()));
        if rows.len() == whole {
            std::fs::write(folder.join(format!("page-{number:05}.json")), &body).unwrap();
        } else if !rows.is_empty() {
            std::fs::write(folder.join(format!("page-{number:05}.json")), serde_json::to_vec(&value).unwrap()).unwrap();
        }
        number += 1;
        if whole < 500 {
            break;
        }
        from_ms = last.as_millisecond();
    }
    let definitions = client.get(Endpoint::Metadata, "/v1/metadata/conversation").await.unwrap();
    std::fs::write(folder.join("definitions.json"), definitions).unwrap();
    sandbox.shutdown().await;
}
