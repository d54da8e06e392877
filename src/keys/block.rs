//! Blocks of one object under a key of its own, so that a reader takes the few that it needs.
//!
//! ```text
//! block = nonce 12 | AES-256-GCM ciphertext | tag 16; associated data: the block's number, u32 little-endian
//! ```
//!
//! The key is made for one object and travels inside a sealed one, so a block opens nowhere else, and at no other place.

use zeroize::Zeroizing;

use crate::error::Result;
use crate::keys::gcm;
use crate::secret::SecretKey;

/// Bytes that a sealed block is longer than what it holds.
pub const BLOCK_OVERHEAD: usize = gcm::OVERHEAD;

/// The key of the blocks of one object.
#[derive(Debug)]
pub struct BlockKey(SecretKey);

impl BlockKey {
    /// Makes a fresh key.
    ///
    /// # Errors
    ///
    /// [`Internal`](crate::error::ErrorKind::Internal) when the operating system gives no random numbers.
    pub fn generate() -> Result<Self> {
        gcm::random_key().map(Self)
    }

    /// Takes the bytes of a key that was read.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(SecretKey::new(bytes))
    }

    /// Returns the bytes, to be sealed.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// Appends a sealed block to `out`.
    ///
    /// # Errors
    ///
    /// [`Internal`](crate::error::ErrorKind::Internal) when the operating system gives no random numbers.
    pub fn seal_into(&self, out: &mut Vec<u8>, number: u32, plain: &[u8]) -> Result<()> {
        gcm::seal_into(out, &self.0, &number.to_le_bytes(), plain)
    }

    /// Opens a block; `None` when it is damaged or is another one.
    pub fn open(&self, number: u32, sealed: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>> {
        gcm::open(&self.0, &number.to_le_bytes(), sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_opens_under_its_key_at_its_place_only() {
        let key = BlockKey::generate().unwrap();
        let mut sealed = Vec::new();
        key.seal_into(&mut sealed, 3, b"needle").unwrap();
        assert_eq!(sealed.len(), 6 + BLOCK_OVERHEAD);
        let again = BlockKey::from_bytes(*key.expose());
        assert_eq!(again.open(3, &sealed).unwrap().unwrap().as_slice(), b"needle");
        assert!(key.open(4, &sealed).unwrap().is_none());
        assert!(BlockKey::generate().unwrap().open(3, &sealed).unwrap().is_none());
        assert_eq!(format!("{key:?}"), "BlockKey(SecretKey([redacted]))");
    }
}
