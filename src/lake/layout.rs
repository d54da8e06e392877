//! Names of the objects under a lake's root, and the object that says that a root is a lake.
//!
//! ```text
//! <root>/lake.json                          {"format":1,"id":"<uuid>"}: claims the root, no secrets
//! <root>/keys/ring-00000001                 the key ring, sealed by the root key: the highest version is in force, the first
//!                                           one makes the lake exist
//! <root>/keys/restricted-00000001           the restricted ring, where there is one, sealed by a root key of its own
//! <root>/log/00000000000000000001.commit    one sealed object per version
//! <root>/log/00000000000000000020.snapshot  all commits up to a version in one sealed object
//! <root>/log/00000000000000000017.start     empty: versions before this one are not kept
//! <root>/data/<table>/<uuid-v7>.parquet     immutable encrypted Parquet
//! <root>/data/ticket_lists/<uuid-v7>.parquet  the ids of a recorded ticket list
//! <root>/data/<table>/<uuid-v7>.index       where its ids stand, encrypted; not for every file
//! <root>/leases/<purpose>/<number>          who extracts, or tidies up, and until when; the highest number counts
//! ```
//!
//! Both objects of a new lake are put with [`PutMode::Create`](object_store::PutMode::Create), `lake.json` first: it
//! fixes the id that the ring is bound to, so that two makers at once, or one that repeats after a crash, agree on the
//! id and race for one thing only, the first ring. A root without a ring holds no lake yet.
//!
//! Reader rule: a `format` above [`FORMAT`] is refused, unknown fields are ignored. Writer rule: a change that an older
//! reader would misunderstand raises `format`.

use bytes::Bytes;
use object_store::ObjectStore;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use uuid::{NoContext, Timestamp, Uuid};

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::keys::Series;
use crate::lake::lease::Purpose;
use crate::lake::store;
use crate::model::Stream;

/// The format of `lake.json` and of the layout that this program reads and writes.
pub(super) const FORMAT: u32 = 1;

/// Folder of the commits and snapshots.
pub(super) const LOG: &str = "log";
/// Folder of the key rings.
pub(super) const KEYS: &str = "keys";
/// Folder of the data files.
pub(super) const DATA: &str = "data";
/// Folder of the leases.
pub(super) const LEASES: &str = "leases";

/// No `lake.json` and no ring comes near this.
const SMALL_OBJECT_BYTES: u64 = 1 << 20;

/// Name of the object that claims the root.
pub(super) fn lake() -> Path {
    Path::from("lake.json")
}

/// Name of a key ring.
pub(super) fn ring(version: u32) -> Path {
    ring_of(Series::Main, version)
}

/// Name of a key ring of one of the two series.
pub(super) fn ring_of(series: Series, version: u32) -> Path {
    Path::from(format!("{KEYS}/{}{version:08}", series.prefix()))
}

/// Name of a commit.
pub(super) fn commit(version: u64) -> Path {
    Path::from(format!("{LOG}/{version:020}.commit"))
}

/// Name of a snapshot.
pub(super) fn snapshot(version: u64) -> Path {
    Path::from(format!("{LOG}/{version:020}.snapshot"))
}

/// Name of the object that says that the log begins with a version.
pub(super) fn start(version: u64) -> Path {
    Path::from(format!("{LOG}/{version:020}.start"))
}

/// Folder of the leases for a purpose.
pub(super) fn leases(purpose: Purpose) -> Path {
    Path::from(format!("leases/{}", purpose.name()))
}

/// Name of a lease.
pub(super) fn lease(purpose: Purpose, number: u64) -> Path {
    Path::from(format!("leases/{}/{number:020}", purpose.name()))
}

/// A name for an object that is removed as soon as it is made.
pub(super) fn probe(clock: &dyn Clock) -> Path {
    Path::from(format!("leases/probe-{}", new_uuid(clock)))
}

/// Tells whether a path is one that [`probe`] makes.
pub(super) fn is_probe(path: &Path) -> bool {
    path.as_ref().strip_prefix("leases/probe-").is_some_and(|name| Uuid::try_parse(name).is_ok())
}

/// A name for a new data file: unique, and ordered by time.
pub(super) fn new_data_file(stream: Stream, clock: &dyn Clock) -> String {
    format!("{DATA}/{}/{}.parquet", stream.table(), new_uuid(clock))
}

/// Name of the index beside a data file.
pub(super) fn index_of(data_file: &str) -> String {
    format!("{}.index", data_file.strip_suffix(".parquet").unwrap_or(data_file))
}

/// Tells whether a path is one that [`new_data_file`] makes for the stream.
pub(super) fn is_data_file(stream: Stream, path: &str) -> bool {
    path.strip_prefix("data/")
        .and_then(|rest| rest.strip_prefix(stream.table()))
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|rest| rest.strip_suffix(".parquet"))
        .is_some_and(|name| Uuid::try_parse(name).is_ok())
}

/// Returns when the name of a data file was made, milliseconds since 1970.
pub(super) fn made_ms(path: &str) -> Option<i64> {
    let name = path.rsplit('/').next()?.split('.').next()?;
    let (seconds, nanos) = Uuid::try_parse(name).ok()?.get_timestamp()?.to_unix();
    i64::try_from(seconds).ok()?.checked_mul(1_000)?.checked_add(i64::from(nanos / 1_000_000))
}

/// Makes a UUID version 7 of the clock's time.
pub(super) fn new_uuid(clock: &dyn Clock) -> Uuid {
    let now = clock.now();
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.subsec_nanosecond().unsigned_abs()))
}

/// What `lake.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    format: u32,
    /// The lake's id, which every sealed object is bound to.
    pub(super) id: String,
}

impl Claim {
    /// Makes the claim of a new lake.
    pub(super) fn new(clock: &dyn Clock) -> Self {
        Self { format: FORMAT, id: new_uuid(clock).to_string() }
    }

    /// Puts the claim; tells whether it was put (`false`: the root has one).
    pub(super) async fn put(&self, store: &dyn ObjectStore) -> Result<bool> {
        let text = serde_json::to_vec(self)
            .map_err(|error| Error::internal("failed to write lake.json").with_source(error))?;
        store::create(store, &lake(), Bytes::from(text)).await
    }

    /// Reads the root's claim.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Data`](crate::error::ErrorKind::Data) when it cannot be read or is of a newer format.
    pub(super) async fn get(store: &dyn ObjectStore) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let Some(bytes) = store::read(store, &lake(), SMALL_OBJECT_BYTES).await? else { return Ok(None) };
        let damaged = |error| Error::data("failed to read lake.json").with_source(error);
        let Head { format } = serde_json::from_slice(&bytes).map_err(damaged)?;
        check_format("lake.json", format)?;
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }
}

/// Refuses an object of a format that this program does not know.
pub(super) fn check_format(object: &str, format: u32) -> Result<()> {
    if (1..=FORMAT).contains(&format) {
        return Ok(());
    }
    Err(Error::data("the lake has a format that this program does not know")
        .with_context("object", object)
        .with_context("format", format)
        .with_context("known", FORMAT)
        .with_hint("upgrade counterfoil"))
}

/// Reads the bytes of a key ring.
pub(super) async fn read_ring(store: &dyn ObjectStore, version: u32) -> Result<Option<Bytes>> {
    read_ring_of(store, Series::Main, version).await
}

/// Reads the bytes of a key ring of one of the two series.
pub(super) async fn read_ring_of(store: &dyn ObjectStore, series: Series, version: u32) -> Result<Option<Bytes>> {
    store::read(store, &ring_of(series, version), SMALL_OBJECT_BYTES).await
}

/// Returns the version and the kind (`commit`, `snapshot`) in the name of an object of the log.
pub(super) fn log_version(path: &Path) -> Option<(u64, &str)> {
    let (digits, kind) = path.filename()?.split_once('.')?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten().map(|version| (version, kind))
}

/// Returns the version in a ring's name.
pub(super) fn ring_version(path: &Path) -> Option<u32> {
    ring_version_of(Series::Main, path)
}

/// Returns the version in the name of a ring of one of the two series.
pub(super) fn ring_version_of(series: Series, path: &Path) -> Option<u32> {
    let digits = path.filename()?.strip_prefix(series.prefix())?;
    (digits.len() == 8).then(|| digits.parse().ok()).flatten()
}
