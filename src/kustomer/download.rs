//! Files behind signed links: a client that has no credential, and downloads that go on where they broke off.
//!
//! ```text
//! link ─▶ open (200: sizes compared) ─▶ pieces ─┬─▶ end (every byte came)
//!           ▲                                   │
//!           └── wait, Range + If-Match (206) ◀──┘ broken, 5xx, 429
//! ```
//!
//! The host of the files is not the source's: it gets no token, no cookie and no referrer, it is not in the budget, and no
//! redirect of it is followed. TLS is verified; plain http is for a source on this machine. Bytes pass as they are stored
//! there: nothing is unpacked, so that their number is the one that was announced.

mod link;

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_MATCH, RANGE};
use reqwest::redirect;

pub use self::link::Link;
use super::client::Client;
use super::headers::Headers;
use crate::clock::SharedClock;
use crate::error::{Error, Result};
use crate::retry::{Backoff, SplitMix64};

/// A failure after so many bytes begins a new count of attempts: a large file may break more often than a small one.
const PROGRESS_BYTES: u64 = 4 << 20;

/// Gets files behind signed links.
#[derive(Debug)]
pub struct Downloader {
    http: reqwest::Client,
    is_local: bool,
    backoff: Backoff,
    clock: SharedClock,
    random: Mutex<SplitMix64>,
}

/// One file, as far as it came; `Debug` shows counts only.
pub struct Download<'d> {
    downloader: &'d Downloader,
    link: Link,
    /// What the record says; once the file is open, what both say.
    length: Option<u64>,
    received: u64,
    /// Bytes of the open answer that were delivered by an earlier one.
    repeated: u64,
    etag: Option<HeaderValue>,
    answer: Option<reqwest::Response>,
    failed: u32,
    since_failure: u64,
    requests: u64,
}

/// What comes next of a file.
#[derive(Debug)]
pub enum Step {
    /// Its next bytes, at least one.
    Piece(Bytes),
    /// Nothing: all of it came.
    End,
    /// The link is refused: [`Download::renew`] takes another one.
    Expired,
}

/// How an attempt to open a file ended, when not by an error.
enum Opened {
    Yes,
    Expired,
    Failed { cause: &'static str, wait: Option<Duration>, source: Option<reqwest::Error> },
}

impl Downloader {
    /// Makes the client beside `client`, whose API the links come from.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when TLS cannot be set up.
    pub fn beside(client: &Client) -> Result<Self> {
        let (clock, timeout, attempts, is_local) = client.for_downloads();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("counterfoil/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .no_gzip()
            .connect_timeout(timeout.min(Duration::from_secs(15)))
            .read_timeout(timeout);
        builder = if is_local {
            builder.no_proxy()
        } else {
            builder.https_only(true).min_tls_version(reqwest::tls::Version::TLS_1_2)
        };
        let http = builder
            .build()
            .map_err(|source| Error::config("failed to set up TLS for attachments").with_source(source))?;
        let random = Mutex::new(SplitMix64::new(u64::from(std::process::id())));
        Ok(Self { http, is_local, backoff: Backoff::new(attempts), clock, random })
    }

    /// Checks a link as the source wrote it.
    ///
    /// # Errors
    ///
    /// [`Data`](crate::error::ErrorKind::Data) when it leads where no file of the source can be.
    pub fn link(&self, text: &str) -> Result<Link> {
        Link::parse(text, self.is_local)
    }

    /// Begins with the file of a link, which the source says has `length` bytes; nothing is sent yet.
    #[must_use]
    pub fn download(&self, link: Link, length: Option<u64>) -> Download<'_> {
        Download {
            downloader: self,
            link,
            length,
            received: 0,
            repeated: 0,
            etag: None,
            answer: None,
            failed: 0,
            since_failure: 0,
            requests: 0,
        }
    }
}

impl fmt::Debug for Download<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download")
            .field("link", &self.link)
            .field("length", &self.length)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

impl Download<'_> {
    /// Opens the file, so that its size is known to be the announced one before any byte of it is passed on; `false` when the
    /// link is refused.
    ///
    /// # Errors
    ///
    /// [`Data`](crate::error::ErrorKind::Data) when sizes differ, the file is gone or the host sends elsewhere;
    /// [`Unavailable`](crate::error::ErrorKind::Unavailable) after the last attempt.
    pub async fn open(&mut self) -> Result<bool> {
        while self.answer.is_none() {
            match self.attempt().await? {
                Opened::Yes => {}
                Opened::Expired => return Ok(false),
                Opened::Failed { cause, wait, source } => self.fail(cause, wait, source).await?,
            }
        }
        Ok(true)
    }

    /// Returns what comes next; after a failure the rest is asked for.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open); [`Data`](crate::error::ErrorKind::Data) also when the file is longer than announced, or
    /// became another one meanwhile.
    pub async fn next(&mut self) -> Result<Step> {
        loop {
            if !self.open().await? {
                return Ok(Step::Expired);
            }
            let Some(answer) = &mut self.answer else { continue };
            let length = self.length.unwrap_or_default();
            match answer.chunk().await {
                Ok(Some(mut piece)) => {
                    let again = self.repeated.min(piece.len() as u64);
                    self.repeated -= again;
                    let piece = piece.split_off(again as usize);
                    if piece.is_empty() {
                        continue;
                    }
                    if self.received + piece.len() as u64 > length {
                        return Err(self.data("file is longer than the attachment"));
                    }
                    self.received += piece.len() as u64;
                    self.since_failure += piece.len() as u64;
                    return Ok(Step::Piece(piece));
                }
                _ if self.received == length => return Ok(Step::End),
                Ok(None) => self.fail("ended early", None, None).await?,
                Err(source) => {
                    let cause = if source.is_timeout() { "stalled" } else { "broke off" };
                    self.fail(cause, None, Some(source)).await?;
                }
            }
        }
    }

    /// Goes on with another link to the same file.
    pub fn renew(&mut self, link: Link) {
        self.link = link;
        self.answer = None;
    }

    /// Returns how many bytes the file has, as far as that is known.
    #[must_use]
    pub const fn length(&self) -> Option<u64> {
        self.length
    }

    /// Returns how many bytes were handed out.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Returns how many requests the host of the file got.
    #[must_use]
    pub const fn requests(&self) -> u64 {
        self.requests
    }

    /// Returns the host of the file, which may be shown.
    #[must_use]
    pub fn host(&self) -> &str {
        self.link.host()
    }
}

impl Download<'_> {
    async fn attempt(&mut self) -> Result<Opened> {
        let mut request = self.downloader.http.get(self.link.expose()).header(ACCEPT_ENCODING, "identity");
        if self.received > 0 {
            request = request.header(RANGE, format!("bytes={}-", self.received));
            if let Some(etag) = self.etag.as_ref().filter(|etag| is_strong(etag)) {
                request = request.header(IF_MATCH, etag);
            }
        }
        self.requests += 1;
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(source) => {
                let cause = if source.is_timeout() { "timed out" } else { "no connection" };
                return Ok(Opened::Failed { cause, wait: None, source: Some(source) });
            }
        };
        let status = answer.status().as_u16();
        match status {
            200 => self.whole(&answer)?,
            206 if self.received > 0 => self.rest(&answer)?,
            // Object stores answer an expired link with 403, and with 400 where the token inside it has expired.
            400 | 401 | 403 => return Ok(Opened::Expired),
            404 | 410 => return Err(self.data("file of the attachment is gone from its host")),
            412 | 416 if self.received > 0 => return Err(self.changed()),
            300..=399 => {
                return Err(self
                    .data("file host answers with a redirect, which is not followed")
                    .with_context("status", status));
            }
            408 | 425 | 429 | 500..=599 => {
                let now = self.downloader.clock.now();
                let wait = Headers::read(answer.headers(), None, now).retry_after;
                let cause = match status {
                    408 | 504 => "timed out",
                    429 => "429",
                    _ => "5xx",
                };
                return Ok(Opened::Failed { cause, wait, source: None });
            }
            _ => return Err(self.data("file host refuses the request").with_context("status", status)),
        }
        self.answer = Some(answer);
        Ok(Opened::Yes)
    }

    /// Checks an answer that begins at the first byte: the first one, or that of a host which knows no ranges.
    fn whole(&mut self, answer: &reqwest::Response) -> Result<()> {
        let etag = answer.headers().get(ETAG);
        if self.received > 0 && etag != self.etag.as_ref() {
            return Err(self.changed());
        }
        match (self.length, answer.content_length()) {
            (Some(said), Some(sent)) if said != sent => {
                let error = if self.received > 0 {
                    self.changed()
                } else {
                    self.data("attachment and file have different lengths, so nothing was written")
                        .with_context("attachment has", said)
                };
                return Err(error.with_context("file has", sent));
            }
            (None, None) => return Err(self.data("neither the source nor the host says how long the attachment is")),
            (said, sent) => self.length = said.or(sent),
        }
        self.etag = etag.cloned();
        self.repeated = self.received;
        Ok(())
    }

    /// Checks an answer that begins where an earlier one broke off.
    fn rest(&mut self, answer: &reqwest::Response) -> Result<()> {
        let etag = answer.headers().get(ETAG);
        let is_same = etag.is_none() || self.etag.is_none() || etag == self.etag.as_ref();
        let Some((first, length)) = range(answer.headers()) else { return Err(self.changed()) };
        if !is_same || first != self.received || length.is_some_and(|length| Some(length) != self.length) {
            return Err(self.changed());
        }
        self.repeated = 0;
        Ok(())
    }

    /// Waits before the next attempt, or says that there is none.
    async fn fail(
        &mut self,
        cause: &'static str,
        wait: Option<Duration>,
        source: Option<reqwest::Error>,
    ) -> Result<()> {
        self.answer = None;
        if self.since_failure >= PROGRESS_BYTES {
            self.failed = 0;
        }
        self.since_failure = 0;
        self.failed += 1;
        let delay = {
            let mut random = self.downloader.random.lock().unwrap_or_else(PoisonError::into_inner);
            self.downloader.backoff.delay(self.failed, &mut random)
        };
        let Some(delay) = delay else {
            let error = self
                .place(Error::unavailable("attachment could not be read to its end"))
                .with_context("cause", cause)
                .with_context("attempts", self.failed)
                .with_hint("try again later; what was written is the file's beginning only");
            return Err(match source {
                Some(source) => error.with_source(source.without_url()),
                None => error,
            });
        };
        let delay = delay.max(wait.unwrap_or_default());
        let wait_ms = delay.as_millis() as u64;
        tracing::info!(host = self.link.host(), cause, wait_ms, "asking for the rest of an attachment after a wait");
        self.downloader.clock.sleep(delay).await;
        Ok(())
    }

    fn changed(&self) -> Error {
        self.data("file changed while it was read").with_hint("run the command again")
    }

    fn data(&self, message: &'static str) -> Error {
        self.place(Error::data(message))
    }

    fn place(&self, error: Error) -> Error {
        let error = error.with_context("host", self.link.host());
        match self.length {
            Some(length) => error.with_context("bytes", format_args!("{} of {length}", self.received)),
            None => error.with_context("bytes", self.received),
        }
    }
}

/// Tells whether a tag says that bytes are the same, not only that they mean the same.
fn is_strong(etag: &HeaderValue) -> bool {
    !etag.as_bytes().starts_with(b"W/")
}

/// Reads `bytes 5-9/10`: the first byte and, where it is told, the length of the whole.
fn range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (range, length) = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
    let first = range.split_once('-')?.0.trim().parse().ok()?;
    let length = if length.trim() == "*" { None } else { Some(length.trim().parse().ok()?) };
    Some((first, length))
}
