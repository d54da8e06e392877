//! The signed link of a file: where it may lead, and that nobody sees it.
//!
//! Whoever has the link has the file, until it expires. `Debug` and errors show its host and nothing else; its path ends
//! in the file's name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use crate::error::{Error, Result};
use crate::secret::SecretString;

/// A link longer than this is none.
const LONGEST_BYTES: usize = 16 << 10;

/// A signed link that may be followed; its text is cleared when it is dropped.
pub struct Link {
    text: SecretString,
    host: String,
}

impl Link {
    /// Checks a link as the source wrote it. Plain http and addresses of this machine or its network are for a source on
    /// this machine only (`is_local`): another one has no business to send requests there.
    ///
    /// # Errors
    ///
    /// [`Data`](crate::error::ErrorKind::Data) when it leads where no file of the source can be.
    pub(super) fn parse(text: &str, is_local: bool) -> Result<Self> {
        let refused = |why: &'static str| {
            Error::data("source links an attachment to where none can be").with_context("link", why)
        };
        if text.len() > LONGEST_BYTES {
            return Err(refused("too long"));
        }
        let url = Url::parse(text).map_err(|_| refused("no absolute address"))?;
        let Some(host) = url.host() else { return Err(refused("no host")) };
        let name = url.port().map_or_else(|| host.to_string(), |port| format!("{host}:{port}"));
        let refused = |why| refused(why).with_context("host", &name);
        let is_loopback = match &host {
            Host::Domain(domain) => is_localhost(domain),
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        };
        match url.scheme() {
            "https" => {}
            "http" if is_local && is_loopback => {}
            "http" => return Err(refused("plain http, which anyone on the way can read")),
            _ => return Err(refused("not https")),
        }
        if !is_local && is_inside(&host) {
            return Err(refused("an address of this machine or of its own network"));
        }
        // It would go out as a credential.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("holds a user name"));
        }
        Ok(Self { text: SecretString::new(text.to_owned()), host: name })
    }

    /// Returns the host, which may be shown.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Returns the address to ask, which may not be shown.
    pub(super) fn expose(&self) -> &str {
        self.text.expose()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("host", &self.host).finish_non_exhaustive()
    }
}

fn is_localhost(domain: &str) -> bool {
    let domain = domain.trim_end_matches('.').to_ascii_lowercase();
    domain == "localhost" || domain.ends_with(".localhost")
}

/// Tells whether a host is this machine or a neighbour. A public name that resolves to one gets no request either: it has no
/// certificate of that name.
fn is_inside(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(domain) => is_localhost(domain),
        Host::Ipv4(address) => is_inside_v4(*address),
        Host::Ipv6(address) => is_inside_v6(*address),
    }
}

fn is_inside_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    let is_shared = first == 100 && (64..128).contains(&second);
    first == 0 || address.is_loopback() || address.is_link_local() || address.is_private() || is_shared
}

fn is_inside_v6(address: Ipv6Addr) -> bool {
    if let IpAddr::V4(mapped) = address.to_canonical() {
        return is_inside_v4(mapped);
    }
    address.is_loopback() || address.is_unspecified() || address.is_unicast_link_local() || address.is_unique_local()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_leads_to_https_elsewhere_or_stays_on_this_machine() {
        for (text, remote, local) in [
            ("https://files.example/a/b-name.jpg?sig=s3cret", true, true),
            ("https://files.example:8443/a?sig=s3cret", true, true),
            ("http://files.example/a?sig=s3cret", false, false),
            ("http://127.0.0.1:9/a?sig=s3cret", false, true),
            ("http://localhost:9/a?sig=s3cret", false, true),
            ("http://[::1]:9/a?sig=s3cret", false, true),
            ("http://10.0.0.1/a?sig=s3cret", false, false),
            ("https://127.0.0.1/a?sig=s3cret", false, true),
            ("https://127.1/a?sig=s3cret", false, true),
            ("https://2130706433/a?sig=s3cret", false, true),
            ("https://localhost./a?sig=s3cret", false, true),
            ("https://x.localhost/a?sig=s3cret", false, true),
            ("https://169.254.169.254/latest?sig=s3cret", false, true),
            ("https://[fe80::1]/a?sig=s3cret", false, true),
            ("https://[::ffff:169.254.169.254]/a?sig=s3cret", false, true),
            ("https://10.1.2.3/a?sig=s3cret", false, true),
            ("https://[fd00::1]/a?sig=s3cret", false, true),
            ("https://100.100.100.200/a?sig=s3cret", false, true),
            ("https://0.0.0.0/a?sig=s3cret", false, true),
            ("https://me:s3cret@files.example/a", false, false),
            ("ftp://files.example/s3cret", false, false),
            ("file:///etc/s3cret", false, false),
            ("/v1/s3cret", false, false),
            ("", false, false),
        ] {
            for (is_local, is_good) in [(false, remote), (true, local)] {
                let shown = match Link::parse(text, is_local) {
                    Ok(link) => {
                        assert!(is_good, "{text} {is_local}");
                        format!("{link:?}")
                    }
                    Err(error) => {
                        assert!(!is_good, "{text} {is_local}: {error}");
                        format!("{error:?} {error}")
                    }
                };
                assert!(!shown.contains("s3cret") && !shown.contains("name.jpg"), "{shown}");
            }
        }
        assert!(Link::parse(&format!("https://files.example/{}", "a".repeat(LONGEST_BYTES)), true).is_err());
    }
}
