//! The second server: files of attachments behind signed links.
//!
//! A link is valid for a time and for one path, by an HMAC over both, like the pre-signed links of the service's object
//! store. That store refuses a request with two kinds of credentials, so an `Authorization` header is an error here.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use ring::hmac;
use std::fmt::Write as _;
use std::sync::Arc;

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

/// Makes the second server's routes.
pub(super) fn routes(organisation: Arc<Organisation>, signer: Arc<Signer>) -> Router {
    Router::new().fallback(serve).with_state((organisation, signer))
}

async fn serve(State((organisation, signer)): State<(Arc<Organisation>, Arc<Signer>)>, request: Request) -> Response {
    match file(&organisation, &signer, &request) {
        Ok(attachment) => {
            ([(header::CONTENT_TYPE, attachment.content_type)], Body::from(attachment.content())).into_response()
        }
        Err((status, code)) => {
            let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code></Error>");
            (status, [(header::CONTENT_TYPE, "application/xml")], body).into_response()
        }
    }
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
