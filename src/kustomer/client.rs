//! The client: one request at a time through budget, session and retries, to one host.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Method, redirect};
use serde::de::IgnoredAny;
use url::Url;

use super::auth::{self, Credential, Session, Token};
use super::bucket::Reason;
use super::budget::{Budget, BudgetState};
use super::buffers::Buffers;
use super::endpoint::Endpoint;
use super::error::{Failure, Phase};
use super::headers::{Headers, SourceClock, date_of};
use super::ledger::Ledger;
use super::search::SearchRequest;
use super::{host, host::check_base_url};
use crate::clock::SharedClock;
use crate::error::{Error, ErrorKind, Result};
use crate::retry::{Backoff, SplitMix64};

/// Pages of 500 records have a few megabytes; what is larger than this, decompressed, is none.
const LARGEST_BODY_BYTES: usize = 64 << 20;

/// A whole exchange may take this many times as long as the source may stay silent.
const WHOLE_REQUEST: u32 = 4;

/// Tokens that one request may use up when each is said to have expired.
const MOST_RENEWALS: u32 = 3;

/// Answers of 429 to one request before the run fails; each closes the bucket for up to a window.
const RATE_LIMITED_ATTEMPTS: u32 = 10;

/// How to reach the source and how much of its budget to use.
#[derive(Debug)]
pub struct ClientSettings {
    /// E.g. `https://acme.api.kustomerapp.com`; plain http on loopback only.
    pub base_url: Url,
    /// Who asks.
    pub credential: Credential,
    /// The organisation's limit, requests a minute.
    pub org_rpm: u32,
    /// The limit of searches by machine users, requests a minute.
    pub search_rpm: u32,
    /// Our part of both, above 0 and at most 1.
    pub share: f64,
    /// Requests a minute of the organisation's limit that are left to people, whatever the share; in proportion less when
    /// the source names a lower limit. We send none while the source says that no more than these remain.
    pub reserve: u32,
    /// How long the source may stay silent; a whole answer may take four times as long.
    pub timeout: Duration,
    /// Attempts at one request before the run fails.
    pub attempts: u32,
}

/// A client within the budget. Cheap to clone; clones share budget and ledger.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

/// A clock that is ahead by less than this is taken for right: an answer is a moment under way.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(5);

#[derive(Debug)]
struct Inner {
    http: reqwest::Client,
    base_url: Url,
    host: String,
    session: Session,
    budget: Budget,
    backoff: Backoff,
    timeout: Duration,
    clock: SharedClock,
    random: Mutex<SplitMix64>,
    ledger: Mutex<Ledger>,
    /// Requests in all after which none is sent any more.
    last_request: AtomicU64,
    /// How far this machine's clock is ahead of the source's, by the `Date` of its last answer.
    ahead: Mutex<SignedDuration>,
    /// The same as it was measured, behind or ahead.
    offset: Mutex<Option<SignedDuration>>,
    source_clock: Mutex<SourceClock>,
    largest_body_bytes: usize,
    buffers: Buffers,
}

/// One request as it goes over the wire.
#[derive(Debug, Clone, Copy)]
struct Outgoing<'a> {
    endpoint: Endpoint,
    method: &'a Method,
    url: &'a Url,
    body: Option<&'a Bytes>,
    /// An earlier attempt failed.
    is_repeat: bool,
}

impl Client {
    /// Checks the settings and makes the client; no request is made. `seed` drives the jitter of retries.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the address is no plain `https://host` (or loopback), or a limit
    /// is out of range.
    pub fn try_new(settings: ClientSettings, clock: SharedClock, seed: u64) -> Result<Self> {
        let ClientSettings { base_url, credential, org_rpm, search_rpm, share, reserve, timeout, attempts } = settings;
        let host = check_base_url(&base_url)?;
        if !(share > 0.0 && share <= 1.0) {
            return Err(Error::config("share of the budget must be above 0 and at most 1").with_context("share", share));
        }
        for (name, value) in [("org_rpm", org_rpm), ("search_rpm", search_rpm), ("attempts", attempts)] {
            if value == 0 {
                return Err(Error::config("setting must be above 0").with_context("setting", name));
            }
        }
        if reserve >= org_rpm {
            return Err(Error::config("reserve for people leaves nothing of the organisation's limit")
                .with_context("reserve", reserve)
                .with_context("org_rpm", org_rpm));
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("counterfoil/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .connect_timeout(timeout.min(Duration::from_secs(15)))
            .read_timeout(timeout)
            .timeout(timeout.saturating_mul(WHOLE_REQUEST));
        builder = if base_url.scheme() == "https" {
            builder.https_only(true).min_tls_version(reqwest::tls::Version::TLS_1_2)
        } else {
            // Loopback: no proxy of the environment may see the token, and no certificates are needed.
            builder.no_proxy().tls_built_in_root_certs(false)
        };
        let http = builder
            .build()
            .map_err(|source| Error::config("failed to set up TLS").with_context("host", &host).with_source(source))?;
        Ok(Self {
            inner: Arc::new(Inner {
                http,
                base_url,
                host,
                session: Session::new(credential),
                budget: Budget::new(org_rpm, search_rpm, share, reserve, Arc::clone(&clock)),
                backoff: Backoff::new(attempts),
                timeout,
                clock,
                random: Mutex::new(SplitMix64::new(seed)),
                ledger: Mutex::new(Ledger::default()),
                last_request: AtomicU64::new(u64::MAX),
                ahead: Mutex::new(SignedDuration::ZERO),
                offset: Mutex::default(),
                source_clock: Mutex::default(),
                largest_body_bytes: LARGEST_BODY_BYTES,
                buffers: Buffers::default(),
            }),
        })
    }

    /// Returns what a client for files takes over: clock, patience, attempts, and whether this machine may be asked. No credential.
    pub(super) fn for_downloads(&self) -> (SharedClock, Duration, u32, bool) {
        let Inner { clock, timeout, backoff, base_url, .. } = self.inner.as_ref();
        (Arc::clone(clock), *timeout, backoff.attempts, base_url.scheme() == "http")
    }

    /// Returns the host that this client asks.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.inner.host
    }

    /// Sends one GET to `path` (begins with `/v1/`, may carry a query) and returns the body of its 200.
    ///
    /// # Errors
    ///
    /// `Unavailable` after the last attempt, `Denied` for the credential, `Data` for a record that is gone or a path of
    /// another host, `Internal` for a request that the source refuses or a path that it does not know.
    pub async fn get(&self, endpoint: Endpoint, path: &str) -> Result<Bytes> {
        let url = host::resolve(&self.inner.base_url, path)?;
        self.inner.send(Outgoing::get(endpoint, &url)).await?.map_err(|failure| {
            let failure = if host::names_record(url.path()) { failure } else { Failure::NoRoute };
            self.inner.error(failure, endpoint, 1).with_context("path", url.path())
        })
    }

    /// Sends one GET like [`get`](Self::get), and returns nothing for a 404.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Self::get), but for the 404.
    pub async fn get_optional(&self, endpoint: Endpoint, path: &str) -> Result<Option<Bytes>> {
        let url = host::resolve(&self.inner.base_url, path)?;
        let answer = self.inner.send(Outgoing::get(endpoint, &url)).await?;
        Ok(answer.ok())
    }

    /// Sends one search and returns the page.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Self::get).
    pub async fn search(&self, request: &SearchRequest) -> Result<Bytes> {
        let endpoint = request.endpoint();
        let url = host::resolve(&self.inner.base_url, &request.path())?;
        let body = serde_json::to_vec(&request.body)
            .map_err(|source| Error::internal("failed to write the search").with_source(source))?;
        let body = Bytes::from(body);
        let answer = self.inner.send(Outgoing::post(endpoint, &url, &body)).await?;
        answer.map_err(|_| self.inner.error(Failure::NoRoute, endpoint, 1).with_context("path", url.path()))
    }

    /// Asks for the token in use, which any valid credential may, whatever its roles.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Self::get).
    pub async fn check(&self) -> Result<Bytes> {
        self.get(Endpoint::CurrentToken, "/v1/auth/tokens/current").await
    }

    /// Waits before a page that did not decode, or that the source calls timed out, is asked for again.
    ///
    /// `failed` attempts were made so far; tells whether another one is left.
    pub async fn back_off(&self, endpoint: Endpoint, failed: u32, cause: &str) -> bool {
        let delay = self.inner.backoff.delay(failed, &mut self.inner.random());
        self.inner.failed(endpoint, "unusable");
        let Some(delay) = delay else { return false };
        *self.inner.ledger().repeated.entry(endpoint.name()).or_default() += 1;
        self.inner.pause(endpoint, delay, cause).await;
        true
    }

    /// Sends no more than `more` further requests, repeated ones included; the next one ends as `Incomplete`. Without a
    /// number the limit is lifted.
    pub fn limit_requests(&self, more: Option<u64>) {
        let last = more.map_or(u64::MAX, |more| self.ledger().total().saturating_add(more));
        self.inner.last_request.store(last, Ordering::Relaxed);
    }

    /// Returns the present time, by the source's clock where this machine's is ahead of it.
    ///
    /// What changes at the source carries its time: a watermark beyond that would leave out what comes next.
    #[must_use]
    pub fn source_now(&self) -> Timestamp {
        self.inner.source_now()
    }

    /// Returns how far this machine's clock is ahead of the source's (behind: negative), to a second or two, by the `Date` of
    /// its last answer; nothing before the first.
    #[must_use]
    pub fn clock_offset(&self) -> Option<SignedDuration> {
        *self.inner.offset.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what was asked so far.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.inner.ledger().clone()
    }

    /// Returns where the budget stands: limits as configured and as the source named them, what is allowed, used and left.
    #[must_use]
    pub fn budget_state(&self) -> BudgetState {
        self.inner.budget.standing()
    }

    /// Returns how long it takes at our share to send so many more requests, `search_requests` of which are searches.
    ///
    /// It counts the budget only: not the time that answers take, nor what other clients may spend meanwhile.
    #[must_use]
    pub fn time_for(&self, org_requests: u64, search_requests: u64) -> Duration {
        self.inner.budget.time_for(org_requests, search_requests)
    }

    /// Returns how far this machine's clock is ahead of the source's (below zero: behind), to about half a second; nothing
    /// before the first answer.
    #[must_use]
    pub fn clock_skew(&self) -> Option<SignedDuration> {
        let source_clock = self.inner.source_clock.lock().unwrap_or_else(PoisonError::into_inner);
        let source = source_clock.likely_at(self.inner.clock.elapsed())?;
        Some(self.inner.clock.now().duration_since(source))
    }

    /// Returns when the credential expires, where it says so: an API key at once, a login after its first request.
    #[must_use]
    pub fn credential_expiry(&self) -> Option<Timestamp> {
        self.inner.session.expires()
    }
}

impl<'a> Outgoing<'a> {
    const fn get(endpoint: Endpoint, url: &'a Url) -> Self {
        Self { endpoint, method: &Method::GET, url, body: None, is_repeat: false }
    }

    const fn post(endpoint: Endpoint, url: &'a Url, body: &'a Bytes) -> Self {
        Self { endpoint, method: &Method::POST, url, body: Some(body), is_repeat: false }
    }
}

impl Inner {
    /// Sends a request with its token until it is answered for good: a body, or nothing for a 404.
    async fn send(&self, mut outgoing: Outgoing<'_>) -> Result<Result<Bytes, Failure>> {
        let endpoint = outgoing.endpoint;
        let mut renewals = 0;
        loop {
            let token = self.session.token(self.source_now(), |body| self.login(body)).await?;
            let failure = match self.attempts(outgoing, Some(&token)).await? {
                Ok(body) => return Ok(Ok(body)),
                Err(failure) => failure,
            };
            let is_expired = matches!(failure, Failure::Expired);
            let failure = match failure {
                Failure::NotFound => return Ok(Err(failure)),
                Failure::Unauthorized(_) | Failure::Expired
                    if self.session.is_renewable() && renewals < if is_expired { MOST_RENEWALS } else { 1 } =>
                {
                    renewals += 1;
                    outgoing.is_repeat = true;
                    self.session.drop_refused(&token).await;
                    continue;
                }
                Failure::Unauthorized(_) if self.has_expired() => Failure::Expired,
                // A login was just renewed, so the token is good.
                Failure::Unauthorized(words) if endpoint != Endpoint::CurrentToken => {
                    if renewals > 0 || self.is_accepted(&token).await {
                        Failure::MissingRole(words)
                    } else {
                        Failure::Unauthorized(words)
                    }
                }
                failure => failure,
            };
            return Err(self.error(failure, endpoint, 1));
        }
    }

    /// Tells whether the source accepts a token that it refused for one endpoint: then a role is missing.
    async fn is_accepted(&self, token: &Token) -> bool {
        let Ok(url) = host::resolve(&self.base_url, "/v1/auth/tokens/current") else { return false };
        matches!(self.attempts(Outgoing::get(Endpoint::CurrentToken, &url), Some(token)).await, Ok(Ok(_)))
    }

    fn has_expired(&self) -> bool {
        self.session.expires().is_some_and(|expires| expires <= self.source_now())
    }

    async fn login(&self, body: zeroize::Zeroizing<Vec<u8>>) -> Result<Bytes> {
        let endpoint = Endpoint::Login;
        let url = host::resolve(&self.base_url, "/v1/auth/tokens")?;
        let body = Bytes::from_owner(body);
        self.attempts(Outgoing::post(endpoint, &url, &body), None).await?.map_err(|failure| match failure {
            Failure::Unauthorized(_) | Failure::Forbidden(_) | Failure::Expired | Failure::Refused { .. } => {
                auth::refused_login().with_context("cause", failure.cause()).with_context("host", &self.host)
            }
            Failure::NotFound => self.error(Failure::NoRoute, endpoint, 1),
            failure => self.error(failure, endpoint, 1),
        })
    }

    /// Repeats what may succeed later; what cannot is given back, what ran out of attempts is an error.
    async fn attempts(&self, mut outgoing: Outgoing<'_>, token: Option<&Token>) -> Result<Result<Bytes, Failure>> {
        let endpoint = outgoing.endpoint;
        let (mut failed, mut rate_limited) = (0, 0);
        loop {
            let (failure, headers) = match self.attempt(outgoing, token).await? {
                Ok(body) => return Ok(Ok(body)),
                Err(failed) => failed,
            };
            self.failed(endpoint, failure.cause());
            outgoing.is_repeat = true;
            if matches!(failure, Failure::RateLimited) {
                rate_limited += 1;
                if rate_limited == RATE_LIMITED_ATTEMPTS {
                    return Err(self.error(failure, endpoint, rate_limited));
                }
                let (at_least, jitter) = {
                    let mut random = self.random();
                    (self.backoff.bounded_delay(rate_limited, &mut random), random.below(Duration::from_secs(2)))
                };
                self.budget.close(endpoint.is_search(), &headers, at_least, jitter);
                continue;
            }
            if !failure.is_transient() {
                return Ok(Err(failure));
            }
            failed += 1;
            let delay = self.backoff.delay(failed, &mut self.random());
            let Some(delay) = delay else { return Err(self.error(failure, endpoint, failed)) };
            // A server that is down may say for how long.
            let delay = delay.max(headers.retry_after.unwrap_or_default());
            self.pause(endpoint, delay, failure.cause()).await;
        }
    }

    async fn attempt(
        &self,
        outgoing: Outgoing<'_>,
        token: Option<&Token>,
    ) -> Result<Result<Bytes, (Failure, Headers)>> {
        let Outgoing { endpoint, method, url, body, .. } = outgoing;
        let mut request = self.http.request(method.clone(), url.clone());
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token.header()?);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        self.check_limit(&self.ledger())?;
        let permit = self.budget.admit(endpoint.is_search(), |reason, wait| self.waited(reason, wait)).await;
        self.count(outgoing)?;
        let transport = |source: reqwest::Error, phase| Failure::Transport { source: source.without_url(), phase };
        let response = match request.send().await {
            Ok(response) => response,
            Err(source) => return Ok(Err((transport(source, Phase::Head), Headers::default()))),
        };
        let status = response.status().as_u16();
        let headers = Headers::read(response.headers(), self.learn_time(&response, permit.sent()), self.clock.now());
        permit.answered(&headers);
        let body = self.read_body(response, endpoint).await.map_err(|failure| match failure {
            BodyFailure::Transport(source) => transport(source, Phase::Body),
            BodyFailure::TooLarge => Failure::TooLarge { limit_bytes: self.largest_body_bytes },
        });
        let failure = match body {
            Ok(body) if (200..300).contains(&status) => {
                if is_whole(&body, endpoint) {
                    return Ok(Ok(body));
                }
                Failure::Torn
            }
            Ok(body) => Failure::read(status, &body),
            Err(failure) if (200..300).contains(&status) => failure,
            Err(_) => Failure::read(status, &[]),
        };
        Ok(Err((failure, headers)))
    }

    async fn read_body(&self, mut response: reqwest::Response, endpoint: Endpoint) -> Result<Bytes, BodyFailure> {
        let announced = response.content_length().and_then(|length| usize::try_from(length).ok());
        let mut body = self.buffers.take(announced.filter(|announced| *announced <= self.largest_body_bytes));
        let end = loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > self.largest_body_bytes => {
                    break Err(BodyFailure::TooLarge);
                }
                Ok(Some(chunk)) => body.extend(&chunk),
                Ok(None) => break Ok(()),
                Err(source) => break Err(BodyFailure::Transport(source)),
            }
        };
        *self.ledger().received_bytes.entry(endpoint.name()).or_default() += body.len() as u64;
        end.map(|()| body.freeze())
    }

    /// Notes how far this machine's clock is ahead of the source's, and returns the source's time; a `Date` has whole seconds.
    fn learn_time(&self, response: &reqwest::Response, sent: Duration) -> Option<Timestamp> {
        let date = date_of(response.headers())?;
        let ahead = self.clock.now().duration_since(date) - SignedDuration::from_secs(1);
        *self.offset.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
        let ahead = if ahead < CLOCK_TOLERANCE { SignedDuration::ZERO } else { ahead };
        let mut known = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_zero() && !ahead.is_zero() {
            tracing::warn!(
                ahead_s = ahead.as_secs(),
                "this machine's clock is ahead of the source's, whose time counts"
            );
        }
        *known = ahead;
        drop(known);
        let now = self.clock.elapsed();
        let mut source_clock = self.source_clock.lock().unwrap_or_else(PoisonError::into_inner);
        source_clock.learn(date, sent, now);
        source_clock.at(now)
    }

    fn source_now(&self) -> Timestamp {
        let ahead = *self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        now.saturating_sub(ahead.max(SignedDuration::ZERO)).unwrap_or(now)
    }

    async fn pause(&self, endpoint: Endpoint, delay: Duration, cause: &str) {
        tracing::info!(
            endpoint = endpoint.name(),
            cause,
            wait_ms = delay.as_millis() as u64,
            "asking again after a wait"
        );
        self.clock.sleep(delay).await;
        self.waited(Reason::Retry, delay);
    }

    /// Counts a request before it is sent, unless the last one that may be was sent already.
    fn count(&self, outgoing: Outgoing<'_>) -> Result<()> {
        let endpoint = outgoing.endpoint;
        let mut ledger = self.ledger();
        // Others may have been sent while this one waited for the budget.
        self.check_limit(&ledger)?;
        *ledger.requests.entry(endpoint.name()).or_default() += 1;
        *ledger.buckets.entry("org").or_default() += 1;
        if endpoint.is_search() {
            *ledger.buckets.entry("search").or_default() += 1;
        }
        if outgoing.is_repeat {
            *ledger.repeated.entry(endpoint.name()).or_default() += 1;
        }
        Ok(())
    }

    fn failed(&self, endpoint: Endpoint, cause: &'static str) {
        *self.ledger().failed.entry(endpoint.name()).or_default().entry(cause).or_default() += 1;
    }

    fn check_limit(&self, ledger: &Ledger) -> Result<()> {
        if ledger.total() < self.last_request.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Incomplete, "run has spent the requests that it may spend")
            .with_hint("what was committed is kept; run the extract again, it goes on from there"))
    }

    fn waited(&self, reason: Reason, wait: Duration) {
        *self.ledger().waited.entry(reason.name()).or_default() += wait;
    }

    /// Makes the crate's error; one that asks to try later says what was spent so far.
    fn error(&self, failure: Failure, endpoint: Endpoint, attempts: u32) -> Error {
        let error = failure.into_error(endpoint, &self.host, attempts);
        if error.kind() != ErrorKind::Unavailable {
            return error;
        }
        let ledger = self.ledger();
        let waited_s = ledger.total_waited().as_secs();
        error.with_context("requests so far", ledger.total()).with_context("waited_s", waited_s)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn random(&self) -> MutexGuard<'_, SplitMix64> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a body was not read to its end.
enum BodyFailure {
    Transport(reqwest::Error),
    TooLarge,
}

/// Tells whether a body is a whole JSON text. Pages of a search are large and decoded at once, which finds the rest: there
/// only the two ends are looked at.
fn is_whole(body: &[u8], endpoint: Endpoint) -> bool {
    let body = body.trim_ascii();
    let has_ends = matches!((body.first(), body.last()), (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']')));
    has_ends && (endpoint.is_search() || serde_json::from_slice::<IgnoredAny>(body).is_ok())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use axum::body::Body;
    use axum::extract::{Request, State};
    use axum::http::{HeaderMap, StatusCode};
    use axum::response::{IntoResponse, Response};
    use jiff::Timestamp;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::error::ErrorKind;
    use crate::kustomer::SearchObject;
    use crate::secret::SecretString;

    const START_SECOND: i64 = 1_800_000_000;

    /// What the server under test answers next, and what it was asked.
    #[derive(Default)]
    struct Script {
        answers: Mutex<VecDeque<Answer>>,
        asked: Mutex<Vec<Asked>>,
    }

    #[derive(Clone)]
    struct Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: &'static str,
        /// Announces more bytes than it sends.
        is_cut: bool,
    }

    #[derive(Debug, Clone)]
    struct Asked {
        line: String,
        authorization: Option<String>,
        user_agent: Option<String>,
    }

    fn answer(status: u16, body: &'static str) -> Answer {
        Answer { status, headers: Vec::new(), body, is_cut: false }
    }

    #[expect(clippy::needless_pass_by_value, reason = "numbers and texts read better without a borrow")]
    fn with(mut answer: Answer, name: &'static str, value: impl ToString) -> Answer {
        answer.headers.push((name, value.to_string()));
        answer
    }

    fn ok() -> Answer {
        answer(200, r#"{"data":[]}"#)
    }

    async fn serve(State(script): State<Arc<Script>>, request: Request) -> Response {
        let header =
            |headers: &HeaderMap, name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        script.asked.lock().unwrap().push(Asked {
            line: format!("{} {}", request.method(), request.uri()),
            authorization: header(request.headers(), "authorization"),
            user_agent: header(request.headers(), "user-agent"),
        });
        let answer = script.answers.lock().unwrap().pop_front().unwrap_or_else(ok);
        let mut response = if answer.is_cut {
            let body = futures::stream::iter([Ok(answer.body), Err(std::io::Error::other("cut"))]);
            Body::from_stream(body).into_response()
        } else {
            answer.body.into_response()
        };
        *response.status_mut() = StatusCode::from_u16(answer.status).unwrap();
        for (name, value) in answer.headers {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response
    }

    struct Fixture {
        script: Arc<Script>,
        clock: Arc<ManualClock>,
        client: Client,
    }

    impl Fixture {
        async fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
            Self::with_credential(answers, Credential::ApiKey(SecretString::new("key-1".to_owned()))).await
        }

        async fn with_credential(answers: impl IntoIterator<Item = Answer>, credential: Credential) -> Self {
            let script = Arc::new(Script { answers: Mutex::new(answers.into_iter().collect()), ..Script::default() });
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let base_url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
            let router = axum::Router::new().fallback(serve).with_state(Arc::clone(&script));
            tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
            let clock = Arc::new(ManualClock::new(Timestamp::from_second(START_SECOND).unwrap()));
            let client = Client::try_new(settings(base_url, credential), clock.clone(), 7).unwrap();
            Self { script, clock, client }
        }

        fn lines(&self) -> Vec<String> {
            self.script.asked.lock().unwrap().iter().map(|asked| asked.line.clone()).collect()
        }

        fn elapsed(&self) -> f64 {
            self.clock.now().duration_since(Timestamp::from_second(START_SECOND).unwrap()).as_secs_f64()
        }
    }

    fn settings(base_url: Url, credential: Credential) -> ClientSettings {
        ClientSettings {
            base_url,
            credential,
            org_rpm: 1_000,
            search_rpm: 100,
            share: 1.0,
            reserve: 0,
            timeout: Duration::from_secs(5),
            attempts: 4,
        }
    }

    fn search() -> SearchRequest {
        SearchRequest::builder(SearchObject::Conversation).updated_between(0, 1).unwrap().build()
    }

    #[tokio::test]
    async fn request_carries_the_token_and_the_program_and_is_in_the_ledger() {
        let fixture = Fixture::new([]).await;
        fixture.client.get(Endpoint::Users, "/v1/users?page=1&pageSize=500").await.unwrap();
        fixture.client.search(&search()).await.unwrap();
        assert_eq!(
            fixture.lines(),
            ["GET /v1/users?page=1&pageSize=500", "POST /v1/customers/search?page=1&pageSize=500"]
        );
        let asked = fixture.script.asked.lock().unwrap()[0].clone();
        assert_eq!(asked.authorization.as_deref(), Some("Bearer key-1"));
        assert!(asked.user_agent.unwrap().starts_with("counterfoil/"));
        assert_eq!(fixture.client.ledger().requests, BTreeMap::from([("search", 1), ("users", 1)]));
    }

    /// What the server of the fault table does with a connection.
    #[derive(Debug, Clone)]
    enum Fault {
        /// Sends these bytes, then closes.
        Bytes(Vec<u8>),
        /// Sends these bytes, then nothing, and keeps the connection.
        Silence(Vec<u8>),
        /// Closes before the request is read.
        Reset,
    }

    fn http(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
        let head =
            format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    fn cut(bytes: &[u8]) -> Vec<u8> {
        bytes[..bytes.len() - 3].to_vec()
    }

    /// 200,000 blanks in 245 bytes.
    fn gzip_bomb() -> Vec<u8> {
        let mut bomb = hex("1f8b0800000000000203edc1310d00200c00302b6432b0b2702c41021f997734f0b7bdb1eb54cc1c");
        bomb.extend([0; 193]);
        bomb.extend(hex("c0b7d50f60feb28b4b0d0300"));
        bomb
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// Starts a server that does the same with every connection, and counts them.
    async fn broken_server(fault: Fault) -> (Url, Arc<AtomicU64>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let connections = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let (bytes, is_kept) = match &fault {
                    Fault::Bytes(bytes) => (bytes, false),
                    Fault::Silence(bytes) => (bytes, true),
                    Fault::Reset => continue,
                };
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.unwrap_or(0) > 0 {}
                let _ = stream.write_all(bytes).await;
                if is_kept {
                    kept.push(stream);
                }
            }
        });
        (base_url, connections)
    }

    #[tokio::test]
    async fn every_fault_ends_in_its_kind_after_bounded_attempts_and_is_in_the_ledger() {
        use ErrorKind::{Config, Data, Denied, Internal, Unavailable};
        let bytes = Fault::Bytes;
        let record = "/v1/conversations/58228e05d4e96711004eccb7/notes";
        let list = "/v1/tags?page=1";
        let gzip = "content-encoding: gzip\r\n";
        let large = [&b"["[..], &vec![b' '; 150_000], b"]"].concat();
        let page = br#"{"data":[]}"#;
        let chunked = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"dat\r\n".to_vec();
        let mut cases = vec![
            ("reset", Fault::Reset, list, Unavailable, 3, "connection broke"),
            ("silence", Fault::Silence(Vec::new()), list, Unavailable, 3, "timed out"),
            ("stall", Fault::Silence(cut(&http(200, "", page))), list, Unavailable, 3, "stalled"),
            ("close before the answer", bytes(Vec::new()), list, Unavailable, 3, "connection broke"),
            ("no HTTP", bytes(b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec()), list, Unavailable, 3, "connection broke"),
            ("cut body", bytes(cut(&http(200, "", page))), list, Unavailable, 3, "torn"),
            ("cut chunk", bytes(chunked), list, Unavailable, 3, "torn"),
            ("empty body", bytes(http(200, "", b"")), list, Unavailable, 3, "torn"),
            ("no content", bytes(http(204, "", b"")), list, Unavailable, 3, "torn"),
            ("truncated JSON", bytes(http(200, "", br#"{"data":[{"id":"#)), list, Unavailable, 3, "torn"),
            ("invalid JSON", bytes(http(200, "", br#"{"data":[{"id":}]}"#)), list, Unavailable, 3, "torn"),
            ("a page of a proxy", bytes(http(200, "", b"<html>login</html>")), list, Unavailable, 3, "torn"),
            ("damaged gzip", bytes(http(200, gzip, &gzip_bomb()[..100])), list, Unavailable, 3, "torn"),
            ("no gzip at all", bytes(http(200, gzip, page)), list, Unavailable, 3, "torn"),
            ("gzip bomb", bytes(http(200, gzip, &gzip_bomb())), list, Data, 1, "too large"),
            ("too large", bytes(http(200, "", &large)), list, Data, 1, "too large"),
            ("gone record", bytes(http(404, "", b"")), record, Data, 1, "404"),
            ("unknown route", bytes(http(404, "", b"")), list, Internal, 1, "404"),
            ("redirect", bytes(http(301, "location: https://evil.example/\r\n", b"")), list, Config, 1, "3xx"),
            ("rate limit", bytes(http(429, "retry-after: -1\r\n", b"<html>")), list, Unavailable, 10, "429"),
            ("a status of nobody", bytes(http(599, "", b"")), list, Unavailable, 3, "other 5xx"),
        ];
        for (status, kind, attempts, cause) in [
            (400, Internal, 1, "400"),
            (402, Denied, 1, "402"),
            (403, Denied, 1, "403"),
            (408, Unavailable, 3, "408"),
            (409, Unavailable, 3, "409"),
            (413, Internal, 1, "413"),
            (422, Internal, 1, "other 4xx"),
            (500, Unavailable, 3, "500"),
            (501, Unavailable, 3, "501"),
            (502, Unavailable, 3, "502"),
            (503, Unavailable, 3, "503"),
            (504, Unavailable, 3, "504"),
        ] {
            for body in [&b""[..], b"<html>", br#"{"errors":[{"code":"x","title":"y"}]}"#, b"\xff\xfe"] {
                cases.push(("status", bytes(http(status, "", body)), list, kind, attempts, cause));
            }
        }
        for (name, fault, path, kind, attempts, cause) in cases {
            let is_silent = matches!(fault, Fault::Silence(_));
            let (base_url, connections) = broken_server(fault).await;
            let timeout = if is_silent { Duration::from_millis(150) } else { Duration::from_secs(20) };
            let key = Credential::ApiKey(SecretString::new("key-1".to_owned()));
            let settings = ClientSettings { timeout, attempts: 3, ..settings(base_url, key) };
            let clock = Arc::new(ManualClock::new(Timestamp::from_second(START_SECOND).unwrap()));
            let mut client = Client::try_new(settings, clock, 7).unwrap();
            Arc::get_mut(&mut client.inner).unwrap().largest_body_bytes = 100_000;
            let error = client.get(Endpoint::Tags, path).await.unwrap_err();
            let shown = format!("{name}, {cause}: {error:?}");
            assert_eq!(error.kind(), kind, "{shown}");
            assert!(!shown.contains("key-1") && !shown.contains("page=1"), "{shown}");
            assert_eq!(kind == Unavailable, error.to_string().contains("requests so far"), "{shown}");
            let ledger = client.ledger();
            assert_eq!(connections.load(Ordering::Relaxed), attempts, "{shown}");
            assert_eq!(ledger.requests, BTreeMap::from([("tags", attempts)]), "{shown}");
            assert_eq!(ledger.failed, BTreeMap::from([("tags", BTreeMap::from([(cause, attempts)]))]), "{shown}");
            assert_eq!(ledger.repeated.get("tags").copied().unwrap_or(0), attempts - 1, "{shown}");
            assert_eq!(ledger.buckets, BTreeMap::from([("org", attempts)]), "{shown}");
        }
    }

    #[tokio::test]
    async fn search_that_is_not_served_is_told_from_a_record_that_is_gone() {
        let fixture = Fixture::new([answer(404, "")]).await;
        let error = fixture.client.search(&search()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.to_string().contains("/v1/customers/search"), "{error}");
    }

    #[tokio::test]
    async fn server_that_is_down_says_for_how_long() {
        let fixture = Fixture::new([with(answer(503, ""), "retry-after", 40)]).await;
        fixture.client.search(&search()).await.unwrap();
        assert!((40.0..41.0).contains(&fixture.elapsed()), "{}", fixture.elapsed());
    }

    #[tokio::test]
    async fn ledger_holds_bytes_buckets_and_pages_that_were_of_no_use() {
        let fixture = Fixture::new([]).await;
        fixture.client.search(&search()).await.unwrap();
        assert!(fixture.client.back_off(Endpoint::Search, 1, "no total").await);
        fixture.client.get(Endpoint::Users, "/v1/users").await.unwrap();
        let ledger = fixture.client.ledger();
        assert_eq!(ledger.received_bytes, BTreeMap::from([("search", 11), ("users", 11)]));
        assert_eq!(ledger.buckets, BTreeMap::from([("org", 2), ("search", 1)]));
        assert_eq!(ledger.failed_by_cause(), BTreeMap::from([("unusable", 1)]));
        assert_eq!(ledger.repeated, BTreeMap::from([("search", 1)]));
    }

    #[tokio::test]
    async fn budget_state_tells_what_the_headers_said() {
        let said = with(with(ok(), "x-ratelimit-remaining", 77), "x-ratelimit-reset", START_SECOND + 12);
        let fixture = Fixture::new([with(said, "x-ratelimit-limit", 80)]).await;
        fixture.client.search(&search()).await.unwrap();
        let BudgetState { organisation, search, .. } = fixture.client.budget_state();
        assert_eq!((search.configured, search.limit, search.allowed, search.used), (100, 80, 80, 1));
        assert_eq!((search.said_limit, search.said_remaining), (Some(80), Some(77)));
        assert_eq!((organisation.said_limit, organisation.used, organisation.allowed), (None, 1, 1_000));
        assert!(fixture.client.time_for(300, 300) > Duration::from_mins(3));
    }

    #[tokio::test]
    async fn reserve_that_leaves_nothing_is_refused() {
        let credential = Credential::ApiKey(SecretString::new("key".to_owned()));
        let settings = ClientSettings { reserve: 1_000, ..settings("http://127.0.0.1:9".parse().unwrap(), credential) };
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        let error = Client::try_new(settings, clock, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("reserve: 1000"), "{error}");
    }

    #[tokio::test]
    async fn missing_role_is_told_from_a_bad_key_although_both_are_401() {
        let unauthorized = answer(401, r#"{"errors":[{"code":"unauthorized","message":"Not allowed"}]}"#);
        let fixture = Fixture::new([unauthorized.clone(), ok()]).await;
        let error =
            fixture.client.get(Endpoint::Notes, "/v1/conversations/58228e05d4e96711004eccb7/notes").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains("missing role: org.user.note.read"), "{error}");
        assert_eq!(fixture.lines()[1..], ["GET /v1/auth/tokens/current"]);

        let fixture = Fixture::new([unauthorized.clone(), unauthorized.clone()]).await;
        let error = fixture.client.search(&search()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(
            error.to_string().contains("refused the credential") && !error.to_string().contains("missing"),
            "{error}"
        );
        assert_eq!(fixture.lines().len(), 2);

        let token = answer(201, r#"{"data":{"attributes":{"token":"t"}}}"#);
        let answers = [token.clone(), unauthorized.clone(), token, unauthorized];
        let fixture = Fixture::with_credential(answers, login()).await;
        let error = fixture.client.search(&search()).await.unwrap_err();
        assert!(error.to_string().contains("missing role"), "a login that was just renewed is good: {error}");
        assert_eq!(fixture.lines().len(), 4);
    }

    fn jwt(expires_second: i64) -> String {
        use base64::Engine as _;
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{expires_second}}}"#));
        format!("eyJhbGciOiJIUzI1NiJ9.{claims}.c2ln")
    }

    #[tokio::test]
    async fn skew_of_the_clock_is_told_in_both_directions() {
        for (date, skew_s) in [("Fri, 15 Jan 2027 08:00:30 GMT", -30.0), ("Fri, 15 Jan 2027 07:00:00 GMT", 3_600.0)] {
            let fixture = Fixture::new([with(ok(), "date", date)]).await;
            assert_eq!(fixture.client.clock_skew(), None);
            fixture.client.check().await.unwrap();
            let told = fixture.client.clock_skew().unwrap().as_secs_f64();
            assert!((told - skew_s).abs() <= 0.6, "{date}: {told}");
        }
    }

    #[tokio::test]
    async fn api_key_tells_its_expiry_and_one_that_is_past_is_named() {
        let key = Credential::ApiKey(SecretString::new(jwt(START_SECOND - 10)));
        // The source's own time is the one that counts.
        let refused = with(answer(401, ""), "date", "Fri, 15 Jan 2027 08:00:00 GMT");
        let fixture = Fixture::with_credential([refused], key).await;
        assert_eq!(fixture.client.credential_expiry().unwrap().as_second(), START_SECOND - 10);
        let error = fixture.client.search(&search()).await.unwrap_err();
        assert!(error.to_string().contains("has expired"), "{error}");
        assert_eq!((error.kind(), fixture.lines().len()), (ErrorKind::Denied, 1));
    }

    /// A server that accepts the token that it gave last, and counts logins.
    #[derive(Default)]
    struct Gate {
        token: Mutex<String>,
        logins: AtomicU64,
        life_s: Option<i64>,
    }

    async fn gate(State(gate): State<Arc<Gate>>, request: Request) -> (StatusCode, String) {
        if request.uri().path() == "/v1/auth/tokens" {
            let number = gate.logins.fetch_add(1, Ordering::SeqCst) as i64;
            let token =
                gate.life_s.map_or_else(|| format!("t{number}"), |life_s| jwt(START_SECOND + (number + 1) * life_s));
            gate.token.lock().unwrap().clone_from(&token);
            return (StatusCode::CREATED, format!(r#"{{"data":{{"attributes":{{"token":"{token}"}}}}}}"#));
        }
        let given = request.headers()["authorization"].to_str().unwrap();
        if given == format!("Bearer {}", gate.token.lock().unwrap()) {
            (StatusCode::OK, r#"{"data":[]}"#.to_owned())
        } else {
            (StatusCode::UNAUTHORIZED, r#"{"errors":[{"message":"Expired token"}]}"#.to_owned())
        }
    }

    async fn gated(life_s: Option<i64>) -> (Arc<Gate>, Arc<ManualClock>, Client) {
        let state = Arc::new(Gate { life_s, ..Gate::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let router = axum::Router::new().fallback(gate).with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let clock = Arc::new(ManualClock::new(Timestamp::from_second(START_SECOND).unwrap()));
        let client = Client::try_new(settings(base_url, login()), clock.clone(), 7).unwrap();
        (state, clock, client)
    }

    #[tokio::test]
    async fn token_that_expires_under_requests_side_by_side_is_renewed_once() {
        let (gate, _, client) = gated(None).await;
        let ask_all = || async {
            let all = (0..8).map(|_| client.get(Endpoint::Users, "/v1/users"));
            assert!(futures::future::join_all(all).await.iter().all(Result::is_ok));
        };
        ask_all().await;
        assert_eq!(gate.logins.load(Ordering::SeqCst), 1);
        "something else".clone_into(&mut gate.token.lock().unwrap());
        ask_all().await;
        assert_eq!(gate.logins.load(Ordering::SeqCst), 2, "eight requests met the expired token, one logged in");
        let ledger = client.ledger();
        assert_eq!((ledger.requests["login"], ledger.requests["users"], ledger.repeated["users"]), (2, 24, 8));
        assert_eq!(ledger.failed["users"], BTreeMap::from([("401", 8)]));
    }

    #[tokio::test]
    async fn token_that_says_when_it_expires_is_renewed_before() {
        let (gate, clock, client) = gated(Some(3_600)).await;
        client.check().await.unwrap();
        assert_eq!(client.credential_expiry().unwrap().as_second(), START_SECOND + 3_600);
        clock.advance(Duration::from_mins(50));
        client.check().await.unwrap();
        assert_eq!(gate.logins.load(Ordering::SeqCst), 1);
        // Without a `Date` that fits, this machine's time counts less what it is ahead; the source's is set by the test's server.
        client.inner.ahead.lock().unwrap().clone_from(&SignedDuration::ZERO);
        clock.advance(Duration::from_secs(500));
        client.check().await.unwrap();
        assert_eq!(gate.logins.load(Ordering::SeqCst), 2);
        assert!(client.ledger().failed.is_empty(), "the old token was never refused");
    }

    #[tokio::test]
    async fn login_that_is_refused_is_not_tried_again_by_anyone() {
        for status in [400, 401, 403, 422] {
            let fixture = Fixture::with_credential(std::iter::repeat_n(answer(status, ""), 50), login()).await;
            let all = (0..6).map(|_| fixture.client.get(Endpoint::Users, "/v1/users"));
            for answer in futures::future::join_all(all).await {
                let error = answer.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Denied, "{status}");
                assert!(error.to_string().contains("refused the login"), "{error}");
            }
            assert_eq!(fixture.lines(), ["POST /v1/auth/tokens"], "{status}");
        }
    }

    #[tokio::test]
    async fn failures_that_pass_are_asked_again_and_counted() {
        let cut = Answer { is_cut: true, ..answer(200, r#"{"data":["#) };
        let cases = [
            answer(500, ""),
            answer(502, "<html>bad gateway</html>"),
            answer(503, ""),
            answer(504, ""),
            cut,
            answer(200, ""),
            answer(200, r#"{"data":[{"id":"#),
            answer(200, "<html>proxy</html>"),
        ];
        for case in cases {
            let fixture = Fixture::new([case.clone(), case.clone(), ok()]).await;
            let body = fixture.client.search(&search()).await.unwrap();
            assert_eq!(&body[..], br#"{"data":[]}"#, "{} {}", case.status, case.body);
            let ledger = fixture.client.ledger();
            assert_eq!(ledger.total(), 3);
            assert!(ledger.waited["retry"] >= Duration::from_millis(750));
        }
    }

    #[tokio::test]
    async fn failure_that_stays_is_unavailable_after_the_attempts() {
        let fixture = Fixture::new(std::iter::repeat_n(answer(503, ""), 10)).await;
        let error = fixture.client.get(Endpoint::Tags, "/v1/tags?secret=1").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("tags") && error.to_string().contains("127.0.0.1"), "{error}");
        assert!(!format!("{error:?}").contains("secret=1"));
        assert_eq!(fixture.lines().len(), 4);
    }

    #[tokio::test]
    async fn host_that_does_not_listen_is_unavailable() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        let credential = Credential::ApiKey(SecretString::new("key".to_owned()));
        let client = Client::try_new(settings(base_url, credential), clock, 1).unwrap();
        let error = client.check().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(client.ledger().requests["current_token"], 4, "requests that reach nobody are counted too");
    }

    #[tokio::test]
    async fn rate_limit_waits_as_told_and_asks_again() {
        let reset = START_SECOND + 30;
        let cases = [
            (with(answer(429, "slow down"), "x-ratelimit-reset", reset), 30.0, 31.0),
            (with(answer(429, "{}"), "x-ratelimit-reset", format!("{reset}.25")), 30.0, 31.0),
            (with(answer(429, ""), "retry-after", 5), 5.0, 6.0),
            (with(answer(429, ""), "retry-after", 0), 60.0, 63.0),
            (with(answer(429, ""), "retry-after", "99999999999999999999"), 60.0, 63.0),
            (with(answer(429, ""), "retry-after", "later"), 60.0, 63.0),
            (answer(429, ""), 60.0, 63.0),
        ];
        for (limited, at_least, at_most) in cases {
            let fixture = Fixture::new([limited.clone()]).await;
            fixture.client.search(&search()).await.unwrap();
            let elapsed = fixture.elapsed();
            assert!((at_least..at_most).contains(&elapsed), "{:?}: {elapsed}", limited.headers);
            assert_eq!(fixture.client.ledger().waited.keys().copied().collect::<Vec<_>>(), ["rate limited"]);
            assert_eq!(fixture.lines().len(), 2);
        }
    }

    #[tokio::test]
    async fn rate_limit_that_never_ends_is_unavailable() {
        let limited = with(answer(429, ""), "retry-after", 0);
        let fixture = Fixture::new(std::iter::repeat_n(limited, 50)).await;
        let error = fixture.client.get(Endpoint::Notes, "/v1/conversations/1/notes").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(fixture.lines().len(), 10);
        assert!(fixture.elapsed() > 500.0);
    }

    #[tokio::test]
    async fn good_page_with_nothing_remaining_is_kept_and_the_next_waits() {
        let last = with(with(ok(), "x-ratelimit-remaining", 0), "x-ratelimit-reset", START_SECOND + 12);
        let fixture = Fixture::new([with(last, "x-ratelimit-limit", "100")]).await;
        fixture.client.search(&search()).await.unwrap();
        assert!(fixture.elapsed() < 0.001);
        fixture.client.search(&search()).await.unwrap();
        assert!((12.0..12.5).contains(&fixture.elapsed()), "{}", fixture.elapsed());
    }

    #[tokio::test]
    async fn record_that_is_gone_is_told_from_a_failure() {
        let body = r#"{"errors":[{"code":"not_found","message":"gone"}]}"#;
        let fixture = Fixture::new([answer(404, body), answer(404, body)]).await;
        let path = "/v1/conversations/58228e05d4e96711004eccb7";
        assert_eq!(fixture.client.get_optional(Endpoint::Conversations, path).await.unwrap(), None);
        let error = fixture.client.get(Endpoint::Conversations, path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.to_string().contains(path), "{error}");
    }

    #[tokio::test]
    async fn refused_request_is_not_repeated() {
        for status in [400, 402, 403, 413, 422] {
            let fixture = Fixture::new([answer(status, "")]).await;
            fixture.client.search(&search()).await.unwrap_err();
            assert_eq!(fixture.lines().len(), 1, "{status}");
        }
    }

    #[tokio::test]
    async fn redirect_is_not_followed() {
        let fixture = Fixture::new([with(answer(302, ""), "location", "http://127.0.0.1:9/v1/users")]).await;
        let error = fixture.client.get(Endpoint::Users, "/v1/users").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(fixture.lines().len(), 1);
    }

    #[tokio::test]
    async fn path_that_leaves_the_host_is_refused_unsent() {
        let fixture = Fixture::new([]).await;
        for path in [
            "https://evil.example/v1/users",
            "//evil.example/v1/users",
            "/v1/../admin",
            "/v1\\..\\x",
            "/v2/users",
            "users",
            "/v1/users#x",
            "/v1/us\ners",
        ] {
            let error = fixture.client.get(Endpoint::Users, path).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data, "{path}");
        }
        assert_eq!(fixture.client.ledger().total(), 0);
    }

    fn login() -> Credential {
        Credential::Login { email: "agent@acme.example".to_owned(), password: SecretString::new("hunter2".to_owned()) }
    }

    #[tokio::test]
    async fn login_is_exchanged_once_and_again_when_the_token_expires() {
        let first = answer(201, r#"{"data":{"type":"token","id":"1","attributes":{"token":"t1"}}}"#);
        let second = answer(201, r#"{"data":{"type":"token","id":"2","attributes":{"token":"t2"}}}"#);
        let expired = answer(401, r#"{"errors":[{"code":"unauthorized","message":"Expired token"}]}"#);
        let fixture = Fixture::with_credential([first, ok(), expired, second, ok()], login()).await;
        fixture.client.search(&search()).await.unwrap();
        fixture.client.search(&search()).await.unwrap();
        let asked = fixture.script.asked.lock().unwrap().clone();
        let tokens: Vec<_> = asked.iter().map(|asked| asked.authorization.as_deref().unwrap_or("-")).collect();
        assert_eq!(tokens, ["-", "Bearer t1", "Bearer t1", "-", "Bearer t2"]);
        assert_eq!(asked[0].line, "POST /v1/auth/tokens");
        assert_eq!(fixture.client.ledger().requests["login"], 2);
    }

    #[tokio::test]
    async fn login_that_is_refused_ends_denied_and_shows_no_secret() {
        let fixture = Fixture::with_credential([answer(401, "")], login()).await;
        let error = fixture.client.check().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        let shown = format!("{error:?} {:?}", fixture.client);
        assert!(!shown.contains("hunter2") && !shown.contains("agent@"), "{shown}");
    }

    #[tokio::test]
    async fn refused_login_token_is_renewed_once_only() {
        let token = answer(201, r#"{"data":{"attributes":{"token":"t"}}}"#);
        let fixture = Fixture::with_credential(
            [token.clone(), answer(401, ""), token, answer(401, ""), answer(401, "")],
            login(),
        )
        .await;
        assert_eq!(fixture.client.check().await.unwrap_err().kind(), ErrorKind::Denied);
        assert_eq!(fixture.lines().len(), 4);
    }

    #[test]
    fn address_is_checked_before_anything_is_sent() {
        let cases = [
            ("https://acme.api.kustomerapp.com", true),
            ("https://acme.api.kustomerapp.com/", true),
            ("http://127.0.0.1:8080", true),
            ("http://localhost:8080", true),
            ("http://[::1]:8080", true),
            ("http://acme.api.kustomerapp.com", false),
            ("http://localhost.evil.example", false),
            ("http://10.0.0.1", false),
            ("ftp://acme.example", false),
            ("https://me:secret@acme.example", false),
            ("https://acme.example/v1", false),
            ("https://acme.example/?x=secret", false),
        ];
        for (url, is_good) in cases {
            let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
            let credential = Credential::ApiKey(SecretString::new("key".to_owned()));
            match Client::try_new(settings(url.parse().unwrap(), credential), clock, 1) {
                Ok(_) => assert!(is_good, "{url}"),
                Err(error) => {
                    assert!(!is_good, "{url}: {error:?}");
                    assert_eq!(error.kind(), ErrorKind::Config, "{url}");
                    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn requests_side_by_side_keep_within_the_share() {
        let fixture = Fixture::new([]).await;
        let client = &fixture.client;
        let times = Mutex::new(Vec::new());
        futures::future::join_all((0..250).map(|_| async {
            client.search(&search()).await.unwrap();
            times.lock().unwrap().push(fixture.clock.now().as_millisecond());
        }))
        .await;
        let ledger = client.ledger();
        assert_eq!(ledger.total(), 250);
        assert!(fixture.elapsed() > 122.0, "two full windows must pass: {}", fixture.elapsed());
        assert!(ledger.waited["search budget"] > Duration::from_secs(100), "{ledger:?}");
    }
}
