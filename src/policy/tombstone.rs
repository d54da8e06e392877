//! Tombstones of records that are gone without a word.
//!
//! A record that the source marks as deleted comes as a page like any other. One that is simply not there any more has no
//! page, so its tombstone is made here: the key and the revision that the lake holds of it, `deleted`, and no other value.
//! With that revision it supersedes the live row, for at the same revision a tombstone is the newer one, and gives way
//! to the record's next revision, should it come back.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Schema, TimeUnit};

use super::Policy;
use crate::error::Result;
use crate::model::Stream;
use crate::policy::batch::{RecordKey, RedactedBatch, columnar};

impl Policy {
    /// Makes a tombstone of each key, in the columns of the stream's decoder.
    ///
    /// # Errors
    ///
    /// [`Internal`](crate::error::ErrorKind::Internal) when the columns have no place for the keys.
    pub fn tombstones(&self, stream: Stream, columns: &Arc<Schema>, keys: &[RecordKey]) -> Result<RedactedBatch> {
        let values = columns.fields().iter().map(|field| {
            let values: ArrayRef = match (field.name().as_str(), field.data_type()) {
                (name, DataType::Utf8) if name == stream.key_column() => {
                    Arc::new(keys.iter().map(|key| Some(key.id.to_string())).collect::<StringArray>())
                }
                ("updated_at", DataType::Timestamp(TimeUnit::Millisecond, zone)) => Arc::new(
                    keys.iter()
                        .map(|key| key.updated_at_ms)
                        .collect::<TimestampMillisecondArray>()
                        .with_timezone_opt(zone.clone()),
                ),
                ("rev", DataType::Int64) => Arc::new(keys.iter().map(|key| key.rev).collect::<Int64Array>()),
                ("deleted", DataType::Boolean) => Arc::new(BooleanArray::from(vec![true; keys.len()])),
                (_, other) => new_null_array(other, keys.len()),
            };
            values
        });
        let batch = RecordBatch::try_new(Arc::clone(columns), values.collect())
            .map_err(|error| columnar("align", stream, error))?;
        let keys = keys.iter().map(|key| RecordKey { deleted: true, ..*key }).collect();
        Ok(RedactedBatch::new(stream, Arc::clone(self.digest()), keys, batch))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;

    use super::*;
    use crate::model::ObjectId;
    use crate::policy::{Definitions, SortedRows};
    use crate::schema::Schemas;
    use crate::secret::{PseudonymKey, PseudonymKeys, SecretKey};

    #[test]
    fn tombstone_has_a_key_and_a_revision_and_nothing_else() {
        let policy = Policy::compile(&Schemas::builtin().unwrap()).unwrap();
        for stream in [Stream::Tickets, Stream::Customers] {
            let key = PseudonymKey { version: 1, key: SecretKey::new([7; 32]) };
            let keys = PseudonymKeys::try_new([Arc::new(key)]).unwrap();
            let decoder = policy.decoder(stream, &Definitions::default(), &keys).unwrap();
            let of = |byte, rev| RecordKey {
                id: ObjectId::from_bytes([byte; 12]),
                updated_at_ms: Some(1_478_661_814_064),
                rev,
                deleted: false,
            };
            let made = policy.tombstones(stream, &decoder.schema(), &[of(1, Some(3)), of(2, None)]).unwrap();
            assert_eq!((made.stream(), made.policy()), (stream, policy.digest()));
            assert_eq!(made.keys()[0], RecordKey { deleted: true, ..of(1, Some(3)) });
            let filled = [stream.key_column(), "updated_at", "deleted"];
            for (field, column) in made.batch().schema().fields().iter().zip(made.batch().columns()) {
                let nulls = match field.name().as_str() {
                    name if filled.contains(&name) => 0,
                    "rev" => 1,
                    _ => 2,
                };
                assert_eq!(column.null_count(), nulls, "{stream} {}", field.name());
            }
            // The lake joins it with decoded rows.
            let empty = decoder.fork().finish().unwrap();
            assert_eq!(SortedRows::try_new(&[empty, made]).unwrap().keys().len(), 2);
        }
    }
}
