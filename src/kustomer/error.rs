//! What the source answers when it does not give what was asked, and what that means to the operator.
//!
//! Both error shapes of the API are read (`{"errors":[{code,message}]}` and JSON:API's `{status,code,title,detail}`), and
//! so are bodies that are empty or no JSON. Of a message only the code and the title are kept, cut short and without what
//! looks like an address, a number or a token, because they may repeat a value of a record.

use serde_json::Value;

use super::endpoint::Endpoint;
use crate::error::Error;

/// Characters of the server's own words that a message may repeat.
const LONGEST_QUOTE: usize = 200;

/// Why one attempt at a request gave nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// 404: the record, or the route, does not exist.
    NotFound,
    /// 404 of a path that names no record.
    NoRoute,
    /// 401, other than what follows.
    Unauthorized(Words),
    /// 401 of a credential that the source accepts elsewhere.
    MissingRole(Words),
    /// 403.
    Forbidden(Words),
    /// 401 whose message, or whose token, says that the token has expired.
    Expired,
    /// The token belongs to another pod.
    WrongPod { token_pod: String, host_pod: String },
    /// 429.
    RateLimited,
    /// Another 4xx: a repetition would be answered alike.
    Refused { status: u16, words: Words },
    /// 3xx: the bearer goes to one host only.
    Redirected { status: u16 },
    /// 5xx, and the 4xx that pass.
    Server { status: u16, words: Words },
    /// No connection, a time-out, a body that ended early.
    Transport { source: reqwest::Error, phase: Phase },
    /// A 2xx whose body is empty or no complete JSON text.
    Torn,
    /// A 2xx whose body is larger than any page.
    TooLarge { limit_bytes: usize },
}

/// How far an exchange came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No answer had begun.
    Head,
    /// The answer had begun.
    Body,
}

/// The server's own words: a code and a title.
#[derive(Debug, Default)]
pub(super) struct Words {
    code: Option<String>,
    title: Option<String>,
}

impl Failure {
    /// Reads an answer whose status is not 2xx.
    pub(super) fn read(status: u16, body: &[u8]) -> Self {
        let words = Words::read(body);
        let title = words.title.as_deref().unwrap_or_default();
        if let (400..=499, Some((token_pod, host_pod))) = (status, pods(title)) {
            return Self::WrongPod { token_pod, host_pod };
        }
        match status {
            401 if title.to_ascii_lowercase().contains("expired token") => Self::Expired,
            401 => Self::Unauthorized(words),
            403 => Self::Forbidden(words),
            404 => Self::NotFound,
            429 => Self::RateLimited,
            300..=399 => Self::Redirected { status },
            // A time-out and a conflict on the server's side: a read that is repeated changes nothing.
            408 | 409 | 425 | 500..=599 => Self::Server { status, words },
            _ => Self::Refused { status, words },
        }
    }

    /// Tells whether the same request may succeed a little later.
    pub(super) const fn is_transient(&self) -> bool {
        matches!(self, Self::Server { .. } | Self::Transport { .. } | Self::Torn)
    }

    /// Names the cause in a few words, for the ledger and for the line that announces a retry.
    pub(super) fn cause(&self) -> &'static str {
        match self {
            Self::NotFound | Self::NoRoute => "404",
            Self::Unauthorized(_) | Self::MissingRole(_) | Self::Expired => "401",
            Self::Forbidden(_) => "403",
            Self::WrongPod { .. } => "wrong pod",
            Self::RateLimited => "429",
            Self::Refused { status, .. } | Self::Redirected { status } | Self::Server { status, .. } => match status {
                300..=399 => "3xx",
                400 => "400",
                402 => "402",
                408 => "408",
                409 => "409",
                413 => "413",
                500 => "500",
                501 => "501",
                502 => "502",
                503 => "503",
                504 => "504",
                400..=499 => "other 4xx",
                500..=599 => "other 5xx",
                _ => "other status",
            },
            Self::Transport { source, .. } if source.is_connect() => "no connection",
            Self::Transport { source, phase } if source.is_timeout() => match phase {
                Phase::Head => "timed out",
                Phase::Body => "stalled",
            },
            Self::Transport { phase: Phase::Head, .. } => "connection broke",
            Self::Transport { phase: Phase::Body, .. } | Self::Torn => "torn",
            Self::TooLarge { .. } => "too large",
        }
    }

    /// Turns the failure into the crate's error; `attempts` were made.
    pub(super) fn into_error(self, endpoint: Endpoint, host: &str, attempts: u32) -> Error {
        let cause = self.cause();
        let is_unreachable = matches!(&self, Self::Transport { source, .. } if source.is_connect());
        let error = match self {
            Self::NotFound => Error::data("source has no such record"),
            Self::NoRoute => Error::internal("source does not know this part of its API").with_hint(
                "check `source.org` or `source.base_url`; if they are right, the API has changed: report it",
            ),
            Self::Expired => Error::denied("source says that the credential has expired")
                .with_hint("make a new API key (Settings, Security, API Keys) and put it where the settings point to"),
            Self::Unauthorized(words) => {
                words.into_context(Error::denied("source refused the credential")).with_hint(match endpoint.role() {
                    Some(role) => format!("check that the key is valid in this region and has the role {role}"),
                    None => "check the credential and the region of `base_url`".to_owned(),
                })
            }
            Self::Forbidden(words) | Self::MissingRole(words) => {
                let error = words.into_context(Error::denied("credential may not use this part of the source"));
                match endpoint.role() {
                    Some(role) => error.with_context("missing role", role).with_hint(format!(
                        "the key needs the role {role}; roles of a key cannot be changed, so make a new key"
                    )),
                    None => error.with_hint(format!(
                        "the key is valid and lacks a role that may read {endpoint}; which one is not documented"
                    )),
                }
            }
            Self::WrongPod { token_pod, host_pod } => Error::denied("credential belongs to another region")
                .with_context("credential", &token_pod)
                .with_context("server", host_pod)
                .with_hint(format!(
                    "set `org`, whose address finds the region by itself, or `base_url = \"{}\"`",
                    base_url_of(&token_pod)
                )),
            Self::RateLimited => Error::unavailable("source kept answering that its rate limit is reached")
                .with_hint("other clients spend the organisation's budget: try later, or lower `share`"),
            Self::Refused { status, words } => {
                let error = match status {
                    402 => Error::denied("contract with the source does not include this part of it")
                        .with_hint("ask whoever administers the source's billing"),
                    413 | 414 => Error::internal("request is larger than the source takes"),
                    _ => Error::internal("source refused the request as malformed").with_hint(
                        "this is a defect of the program or a change of the API, not of the data: report it",
                    ),
                };
                words.into_context(error).with_context("status", status)
            }
            Self::Redirected { status } => {
                Error::config("source answered with a redirect, which is never followed with a credential")
                    .with_context("status", status)
                    .with_hint("set `base_url` to the address that answers itself")
            }
            Self::Server { status, words } => {
                words.into_context(Error::unavailable("source fails")).with_context("status", status)
            }
            Self::Transport { source, .. } => {
                Error::unavailable("source does not answer").with_context("cause", cause).with_source(source)
            }
            Self::Torn => Error::unavailable("source sends incomplete answers"),
            Self::TooLarge { limit_bytes } => {
                Error::data("answer of the source is too large").with_context("limit_bytes", limit_bytes)
            }
        };
        let error = if is_unreachable {
            error.with_hint("check the network, and `source.org` or `source.base_url` in the settings")
        } else {
            error
        };
        error.with_context("endpoint", endpoint).with_context("host", host).with_context("attempts", attempts)
    }
}

impl Words {
    fn read(body: &[u8]) -> Self {
        let Ok(answer) = serde_json::from_slice::<Value>(body) else { return Self::default() };
        let first = answer.pointer("/errors/0").or_else(|| answer.get("error"));
        let text = |name: &str| {
            let text = first.and_then(|error| error.get(name)).and_then(Value::as_str);
            text.filter(|text| !text.is_empty()).map(cut)
        };
        let message = || answer.get("message").and_then(Value::as_str).map(cut);
        Self { code: text("code"), title: text("title").or_else(|| text("message")).or_else(message) }
    }

    fn into_context(self, mut error: Error) -> Error {
        if let Some(code) = self.code {
            error = error.with_context("code", code);
        }
        if let Some(title) = self.title {
            error = error.with_context("source says", title);
        }
        error
    }
}

/// Cuts the server's words short, and takes out those that may be a value: an address, a number, a token.
fn cut(text: &str) -> String {
    let words =
        text.split(|letter: char| letter.is_control() || letter.is_whitespace()).filter(|word| !word.is_empty());
    let mut kept: Vec<&str> = Vec::new();
    // Digits of the words that were just kept and had no letter: a number may be written in groups.
    let mut digits = 0;
    for word in words {
        let has_letter = word.chars().any(char::is_alphabetic);
        digits = if has_letter { 0 } else { digits } + word.chars().filter(char::is_ascii_digit).count();
        if word.contains('@') || word.len() > 40 || digits >= 6 {
            while kept.last().is_some_and(|last| !has_letter && !last.chars().any(char::is_alphabetic)) {
                kept.pop();
            }
            kept.push("[…]");
        } else {
            kept.push(word);
        }
    }
    kept.join(" ").chars().take(LONGEST_QUOTE).collect()
}

/// Finds the pods in `Auth token associated with pod prod2 but request is being handled by prod1`.
fn pods(message: &str) -> Option<(String, String)> {
    let (_, rest) = message.split_once("associated with pod ")?;
    let (token_pod, rest) = rest.split_once(' ')?;
    let (_, host_pod) = rest.split_once("handled by ")?;
    let word = |text: &str| text.chars().take_while(char::is_ascii_alphanumeric).collect::<String>();
    Some((word(token_pod), word(host_pod)))
}

fn base_url_of(pod: &str) -> String {
    match pod {
        "prod1" => "https://api.kustomerapp.com".to_owned(),
        other => format!("https://api.{other}.kustomerapp.com"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn error(status: u16, body: &str) -> Error {
        Failure::read(status, body.as_bytes()).into_error(Endpoint::Search, "acme.example", 1)
    }

    #[test]
    fn words_of_the_source_keep_no_value() {
        let words =
            "no user jane.doe@example.com with phone +15550100123 and eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9abcdef";
        assert_eq!(cut(words), "no user […] with phone […] and […]");
        assert_eq!(cut("phone +49 170 123 45 67 is unknown"), "phone […] is unknown");
        assert_eq!(cut("page 101 is past 100"), "page 101 is past 100");
    }

    #[test]
    fn answers_become_the_kind_that_tells_what_to_do() {
        let cases = [
            (400, r#"{"errors":[{"code":"bad_request","message":"Invalid"}]}"#, ErrorKind::Internal),
            (401, "", ErrorKind::Denied),
            (401, r#"{"errors":[{"code":"unauthorized","title":"Expired token"}]}"#, ErrorKind::Denied),
            (402, "", ErrorKind::Denied),
            (403, "<html>", ErrorKind::Denied),
            (404, r#"{"errors":[{"status":404,"code":"not_found","title":"x"}]}"#, ErrorKind::Data),
            (408, "", ErrorKind::Unavailable),
            (409, "", ErrorKind::Unavailable),
            (413, "", ErrorKind::Internal),
            (422, "", ErrorKind::Internal),
            (429, "slow down", ErrorKind::Unavailable),
            (302, "", ErrorKind::Config),
            (503, "", ErrorKind::Unavailable),
        ];
        for (status, body, kind) in cases {
            assert_eq!(error(status, body).kind(), kind, "{status} {body}");
        }
    }

    #[test]
    fn both_error_shapes_are_read() {
        for body in [
            r#"{"errors":[{"code":"bad_request","message":"Invalid request body or parameters.","meta":{}}]}"#,
            r#"{"errors":[{"status":"400","code":"bad_request","title":"Invalid request body or parameters."}]}"#,
            r#"{"error":{"code":"bad_request"},"message":"Invalid request body or parameters."}"#,
        ] {
            let text = error(400, body).to_string();
            assert!(text.contains("bad_request") && text.contains("Invalid request body"), "{text}");
        }
    }

    #[test]
    fn missing_role_is_named() {
        assert!(error(403, "").hint().unwrap().contains("org.user.search.read"));
        let error = Failure::MissingRole(Words::default()).into_error(Endpoint::Notes, "acme.example", 1);
        assert!(error.to_string().contains("missing role: org.user.note.read"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Denied);
    }

    #[test]
    fn expired_credential_is_told_from_a_wrong_one() {
        let body = r#"{"errors":[{"code":"unauthorized","message":"Expired token"}]}"#;
        assert!(error(401, body).to_string().contains("expired"));
    }

    #[test]
    fn credential_of_another_pod_names_its_base_url() {
        for (pod, url) in [("prod2", "https://api.prod2.kustomerapp.com"), ("prod1", "https://api.kustomerapp.com")] {
            let body = format!(
                r#"{{"errors":[{{"code":"unauthorized","message":"Auth token associated with pod {pod} but request is being handled by prod4"}}]}}"#
            );
            let error = error(401, &body);
            assert_eq!(error.kind(), ErrorKind::Denied);
            assert!(error.hint().unwrap().contains(url), "{error:?}");
        }
    }

    #[test]
    fn long_words_of_the_server_are_cut() {
        let body = format!(r#"{{"errors":[{{"code":"bad_request","message":"{}"}}]}}"#, "x".repeat(5_000));
        assert!(error(400, &body).to_string().len() < 400);
    }
}
