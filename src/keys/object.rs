//! Sealed objects: commits and snapshots, encrypted under a master key of the ring.
//!
//! ```text
//! offset  size  content
//! 0       5     "CFOBJ"
//! 5       1     format version, 1
//! 6       1     length K of the master key's id
//! 7       K     master key's id, UTF-8
//! 7+K     12    nonce
//! 19+K    n     AES-256-GCM ciphertext
//! …       16    tag
//! ```
//!
//! Associated data: the bytes before the nonce, the lake id's length (u32, little-endian), the lake id, the purpose. The
//! purpose (`commit/7`) is not stored: an object that is moved to another name, or into another lake, does not open.
//! A reader refuses a version that it does not know; a writer writes version 1 only.

use crate::error::{Error, Result};
use crate::keys::gcm;
use crate::keys::ring::KeyRing;

const MAGIC: &[u8; 5] = b"CFOBJ";
const VERSION: u8 = 1;

/// Bytes from an object's start that hold its header, whatever the key's id.
pub const OBJECT_HEADER_BYTES: u64 = 7 + 255;

impl KeyRing {
    /// Encrypts one object of the lake (a commit, a snapshot) under the primary key; `purpose` (e.g. `commit/7`) is authenticated.
    ///
    /// # Errors
    ///
    /// [`Denied`](crate::error::ErrorKind::Denied) when the ring has no primary key.
    pub fn seal_object(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>> {
        let (id, key) = self.primary()?;
        let id_length = u8::try_from(id.len())
            .map_err(|_| Error::internal("id of a ring key is too long").with_context("key", &id))?;
        let mut sealed = Vec::with_capacity(7 + id.len() + plain.len() + gcm::OVERHEAD);
        sealed.extend_from_slice(MAGIC);
        sealed.extend_from_slice(&[VERSION, id_length]);
        sealed.extend_from_slice(id.as_bytes());
        let aad = associated(&sealed, self.lake_id(), purpose);
        gcm::seal_into(&mut sealed, key, &aad, plain)?;
        Ok(sealed)
    }

    /// Opens what [`seal_object`](Self::seal_object) made for the same purpose in the same lake.
    ///
    /// # Errors
    ///
    /// [`Data`](crate::error::ErrorKind::Data) when the bytes are damaged, belong elsewhere or are of a newer format;
    /// [`Denied`](crate::error::ErrorKind::Denied) when the ring does not have the key that they name.
    pub fn open_object(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>> {
        let damaged = || {
            Error::data("object of the lake is damaged or was tampered with")
                .with_context("object", purpose)
                .with_context("lake", self.lake_id())
                .with_hint("restore it from a backup of the lake")
        };
        let rest = sealed.strip_prefix(MAGIC).ok_or_else(damaged)?;
        let (&[version, id_length], rest) = rest.split_first_chunk::<2>().ok_or_else(damaged)?;
        if version != VERSION {
            return Err(Error::data("object of the lake has a format that this version does not read")
                .with_context("object", purpose)
                .with_context("format", version)
                .with_context("known", VERSION)
                .with_hint("upgrade counterfoil"));
        }
        let (id, body) = rest.split_at_checked(usize::from(id_length)).ok_or_else(damaged)?;
        let id =
            std::str::from_utf8(id).ok().filter(|id| id.chars().all(|c| c.is_ascii_graphic())).ok_or_else(damaged)?;
        let key = self.usable(id).map_err(|error| error.with_context("object", purpose))?;
        let header = &sealed[..sealed.len() - body.len()];
        let mut plain = gcm::open(key, &associated(header, self.lake_id(), purpose), body)?.ok_or_else(damaged)?;
        Ok(std::mem::take(&mut *plain))
    }
}

/// Returns the id of the master key that sealed an object, from its first [`OBJECT_HEADER_BYTES`] bytes; `None` for what is no
/// sealed object.
#[must_use]
pub fn object_key_id(start: &[u8]) -> Option<String> {
    let rest = start.strip_prefix(MAGIC)?;
    let (&[version, id_length], rest) = rest.split_first_chunk::<2>()?;
    let id = std::str::from_utf8(rest.get(..usize::from(id_length))?).ok()?;
    (version == VERSION && id.chars().all(|c| c.is_ascii_graphic())).then(|| id.to_owned())
}

fn associated(header: &[u8], lake_id: &str, purpose: &str) -> Vec<u8> {
    let mut aad = Vec::with_capacity(header.len() + 4 + lake_id.len() + purpose.len());
    aad.extend_from_slice(header);
    aad.extend_from_slice(&(lake_id.len() as u32).to_le_bytes());
    aad.extend_from_slice(lake_id.as_bytes());
    aad.extend_from_slice(purpose.as_bytes());
    aad
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn object_opens_for_its_purpose_in_its_lake_only() {
        let ring = KeyRing::generate("lake", 0).unwrap();
        let long = vec![7; 100_000];
        for plain in [&b""[..], b"x", &long] {
            let sealed = ring.seal_object("commit/7", plain).unwrap();
            assert_eq!(object_key_id(&sealed[..13]).as_deref(), Some("ring-1"));
            assert_eq!(object_key_id(&sealed[..12]), None);
            assert_eq!(ring.open_object("commit/7", &sealed).unwrap(), plain);
            let error = ring.open_object("commit/8", &sealed).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
            assert!(error.to_string().contains("commit/8"), "{error}");
            let elsewhere = ring.with_lake_id("other");
            assert_eq!(elsewhere.open_object("commit/7", &sealed).unwrap_err().kind(), ErrorKind::Data);
            let foreign = KeyRing::generate("lake", 0).unwrap();
            assert_eq!(foreign.open_object("commit/7", &sealed).unwrap_err().kind(), ErrorKind::Data);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let ring = KeyRing::generate("lake", 0).unwrap();
        let sealed = ring.seal_object("commit/1", b"plain text").unwrap();
        for at in 0..sealed.len() {
            let error = ring.open_object("commit/1", &sealed[..at]).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Data | ErrorKind::Denied), "cut to {at}: {error}");
            for bit in 0..8 {
                let mut flipped = sealed.clone();
                flipped[at] ^= 1 << bit;
                let error = ring.open_object("commit/1", &flipped).unwrap_err();
                // A flip in the key's id or its length names a key that the ring does not have.
                let denied = error.kind() == ErrorKind::Denied && (6..13).contains(&at);
                assert!(error.kind() == ErrorKind::Data || denied, "bit {bit} of byte {at}: {error}");
            }
        }
        let mut newer = sealed;
        newer[5] = 2;
        let error = ring.open_object("commit/1", &newer).unwrap_err();
        assert_eq!((error.kind(), error.hint()), (ErrorKind::Data, Some("upgrade counterfoil")));
    }

    #[test]
    fn sealed_bytes_do_not_show_the_plain_text() {
        let ring = KeyRing::generate("lake", 0).unwrap();
        let sealed = ring.seal_object("commit/1", b"needle in the haystack").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"needle"));
        assert_ne!(sealed, ring.seal_object("commit/1", b"needle in the haystack").unwrap());
    }
}
