//! The object store of a lake: which URLs there are, how bytes are put so that they last, and what a failed call means.
//!
//! `object_store` never syncs a file (ENCRYPTION.md, trap 11), so a commit on a local disk could survive a power cut
//! while the files it names do not. [`SyncedFileSystem`] closes that: a put returns only when the bytes, the name and
//! every folder on the way are on the disk. The order of the puts (data first, the commit last) does the rest.
//!
//! ```text
//! put:  write NAME#DIGITS (0600) ─▶ fsync ─▶ link or rename to NAME ─▶ fsync the folder and, once, its parents (0700)
//! ```
//!
//! An object is therefore whole or absent. A crash leaves at most a `NAME#DIGITS`, which is never listed and never read.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use crate::error::{Error, ErrorKind, Result};

/// Whether a local folder may be made when the store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Make it.
    Create,
    /// Report that there is no lake.
    Refuse,
}

/// Opens the store that a URL names; returns it with the URL as messages print it.
///
/// # Errors
///
/// [`ErrorKind::Config`] for an unknown scheme, a URL without a path and a missing folder; [`ErrorKind::Denied`] when
/// the folder cannot be made.
pub(super) fn open(url: &str, base: &FilePath, missing: Missing) -> Result<(Arc<dyn ObjectStore>, String)> {
    let known = "the stores of this release are file:PATH and memory:";
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err(Error::config("lake URL has no scheme").with_context("url", shown(url)).with_hint(known));
    };
    match scheme {
        "memory" => match missing {
            Missing::Create => Ok((Arc::new(InMemory::new()), "memory:".to_owned())),
            Missing::Refuse => Err(Error::config("a lake in memory ends with the process that made it")
                .with_context("url", shown(url))
                .with_hint("use a file: lake")),
        },
        "file" => {
            let path = file_path(rest, base).map_err(|error| error.with_context("url", shown(url)))?;
            let shown = format!("file:{}", path.display());
            Ok((Arc::new(SyncedFileSystem::open(&path, missing)?), shown))
        }
        _ => Err(Error::config("unknown scheme of lake URL")
            .with_context("scheme", scheme)
            .with_context("url", shown(url))
            .with_hint(known)),
    }
}

/// A URL without what may carry a credential: its query and the user before an `@`.
fn shown(url: &str) -> &str {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    if url.contains('@') { "(not shown, it may hold a credential)" } else { url }
}

fn file_path(rest: &str, base: &FilePath) -> Result<PathBuf> {
    let path = match rest.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        Some(_) => return Err(Error::config("lake URL names a host").with_hint("write file:PATH or file:///PATH")),
        None => rest,
    };
    if path.is_empty() {
        return Err(Error::config("lake URL has no path"));
    }
    Ok(base.join(path))
}

/// Makes the crate's error of a failed store call.
///
/// Missing rights are [`ErrorKind::Denied`]; what is absent is [`ErrorKind::Data`], because the lake's own records name
/// it; all else may pass and is [`ErrorKind::Unavailable`].
pub(super) fn failed(action: &'static str, object: &Path, error: object_store::Error) -> Error {
    let kind = match &error {
        object_store::Error::NotFound { .. } => ErrorKind::Data,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => ErrorKind::Denied,
        other => match io_kind(other) {
            Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => ErrorKind::Denied,
            _ => ErrorKind::Unavailable,
        },
    };
    Error::new(kind, format!("failed to {action} an object of the lake"))
        .with_context("object", object)
        .with_source(error)
}

fn io_kind(error: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        next = error.source();
    }
    None
}

/// Puts an object that must not exist yet; tells whether it was put (`false`: there is one of that name).
pub(super) async fn create(store: &dyn ObjectStore, object: &Path, bytes: Bytes) -> Result<bool> {
    match store.put_opts(object, bytes.into(), PutMode::Create.into()).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
        Err(error) => Err(failed("write", object, error)),
    }
}

/// Reads a whole object of at most `limit_bytes`; `None` when there is none.
pub(super) async fn read(store: &dyn ObjectStore, object: &Path, limit_bytes: u64) -> Result<Option<Bytes>> {
    let found = match store.get(object).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(failed("read", object, error)),
    };
    if found.meta.size > limit_bytes {
        return Err(Error::data("object of the lake is larger than any that is written")
            .with_context("object", object)
            .with_context("bytes", found.meta.size)
            .with_context("limit", limit_bytes));
    }
    found.bytes().await.map(Some).map_err(|error| failed("read", object, error))
}

/// Lists the files of puts that were cut off: those last changed before a time (milliseconds since 1970), or all; not those
/// in the folder that is spared.
pub(super) fn staged(root: &FilePath, before_ms: Option<i64>, spared: Option<&FilePath>) -> Result<Vec<PathBuf>> {
    let mut staged = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let failed = |error| folder_error("failed to look through a folder of the lake", &folder, error);
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            if meta.is_dir() && spared != Some(path.as_path()) {
                folders.push(path);
            } else if meta.is_file() && is_staged(&path) {
                let changed = meta.modified().map_err(failed)?.duration_since(UNIX_EPOCH).unwrap_or_default();
                if before_ms.is_none_or(|cut| i64::try_from(changed.as_millis()).is_ok_and(|changed| changed < cut)) {
                    staged.push(path);
                }
            }
        }
    }
    staged.sort();
    Ok(staged)
}

/// Tells whether a name is one that [`Target::stage`] makes.
fn is_staged(path: &FilePath) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.rsplit_once('#'))
        .is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()))
}

/// A local folder whose puts are durable when they return.
#[derive(Debug)]
pub(super) struct SyncedFileSystem {
    inner: LocalFileSystem,
    root: PathBuf,
    /// Folders whose own entry is known to be on the disk.
    synced: Arc<Mutex<HashSet<PathBuf>>>,
}

impl SyncedFileSystem {
    /// Opens a folder.
    pub(super) fn open(root: &FilePath, missing: Missing) -> Result<Self> {
        if missing == Missing::Create {
            create_folders(root).map_err(|error| folder_error("failed to make the lake's folder", root, error))?;
        }
        let root = root.canonicalize().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => no_lake().with_context("folder", root.display()),
            _ => folder_error("failed to open the lake's folder", root, error),
        })?;
        let inner = LocalFileSystem::new_with_prefix(&root)
            .map_err(|error| Error::config("failed to open the lake's folder").with_source(error))?;
        Ok(Self { inner, root, synced: Arc::default() })
    }
}

/// The error of a place that holds no lake.
pub(super) fn no_lake() -> Error {
    Error::config("there is no lake")
        .with_hint("check the setting `lake.url`; `counterfoil init FOLDER` makes a new folder with an empty lake")
}

fn folder_error(message: &'static str, folder: &FilePath, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => ErrorKind::Config,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, message).with_context("folder", folder.display()).with_source(error)
}

impl fmt::Display for SyncedFileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file:{}", self.root.display())
    }
}

#[async_trait]
impl ObjectStore for SyncedFileSystem {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        if matches!(options.mode, PutMode::Update(_)) {
            return Err(unsupported("put with PutMode::Update", self));
        }
        let target = Target {
            file: self.inner.path_to_filesystem(location)?,
            root: self.root.clone(),
            synced: Arc::clone(&self.synced),
            exclusive: options.mode == PutMode::Create,
        };
        tokio::task::spawn_blocking(move || target.write(&payload)).await?
    }

    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        Err(unsupported("put in parts", self))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> object_store::Result<()> {
        Err(unsupported("copy", self))
    }
}

/// Whatever would bypass the sync is refused, so that nobody comes to rely on it.
fn unsupported(operation: &str, store: &SyncedFileSystem) -> object_store::Error {
    object_store::Error::NotImplemented { operation: operation.to_owned(), implementer: store.to_string() }
}

/// One put in progress.
struct Target {
    file: PathBuf,
    root: PathBuf,
    synced: Arc<Mutex<HashSet<PathBuf>>>,
    exclusive: bool,
}

impl Target {
    fn write(&self, payload: &PutPayload) -> object_store::Result<PutResult> {
        let folder = self.file.parent().unwrap_or(&self.root);
        create_folders(folder).map_err(|error| self.error(error))?;
        let (staged, file) = self.stage().map_err(|error| self.error(error))?;
        let written = fill(file, payload).and_then(|()| self.publish(&staged));
        if written.is_err() || self.exclusive {
            // The name stays behind only if the removal fails; it is never read.
            let _ = std::fs::remove_file(&staged);
        }
        written.and_then(|()| self.sync_folders(folder)).map_err(|error| self.error(error))?;
        Ok(PutResult { e_tag: None, version: None })
    }

    /// Makes the file that is written before the name is given.
    fn stage(&self) -> io::Result<(PathBuf, File)> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut number = 1_u64;
        loop {
            // Digits after the last '#' are what LocalFileSystem takes for a write in progress and never lists.
            let mut staged = self.file.clone().into_os_string();
            staged.push(format!("#{number}"));
            match options.open(&staged) {
                Ok(file) => return Ok((PathBuf::from(staged), file)),
                // Another writer's, or what a crash has left.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn publish(&self, staged: &FilePath) -> io::Result<()> {
        if self.exclusive { std::fs::hard_link(staged, &self.file) } else { std::fs::rename(staged, &self.file) }
    }

    /// Syncs the file's folder, and each folder above it down from the lake's parent once per process.
    fn sync_folders(&self, folder: &FilePath) -> io::Result<()> {
        sync_folder(folder)?;
        for inside in folder.ancestors() {
            if self.synced.lock().unwrap_or_else(PoisonError::into_inner).contains(inside) {
                break;
            }
            // A folder's own entry stands in the one above it, which may be old and known and still not hold it.
            let Some(above) = inside.parent() else { break };
            match sync_folder(above) {
                // Above the lake others own the folders; one that may not be opened was not made by us.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !above.starts_with(&self.root) => {
                    break;
                }
                other => other?,
            }
            self.synced.lock().unwrap_or_else(PoisonError::into_inner).insert(inside.to_path_buf());
        }
        Ok(())
    }

    fn error(&self, error: io::Error) -> object_store::Error {
        let path = self.file.display().to_string();
        match error.kind() {
            io::ErrorKind::AlreadyExists => object_store::Error::AlreadyExists { path, source: error.into() },
            io::ErrorKind::PermissionDenied => object_store::Error::PermissionDenied { path, source: error.into() },
            _ => object_store::Error::Generic { store: "file", source: error.into() },
        }
    }
}

fn fill(mut file: File, payload: &PutPayload) -> io::Result<()> {
    for part in payload {
        file.write_all(part)?;
    }
    file.sync_all()
}

fn create_folders(folder: &FilePath) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(unix)]
fn sync_folder(folder: &FilePath) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Elsewhere a folder cannot be opened as a file; its entries are journaled by the file system.
#[cfg(not(unix))]
fn sync_folder(_folder: &FilePath) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn put(store: &dyn ObjectStore, name: &str, text: &'static str) -> bool {
        create(store, &Path::from(name), Bytes::from_static(text.as_bytes())).await.unwrap()
    }

    fn names(folder: &FilePath) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn second_create_of_a_name_is_refused_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (store, shown) = open("file:lake", folder.path(), Missing::Create).unwrap();
        assert_eq!(shown, format!("file:{}", folder.path().join("lake").display()));
        assert!(put(store.as_ref(), "log/1", "first").await);
        assert!(!put(store.as_ref(), "log/1", "second").await);
        assert_eq!(read(store.as_ref(), &Path::from("log/1"), 5).await.unwrap().unwrap(), "first");
        assert_eq!(names(&folder.path().join("lake/log")), ["1"], "no staged file is left");
        store.put(&Path::from("log/1"), "third".into()).await.unwrap();
        assert_eq!(read(store.as_ref(), &Path::from("log/1"), 5).await.unwrap().unwrap(), "third");
        assert_eq!(names(&folder.path().join("lake/log")), ["1"]);
    }

    #[tokio::test]
    async fn staged_file_of_a_crash_is_not_listed_and_not_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open("file:lake", folder.path(), Missing::Create).unwrap();
        std::fs::create_dir(folder.path().join("lake/log")).unwrap();
        std::fs::write(folder.path().join("lake/log/1#1"), "half").unwrap();
        assert!(put(store.as_ref(), "log/1", "whole").await);
        let listed: Vec<ObjectMeta> = store.list(None).try_collect_all().await;
        assert_eq!(listed.iter().map(|object| object.location.as_ref()).collect::<Vec<_>>(), ["log/1"]);
        assert_eq!(read(store.as_ref(), &Path::from("log/1"), 5).await.unwrap().unwrap(), "whole");
    }

    trait Collect<T> {
        async fn try_collect_all(self) -> Vec<T>;
    }

    impl<T> Collect<T> for BoxStream<'static, object_store::Result<T>> {
        async fn try_collect_all(self) -> Vec<T> {
            futures::TryStreamExt::try_collect(self).await.unwrap()
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn files_and_folders_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open("file:lake", folder.path(), Missing::Create).unwrap();
        put(store.as_ref(), "data/tickets/1", "x").await;
        for (name, mode) in [("lake", 0o700), ("lake/data/tickets", 0o700), ("lake/data/tickets/1", 0o600)] {
            let found = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(found & 0o777, mode, "{name}");
        }
    }

    #[tokio::test]
    async fn calls_that_would_not_be_synced_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open("file:lake", folder.path(), Missing::Create).unwrap();
        put(store.as_ref(), "a", "x").await;
        let (from, to) = (Path::from("a"), Path::from("b"));
        assert!(store.copy(&from, &to).await.is_err());
        assert!(store.put_multipart(&to).await.is_err());
        assert!(store.get(&to).await.is_err(), "nothing was made");
    }

    #[test]
    fn wrong_urls_are_refused_with_the_reason() {
        let base = FilePath::new("/nowhere");
        for (url, missing, part) in [
            ("lake", Missing::Create, "no scheme"),
            ("s4:bucket", Missing::Create, "unknown scheme of lake URL (scheme: s4"),
            ("file:", Missing::Create, "no path"),
            ("file://host/lake", Missing::Create, "names a host"),
            ("file:lake", Missing::Refuse, "there is no lake"),
            ("memory:", Missing::Refuse, "ends with the process"),
        ] {
            let error = open(url, base, missing).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(error.to_string().contains(part), "{url}: {error}");
            assert!(error.hint().is_some() || url == "file:", "{url}");
        }
        let error = open("s3://user:word@bucket/x?secret=1", base, Missing::Create).unwrap_err();
        assert!(!format!("{error:?}").contains("word") && !format!("{error:?}").contains("secret=1"), "{error:?}");
    }

    #[tokio::test]
    async fn oversized_object_is_refused_before_it_is_read() {
        let store = InMemory::new();
        put(&store, "big", "123456").await;
        assert_eq!(read(&store, &Path::from("big"), 5).await.unwrap_err().kind(), ErrorKind::Data);
        assert_eq!(read(&store, &Path::from("none"), 5).await.unwrap(), None);
    }

    #[test]
    fn failed_call_tells_missing_rights_from_a_store_that_is_away() {
        let generic = |kind: io::ErrorKind| object_store::Error::Generic {
            store: "file",
            source: Box::new(io::Error::from(kind)),
        };
        for (kind, expected) in [
            (io::ErrorKind::ReadOnlyFilesystem, ErrorKind::Denied),
            (io::ErrorKind::PermissionDenied, ErrorKind::Denied),
            (io::ErrorKind::StorageFull, ErrorKind::Unavailable),
            (io::ErrorKind::TimedOut, ErrorKind::Unavailable),
        ] {
            assert_eq!(failed("write", &Path::from("a"), generic(kind)).kind(), expected, "{kind:?}");
        }
    }
}
