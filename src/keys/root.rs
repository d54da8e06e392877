//! The root key: the one secret that the operator keeps, or that a key service keeps for the operator.
//!
//! | reference | holds |
//! |---|---|
//! | `file:PATH` | a key file: one line `counterfoil-root-1:` and the base64 of 32 bytes, mode 0600 |
//! | `env:NAME` | the base64 of 32 bytes in an environment variable |
//! | `passphrase:env:NAME` | a passphrase, from which Argon2id derives the key when a ring is sealed or opened |
//! | `aws-kms:KEY` | a key of AWS KMS by its ARN, id or alias |
//! | `vault:MOUNT/KEY` | a key of the transit engine of HashiCorp Vault, or of OpenBao |
//!
//! A key service never sees the ring. It wraps a fresh 32-byte key for each ring version, which seals that ring; what the
//! service answers stands in the ring's header. So a service is asked once when a process starts, and has no part in
//! anything after that. Both services bind the wrapped key to the lake's id (KMS by its encryption context, Vault by
//! associated data), so the audit log of the service says which lake was opened.
//!
//! Argon2id runs with the second recommended parameters of [RFC 9106, section 4](https://www.rfc-editor.org/rfc/rfc9106#section-4):
//! 64 MiB, three passes, four lanes, a random salt of 16 bytes. The parameters are part of the kind's number in the ring's
//! header and are not read from it, so a forged header cannot ask for more memory or for less work.

mod file;
mod kms;
mod service;
mod vault;

use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use self::kms::Kms;
use self::vault::Vault;
use crate::error::{Error, Result};
use crate::keys::gcm;
use crate::secret::{SecretKey, SecretRef, SecretString};

/// Bytes of the salt of a passphrase.
const SALT_BYTES: usize = 16;

/// The kinds of references, for hints.
const KINDS: &str = "use `file:PATH`, `env:NAME`, `passphrase:env:NAME`, `aws-kms:KEY` or `vault:MOUNT/KEY`";

/// Where a key service is and how it is asked; root keys that this machine holds need none of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySettings {
    /// Address of the service, `https://HOST[:PORT]`; plain http on loopback only. By default the public endpoint of KMS in
    /// the region, and `VAULT_ADDR`.
    pub endpoint: Option<String>,
    /// Region of KMS. By default that of the key's ARN, then `AWS_REGION`, then `AWS_DEFAULT_REGION`.
    pub region: Option<String>,
    /// Reference of Vault's token. By default `env:VAULT_TOKEN`.
    pub token: Option<SecretRef>,
    /// Namespace of Vault Enterprise. By default `VAULT_NAMESPACE`, or none.
    pub namespace: Option<String>,
}

/// The key that wraps the ring, as the setting `keys.root` names it.
#[derive(Debug)]
pub struct RootKey {
    reference: String,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Key(SecretKey),
    Passphrase(SecretString),
    Kms(Kms),
    Vault(Vault),
}

/// How a ring was wrapped: kept in the clear in its header, and authenticated with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrapping {
    /// 0: the key itself; 1: Argon2id with the parameters of this module's header; 2: AWS KMS; 3: Vault.
    pub(super) kind: u8,
    /// Kind 0: nothing; kind 1: the salt; kinds 2 and 3: a [`WrappedKey`].
    pub(super) parameters: Vec<u8>,
}

impl Wrapping {
    /// Returns the kind as references begin.
    pub(super) fn scheme(&self) -> &'static str {
        match self.kind {
            0 => "file: or env:",
            1 => "passphrase:",
            2 => "aws-kms:",
            3 => "vault:",
            _ => "a kind that this version does not know",
        }
    }
}

impl RootKey {
    /// Reads the root key that a reference names; relative paths stand from `base`, services are where they are by default.
    ///
    /// # Errors
    ///
    /// As [`configured`](Self::configured).
    pub fn read(reference: &str, base: &Path) -> Result<Self> {
        Self::configured(reference, base, &KeySettings::default())
    }

    /// Reads the root key that a reference names, or how to ask the service that keeps it; nothing is asked yet.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the reference is of no known kind, names nothing, names something that is
    /// no key, or names a key file that other users can read; and when a service's address or token is missing or wrong.
    pub fn configured(reference: &str, base: &Path, settings: &KeySettings) -> Result<Self> {
        let material = match reference.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Material::Key(file::read(&base.join(path))?),
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
            Some(("aws-kms", key)) if !key.is_empty() => Material::Kms(Kms::try_new(key, settings)?),
            Some(("vault", key)) if !key.is_empty() => Material::Vault(Vault::try_new(key, base, settings)?),
            // The text is not repeated: someone may have pasted the key itself.
            _ => return Err(Error::config("root key must be a reference").with_hint(KINDS)),
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
        file::create(path)
    }

    /// Returns the reference that named the key; it holds no secret.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Makes the key that seals one version of a lake's ring, and what the ring's header says about it.
    pub(super) async fn wrap(&self, lake_id: &str) -> Result<(Wrapping, SecretKey)> {
        match &self.material {
            Material::Key(key) => Ok((Wrapping { kind: 0, parameters: Vec::new() }, SecretKey::new(*key.expose()))),
            Material::Passphrase(passphrase) => {
                let parameters = gcm::random::<SALT_BYTES>()?.to_vec();
                let key = derive(passphrase, &parameters)?;
                Ok((Wrapping { kind: 1, parameters }, key))
            }
            Material::Kms(kms) => {
                let key = gcm::random_key()?;
                let wrapped = kms.wrap(lake_id, &key).await?;
                Ok((Wrapping { kind: 2, parameters: wrapped.encode()? }, key))
            }
            Material::Vault(vault) => {
                let key = gcm::random_key()?;
                let wrapped = vault.wrap(lake_id, &key).await?;
                Ok((Wrapping { kind: 3, parameters: wrapped.encode()? }, key))
            }
        }
    }

    /// Returns the key that sealed a ring; `None` when its header belongs to another kind of root key or cannot be read.
    pub(super) async fn unwrap(&self, lake_id: &str, wrapping: &Wrapping) -> Result<Option<SecretKey>> {
        match (&self.material, wrapping.kind) {
            (Material::Key(key), 0) if wrapping.parameters.is_empty() => Ok(Some(SecretKey::new(*key.expose()))),
            (Material::Passphrase(passphrase), 1) if wrapping.parameters.len() == SALT_BYTES => {
                derive(passphrase, &wrapping.parameters).map(Some)
            }
            (Material::Kms(kms), 2) => match WrappedKey::decode(&wrapping.parameters) {
                Some(wrapped) => kms.unwrap(lake_id, &wrapped).await.map(Some),
                None => Ok(None),
            },
            (Material::Vault(vault), 3) => match WrappedKey::decode(&wrapping.parameters) {
                Some(wrapped) => vault.unwrap(lake_id, &wrapped).await.map(Some),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }
}

/// A key as a service wrapped it: `length of the id, u16 little-endian | id | the service's ciphertext`.
///
/// The id (the ARN of a KMS key, `MOUNT/KEY` of Vault) is for messages: it tells an operator whose setting names another key
/// which one the ring needs. What is asked is always the key of the setting.
#[derive(Debug, Clone, PartialEq, Eq)]
struct WrappedKey {
    id: String,
    ciphertext: Vec<u8>,
}

impl WrappedKey {
    fn encode(&self) -> Result<Vec<u8>> {
        let length = u16::try_from(self.id.len())
            .map_err(|_| Error::data("key service names its key by a text that is too long"))?;
        let mut encoded = Vec::with_capacity(2 + self.id.len() + self.ciphertext.len());
        encoded.extend_from_slice(&length.to_le_bytes());
        encoded.extend_from_slice(self.id.as_bytes());
        encoded.extend_from_slice(&self.ciphertext);
        Ok(encoded)
    }

    fn decode(encoded: &[u8]) -> Option<Self> {
        let (length, rest) = encoded.split_first_chunk::<2>()?;
        let (id, ciphertext) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let id = std::str::from_utf8(id).ok()?;
        // Shown in messages before anything has authenticated it.
        let is_plain = id.len() <= 512 && id.chars().all(|c| c.is_ascii_graphic());
        is_plain.then(|| Self { id: id.to_owned(), ciphertext: ciphertext.to_vec() })
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
    use futures::executor::block_on;

    use super::file::FILE_PREFIX;
    use super::*;
    use crate::error::ErrorKind;

    fn key_of(root: &RootKey) -> [u8; 32] {
        *block_on(root.wrap("lake")).unwrap().1.expose()
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
        for reference in
            ["", "pasted-secret", "file:", "env:", "passphrase:file:x", "aws-kms:", "vault:key", "file:absent.key"]
        {
            let error = RootKey::read(reference, folder.path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{reference}");
            assert!(!format!("{error:?}").contains("pasted-secret"));
        }
    }

    #[test]
    fn passphrase_gives_the_same_key_for_the_same_salt_only() {
        let root = RootKey::from_passphrase("correct horse");
        let (wrapping, key) = block_on(root.wrap("lake")).unwrap();
        let unwrapped = |root: &RootKey| block_on(root.unwrap("lake", &wrapping)).unwrap();
        assert_eq!(unwrapped(&root).unwrap().expose(), key.expose());
        assert_ne!(&key_of(&root), key.expose());
        assert_ne!(unwrapped(&RootKey::from_passphrase("correct house")).unwrap().expose(), key.expose());
        assert!(unwrapped(&RootKey::from_bytes([1; 32])).is_none());
    }

    #[test]
    fn wrapped_key_decodes_to_itself_and_a_header_that_would_spoil_a_message_does_not() {
        let wrapped = WrappedKey { id: "arn:aws:kms:eu-west-1:1:key/k".to_owned(), ciphertext: vec![1, 2, 3] };
        assert_eq!(WrappedKey::decode(&wrapped.encode().unwrap()), Some(wrapped.clone()));
        let spoiled = WrappedKey { id: "a\u{1b}[31m".to_owned(), ..wrapped };
        assert_eq!(WrappedKey::decode(&spoiled.encode().unwrap()), None);
        for short in [&[][..], &[1], &[2, 0, b'a'], &[255, 255, b'a']] {
            assert_eq!(WrappedKey::decode(short), None);
        }
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
