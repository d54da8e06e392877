//! Search pages as the walk needs them: asked for, decoded and redacted, again if they are bad.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::extract::walk::{Forked, Page, PageQuery, PageSource};
use crate::kustomer::{Client, SearchObject, SearchRequest};
use crate::policy::{Decoder, Quarantined, RedactedBatch};

/// The search pages of one stream; makes a source for each segment.
#[derive(Debug)]
pub(super) struct SearchPages<'a> {
    client: &'a Client,
    object: SearchObject,
    decoder: Decoder,
    /// Fields seen and not declared, collected when a segment's source is dropped.
    quarantine: Arc<Mutex<Vec<Quarantined>>>,
}

/// The search pages of one segment.
#[derive(Debug)]
pub(super) struct SegmentPages<'a> {
    client: &'a Client,
    object: SearchObject,
    decoder: Decoder,
    archive: bool,
    quarantine: Arc<Mutex<Vec<Quarantined>>>,
}

impl<'a> SearchPages<'a> {
    pub(super) fn new(client: &'a Client, object: SearchObject, decoder: Decoder) -> Self {
        Self { client, object, decoder, quarantine: Arc::default() }
    }

    /// Returns the undeclared fields of all segments, each once.
    pub(super) fn quarantine(&self) -> Vec<Quarantined> {
        self.quarantine.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<'a> Forked for SearchPages<'a> {
    type Source = SegmentPages<'a>;

    fn fork(&self, archive: bool) -> SegmentPages<'a> {
        SegmentPages {
            client: self.client,
            object: self.object,
            decoder: self.decoder.fork(),
            archive,
            quarantine: Arc::clone(&self.quarantine),
        }
    }
}

impl SegmentPages<'_> {
    /// Returns a batch without rows.
    pub(super) fn empty(mut self) -> Result<RedactedBatch> {
        self.decoder.finish()
    }

    /// Decodes a page, or says what is wrong with it.
    fn decode(&mut self, body: &[u8], query: &PageQuery) -> Result<Result<Page<RedactedBatch>, Error>> {
        let summary = match self.decoder.push_page(body) {
            Ok(summary) => summary,
            Err(error) if error.kind() == ErrorKind::Data => return Ok(Err(error)),
            Err(error) => return Err(error),
        };
        let rows = self.decoder.finish()?;
        let received = summary.records.len() as u64;
        if summary.timed_out {
            return Ok(Err(Error::unavailable("search timed out at the source and gave a part of its page")));
        }
        let Some(total) = summary.total else {
            return Ok(Err(Error::data("search answer has no `meta.total`, without which nothing can be proven")));
        };
        let before = u64::from(query.page - 1) * u64::from(query.page_size);
        if received == 0 && total > before && query.page == 1 {
            return Ok(Err(Error::data("search answer promises records and holds none").with_context("total", total)));
        }
        Ok(Ok(Page { total, records: summary.records, rows }))
    }
}

impl PageSource for SegmentPages<'_> {
    type Rows = RedactedBatch;

    async fn page(&mut self, query: &PageQuery) -> Result<Page<RedactedBatch>> {
        let mut builder = SearchRequest::builder(self.object)
            .updated_between(query.updated.0, query.updated.1)?
            .include_deleted()
            .archive(self.archive)
            .page(query.page, query.page_size);
        if let Some((from_ms, to_ms)) = query.created {
            builder = builder.created_between(from_ms, to_ms)?;
        }
        let request = builder.build();
        let mut failed = 0;
        loop {
            let body = self.client.search(&request).await?;
            let error = match self.decode(&body, query)? {
                Ok(page) => return Ok(page),
                Err(error) => error,
            };
            failed += 1;
            if !self.client.back_off(request.endpoint(), failed, error.message()).await {
                return Err(Error::unavailable("source keeps sending pages that cannot be used")
                    .with_context("endpoint", request.endpoint())
                    .with_context("host", self.client.host())
                    .with_context("attempts", failed)
                    .with_source(error));
            }
        }
    }
}

impl Drop for SegmentPages<'_> {
    fn drop(&mut self) {
        let mut all = self.quarantine.lock().unwrap_or_else(PoisonError::into_inner);
        for field in self.decoder.quarantine() {
            match all.iter_mut().find(|known| known.path == field.path && known.json_type == field.json_type) {
                Some(known) => known.count += field.count,
                None => all.push(field),
            }
        }
    }
}
