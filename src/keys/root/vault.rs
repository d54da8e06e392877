//! The transit engine of HashiCorp Vault, or of OpenBao, as the keeper of the root key.
//!
//! ```text
//! POST /v1/MOUNT/encrypt/KEY {"plaintext": base64, "associated_data": base64} ─▶ {"data": {"ciphertext": "vault:v1:…"}}
//! POST /v1/MOUNT/decrypt/KEY {"ciphertext": …,     "associated_data": base64} ─▶ {"data": {"plaintext": base64}}
//! ```
//!
//! The associated data are `counterfoil key ring` and the lake's id, so the key must be of an AEAD type: `aes256-gcm96`
//! (the default) or `chacha20-poly1305`. Vault keeps the versions of a key, so a key that is rotated there still opens
//! older rings. Encrypting under a name that Vault does not know makes a new key if the token may create; a token that
//! has `update` alone on both paths is all that is needed, and turns a slip of the name into an error.
//! See the [API](https://developer.hashicorp.com/vault/api-docs/secret/transit#encrypt-data).

use std::borrow::Cow;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::keys::root::service::{Answer, Service};
use crate::keys::root::{KeySettings, WrappedKey};
use crate::secret::{SecretKey, SecretRef, SecretString};

/// What comes before the lake's id in the associated data.
const PURPOSE: &str = "counterfoil key ring";

/// A key of a transit engine.
#[derive(Debug)]
pub(super) struct Vault {
    mount: String,
    key: String,
    token: SecretString,
    namespace: Option<String>,
    service: Service,
}

#[derive(Deserialize)]
struct Envelope<T> {
    data: T,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Decrypted<'a> {
    /// Borrowed from the answer, which is zeroized.
    #[serde(borrow)]
    plaintext: Cow<'a, str>,
}

impl Vault {
    pub(super) fn try_new(path: &str, base: &Path, settings: &KeySettings) -> Result<Self> {
        let is_name = |name: &str| {
            let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            is_plain && !name.trim_matches('.').is_empty()
        };
        let named = path.rsplit_once('/').filter(|_| path.len() <= 512 && path.split('/').all(is_name));
        // Not repeated: someone may have pasted the key itself.
        let (mount, key) = named.ok_or_else(|| {
            Error::config("not a key of Vault's transit engine")
                .with_hint("write `vault:MOUNT/KEY`, such as `vault:transit/lake`")
        })?;
        let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let address = settings.endpoint.clone().or_else(|| environment("VAULT_ADDR")).ok_or_else(|| {
            Error::config("address of Vault is not known")
                .with_context("key", path)
                .with_hint("write `endpoint = \"https://HOST:8200\"` under [keys], or export VAULT_ADDR")
        })?;
        let service = Service::try_new("vault", &address)?;
        let token = settings.token.clone().unwrap_or_else(|| SecretRef::Env("VAULT_TOKEN".to_owned())).read(base)?;
        let namespace = settings.namespace.clone().or_else(|| environment("VAULT_NAMESPACE"));
        Ok(Self { mount: mount.to_owned(), key: key.to_owned(), token, namespace, service })
    }

    pub(super) async fn wrap(&self, lake_id: &str, key: &SecretKey) -> Result<WrappedKey> {
        let plain = Zeroizing::new(STANDARD.encode(key.expose()));
        let body = json!({ "plaintext": plain.as_str(), "associated_data": associated(lake_id) });
        let answer = self.call("encrypt", body).await?;
        if answer.status != 200 {
            return Err(self.refused("encrypt", &answer, None));
        }
        let encrypted: Envelope<Encrypted> =
            serde_json::from_slice(&answer.body).map_err(|_| self.unreadable("encrypt"))?;
        Ok(WrappedKey { id: self.path(), ciphertext: encrypted.data.ciphertext.into_bytes() })
    }

    pub(super) async fn unwrap(&self, lake_id: &str, wrapped: &WrappedKey) -> Result<SecretKey> {
        let ciphertext = String::from_utf8_lossy(&wrapped.ciphertext);
        let body = json!({ "ciphertext": ciphertext, "associated_data": associated(lake_id) });
        let answer = self.call("decrypt", body).await?;
        if answer.status != 200 {
            return Err(self.refused("decrypt", &answer, Some(wrapped)));
        }
        let decrypted: Envelope<Decrypted<'_>> =
            serde_json::from_slice(&answer.body).map_err(|_| self.unreadable("decrypt"))?;
        super::decode(&decrypted.data.plaintext).ok_or_else(|| self.unreadable("decrypt"))
    }

    fn path(&self) -> String {
        format!("{}/{}", self.mount, self.key)
    }

    async fn call(&self, operation: &'static str, body: serde_json::Value) -> Result<Answer> {
        let path = format!("/v1/{}/{operation}/{}", self.mount, self.key);
        let body = Zeroizing::new(body.to_string());
        // 412: the node has not caught up; 472 and 473: a standby that does not serve.
        let is_passing = |answer: &Answer| matches!(answer.status, 412 | 472 | 473);
        self.service.post(&path, |_| self.headers(), &body, is_passing).await
    }

    fn headers(&self) -> Result<HeaderMap> {
        let wrong = |what: &'static str| {
            Error::config("header for Vault holds characters that none has").with_context("header", what)
        };
        let mut headers = HeaderMap::new();
        let mut token = HeaderValue::from_str(self.token.expose()).map_err(|_| wrong("X-Vault-Token"))?;
        token.set_sensitive(true);
        headers.insert(HeaderName::from_static("x-vault-token"), token);
        headers.insert(HeaderName::from_static("x-vault-request"), HeaderValue::from_static("true"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(namespace) = &self.namespace {
            let namespace = HeaderValue::from_str(namespace).map_err(|_| wrong("X-Vault-Namespace"))?;
            headers.insert(HeaderName::from_static("x-vault-namespace"), namespace);
        }
        Ok(headers)
    }

    fn refused(&self, operation: &'static str, answer: &Answer, wrapped: Option<&WrappedKey>) -> Error {
        let named = |error: Error| {
            let error = error
                .with_context("key", self.path())
                .with_context("host", self.service.host())
                .with_context("operation", operation)
                .with_context("status", answer.status);
            match wrapped {
                Some(wrapped) => error.with_context("ring was sealed under", &wrapped.id),
                None => error,
            }
        };
        match (answer.status, wrapped) {
            (404, _) => named(Error::config("Vault has no transit engine there"))
                .with_hint("check `root`, `endpoint` and `namespace` under [keys]"),
            (400, None) => named(Error::config("Vault does not encrypt with the key"))
                .with_hint("name a key of type aes256-gcm96 that exists"),
            (400, Some(_)) => named(Error::denied("the key of Vault is not the one that sealed this lake's ring"))
                .with_hint("name the key that sealed it, at the Vault that did"),
            _ => named(Error::denied("Vault refuses the use of the key"))
                .with_hint("give the token `update` on MOUNT/encrypt/KEY and MOUNT/decrypt/KEY, or renew it"),
        }
    }

    fn unreadable(&self, operation: &'static str) -> Error {
        Error::unavailable("Vault gave an answer that cannot be read")
            .with_context("host", self.service.host())
            .with_context("operation", operation)
            .with_hint("check `endpoint` under [keys]: something else seems to answer there")
    }
}

fn associated(lake_id: &str) -> String {
    STANDARD.encode(format!("{PURPOSE} {lake_id}"))
}
