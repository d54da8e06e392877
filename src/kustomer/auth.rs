//! The bearer token: an API key as it is, or a login exchanged for a token.
//!
//! A token is fetched at the first request, again before it expires (where it is a JWT that says when), and again when the
//! source refuses it: once, however many requests meet it at the same time. A login that is refused is never repeated. It lives in a secret type and in a header that is marked sensitive.

use std::fmt;
use std::sync::{Arc, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::HeaderValue;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};
use crate::secret::SecretString;

/// How long before its end a token is replaced: longer than a request may wait for the budget and then travel.
const RENEWED_EARLY: SignedDuration = SignedDuration::from_secs(120);

/// Who asks.
pub enum Credential {
    /// An API key.
    ApiKey(SecretString),
    /// A login, exchanged for a token at the first request and again when it expires.
    Login {
        /// E-mail address of the user.
        email: String,
        /// Password.
        password: SecretString,
    },
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ApiKey(_) => "ApiKey([redacted])",
            Self::Login { .. } => "Login([redacted])",
        })
    }
}

/// The token in use.
#[derive(Debug)]
pub(super) struct Session {
    credential: Credential,
    state: Mutex<State>,
    /// When the token in use expires, as far as it says so.
    expires: std::sync::Mutex<Option<Timestamp>>,
}

#[derive(Debug, Default)]
struct State {
    token: Option<Arc<Token>>,
    generation: u64,
    /// The login was refused: asking again would lock the user out.
    is_refused: bool,
}

/// A bearer token with its generation, by which a refused one is told from its successor.
pub(super) struct Token {
    secret: SecretString,
    generation: u64,
    renew_from: Option<Timestamp>,
}

/// The one claim of a token that is read, unverified: the source verifies it.
#[derive(Deserialize)]
struct Claims {
    exp: f64,
}

#[derive(Deserialize)]
struct TokenAnswer {
    data: TokenResource,
}

#[derive(Deserialize)]
struct TokenResource {
    attributes: TokenAttributes,
}

#[derive(Deserialize)]
struct TokenAttributes {
    token: String,
}

impl Session {
    pub(super) fn new(credential: Credential) -> Self {
        let expires = match &credential {
            Credential::ApiKey(key) => expiry_of(key.expose()),
            Credential::Login { .. } => None,
        };
        Self { credential, state: Mutex::default(), expires: std::sync::Mutex::new(expires) }
    }

    /// Tells whether a token that was refused can be replaced.
    pub(super) const fn is_renewable(&self) -> bool {
        matches!(self.credential, Credential::Login { .. })
    }

    /// Returns when the token in use expires, where it says so.
    pub(super) fn expires(&self) -> Option<Timestamp> {
        *self.expires.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the token, a new one when there is none or when it is about to expire.
    ///
    /// `login` sends the body that it is given and returns the answer; however many callers meet here, it is called once.
    pub(super) async fn token<F>(
        &self,
        now: Timestamp,
        login: impl FnOnce(Zeroizing<Vec<u8>>) -> F,
    ) -> Result<Arc<Token>>
    where
        F: Future<Output = Result<bytes::Bytes>>,
    {
        let mut state = self.state.lock().await;
        if let Some(token) = &state.token
            && token.renew_from.is_none_or(|renew_from| now < renew_from)
        {
            return Ok(Arc::clone(token));
        }
        if state.is_refused {
            return Err(refused_login());
        }
        let secret = match &self.credential {
            Credential::ApiKey(key) => SecretString::new(key.expose().to_owned()),
            Credential::Login { email, password } => {
                let body = Zeroizing::new(
                    serde_json::to_vec(&Login { email, password: password.expose() })
                        .map_err(|source| Error::internal("failed to write the login").with_source(source))?,
                );
                let answer =
                    login(body).await.inspect_err(|error| state.is_refused = error.kind() == ErrorKind::Denied)?;
                // The cause is left out: it could quote the token.
                let answer: TokenAnswer = serde_json::from_slice(&answer)
                    .map_err(|_| Error::data("source answered a login without a token"))?;
                SecretString::new(answer.data.attributes.token)
            }
        };
        let expires = expiry_of(secret.expose());
        *self.expires.lock().unwrap_or_else(PoisonError::into_inner) = expires;
        state.generation += 1;
        let renew_from = expires.filter(|_| self.is_renewable()).and_then(|expires| renew_from(expires, now));
        let token = Arc::new(Token { secret, generation: state.generation, renew_from });
        state.token = Some(Arc::clone(&token));
        Ok(token)
    }

    /// Drops a token that the source refused, unless it was replaced since.
    pub(super) async fn drop_refused(&self, refused: &Token) {
        let mut state = self.state.lock().await;
        if state.token.as_ref().is_some_and(|token| token.generation == refused.generation) {
            state.token = None;
        }
    }
}

/// Returns the error of a login that was refused before.
pub(super) fn refused_login() -> Error {
    Error::denied("source refused the login").with_hint(
        "check `source.email` and `source.password`; a user with single sign-on or a second factor cannot log in this way: \
         use an API key",
    )
}

/// A token is renewed two minutes before it expires, or after nine tenths of its life; one that has no life left by our clock
/// is used until the source refuses it.
fn renew_from(expires: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let life = expires.duration_since(now);
    let early = (life / 10).min(RENEWED_EARLY);
    (life > SignedDuration::ZERO).then(|| expires.saturating_sub(early).unwrap_or(expires))
}

/// Reads when a token expires, if it is a JWT that says so.
fn expiry_of(token: &str) -> Option<Timestamp> {
    let payload = token.split('.').nth(1)?.trim_end_matches('=');
    let payload = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload).ok()?);
    let Claims { exp } = serde_json::from_slice(&payload).ok()?;
    let seconds = if exp < 1e11 { exp } else { exp / 1_000.0 };
    (seconds >= 1.0).then(|| Timestamp::from_second(seconds as i64).ok()).flatten()
}

/// The body of a login; it borrows, so that the password is copied into the zeroized body only.
#[derive(Serialize)]
struct Login<'a> {
    email: &'a str,
    password: &'a str,
}

impl Token {
    /// Returns the `Authorization` header.
    pub(super) fn header(&self) -> Result<HeaderValue> {
        let text = Zeroizing::new(format!("Bearer {}", self.secret.expose()));
        let mut header = HeaderValue::from_str(&text).map_err(|_| {
            Error::config("credential holds characters that a header cannot carry")
                .with_hint("the key is one line of letters, digits, dots, dashes and underscores")
        })?;
        header.set_sensitive(true);
        Ok(header)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token([redacted], {})", self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("eyJhbGciOiJIUzI1NiJ9.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn expiry_is_read_where_there_is_one_and_nothing_else_is_an_error() {
        let expected = Timestamp::from_second(1_800_000_000).ok();
        for (token, expiry) in [
            (jwt(r#"{"id":"1","exp":1800000000}"#), expected),
            (jwt(r#"{"exp":1800000000.0}"#), expected),
            (jwt(r#"{"exp":1800000000000}"#), expected),
            (jwt(r#"{"id":"1"}"#), None),
            (jwt(r#"{"exp":null}"#), None),
            (jwt(r#"{"exp":"soon"}"#), None),
            (jwt(r#"{"exp":-1}"#), None),
            (jwt(r#"{"exp":1e300}"#), None),
            (jwt("no json"), None),
            ("no-jwt".to_owned(), None),
            ("a.!!.c".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(expiry_of(&token), expiry, "{token}");
        }
    }

    #[test]
    fn token_is_renewed_before_its_end_and_one_without_life_is_not_renewed_for_ever() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        assert_eq!(renew_from(at(86_400), at(0)), Some(at(86_280)));
        assert_eq!(renew_from(at(100), at(0)), Some(at(90)));
        assert_eq!(renew_from(at(100), at(100)), None);
        assert_eq!(renew_from(at(100), at(5_000)), None);
    }

    #[test]
    fn debug_shows_no_token() {
        let token = Token { secret: SecretString::new("t-1".to_owned()), generation: 4, renew_from: None };
        assert!(!format!("{token:?} {:?}", token.header().unwrap()).contains("t-1"));
        let session = Session::new(Credential::ApiKey(SecretString::new(jwt(r#"{"exp":1800000000}"#))));
        assert!(!format!("{session:?}").contains("eyJ"));
    }
}
