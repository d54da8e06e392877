//! The object store of a lake: which URLs there are, and what a failed call means.
//!
//! ```text
//! file:PATH                     a local folder whose objects last a power cut: store/synced.rs
//! s3://BUCKET/PREFIX  gs:  az:  a bucket: store/cloud.rs
//! memory:                       for tests, gone with the process
//! ```
//!
//! A lake stands on one promise of its store: of two that make an object of one name at the same time, one is refused.
//! [`probe`] asks for it before a lake is made.

mod answer;
mod cloud;
mod synced;

use std::error::Error as StdError;
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};

use self::cloud::Provider;
pub(super) use self::synced::SyncedFileSystem;
pub(super) use self::synced::staged;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result, nearest};
use crate::lake::layout;
use crate::secret::SecretRef;

/// Where a lake is, and how to get there.
///
/// The credentials of a bucket are the provider's usual ones (environment, machine identity) where none are named here.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// `file:PATH`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX` or `memory:`.
    pub url: String,
    /// The folder that relative paths and references stand from.
    pub base: PathBuf,
    /// Address of the store's service, where it is not the provider's own; plain http on loopback only.
    pub endpoint: Option<String>,
    /// Region of an S3 bucket. Default `AWS_REGION`, or else us-east-1.
    pub region: Option<String>,
    /// Reference of the id of an S3 key.
    pub access_key_id: Option<SecretRef>,
    /// Reference of the S3 key.
    pub secret_access_key: Option<SecretRef>,
    /// Reference of the token that a temporary S3 key comes with.
    pub session_token: Option<SecretRef>,
    /// Reference of the JSON key of a Google service account.
    pub service_account: Option<SecretRef>,
    /// Azure storage account.
    pub account: Option<String>,
    /// Reference of the storage account's key.
    pub account_key: Option<SecretRef>,
    /// Reference of a shared access signature for the container.
    pub sas_token: Option<SecretRef>,
    /// Folder of the high-water marks, by which a log that was rolled back is known; none are kept without it.
    pub state: Option<PathBuf>,
}

impl StoreSettings {
    /// Makes the settings of a store that needs no more than its URL; relative paths stand from `base`.
    #[must_use]
    pub fn new(url: impl Into<String>, base: impl Into<PathBuf>) -> Self {
        Self {
            url: url.into(),
            base: base.into(),
            endpoint: None,
            region: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            service_account: None,
            account: None,
            account_key: None,
            sas_token: None,
            state: None,
        }
    }

    /// Returns the local folder of a `file:` lake.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when the URL has no path or names a host.
    pub fn folder(&self) -> Result<Option<PathBuf>> {
        let path = self.url.strip_prefix("file:").map(|rest| file_path(rest, &self.base));
        path.transpose().map_err(|error| error.with_context("url", shown(&self.url)))
    }

    /// Tells whether a lake can be kept there: the store answers, may be written to, and refuses a second object of a name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`], [`ErrorKind::Denied`] or [`ErrorKind::Unavailable`], as the store has it.
    pub async fn check(&self, clock: &dyn Clock) -> Result<()> {
        let (store, shown) = open(self, Missing::Create)?;
        probe(store.as_ref(), clock).await.map_err(|error| error.with_context("url", shown))
    }
}

/// Whether a local folder may be made when the store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Make it.
    Create,
    /// Report that there is no lake.
    Refuse,
}

/// Schemes of the stores.
const SCHEMES: [&str; 5] = ["file", "s3", "gs", "az", "memory"];

/// Opens the store of the settings; returns it with the URL as messages print it.
///
/// # Errors
///
/// [`ErrorKind::Config`] for a URL or a setting that is wrong and for a missing folder; [`ErrorKind::Denied`] when
/// the folder cannot be made.
pub(super) fn open(settings: &StoreSettings, missing: Missing) -> Result<(Arc<dyn ObjectStore>, String)> {
    let url = settings.url.as_str();
    let named = |error: Error| error.with_context("url", shown(url));
    let known = "the stores are file:PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX and az://CONTAINER/PREFIX";
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err(named(Error::config("lake URL has no scheme")).with_hint(known));
    };
    match scheme {
        "memory" => match missing {
            Missing::Create => Ok((Arc::new(InMemory::new()), "memory:".to_owned())),
            Missing::Refuse => Err(named(Error::config("a lake in memory ends with the process that made it"))
                .with_hint("use a file: lake")),
        },
        "file" => {
            let path = file_path(rest, &settings.base).map_err(named)?;
            let shown = format!("file:{}", path.display());
            Ok((Arc::new(SyncedFileSystem::open(&path, missing)?), shown))
        }
        _ => {
            if let Some(provider) = Provider::of(scheme) {
                return cloud::open(provider, rest, settings).map_err(named);
            }
            let hint = match nearest(scheme, SCHEMES) {
                Some(near) => format!("did you mean `{near}:`? {known}"),
                None => known.to_owned(),
            };
            Err(named(Error::config("unknown scheme of lake URL").with_context("scheme", scheme)).with_hint(hint))
        }
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
        return Err(Error::config("lake URL has no path").with_hint("write file:PATH or file:///PATH"));
    }
    Ok(base.join(path))
}

/// Makes an object, tries to make it again, and removes it.
///
/// # Errors
///
/// [`ErrorKind::Config`] when the store takes a second object of a name: two writers could both believe to have made a
/// version; [`ErrorKind::Denied`] without the right to write; [`ErrorKind::Unavailable`] when the store does not answer.
pub(super) async fn probe(store: &dyn ObjectStore, clock: &dyn Clock) -> Result<()> {
    let object = layout::probe(clock);
    let is_made = create(store, &object, Bytes::from_static(b"probe")).await?;
    let again = create(store, &object, Bytes::from_static(b"again")).await;
    // One that stays is never read.
    let removed = store.delete(&object).await.map_err(|error| failed("delete", &object, error));
    if !is_made || again? {
        return Err(Error::config("the store does not refuse a second object of the same name")
            .with_context("object", &object)
            .with_hint("choose one that knows conditional requests (If-None-Match): without them writers would overwrite each other"));
    }
    removed
}

/// Makes the crate's error of a failed store call.
///
/// Missing rights are [`ErrorKind::Denied`]; what is absent is [`ErrorKind::Data`], because the lake's own records name
/// it; a bucket that is absent or elsewhere is [`ErrorKind::Config`]; all else may pass and is [`ErrorKind::Unavailable`].
pub(super) fn failed(action: &'static str, object: &Path, error: object_store::Error) -> Error {
    let message = format!("failed to {action} an object of the lake");
    if let Some((verdict, answer)) = answer::judge(&error) {
        let (kind, hint) = verdict.map_or((ErrorKind::Data, None), |(kind, hint)| (kind, Some(hint)));
        let error = Error::new(kind, message).with_context("object", object).with_source(answer);
        return match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        };
    }
    let (kind, hint) = match &error {
        object_store::Error::NotFound { .. } => (ErrorKind::Data, None),
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            (ErrorKind::Denied, None)
        }
        other => match io_kind(other) {
            Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => (ErrorKind::Denied, None),
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge) => {
                (ErrorKind::Unavailable, Some("make room on the lake's disk, then run the command again"))
            }
            Some(io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                (ErrorKind::Unavailable, Some("put the lake's folder back, or mount it again"))
            }
            _ => (ErrorKind::Unavailable, None),
        },
    };
    let error = Error::new(kind, message).with_context("object", object).with_source(error);
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
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
        // The one condition of this put is that there is none.
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
        Err(error) => Err(failed("write", object, error)),
    }
}

/// Reads a whole object of at most `limit_bytes`; `None` when there is none.
pub(super) async fn read(store: &dyn ObjectStore, object: &Path, limit_bytes: u64) -> Result<Option<Bytes>> {
    let found = match store.get(object).await {
        Ok(found) => found,
        Err(error @ object_store::Error::NotFound { .. }) => {
            return match answer::judge(&error) {
                // The whole bucket is missing.
                Some((Some(_), _)) => Err(failed("read", object, error)),
                _ => Ok(None),
            };
        }
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

/// The error of a place that holds no lake.
pub(super) fn no_lake() -> Error {
    Error::config("there is no lake")
        .with_hint("check the setting `lake.url`; `counterfoil init FOLDER` makes a new folder with an empty lake")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::simulation::clock;

    #[test]
    fn wrong_urls_are_refused_with_the_reason() {
        for (url, missing, part, hint) in [
            ("lake", Missing::Create, "no scheme", "file:PATH"),
            ("s4:bucket", Missing::Create, "unknown scheme of lake URL (scheme: s4", "did you mean `s3:`?"),
            ("fiel:lake", Missing::Create, "unknown scheme", "did you mean `file:`?"),
            ("https://bucket.s3.amazonaws.com", Missing::Create, "unknown scheme", "s3://BUCKET"),
            ("file:", Missing::Create, "no path", "file:PATH"),
            ("file://host/lake", Missing::Create, "names a host", "file:PATH"),
            ("file:lake", Missing::Refuse, "there is no lake", "counterfoil init"),
            ("memory:", Missing::Refuse, "ends with the process", "file:"),
            ("s3:bucket/lake", Missing::Refuse, "names no bucket", "s3://BUCKET/PREFIX"),
            ("s3://", Missing::Refuse, "no valid bucket name", "s3://BUCKET/PREFIX"),
            ("gs://Bucket/lake", Missing::Refuse, "no valid bucket name (bucket: Bucket", "lower-case"),
            ("az://bucket/../lake", Missing::Refuse, "no plain folder (prefix: ../lake", "`..`"),
            ("s3://bucket/a//b", Missing::Refuse, "no plain folder", "single slashes"),
            ("s3://bucket/a//", Missing::Refuse, "no plain folder", "single slashes"),
            ("s3://bucket/a/./b", Missing::Refuse, "no plain folder", "`.`"),
            ("s3://bucket//lake", Missing::Refuse, "no plain folder", "single slashes"),
            ("s3://user:word@bucket/x?secret=1", Missing::Create, "more than a bucket and a prefix", "[lake]"),
        ] {
            let error = open(&StoreSettings::new(url, "/nowhere"), missing).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(error.to_string().contains(part), "{url}: {error}");
            assert!(error.hint().unwrap().contains(hint), "{url}: {:?}", error.hint());
            assert!(!format!("{error:?}").contains("word") && !format!("{error:?}").contains("secret=1"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn oversized_object_is_refused_before_it_is_read() {
        let store = InMemory::new();
        create(&store, &Path::from("big"), Bytes::from_static(b"123456")).await.unwrap();
        assert_eq!(read(&store, &Path::from("big"), 5).await.unwrap_err().kind(), ErrorKind::Data);
        assert_eq!(read(&store, &Path::from("none"), 5).await.unwrap(), None);
    }

    #[tokio::test]
    async fn probe_leaves_nothing_behind() {
        let store = InMemory::new();
        probe(&store, clock().as_ref()).await.unwrap();
        assert_eq!(futures::StreamExt::count(store.list(None)).await, 0);
    }

    #[test]
    fn failed_call_tells_missing_rights_from_a_store_that_is_away() {
        let generic = |kind: io::ErrorKind| object_store::Error::Generic {
            store: "file",
            source: Box::new(io::Error::from(kind)),
        };
        for (kind, expected, hint) in [
            (io::ErrorKind::ReadOnlyFilesystem, ErrorKind::Denied, None),
            (io::ErrorKind::PermissionDenied, ErrorKind::Denied, None),
            (io::ErrorKind::StorageFull, ErrorKind::Unavailable, Some("make room")),
            (io::ErrorKind::QuotaExceeded, ErrorKind::Unavailable, Some("make room")),
            (io::ErrorKind::FileTooLarge, ErrorKind::Unavailable, Some("make room")),
            (io::ErrorKind::NotFound, ErrorKind::Unavailable, Some("mount it again")),
            (io::ErrorKind::TimedOut, ErrorKind::Unavailable, None),
        ] {
            let error = failed("write", &Path::from("a"), generic(kind));
            assert_eq!(error.kind(), expected, "{kind:?}");
            assert_eq!(error.hint().map(|found| found.contains(hint.unwrap_or("-"))), hint.map(|_| true), "{kind:?}");
        }
    }
}
