//! Secrets and references to them.
//!
//! A secret is zeroized when dropped, prints as `[redacted]`, and cannot be cloned or serialized.
//! Settings hold a [`SecretRef`] (`env:NAME`, `file:PATH`), never a value.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// A text that must not be printed: an API key, a password, a passphrase.
pub struct SecretString(Zeroizing<String>);

impl SecretString {
    /// Takes ownership of the text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Returns the text; the one place where it leaves the type.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretString([redacted])")
    }
}

/// A 256-bit key.
pub struct SecretKey(Zeroizing<[u8; 32]>);

impl SecretKey {
    /// Takes ownership of the bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Returns the bytes; the one place where they leave the type.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey([redacted])")
    }
}

/// A key of pseudonyms with its version, which every pseudonym carries so that a rotation can be told apart.
#[derive(Debug)]
pub struct PseudonymKey {
    /// Number of the key, from 1.
    pub version: u32,
    /// The HMAC-SHA256 key.
    pub key: SecretKey,
}

/// The keys of pseudonyms of every version up to one: a pseudonym of that version takes them all. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PseudonymKeys(Arc<[Arc<PseudonymKey>]>);

impl PseudonymKeys {
    /// Takes the keys of versions 1, 2, … in this order.
    ///
    /// # Errors
    ///
    /// [`Denied`](crate::error::ErrorKind::Denied) when there is none, or one is missing.
    pub fn try_new(keys: impl IntoIterator<Item = Arc<PseudonymKey>>) -> Result<Self> {
        let keys: Arc<[_]> = keys.into_iter().collect();
        if keys.is_empty() {
            return Err(Error::denied("there is no key of pseudonyms"));
        }
        match (1_u32..).zip(keys.iter()).find(|(version, key)| key.version != *version) {
            None => Ok(Self(keys)),
            Some((missing, key)) => Err(Error::denied("a key of pseudonyms is missing")
                .with_context("version", missing)
                .with_context("found", key.version)),
        }
    }

    /// Returns the version of the pseudonyms that the keys make.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.0.last().map_or(1, |key| key.version)
    }

    /// Returns the keys, of version 1 first.
    #[must_use]
    pub fn keys(&self) -> &[Arc<PseudonymKey>] {
        &self.0
    }
}

/// Where a secret is found: `env:NAME` or `file:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// The environment variable of this name.
    Env(String),
    /// The file at this path; white space at its end is cut.
    File(PathBuf),
}

impl SecretRef {
    /// Reads the secret; relative paths stand from `base` (the folder of the configuration file).
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the variable is not set or the file cannot be read, or either is empty.
    pub fn read(&self, base: &Path) -> Result<SecretString> {
        let text = match self {
            Self::Env(name) => std::env::var(name).map_err(|_| {
                Error::config("environment variable is not set")
                    .with_context("variable", name)
                    .with_hint(format!("export {name}=… before the command, or name another in the settings"))
            })?,
            Self::File(path) => {
                let path = base.join(path);
                std::fs::read_to_string(&path).map_err(|source| {
                    Error::config("failed to read the secret's file")
                        .with_context("file", path.display())
                        .with_source(source)
                })?
            }
        };
        let secret = SecretString::new(text);
        let trimmed = secret.expose().trim();
        if trimmed.is_empty() {
            return Err(Error::config("secret is empty").with_context("reference", self));
        }
        Ok(SecretString::new(trimmed.to_owned()))
    }
}

impl FromStr for SecretRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(PathBuf::from(path))),
            // The text is not repeated: someone may have pasted the secret itself.
            _ => Err(Error::config("secret must be a reference, `env:NAME` or `file:PATH`")
                .with_hint("put the secret into an environment variable or a file of mode 0600 and name that")),
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", SecretString::new("hunter2".to_owned())), "SecretString([redacted])");
        assert_eq!(format!("{:?}", SecretKey::new([7; 32])), "SecretKey([redacted])");
    }

    #[test]
    fn pasted_secret_is_refused_and_not_repeated() {
        let error = "eyJhbGciOi.pasted".parse::<SecretRef>().unwrap_err();
        assert!(!format!("{error:?}").contains("pasted"));
    }
}
