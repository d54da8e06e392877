//! The root key: the one secret that the operator keeps.
//!
//! | reference | holds |
//! |---|---|
//! | `file:PATH` | a key file: one line `counterfoil-root-1:` and the base64 of 32 bytes, mode 0600 |
//! | `env:NAME` | the base64 of 32 bytes in an environment variable |
//! | `passphrase:env:NAME` | a passphrase, from which Argon2id derives the key when a ring is sealed or opened |
//!
//! Argon2id runs with the second recommended parameters of [RFC 9106, section 4](https://www.rfc-editor.org/rfc/rfc9106#section-4):
//! 64 MiB, three passes, four lanes, a random salt of 16 bytes. The parameters are part of the kind's number in the ring's
//! header and are not read from it, so a forged header cannot ask for more memory or for less work.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::keys::gcm;
use crate::secret::{SecretKey, SecretRef, SecretString};

/// What the line of a key file begins with; the number is the format's version.
const FILE_PREFIX: &str = "counterfoil-root-1:";

/// Bytes of the salt of a passphrase.
const SALT_BYTES: usize = 16;

/// The key that wraps the ring: `file:PATH`, `env:NAME` or `passphrase:env:NAME`.
#[derive(Debug)]
pub struct RootKey {
    reference: String,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Key(SecretKey),
    Passphrase(SecretString),
}

/// How a ring was wrapped: kept in the clear in its header, and authenticated with it.
///
/// Kinds that ask a key service will keep the service's wrapped key in `parameters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrapping {
    /// 0: the key itself; 1: Argon2id with the parameters of this module's header.
    pub(super) kind: u8,
    /// Kind 0: nothing; kind 1: the salt.
    pub(super) parameters: Vec<u8>,
}

impl RootKey {
    /// Reads the root key that a reference names; relative paths stand from `base`.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the reference is of no known kind, names nothing, names something that is
    /// no key, or names a key file that other users can read.
    pub fn read(reference: &str, base: &Path) -> Result<Self> {
        let material = match reference.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Material::Key(read_file(&base.join(path))?),
            Some(("env", name)) if !name.is_empty() => {
                let text = SecretRef::Env(name.to_owned()).read(base)?;
                Material::Key(decode(text.expose()).ok_or_else(|| {
                    Error::config("environment variable holds no root key, the base64 of 32 bytes")
                        .with_context("variable", name)
                        .with_hint("make one with `openssl rand -base64 32`")
                })?)
            }
            Some(("passphrase", source)) if source.starts_with("env:") => {
                Material::Passphrase(source.parse::<SecretRef>()?.read(base)?)
            }
            Some((scheme @ ("aws-kms" | "vault"), _)) => {
                return Err(Error::config("root key is kept by a key service that this version does not speak to")
                    .with_context("service", scheme)
                    .with_hint("use `file:PATH`, `env:NAME` or `passphrase:env:NAME`"));
            }
            // The text is not repeated: someone may have pasted the key itself.
            _ => {
                return Err(Error::config("root key must be a reference")
                    .with_hint("use `file:PATH`, `env:NAME` or `passphrase:env:NAME`"));
            }
        };
        Ok(Self { reference: reference.to_owned(), material })
    }

    /// Makes a new key file of mode 0600; never overwrites.
    ///
    /// The file and its directory are synced before this returns, so that no lake can outlive its key in a power cut.
    ///
    /// # Errors
    ///
    /// [`Conflict`](crate::error::ErrorKind::Conflict) when something stands at the path, [`Config`](crate::error::ErrorKind::Config)
    /// when the file cannot be written.
    pub fn create_file(path: &Path) -> Result<()> {
        let key = gcm::random_key()?;
        let mut line = Zeroizing::new(String::with_capacity(FILE_PREFIX.len() + 45));
        line.push_str(FILE_PREFIX);
        STANDARD.encode_string(key.expose(), &mut line);
        line.push('\n');

        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let failed = |source: std::io::Error| {
            Error::config("failed to write the root key's file")
                .with_context("file", path.display())
                .with_source(source)
        };
        let mut file = options.open(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Error::new(crate::error::ErrorKind::Conflict, "root key's file exists already")
                    .with_context("file", path.display())
                    .with_hint("keep it: what it wraps cannot be read without it; name another path for a new key")
            }
            _ => failed(source),
        })?;
        if let Err(source) = file.write_all(line.as_bytes()).and_then(|()| file.sync_all()) {
            // Half a key must not stand in the way of the next try; that it may stay behind is told by the error below.
            let _ = std::fs::remove_file(path);
            return Err(failed(source));
        }
        #[cfg(unix)]
        File::open(match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        })
        .and_then(|directory| directory.sync_all())
        .map_err(failed)?;
        Ok(())
    }

    /// Returns the reference that named the key; it holds no secret.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Makes the parameters for sealing a ring anew.
    pub(super) fn new_wrapping(&self) -> Result<Wrapping> {
        Ok(match self.material {
            Material::Key(_) => Wrapping { kind: 0, parameters: Vec::new() },
            Material::Passphrase(_) => Wrapping { kind: 1, parameters: gcm::random::<SALT_BYTES>()?.to_vec() },
        })
    }

    /// Returns the key that wraps a ring under these parameters; `None` when they belong to another kind of root key.
    pub(super) fn wrapping_key(&self, wrapping: &Wrapping) -> Result<Option<SecretKey>> {
        match (&self.material, wrapping.kind) {
            (Material::Key(key), 0) if wrapping.parameters.is_empty() => Ok(Some(SecretKey::new(*key.expose()))),
            (Material::Passphrase(passphrase), 1) if wrapping.parameters.len() == SALT_BYTES => {
                derive(passphrase, &wrapping.parameters).map(Some)
            }
            _ => Ok(None),
        }
    }
}

fn derive(passphrase: &SecretString, salt: &[u8]) -> Result<SecretKey> {
    let failed = |cause: argon2::Error| {
        Error::internal("failed to derive the root key from its passphrase").with_context("cause", cause)
    };
    let parameters = Params::new(64 * 1024, 3, 4, Some(32)).map_err(failed)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
        .hash_password_into(passphrase.expose().as_bytes(), salt, key.as_mut_slice())
        .map_err(failed)?;
    Ok(SecretKey::new(*key))
}

fn decode(base64: &str) -> Option<SecretKey> {
    let bytes = Zeroizing::new(STANDARD.decode(base64.trim()).ok()?);
    Some(SecretKey::new(bytes.as_slice().try_into().ok()?))
}

fn read_file(path: &Path) -> Result<SecretKey> {
    let mut file = File::open(path).map_err(|source| unreadable(path, source))?;
    refuse_readable_by_others(&file, path)?;
    // A key file is one short line; whatever is longer is no key, and is not read into memory whole.
    let mut text = Zeroizing::new(String::with_capacity(256));
    let key = match Read::by_ref(&mut file).take(256).read_to_string(&mut text) {
        Ok(_) => text.trim_end().strip_prefix(FILE_PREFIX).and_then(decode),
        Err(source) if source.kind() == std::io::ErrorKind::InvalidData => None,
        Err(source) => return Err(unreadable(path, source)),
    };
    key.ok_or_else(|| {
        Error::config(format!("file holds no root key, one line of `{FILE_PREFIX}` and the base64 of 32 bytes"))
            .with_context("file", path.display())
            .with_hint("name the key's file, or restore it from its backup")
    })
}

fn unreadable(path: &Path, source: std::io::Error) -> Error {
    let error = Error::config("failed to read the root key's file").with_context("file", path.display());
    let error = match source.kind() {
        std::io::ErrorKind::NotFound => error.with_hint(
            "`counterfoil init` makes one for a new lake; a lake that is there opens with its own key only, from your backup",
        ),
        _ => error,
    };
    error.with_source(source)
}

#[cfg(unix)]
fn refuse_readable_by_others(file: &File, path: &Path) -> Result<()> {
    /// Every right of the group and of all others.
    const OTHERS: u32 = 0o077;
    let metadata = file.metadata().map_err(|source| unreadable(path, source))?;
    let mode = std::os::unix::fs::MetadataExt::mode(&metadata) & 0o777;
    if mode & OTHERS == 0 {
        return Ok(());
    }
    Err(Error::config("root key's file can be used by other users")
        .with_context("file", path.display())
        .with_context("mode", format!("{mode:04o}"))
        .with_hint(format!("chmod 600 {}", path.display())))
}

#[cfg(not(unix))]
fn refuse_readable_by_others(_file: &File, _path: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
impl RootKey {
    /// Makes a root key of the given bytes.
    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self { reference: "env:TEST".to_owned(), material: Material::Key(SecretKey::new(bytes)) }
    }

    /// Makes a root key of a passphrase.
    pub(crate) fn from_passphrase(passphrase: &str) -> Self {
        let material = Material::Passphrase(SecretString::new(passphrase.to_owned()));
        Self { reference: "passphrase:env:TEST".to_owned(), material }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn key_of(root: &RootKey) -> [u8; 32] {
        *root.wrapping_key(&root.new_wrapping().unwrap()).unwrap().unwrap().expose()
    }

    #[test]
    fn key_file_is_private_read_back_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.key");
        RootKey::create_file(&path).unwrap();
        let written = std::fs::read(&path).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let root = RootKey::read("file:root.key", folder.path()).unwrap();
        let line = format!("{FILE_PREFIX}{}\n", STANDARD.encode(key_of(&root)));
        assert_eq!(line.as_bytes(), written);

        let error = RootKey::create_file(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(std::fs::read(&path).unwrap(), written);
    }

    #[cfg(unix)]
    #[test]
    fn key_file_that_others_can_use_is_refused_with_the_way_out() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.key");
        RootKey::create_file(&path).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o601] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = RootKey::read("file:root.key", folder.path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{mode:o}");
            assert!(error.hint().unwrap().starts_with("chmod 600 "), "{mode:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        RootKey::read("file:root.key", folder.path()).unwrap();
    }

    #[test]
    fn what_is_no_key_is_a_config_error_that_repeats_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wrong.key");
        RootKey::create_file(&path).unwrap();
        for text in
            ["", "pasted-secret", "counterfoil-root-1:", "counterfoil-root-1:c2hvcnQ=", "counterfoil-root-2:AAAA"]
        {
            std::fs::write(&path, text).unwrap();
            let error = RootKey::read("file:wrong.key", folder.path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            assert!(!format!("{error:?}").contains("pasted-secret"));
        }
        for reference in ["", "pasted-secret", "file:", "env:", "passphrase:file:x", "aws-kms:arn", "file:absent.key"] {
            let error = RootKey::read(reference, folder.path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{reference}");
            assert!(!format!("{error:?}").contains("pasted-secret"));
        }
    }

    #[test]
    fn passphrase_gives_the_same_key_for_the_same_salt_only() {
        let root = RootKey::from_passphrase("correct horse");
        let wrapping = root.new_wrapping().unwrap();
        let key = root.wrapping_key(&wrapping).unwrap().unwrap();
        assert_eq!(root.wrapping_key(&wrapping).unwrap().unwrap().expose(), key.expose());
        assert_ne!(&key_of(&root), key.expose());
        let other = RootKey::from_passphrase("correct house").wrapping_key(&wrapping).unwrap().unwrap();
        assert_ne!(other.expose(), key.expose());
        assert!(RootKey::from_bytes([1; 32]).wrapping_key(&wrapping).unwrap().is_none());
    }

    #[test]
    fn argon2id_parameters_stay_what_kind_1_means() {
        // Computed with the reference implementation (argon2-cffi); if this changes, no ring of kind 1 opens any more.
        let key = derive(&SecretString::new("passphrase".to_owned()), b"0123456789abcdef").unwrap();
        assert_eq!(STANDARD.encode(key.expose()), "uaRh/09cbn5H751SNg1R/uK3/VpmzAEpWL/80cjCChs=");
    }

    #[test]
    fn debug_shows_no_key() {
        let root = RootKey::from_passphrase("correct horse");
        assert!(!format!("{root:?}").contains("horse"));
        assert!(format!("{:?}", RootKey::from_bytes([7; 32])).contains("[redacted]"));
    }
}
