//! AWS KMS as the keeper of the root key: `Encrypt` and `Decrypt`, JSON 1.1 over HTTPS.
//!
//! ```text
//! Encrypt {KeyId: the setting's, Plaintext: 32 bytes, EncryptionContext} ─▶ {CiphertextBlob, KeyId: the ARN}
//! Decrypt {KeyId: the setting's, CiphertextBlob, EncryptionContext}      ─▶ {Plaintext}
//! EncryptionContext = {"counterfoil:lake": the lake's id, "counterfoil:purpose": "key ring"}
//! ```
//!
//! `Decrypt` always names the key of the setting, never the one in the ring's header: otherwise whoever can write to the
//! store could have a ring of theirs opened under a key of theirs. So an alias that was pointed at another key does not
//! open older rings, and the error names the key that does.
//!
//! Credentials come from the usual chain (environment, web identity, container, instance) through `object_store`, which
//! signs the requests too: a second implementation of that chain, or of SigV4, would be a second one to get wrong.
//! See the [API reference](https://docs.aws.amazon.com/kms/latest/APIReference/API_Encrypt.html).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use object_store::aws::{AmazonS3Builder, AwsAuthorizer, AwsCredential};
use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::{BackoffConfig, RetryConfig};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::keys::root::service::{Answer, Service, plain_name};
use crate::keys::root::{KeySettings, WrappedKey};
use crate::secret::SecretKey;

/// What the encryption context says that the key is for.
const PURPOSE: &str = "key ring";

/// Time for finding credentials: a machine without any waits for its metadata service.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(10);

/// A key of KMS.
#[derive(Debug)]
pub(super) struct Kms {
    key: String,
    region: String,
    service: Service,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Encrypted {
    ciphertext_blob: String,
    key_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypted<'a> {
    /// Borrowed from the answer, which is zeroized.
    #[serde(borrow)]
    plaintext: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(rename = "__type", default)]
    kind: String,
}

impl Kms {
    pub(super) fn try_new(key: &str, settings: &KeySettings) -> Result<Self> {
        if key.len() > 2048 || !key.chars().all(|c| c.is_ascii_alphanumeric() || "-_:/.".contains(c)) {
            // Not repeated: someone may have pasted the key itself.
            return Err(Error::config("not a key of AWS KMS")
                .with_hint("write `aws-kms:` and the key's ARN, its id, or `alias/NAME`"));
        }
        let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let region = settings
            .region
            .clone()
            .or_else(|| region_of(key).map(str::to_owned))
            .or_else(|| environment("AWS_REGION"))
            .or_else(|| environment("AWS_DEFAULT_REGION"))
            .ok_or_else(|| {
                Error::config("region of the KMS key is not known")
                    .with_context("key", key)
                    .with_hint("name the key by its ARN, or write `region` under [keys], or export AWS_REGION")
            })?;
        if !region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(Error::config("not a region of AWS").with_context("region", &region));
        }
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let address = settings.endpoint.clone().unwrap_or_else(|| format!("https://kms.{region}.{domain}"));
        Ok(Self { key: key.to_owned(), region, service: Service::try_new("aws-kms", &address)? })
    }

    pub(super) async fn wrap(&self, lake_id: &str, key: &SecretKey) -> Result<WrappedKey> {
        let plain = Zeroizing::new(STANDARD.encode(key.expose()));
        let request = json!({ "KeyId": self.key, "Plaintext": plain.as_str(), "EncryptionContext": context(lake_id) });
        let answer = self.call("Encrypt", request).await?;
        if answer.status != 200 {
            return Err(self.refused("Encrypt", &answer, None));
        }
        let encrypted: Encrypted = serde_json::from_slice(&answer.body).map_err(|_| self.unreadable("Encrypt"))?;
        let ciphertext = STANDARD.decode(&encrypted.ciphertext_blob).map_err(|_| self.unreadable("Encrypt"))?;
        Ok(WrappedKey { id: encrypted.key_id, ciphertext })
    }

    pub(super) async fn unwrap(&self, lake_id: &str, wrapped: &WrappedKey) -> Result<SecretKey> {
        let request = json!({
            "KeyId": self.key,
            "CiphertextBlob": STANDARD.encode(&wrapped.ciphertext),
            "EncryptionContext": context(lake_id),
        });
        let answer = self.call("Decrypt", request).await?;
        if answer.status != 200 {
            return Err(self.refused("Decrypt", &answer, Some(wrapped)));
        }
        let decrypted: Decrypted<'_> = serde_json::from_slice(&answer.body).map_err(|_| self.unreadable("Decrypt"))?;
        super::decode(&decrypted.plaintext).ok_or_else(|| self.unreadable("Decrypt"))
    }

    async fn call(&self, operation: &'static str, request: serde_json::Value) -> Result<Answer> {
        let credential = self.credential().await?;
        let body = Zeroizing::new(request.to_string());
        let sign = |body: &str| self.signed(operation, body, &credential);
        self.service.post("/", sign, &body, |answer| is_passing(&code(answer))).await
    }

    /// Finds credentials; the cause of a failure is not passed on, since the answer of a metadata service may be part of it.
    async fn credential(&self) -> Result<Arc<AwsCredential>> {
        let missing = || {
            Error::denied("no AWS credentials are found")
                .with_context("key", &self.key)
                .with_context("region", &self.region)
                .with_hint(
                    "export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role that may use the key",
                )
        };
        let retry =
            RetryConfig { backoff: BackoffConfig::default(), max_retries: 1, retry_timeout: CREDENTIALS_TIMEOUT };
        // The builder wants a bucket; none is ever asked.
        let chain = AmazonS3Builder::from_env()
            .with_bucket_name("none")
            .with_region(&self.region)
            .with_retry(retry)
            .build()
            .map_err(|_| missing())?;
        let found = tokio::time::timeout(CREDENTIALS_TIMEOUT, chain.credentials().get_credential()).await;
        let credential = found.map_err(|_| missing())?.map_err(|_| missing())?;
        let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_graphic());
        if !is_plain(&credential.key_id) || !credential.token.as_deref().is_none_or(is_plain) {
            return Err(Error::config("AWS credentials hold characters that none has")
                .with_hint("look for white space at the end of the environment's AWS_ variables"));
        }
        Ok(credential)
    }

    fn signed(&self, operation: &str, body: &str, credential: &AwsCredential) -> Result<HeaderMap> {
        let failed = || Error::internal("failed to make a request to KMS").with_context("operation", operation);
        let mut request = HttpRequest::new(HttpRequestBody::from(body.to_owned()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.service.url("/").as_str().parse().map_err(|_| failed())?;
        let target = HeaderValue::try_from(format!("TrentService.{operation}")).map_err(|_| failed())?;
        request.headers_mut().insert("x-amz-target", target);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
        AwsAuthorizer::new(credential, "kms", &self.region).authorize(&mut request, None);
        Ok(std::mem::take(request.headers_mut()))
    }

    fn refused(&self, operation: &'static str, answer: &Answer, wrapped: Option<&WrappedKey>) -> Error {
        let code = code(answer);
        let named = |error: Error| {
            let error = error
                .with_context("key", &self.key)
                .with_context("region", &self.region)
                .with_context("operation", operation)
                .with_context("status", answer.status)
                .with_context("code", &code);
            match wrapped {
                Some(wrapped) => error.with_context("ring was sealed under", &wrapped.id),
                None => error,
            }
        };
        match code.as_str() {
            "NotFoundException" => named(Error::config("AWS KMS does not know the key"))
                .with_hint("check `root` and `region` under [keys]"),
            "ValidationException" | "InvalidArnException" | "InvalidKeyUsageException" => {
                named(Error::config("AWS KMS does not take the key for this use"))
                    .with_hint("name a symmetric key for encryption by its ARN, id or alias")
            }
            "IncorrectKeyException" | "InvalidCiphertextException" => {
                named(Error::denied("the key of AWS KMS is not the one that sealed this lake's ring"))
                    .with_hint("name the key that sealed it; an alias may have been pointed at another key since")
            }
            "DisabledException" | "KMSInvalidStateException" => {
                named(Error::denied("the key of AWS KMS is disabled or about to be deleted"))
                    .with_hint("enable it, or cancel its deletion: the lake cannot be opened without it")
            }
            _ => named(Error::denied("AWS KMS refuses the use of the key")).with_hint(
                "allow kms:Encrypt and kms:Decrypt on the key that sealed the ring, and check that `root` names it",
            ),
        }
    }

    fn unreadable(&self, operation: &'static str) -> Error {
        Error::unavailable("AWS KMS gave an answer that cannot be read")
            .with_context("host", self.service.host())
            .with_context("operation", operation)
            .with_hint("check `endpoint` under [keys]: something else seems to answer there")
    }
}

fn context(lake_id: &str) -> serde_json::Value {
    json!({ "counterfoil:lake": lake_id, "counterfoil:purpose": PURPOSE })
}

/// Returns the name of the error in an answer.
fn code(answer: &Answer) -> String {
    let refusal: Option<Refusal> = serde_json::from_slice(&answer.body).ok();
    plain_name(&refusal.map_or_else(String::new, |refusal| refusal.kind)).to_owned()
}

/// Tells whether another attempt may do better, by the service's own list of what is retried.
fn is_passing(code: &str) -> bool {
    matches!(
        code,
        "ThrottlingException" | "LimitExceededException" | "DependencyTimeoutException" | "KMSInternalException"
    )
}

/// Returns the region in a key's ARN, `arn:PARTITION:kms:REGION:…`.
fn region_of(key: &str) -> Option<&str> {
    let mut parts = key.split(':');
    (parts.next() == Some("arn") && parts.nth(1) == Some("kms")).then(|| parts.next()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn settings(region: Option<&str>, endpoint: Option<&str>) -> KeySettings {
        KeySettings {
            region: region.map(str::to_owned),
            endpoint: endpoint.map(str::to_owned),
            ..KeySettings::default()
        }
    }

    #[test]
    fn region_comes_from_the_settings_before_the_key() {
        let arn = "arn:aws:kms:eu-central-1:123456789012:key/1234";
        assert_eq!(Kms::try_new(arn, &settings(None, None)).unwrap().service.host(), "kms.eu-central-1.amazonaws.com");
        let other = Kms::try_new(arn, &settings(Some("cn-north-1"), None)).unwrap();
        assert_eq!(other.service.host(), "kms.cn-north-1.amazonaws.com.cn");
        let local = Kms::try_new("alias/lake", &settings(Some("us-east-1"), Some("http://127.0.0.1:5000"))).unwrap();
        assert_eq!(local.service.host(), "127.0.0.1:5000");
        for (key, region) in [("pasted secret", "us-east-1"), ("alias/lake", "us east"), ("alias/lake", "x/../y")] {
            let error = Kms::try_new(key, &settings(Some(region), None)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(!error.to_string().contains("pasted secret"));
        }
    }

    #[test]
    fn request_is_signed_for_kms_and_shows_no_secret() {
        let kms = Kms::try_new("alias/lake", &settings(Some("us-east-1"), Some("http://127.0.0.1:5000"))).unwrap();
        let credential = AwsCredential {
            key_id: "AKID".to_owned(),
            secret_key: "hidden".to_owned(),
            token: Some("session".to_owned()),
        };
        let headers = kms.signed("Decrypt", "{}", &credential).unwrap();
        let text = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!(text("x-amz-target"), "TrentService.Decrypt");
        assert_eq!(text("x-amz-security-token"), "session");
        let signature = text("authorization");
        assert!(signature.starts_with("AWS4-HMAC-SHA256 Credential=AKID/"), "{signature}");
        assert!(signature.contains("/us-east-1/kms/aws4_request"), "{signature}");
        assert!(!signature.contains("hidden"));
    }

    #[test]
    fn refusals_end_in_their_kinds_and_name_both_keys() {
        let kms = Kms::try_new("alias/lake", &settings(Some("us-east-1"), None)).unwrap();
        let wrapped = WrappedKey { id: "arn:of:the:ring".to_owned(), ciphertext: Vec::new() };
        for (code, kind) in [
            ("NotFoundException", ErrorKind::Config),
            ("IncorrectKeyException", ErrorKind::Denied),
            ("InvalidCiphertextException", ErrorKind::Denied),
            ("DisabledException", ErrorKind::Denied),
            ("AccessDeniedException", ErrorKind::Denied),
            ("InvalidSignatureException", ErrorKind::Denied),
        ] {
            let body = json!({ "__type": code, "message": "secret-in-the-body" }).to_string().into_bytes();
            let error = kms.refused("Decrypt", &Answer { status: 400, body: Zeroizing::new(body) }, Some(&wrapped));
            assert_eq!(error.kind(), kind, "{code}");
            let text = error.to_string();
            assert!(text.contains("alias/lake") && text.contains("arn:of:the:ring") && text.contains(code), "{text}");
            assert!(!format!("{error:?}").contains("secret-in-the-body"));
        }
    }
}
