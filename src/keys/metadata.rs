//! Key metadata of data files: PKMT1, the key material that the key tools of parquet-java and Arrow C++ read.
//!
//! ```json
//! {"keyMaterialType":"PKMT1","internalStorage":true,"isFooterKey":true,"kmsInstanceID":"DEFAULT",
//!  "kmsInstanceURL":"DEFAULT","masterKeyID":"ring-1","doubleWrapping":false,"wrappedDEK":"<base64>"}
//! ```
//!
//! `wrappedDEK` is the base64 of `nonce (12) | AES-256-GCM(master key, DEK) (32) | tag (16)` with the bytes of
//! `masterKeyID` as associated data: single wrapping, because the other engines' key-encryption keys of double wrapping
//! have 128 bits. Parquet does not authenticate key metadata, so that a file can be wrapped anew by rewriting its tail
//! alone; what binds a file to the lake is the pin in its manifest.
//!
//! A file with restricted columns has a key for every column, each with metadata of its own, in the encrypted footer: the same
//! with `"isFooterKey":false` and without `kmsInstanceID` and `kmsInstanceURL`. Restricted columns name a key of the restricted
//! ring (`restricted-1`), the others hold the file's own key under the ring.
//!
//! See the [Parquet encryption format](https://github.com/apache/parquet-format/blob/master/Encryption.md).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::keys::gcm;
use crate::keys::ring::KeyRing;
use crate::secret::SecretKey;

/// The longest key metadata that is parsed; ours have about 250 bytes.
const MAX_BYTES: usize = 4096;

/// A fresh data encryption key of one file.
#[derive(Debug)]
pub struct FileKey {
    /// The key.
    pub key: SecretKey,
    /// Its PKMT1 key metadata.
    pub metadata: Vec<u8>,
}

/// What a wrapped key opens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The footer, and every column of a file without restricted ones.
    Footer,
    /// A column of a file with restricted ones.
    Column,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyMaterial {
    #[serde(rename = "keyMaterialType")]
    kind: String,
    internal_storage: bool,
    is_footer_key: bool,
    #[serde(rename = "kmsInstanceID", default, skip_serializing_if = "Option::is_none")]
    kms_instance_id: Option<String>,
    #[serde(rename = "kmsInstanceURL", default, skip_serializing_if = "Option::is_none")]
    kms_instance_url: Option<String>,
    #[serde(rename = "masterKeyID")]
    master_key_id: String,
    double_wrapping: bool,
    #[serde(rename = "wrappedDEK")]
    wrapped_dek: String,
}

impl KeyRing {
    /// Makes a fresh file key and its key metadata, wrapped by the ring's primary key.
    ///
    /// # Errors
    ///
    /// [`Denied`](crate::error::ErrorKind::Denied) when the ring has no primary key.
    pub fn new_file_key(&self) -> Result<FileKey> {
        let key = gcm::random_key()?;
        let metadata = self.wrap(&key, Place::Footer)?;
        Ok(FileKey { key, metadata })
    }

    /// Makes a fresh key for the restricted columns of one file, wrapped by the primary key of the restricted ring.
    ///
    /// # Errors
    ///
    /// [`Denied`](crate::error::ErrorKind::Denied) without the restricted ring.
    pub fn new_restricted_key(&self) -> Result<FileKey> {
        let key = gcm::random_key()?;
        let metadata = self.restricted_ring()?.wrap(&key, Place::Column)?;
        Ok(FileKey { key, metadata })
    }

    /// Wraps a file's own key for the columns that are not restricted, where others are.
    ///
    /// # Errors
    ///
    /// [`Denied`](crate::error::ErrorKind::Denied) when the ring has no primary key.
    pub fn wrap_column_key(&self, key: &SecretKey) -> Result<Vec<u8>> {
        self.wrap(key, Place::Column)
    }

    /// Wraps the file key of key metadata anew by the ring's primary key; the file key stays the same.
    ///
    /// # Errors
    ///
    /// Those of [`open_file_key`](Self::open_file_key).
    pub fn rewrap_file_key(&self, metadata: &[u8]) -> Result<Vec<u8>> {
        self.wrap(&self.open_file_key(metadata)?, Place::Footer)
    }

    fn wrap(&self, key: &SecretKey, place: Place) -> Result<Vec<u8>> {
        let (id, master) = self.primary()?;
        let mut wrapped = Vec::new();
        gcm::seal_into(&mut wrapped, master, id.as_bytes(), key.expose())?;
        let instance = (place == Place::Footer).then(|| "DEFAULT".to_owned());
        let material = KeyMaterial {
            kind: "PKMT1".to_owned(),
            internal_storage: true,
            is_footer_key: place == Place::Footer,
            kms_instance_id: instance.clone(),
            kms_instance_url: instance,
            master_key_id: id,
            double_wrapping: false,
            wrapped_dek: STANDARD.encode(&wrapped),
        };
        serde_json::to_vec(&material)
            .map_err(|source| Error::internal("failed to write key metadata").with_source(source))
    }

    /// Unwraps the file key that PKMT1 key metadata hold.
    ///
    /// # Errors
    ///
    /// [`Denied`](crate::error::ErrorKind::Denied) when the ring does not have the master key that the metadata name, or has it
    /// disabled or destroyed; [`Data`](crate::error::ErrorKind::Data) when the metadata are damaged or of another format.
    pub fn open_file_key(&self, metadata: &[u8]) -> Result<SecretKey> {
        let material = parse(metadata)?;
        if !material.is_footer_key {
            return Err(unlike("isFooterKey"));
        }
        material.open(self.usable(&material.master_key_id)?)
    }

    /// Unwraps the key that PKMT1 key metadata of a footer or of a column hold, by the ring that has its master key.
    ///
    /// # Errors
    ///
    /// Those of [`open_file_key`](Self::open_file_key).
    pub fn open_any_key(&self, metadata: &[u8]) -> Result<SecretKey> {
        let material = parse(metadata)?;
        if material.is_footer_key {
            return material.open(self.usable(&material.master_key_id)?);
        }
        material.open(self.holder(&material.master_key_id)?.usable(&material.master_key_id)?)
    }
}

impl KeyMaterial {
    /// Unwraps the key by its master key.
    fn open(&self, master: &SecretKey) -> Result<SecretKey> {
        let material = self;
        let damaged = || {
            Error::data("key metadata do not unwrap under their master key")
                .with_context("key", &material.master_key_id)
                .with_hint("the file was damaged or tampered with: restore it")
        };
        let wrapped = STANDARD.decode(&material.wrapped_dek).map_err(|_| damaged())?;
        if wrapped.len() != 32 + gcm::OVERHEAD {
            return Err(damaged());
        }
        let plain = gcm::open(master, material.master_key_id.as_bytes(), &wrapped)?.ok_or_else(damaged)?;
        Ok(SecretKey::new(plain.as_slice().try_into().map_err(|_| damaged())?))
    }
}

/// Returns the id of the master key that key metadata name.
///
/// # Errors
///
/// [`Data`](crate::error::ErrorKind::Data) when the metadata are damaged or of another format.
pub fn master_key_id(metadata: &[u8]) -> Result<String> {
    parse(metadata).map(|material| material.master_key_id)
}

fn unlike(what: &'static str) -> Error {
    Error::data("key metadata are of a kind that is not written here").with_context("field", what)
}

fn parse(metadata: &[u8]) -> Result<KeyMaterial> {
    if metadata.len() > MAX_BYTES {
        return Err(Error::data("key metadata are too long").with_context("bytes", metadata.len()));
    }
    // The parser's message may repeat text of the file, so only its place is kept.
    let material: KeyMaterial = serde_json::from_slice(metadata).map_err(|cause| {
        Error::data("key metadata are not PKMT1")
            .with_context("line", cause.line())
            .with_context("column", cause.column())
    })?;
    let unlike = |what| Err(unlike(what));
    if material.kind != "PKMT1" {
        return unlike("keyMaterialType");
    }
    if !material.internal_storage {
        return unlike("internalStorage");
    }
    if material.double_wrapping {
        return unlike("doubleWrapping");
    }
    if material.master_key_id.len() > 64 || material.master_key_id.chars().any(|c| !c.is_ascii_graphic()) {
        return unlike("masterKeyID");
    }
    Ok(material)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use proptest::prelude::*;

    fn edited(metadata: &[u8], field: &str, value: serde_json::Value) -> Vec<u8> {
        let mut json: serde_json::Value = serde_json::from_slice(metadata).unwrap();
        json[field] = value;
        serde_json::to_vec(&json).unwrap()
    }

    #[test]
    fn file_key_unwraps_to_itself_and_has_the_documented_fields() {
        let ring = KeyRing::generate("lake", 0).unwrap();
        let file = ring.new_file_key().unwrap();
        assert_eq!(ring.open_file_key(&file.metadata).unwrap().expose(), file.key.expose());
        let json: serde_json::Value = serde_json::from_slice(&file.metadata).unwrap();
        let fields: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = [
            "keyMaterialType",
            "internalStorage",
            "isFooterKey",
            "kmsInstanceID",
            "kmsInstanceURL",
            "masterKeyID",
            "doubleWrapping",
            "wrappedDEK",
        ];
        expected.sort_unstable();
        assert!(fields.iter().all(|field| expected.contains(field)) && fields.len() == expected.len(), "{fields:?}");
        assert_eq!(json["masterKeyID"], "ring-1");
        assert_eq!(STANDARD.decode(json["wrappedDEK"].as_str().unwrap()).unwrap().len(), 60);
        assert_eq!(master_key_id(&file.metadata).unwrap(), "ring-1");
        assert_ne!(ring.new_file_key().unwrap().key.expose(), file.key.expose());
    }

    #[test]
    fn foreign_and_damaged_metadata_end_in_their_kinds() {
        let ring = KeyRing::generate("lake", 0).unwrap();
        let good = ring.new_file_key().unwrap().metadata;
        let foreign = KeyRing::generate("lake", 0).unwrap().new_file_key().unwrap().metadata;
        let cases = [
            ("master key of another ring", foreign, ErrorKind::Data),
            ("missing master key", edited(&good, "masterKeyID", "ring-9".into()), ErrorKind::Denied),
            ("double wrapping", edited(&good, "doubleWrapping", true.into()), ErrorKind::Data),
            ("external storage", edited(&good, "internalStorage", false.into()), ErrorKind::Data),
            ("column key", edited(&good, "isFooterKey", false.into()), ErrorKind::Data),
            ("type", edited(&good, "keyMaterialType", "PKMT2".into()), ErrorKind::Data),
            ("no base64", edited(&good, "wrappedDEK", "****".into()), ErrorKind::Data),
            ("short key", edited(&good, "wrappedDEK", STANDARD.encode([0; 44]).into()), ErrorKind::Data),
            ("line break in the id", edited(&good, "masterKeyID", "ring-1\nx".into()), ErrorKind::Data),
            ("no JSON", b"ring-1".to_vec(), ErrorKind::Data),
            ("empty", Vec::new(), ErrorKind::Data),
            ("long", vec![b' '; MAX_BYTES + 1], ErrorKind::Data),
        ];
        for (name, metadata, kind) in cases {
            assert_eq!(ring.open_file_key(&metadata).unwrap_err().kind(), kind, "{name}");
        }
        let error = ring.open_file_key(&edited(&good, "masterKeyID", "ring-9".into())).unwrap_err();
        assert!(error.to_string().contains("ring-9"), "{error}");
    }

    #[test]
    fn rewrapped_key_is_the_same_key_under_the_primary() {
        let old = KeyRing::generate("lake", 0).unwrap();
        let file = old.new_file_key().unwrap();
        let ring = old.rotate(1).unwrap();
        let metadata = ring.rewrap_file_key(&file.metadata).unwrap();
        assert_eq!(master_key_id(&metadata).unwrap(), "ring-2");
        let ring = ring.destroy("ring-1").unwrap();
        assert_eq!(ring.open_file_key(&metadata).unwrap().expose(), file.key.expose());
        assert_eq!(ring.open_file_key(&file.metadata).unwrap_err().kind(), ErrorKind::Denied);
    }

    proptest! {
        #[test]
        fn flipped_bit_never_gives_another_key(at in 0usize..260, bit in 0u8..8) {
            let ring = KeyRing::generate("lake", 0).unwrap();
            let file = ring.new_file_key().unwrap();
            let mut metadata = file.metadata.clone();
            let at = at % metadata.len();
            metadata[at] ^= 1 << bit;
            if let Ok(key) = ring.open_file_key(&metadata) {
                prop_assert_eq!(key.expose(), file.key.expose());
            }
        }
    }
}
