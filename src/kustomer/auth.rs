//! The bearer token: an API key as it is, or a login exchanged for a token.
//!
//! A token is fetched at the first request and again when the source refuses it, once per refusal however many requests
//! meet it at the same time. It lives in a secret type and in a header that is marked sensitive.

use std::fmt;
use std::sync::Arc;

use reqwest::header::HeaderValue;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::secret::SecretString;

/// Who asks.
#[derive(Debug)]
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

/// The token in use.
#[derive(Debug)]
pub(super) struct Session {
    credential: Credential,
    token: Mutex<Option<Arc<Token>>>,
}

/// A bearer token with its generation, by which a refused one is told from its successor.
pub(super) struct Token {
    secret: SecretString,
    generation: u64,
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
        Self { credential, token: Mutex::new(None) }
    }

    /// Returns the token; `login` sends the body that it is given and returns the answer.
    pub(super) async fn token<F>(&self, login: impl FnOnce(Zeroizing<Vec<u8>>) -> F) -> Result<Arc<Token>>
    where
        F: Future<Output = Result<bytes::Bytes>>,
    {
        let mut current = self.token.lock().await;
        if let Some(token) = &*current {
            return Ok(Arc::clone(token));
        }
        self.renew(&mut current, 0, login).await
    }

    /// Returns a token newer than `refused`, or nothing when the credential cannot make one.
    pub(super) async fn after_refusal<F>(
        &self,
        refused: &Token,
        login: impl FnOnce(Zeroizing<Vec<u8>>) -> F,
    ) -> Result<Option<Arc<Token>>>
    where
        F: Future<Output = Result<bytes::Bytes>>,
    {
        if matches!(self.credential, Credential::ApiKey(_)) {
            return Ok(None);
        }
        let mut current = self.token.lock().await;
        match &*current {
            Some(token) if token.generation > refused.generation => Ok(Some(Arc::clone(token))),
            _ => {
                *current = None;
                self.renew(&mut current, refused.generation, login).await.map(Some)
            }
        }
    }

    async fn renew<F>(
        &self,
        current: &mut Option<Arc<Token>>,
        generation: u64,
        login: impl FnOnce(Zeroizing<Vec<u8>>) -> F,
    ) -> Result<Arc<Token>>
    where
        F: Future<Output = Result<bytes::Bytes>>,
    {
        let secret = match &self.credential {
            Credential::ApiKey(key) => SecretString::new(key.expose().to_owned()),
            Credential::Login { email, password } => {
                let body = Zeroizing::new(
                    serde_json::to_vec(&Login { email, password: password.expose() })
                        .map_err(|source| Error::internal("failed to write the login").with_source(source))?,
                );
                let answer = login(body).await?;
                // The cause is left out: it could quote the token.
                let answer: TokenAnswer = serde_json::from_slice(&answer)
                    .map_err(|_| Error::data("source answered a login without a token"))?;
                SecretString::new(answer.data.attributes.token)
            }
        };
        let token = Arc::new(Token { secret, generation: generation + 1 });
        *current = Some(Arc::clone(&token));
        Ok(token)
    }
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
