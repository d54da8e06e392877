//! What the resolver needs of the source: one call and one count.

use std::future::Future;

use bytes::Bytes;

use crate::error::Result;
use crate::kustomer::{Client, Endpoint};

/// Answers the resolver's requests; the HTTP client does, and so do the tests' doubles.
pub trait Source: Sync {
    /// Asks for `path` (begins with `/v1/`, may carry a query): the body of its 200, or `None` where nothing is there.
    ///
    /// # Errors
    ///
    /// [`Denied`](crate::error::ErrorKind::Denied) when the credential may not read it,
    /// [`Unavailable`](crate::error::ErrorKind::Unavailable) when retries did not help, another kind when the source
    /// refuses the request as such.
    fn fetch(&self, endpoint: Endpoint, path: &str) -> impl Future<Output = Result<Option<Bytes>>> + Send;

    /// Returns how many requests were sent so far, repeated ones and those of other runs included.
    fn sent(&self) -> u64;
}

impl Source for Client {
    async fn fetch(&self, endpoint: Endpoint, path: &str) -> Result<Option<Bytes>> {
        self.get_optional(endpoint, path).await
    }

    fn sent(&self) -> u64 {
        self.ledger().total()
    }
}
