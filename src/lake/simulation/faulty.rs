//! A store that fails at its n-th call.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

/// When the failing call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lake) enum Fault {
    /// The call has no effect.
    Before,
    /// The call takes effect and its answer is lost.
    After,
}

/// A store that fails from its n-th call on, or at that call only.
#[derive(Debug)]
pub(in crate::lake) struct Faulty {
    pub(in crate::lake) inner: Arc<dyn ObjectStore>,
    pub(in crate::lake) calls: Arc<AtomicUsize>,
    pub(in crate::lake) at: usize,
    pub(in crate::lake) fault: Fault,
    pub(in crate::lake) for_good: bool,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty({})", self.inner)
    }
}

impl Faulty {
    /// Counts a call; tells how it fails.
    fn count(&self) -> Option<Fault> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        if call == self.at { Some(self.fault) } else { (self.for_good && call > self.at).then_some(Fault::Before) }
    }
}

fn fault() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "the store has gone".into() }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        match self.count() {
            None => self.inner.put_opts(path, payload, options).await,
            Some(Fault::Before) => Err(fault()),
            Some(Fault::After) => {
                self.inner.put_opts(path, payload, options).await?;
                Err(fault())
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        if self.count().is_some() { Err(fault()) } else { self.inner.get_opts(path, options).await }
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        if self.count().is_some() { Err(fault()) } else { self.inner.get_ranges(path, ranges).await }
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        // Deletions come one by one, each a call of its own.
        let (calls, at, fault_at, for_good) = (Arc::clone(&self.calls), self.at, self.fault, self.for_good);
        let inner = Arc::clone(&self.inner);
        paths
            .then(move |path| {
                let call = calls.fetch_add(1, Ordering::SeqCst);
                let inner = Arc::clone(&inner);
                async move {
                    let path = path?;
                    if call == at && fault_at == Fault::After {
                        inner.delete(&path).await?;
                        return Err(fault());
                    }
                    if call == at || (for_good && call > at) {
                        return Err(fault());
                    }
                    inner.delete(&path).await?;
                    Ok(path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        if self.count().is_some() { stream::iter([Err(fault())]).boxed() } else { self.inner.list(prefix) }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        if self.count().is_some() {
            stream::iter([Err(fault())]).boxed()
        } else {
            self.inner.list_with_offset(prefix, offset)
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
