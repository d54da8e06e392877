//! Each stage of the two hot paths on its own: a page on its way into the lake, and a query on its way out.
//!
//! ```text
//! cargo bench --bench stages [-- FILTER] [--sample-count 20]
//! ```
//!
//! `extract` follows a page of 500 tickets: decoded and redacted (bytes of JSON a second; `serde_json` into values and into
//! nothing stand beside it), sorted and encoded as an encrypted file (beside the `parquet` crate writing the same columns in
//! the clear), committed. `query` opens a lake of 20,000 tickets, plans, checks and runs SQL. `keys` opens the ring. Ratios
//! between lines of one run are what to look at; the absolute figures are this machine's of this minute.

#![expect(clippy::unwrap_used, reason = "a bench ends where it fails")]
#![expect(clippy::wildcard_imports, reason = "modules group what the output shows together")]

use std::fs;
use std::sync::{Arc, LazyLock};

use counterfoil::clock::{SharedClock, SystemClock};
use counterfoil::keys::{KeyRing, RootKey};
use counterfoil::kustomer::{Client, ClientSettings, Credential, Endpoint};
use counterfoil::lake::file::encode;
use counterfoil::lake::{Lake, StoreSettings};
use counterfoil::model::Stream;
use counterfoil::policy::{Decoder, Definitions, Policy, RedactedBatch, SortedRows};
use counterfoil::sandbox::{Sandbox, SandboxSettings};
use counterfoil::schema::Schemas;
use counterfoil::secret::SecretString;
use counterfoil::{NoProgress, Project, QueryFile};
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tokio::runtime::Runtime;

/// Tickets of the lake that queries read.
const TICKETS: u64 = 20_000;

fn main() {
    divan::main();
}

/// What is made once for all benches.
struct Workshop {
    runtime: Runtime,
    folder: tempfile::TempDir,
    project: Project,
    lake: Lake,
    definitions: Vec<u8>,
    page: Vec<u8>,
}

static WORKSHOP: LazyLock<Workshop> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (project, lake, definitions, page) = runtime.block_on(async {
        let unbound = SandboxSettings {
            tickets: TICKETS,
            org_rpm: 1_000_000,
            search_rpm: 1_000_000,
            ..SandboxSettings::default()
        };
        let sandbox = Sandbox::start(unbound, Arc::new(SystemClock)).await.unwrap();
        fs::write(folder.path().join("api.key"), sandbox.api_key()).unwrap();
        let settings = format!(
            "[source]\nbase_url = \"{}\"\napi_key = \"file:api.key\"\nshare = 1.0\norg_rpm = 100000\nsearch_rpm = 100000\n\
             [extract]\nindex_lag = \"0s\"\n",
            sandbox.base_url()
        );
        let project = Project::parse(&settings, folder.path()).unwrap();
        let lake = project.create().await.unwrap();
        let report = project.extract(&lake, &project.extract_settings(), &NoProgress, std::future::pending()).await;
        report.unwrap().into_result().unwrap();
        let settings = ClientSettings {
            base_url: sandbox.base_url().parse().unwrap(),
            credential: Credential::ApiKey(SecretString::new(sandbox.api_key().to_owned())),
            org_rpm: 100_000,
            search_rpm: 100_000,
            share: 1.0,
            reserve: 0,
            timeout: std::time::Duration::from_secs(30),
            attempts: 1,
        };
        let client = Client::try_new(settings, Arc::new(SystemClock), 1).unwrap();
        let definitions = client.get(Endpoint::Metadata, "/v1/metadata/conversation").await.unwrap().to_vec();
        let records: Vec<_> = (0..500).map(|number| sandbox.organisation().conversation(number)).collect();
        let page = serde_json::to_vec(&serde_json::json!({ "meta": { "total": 500 }, "data": records })).unwrap();
        sandbox.shutdown().await;
        (project, lake, definitions, page)
    });
    Workshop { runtime, folder, project, lake, definitions, page }
});

impl Workshop {
    fn decoder(&self, policy: &Policy) -> Decoder {
        let mut definitions = Definitions::default();
        definitions.add(Stream::Tickets, &self.definitions).unwrap();
        let keys = self.lake.ring().pseudonym_keys(1).unwrap();
        policy.decoder(Stream::Tickets, &definitions, &keys).unwrap()
    }

    fn rows(&self) -> RedactedBatch {
        let mut decoder = self.decoder(&shipped());
        decoder.push_page(&self.page).unwrap();
        decoder.finish().unwrap()
    }

    /// Reads the settings' lake anew, as a process does that has just started.
    fn reopen(&self) -> Lake {
        self.runtime.block_on(self.project.open()).unwrap()
    }
}

fn shipped() -> Policy {
    Policy::compile(&Schemas::builtin().unwrap()).unwrap()
}

mod extract {
    use super::*;

    /// The decoder, from bytes of a page to redacted columns.
    #[divan::bench]
    fn decode_and_redact(bencher: Bencher) {
        let decoder = WORKSHOP.decoder(&shipped());
        bencher.counter(BytesCount::of_slice(&WORKSHOP.page)).with_inputs(|| decoder.fork()).bench_local_values(
            |mut decoder| {
                decoder.push_page(black_box(&WORKSHOP.page)).unwrap();
                decoder
            },
        );
    }

    /// A decoder that has seen a page before: it knows in which order keys come.
    #[divan::bench]
    fn decode_and_redact_warm(bencher: Bencher) {
        let mut decoder = WORKSHOP.decoder(&shipped());
        bencher.counter(BytesCount::of_slice(&WORKSHOP.page)).bench_local(|| {
            decoder.push_page(black_box(&WORKSHOP.page)).unwrap();
            decoder.finish().unwrap()
        });
    }

    /// For comparison: all values, as a tree.
    #[divan::bench]
    fn serde_json_values(bencher: Bencher) {
        bencher
            .counter(BytesCount::of_slice(&WORKSHOP.page))
            .bench_local(|| serde_json::from_slice::<serde_json::Value>(black_box(&WORKSHOP.page)).unwrap());
    }

    /// For comparison: the grammar checked, nothing kept.
    #[divan::bench]
    fn serde_json_nothing(bencher: Bencher) {
        bencher
            .counter(BytesCount::of_slice(&WORKSHOP.page))
            .bench_local(|| serde_json::from_slice::<serde::de::IgnoredAny>(black_box(&WORKSHOP.page)).unwrap());
    }

    /// 10,000 rows in the order of their keys, as an encrypted file in memory.
    #[divan::bench(sample_count = 20)]
    fn encode_encrypted(bencher: Bencher) {
        let rows = ten_thousand();
        let ring = KeyRing::generate("bench", 0).unwrap();
        bencher
            .counter(ItemsCount::new(10_000_usize))
            .bench_local(|| encode("data/tickets/x.parquet", black_box(&rows), &ring).unwrap().0.len());
    }

    /// For comparison: a batch of the same number of rows by the `parquet` crate, with its defaults, compressed and in the clear.
    #[divan::bench(sample_count = 20)]
    fn encode_plain_by_the_parquet_crate(bencher: Bencher) {
        let page = WORKSHOP.rows();
        let zstd = Compression::ZSTD(ZstdLevel::try_new(1).unwrap());
        let properties = WriterProperties::builder().set_compression(zstd).build();
        bencher.counter(ItemsCount::new(10_000_usize)).bench_local(|| {
            let mut writer = ArrowWriter::try_new(Vec::new(), page.batch().schema(), Some(properties.clone())).unwrap();
            for _ in 0..20 {
                writer.write(black_box(page.batch())).unwrap();
            }
            writer.into_inner().unwrap().len()
        });
    }

    /// A commit of 500 rows that the lake does not have, to a folder: files, index, log, and waiting for the disk.
    #[divan::bench(sample_count = 20, sample_size = 1)]
    fn commit_to_a_folder(bencher: Bencher) {
        let root = root();
        let rows = WORKSHOP.rows();
        let mut number = 0;
        bencher
            .counter(ItemsCount::new(500_usize))
            .with_inputs(|| {
                number += 1;
                let settings = StoreSettings::new(format!("file:commit{number}"), WORKSHOP.folder.path());
                let clock: SharedClock = Arc::new(SystemClock);
                WORKSHOP.runtime.block_on(Lake::create(&settings, &root, clock)).unwrap()
            })
            .bench_local_values(|lake| {
                let mut transaction = lake.transaction();
                transaction.append(rows.clone());
                WORKSHOP.runtime.block_on(transaction.commit()).unwrap();
            });
    }

    fn ten_thousand() -> SortedRows {
        let pages: Vec<RedactedBatch> = (0..20).map(|_| WORKSHOP.rows()).collect();
        SortedRows::try_new(&pages).unwrap()
    }
}

mod query {
    use super::*;

    /// Keys, log and manifest of the lake, from disk.
    #[divan::bench]
    fn open_the_lake(bencher: Bencher) {
        bencher.bench_local(|| {
            let lake = WORKSHOP.reopen();
            WORKSHOP.runtime.block_on(lake.latest()).unwrap()
        });
    }

    /// From SQL to the last row, in a process that has the lake open.
    #[divan::bench(args = ["reopened_vip", "unassigned_backlog", "weekly_volume_by_channel"])]
    fn run(bencher: Bencher, name: &str) {
        let file = library(name);
        bencher.counter(ItemsCount::new(TICKETS)).bench_local(|| rows(&file));
    }

    /// The least that any query costs.
    #[divan::bench]
    fn run_nothing(bencher: Bencher) {
        let file = QueryFile::inline("SELECT 1").unwrap();
        bencher.bench_local(|| rows(&file));
    }

    fn library(name: &str) -> QueryFile {
        let text = counterfoil::query::BUILTIN.iter().find(|(file, _)| *file == format!("{name}.sql")).unwrap().1;
        QueryFile::parse(name, text).unwrap()
    }

    fn rows(file: &QueryFile) -> usize {
        WORKSHOP.runtime.block_on(async {
            let mut rows = WORKSHOP.project.query(&WORKSHOP.lake, file, &[]).await.unwrap();
            let mut count = 0;
            while let Some(batch) = rows.next().await.unwrap() {
                count += batch.num_rows();
            }
            count
        })
    }
}

mod keys {
    use super::*;

    /// What each command does before it reads anything: the ring, unsealed by the root key.
    #[divan::bench]
    fn open_the_ring(bencher: Bencher) {
        let root = root();
        let ring = KeyRing::generate("bench", 0).unwrap();
        let sealed = WORKSHOP.runtime.block_on(ring.seal(&root)).unwrap();
        bencher.bench_local(|| WORKSHOP.runtime.block_on(KeyRing::open("bench", 1, &sealed, &root)).unwrap());
    }
}

fn root() -> RootKey {
    let path = WORKSHOP.folder.path().join("bench.key");
    if !path.exists() {
        RootKey::create_file(&path).unwrap();
    }
    RootKey::read("file:bench.key", WORKSHOP.folder.path()).unwrap()
}
