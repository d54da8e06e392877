//! The API server: from a request to an answer, with its limits, its credentials and its faults.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};
use futures::StreamExt as _;

use super::access::{Access, Caller, Login};
use super::answers;
use super::bucket::Signer;
use super::control;
use super::faults::{Fault, Plan};
use super::limits::{Limits, Standing};
use super::lists::{Manner, Query};
use super::organisation::Organisation;
use super::refusal::Refusal;
use super::routes::{self, Outcome};
use super::traffic::Meter;
use super::{Faults, SandboxSettings, roles, spoil, throttled};

/// Bodies of most endpoints may have 100 kB.
const BODY_LIMIT_BYTES: usize = 100_000;
/// The type of most bodies.
pub(super) const JSON: &str = "application/json; charset=utf-8";
const SLOW: Duration = Duration::from_secs(2);
const HTML: &[u8] = b"<!doctype html><html><body><h1>One moment, please</h1></body></html>";

/// What every request shares.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) settings: Behaviour,
    pub(super) organisation: Arc<Organisation>,
    pub(super) signer: Arc<Signer>,
    pub(super) access: Access,
    limits: Limits,
    pub(super) meter: Meter,
    number: AtomicU64,
    pub(super) plan: Plan,
    /// Records that change at each request.
    pub(super) drift: AtomicU32,
}

/// The settings that answers depend on.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a behaviour of its own")]
pub(super) struct Behaviour {
    pub(super) result_window_rows: u64,
    pub(super) max_pages: u32,
    pub(super) oversize: super::Oversize,
    pub(super) several_customers: bool,
    pub(super) largest_id_list: usize,
    pub(super) largest_page_size: u64,
    pub(super) largest_list_page_size: u64,
    pub(super) lists: Manner,
    foreign_org: bool,
    missing_role_status: u16,
    rate_limit_headers: bool,
    rate_limit_body: super::RateLimitBody,
    retry_after: super::RetryAfter,
    pub(super) deleted_by_id: super::DeletedById,
    pub(super) ids_only: super::IdsOnly,
    pub(super) merges_touch_conversations: bool,
    pub(super) ties: bool,
    latency: Duration,
    seed: u64,
    faults: Faults,
}

/// An answer before it is sent.
#[derive(Debug)]
struct Reply {
    status: u16,
    body: Vec<u8>,
    standing: Option<Standing>,
    fault: Option<Fault>,
}

impl Server {
    pub(super) fn new(settings: SandboxSettings, organisation: Arc<Organisation>, signer: Arc<Signer>) -> Self {
        let access = Access::new(
            &organisation.namer,
            settings.pod,
            settings.api_key,
            Login { email: settings.email, password: settings.password, ttl: settings.token_ttl },
            settings.key_expiry.map(|expiry| organisation.now_ms() + expiry.as_millis() as i64),
            &settings.withheld_roles,
        );
        Self {
            settings: Behaviour {
                result_window_rows: settings.result_window_rows,
                max_pages: settings.max_pages,
                oversize: settings.oversize,
                several_customers: settings.several_customers,
                largest_id_list: settings.largest_id_list,
                largest_page_size: settings.largest_page_size,
                largest_list_page_size: settings.largest_list_page_size,
                lists: Manner { capped_totals: settings.capped_totals, next_link_prefix: settings.next_link_prefix },
                foreign_org: settings.foreign_org,
                missing_role_status: settings.missing_role_status,
                rate_limit_headers: settings.rate_limit_headers,
                rate_limit_body: settings.rate_limit_body,
                retry_after: settings.retry_after,
                deleted_by_id: settings.deleted_by_id,
                ids_only: settings.ids_only,
                merges_touch_conversations: settings.merges_touch_conversations,
                ties: settings.ties,
                latency: settings.latency,
                seed: settings.seed,
                faults: settings.faults,
            },
            organisation,
            signer,
            access,
            limits: Limits::new(settings.org_rpm, settings.search_rpm, settings.window, settings.window_phase),
            meter: Meter::default(),
            number: AtomicU64::new(0),
            plan: Plan::default(),
            drift: AtomicU32::new(settings.drift),
        }
    }

    pub(super) fn attachments_url(&self) -> &str {
        &self.signer.url
    }

    pub(super) fn api_key(&self) -> &str {
        self.access.api_key()
    }

    pub(super) fn organisation(&self) -> &Organisation {
        &self.organisation
    }

    /// Returns how many requests came to known routes.
    pub(super) fn received(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// Answers one request of the API.
    fn answer(&self, parts: &Parts, body: &[u8]) -> Reply {
        let path = trimmed(parts.uri.path());
        let json_api = routes::has_json_api_errors(path);
        let refuse = |refusal: &Refusal, standing| Reply {
            status: refusal.status,
            body: refusal.body(json_api).to_string().into_bytes(),
            standing,
            fault: None,
        };
        let now_ms = self.organisation.now_ms();
        let (route, name, values) = match routes::find(&parts.method, path) {
            Outcome::Found { route, pattern, values } => {
                let name = format!("{} {}", parts.method, pattern.replacen("{}", "{id}", 2));
                self.note(parts, name.clone(), route.is_search(), now_ms);
                (route, name, values)
            }
            Outcome::WrongMethod => {
                self.note(parts, "wrong method".to_owned(), false, now_ms);
                return refuse(&Refusal::new(405, "method_not_allowed", "Method not allowed."), None);
            }
            Outcome::Unknown => {
                self.note(parts, "unknown route".to_owned(), false, now_ms);
                return refuse(&Refusal::not_found(), None);
            }
        };
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        self.organisation.drift(number, self.drift.load(Ordering::Relaxed));
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let caller = if route == routes::Route::Login { Ok(Caller::Person) } else { self.access.check(header, now_ms) };
        // The searches of people are not limited, those of API keys are.
        let limited = route.is_search() && !matches!(caller, Ok(Caller::Person));
        let standing = self.limits.count(now_ms, limited);
        let caller = match caller {
            Ok(caller) => caller,
            Err(refusal) => return refuse(&refusal, Some(standing)),
        };
        if standing.exceeded {
            return refuse(&Refusal::new(429, "rate_limit_exceeded", "Rate limit exceeded."), Some(standing));
        }
        let planned = self.plan.take(number, &name);
        let fault = planned.or_else(|| self.settings.faults.of_request(self.settings.seed, number));
        if let Some(Fault::Status(status)) = fault {
            let code = match status {
                401 => "unauthorized",
                403 => "forbidden",
                404 => "not_found",
                429 => "rate_limit_exceeded",
                400..500 => "bad_request",
                _ => "server_error",
            };
            return refuse(&Refusal::new(status, code, "Something went wrong."), Some(standing));
        }
        if fault == Some(Fault::RetryAtOnce) {
            let refusal = Refusal::new(429, "rate_limit_exceeded", "Something went wrong.");
            return Reply { fault, ..refuse(&refusal, Some(standing)) };
        }
        if let Some(role) = roles::needed(route)
            && !self.access.roles().contains(&role)
        {
            let status = self.settings.missing_role_status;
            let code = if status == 401 { "unauthorized" } else { "forbidden" };
            return refuse(&Refusal::new(status, code, "Missing a required role."), Some(standing));
        }
        let question = answers::Question {
            server: self,
            path,
            query: Query::parse(parts.uri.query().unwrap_or_default()),
            values,
            body,
            number,
            now_ms,
            caller,
            timed_out: fault == Some(Fault::TimedOut),
            short: fault == Some(Fault::Short),
        };
        match answers::answer(&question, route) {
            Ok((status, body)) if self.settings.foreign_org && roles::needed(route).is_some() => {
                let body = spoil::abroad(&self.organisation.namer, &body);
                Reply { status, body, standing: Some(standing), fault }
            }
            Ok((status, body)) => Reply { status, body, standing: Some(standing), fault },
            Err(refusal) => refuse(&refusal, Some(standing)),
        }
    }

    fn note(&self, parts: &Parts, route: String, is_search: bool, now_ms: i64) {
        let agent = parts.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        self.meter.received(route, is_search, agent, now_ms);
    }
}

fn trimmed(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// Makes the API server's routes.
pub(super) fn routes(server: Arc<Server>) -> Router {
    Router::new().fallback(dated).with_state(server)
}

/// Answers with the time of the sandbox's clock, which need not be the machine's.
async fn dated(State(server): State<Arc<Server>>, request: Request) -> Response<Body> {
    let organisation = Arc::clone(&server.organisation);
    let mut response = serve(State(server), request).await;
    let date = throttled::http_date(organisation.now_ms().div_euclid(1000));
    if let Ok(date) = HeaderValue::from_str(&date) {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}

async fn serve(State(server): State<Arc<Server>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = trimmed(parts.uri.path());
    let json_api = routes::has_json_api_errors(path);
    let Ok(bytes) = axum::body::to_bytes(body, BODY_LIMIT_BYTES).await else {
        server.note(&parts, "too large".to_owned(), false, server.organisation.now_ms());
        server.meter.answered(413);
        let refusal = Refusal::new(413, "payload_too_large", "The request body is too large.");
        return sent(413, refusal.body(json_api).to_string().into_bytes().into(), None);
    };
    let control = path.starts_with("/sandbox/");
    let chain = if control { 0 } else { server.meter.began() };
    let asked = Arc::clone(&server);
    // Pages of hundreds of records take milliseconds: they must not hold up the runtime's other tasks.
    let work = move || {
        if control {
            let (status, body) = control::answer(&asked, parts.method.as_str(), trimmed(parts.uri.path()), &bytes);
            Reply { status, body: body.to_string().into_bytes(), standing: None, fault: None }
        } else {
            asked.answer(&parts, &bytes)
        }
    };
    let Ok(mut reply) = tokio::task::spawn_blocking(work).await else {
        return sent(500, Body::empty(), None);
    };
    if !control {
        server.meter.answered(reply.status);
        if !server.settings.latency.is_zero() {
            server.organisation.sleep(server.settings.latency).await;
        }
        server.meter.ended(chain);
    }
    match reply.fault {
        Some(Fault::Reset) => {
            let broken = futures::stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("reset"))]);
            return sent(reply.status, Body::from_stream(broken), reply.standing);
        }
        Some(Fault::Stall) => {
            reply.body.truncate(reply.body.len() / 2);
            let half = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(reply.body))]);
            let body = Body::from_stream(half.chain(futures::stream::pending()));
            return sent(reply.status, body, reply.standing);
        }
        Some(Fault::RetryAtOnce) => {
            let mut response = sent(reply.status, reply.body.into(), reply.standing);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("0"));
            return response;
        }
        Some(Fault::Html) => {
            let mut response = sent(200, HTML.into(), reply.standing);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
            return response;
        }
        Some(Fault::Truncate) => reply.body.truncate(reply.body.len() / 2),
        Some(Fault::Empty) => reply.body.clear(),
        Some(Fault::Garbled) => {
            // In a text, in a number and between them alike, this is an end where none may be.
            let (middle, spoilt) = (reply.body.len() / 2, br#""<"<"<"<"#);
            reply.body.iter_mut().skip(middle).zip(spoilt).for_each(|(byte, other)| *byte = *other);
        }
        Some(Fault::Slow) => server.organisation.sleep(SLOW).await,
        Some(Fault::Status(_) | Fault::TimedOut | Fault::Short) | None => {}
    }
    let settings = &server.settings;
    let standing = reply.standing.filter(|_| settings.rate_limit_headers);
    if reply.status != 429 {
        return sent(reply.status, reply.body.into(), standing);
    }
    let (body, kind) = settings.rate_limit_body.write(reply.body);
    let mut response = sent(reply.status, body.into(), standing);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let now_ms = server.organisation.now_ms();
    if let Some(value) = reply.standing.and_then(|standing| settings.retry_after.header(standing, now_ms)) {
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
    response
}

fn sent(status: u16, body: Body, standing: Option<Standing>) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    if let Some(standing) = standing {
        headers.insert("x-ratelimit-limit", standing.limit.into());
        headers.insert("x-ratelimit-remaining", standing.remaining.into());
        headers.insert("x-ratelimit-reset", standing.reset_s.into());
    }
    response
}
