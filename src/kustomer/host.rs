//! The one host that is asked with the credential: which addresses may be it, and which paths stay on it.

use std::net::IpAddr;

use url::{Host, Url};

use crate::error::{Error, Result};

/// Returns the host of an address that may be asked with a credential.
pub(super) fn check_base_url(url: &Url) -> Result<String> {
    let Some(host) = url.host() else {
        return Err(Error::config("address of the source has no host").with_context("base_url", url.scheme()));
    };
    let name = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_string(),
    };
    let is_loopback = match host {
        Host::Domain(domain) => domain.eq_ignore_ascii_case("localhost"),
        Host::Ipv4(address) => IpAddr::V4(address).is_loopback(),
        Host::Ipv6(address) => IpAddr::V6(address).is_loopback(),
    };
    match url.scheme() {
        "https" => {}
        "http" if is_loopback => {}
        "http" => {
            return Err(Error::config(
                "plain http is allowed to this machine only: the credential would be readable on the way",
            )
            .with_context("host", name)
            .with_hint("write https:// in `base_url`"));
        }
        scheme => {
            return Err(Error::config("address of the source is neither https nor http")
                .with_context("scheme", scheme)
                .with_context("host", name));
        }
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::config("address of the source holds a credential")
            .with_context("host", name)
            .with_hint("name the credential with `api_key` or `email` and `password`"));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(Error::config("address of the source has more than a scheme and a host")
            .with_context("host", name)
            .with_hint("leave out the path: `/v1` is added"));
    }
    Ok(name)
}

/// Resolves a path on the one host; anything that would leave it is refused.
pub(super) fn resolve(base_url: &Url, path: &str) -> Result<Url> {
    let refused = || {
        let error = Error::data("source links to something that is no path of its API");
        error.with_context("host", base_url.host_str().unwrap_or_default())
    };
    if !path.starts_with("/v1/") || path.contains(['\\', '#']) || path.contains(char::is_control) {
        return Err(refused());
    }
    let url = base_url.join(path).map_err(|_| refused())?;
    if url.origin() != base_url.origin() || !url.path().starts_with("/v1/") {
        return Err(refused());
    }
    Ok(url)
}

/// Tells whether a path names a record: some part of it is an id.
pub(super) fn names_record(path: &str) -> bool {
    let is_id = |part: &str| part.len() == 24 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    path.split(['/', ',']).any(is_id)
}
