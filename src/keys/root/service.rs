//! Asking a key service over HTTPS: addresses, time limits, a few retries, and what an answer may be.
//!
//! Bodies, tokens and keys never get into a message: an answer is shown as its status and, where the service has one, the
//! name of its error.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::redirect;
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::retry::{Backoff, SplitMix64};

/// Time for one request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Attempts at one request, at most: a process that starts waits no longer than half a minute for its key.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(2), attempts: 3 };

/// No answer of a key service that is of use here comes near this.
const LARGEST_ANSWER_BYTES: usize = 64 << 10;

/// A key service at its address.
#[derive(Debug, Clone)]
pub(super) struct Service {
    /// The service as messages name it.
    name: &'static str,
    address: Url,
}

/// What a service answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Zeroizing<Vec<u8>>,
}

impl Service {
    /// Checks an address: https, or http on loopback; nothing but a scheme and a host.
    pub(super) fn try_new(name: &'static str, address: &str) -> Result<Self> {
        let wrong = |message: &str| {
            Error::config(message)
                .with_context("service", name)
                .with_hint("write `endpoint = \"https://HOST\"` under [keys]")
        };
        // The text is not repeated: it may hold a credential.
        let address: Url =
            address.parse().map_err(|source| wrong("address of the key service is not a URL").with_source(source))?;
        let is_loopback = match address.host() {
            None => return Err(wrong("address of the key service has no host")),
            Some(Host::Domain(domain)) => domain.eq_ignore_ascii_case("localhost"),
            Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
            Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        };
        match address.scheme() {
            "https" => {}
            "http" if is_loopback => {}
            "http" => {
                return Err(wrong("plain http is allowed to this machine only: the key would be readable on the way")
                    .with_context("host", address.host_str().unwrap_or_default()));
            }
            _ => return Err(wrong("address of the key service is neither https nor http")),
        }
        if !address.username().is_empty() || address.password().is_some() {
            return Err(wrong("address of the key service holds a credential"));
        }
        if !matches!(address.path(), "" | "/") || address.query().is_some() || address.fragment().is_some() {
            return Err(wrong("address of the key service has more than a scheme and a host"));
        }
        Ok(Self { name, address })
    }

    /// Returns the address of a path.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.address.clone();
        url.set_path(path);
        url
    }

    /// Returns the host and port, as messages name it.
    pub(super) fn host(&self) -> String {
        let host = self.address.host_str().unwrap_or_default();
        self.address.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Posts a body and returns the answer, whatever its status; `is_passing` tells which answers are worth another attempt.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::error::ErrorKind::Unavailable) when no attempt was answered, or each by one that may pass.
    pub(super) async fn post(
        &self,
        path: &str,
        headers: impl Fn(&str) -> Result<HeaderMap>,
        body: &str,
        is_passing: impl Fn(&Answer) -> bool,
    ) -> Result<Answer> {
        let client = self.client()?;
        let mut jitter = SplitMix64::new(u64::from(std::process::id()));
        let mut failed = 0;
        loop {
            // Signed anew for each attempt: a signature carries its time.
            let request = client.post(self.url(path)).headers(headers(body)?).body(body.to_owned());
            let error = match exchange(request).await {
                Ok(answer) if answer.status < 500 && answer.status != 429 && !is_passing(&answer) => return Ok(answer),
                Ok(answer) => self.unavailable("key service cannot answer now").with_context("status", answer.status),
                Err(source) => self.unavailable("key service does not answer").with_source(source),
            };
            failed += 1;
            match BACKOFF.delay(failed, &mut jitter) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(error.with_context("attempts", failed)),
            }
        }
    }

    fn unavailable(&self, message: &str) -> Error {
        Error::unavailable(message)
            .with_context("service", self.name)
            .with_context("host", self.host())
            .with_hint("try again later; without the key service no process can open the lake")
    }

    fn client(&self) -> Result<reqwest::Client> {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("counterfoil/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .http1_only()
            .timeout(TIMEOUT);
        let builder = if self.address.scheme() == "https" {
            builder.https_only(true).min_tls_version(reqwest::tls::Version::TLS_1_2)
        } else {
            // Loopback: no proxy of the environment may see the key, and no certificates are needed.
            builder.no_proxy().tls_built_in_root_certs(false)
        };
        builder.build().map_err(|source| {
            Error::config("failed to set up TLS").with_context("service", self.name).with_source(source)
        })
    }
}

async fn exchange(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
    let mut response = request.send().await.map_err(reqwest::Error::without_url)?;
    let status = response.status().as_u16();
    // Room for everything at once: a vector that grows would leave a copy of the key behind.
    let mut body = Zeroizing::new(Vec::with_capacity(LARGEST_ANSWER_BYTES));
    while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        let room = LARGEST_ANSWER_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            break;
        }
    }
    Ok(Answer { status, body })
}

/// Keeps of a service's error name what cannot carry anything else.
pub(super) fn plain_name(name: &str) -> &str {
    let name = name.rsplit('#').next().unwrap_or_default();
    let is_plain = name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric());
    if is_plain { name } else { "unreadable" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn address_is_https_or_loopback_and_holds_nothing_else() {
        for good in
            ["https://vault.example.com", "https://vault.example.com:8200/", "http://127.0.0.1:5000", "http://[::1]:1"]
        {
            Service::try_new("vault", good).unwrap();
        }
        for wrong in [
            "http://vault.example.com",
            "http://10.0.0.1:8200",
            "ftp://127.0.0.1",
            "https://user:pasted-secret@vault.example.com",
            "https://vault.example.com/v1",
            "https://vault.example.com?token=pasted-secret",
            "pasted-secret",
        ] {
            let error = Service::try_new("vault", wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{wrong}");
            assert!(!format!("{error:?}").contains("pasted-secret"), "{error:?}");
        }
    }

    #[test]
    fn name_of_an_error_shows_nothing_but_a_name() {
        assert_eq!(plain_name("com.amazonaws.kms#NotFoundException"), "NotFoundException");
        assert_eq!(plain_name("AccessDeniedException"), "AccessDeniedException");
        assert_eq!(plain_name("the token is hvs.secret"), "unreadable");
    }
}
