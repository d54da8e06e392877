//! Keys that live as long as one temporary file, for what an engine spills.
//!
//! Such a key is never wrapped and never written: when the process ends, whatever it encrypted is noise.

use ring::aead::{Aad, NONCE_LEN, Nonce};

use crate::error::{Error, Result};
use crate::keys::gcm;
use crate::secret::SecretKey;

/// Bytes that a sealed frame is longer than its plain text: the tag. The nonce is the frame's number.
pub const FRAME_OVERHEAD: usize = 16;

/// A fresh key for the frames of one temporary file.
#[derive(Debug)]
pub struct EphemeralKey(SecretKey);

impl EphemeralKey {
    /// Makes a key.
    ///
    /// # Errors
    ///
    /// [`Internal`](crate::error::ErrorKind::Internal) when the operating system gives no random numbers.
    pub fn generate() -> Result<Self> {
        gcm::random_key().map(Self)
    }

    /// Encrypts a frame in place and appends its tag. A number is used once: it is the nonce.
    ///
    /// # Errors
    ///
    /// [`Internal`](crate::error::ErrorKind::Internal) when the cipher refuses.
    pub fn seal(&self, number: u64, frame: &mut Vec<u8>) -> Result<()> {
        gcm::cipher(&self.0)?
            .seal_in_place_append_tag(nonce(number), Aad::empty(), frame)
            .map_err(|_| Error::internal("failed to encrypt").with_context("frame", number))
    }

    /// Decrypts in place what [`seal`](Self::seal) made under the same number, and cuts the tag off.
    ///
    /// # Errors
    ///
    /// [`Data`](crate::error::ErrorKind::Data) when the bytes are not those of that frame.
    pub fn open(&self, number: u64, frame: &mut Vec<u8>) -> Result<()> {
        let opened = gcm::cipher(&self.0)?.open_in_place(nonce(number), Aad::empty(), frame.as_mut_slice());
        let length = opened
            .map(|plain| plain.len())
            .map_err(|_| Error::data("a temporary file was changed by somebody else").with_context("frame", number))?;
        frame.truncate(length);
        Ok(())
    }
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn frame_opens_under_its_number_and_key_only() {
        let key = EphemeralKey::generate().unwrap();
        let mut sealed = b"plain".to_vec();
        key.seal(7, &mut sealed).unwrap();
        assert_eq!(sealed.len(), 5 + FRAME_OVERHEAD);
        assert!(!sealed.starts_with(b"plain"));
        let mut opened = sealed.clone();
        key.open(7, &mut opened).unwrap();
        assert_eq!(opened, b"plain");
        assert_eq!(key.open(8, &mut sealed.clone()).unwrap_err().kind(), ErrorKind::Data);
        let other = EphemeralKey::generate().unwrap();
        assert_eq!(other.open(7, &mut sealed.clone()).unwrap_err().kind(), ErrorKind::Data);
        sealed.truncate(9);
        assert_eq!(key.open(7, &mut sealed).unwrap_err().kind(), ErrorKind::Data);
    }
}
