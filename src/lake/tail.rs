//! The tail of a data file: which ring key wrapped the file's key, and the same tail under another one.
//!
//! ```text
//! tail = FileCryptoMetaData │ encrypted footer │ length u32 LE │ "PARE"
//!
//! FileCryptoMetaData (Thrift, compact protocol):
//!   1: struct EncryptionAlgorithm    AES_GCM_V1 with `aad_file_unique`
//!   2: binary key_metadata           PKMT1 JSON: the id of the ring key, and the file's key wrapped by it
//! ```
//!
//! The footer and every page are encrypted under the file's own key with `aad_file_unique` as associated data; `key_metadata`
//! is in neither. So a file is wrapped anew by writing another `key_metadata`: all bytes before the tail stay, and so do
//! their places. The pin changes with the tail.

use std::ops::Range;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::keys::{KeyRing, metadata};
use crate::lake::file::{self, MAGIC, TRAILER_BYTES};
use crate::lake::manifest::DataFile;

/// Bytes from the start of a tail that hold its `FileCryptoMetaData`: key metadata have about 250 bytes.
pub(super) const CRYPTO_BYTES: u64 = 4096;

/// Structs within structs of a `FileCryptoMetaData`: two are written.
const DEEPEST: u8 = 4;

/// Number of the field `key_metadata`.
const KEY_METADATA: i16 = 2;

/// Returns the id of the ring key that wrapped a file's key, from the start of the file's tail.
///
/// # Errors
///
/// [`Data`](crate::error::ErrorKind::Data) when that is not the tail of an encrypted file of this program.
pub(super) fn key_id(path: &str, start: &[u8]) -> Result<String> {
    let place = key_metadata(start).ok_or_else(|| damaged(path))?;
    metadata::master_key_id(&start[place]).map_err(|error| error.with_context("file", path))
}

/// Makes a file's tail with its key wrapped by the ring's primary key, and the file's entry at the path `to` with that tail;
/// `None` when the primary key wraps it already.
///
/// # Errors
///
/// Those of [`file::open_tail`].
pub(super) fn rewrapped(from: &DataFile, tail: &Bytes, ring: &KeyRing, to: &str) -> Result<Option<(Bytes, DataFile)>> {
    if from.restricted_key.is_some() {
        return Err(Error::internal(
            "keys of columns stand in the encrypted footer, so that the tail alone cannot be wrapped anew",
        )
        .with_context("file", &from.path));
    }
    // Whoever could change a tail could have a key of theirs wrapped: only the one that the manifest pins is.
    file::open_tail(from, tail, ring)?;
    let place = key_metadata(tail).ok_or_else(|| damaged(&from.path))?;
    if metadata::master_key_id(&tail[place.clone()])? == ring.primary_id()? {
        return Ok(None);
    }
    let wrapped = ring.rewrap_file_key(&tail[place.clone()])?;

    let mut length = [0; 10];
    let length_bytes = write_varint(place.len() as u64, &mut length);
    let before = place.start.checked_sub(length_bytes).ok_or_else(|| damaged(&from.path))?;
    let footer = place.end..tail.len().saturating_sub(TRAILER_BYTES);
    let mut bytes = Vec::with_capacity(tail.len() + wrapped.len());
    bytes.extend_from_slice(&tail[..before]);
    let length_bytes = write_varint(wrapped.len() as u64, &mut length);
    bytes.extend_from_slice(&length[..length_bytes]);
    bytes.extend_from_slice(&wrapped);
    bytes.extend_from_slice(&tail[footer]);
    let footer_bytes = u32::try_from(bytes.len()).map_err(|_| damaged(&from.path))?;
    bytes.extend_from_slice(&footer_bytes.to_le_bytes());
    bytes.extend_from_slice(MAGIC);

    let bytes = Bytes::from(bytes);
    let entry = DataFile {
        path: to.to_owned(),
        bytes: from.bytes - from.tail_bytes + bytes.len() as u64,
        tail_bytes: bytes.len() as u64,
        pin: file::digest(&bytes),
        ..from.clone()
    };
    // What does not open must not be written.
    file::open_tail(&entry, &bytes, ring)?;
    Ok(Some((bytes, entry)))
}

pub(super) fn damaged(path: &str) -> Error {
    Error::data("data file does not end as an encrypted Parquet file of this program")
        .with_context("file", path)
        .with_hint("the file was damaged or tampered with: restore it from a backup of the lake")
}

/// Finds the bytes of the key metadata in a `FileCryptoMetaData`.
fn key_metadata(start: &[u8]) -> Option<Range<usize>> {
    let mut reader = Reader { bytes: start, at: 0 };
    let mut found = None;
    reader.read_struct(0, &mut |field, place| {
        if field == KEY_METADATA {
            found = Some(place);
        }
    })?;
    found
}

/// A reader of Thrift's compact protocol: as much of it as this struct needs.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    /// Reads past a struct; tells the number and the place of each binary field of the outermost one.
    fn read_struct(&mut self, depth: u8, binary: &mut impl FnMut(i16, Range<usize>)) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        let mut field = 0_i16;
        loop {
            let header = self.byte()?;
            if header == 0 {
                return Some(());
            }
            field = match header >> 4 {
                0 => {
                    let zigzag = self.varint()?;
                    i16::try_from((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)).ok()?
                }
                delta => field.checked_add(i16::from(delta))?,
            };
            match header & 0x0f {
                // Booleans stand in the header.
                1 | 2 => {}
                3 => self.skip(1)?,
                4..=6 => drop(self.varint()?),
                7 => self.skip(8)?,
                8 => {
                    let length = usize::try_from(self.varint()?).ok()?;
                    let start = self.at;
                    self.skip(length)?;
                    if depth == 0 {
                        binary(field, start..self.at);
                    }
                }
                12 => self.read_struct(depth + 1, binary)?,
                _ => return None,
            }
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.at = self.at.checked_add(length).filter(|at| *at <= self.bytes.len())?;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

/// Writes a variable-length integer; returns its length.
fn write_varint(mut value: u64, out: &mut [u8; 10]) -> usize {
    let mut length = 0;
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        out[length] = if value == 0 { byte } else { byte | 0x80 };
        length += 1;
        if value == 0 {
            return length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::lake::scan::fixtures::encoded;
    use proptest::prelude::*;

    fn ring() -> KeyRing {
        KeyRing::generate("lake", 0).unwrap()
    }

    fn tail(bytes: &Bytes, file: &DataFile) -> Bytes {
        bytes.slice(bytes.len() - file.tail_bytes as usize..)
    }

    #[test]
    fn rewrapped_tail_opens_under_the_new_key_alone_and_is_rewrapped_once() {
        let old = ring();
        let (bytes, file) = encoded(&old, "a", 0, 300);
        let new = old.rotate(1).unwrap();
        assert_eq!(key_id("a", &tail(&bytes, &file)).unwrap(), "ring-1");
        let (renewed, entry) = rewrapped(&file, &tail(&bytes, &file), &new, "b").unwrap().unwrap();
        assert_eq!(key_id("b", &renewed).unwrap(), "ring-2");
        assert_eq!(entry.path, "b");
        assert_ne!(entry.pin, file.pin);
        let alone = new.destroy("ring-1").unwrap();
        let metadata = file::open_tail(&entry, &renewed, &alone).unwrap();
        assert_eq!(metadata.file_metadata().num_rows(), 300);
        let refused = file::open_tail(&file, &tail(&bytes, &file), &alone).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied);
        assert!(refused.to_string().contains("ring-1"), "{refused}");
        assert!(rewrapped(&entry, &renewed, &new, "c").unwrap().is_none());
    }

    #[test]
    fn tail_that_is_not_the_pinned_one_is_not_wrapped_anew() {
        let old = ring();
        let (bytes, file) = encoded(&old, "a", 0, 10);
        let (other, _) = encoded(&old, "a", 0, 10);
        let new = old.rotate(1).unwrap();
        let swapped = other.slice(other.len() - file.tail_bytes as usize..);
        assert_eq!(rewrapped(&file, &swapped, &new, "b").unwrap_err().kind(), ErrorKind::Data);
        let mut flipped = tail(&bytes, &file).to_vec();
        flipped[3] ^= 1;
        assert_eq!(rewrapped(&file, &flipped.into(), &new, "b").unwrap_err().kind(), ErrorKind::Data);
    }

    #[test]
    fn struct_without_end_or_too_deep_is_refused() {
        for wrong in [&[][..], &[0x18], &[0x18, 0xff], &[0x18, 0x05, b'a'], &[0x1c; 64], &[0x19, 0x00], &[0x00]] {
            assert_eq!(key_metadata(wrong), None, "{wrong:?}");
        }
        assert_eq!(key_metadata(&[0x28, 0x01, b'x', 0x00]), Some(2..3));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(place) = key_metadata(&bytes) {
                prop_assert!(place.end <= bytes.len());
            }
        }

        #[test]
        fn varint_reads_back(value in any::<u64>()) {
            let mut out = [0; 10];
            let length = write_varint(value, &mut out);
            let mut reader = Reader { bytes: &out[..length], at: 0 };
            prop_assert_eq!(reader.varint(), Some(value));
            prop_assert_eq!(reader.at, length);
        }
    }
}
