//! The client: one request at a time through budget, session and retries, to one host.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap};
use reqwest::{Method, redirect};
use url::{Host, Url};

use super::auth::{Credential, Session, Token};
use super::budget::{Budget, Headers, Reason};
use super::endpoint::Endpoint;
use super::error::Failure;
use super::search::SearchRequest;
use crate::clock::SharedClock;
use crate::error::{Error, ErrorKind, Result};
use crate::retry::{Backoff, SplitMix64};

/// Pages of 500 records have a few megabytes; what is larger than this is none.
const LARGEST_BODY_BYTES: usize = 128 << 20;

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
    /// How long one request may take.
    pub timeout: Duration,
    /// Attempts at one request before the run fails.
    pub attempts: u32,
}

/// A client within the budget. Cheap to clone; clones share budget and ledger.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

/// Requests and waits so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Requests sent (failed ones too), by endpoint name.
    pub requests: BTreeMap<&'static str, u64>,
    /// Time waited, by reason: `org budget`, `search budget`, `rate limited`, `retry`.
    pub waited: BTreeMap<&'static str, Duration>,
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
    clock: SharedClock,
    random: Mutex<SplitMix64>,
    ledger: Mutex<Ledger>,
    /// Requests in all after which none is sent any more.
    last_request: AtomicU64,
    /// How far this machine's clock is ahead of the source's, by the `Date` of its last answer.
    ahead: Mutex<SignedDuration>,
}

/// One request as it goes over the wire.
#[derive(Debug, Clone, Copy)]
struct Outgoing<'a> {
    endpoint: Endpoint,
    method: &'a Method,
    url: &'a Url,
    body: Option<&'a Bytes>,
}

impl Client {
    /// Checks the settings and makes the client; no request is made. `seed` drives the jitter of retries.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the address is no plain `https://host` (or loopback), or a limit
    /// is out of range.
    pub fn try_new(settings: ClientSettings, clock: SharedClock, seed: u64) -> Result<Self> {
        let ClientSettings { base_url, credential, org_rpm, search_rpm, share, timeout, attempts } = settings;
        let host = check_base_url(&base_url)?;
        if !(share > 0.0 && share <= 1.0) {
            return Err(Error::config("share of the budget must be above 0 and at most 1").with_context("share", share));
        }
        for (name, value) in [("org_rpm", org_rpm), ("search_rpm", search_rpm), ("attempts", attempts)] {
            if value == 0 {
                return Err(Error::config("setting must be above 0").with_context("setting", name));
            }
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("counterfoil/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .connect_timeout(timeout.min(Duration::from_secs(15)))
            .timeout(timeout);
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
                budget: Budget::new(org_rpm, search_rpm, share, Arc::clone(&clock)),
                backoff: Backoff::new(attempts),
                clock,
                random: Mutex::new(SplitMix64::new(seed)),
                ledger: Mutex::new(Ledger::default()),
                last_request: AtomicU64::new(u64::MAX),
                ahead: Mutex::new(SignedDuration::ZERO),
            }),
        })
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
    /// `Unavailable` after the last attempt, `Denied` for the credential, `Data` for a 404 or a path of another host,
    /// `Internal` for a request that the source refuses.
    pub async fn get(&self, endpoint: Endpoint, path: &str) -> Result<Bytes> {
        let url = self.inner.url(path)?;
        self.inner
            .send(Outgoing { endpoint, method: &Method::GET, url: &url, body: None })
            .await?
            .map_err(|failure| failure.into_error(endpoint, &self.inner.host, 1).with_context("path", url.path()))
    }

    /// Sends one GET like [`get`](Self::get), and returns nothing for a 404.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Self::get), but for the 404.
    pub async fn get_optional(&self, endpoint: Endpoint, path: &str) -> Result<Option<Bytes>> {
        let url = self.inner.url(path)?;
        let answer = self.inner.send(Outgoing { endpoint, method: &Method::GET, url: &url, body: None }).await?;
        Ok(answer.ok())
    }

    /// Sends one search and returns the page.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Self::get).
    pub async fn search(&self, request: &SearchRequest) -> Result<Bytes> {
        let endpoint = request.endpoint();
        let url = self.inner.url(&request.path())?;
        let body = serde_json::to_vec(&request.body)
            .map_err(|source| Error::internal("failed to write the search").with_source(source))?;
        let body = Bytes::from(body);
        let outgoing = Outgoing { endpoint, method: &Method::POST, url: &url, body: Some(&body) };
        let answer = self.inner.send(outgoing).await?;
        answer.map_err(|failure| failure.into_error(endpoint, &self.inner.host, 1))
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
        let Some(delay) = delay else { return false };
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
        let ahead = *self.inner.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.inner.clock.now();
        now.saturating_sub(ahead.max(SignedDuration::ZERO)).unwrap_or(now)
    }

    /// Returns what was asked so far.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.inner.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Ledger {
    /// Returns the sum of the requests.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.requests.values().sum()
    }

    /// Returns the sum of the waits.
    #[must_use]
    pub fn total_waited(&self) -> Duration {
        self.waited.values().sum()
    }

    /// Returns what was added since an earlier state of the same ledger.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let requests = self.requests.iter().map(|(name, count)| {
            (*name, count.saturating_sub(earlier.requests.get(name).copied().unwrap_or_default()))
        });
        let waited = self
            .waited
            .iter()
            .map(|(name, wait)| (*name, wait.saturating_sub(earlier.waited.get(name).copied().unwrap_or_default())));
        Self {
            requests: requests.filter(|(_, count)| *count > 0).collect(),
            waited: waited.filter(|(_, wait)| !wait.is_zero()).collect(),
        }
    }
}

impl Inner {
    /// Resolves a path on the one host; anything that would leave it is refused.
    fn url(&self, path: &str) -> Result<Url> {
        let refused =
            || Error::data("source links to something that is no path of its API").with_context("host", &self.host);
        if !path.starts_with("/v1/") || path.contains(['\\', '#']) || path.contains(char::is_control) {
            return Err(refused());
        }
        let url = self.base_url.join(path).map_err(|_| refused())?;
        if url.origin() != self.base_url.origin() || !url.path().starts_with("/v1/") {
            return Err(refused());
        }
        Ok(url)
    }

    /// Sends a request with its token until it is answered for good: a body, or nothing for a 404.
    async fn send(&self, outgoing: Outgoing<'_>) -> Result<Result<Bytes, Failure>> {
        let mut token = self.session.token(|body| self.login(body)).await?;
        let mut renewed = false;
        loop {
            let failure = match self.attempts(outgoing, Some(&token)).await? {
                Ok(body) => return Ok(Ok(body)),
                Err(failure) => failure,
            };
            match failure {
                Failure::NotFound => return Ok(Err(failure)),
                Failure::Unauthorized(_) | Failure::Expired if !renewed => {
                    renewed = true;
                    match self.session.after_refusal(&token, |body| self.login(body)).await? {
                        Some(newer) => token = newer,
                        None => return Err(failure.into_error(outgoing.endpoint, &self.host, 1)),
                    }
                }
                failure => return Err(failure.into_error(outgoing.endpoint, &self.host, 1)),
            }
        }
    }

    async fn login(&self, body: zeroize::Zeroizing<Vec<u8>>) -> Result<Bytes> {
        let endpoint = Endpoint::Login;
        let url = self.url("/v1/auth/tokens")?;
        let body = Bytes::from_owner(body);
        let outgoing = Outgoing { endpoint, method: &Method::POST, url: &url, body: Some(&body) };
        self.attempts(outgoing, None).await?.map_err(|failure| failure.into_error(endpoint, &self.host, 1))
    }

    /// Repeats what may succeed later; what cannot is given back, what ran out of attempts is an error.
    async fn attempts(&self, outgoing: Outgoing<'_>, token: Option<&Token>) -> Result<Result<Bytes, Failure>> {
        let endpoint = outgoing.endpoint;
        let (mut failed, mut rate_limited) = (0, 0);
        loop {
            let failure = match self.attempt(outgoing, token).await? {
                Ok(body) => return Ok(Ok(body)),
                Err((failure, headers)) => {
                    if matches!(failure, Failure::RateLimited) {
                        rate_limited += 1;
                        if rate_limited < RATE_LIMITED_ATTEMPTS {
                            let (at_least, jitter) = {
                                let mut random = self.random();
                                let at_least = self.backoff.bounded_delay(rate_limited, &mut random);
                                (at_least, random.below(Duration::from_secs(2)))
                            };
                            self.budget.close(endpoint.is_search(), &headers, at_least, jitter);
                            continue;
                        }
                    }
                    failure
                }
            };
            if !failure.is_transient() {
                return match failure {
                    Failure::RateLimited => Err(failure.into_error(endpoint, &self.host, rate_limited)),
                    failure => Ok(Err(failure)),
                };
            }
            failed += 1;
            let delay = self.backoff.delay(failed, &mut self.random());
            let Some(delay) = delay else { return Err(failure.into_error(endpoint, &self.host, failed)) };
            self.pause(endpoint, delay, &failure.cause()).await;
        }
    }

    async fn attempt(
        &self,
        outgoing: Outgoing<'_>,
        token: Option<&Token>,
    ) -> Result<Result<Bytes, (Failure, Headers)>> {
        let Outgoing { endpoint, method, url, body } = outgoing;
        let mut request = self.http.request(method.clone(), url.clone());
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token.header()?);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        self.check_limit(&self.ledger.lock().unwrap_or_else(PoisonError::into_inner))?;
        let permit = self.budget.admit(endpoint.is_search(), |reason, wait| self.waited(reason, wait)).await;
        self.count(endpoint)?;
        let response = match request.send().await {
            Ok(response) => response,
            Err(source) => return Ok(Err((Failure::Transport(source.without_url()), Headers::default()))),
        };
        let status = response.status().as_u16();
        let headers = Headers::read(response.headers(), self.clock.now());
        self.compare_clocks(response.headers());
        let body = read_body(response).await;
        drop(permit);
        self.budget.correct(endpoint.is_search(), &headers);
        let failure = match body {
            Ok(body) if (200..300).contains(&status) => {
                if looks_whole(&body) {
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

    /// Notes how far this machine's clock is ahead of the source's; a `Date` has whole seconds.
    fn compare_clocks(&self, headers: &HeaderMap) {
        let Some(date) = headers.get(DATE).and_then(|date| date.to_str().ok()) else { return };
        let Ok(date) = rfc2822::parse(date) else { return };
        let ahead = self.clock.now().duration_since(date.timestamp()) - SignedDuration::from_secs(1);
        let ahead = if ahead < CLOCK_TOLERANCE { SignedDuration::ZERO } else { ahead };
        let mut known = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_zero() && !ahead.is_zero() {
            tracing::warn!(
                ahead_s = ahead.as_secs(),
                "this machine's clock is ahead of the source's, whose time counts"
            );
        }
        *known = ahead;
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
    fn count(&self, endpoint: Endpoint) -> Result<()> {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        // Others may have been sent while this one waited for the budget.
        self.check_limit(&ledger)?;
        *ledger.requests.entry(endpoint.name()).or_default() += 1;
        Ok(())
    }

    fn check_limit(&self, ledger: &Ledger) -> Result<()> {
        if ledger.total() < self.last_request.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Incomplete, "run has spent the requests that it may spend")
            .with_hint("what was committed is kept; run the extract again, it goes on from there"))
    }

    fn waited(&self, reason: Reason, wait: Duration) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        *ledger.waited.entry(reason.name()).or_default() += wait;
    }

    fn random(&self) -> std::sync::MutexGuard<'_, SplitMix64> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the host of an address that may be asked with a credential.
fn check_base_url(url: &Url) -> Result<String> {
    let Some(host) = url.host() else {
        return Err(Error::config("address of the source has no host").with_context("base_url", url.scheme()));
    };
    let name = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_string(),
    };
    let is_loopback = match host {
        Host::Domain(domain) => domain.eq_ignore_ascii_case("localhost"),
        Host::Ipv4(address) => IpAddr::V4(address).is_loopback(),
        Host::Ipv6(address) => IpAddr::V6(address).is_loopback(),
    };
    match url.scheme() {
        "https" => {}
        "http" if is_loopback => {}
        "http" => {
            return Err(Error::config(
                "plain http is allowed to this machine only: the credential would be readable on the way",
            )
            .with_context("host", name)
            .with_hint("write https:// in `base_url`"));
        }
        scheme => {
            return Err(Error::config("address of the source is neither https nor http")
                .with_context("scheme", scheme)
                .with_context("host", name));
        }
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::config("address of the source holds a credential")
            .with_context("host", name)
            .with_hint("name the credential with `api_key` or `email` and `password`"));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(Error::config("address of the source has more than a scheme and a host")
            .with_context("host", name)
            .with_hint("leave out the path: `/v1` is added"));
    }
    Ok(name)
}

async fn read_body(mut response: reqwest::Response) -> Result<Bytes, Failure> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|source| Failure::Transport(source.without_url()))? {
        if body.len() + chunk.len() > LARGEST_BODY_BYTES {
            return Err(Failure::TooLarge { limit_bytes: LARGEST_BODY_BYTES });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Tells whether a body begins and ends as a JSON object or array does; the decoder checks the rest.
fn looks_whole(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    matches!((body.first(), body.last()), (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']')))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

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
        for status in [400, 401, 403, 409, 413] {
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
        assert!(!shown.contains("hunter2"), "{shown}");
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
