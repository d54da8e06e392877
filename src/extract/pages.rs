//! Search pages as the walk needs them: asked for, decoded and redacted, again if they are bad, smaller if they are refused.
//!
//! A page that the source calls timed out is asked for again, from the second time on at half the size: what takes the source too
//! long at once may not in parts. A page that promises records and holds none is asked for again too, and then given to the walk,
//! which makes a hole of it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::extract::caps::Caps;
use crate::extract::walk::{Bound, Forked, Page, PageQuery, PageSource};
use crate::kustomer::{Client, SearchObject, SearchRequest};
use crate::policy::{Decoder, Quarantined, RedactedBatch};

/// The search pages of one stream; makes a source for each segment.
#[derive(Debug)]
pub(super) struct SearchPages<'a> {
    client: &'a Client,
    object: SearchObject,
    decoder: Decoder,
    caps: &'a Caps,
    /// Fields seen and not declared, collected when a segment's source is dropped.
    quarantine: Arc<Mutex<Vec<Quarantined>>>,
}

/// The search pages of one segment.
#[derive(Debug)]
pub(super) struct SegmentPages<'a> {
    client: &'a Client,
    object: SearchObject,
    decoder: Decoder,
    caps: &'a Caps,
    archive: bool,
    quarantine: Arc<Mutex<Vec<Quarantined>>>,
}

impl<'a> SearchPages<'a> {
    pub(super) fn new(client: &'a Client, object: SearchObject, decoder: Decoder, caps: &'a Caps) -> Self {
        Self { client, object, decoder, caps, quarantine: Arc::default() }
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
            caps: self.caps,
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

    /// Decodes a page, or says what is wrong with it; a page for the walk may be wrong and all there is.
    fn decode(&mut self, body: &[u8], query: &PageQuery) -> Result<Result<Page<RedactedBatch>, Bad>> {
        let summary = match self.decoder.push_page(body) {
            Ok(summary) => summary,
            Err(error) if error.kind() == ErrorKind::Data => return Ok(Err(Bad::Damaged(error))),
            Err(error) => return Err(error),
        };
        let rows = self.decoder.finish()?;
        if summary.timed_out {
            let error = Error::unavailable("search timed out at the source and gave a part of its page");
            return Ok(Err(Bad::TimedOut(error)));
        }
        let Some(total) = summary.total else {
            let error = Error::data("search answer has no `meta.total`, without which nothing can be proven");
            return Ok(Err(Bad::Damaged(error)));
        };
        let records = (summary.records.len() + summary.rejected.len()) as u64;
        let stated = summary.page_size.filter(|stated| *stated > 0 && *stated < query.page_size);
        let before = u64::from(query.page - 1) * u64::from(query.page_size);
        if let Some(stated) = stated {
            self.caps.stated_page_size(stated);
        } else if query.page == 1 && total > records && records < u64::from(query.page_size) {
            self.caps.short_page(query.updated.0, records as u32, total);
        } else if query.page > 1 && records == 0 && total > before {
            self.caps.refused_page(query.page, query.page_size);
        }
        let size = stated.unwrap_or(query.page_size);
        let page = Page { total, size, records: summary.records, rejected: summary.rejected, rows };
        if records == 0 && total > 0 && query.page == 1 {
            return Ok(Err(Bad::Empty(page)));
        }
        Ok(Ok(page))
    }

    fn request(&self, query: &PageQuery) -> Result<SearchRequest> {
        let mut builder = SearchRequest::builder(self.object)
            .updated_between(query.updated.0, query.updated.1)?
            .include_deleted()
            .archive(self.archive)
            .page(query.page, query.page_size);
        builder = match query.created {
            None => builder,
            Some(Bound::Between(from_ms, i64::MAX)) => builder.created_from(from_ms)?,
            Some(Bound::Between(from_ms, to_ms)) => builder.created_between(from_ms, to_ms)?,
            Some(Bound::NotFrom(from_ms)) => builder.not_created_from(from_ms)?,
        };
        builder = match query.count {
            None => builder,
            Some(Bound::Between(from, to)) => builder.counting(from, (to < i64::MAX).then_some(to)),
            Some(Bound::NotFrom(from)) => builder.not_counting(from),
        };
        Ok(builder.build())
    }
}

/// Times that a page is asked for again which promises records and holds none.
const EMPTY_REPETITIONS: u32 = 2;

/// What is wrong with a page.
enum Bad {
    Damaged(Error),
    TimedOut(Error),
    /// It promises records and holds none.
    Empty(Page<RedactedBatch>),
}

impl PageSource for SegmentPages<'_> {
    type Rows = RedactedBatch;

    async fn page(&mut self, query: &PageQuery) -> Result<Option<Page<RedactedBatch>>> {
        let mut query = *query;
        let (mut failed, mut is_answered, mut is_smaller) = (0, false, false);
        loop {
            let request = self.request(&query)?;
            let body = match self.client.search(&request).await {
                Ok(body) => body,
                // Nothing that this client sends is refused, but for sizes, far pages and attributes that it cannot know of.
                Err(error) if error.kind() == ErrorKind::Internal && !is_answered => {
                    if query.page > 1 {
                        self.caps.refused_page(query.page, query.page_size);
                        return Ok(None);
                    }
                    if query.created.is_some() || query.count.is_some() {
                        return Ok(None);
                    }
                    let Some(smaller) = Caps::smaller(query.page_size) else { return Err(error) };
                    tracing::info!(%error, page_size = smaller, "search was refused: asking for a smaller page");
                    query.page_size = smaller;
                    is_smaller = true;
                    continue;
                }
                Err(error) => return Err(error),
            };
            is_answered = true;
            if std::mem::take(&mut is_smaller) {
                self.caps.stated_page_size(query.page_size);
            }
            let bad = match self.decode(&body, &query)? {
                Ok(page) => return Ok(Some(page)),
                Err(bad) => bad,
            };
            failed += 1;
            let error = match bad {
                Bad::Empty(page) if failed > EMPTY_REPETITIONS => return Ok(Some(page)),
                Bad::Empty(page) => {
                    Error::data("search answer promises records and holds none").with_context("total", page.total)
                }
                Bad::TimedOut(error) => {
                    if failed > 1 && query.page == 1 {
                        query.page_size = (query.page_size / 2).max(1);
                    }
                    error
                }
                Bad::Damaged(error) => error,
            };
            if !self.client.back_off(request.endpoint(), failed, error.message()).await {
                return Err(Error::unavailable("source keeps sending pages that cannot be used")
                    .with_context("endpoint", request.endpoint())
                    .with_context("host", self.client.host())
                    .with_context("attempts", failed)
                    .with_source(error));
            }
        }
    }

    fn page_size(&self) -> u32 {
        self.caps.page_size()
    }

    fn reach_rows(&self, page_size: u32) -> u64 {
        self.caps.reach_rows(page_size)
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
