//! Rivals: a writer that always commits just before the other one's commit arrives.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};

use super::{Revision, append, create, live_tickets, memory, open, revision, tickets};
use crate::error::ErrorKind;
use crate::lake::run::RunRecord;
use crate::lake::{Lake, RowCounts};

/// A store in which a rival commits before each of the next `rounds` commits is put.
#[derive(Debug)]
pub(super) struct Contested {
    pub(super) inner: Arc<dyn ObjectStore>,
    pub(super) rival: Lake,
    pub(super) rounds: AtomicUsize,
    /// What the rival appends each time, besides a run.
    pub(super) appends: Vec<Revision>,
}

impl fmt::Display for Contested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "contested({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Contested {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        let left = self.rounds.load(Ordering::SeqCst);
        if left > 0 && path.as_ref().ends_with(".commit") {
            self.rounds.store(left - 1, Ordering::SeqCst);
            let mut change = self.rival.transaction();
            change.record_run(RunRecord { id: left.to_string(), ..RunRecord::default() });
            if !self.appends.is_empty() {
                change.append(tickets(&self.appends));
            }
            change.commit().await.unwrap();
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

async fn contested(rounds: usize) -> (Arc<dyn ObjectStore>, Lake) {
    let inner = memory();
    let rival = create(&inner).await;
    let store: Arc<dyn ObjectStore> =
        Arc::new(Contested { inner: Arc::clone(&inner), rival, rounds: AtomicUsize::new(rounds), appends: Vec::new() });
    let lake = open(&store).await.unwrap();
    (inner, lake)
}

#[tokio::test]
async fn commit_that_lost_races_lands_later_and_writes_its_rows_once() {
    let (store, lake) = contested(9).await;
    let counts = append(&lake, tickets(&[revision(1, 1)])).await.unwrap();
    assert_eq!(counts, RowCounts { inserted: 1, ..RowCounts::default() });
    assert_eq!(lake.latest().await.unwrap().version, 10);
    assert_eq!(lake.latest().await.unwrap().runs.len(), 9);
    assert_eq!(live_tickets(&lake).await.len(), 1);
    let written: Vec<ObjectMeta> = store.list(Some(&Path::from("data"))).try_collect().await.unwrap();
    assert_eq!(written.len(), 2, "a data file and its index");
}

#[tokio::test]
async fn commit_that_loses_every_race_is_a_conflict() {
    let (_, lake) = contested(usize::MAX).await;
    let error = append(&lake, tickets(&[revision(1, 1)])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("attempts: 10"), "{error}");
    assert_eq!(lake.latest().await.unwrap().runs.len(), 10);
}
