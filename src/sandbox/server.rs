//! The API server: from a request to an answer, with its limits, its credentials and its faults.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::access::{Access, Caller};
use super::answers;
use super::bucket::Signer;
use super::faults::Fault;
use super::limits::{Limits, Standing};
use super::lists::Query;
use super::organisation::Organisation;
use super::refusal::Refusal;
use super::routes::{self, Outcome};
use super::{Faults, SandboxSettings};

/// Bodies of most endpoints may have 100 kB.
const BODY_LIMIT_BYTES: usize = 100_000;
const SLOW: Duration = Duration::from_secs(2);

/// What every request shares.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) settings: Behaviour,
    pub(super) organisation: Arc<Organisation>,
    pub(super) signer: Arc<Signer>,
    pub(super) access: Access,
    limits: Limits,
    requests: Mutex<BTreeMap<String, u64>>,
    number: AtomicU64,
}

/// The settings that answers depend on.
#[derive(Debug)]
pub(super) struct Behaviour {
    pub(super) result_window_rows: u64,
    pub(super) max_pages: u32,
    pub(super) oversize: super::Oversize,
    pub(super) several_customers: bool,
    pub(super) largest_id_list: usize,
    pub(super) ties: bool,
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
            settings.email,
            settings.password,
            settings.token_ttl,
        );
        Self {
            settings: Behaviour {
                result_window_rows: settings.result_window_rows,
                max_pages: settings.max_pages,
                oversize: settings.oversize,
                several_customers: settings.several_customers,
                largest_id_list: settings.largest_id_list,
                ties: settings.ties,
                seed: settings.seed,
                faults: settings.faults,
            },
            organisation,
            signer,
            access,
            limits: Limits::new(settings.org_rpm, settings.search_rpm),
            requests: Mutex::default(),
            number: AtomicU64::new(0),
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

    pub(super) fn requests(&self) -> BTreeMap<String, u64> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        let (route, values) = match routes::find(&parts.method, path) {
            Outcome::Found { route, pattern, values } => {
                self.note(format!("{} {}", parts.method, pattern.replacen("{}", "{id}", 2)));
                (route, values)
            }
            Outcome::WrongMethod => {
                self.note("wrong method".to_owned());
                return refuse(&Refusal::new(405, "method_not_allowed", "Method not allowed."), None);
            }
            Outcome::Unknown => {
                self.note("unknown route".to_owned());
                return refuse(&Refusal::not_found(), None);
            }
        };
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let now_ms = self.organisation.now_ms();
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let caller = if route == routes::Route::Login { Ok(Caller::Person) } else { self.access.check(header, now_ms) };
        // The searches of people are not limited, those of API keys are.
        let limited = route.is_search() && !matches!(caller, Ok(Caller::Person));
        let standing = self.limits.count(now_ms.div_euclid(1000), limited);
        let caller = match caller {
            Ok(caller) => caller,
            Err(refusal) => return refuse(&refusal, Some(standing)),
        };
        if standing.exceeded {
            return refuse(&Refusal::new(429, "rate_limit_exceeded", "Rate limit exceeded."), Some(standing));
        }
        let fault = self.settings.faults.of_request(self.settings.seed, number);
        if let Some(Fault::Status(status)) = fault {
            let code = if status == 429 { "rate_limit_exceeded" } else { "server_error" };
            return refuse(&Refusal::new(status, code, "Something went wrong."), Some(standing));
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
        };
        match answers::answer(&question, route) {
            Ok((status, body)) => Reply { status, body, standing: Some(standing), fault },
            Err(refusal) => refuse(&refusal, Some(standing)),
        }
    }

    /// Answers one request of the control endpoint.
    fn control(&self, parts: &Parts, body: &[u8]) -> Reply {
        let organisation = &self.organisation;
        let plain =
            |status, body: &Value| Reply { status, body: body.to_string().into_bytes(), standing: None, fault: None };
        match (parts.method.as_str(), trimmed(parts.uri.path())) {
            ("GET", "/sandbox/state") => plain(
                200,
                &json!({"tickets": organisation.tickets(), "customers": organisation.customers(), "requests": self.requests()}),
            ),
            ("POST", path @ ("/sandbox/touch" | "/sandbox/delete")) => match self.chosen(body) {
                Ok(numbers) => {
                    if path == "/sandbox/touch" {
                        organisation.touch(&numbers);
                    } else {
                        organisation.delete(&numbers);
                    }
                    let ids: Vec<String> =
                        numbers.iter().map(|number| organisation.ticket_id(*number).to_string()).collect();
                    plain(200, &json!({"count": ids.len(), "ids": ids}))
                }
                Err(refusal) => plain(refusal.status, &refusal.body(false)),
            },
            _ => plain(404, &Refusal::not_found().body(false)),
        }
    }

    fn chosen(&self, body: &[u8]) -> Result<Vec<u64>, Refusal> {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if let Some(count) = body["count"].as_u64() {
            return Ok(self.organisation.pick(count));
        }
        let ids = body["ids"].as_array().ok_or_else(|| Refusal::bad_request("Give a count or a list of ids."))?;
        ids.iter()
            .map(|id| {
                id.as_str().and_then(|id| self.organisation.conversation_number(id)).ok_or_else(Refusal::not_found)
            })
            .collect()
    }

    fn note(&self, route: String) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry(route).or_default() += 1;
    }
}

fn trimmed(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// Makes the API server's routes.
pub(super) fn routes(server: Arc<Server>) -> Router {
    Router::new().fallback(serve).with_state(server)
}

async fn serve(State(server): State<Arc<Server>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = trimmed(parts.uri.path());
    let json_api = routes::has_json_api_errors(path);
    let Ok(bytes) = axum::body::to_bytes(body, BODY_LIMIT_BYTES).await else {
        let refusal = Refusal::new(413, "payload_too_large", "The request body is too large.");
        return sent(413, refusal.body(json_api).to_string().into_bytes().into(), None);
    };
    let control = path.starts_with("/sandbox/");
    let asked = Arc::clone(&server);
    // Pages of hundreds of records take milliseconds: they must not hold up the runtime's other tasks.
    let work = move || if control { asked.control(&parts, &bytes) } else { asked.answer(&parts, &bytes) };
    let Ok(mut reply) = tokio::task::spawn_blocking(work).await else {
        return sent(500, Body::empty(), None);
    };
    match reply.fault {
        Some(Fault::Reset) => {
            let broken = futures::stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("reset"))]);
            return sent(reply.status, Body::from_stream(broken), reply.standing);
        }
        Some(Fault::Truncate) => reply.body.truncate(reply.body.len() / 2),
        Some(Fault::Empty) => reply.body.clear(),
        Some(Fault::Slow) => server.organisation.sleep(SLOW).await,
        Some(Fault::Status(_) | Fault::TimedOut) | None => {}
    }
    sent(reply.status, reply.body.into(), reply.standing)
}

fn sent(status: u16, body: Body, standing: Option<Standing>) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    if let Some(standing) = standing {
        headers.insert("x-ratelimit-limit", standing.limit.into());
        headers.insert("x-ratelimit-remaining", standing.remaining.into());
        headers.insert("x-ratelimit-reset", standing.reset_s.into());
    }
    response
}
