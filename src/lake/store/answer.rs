//! What a bucket's service answered, and what the operator can do about it.
//!
//! Answers are shortened for messages: status, code and message. The rest of an answer may quote keys and signatures, and
//! URLs lose their query, which may be a signature.

use std::error::Error as StdError;
use std::fmt;

use url::Url;

use crate::error::ErrorKind;

/// What a bucket's service answered, or why it did not: all that a message may say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    status: Option<u16>,
    code: Option<String>,
    said: String,
    is_for_credential: bool,
}

/// Longest part of an answer that is repeated.
const SAID_CHARS: usize = 300;

impl Answer {
    /// Reads the error of a call. The types that carry the status are not public, so it is read from their text.
    pub(super) fn of(error: &object_store::Error) -> Self {
        let texts = chain(error);
        let whole = texts.first().cloned().unwrap_or_default();
        let status = whole.find("status code: ").and_then(|at| {
            whole.get(at + "status code: ".len()..).and_then(|rest| rest.get(..3)).and_then(|text| text.parse().ok())
        });
        let is_for_credential =
            ["169.254.", "metadata.google.internal", "token request"].iter().any(|sign| whole.contains(sign));
        let code = between(&whole, "<Code>", "</Code>")
            .or_else(|| between(&whole, "(code: ", ")"))
            .or_else(|| between(&whole, "\"reason\": \"", "\""));
        let message = between(&whole, "<Message>", "</Message>").or_else(|| between(&whole, "\"message\": \"", "\""));
        let is_redirect = whole.contains("redirect without LOCATION");
        let said = match (status, &code, &message) {
            (_, _, Some(message)) => message.clone(),
            // The body of an answer without a message is left out.
            (_, Some(_), None) | (Some(_), None, None) => String::new(),
            _ if is_redirect => "the store redirects to another region".to_owned(),
            // The last cause is the plainest: `Connection refused`.
            _ => texts.last().cloned().unwrap_or_default(),
        };
        let host = between(&whole, " http", " ").map(|url| format!("http{url}"));
        let host = host.and_then(|url| Url::parse(&url).ok()).map(|url| url.origin().ascii_serialization());
        let said = match host {
            Some(host) if status.is_none() => format!("no answer from {host}: {}", without_queries(&said)),
            _ => without_queries(&said),
        };
        Self { status: status.or(is_redirect.then_some(301)), code, said, is_for_credential }
    }

    pub(super) fn has_code(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// Says what the operator can do about it; `None` where the store's answer is about one object.
    fn verdict(&self) -> Option<(ErrorKind, &'static str)> {
        let code = self.code.as_deref().unwrap_or_default();
        let credentials = "look at the credentials under [lake] or in the environment, and at the bucket's policy";
        match (self.status, code) {
            (_, "NoSuchBucket" | "ContainerNotFound") => {
                Some((ErrorKind::Config, "there is no such bucket: check `lake.url`, or make the bucket"))
            }
            (Some(301 | 307 | 308), _) | (_, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
                Some((ErrorKind::Config, "the bucket lies in another region: set `lake.region`"))
            }
            (_, "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" | "AccessDenied" | "AccountProblem")
            | (Some(401 | 403), _) => Some((ErrorKind::Denied, credentials)),
            (Some(400..=499), _) if self.is_for_credential => Some((ErrorKind::Denied, credentials)),
            (None, _) if self.is_for_credential => Some((
                ErrorKind::Denied,
                "there is no credential for the store: set it under [lake] or in the environment",
            )),
            (Some(408 | 429), _) => Some((ErrorKind::Unavailable, "the store is busy: try later")),
            (Some(400 | 405 | 411 | 501), _) => Some((
                ErrorKind::Config,
                "the store does not understand the request: check `lake.url` and `lake.endpoint`",
            )),
            (Some(404 | 409 | 412 | 416), _) => None,
            _ => Some((ErrorKind::Unavailable, "try later; check `lake.endpoint` and the network if it stays")),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        if let Some(status) = self.status {
            write!(f, "the store answered {status}")?;
            gap = ", ";
        }
        for part in [self.code.as_deref().unwrap_or_default(), &self.said] {
            if !part.is_empty() {
                write!(f, "{gap}{part}")?;
                gap = ": ";
            }
        }
        Ok(())
    }
}

impl StdError for Answer {}

/// Judges the error of a call to a bucket; `None` for other stores.
pub(super) fn judge(error: &object_store::Error) -> Option<(Option<(ErrorKind, &'static str)>, Answer)> {
    let text = error.to_string();
    let is_cloud = match error {
        object_store::Error::Generic { store, .. } => matches!(*store, "S3" | "GCS" | "MicrosoftAzure" | "HTTP client"),
        _ => text.contains("Error performing ") || text.contains("status code: "),
    };
    is_cloud.then(|| {
        let answer = Answer::of(error);
        (answer.verdict(), answer)
    })
}

/// The texts of an error and its causes, outermost first.
fn chain(error: &object_store::Error) -> Vec<String> {
    let mut texts = Vec::new();
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        texts.push(error.to_string());
        next = error.source();
    }
    texts
}

fn between(text: &str, from: &str, to: &str) -> Option<String> {
    let rest = text.get(text.find(from)? + from.len()..)?;
    Some(rest.get(..rest.find(to)?)?.to_owned())
}

/// One line of a text, shortened, its URLs without what follows a question mark.
fn without_queries(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let words = line.split(' ').map(|word| match word.split_once('?') {
        Some((before, after)) if !after.is_empty() => before,
        _ => word,
    });
    words.collect::<Vec<_>>().join(" ").chars().filter(|c| !c.is_control()).take(SAID_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_an_answer_is_one_short_line_without_queries() {
        let text = "see https://host/a?sig=secret for\nmore";
        assert_eq!(without_queries(text), "see https://host/a for");
        assert_eq!(without_queries(&"x".repeat(1_000)).len(), SAID_CHARS);
    }
}
