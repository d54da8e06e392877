//! Who may ask: the API key, tokens from a login, and the message for a token of another pod.
//!
//! Keys look like the service's: a JWT whose claims name organisation, user and pod. Only the keys that this server made
//! or was given are accepted; the claims of others are read to tell a wrong pod from a wrong key.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};

use super::ids::Namer;
use super::refusal::Refusal;
use crate::secret::SecretString;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// The machine user of an API key.
    Machine,
    /// The person who logged in.
    Person,
}

impl Caller {
    /// Returns the caller's number among the users.
    pub(super) const fn user(self) -> u64 {
        match self {
            Self::Machine => super::staff::agents(),
            Self::Person => 0,
        }
    }

    const fn user_type(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Person => "user",
        }
    }
}

/// What a person logs in with.
pub(super) struct Login {
    pub(super) email: String,
    pub(super) password: SecretString,
    /// How long a token from it works.
    pub(super) ttl: Duration,
}

/// What opens the API.
pub(super) struct Access {
    pod: String,
    api_key: SecretString,
    login: Login,
    /// When the API key ends, in ms since 1970.
    key_ends: Option<i64>,
    roles: Vec<&'static str>,
    /// Tokens from logins, with the time of the login in ms.
    tokens: Mutex<HashMap<String, i64>>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("pod", &self.pod).finish_non_exhaustive()
    }
}

impl Access {
    pub(super) fn new(
        namer: &Namer,
        pod: String,
        api_key: Option<SecretString>,
        login: Login,
        key_ends: Option<i64>,
        withheld: &[String],
    ) -> Self {
        let mut roles: Vec<&str> = super::roles::ALL.to_vec();
        roles.retain(|role| !withheld.iter().any(|withheld| withheld == role));
        if withheld.is_empty() {
            // The role of which all others are parts.
            roles.push("org.user");
        }
        let api_key =
            api_key.unwrap_or_else(|| SecretString::new(token(namer, &pod, Caller::Machine, 0, &roles, key_ends)));
        Self { pod, api_key, login, key_ends, roles, tokens: Mutex::default() }
    }

    /// Returns the roles of every caller.
    pub(super) fn roles(&self) -> &[&'static str] {
        &self.roles
    }

    pub(super) fn api_key(&self) -> &str {
        self.api_key.expose()
    }

    /// Checks an `Authorization` header and tells whose it is.
    pub(super) fn check(&self, header: Option<&str>, now_ms: i64) -> Result<Caller, Refusal> {
        let Some(token) = header.and_then(|header| header.strip_prefix("Bearer ")) else {
            return Err(Refusal::unauthorized("Missing or malformed Authorization header."));
        };
        if token == self.api_key() {
            return match self.key_ends {
                Some(end) if now_ms >= end => Err(Refusal::unauthorized("Expired token")),
                _ => Ok(Caller::Machine),
            };
        }
        if let Some(made) = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(token) {
            let age = Duration::from_millis(now_ms.saturating_sub(*made).max(0) as u64);
            return if age < self.login.ttl { Ok(Caller::Person) } else { Err(Refusal::unauthorized("Expired token")) };
        }
        match pod_of(token) {
            Some(pod) if pod != self.pod => Err(Refusal::unauthorized(format!(
                "Auth token associated with pod {pod} but request is being handled by {}",
                self.pod
            ))),
            _ => Err(Refusal::unauthorized("Invalid auth token.")),
        }
    }

    /// Exchanges e-mail and password for a token.
    pub(super) fn login(&self, namer: &Namer, body: &[u8], now_ms: i64) -> Result<String, Refusal> {
        let body: Value =
            serde_json::from_slice(body).map_err(|_| Refusal::bad_request("Invalid JSON in the request body."))?;
        if body["email"].as_str() != Some(&self.login.email)
            || body["password"].as_str() != Some(self.login.password.expose())
        {
            return Err(Refusal::unauthorized("Wrong e-mail or password."));
        }
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let token = token(namer, &self.pod, Caller::Person, tokens.len() as u64 + 1, &self.roles, None);
        tokens.insert(token.clone(), now_ms);
        Ok(token)
    }
}

/// Makes a token that looks like the service's.
fn token(namer: &Namer, pod: &str, caller: Caller, number: u64, roles: &[&str], ends: Option<i64>) -> String {
    let mut claims = json!({
        "id": format!("{number:024x}"), "user": namer.user(caller.user()).to_string(),
        "org": namer.org().to_string(), "orgName": "sandbox", "userType": caller.user_type(), "pod": pod,
        "roles": roles, "aud": "urn:consumer", "iss": "urn:api", "sub": namer.org().to_string(),
    });
    if let Some(ends) = ends {
        claims["exp"] = ends.div_euclid(1000).into();
    }
    let head = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let body = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, &namer.seed.to_be_bytes());
    format!("{body}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, body.as_bytes())))
}

fn pod_of(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?).ok()?;
    // A pod's name is letters and digits: nothing else of a stranger's token is repeated.
    claims["pod"]
        .as_str()
        .filter(|pod| pod.len() <= 16 && pod.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        .map(str::to_owned)
}
