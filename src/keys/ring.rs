//! The key ring: the master keys and pseudonym keys of one lake, sealed by the root key.
//!
//! Sealed form, the object `keys/ring-N`; integers are little-endian:
//!
//! ```text
//! offset  size  content
//! 0       6     "CFRING"; of the restricted ring "CFRSTR"
//! 6       1     format version, 1
//! 7       1     kind of root key: 0 a key, 1 a passphrase through Argon2id, 2 AWS KMS, 3 Vault
//! 8       2     length P of the root key's parameters, u16
//! 10      P     parameters: kind 0 none; kind 1 the salt (16); kinds 2 and 3 the sealing key as the service wrapped it:
//!               length K of the id of the service's key, u16 | id, ASCII (K) | the service's ciphertext
//! 10+P    4     ring version, u32
//! 14+P    1     length L of the lake id
//! 15+P    L     lake id, UTF-8
//! 15+P+L  12    nonce
//! 27+P+L  n     AES-256-GCM ciphertext of the body
//! …       16    tag
//! ```
//!
//! Associated data: every byte before the nonce, so an older ring cannot stand in for a newer one, nor one lake's ring for
//! another's. The body:
//!
//! ```text
//! u16  number of master keys, each:
//!        u32 number (its id is `ring-<number>`) | u8 state: 0 primary, 1 enabled, 2 disabled, 3 destroyed
//!        i64 created, milliseconds since 1970 | 32 bytes of key, zeros once destroyed
//! u16  number of pseudonym keys, each:
//!        u32 version, 1 and up without a gap | i64 created, milliseconds since 1970 | 32 bytes of key
//! ```
//!
//! Pseudonym keys are never taken out: a pseudonym of one version is made from that of the version before (`policy/method.rs`),
//! so that the newest needs every key. Destroying a master key does not touch them. Which version is in force is said by the
//! lake's manifest; a key that is newer than that waits for the rewrite that brings it into force (`lake/pseudonyms.rs`).
//!
//! A reader refuses a format version that it does not know; a writer writes version 1 only. A ring object is written once
//! and never changed: a rotation makes the next ring version. The ring of the highest version is in force.
//!
//! The restricted ring, the object `keys/restricted-N`, is of the same form, sealed by a root key of its own; its keys are
//! called `restricted-<number>`, and it has no pseudonym keys. See [`restricted`].

mod operations;
mod restricted;

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::keys::gcm;
use crate::keys::root::{RootKey, Wrapping};
use crate::secret::{PseudonymKey, PseudonymKeys, SecretKey};

pub use restricted::{Right, Series};

const FORMAT: u8 = 1;

/// The lake's master keys. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KeyRing(Arc<Ring>);

#[derive(Debug)]
struct Ring {
    lake_id: String,
    version: u32,
    masters: Vec<Master>,
    pseudonyms: Vec<Pseudonym>,
    series: Series,
    /// The restricted ring, where this process has its root key.
    restricted: Option<KeyRing>,
}

#[derive(Debug)]
struct Master {
    series: Series,
    number: u32,
    state: KeyState,
    created_ms: i64,
    key: SecretKey,
}

#[derive(Debug)]
struct Pseudonym {
    created_ms: i64,
    key: Arc<PseudonymKey>,
}

/// What a master key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Encrypts and decrypts; the ring has one such key.
    Primary,
    /// Decrypts.
    Enabled,
    /// Is kept, and refused until it is enabled again.
    Disabled,
    /// Its bytes are gone, and with them what it protected.
    Destroyed,
}

impl KeyState {
    /// Returns the state's name as listings print it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::Destroyed => "destroyed",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Primary => 0,
            Self::Enabled => 1,
            Self::Disabled => 2,
            Self::Destroyed => 3,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Primary),
            1 => Some(Self::Enabled),
            2 => Some(Self::Disabled),
            3 => Some(Self::Destroyed),
            _ => None,
        }
    }
}

/// A master key as listings show it: no bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingKey {
    /// Id, `ring-1` or `restricted-1`.
    pub id: String,
    /// State.
    pub state: KeyState,
    /// When it was made, milliseconds since 1970.
    pub created_ms: i64,
}

/// A key of pseudonyms as listings show it: no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PseudonymVersion {
    /// Version, from 1.
    pub version: u32,
    /// When it was made, milliseconds since 1970.
    pub created_ms: i64,
}

impl Master {
    fn id(&self) -> String {
        format!("{}{}", self.series.prefix(), self.number)
    }
}

impl KeyRing {
    /// Makes a ring of one primary key and one pseudonym key for a new lake; `created_ms` is the time in milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the lake id is empty or longer than 255 bytes.
    pub fn generate(lake_id: &str, created_ms: i64) -> Result<Self> {
        let mut ring = Ring::generate(Series::Main, lake_id, created_ms)?;
        let key = Arc::new(PseudonymKey { version: 1, key: gcm::random_key()? });
        ring.pseudonyms.push(Pseudonym { created_ms, key });
        Ok(Self(Arc::new(ring)))
    }

    /// Wraps the ring by the root key: the bytes of `keys/ring-N`; associated data are the lake's id and the ring's version.
    ///
    /// A key service is asked once.
    ///
    /// # Errors
    ///
    /// Of a root key that a service keeps: [`Unavailable`](crate::error::ErrorKind::Unavailable) when the service does not answer,
    /// [`Denied`](crate::error::ErrorKind::Denied) when it refuses, [`Config`](crate::error::ErrorKind::Config) when it does not know the key.
    pub async fn seal(&self, root: &RootKey) -> Result<Vec<u8>> {
        let (wrapping, key) = root.wrap(self.lake_id()).await?;
        let too_long = || Error::internal("field of the key ring is too long").with_context("lake", self.lake_id());
        let mut sealed = Vec::new();
        sealed.extend_from_slice(self.0.series.magic());
        sealed.extend_from_slice(&[FORMAT, wrapping.kind]);
        sealed.extend_from_slice(&u16::try_from(wrapping.parameters.len()).map_err(|_| too_long())?.to_le_bytes());
        sealed.extend_from_slice(&wrapping.parameters);
        sealed.extend_from_slice(&self.version().to_le_bytes());
        sealed.push(u8::try_from(self.lake_id().len()).map_err(|_| too_long())?);
        sealed.extend_from_slice(self.lake_id().as_bytes());
        let header = sealed.clone();
        gcm::seal_into(&mut sealed, &key, &header, &self.0.write_body())?;
        Ok(sealed)
    }

    /// Opens the bytes of `keys/ring-N`.
    ///
    /// # Errors
    ///
    /// [`Denied`](crate::error::ErrorKind::Denied) when the root key is not the one that sealed the ring;
    /// [`Data`](crate::error::ErrorKind::Data) when the bytes are no ring, belong to another lake or version, or are of a newer format;
    /// those of [`seal`](Self::seal).
    pub async fn open(lake_id: &str, version: u32, bytes: &[u8], root: &RootKey) -> Result<Self> {
        Self::open_series(Series::Main, lake_id, version, bytes, root).await
    }

    /// Opens a ring of one of the two series.
    async fn open_series(series: Series, lake_id: &str, version: u32, bytes: &[u8], root: &RootKey) -> Result<Self> {
        let named = |error: Error| error.with_context("lake", lake_id).with_context("ring version", version);
        let damaged = || {
            named(Error::data("key ring is damaged"))
                .with_hint("restore the object under `keys/` from a backup of the lake")
        };
        let mut cursor = Cursor(bytes);
        if cursor.take(series.magic().len()) != Some(series.magic()) {
            return Err(damaged());
        }
        let format = cursor.u8().ok_or_else(damaged)?;
        if format != FORMAT {
            return Err(named(Error::data("key ring has a format that this version does not read"))
                .with_context("format", format)
                .with_context("known", FORMAT)
                .with_hint("upgrade counterfoil"));
        }
        let kind = cursor.u8().ok_or_else(damaged)?;
        let parameters_length = cursor.u16().ok_or_else(damaged)?;
        let parameters = cursor.take(usize::from(parameters_length)).ok_or_else(damaged)?.to_vec();
        let found_version = cursor.u32().ok_or_else(damaged)?;
        let id_length = cursor.u8().ok_or_else(damaged)?;
        let found_lake = cursor.take(usize::from(id_length)).ok_or_else(damaged)?;
        if found_lake != lake_id.as_bytes() {
            return Err(named(Error::data("key ring belongs to another lake"))
                .with_context("found", String::from_utf8_lossy(found_lake).escape_debug())
                .with_hint("two lakes were mixed up in one root: restore `lake.json` and `keys/` of the same lake"));
        }
        if found_version != version {
            return Err(named(Error::data("key ring has another version than its name says"))
                .with_context("found", found_version)
                .with_hint("restore the object under `keys/` from a backup of the lake"));
        }
        let sealed = cursor.0;
        if sealed.len() < gcm::OVERHEAD {
            return Err(damaged());
        }
        let wrapping = Wrapping { kind, parameters };
        let denied = || {
            named(Error::denied("root key does not open the key ring"))
                .with_context("root", root.reference())
                .with_context("sealed by", wrapping.scheme())
                .with_hint(format!(
                    "set `{}` to the root key that this ring was sealed with (after `keys rewrap --root`, the new one), \
                     or restore the ring if it was damaged",
                    series.setting()
                ))
        };
        let key = root.unwrap(lake_id, &wrapping).await.map_err(named)?.ok_or_else(denied)?;
        let header = &bytes[..bytes.len() - sealed.len()];
        let body = gcm::open(&key, header, sealed)?.ok_or_else(denied)?;
        Ring::read_body(series, lake_id, version, &body).map(|ring| Self(Arc::new(ring))).ok_or_else(damaged)
    }

    /// Returns the id of the lake that the ring belongs to.
    pub fn lake_id(&self) -> &str {
        &self.0.lake_id
    }

    /// Returns the ring's version, from 1.
    pub fn version(&self) -> u32 {
        self.0.version
    }

    /// Lists the master keys, oldest first.
    pub fn keys(&self) -> Vec<RingKey> {
        self.0
            .masters
            .iter()
            .map(|master| RingKey { id: master.id(), state: master.state, created_ms: master.created_ms })
            .collect()
    }

    /// Lists the keys of pseudonyms, of version 1 first.
    pub fn pseudonym_versions(&self) -> Vec<PseudonymVersion> {
        let keys = self.0.pseudonyms.iter();
        keys.map(|Pseudonym { created_ms, key }| PseudonymVersion { version: key.version, created_ms: *created_ms })
            .collect()
    }

    /// Returns the keys that make the pseudonyms of a version: those of all versions up to it.
    ///
    /// # Errors
    ///
    /// [`Denied`](crate::error::ErrorKind::Denied) when the ring does not have one of them.
    pub fn pseudonym_keys(&self, version: u32) -> Result<PseudonymKeys> {
        let newest = self.0.pseudonyms.last().map_or(0, |pseudonym| pseudonym.key.version);
        if version == 0 || version > newest {
            return Err(Error::denied("key ring does not have the key of these pseudonyms")
                .with_context("version of pseudonyms", version)
                .with_context("newest known", newest)
                .with_context("lake", self.lake_id())
                .with_context("ring version", self.version())
                .with_hint(
                    "pseudonyms were rotated since this process started: start it again; if that does not help, restore \
                     `keys/` from a backup",
                ));
        }
        let keys = self.0.pseudonyms.iter().map(|pseudonym| Arc::clone(&pseudonym.key));
        PseudonymKeys::try_new(keys.filter(|key| key.version <= version))
    }

    /// Returns a copy of a master key, for an engine that is to read the lake's files by itself.
    ///
    /// Whoever holds it reads every file that it wrapped, so the caller warns first.
    ///
    /// # Errors
    ///
    /// [`Denied`](crate::error::ErrorKind::Denied) when the ring does not have the key, or has it disabled or destroyed.
    pub fn export(&self, id: &str) -> Result<SecretKey> {
        Ok(SecretKey::new(*self.holder(id)?.usable(id)?.expose()))
    }

    /// Returns the id of the key that encrypts.
    ///
    /// # Errors
    ///
    /// [`Denied`](crate::error::ErrorKind::Denied) when the ring has no primary key.
    pub fn primary_id(&self) -> Result<String> {
        self.primary().map(|(id, _)| id)
    }

    /// Returns the key that encrypts, and its id.
    pub(super) fn primary(&self) -> Result<(String, &SecretKey)> {
        self.0
            .masters
            .iter()
            .find(|master| master.state == KeyState::Primary)
            .map(|master| (master.id(), &master.key))
            .ok_or_else(|| {
                Error::denied("key ring has no primary key")
                    .with_context("lake", self.lake_id())
                    .with_context("ring version", self.version())
            })
    }

    /// Returns a key that decrypts.
    pub(super) fn usable(&self, id: &str) -> Result<&SecretKey> {
        let master = self.0.masters.iter().find(|master| master.id() == id);
        let refused = |message: &str, hint: &str| {
            Err(Error::denied(message)
                .with_context("key", id)
                .with_context("lake", self.lake_id())
                .with_context("ring version", self.version())
                .with_hint(hint))
        };
        match master {
            None if self.is_newer(id) => refused(
                "object is encrypted under a key that is newer than the key ring in use",
                "keys were rotated since this process started: start it again; if that does not help, restore `keys/` from a backup",
            ),
            None => refused("key ring does not have the key", "restore the lake's `keys/` from a backup"),
            Some(Master { state: KeyState::Disabled, .. }) => {
                refused("ring key is disabled", "`counterfoil keys enable` it again to read what it wraps")
            }
            Some(Master { state: KeyState::Destroyed, .. }) => {
                refused("ring key was destroyed", "what it protected cannot be read any more")
            }
            Some(Master { state: KeyState::Primary | KeyState::Enabled, key, .. }) => Ok(key),
        }
    }

    /// Tells whether an id is one that a later rotation gives.
    fn is_newer(&self, id: &str) -> bool {
        let number = id.strip_prefix(self.0.series.prefix()).and_then(|digits| digits.parse::<u32>().ok());
        number.is_some_and(|number| self.0.masters.iter().all(|master| master.number < number))
    }
}

impl Ring {
    /// Makes a ring of one primary key.
    fn generate(series: Series, lake_id: &str, created_ms: i64) -> Result<Self> {
        if lake_id.is_empty() || lake_id.len() > usize::from(u8::MAX) {
            return Err(Error::config("lake id must have 1 to 255 bytes").with_context("bytes", lake_id.len()));
        }
        let master = Master { series, number: 1, state: KeyState::Primary, created_ms, key: gcm::random_key()? };
        let (masters, pseudonyms) = (vec![master], Vec::new());
        Ok(Self { lake_id: lake_id.to_owned(), version: 1, masters, pseudonyms, series, restricted: None })
    }

    fn write_body(&self) -> Zeroizing<Vec<u8>> {
        // Room for everything at once: a vector that grows would leave key bytes behind.
        let size = 4 + self.masters.len() * 45 + self.pseudonyms.len() * 44;
        let mut body = Zeroizing::new(Vec::with_capacity(size));
        body.extend_from_slice(&(self.masters.len() as u16).to_le_bytes());
        for master in &self.masters {
            body.extend_from_slice(&master.number.to_le_bytes());
            body.push(master.state.code());
            body.extend_from_slice(&master.created_ms.to_le_bytes());
            body.extend_from_slice(match master.state {
                KeyState::Destroyed => &[0; 32],
                _ => master.key.expose(),
            });
        }
        body.extend_from_slice(&(self.pseudonyms.len() as u16).to_le_bytes());
        for pseudonym in &self.pseudonyms {
            body.extend_from_slice(&pseudonym.key.version.to_le_bytes());
            body.extend_from_slice(&pseudonym.created_ms.to_le_bytes());
            body.extend_from_slice(pseudonym.key.key.expose());
        }
        body
    }

    fn read_body(series: Series, lake_id: &str, version: u32, body: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(body);
        let masters = (0..cursor.u16()?)
            .map(|_| {
                Some(Master {
                    series,
                    number: cursor.u32()?,
                    state: KeyState::from_code(cursor.u8()?)?,
                    created_ms: cursor.i64()?,
                    key: cursor.key()?,
                })
            })
            .collect::<Option<Vec<_>>>()?;
        let pseudonyms = (0..cursor.u16()?)
            .map(|_| {
                let version = cursor.u32()?;
                let created_ms = cursor.i64()?;
                Some(Pseudonym { created_ms, key: Arc::new(PseudonymKey { version, key: cursor.key()? }) })
            })
            .collect::<Option<Vec<_>>>()?;
        let in_order = (1..).zip(&pseudonyms).all(|(version, pseudonym)| pseudonym.key.version == version);
        (in_order && cursor.0.is_empty()).then(|| Self {
            lake_id: lake_id.to_owned(),
            version,
            masters,
            pseudonyms,
            series,
            restricted: None,
        })
    }
}

/// The rest of a byte text that is read from its front.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn key(&mut self) -> Option<SecretKey> {
        self.array().map(SecretKey::new)
    }
}

#[cfg(test)]
impl KeyRing {
    /// Copies the ring under another lake's id.
    pub(super) fn with_lake_id(&self, lake_id: &str) -> Self {
        let body = self.0.write_body();
        Self(Arc::new(Ring::read_body(self.0.series, lake_id, self.version(), &body).unwrap()))
    }

    /// Adds a primary key and gives the present one another state.
    fn rotated(&self, old: KeyState) -> Self {
        let series = self.0.series;
        let mut ring = Ring::read_body(series, self.lake_id(), self.version() + 1, &self.0.write_body()).unwrap();
        let number = ring.masters.len() as u32 + 1;
        ring.masters.iter_mut().for_each(|master| master.state = old);
        let key = gcm::random_key().unwrap();
        ring.masters.push(Master { series, number, state: KeyState::Primary, created_ms: 5, key });
        Self(Arc::new(ring))
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use futures::executor::block_on;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn sealed_ring_opens_to_the_same_keys() {
        for root in [RootKey::from_bytes([3; 32]), RootKey::from_passphrase("correct horse")] {
            let ring = KeyRing::generate("lake-a", 1_700_000_000_123).unwrap().rotated(KeyState::Enabled);
            let sealed = block_on(ring.seal(&root)).unwrap();
            let opened = block_on(KeyRing::open("lake-a", 2, &sealed, &root)).unwrap();
            assert_eq!(opened.keys(), ring.keys());
            assert_eq!(opened.keys()[0].created_ms, 1_700_000_000_123);
            assert_eq!((opened.lake_id(), opened.version()), ("lake-a", 2));
            for key in ring.keys() {
                assert_eq!(opened.export(&key.id).unwrap().expose(), ring.export(&key.id).unwrap().expose());
            }
            assert_eq!(opened.pseudonym_versions(), ring.pseudonym_versions());
            let (before, after) = (ring.pseudonym_keys(1).unwrap(), opened.pseudonym_keys(1).unwrap());
            assert_eq!(before.keys()[0].key.expose(), after.keys()[0].key.expose());
        }
    }

    #[test]
    fn wrong_root_key_is_denied_and_names_lake_and_version() {
        let ring = KeyRing::generate("lake-a", 0).unwrap();
        let sealed = block_on(ring.seal(&RootKey::from_bytes([3; 32]))).unwrap();
        for wrong in [RootKey::from_bytes([4; 32]), RootKey::from_passphrase("x")] {
            let error = block_on(KeyRing::open("lake-a", 1, &sealed, &wrong)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied);
            let text = error.to_string();
            assert!(text.contains("lake-a") && text.contains("ring version: 1"), "{text}");
        }
    }

    #[test]
    fn ring_of_another_lake_version_or_format_is_a_data_error() {
        let root = RootKey::from_bytes([3; 32]);
        let sealed = block_on(KeyRing::generate("lake-a", 0).unwrap().seal(&root)).unwrap();
        assert_eq!(block_on(KeyRing::open("lake-b", 1, &sealed, &root)).unwrap_err().kind(), ErrorKind::Data);
        assert_eq!(block_on(KeyRing::open("lake-a", 2, &sealed, &root)).unwrap_err().kind(), ErrorKind::Data);
        let mut newer = sealed;
        newer[6] = 2;
        let error = block_on(KeyRing::open("lake-a", 1, &newer, &root)).unwrap_err();
        assert_eq!((error.kind(), error.hint()), (ErrorKind::Data, Some("upgrade counterfoil")));
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_refused() {
        let root = RootKey::from_bytes([3; 32]);
        let sealed = block_on(KeyRing::generate("lake-a", 0).unwrap().seal(&root)).unwrap();
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 0x10;
            for bytes in [&flipped[..], &sealed[..at]] {
                let kind = block_on(KeyRing::open("lake-a", 1, bytes, &root)).unwrap_err().kind();
                assert!(matches!(kind, ErrorKind::Data | ErrorKind::Denied), "byte {at}");
            }
        }
        // A header that claims the other lake's id, or the next version, is authenticated: the seal does not open.
        let mut renamed = sealed.clone();
        renamed[10] = 2;
        assert_eq!(block_on(KeyRing::open("lake-a", 2, &renamed, &root)).unwrap_err().kind(), ErrorKind::Denied);
        let mut moved = sealed;
        let at = moved.windows(6).position(|window| window == b"lake-a").unwrap();
        moved[at + 5] = b'b';
        assert_eq!(block_on(KeyRing::open("lake-b", 1, &moved, &root)).unwrap_err().kind(), ErrorKind::Denied);
    }

    #[test]
    fn key_state_decides_what_can_be_read() {
        let ring = KeyRing::generate("lake-a", 0).unwrap();
        let old = ring.new_file_key().unwrap();
        for (state, reads) in [(KeyState::Enabled, true), (KeyState::Disabled, false), (KeyState::Destroyed, false)] {
            let rotated = ring.rotated(state);
            let read = rotated.open_file_key(&old.metadata);
            assert_eq!(read.is_ok(), reads, "{}", state.name());
            if let Err(error) = read {
                assert_eq!(error.kind(), ErrorKind::Denied);
                assert!(error.to_string().contains("ring-1"), "{error}");
            }
            let fresh = rotated.new_file_key().unwrap();
            assert_eq!(crate::keys::metadata::master_key_id(&fresh.metadata).unwrap(), "ring-2");
            assert_eq!(rotated.export("ring-1").is_ok(), reads);
        }
    }

    #[test]
    fn destroyed_key_leaves_no_bytes_in_the_sealed_body() {
        let ring = KeyRing::generate("lake-a", 0).unwrap();
        let bytes = *ring.export("ring-1").unwrap().expose();
        let body = ring.rotated(KeyState::Destroyed).0.write_body();
        assert!(!body.windows(32).any(|window| window == bytes));
    }

    /// A ring, an object and key metadata as the first release wrote them: every later one must open them.
    #[test]
    fn what_version_1_wrote_still_opens() {
        const RING: &str = "Q0ZSSU5HAQAAAAEAAAAGbGFrZS1h6JbPZ6ZEKoiv8N1lNoafl07+W0rBRK23NkVU6+WE9pHInXFrcrG+4ZOovYNaK0YfbgpQ\
            aFZDxXoreU2VwbuOPijUC5rYoHT++9wFB+joj7ffA/Ifyo5dVZs/ztOHn8MjHjvOKsVsMsPjRq3fCtg1fUpMioJ8d17nZQ==";
        const OBJECT: &str = "Q0ZPQkoBBnJpbmctMVPMAVOGZO6jElMGy/vmd8kbiBgckBxujXH8uq+/iG06w4X4tMw/";
        const METADATA: &str = r#"{"keyMaterialType":"PKMT1","internalStorage":true,"isFooterKey":true,"kmsInstanceID":"DEFAULT","kmsInstanceURL":"DEFAULT","masterKeyID":"ring-1","doubleWrapping":false,"wrappedDEK":"/RAAXH1z98utobbBbaq0qpqAHQN5FXcYANVehMZ2FmPsvvzARzEr9H1upa7LFjRLMVnff6B2PorlZS67"}"#;
        const FILE_KEY: &str = "+xxjIuQ6FTyWyoYlDMZWBLHCOpSibfvanQlwLBKwCX8=";
        let bytes = |text: &str| STANDARD.decode(text).unwrap();
        let ring = block_on(KeyRing::open("lake-a", 1, &bytes(RING), &RootKey::from_bytes([3; 32]))).unwrap();
        let expected = RingKey { id: "ring-1".to_owned(), state: KeyState::Primary, created_ms: 1_700_000_000_123 };
        assert_eq!(ring.keys(), [expected]);
        assert_eq!(ring.pseudonym_keys(1).unwrap().version(), 1);
        assert_eq!(ring.open_object("commit/7", &bytes(OBJECT)).unwrap(), b"plain text");
        assert_eq!(STANDARD.encode(ring.open_file_key(METADATA.as_bytes()).unwrap().expose()), FILE_KEY);
    }

    #[test]
    fn debug_shows_no_key() {
        let ring = KeyRing::generate("lake-a", 0).unwrap();
        let text = format!("{ring:?}{:?}", ring.new_file_key().unwrap().key);
        assert!(text.contains("[redacted]"));
        let shown: Vec<String> = ring.export("ring-1").unwrap().expose().iter().map(u8::to_string).collect();
        assert!(!text.contains(&shown.join(", ")));
    }
}
