//! The lake: what encryption costs, and how its work grows with its size, each as a ratio of two things measured in turns.
//!
//! ```text
//! cargo bench --bench lake -- --pages DIR [--rounds 9] [--pages-per-file 200] cipher     encrypted against plain: writing, reading, a short query
//! cargo bench --bench lake -- --pages DIR [--copies 30] growth    commits of 1,000 changes: 100 thousand against all copies
//! cargo bench --bench lake -- --pages DIR layout                  200 small commits, superseded rows: against compacted
//! cargo bench --bench lake -- --pages DIR open                    opening a lake of 1,000 commits
//! cargo bench --bench lake -- --pages DIR --keep FOLDER small     leaves a lake of 200 files of 1,000 rows for `lake compact`
//! ```
//!
//! `DIR` holds the pages that the bench `pages` keeps. Copies of them get other ids. The plain files are written here, column
//! by column with the settings of ours and no key: the library has no such path.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench ends where it fails"
)]
#![expect(clippy::disallowed_methods, reason = "a bench measures the machine's time")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use counterfoil::clock::{SharedClock, SystemClock};
use counterfoil::keys::{KeyRing, RootKey};
use counterfoil::lake::file::{ROW_GROUP_ROWS, encode, open_tail};
use counterfoil::lake::{CompactSettings, Lake, StoreSettings};
use counterfoil::model::Stream;
use counterfoil::policy::{Decoder, Definitions, Policy, RedactedBatch, SortedRows};
use counterfoil::schema::Schemas;
use datafusion::common::config::TableParquetOptions;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::compute_leaves;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;
use tokio::runtime::Runtime;

struct Bench {
    runtime: Runtime,
    folder: tempfile::TempDir,
    pages: Vec<Vec<u8>>,
    decoder: Decoder,
    root: RootKey,
    rounds: usize,
    copies: usize,
    pages_per_file: usize,
    keep: Option<PathBuf>,
}

fn main() {
    let (mut pages, mut rounds, mut copies, mut keep, mut what) = (None, 9, 30, None, String::new());
    // 100,000 rows: files as compaction leaves them.
    let mut pages_per_file = 200;
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().expect("a value after the option");
        match name.as_str() {
            "--pages" => pages = Some(PathBuf::from(value())),
            "--rounds" => rounds = value().parse().unwrap(),
            "--copies" => copies = value().parse().unwrap(),
            "--pages-per-file" => pages_per_file = value().parse().unwrap(),
            "--keep" => keep = Some(PathBuf::from(value())),
            // Cargo passes it to every bench.
            "--bench" => {}
            other => other.clone_into(&mut what),
        }
    }
    let pages = pages.expect("--pages DIR");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let place = keep.clone().unwrap_or_else(|| folder.path().to_path_buf());
    std::fs::create_dir_all(&place).unwrap();
    RootKey::create_file(&place.join("root.key")).unwrap();
    let root = RootKey::read("file:root.key", &place).unwrap();
    let mut definitions = Definitions::default();
    definitions.add(Stream::Tickets, &std::fs::read(pages.join("definitions.json")).unwrap()).unwrap();
    let policy = Policy::compile(&Schemas::builtin().unwrap()).unwrap();
    let ring = KeyRing::generate("bench", 0).unwrap();
    let decoder = policy.decoder(Stream::Tickets, &definitions, &ring.pseudonym_keys(1).unwrap()).unwrap();
    let bench = Bench { runtime, folder, pages: read(&pages), decoder, root, rounds, copies, pages_per_file, keep };
    match what.as_str() {
        "cipher" => bench.cipher(),
        "growth" => bench.growth(),
        "layout" => bench.layout(),
        "open" => bench.open(),
        "small" => bench.small(),
        other => panic!("one of cipher, growth, layout, open, small; not {other:?}"),
    }
}

impl Bench {
    /// Decodes a page with its ids changed, so that copies of the pages are other tickets.
    fn decode(&self, page: &[u8], copy: usize) -> RedactedBatch {
        let mut decoder = self.decoder.fork();
        decoder.push_page(&with_ids(page, copy)).unwrap();
        decoder.finish().unwrap()
    }

    fn create(&self, place: &str) -> Lake {
        let clock: SharedClock = Arc::new(SystemClock);
        let base = self.keep.as_deref().unwrap_or(self.folder.path());
        self.runtime
            .block_on(Lake::create(&StoreSettings::new(format!("file:{place}"), base), &self.root, clock))
            .unwrap()
    }

    fn reopen(&self, place: &str) -> Lake {
        let clock: SharedClock = Arc::new(SystemClock);
        let base = self.keep.as_deref().unwrap_or(self.folder.path());
        self.runtime
            .block_on(Lake::open(&StoreSettings::new(format!("file:{place}"), base), &self.root, clock))
            .unwrap()
    }

    /// Fills a lake with copies of all pages, `pages_per_commit` in each commit.
    fn fill(&self, lake: &Lake, copies: usize, pages_per_commit: usize) {
        for copy in 0..copies {
            for pages in self.pages.chunks(pages_per_commit) {
                let mut transaction = lake.transaction();
                for page in pages {
                    transaction.append(self.decode(page, copy));
                }
                self.runtime.block_on(transaction.commit()).unwrap();
            }
        }
    }

    fn compact(&self, lake: &Lake) {
        self.runtime.block_on(lake.compact(&CompactSettings::default(), "bench", |_| {})).unwrap();
    }

    /// Takes tickets of all copies, evenly, and makes each a later revision.
    fn changed(&self, count: usize, copies: usize, round: usize) -> Vec<RedactedBatch> {
        let total = self.pages.len() * copies;
        let per_page = count.div_ceil(total.min(count));
        let step = (total as f64 / (count / per_page) as f64).max(1.0);
        let mut batches = Vec::new();
        let mut records = Vec::new();
        for number in 0..count / per_page {
            let at = (number as f64 * step) as usize % total;
            let (copy, page) = (at / self.pages.len(), at % self.pages.len());
            let mut value: serde_json::Value = serde_json::from_slice(&with_ids(&self.pages[page], copy)).unwrap();
            let rows = value["data"].as_array_mut().unwrap();
            for row in 0..per_page {
                let place = (number * 131 + row * 97 + round * 7) % rows.len();
                let record = &mut rows[place];
                let rev = record["attributes"]["rev"].as_i64().unwrap();
                record["attributes"]["rev"] = (rev + 1 + round as i64).into();
                let at = jiff::Timestamp::from_second(1_900_000_000 + round as i64).unwrap();
                record["attributes"]["updatedAt"] = at.to_string().into();
                records.push(record.clone());
            }
        }
        for records in records.chunks(500) {
            let mut decoder = self.decoder.fork();
            decoder.push_page(&serde_json::to_vec(&serde_json::json!({ "data": records })).unwrap()).unwrap();
            batches.push(decoder.finish().unwrap());
        }
        batches
    }

    /// Encrypted against plain: the same rows, the same settings, in turns.
    fn cipher(&self) {
        let ring = KeyRing::generate("bench", 0).unwrap();
        let batches: Vec<RedactedBatch> = self.pages.iter().map(|page| self.decode(page, 0)).collect();
        let parts: Vec<SortedRows> =
            batches.chunks(self.pages_per_file).map(|batches| SortedRows::try_new(batches).unwrap()).collect();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let plain_columns: Vec<Vec<String>> = parts.iter().map(|rows| plain_columns(rows, &ring)).collect();
        for _ in 0..self.rounds {
            ours.push(timed(|| {
                parts.iter().map(|rows| encode("data/tickets/x.parquet", rows, &ring).unwrap().0.len()).sum::<usize>()
            }));
            theirs.push(timed(|| {
                parts.iter().zip(&plain_columns).map(|(rows, plain)| encode_plain(rows, plain).len()).sum::<usize>()
            }));
        }
        ratio("write", &mut ours, &mut theirs, "encrypted", "plain");

        // The same rows in a lake and in a folder of plain files, several times over.
        let lake = self.create("cipher");
        let plain = self.folder.path().join("plain");
        std::fs::create_dir_all(&plain).unwrap();
        for copy in 0..self.copies.min(10) {
            for (number, pages) in self.pages.chunks(self.pages_per_file).enumerate() {
                let batches: Vec<RedactedBatch> = pages.iter().map(|page| self.decode(page, copy)).collect();
                let rows = SortedRows::try_new(&batches).unwrap();
                std::fs::write(
                    plain.join(format!("{copy:02}-{number}.parquet")),
                    encode_plain(&rows, &plain_columns[number.min(plain_columns.len() - 1)]),
                )
                .unwrap();
                let mut transaction = lake.transaction();
                for batch in batches {
                    transaction.append(batch);
                }
                self.runtime.block_on(transaction.commit()).unwrap();
            }
        }
        let encrypted = self.runtime.block_on(session(&lake));
        let unencrypted = self.runtime.block_on(plain_session(&plain));
        let queries = [
            ("read all", "SELECT * FROM tickets".to_owned()),
            ("read two columns", "SELECT ticket_id, updated_at FROM tickets".to_owned()),
            (
                "short query",
                "SELECT status, count(*), max(updated_at) FROM tickets WHERE message_count > 3 GROUP BY status"
                    .to_owned(),
            ),
        ];
        for (name, sql) in queries {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            assert_eq!(
                self.runtime.block_on(rows(&encrypted, &sql)),
                self.runtime.block_on(rows(&unencrypted, &sql)),
                "{name}"
            );
            for _ in 0..self.rounds {
                ours.push(timed(|| self.runtime.block_on(rows(&encrypted, &sql))));
                theirs.push(timed(|| self.runtime.block_on(rows(&unencrypted, &sql))));
            }
            ratio(name, &mut ours, &mut theirs, "encrypted", "plain");
        }
    }

    /// Commits of 1,000 changed tickets to a lake of one copy and to one of all copies.
    fn growth(&self) {
        for (name, pages_per_commit) in [("files of 4,000 rows", 8), ("compacted", 200)] {
            let (small, large) =
                (self.create(&format!("one-{pages_per_commit}")), self.create(&format!("all-{pages_per_commit}")));
            self.fill(&small, 1, pages_per_commit);
            self.fill(&large, self.copies, pages_per_commit);
            if name == "compacted" {
                self.compact(&small);
                self.compact(&large);
            }
            let (mut in_small, mut in_large) = (Vec::new(), Vec::new());
            for round in 0..self.rounds {
                // A new process each time: nothing is cached of the files.
                for (place, copies, times) in [("one", 1, &mut in_small), ("all", self.copies, &mut in_large)] {
                    let lake = self.reopen(&format!("{place}-{pages_per_commit}"));
                    self.runtime.block_on(lake.latest()).unwrap();
                    let batches = self.changed(1_000, copies, round);
                    times.push(timed(|| {
                        let mut transaction = lake.transaction();
                        for batch in batches {
                            transaction.append(batch);
                        }
                        let summary = self.runtime.block_on(transaction.commit()).unwrap();
                        assert!(summary.streams[0].1.updated > 900, "{summary:?}");
                    }));
                }
            }
            let rows = self.copies * 100_000;
            ratio(
                &format!("1,000 changes, {name}"),
                &mut in_large,
                &mut in_small,
                &format!("{rows} rows"),
                "100,000 rows",
            );
        }
    }

    /// Scans of 200 small commits and of superseded rows, against the same lake compacted.
    fn layout(&self) {
        let sql =
            "SELECT status, count(*), avg(message_count) FROM tickets WHERE updated_at > '2023-01-01' GROUP BY status";
        let small = self.create("small");
        self.fill_small(&small);
        let again = self.create("small-compacted");
        self.fill_small(&again);
        self.compact(&again);
        self.compare("200 commits of 1,000 rows", sql, &small, "small", &again, "compacted");

        let superseded = self.create("superseded");
        self.fill(&superseded, 3, 200);
        self.compact(&superseded);
        // 5 % of 300,000, in one commit.
        self.supersede(&superseded);
        let compacted = self.create("superseded-compacted");
        self.fill(&compacted, 3, 200);
        self.supersede(&compacted);
        let always = CompactSettings { superseded_percent: 0, ..CompactSettings::default() };
        self.runtime.block_on(compacted.compact(&always, "bench", |_| {})).unwrap();
        self.compare("5 % superseded", sql, &superseded, "superseded", &compacted, "compacted");
    }

    fn supersede(&self, lake: &Lake) {
        let mut transaction = lake.transaction();
        for batch in self.changed(15_000, 3, 0) {
            transaction.append(batch);
        }
        self.runtime.block_on(transaction.commit()).unwrap();
    }

    fn compare(&self, name: &str, sql: &str, left: &Lake, left_name: &str, right: &Lake, right_name: &str) {
        for lake in [left, right] {
            let manifest = self.runtime.block_on(lake.latest()).unwrap();
            let files = &manifest.tables[&Stream::Tickets].files;
            let (rows, dead) = (
                files.iter().map(|file| file.rows).sum::<u64>(),
                files.iter().map(|file| file.superseded.len()).sum::<u64>(),
            );
            println!("  {} files, {rows} rows, {dead} superseded", files.len());
        }
        let (left_session, right_session) =
            (self.runtime.block_on(session(left)), self.runtime.block_on(session(right)));
        for sql in [sql, "SELECT * FROM tickets"] {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            assert_eq!(
                self.runtime.block_on(rows(&left_session, sql)),
                self.runtime.block_on(rows(&right_session, sql))
            );
            for _ in 0..self.rounds {
                ours.push(timed(|| self.runtime.block_on(rows(&left_session, sql))));
                theirs.push(timed(|| self.runtime.block_on(rows(&right_session, sql))));
            }
            let what = if sql.contains('*') && !sql.contains("count") { "all columns" } else { "aggregate" };
            ratio(&format!("{name}, {what}"), &mut ours, &mut theirs, left_name, right_name);
        }
    }

    fn fill_small(&self, lake: &Lake) {
        for pages in self.pages.chunks(2).cycle().take(200).enumerate().map(|(number, pages)| (number / 100, pages)) {
            let mut transaction = lake.transaction();
            for page in pages.1 {
                transaction.append(self.decode(page, pages.0));
            }
            self.runtime.block_on(transaction.commit()).unwrap();
        }
    }

    fn small(&self) {
        let lake = self.create("lake");
        self.fill_small(&lake);
        println!("{} files", self.runtime.block_on(lake.latest()).unwrap().tables[&Stream::Tickets].files.len());
    }

    /// Opens a lake of 1,000 commits, as a new process does.
    fn open(&self) {
        let lake = self.create("thousand");
        for number in 0..1_000 {
            let mut transaction = lake.transaction();
            let rows = self.decode(&self.pages[number % self.pages.len()], number / self.pages.len());
            let few: Vec<bool> = (0..rows.keys().len()).map(|row| row < 50).collect();
            transaction.append(rows.filter(&few.into()).unwrap());
            self.runtime.block_on(transaction.commit()).unwrap();
        }
        let mut times: Vec<Duration> = (0..self.rounds)
            .map(|_| {
                timed(|| {
                    let lake = self.reopen("thousand");
                    assert_eq!(self.runtime.block_on(lake.latest()).unwrap().version, 1_000);
                })
            })
            .collect();
        times.sort();
        println!("opening a lake of 1,000 commits: median {:.1} ms", times[times.len() / 2].as_secs_f64() * 1e3);
    }
}

/// Changes every record id of a page: eight hex digits of the time, then two that differ from copy to copy.
fn with_ids(page: &[u8], copy: usize) -> Vec<u8> {
    let mut page = page.to_vec();
    if copy == 0 {
        return page;
    }
    let digits = format!("{copy:02x}");
    let mut at = 0;
    while at + 26 <= page.len() {
        let is_id = page[at] == b'"'
            && page[at + 25] == b'"'
            && page[at + 1..at + 25].iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte));
        if is_id {
            page[at + 9..at + 11].copy_from_slice(digits.as_bytes());
            at += 26;
        } else {
            at += 1;
        }
    }
    page
}

async fn session(lake: &Lake) -> SessionContext {
    let manifest = lake.latest().await.unwrap();
    let context = SessionContext::new_with_config(config());
    context.register_table("tickets", lake.table(&manifest, "tickets").unwrap()).unwrap();
    context
}

async fn plain_session(folder: &Path) -> SessionContext {
    let context = SessionContext::new_with_config(config());
    let url = ListingTableUrl::parse(format!("{}/", folder.display())).unwrap();
    // What the lake's scan sets too; a listing table takes none of it from the session.
    let parquet = TableParquetOptions { global: config().options().execution.parquet.clone(), ..Default::default() };
    let options = ListingOptions::new(Arc::new(ParquetFormat::new().with_options(parquet)));
    let table =
        ListingTableConfig::new(url).with_listing_options(options).infer_schema(&context.state()).await.unwrap();
    context.register_table("tickets", Arc::new(ListingTable::try_new(table).unwrap())).unwrap();
    context
}

fn config() -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(2);
    let options = config.options_mut();
    options.execution.parquet.pushdown_filters = true;
    options.execution.parquet.reorder_filters = true;
    options.execution.parquet.schema_force_view_types = false;
    config
}

async fn rows(context: &SessionContext, sql: &str) -> usize {
    let mut stream = context.sql(sql).await.unwrap().execute_stream().await.unwrap();
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        rows += batch.unwrap().num_rows();
    }
    rows
}

/// The columns that ours writes without a dictionary.
fn plain_columns(rows: &SortedRows, ring: &KeyRing) -> Vec<String> {
    let (bytes, file) = encode("data/tickets/x.parquet", rows, ring).unwrap();
    let tail = bytes.slice(bytes.len() - file.tail_bytes as usize..);
    let metadata = open_tail(&file, &tail, ring).unwrap();
    let columns = metadata.row_group(0).columns().iter();
    columns
        .filter(|column| column.dictionary_page_offset().is_none())
        .map(|column| column.column_path().string())
        .collect()
}

/// The settings and the loop of the library's `lake::file`, without a key.
fn encode_plain(rows: &SortedRows, plain: &[String]) -> Vec<u8> {
    const NO_LIMIT: usize = i32::MAX as usize;
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_write_batch_size(ROW_GROUP_ROWS)
        .set_data_page_row_count_limit(NO_LIMIT)
        .set_data_page_size_limit(NO_LIMIT)
        .set_dictionary_page_size_limit(NO_LIMIT)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_bloom_filter_enabled(false);
    for column in plain {
        builder = builder.set_column_dictionary_enabled(ColumnPath::from(column.as_str()), false);
    }
    let fields: Vec<_> = rows.schema().fields().iter().map(|field| bare(field)).collect();
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(builder.build())).unwrap();
    let (mut writer, factory) = writer.into_serialized_writer().unwrap();
    let length = rows.keys().len();
    for (number, first) in (0..length).step_by(ROW_GROUP_ROWS).enumerate() {
        let mut leaf_writers = factory.create_column_writers(number).unwrap().into_iter();
        let mut group = writer.next_row_group().unwrap();
        for (index, field) in schema.fields().iter().enumerate() {
            let column = rows.column(index, first..length.min(first + ROW_GROUP_ROWS)).unwrap();
            let column = arrow::compute::cast(&column, field.data_type()).unwrap();
            for leaf in compute_leaves(field, &column).unwrap() {
                let mut leaf_writer = leaf_writers.next().unwrap();
                leaf_writer.write(&leaf).unwrap();
                leaf_writer.close().unwrap().append_to_row_group(&mut group).unwrap();
            }
        }
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

/// A field without its descriptions; the library keeps those in its log.
fn bare(field: &arrow::datatypes::Field) -> arrow::datatypes::Field {
    field.clone().with_metadata(std::collections::HashMap::new())
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    std::hint::black_box(work());
    start.elapsed()
}

fn ratio(name: &str, left: &mut [Duration], right: &mut [Duration], left_name: &str, right_name: &str) {
    let mut each: Vec<f64> =
        left.iter().zip(right.iter()).map(|(left, right)| left.as_secs_f64() / right.as_secs_f64()).collect();
    each.sort_by(f64::total_cmp);
    left.sort();
    right.sort();
    let median = |times: &[Duration]| times[times.len() / 2].as_secs_f64() * 1e3;
    println!(
        "{name:<42} {left_name} {:>8.1} ms, {right_name} {:>8.1} ms, ratio of medians {:.3}, median of ratios {:.3}",
        median(left),
        median(right),
        median(left) / median(right),
        each[each.len() / 2]
    );
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
