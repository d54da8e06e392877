//! The second server: files of attachments behind signed links.
//!
//! A link is valid for a time and for one path, by an HMAC over both, like the pre-signed links of the service's object
//! store. That store refuses a request with two kinds of credentials, so an `Authorization` header is an error here. Files have
//! an `ETag`, and parts of them are served by `Range` with `If-Match`.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use ring::hmac;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::ids::Kind;
use super::organisation::Organisation;
use super::thread::{self, Attachment};
use crate::model::ObjectId;

/// Signs and checks links.
#[derive(Debug)]
pub(super) struct Signer {
    /// `http://127.0.0.1:PORT` of the second server.
    pub(super) url: String,
    pub(super) ttl_s: i64,
    pub(super) seed: u64,
}

impl Signer {
    /// Returns the signed link of an attachment.
    pub(super) fn link(&self, attachment: &Attachment, org: ObjectId, now_ms: i64) -> String {
        let path = attachment.object_path(org);
        let now_s = now_ms / 1000;
        let date = super::json::instant(now_s * 1000).replace(['-', ':'], "").replace(".000", "");
        format!(
            "{}{path}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=sandbox%2Fus-east-1%2Fs3%2Faws4_request\
             &X-Amz-Date={date}&X-Amz-Expires={}&X-Amz-SignedHeaders=host&X-Amz-Signature={}",
            self.url,
            self.ttl_s,
            self.signature(&path, &date, self.ttl_s),
        )
    }

    fn signature(&self, path: &str, date: &str, ttl_s: i64) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &super::dice::hash(self.seed, 0x7369_676e, 0).to_be_bytes());
        let tag = hmac::sign(&key, format!("{path}\n{date}\n{ttl_s}").as_bytes());
        tag.as_ref().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// How the file server fails, until it is told otherwise; by default it does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileFaults {
    /// Answers that break off.
    pub breaks: u32,
    /// Bytes after which they do.
    pub after_bytes: u64,
    /// Bytes that each file has more than its record says; fewer where below zero.
    pub more_bytes: i64,
    /// Whether each answer is a redirect to another host.
    pub redirects: bool,
    /// Whether a file that broke off is another one when its rest is asked for.
    pub changes: bool,
    /// Answers that say that the link has expired.
    pub expired: u32,
    /// The same of requests for a rest.
    pub expired_rests: u32,
    /// Whether a request for a rest is answered with the whole.
    pub ignores_ranges: bool,
}

/// What the file server shares with the sandbox.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) organisation: Arc<Organisation>,
    pub(super) signer: Arc<Signer>,
    pub(super) faults: Mutex<FileFaults>,
    /// Requests that came.
    pub(super) requests: AtomicU64,
    /// Those with an `Authorization` header or a cookie.
    pub(super) with_credentials: AtomicU64,
}

/// Makes the second server's routes.
pub(super) fn routes(files: Arc<Files>) -> Router {
    Router::new().fallback(serve).with_state(files)
}

async fn serve(State(files): State<Arc<Files>>, request: Request) -> Response {
    files.requests.fetch_add(1, Ordering::Relaxed);
    if request.headers().contains_key(header::AUTHORIZATION) || request.headers().contains_key(header::COOKIE) {
        files.with_credentials.fetch_add(1, Ordering::Relaxed);
    }
    let mut faults = files.faults.lock().unwrap_or_else(PoisonError::into_inner);
    if faults.redirects {
        return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "https://elsewhere.example/")]).into_response();
    }
    let answer = if faults.expired > 0 {
        faults.expired -= 1;
        Err((StatusCode::FORBIDDEN, "AccessDenied"))
    } else {
        file(&files.organisation, &files.signer, &request).and_then(|file| part(&file, &request, &mut faults))
    };
    answer.unwrap_or_else(|(status, code)| {
        let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code></Error>");
        (status, [(header::CONTENT_TYPE, "application/xml")], body).into_response()
    })
}

/// Answers with a file, or with the part of it that is asked for.
fn part(file: &Attachment, request: &Request, faults: &mut FileFaults) -> Result<Response, (StatusCode, &'static str)> {
    let asked = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let range = asked(header::RANGE);
    if range.is_some() && faults.expired_rests > 0 {
        faults.expired_rests -= 1;
        return Err((StatusCode::FORBIDDEN, "AccessDenied"));
    }
    let range = range.filter(|_| !faults.ignores_ranges);
    let etag = if faults.changes && range.is_some() { "\"another\"".to_owned() } else { format!("\"{}\"", file.id) };
    if asked(header::IF_MATCH).is_some_and(|wanted| wanted != etag) {
        return Err((StatusCode::PRECONDITION_FAILED, "PreconditionFailed"));
    }
    let whole = file.length.saturating_add_signed(faults.more_bytes);
    let from = match range.map(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<u64>().ok()) {
        None => 0,
        Some(Some(from)) if from < whole => from,
        Some(_) => return Err((StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange")),
    };
    let rest = whole - from;
    let mut answer = Response::builder()
        .status(if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK })
        .header(header::CONTENT_TYPE, file.content_type)
        .header(header::CONTENT_LENGTH, rest)
        .header(header::ETAG, etag);
    if range.is_some() {
        answer = answer.header(header::CONTENT_RANGE, format!("bytes {from}-{}/{whole}", whole - 1));
    }
    let body = if faults.breaks > 0 && rest > faults.after_bytes {
        faults.breaks -= 1;
        let broken = async {
            // What came before has to be on its way by then.
            tokio::time::sleep(Duration::from_millis(100)).await;
            Err(std::io::Error::other("broken on purpose"))
        };
        Body::from_stream(pieces(file.seed(), from, from + faults.after_bytes).chain(stream::once(broken)))
    } else {
        Body::from_stream(pieces(file.seed(), from, whole))
    };
    answer.body(body).map_err(|_| (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"))
}

/// Makes the bytes of a file from one place to another as they are read, so that a large one is never whole in memory.
fn pieces(seed: u64, from: u64, end: u64) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    const PIECE: u64 = 64 << 10;
    let starts = std::iter::successors(Some(from), |start| Some(start + PIECE)).take_while(move |start| *start < end);
    stream::iter(starts.map(move |start| Ok(thread::content(seed, start, end.min(start + PIECE)).into())))
}

fn file(
    organisation: &Organisation,
    signer: &Signer,
    request: &Request,
) -> Result<Attachment, (StatusCode, &'static str)> {
    const DENIED: (StatusCode, &str) = (StatusCode::FORBIDDEN, "AccessDenied");
    if request.headers().contains_key(header::AUTHORIZATION) {
        return Err((StatusCode::BAD_REQUEST, "InvalidArgument"));
    }
    if request.method() != axum::http::Method::GET {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"));
    }
    let path = request.uri().path();
    let query = request.uri().query().unwrap_or_default();
    let field = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let (Some(date), Some(expires), Some(signature)) =
        (field("X-Amz-Date"), field("X-Amz-Expires"), field("X-Amz-Signature"))
    else {
        return Err(DENIED);
    };
    let ttl_s: i64 = expires.parse().map_err(|_| DENIED)?;
    if signer.signature(path, date, ttl_s) != signature {
        return Err((StatusCode::FORBIDDEN, "SignatureDoesNotMatch"));
    }
    let signed_ms = signed_at(date).ok_or(DENIED)?;
    if organisation.now_ms() >= signed_ms + ttl_s * 1000 {
        return Err(DENIED);
    }
    let missing = (StatusCode::NOT_FOUND, "NoSuchKey");
    let name = path.rsplit('/').next().and_then(|name| name.get(..24)).ok_or(missing)?;
    let id = ObjectId::from_hex(name.as_bytes()).ok_or(missing)?;
    let view = organisation.live();
    let (ticket, number) = thread::locate(&view, Kind::Attachment, id).ok_or(missing)?;
    let attachments = thread::attachments(&organisation.namer, &ticket, number);
    attachments.into_iter().find(|attachment| attachment.id == id).ok_or(missing)
}

/// Reads `20260102T161544Z`.
fn signed_at(date: &str) -> Option<i64> {
    let part = |from: usize, to: usize| date.get(from..to);
    let text = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(9, 11)?,
        part(11, 13)?,
        part(13, 15)?
    );
    super::criteria::instant_of(&text)
}
