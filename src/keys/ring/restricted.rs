//! The restricted ring: the second ring of a lake, whose keys open the columns that a policy restricts.
//!
//! ```text
//! keys.root ───────▶ keys/ring-N        ring-1, …        every file; every column that is not restricted
//! keys.restricted ─▶ keys/restricted-N  restricted-1, …  the restricted columns, a fresh key for each file
//! ```
//!
//! It is an option of the ring: a process without its root key opens the lake and lacks the right to those columns. That is
//! told apart from a key that cannot be looked up ([`KeyRing::right`]): who has the restricted ring and misses a key of it
//! is told so by an error, and is not shown a column without values.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::keys::ring::{KeyRing, KeyState, Ring};
use crate::keys::root::RootKey;

/// Which of the two rings of a lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Series {
    /// The ring that opens the lake.
    Main,
    /// The ring that opens restricted columns.
    Restricted,
}

impl Series {
    /// Returns how the ids of its keys begin, and the names of its objects.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Main => "ring-",
            Self::Restricted => "restricted-",
        }
    }

    /// Returns the setting that names its root key.
    #[must_use]
    pub const fn setting(self) -> &'static str {
        match self {
            Self::Main => "keys.root",
            Self::Restricted => "keys.restricted",
        }
    }

    /// Tells to which ring the id of a key belongs.
    #[must_use]
    pub fn of(id: &str) -> Self {
        if id.starts_with(Self::Restricted.prefix()) { Self::Restricted } else { Self::Main }
    }

    pub(super) const fn magic(self) -> &'static [u8] {
        match self {
            Self::Main => b"CFRING",
            Self::Restricted => b"CFRSTR",
        }
    }
}

/// What a process may do with what a key of the restricted ring protects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Read it. A key that the ring should have and has not is found when it is looked up, and ends in an error.
    Held,
    /// Nothing: the ring was not opened, or the key is disabled.
    Missing,
    /// Nothing any more: the key was destroyed.
    Destroyed,
}

impl KeyRing {
    /// Makes a restricted ring of one primary key; `created_ms` is the time in milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// Those of [`generate`](Self::generate).
    pub fn generate_restricted(lake_id: &str, created_ms: i64) -> Result<Self> {
        Ok(Self(Arc::new(Ring::generate(Series::Restricted, lake_id, created_ms)?)))
    }

    /// Opens the bytes of `keys/restricted-N`.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub async fn open_restricted(lake_id: &str, version: u32, bytes: &[u8], root: &RootKey) -> Result<Self> {
        Self::open_series(Series::Restricted, lake_id, version, bytes, root).await
    }

    /// Opens a ring of the series of this one.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub async fn open_again(&self, bytes: &[u8], root: &RootKey) -> Result<Self> {
        Self::open_series(self.series(), self.lake_id(), self.version(), bytes, root).await
    }

    /// Returns which of the two rings this is.
    pub fn series(&self) -> Series {
        self.0.series
    }

    /// Returns this ring with the restricted one beside it.
    ///
    /// # Errors
    ///
    /// [`Internal`](crate::error::ErrorKind::Internal) when they are not the two rings of one lake.
    pub fn with_restricted(&self, restricted: &Self) -> Result<Self> {
        let failed = || Error::internal("rings do not belong together").with_context("lake", self.lake_id());
        if self.series() != Series::Main
            || restricted.series() != Series::Restricted
            || self.lake_id() != restricted.lake_id()
        {
            return Err(failed());
        }
        let copied = Ring::read_body(self.0.series, self.lake_id(), self.version(), &self.0.write_body());
        Ok(Self(Arc::new(Ring { restricted: Some(restricted.clone()), ..copied.ok_or_else(failed)? })))
    }

    /// Returns the restricted ring, where this process has opened it.
    pub fn restricted(&self) -> Option<&Self> {
        self.0.restricted.as_ref()
    }

    /// Returns the restricted ring.
    ///
    /// # Errors
    ///
    /// [`Denied`](crate::error::ErrorKind::Denied) when this process has not opened it.
    pub fn restricted_ring(&self) -> Result<&Self> {
        self.restricted().ok_or_else(|| {
            Error::denied("restricted columns need the second key ring, which this process has not opened")
                .with_context("lake", self.lake_id())
                .with_hint(
                    "set `keys.restricted` to its root key; `counterfoil keys init --restricted` makes a ring where there is none",
                )
        })
    }

    /// Returns the ring to which the id of a key belongs.
    ///
    /// # Errors
    ///
    /// Those of [`restricted_ring`](Self::restricted_ring).
    pub fn holder(&self, id: &str) -> Result<&Self> {
        match Series::of(id) {
            series if series == self.series() => Ok(self),
            Series::Main => Ok(self),
            Series::Restricted => self.restricted_ring().map_err(|error| error.with_context("key", id)),
        }
    }

    /// Tells what this process may do with what a key of the restricted ring protects.
    pub fn right(&self, id: &str) -> Right {
        let Some(ring) = self.restricted() else { return Right::Missing };
        match ring.0.masters.iter().find(|master| master.id() == id).map(|master| master.state) {
            Some(KeyState::Destroyed) => Right::Destroyed,
            Some(KeyState::Disabled) => Right::Missing,
            Some(KeyState::Primary | KeyState::Enabled) | None => Right::Held,
        }
    }

    /// Refuses a process that may not read what a key of the restricted ring protects; what a destroyed key protected is
    /// nobody's any more, and is not refused.
    ///
    /// # Errors
    ///
    /// [`Denied`](crate::error::ErrorKind::Denied) naming the key.
    pub fn check_right(&self, id: &str) -> Result<()> {
        match self.right(id) {
            Right::Missing => self.holder(id)?.usable(id).map(drop),
            Right::Held | Right::Destroyed => Ok(()),
        }
    }

    /// Turns a digest of values, some of them restricted, into one that tells nothing of them without the restricted ring.
    ///
    /// # Errors
    ///
    /// Those of [`restricted_ring`](Self::restricted_ring).
    pub fn blinded(&self, digest: &[u8; 32]) -> Result<[u8; 32]> {
        let (_, key) = self.restricted_ring()?.primary()?;
        let key = ::ring::hmac::Key::new(::ring::hmac::HMAC_SHA256, key.expose());
        let mut message = b"content of a table\0".to_vec();
        message.extend_from_slice(digest);
        let mut blinded = [0; 32];
        blinded.copy_from_slice(::ring::hmac::sign(&key, &message).as_ref());
        Ok(blinded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::keys::metadata::master_key_id;

    fn root(folder: &std::path::Path, name: &str) -> RootKey {
        RootKey::create_file(&folder.join(name)).unwrap();
        RootKey::read(&format!("file:{name}"), folder).unwrap()
    }

    fn both() -> KeyRing {
        let main = KeyRing::generate("lake", 0).unwrap();
        main.with_restricted(&KeyRing::generate_restricted("lake", 0).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn restricted_ring_opens_with_its_root_key_in_its_lake_and_place_only() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (root(folder.path(), "one"), root(folder.path(), "other"));
        let ring = KeyRing::generate_restricted("lake", 7).unwrap();
        let sealed = ring.seal(&one).await.unwrap();
        let opened = KeyRing::open_restricted("lake", 1, &sealed, &one).await.unwrap();
        assert_eq!(opened.keys(), ring.keys());
        assert_eq!((opened.keys()[0].id.as_str(), opened.series()), ("restricted-1", Series::Restricted));
        let wrong = KeyRing::open_restricted("lake", 1, &sealed, &other).await.unwrap_err();
        assert_eq!(wrong.kind(), ErrorKind::Denied);
        assert!(wrong.hint().unwrap().contains("keys.restricted"), "{:?}", wrong.hint());
        let elsewhere = KeyRing::open_restricted("other", 1, &sealed, &one).await.unwrap_err();
        assert_eq!(elsewhere.kind(), ErrorKind::Data);
        let as_main = KeyRing::open("lake", 1, &sealed, &one).await.unwrap_err();
        assert_eq!(as_main.kind(), ErrorKind::Data, "one ring does not stand in for the other");
        let main = KeyRing::generate("lake", 0).unwrap().seal(&one).await.unwrap();
        assert_eq!(KeyRing::open_restricted("lake", 1, &main, &one).await.unwrap_err().kind(), ErrorKind::Data);
    }

    #[test]
    fn column_keys_open_by_the_ring_that_wrapped_them() {
        let ring = both();
        let file = ring.new_file_key().unwrap();
        let column = ring.wrap_column_key(&file.key).unwrap();
        let restricted = ring.new_restricted_key().unwrap();
        assert_eq!(master_key_id(&column).unwrap(), "ring-1");
        assert_eq!(master_key_id(&restricted.metadata).unwrap(), "restricted-1");
        for (metadata, key) in
            [(&file.metadata, &file.key), (&column, &file.key), (&restricted.metadata, &restricted.key)]
        {
            assert_eq!(ring.open_any_key(metadata).unwrap().expose(), key.expose());
        }
        for metadata in [&column, &restricted.metadata] {
            let text: serde_json::Value = serde_json::from_slice(metadata).unwrap();
            assert_eq!(text["isFooterKey"], false);
            assert!(text.get("kmsInstanceID").is_none() && text.get("kmsInstanceURL").is_none(), "{text}");
            assert_eq!(ring.open_file_key(metadata).unwrap_err().kind(), ErrorKind::Data, "no footer's");
        }
        let without = KeyRing::generate("lake", 0).unwrap();
        let error = without.open_any_key(&restricted.metadata).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains("restricted-1"), "{error}");
        assert_eq!(without.new_restricted_key().unwrap_err().kind(), ErrorKind::Denied);
    }

    #[test]
    fn right_tells_no_ring_from_a_lost_key_and_from_a_destroyed_one() {
        let main = KeyRing::generate("lake", 0).unwrap();
        assert_eq!(main.right("restricted-1"), Right::Missing);
        let restricted = KeyRing::generate_restricted("lake", 0).unwrap().rotate(0).unwrap();
        let with = |restricted: &KeyRing| main.with_restricted(restricted).unwrap();
        assert_eq!(with(&restricted).right("restricted-1"), Right::Held);
        let disabled = with(&restricted.disable("restricted-1").unwrap());
        assert_eq!(disabled.right("restricted-1"), Right::Missing);
        assert!(disabled.check_right("restricted-1").unwrap_err().to_string().contains("disabled"));
        let destroyed = with(&restricted.destroy("restricted-1").unwrap());
        assert_eq!(destroyed.right("restricted-1"), Right::Destroyed);
        assert!(destroyed.check_right("restricted-1").is_ok());
        // A key that is not there is looked for, and fails with its reason.
        assert_eq!(with(&restricted).right("restricted-9"), Right::Held);
        assert_eq!(with(&restricted).export("restricted-9").unwrap_err().kind(), ErrorKind::Denied);
    }

    #[test]
    fn operations_on_one_ring_leave_the_other_beside_it() {
        let ring = both();
        for next in [ring.rotate(1).unwrap(), ring.renewed().unwrap()] {
            assert_eq!(next.restricted().unwrap().keys(), ring.restricted().unwrap().keys());
        }
        let foreign = KeyRing::generate_restricted("other", 0).unwrap();
        assert_eq!(ring.with_restricted(&foreign).unwrap_err().kind(), ErrorKind::Internal);
        assert_eq!(ring.with_restricted(&ring).unwrap_err().kind(), ErrorKind::Internal);
    }

    #[test]
    fn blinded_digest_is_stable_under_one_key_and_says_nothing_under_another() {
        let ring = both();
        assert_eq!(ring.blinded(&[7; 32]).unwrap(), ring.blinded(&[7; 32]).unwrap());
        assert_ne!(ring.blinded(&[7; 32]).unwrap(), ring.blinded(&[8; 32]).unwrap());
        assert_ne!(ring.blinded(&[7; 32]).unwrap(), both().blinded(&[7; 32]).unwrap());
    }
}
