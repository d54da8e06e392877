//! Buffers of answers, used again: a page of search has megabytes, and many of them come in a second.
//!
//! Freed and allocated anew, they would leave the allocator holding many times of what is in use at any moment. They are
//! wiped before another answer goes into them, since what they held was not redacted yet.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use zeroize::Zeroize;

/// Buffers that wait; answers that come side by side are few.
const MOST: usize = 4;

/// Larger ones are freed: the next answer is unlikely to need as much.
const LARGEST_BYTES: usize = 8 << 20;

/// The buffers of one client.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

/// The buffer of one answer; goes back when nobody reads it any more.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    home: Buffers,
}

impl Buffers {
    /// Returns an empty buffer with room for `announced` bytes, where the answer says how many come.
    pub(super) fn take(&self, announced: Option<usize>) -> Buffer {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        bytes.reserve(announced.unwrap_or(0));
        Buffer { bytes, home: self.clone() }
    }
}

impl Buffer {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn extend(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
    }

    /// Returns the answer; the buffer is free again when its last clone is dropped.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.zeroize();
        let mut waiting = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MOST && (1..=LARGEST_BYTES).contains(&bytes.capacity()) {
            waiting.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_comes_back_empty_and_wiped_when_its_answer_is_read() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take(Some(1_000));
        buffer.extend(b"page");
        assert_eq!(buffer.len(), 4);
        let body = buffer.freeze();
        let part = body.slice(1..);
        drop(body);
        assert!(buffers.0.lock().unwrap().is_empty(), "it is read yet");
        assert_eq!(&part[..], b"age");
        drop(part);
        let again = buffers.take(None);
        assert!(again.bytes.is_empty() && again.bytes.capacity() >= 1_000);
        drop(buffers.take(Some(LARGEST_BYTES + 1)));
        assert!(buffers.0.lock().unwrap().is_empty());
    }

    #[test]
    fn few_buffers_wait() {
        let buffers = Buffers::default();
        let many: Vec<Buffer> = (0..20).map(|_| buffers.take(Some(10))).collect();
        drop(many);
        assert_eq!(buffers.0.lock().unwrap().len(), MOST);
    }
}
