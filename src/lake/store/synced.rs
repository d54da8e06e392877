//! A local folder whose objects last: what was put is on the disk when the put returns.
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
//!
//! A folder can go while it is open: renamed, unmounted, another one put in its place. Its objects are then out of
//! reach, not gone, so each call first looks whether the folder is still the one that was opened. Otherwise a put would
//! make a second lake's beginning at the old path, and a read would take the lake for damaged.

use std::collections::HashSet;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use crate::error::{Error, ErrorKind, Result};
use crate::lake::store::{Missing, no_lake};

/// A local folder whose puts are durable when they return.
#[derive(Debug)]
pub(in crate::lake) struct SyncedFileSystem {
    inner: LocalFileSystem,
    root: Arc<Root>,
    /// Folders whose own entry is known to be on the disk.
    synced: Arc<Mutex<HashSet<PathBuf>>>,
}

impl SyncedFileSystem {
    /// Opens a folder.
    pub(in crate::lake) fn open(root: &FilePath, missing: Missing) -> Result<Self> {
        if missing == Missing::Create {
            folders(true)
                .create(root)
                .map_err(|error| folder_error("failed to make the lake's folder", root, error))?;
        }
        let root = root.canonicalize().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => no_lake().with_context("folder", root.display()),
            _ => folder_error("failed to open the lake's folder", root, error),
        })?;
        let inner = LocalFileSystem::new_with_prefix(&root)
            .map_err(|error| Error::config("failed to open the lake's folder").with_source(error))?;
        let root =
            Root::open(root).map_err(|(root, error)| folder_error("failed to open the lake's folder", &root, error))?;
        Ok(Self { inner, root: Arc::new(root), synced: Arc::default() })
    }
}

/// Lists the files of puts that were cut off: those last changed before a time (milliseconds since 1970), or all; not those
/// in the folder that is spared.
pub(in crate::lake) fn staged(
    root: &FilePath,
    before_ms: Option<i64>,
    spared: Option<&FilePath>,
) -> Result<Vec<PathBuf>> {
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

/// The folder that was opened, as far as it can be told from another of the same name.
#[derive(Debug)]
struct Root {
    path: PathBuf,
    identity: Identity,
}

#[cfg(unix)]
type Identity = (u64, u64);
#[cfg(not(unix))]
type Identity = ();

impl Root {
    fn open(path: PathBuf) -> std::result::Result<Self, (PathBuf, io::Error)> {
        match identity(&path) {
            Ok(identity) => Ok(Self { path, identity }),
            Err(error) => Err((path, error)),
        }
    }

    /// Fails when the folder is not there any more.
    fn check(&self) -> io::Result<()> {
        match identity(&self.path) {
            Ok(found) if found == self.identity => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, GONE)),
        }
    }

    /// Tells an object that is missing from a folder that is.
    fn missing(&self, error: object_store::Error) -> object_store::Error {
        match error {
            object_store::Error::NotFound { .. } => self.check().err().map_or(error, gone),
            other => other,
        }
    }
}

/// What is said of a folder that is not there any more.
const GONE: &str = "the lake's folder was moved or unmounted while it was open";

#[cfg(unix)]
fn identity(folder: &FilePath) -> io::Result<Identity> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(folder)?;
    if metadata.is_dir() { Ok((metadata.dev(), metadata.ino())) } else { Err(io::ErrorKind::NotADirectory.into()) }
}

#[cfg(not(unix))]
fn identity(folder: &FilePath) -> io::Result<Identity> {
    if std::fs::metadata(folder)?.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
}

fn gone(error: io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "file", source: error.into() }
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
        write!(f, "file:{}", self.root.path.display())
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
            root: Arc::clone(&self.root),
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
        self.inner.get_opts(location, options).await.map_err(|error| self.root.missing(error))
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await.map_err(|error| self.root.missing(error))
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let root = Arc::clone(&self.root);
        self.inner.delete_stream(locations).map(move |deleted| deleted.map_err(|error| root.missing(error))).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        match self.root.check() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => stream::iter([Err(gone(error))]).boxed(),
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        match self.root.check() {
            Ok(()) => self.inner.list_with_offset(prefix, offset),
            Err(error) => stream::iter([Err(gone(error))]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.root.check().map_err(gone)?;
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
    root: Arc<Root>,
    synced: Arc<Mutex<HashSet<PathBuf>>>,
    exclusive: bool,
}

impl Target {
    fn write(&self, payload: &PutPayload) -> object_store::Result<PutResult> {
        let folder = self.file.parent().unwrap_or(&self.root.path);
        self.create_folders(folder).map_err(|error| self.error(error))?;
        let (staged, file) = self.stage().map_err(|error| self.error(error))?;
        let written = fill(file, payload).and_then(|()| self.publish(&staged));
        if written.is_err() || self.exclusive {
            // The name stays behind only if the removal fails; it is never read.
            let _ = std::fs::remove_file(&staged);
        }
        written.and_then(|()| self.sync_folders(folder)).map_err(|error| self.error(error))?;
        Ok(PutResult { e_tag: None, version: None })
    }

    /// Makes the folders below the root, and never the root: one that has gone was moved, and must not be made anew.
    fn create_folders(&self, folder: &FilePath) -> io::Result<()> {
        self.root.check()?;
        let below = folder.strip_prefix(&self.root.path).unwrap_or(FilePath::new(""));
        let mut path = self.root.path.clone();
        for part in below {
            path.push(part);
            match folders(false).create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(())
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
                Err(error)
                    if error.kind() == io::ErrorKind::PermissionDenied && !above.starts_with(&self.root.path) =>
                {
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

fn folders(is_recursive: bool) -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(is_recursive);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
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
    use object_store::ObjectStoreExt;

    use super::*;
    use crate::lake::store::{StoreSettings, create, failed, open, read};

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
        let (store, shown) = open(&StoreSettings::new("file:lake", folder.path()), Missing::Create).unwrap();
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
        let (store, _) = open(&StoreSettings::new("file:lake", folder.path()), Missing::Create).unwrap();
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
        let (store, _) = open(&StoreSettings::new("file:lake", folder.path()), Missing::Create).unwrap();
        put(store.as_ref(), "data/tickets/1", "x").await;
        for (name, mode) in [("lake", 0o700), ("lake/data/tickets", 0o700), ("lake/data/tickets/1", 0o600)] {
            let found = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(found & 0o777, mode, "{name}");
        }
    }

    #[tokio::test]
    async fn calls_that_would_not_be_synced_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open(&StoreSettings::new("file:lake", folder.path()), Missing::Create).unwrap();
        put(store.as_ref(), "a", "x").await;
        let (from, to) = (Path::from("a"), Path::from("b"));
        assert!(store.copy(&from, &to).await.is_err());
        assert!(store.put_multipart(&to).await.is_err());
        assert!(store.get(&to).await.is_err(), "nothing was made");
    }

    #[tokio::test]
    async fn folder_that_went_is_unavailable_and_never_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (lake, away) = (folder.path().join("lake"), folder.path().join("away"));
        let (store, _) = open(&StoreSettings::new("file:lake", folder.path()), Missing::Create).unwrap();
        put(store.as_ref(), "log/1", "whole").await;
        std::fs::rename(&lake, &away).unwrap();
        // Nothing at the path, another folder, the empty folder of a mount point: none of them is the lake.
        for stand_in in [false, true] {
            if stand_in {
                std::fs::create_dir(&lake).unwrap();
            }
            let object = Path::from("log/1");
            let created = create(store.as_ref(), &Path::from("log/2"), Bytes::from_static(b"x")).await.unwrap_err();
            let got = read(store.as_ref(), &object, 5).await.unwrap_err();
            let listed: Vec<_> = store.list(None).collect().await;
            let listed = failed("list", &object, listed.into_iter().next().unwrap().unwrap_err());
            let tail: Vec<_> = store.list_with_offset(None, &object).collect().await;
            let tail = failed("list", &object, tail.into_iter().next().unwrap().unwrap_err());
            let deleted = failed("delete", &object, store.delete(&object).await.unwrap_err());
            for error in [created, got, listed, tail, deleted] {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                assert!(format!("{error:?}").contains(GONE), "{error:?}");
            }
            assert_eq!(lake.exists(), stand_in);
        }
        assert!(names(&lake).is_empty(), "nothing was made in the folder that stands there now");
        std::fs::remove_dir(&lake).unwrap();
        std::fs::rename(&away, &lake).unwrap();
        assert!(put(store.as_ref(), "log/2", "whole").await);
        assert_eq!(names(&lake.join("log")), ["1", "2"]);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn full_disk_leaves_no_part_of_an_object() {
        // The kernel's own full device stands where the staged file would be written.
        let folder = tempfile::tempdir().unwrap();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let error = fill(full, &PutPayload::from_static(b"bytes")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let (store, _) = open(&StoreSettings::new("file:lake", folder.path()), Missing::Create).unwrap();
        std::fs::create_dir(folder.path().join("lake/log")).unwrap();
        // A folder has the name of the object: the bytes are staged, and cannot be given the name.
        std::fs::create_dir(folder.path().join("lake/log/1")).unwrap();
        let error = store.put(&Path::from("log/1"), "bytes".into()).await.unwrap_err();
        assert_eq!(failed("write", &Path::from("log/1"), error).kind(), ErrorKind::Unavailable);
        assert_eq!(names(&folder.path().join("lake/log")), ["1"], "the staged file is gone");
    }
}
