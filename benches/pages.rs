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

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench ends where it fails"
)]
#![expect(clippy::disallowed_methods, reason = "a bench measures the machine's time")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use counterfoil::clock::{SharedClock, SystemClock};
use counterfoil::keys::RootKey;
use counterfoil::kustomer::{Client, ClientSettings, Credential, Endpoint, SearchObject, SearchRequest};
use counterfoil::lake::{Lake, StoreSettings};
use counterfoil::model::Stream;
use counterfoil::policy::{Decoder, Definitions, Policy, RedactedBatch};
use counterfoil::sandbox::{Sandbox, SandboxSettings};
use counterfoil::schema::Schemas;
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
    let mut decode = Vec::new();
    let mut values = Vec::new();
    let mut skip = Vec::new();
    let mut whole = Vec::new();
    let mut duckdb = Vec::new();
    let mut plain = Vec::new();
    let (mut files, mut stored) = (0, 0);
    for round in 0..options.rounds {
        if !options.only_whole {
            decode.push(timed(|| {
                let mut decoder = decoder.fork();
                for page in &pages {
                    decoder.push_page(page).unwrap();
                    decoder.finish().unwrap();
                }
            }));
            skip.push(timed(|| {
                for page in &pages {
                    serde_json::from_slice::<serde::de::IgnoredAny>(page).unwrap();
                }
            }));
            values.push(timed(|| {
                for page in &pages {
                    let value: serde_json::Value = serde_json::from_slice(page).unwrap();
                    assert!(value["data"].is_array());
                }
            }));
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
    rate(&mut skip, "reading JSON and keeping nothing", 1);
    rate(&mut values, "reading JSON into serde_json::Value", 1);
    rate(&mut decode, "decode and redact into record batches", 1);
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
