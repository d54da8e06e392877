//! The proof of a range: how many distinct records came, and which, as a digest that does not depend on their order.

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};

use crate::policy::RecordKey;

/// What was received of a range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Proof {
    /// Distinct records.
    pub(super) distinct: u64,
    /// XOR of SHA-256 over `id:rev`.
    pub(super) digest: [u8; 32],
}

impl Proof {
    /// Adds a record; each is added once.
    pub(super) fn add(&mut self, record: &RecordKey) {
        let text = match record.rev {
            Some(rev) => format!("{}:{rev}", record.id),
            None => format!("{}:", record.id),
        };
        self.distinct += 1;
        self.xor(digest(&SHA256, text.as_bytes()).as_ref());
    }

    /// Adds the proof of another range.
    pub(super) fn merge(&mut self, other: &Self) {
        self.distinct += other.distinct;
        self.xor(&other.digest);
    }

    /// Returns the digest in hex.
    pub(super) fn hex(&self) -> String {
        self.digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a string does not fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    fn xor(&mut self, bytes: &[u8]) {
        for (mine, other) in self.digest.iter_mut().zip(bytes) {
            *mine ^= other;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ObjectId;

    #[test]
    fn digest_depends_on_records_and_revisions_but_not_on_order() {
        let record = |byte, rev| RecordKey {
            id: ObjectId::from_bytes([byte; 12]),
            updated_at_ms: None,
            rev: Some(rev),
            deleted: false,
        };
        let of = |records: &[RecordKey]| {
            let mut proof = Proof::default();
            for record in records {
                proof.add(record);
            }
            proof
        };
        assert_eq!(of(&[record(1, 1), record(2, 1)]), of(&[record(2, 1), record(1, 1)]));
        assert_ne!(of(&[record(1, 1), record(2, 1)]), of(&[record(1, 1), record(2, 2)]));
        let mut merged = of(&[record(1, 1)]);
        merged.merge(&of(&[record(2, 1)]));
        assert_eq!(merged, of(&[record(1, 1), record(2, 1)]));
    }
}
