//! What whoever can write to the store may do to a lake, and how each ends: the right kind, the object named, no panic.
//!
//! Each attack is made on a copy of one small lake. Then everything is read as queries read it, and the lake is verified.
//! Swaps of columns, row groups and pages inside a file are tests of `lake::verify`, which knows where they lie.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use counterfoil::clock::{ManualClock, SharedClock};
use counterfoil::error::{Error, ErrorKind, Result};
use counterfoil::keys::RootKey;
use counterfoil::lake::verify::VerifyReport;
use counterfoil::lake::{Lake, StoreSettings};
use counterfoil::query::sink::{self, Layout};
use counterfoil::query::{Arguments, Format, QueryFile, QuerySettings, Session};
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;

use crate::world::{World, root};

fn clock() -> SharedClock {
    Arc::new(ManualClock::new("2026-11-01T13:00:00Z".parse().unwrap()))
}

/// A small lake with several versions and files of tickets, and all of its bytes.
struct Target {
    world: World,
    objects: BTreeMap<String, Vec<u8>>,
}

impl Target {
    async fn new() -> Self {
        let world = World::with_tickets(60).await;
        world.extract().await.unwrap();
        for touched in [[1, 2], [3, 4], [1, 5]] {
            world.sandbox.organisation().touch(&touched);
            world.extract().await.unwrap();
        }
        let objects = objects(&world.lake_folder());
        Self { world, objects }
    }

    /// The names of objects under a prefix, in their order.
    fn under(&self, prefix: &str) -> Vec<String> {
        self.objects.keys().filter(|name| name.starts_with(prefix)).cloned().collect()
    }

    /// The names of data files under a prefix, in their order; indexes stand beside them.
    fn files(&self, prefix: &str) -> Vec<String> {
        self.under(prefix).into_iter().filter(|name| name.ends_with(".parquet")).collect()
    }

    /// A copy of the lake beside its root key.
    fn copy(&self) -> Copy {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(self.world.folder.path().join("root.key"), folder.path().join("root.key")).unwrap();
        let copy = Copy { folder };
        for (name, bytes) in &self.objects {
            copy.put(name, bytes);
        }
        copy
    }
}

/// One lake under attack.
struct Copy {
    folder: TempDir,
}

impl Copy {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("lake").join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), bytes).unwrap();
    }

    fn delete(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    async fn open(&self) -> Result<Lake> {
        Lake::open(&StoreSettings::new("file:lake", self.folder.path()), &root(self.folder.path()), clock()).await
    }

    /// Reads every row of every table of the newest version.
    async fn read(&self) -> Result<usize> {
        let lake = self.open().await?;
        let manifest = lake.latest().await?;
        let session = Session::open(&lake, &manifest, &QuerySettings::default(), &clock())?;
        let mut out = Vec::new();
        for table in Lake::table_names(&manifest) {
            let file = QueryFile::inline(&format!("SELECT * FROM {table}"))?;
            let plan = session.plan(&file, &Arguments::parse(&file, &[])?).await?;
            let rows = session.stream(&plan).await?;
            sink::write(rows, Format::Ndjson, &Layout::default(), &mut out).await?;
        }
        Ok(out.len())
    }

    async fn verify(&self) -> Result<VerifyReport> {
        self.open().await?.verify(&root(self.folder.path()), None, &|_| {}).await
    }

    /// Asserts that reading ends in this kind and names the object, and that verification says the same.
    #[track_caller]
    fn assert_ends(&self, runtime: &tokio::runtime::Handle, what: &str, kind: ErrorKind, object: &str) {
        let (read, verified) =
            tokio::task::block_in_place(|| runtime.block_on(async { (self.read().await, self.verify().await) }));
        assert!(read.is_err(), "{what}: nothing was noticed");
        let error = read.err().unwrap();
        assert_eq!(error.kind(), kind, "{what}: {error:?}");
        assert!(chain(&error).contains(object), "{what}: {object} is not in {}", chain(&error));
        match verified {
            Ok(report) => {
                let named = |report: &VerifyReport| {
                    report.findings.iter().any(|finding| finding.object.contains(object) && finding.kind == kind)
                };
                assert!(named(&report), "{what}: {object} is not in {report:?}");
                assert_eq!(report.verdict().unwrap_err().kind(), kind, "{what}");
            }
            Err(error) => {
                assert_eq!(error.kind(), kind, "{what}: {error:?}");
                assert!(chain(&error).contains(object), "{what}: {object} is not in {}", chain(&error));
            }
        }
    }
}

fn objects(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            if !name.starts_with("leases") {
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}\n{cause}");
        next = cause.source();
    }
    text
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 0x10;
    bytes
}

/// A Parquet file in the clear, of columns that a forger may guess.
fn plaintext() -> Vec<u8> {
    let ids: ArrayRef = Arc::new(StringArray::from(vec!["58228e05d4e96711004eccb7"]));
    let batch = RecordBatch::try_from_iter([("ticket_id", ids)]).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lake_that_nobody_touched_reads_and_verifies() {
    let target = Target::new().await;
    let copy = target.copy();
    assert!(copy.read().await.unwrap() > 0);
    let report = copy.verify().await.unwrap();
    assert_eq!((report.findings.len(), report.garbage.len()), (0, 0), "{report:?}");
    assert!(target.files("data/tickets/").len() >= 4 && target.under("log/").len() >= 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attacks_on_data_files_are_data_errors_that_name_the_file() {
    let target = Target::new().await;
    let runtime = tokio::runtime::Handle::current();
    let tickets = target.files("data/tickets/");
    // The first file has most of the rows; each of the others has a live row.
    let (name, other) = (&tickets[0], &tickets[3]);
    let (bytes, other_bytes) = (&target.objects[name], &target.objects[other]);
    let first_module = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    let tail = u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap()) as usize;
    let mut huge = bytes.clone();
    huge[4..8].copy_from_slice(&0xffff_fff0u32.to_le_bytes());
    let foreign = target.files("data/users/").remove(0);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("flip in a page header", flipped(bytes, 4 + 4 + 12 + 2)),
        ("flip in a nonce", flipped(bytes, 9)),
        ("flip in the length of a module", flipped(bytes, 4)),
        ("module that claims 4 GiB", huge),
        ("flip in a page", flipped(bytes, 4 + 4 + first_module + 4 + 20)),
        ("flip in the key metadata", flipped(bytes, bytes.len() - 8 - tail + 60)),
        ("flip in the footer", flipped(bytes, bytes.len() - 8 - 40)),
        ("flip in the length of the footer", flipped(bytes, bytes.len() - 8)),
        ("another file of the table", other_bytes.clone()),
        ("file of another table", target.objects[&foreign].clone()),
        ("file in the clear", plaintext()),
        ("magic of a file in the clear", [&b"PAR1"[..], &bytes[4..bytes.len() - 4], b"PAR1"].concat()),
        ("tail of another file", {
            let length = u32::from_le_bytes(other_bytes[other_bytes.len() - 8..][..4].try_into().unwrap()) as usize + 8;
            [&bytes[..bytes.len() - tail - 8], &other_bytes[other_bytes.len() - length..]].concat()
        }),
        ("bytes put before it", [&b"PARE"[..], bytes].concat()),
        ("zeros of the same length", vec![0; bytes.len()]),
    ];
    for (what, forged) in cases {
        let copy = target.copy();
        copy.put(name, &forged);
        copy.assert_ends(&runtime, what, ErrorKind::Data, name);
    }
    let copy = target.copy();
    copy.put(name, other_bytes);
    copy.put(other, bytes);
    copy.assert_ends(&runtime, "two files that changed places", ErrorKind::Data, name);
    let copy = target.copy();
    copy.delete(name);
    copy.assert_ends(&runtime, "deleted", ErrorKind::Data, name);
    // Queries do not look at the first bytes, which hold nothing; verification does.
    let copy = target.copy();
    copy.put(name, &flipped(bytes, 0));
    let report = copy.verify().await.unwrap();
    assert_eq!(report.findings.iter().map(|finding| &finding.object).collect::<Vec<_>>(), [name]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncation_at_any_length_is_a_data_error() {
    let target = Target::new().await;
    let runtime = tokio::runtime::Handle::current();
    let commits = target.under("log/");
    for name in [&target.files("data/tickets/")[0], &target.files("data/tags/")[0], &commits[1]] {
        let bytes = &target.objects[name];
        let lengths = [0, 1, 4, 8, 20, bytes.len() / 2, bytes.len() - 9, bytes.len() - 1];
        for length in lengths {
            let copy = target.copy();
            copy.put(name, &bytes[..length]);
            copy.assert_ends(&runtime, &format!("{name} cut to {length}"), ErrorKind::Data, name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attacks_on_the_log_are_data_errors_that_name_the_commit() {
    let target = Target::new().await;
    let runtime = tokio::runtime::Handle::current();
    let commits: Vec<String> = target.under("log/").into_iter().filter(|name| name.ends_with(".commit")).collect();
    let of = |index: usize| &target.objects[&commits[index]];
    let next = format!("log/{:020}.commit", commits.len() + 1);
    let mut newer = of(1).clone();
    newer[5] = 2;
    let mut foreign_key = of(1).clone();
    foreign_key[12] = b'9';
    let puts: [(&str, &str, &[u8]); 8] = [
        ("older commit in place of a newer", &commits[2], of(1)),
        ("older commit under a new number", &next, of(0)),
        ("newest commit once more under a new number", &next, of(commits.len() - 1)),
        ("empty object", &commits[1], b""),
        ("empty object as the newest", &next, b""),
        ("flip", &commits[1], &flipped(of(1), of(1).len() / 2)),
        ("commit of a newer format", &commits[1], &newer),
        ("data file as a commit", &commits[1], &target.objects[&target.files("data/tickets/")[0]]),
    ];
    for (what, name, bytes) in puts {
        let copy = target.copy();
        copy.put(name, bytes);
        copy.assert_ends(&runtime, what, ErrorKind::Data, name);
    }
    // The newest commits taken away together cannot be told from the log: the high-water mark is for that.
    for missing in &commits[..commits.len() - 1] {
        let copy = target.copy();
        copy.delete(missing);
        copy.assert_ends(&runtime, "gap", ErrorKind::Data, missing);
    }
    let copy = target.copy();
    copy.put(&commits[1], &foreign_key);
    copy.assert_ends(&runtime, "commit under a key that the ring lacks", ErrorKind::Denied, &commits[1]);
    assert!(chain(&copy.read().await.unwrap_err()).contains("ring-9"), "the key that is missing is named");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_root_key_is_denied_and_shows_no_key() {
    let target = Target::new().await;
    let copy = target.copy();
    fs::remove_file(copy.folder.path().join("root.key")).unwrap();
    RootKey::create_file(&copy.folder.path().join("root.key")).unwrap();
    let error = copy.read().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let (mine, theirs) = (copy.folder.path().join("root.key"), target.world.folder.path().join("root.key"));
    for key in [mine, theirs] {
        let text = fs::read_to_string(key).unwrap();
        let bytes = text.trim().rsplit(':').next().unwrap();
        assert!(!format!("{}{error:?}", chain(&error)).contains(bytes), "{error:?}");
    }
    assert!(chain(&error).contains("file:root.key"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lakes_of_newer_formats_and_mixed_lakes_are_told_apart() {
    let target = Target::new().await;
    let other = Target::new().await;
    let runtime = tokio::runtime::Handle::current();
    let ring = &target.under("keys/")[0];
    let log = |target: &Target| target.under("log/");

    let copy = target.copy();
    let claim = String::from_utf8(target.objects["lake.json"].clone()).unwrap();
    copy.put("lake.json", claim.replace("\"format\":1", "\"format\":2").as_bytes());
    copy.assert_ends(&runtime, "lake of a newer format", ErrorKind::Data, "lake.json");
    let mut newer = target.objects[ring].clone();
    newer[6] = 2;
    let copy = target.copy();
    copy.put(ring, &newer);
    assert_eq!(copy.read().await.unwrap_err().hint(), Some("upgrade counterfoil"));

    let copy = target.copy();
    copy.put(ring, &other.objects[ring]);
    let error = copy.read().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data, "{error:?}");
    assert!(chain(&error).contains("another lake"), "{error:?}");
    let copy = target.copy();
    copy.put("lake.json", &other.objects["lake.json"]);
    assert_eq!(copy.read().await.unwrap_err().kind(), ErrorKind::Data);
    let copy = target.copy();
    copy.put("lake.json", &other.objects["lake.json"]);
    copy.put(ring, &other.objects[ring]);
    assert_eq!(copy.read().await.unwrap_err().kind(), ErrorKind::Denied, "the root key is not the other lake's");

    // Two lakes in one root: the other one's log over ours, or after it.
    let copy = target.copy();
    for name in other.under("log/").iter().chain(&other.under("data/")) {
        copy.put(name, &other.objects[name]);
    }
    copy.assert_ends(&runtime, "two lakes mixed", ErrorKind::Data, &log(&other)[0]);
    let copy = target.copy();
    let next = format!("log/{:020}.commit", log(&target).len() + 1);
    copy.put(&next, &other.objects[log(&other).last().unwrap()]);
    copy.assert_ends(&runtime, "commit of another lake", ErrorKind::Data, &next);
    // What only lies beside ours is garbage, and in nobody's way.
    let copy = target.copy();
    for name in other.under("data/") {
        copy.put(&name, &other.objects[&name]);
    }
    assert!(copy.read().await.is_ok());
    let report = copy.verify().await.unwrap();
    assert_eq!((report.findings.len(), report.garbage.len()), (0, other.under("data/").len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flip_anywhere_in_a_real_lake_is_found() {
    let target = Target::new().await;
    // A plain generator: the positions are the same in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for (name, bytes) in &target.objects {
        if name == "lake.json" {
            continue;
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let copy = target.copy();
        copy.put(name, &flipped(bytes, (state >> 16) as usize % bytes.len()));
        match copy.verify().await {
            Ok(report) => assert!(report.findings.iter().any(|finding| finding.object == *name), "{name}: {report:?}"),
            Err(error) => {
                assert!(name.starts_with("keys/"), "{name}: {error:?}");
                assert!(matches!(error.kind(), ErrorKind::Data | ErrorKind::Denied), "{error:?}");
            }
        }
    }
}

/// The command under a bound of memory that a forged length would break.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_lengths_do_not_make_the_program_allocate_them() {
    let target = Target::new().await;
    let tickets = &target.files("data/tickets/")[0];
    let bytes = &target.objects[tickets];
    let mut module = bytes.clone();
    module[4..8].copy_from_slice(&0xffff_fff0u32.to_le_bytes());
    let mut footer = bytes.clone();
    let at = bytes.len() - 8;
    footer[at..at + 4].copy_from_slice(&0xffff_fff0u32.to_le_bytes());
    for forged in [module, footer] {
        let copy = target.copy();
        copy.put(tickets, &forged);
        fs::write(copy.folder.path().join("counterfoil.toml"), "[lake]\nurl = \"file:lake\"\n").unwrap();
        for command in ["lake verify", "query -e 'SELECT * FROM tickets' --format csv"] {
            let line = format!("ulimit -v 3000000; exec {} {command}", env!("CARGO_BIN_EXE_counterfoil"));
            let output = Command::new("sh")
                .args(["-c", &line])
                .current_dir(copy.folder.path())
                .env_clear()
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(5), "{command}: {stderr}");
            let all = format!("{stderr}{}", String::from_utf8_lossy(&output.stdout));
            assert!(all.contains(tickets) && !all.contains("panicked"), "{command}: {all}");
        }
    }
}
