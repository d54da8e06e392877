//! A store whose disk is full, read-only or gone from some put on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};

use super::{append, create, live_tickets, memory, open, revision, tickets};
use crate::error::ErrorKind;

/// A store that takes `left` puts and then answers each with an error of the system.
#[derive(Debug)]
struct Refusing {
    inner: Arc<dyn ObjectStore>,
    left: AtomicUsize,
    kind: io::ErrorKind,
}

impl std::fmt::Display for Refusing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "refusing({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Refusing {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
            return Err(object_store::Error::Generic { store: "file", source: io::Error::from(self.kind).into() });
        }
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn disk_that_refuses_any_put_of_a_commit_leaves_the_old_version_or_the_new() {
    for (kind, expected) in [
        (io::ErrorKind::StorageFull, ErrorKind::Unavailable),
        (io::ErrorKind::ReadOnlyFilesystem, ErrorKind::Denied),
        (io::ErrorKind::PermissionDenied, ErrorKind::Denied),
        (io::ErrorKind::NotFound, ErrorKind::Unavailable),
    ] {
        for left in 0.. {
            let store = memory();
            append(&create(&store).await, tickets(&[revision(1, 1), revision(2, 1)])).await.unwrap();
            let left_now = AtomicUsize::new(left);
            let refusing: Arc<dyn ObjectStore> = Arc::new(Refusing { inner: Arc::clone(&store), left: left_now, kind });
            let change = || tickets(&[revision(1, 2), revision(3, 1)]);
            let outcome = append(&open(&refusing).await.unwrap(), change()).await;
            let fresh = open(&store).await.unwrap();
            let before = live_tickets(&fresh).await;
            match outcome {
                Err(error) => {
                    assert_eq!(error.kind(), expected, "{kind:?} after {left} puts: {error:?}");
                    assert_eq!(before, [(super::hex(1), 1), (super::hex(2), 1)], "{kind:?} after {left} puts");
                    append(&fresh, change()).await.unwrap();
                }
                Ok(_) => assert!(left > 0, "a commit puts something"),
            }
            let after = [(super::hex(1), 2), (super::hex(2), 1), (super::hex(3), 1)];
            assert_eq!(live_tickets(&fresh).await, after, "{kind:?} after {left} puts");
            if before == after {
                break;
            }
        }
    }
}
