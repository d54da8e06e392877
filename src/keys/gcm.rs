//! AES-256-GCM as every format of this crate uses it: `nonce (12) | ciphertext | tag (16)`, random nonces.
//!
//! Random 96-bit nonces are sound up to 2^32 calls per key (NIST SP 800-38D, section 8.3). A master key wraps one file
//! key per data file and encrypts one object per commit, which stays far below that.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, Result};
use crate::secret::SecretKey;

/// Bytes that a sealed text is longer than its plain text.
pub(super) const OVERHEAD: usize = NONCE_LEN + 16;

/// Fills an array with random bytes of the operating system.
pub(super) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new()
        .fill(bytes.as_mut_slice())
        .map_err(|_| Error::internal("operating system gives no random numbers"))?;
    Ok(bytes)
}

/// Makes a fresh 256-bit key.
pub(super) fn random_key() -> Result<SecretKey> {
    Ok(SecretKey::new(*random()?))
}

/// Appends `nonce | ciphertext | tag` of `plain` to `out`.
pub(super) fn seal_into(out: &mut Vec<u8>, key: &SecretKey, aad: &[u8], plain: &[u8]) -> Result<()> {
    let nonce = *random::<NONCE_LEN>()?;
    // Room for everything at once: a vector that grows would leave a copy of the plain text behind.
    out.reserve_exact(plain.len() + OVERHEAD);
    out.extend_from_slice(&nonce);
    let start = out.len();
    out.extend_from_slice(plain);
    let tag = cipher(key)?
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut out[start..])
        .map_err(|_| {
            out[start..].zeroize();
            Error::internal("failed to encrypt").with_context("bytes", plain.len())
        })?;
    out.extend_from_slice(tag.as_ref());
    Ok(())
}

/// Opens `nonce | ciphertext | tag`; `None` when the tag does not match or the text is too short to have one.
pub(super) fn open(key: &SecretKey, aad: &[u8], sealed: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let Some((nonce, body)) = sealed.split_first_chunk::<NONCE_LEN>() else {
        return Ok(None);
    };
    let mut buffer = Zeroizing::new(body.to_vec());
    let opened = cipher(key)?
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), buffer.as_mut_slice())
        .map(|plain| plain.len());
    Ok(opened.ok().map(|length| {
        buffer.truncate(length);
        buffer
    }))
}

fn cipher(key: &SecretKey) -> Result<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key.expose())
        .map(LessSafeKey::new)
        .map_err(|_| Error::internal("failed to set up AES-256-GCM"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_text_opens_only_under_its_key_and_associated_data() {
        let key = random_key().unwrap();
        let mut sealed = Vec::new();
        seal_into(&mut sealed, &key, b"aad", b"plain").unwrap();
        assert_eq!(sealed.len(), 5 + OVERHEAD);
        assert_eq!(open(&key, b"aad", &sealed).unwrap().unwrap().as_slice(), b"plain");
        assert!(open(&key, b"other", &sealed).unwrap().is_none());
        assert!(open(&random_key().unwrap(), b"aad", &sealed).unwrap().is_none());
        for length in 0..sealed.len() {
            assert!(open(&key, b"aad", &sealed[..length]).unwrap().is_none(), "cut to {length}");
        }
    }
}
