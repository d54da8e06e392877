//! Files and tables for the tests of this module and of `file`.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder,
    TimestampMillisecondArray, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::error::Result;
use crate::keys::KeyRing;
use crate::lake::file::{Columns, encode_columns};
use crate::lake::manifest::{DataFile, TableState};
use crate::model::ObjectId;
use crate::policy::RecordKey;

/// A word that must not be found in anything stored.
pub(in crate::lake) const NEEDLE: &str = "needle-in-the-haystack";

pub(in crate::lake) fn schema() -> SchemaRef {
    let described = |field: Field| field.with_metadata([("description".to_owned(), NEEDLE.to_owned())].into());
    Arc::new(Schema::new(vec![
        described(Field::new("ticket_id", DataType::Utf8, false)),
        described(Field::new("updated_at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true)),
        Field::new("rev", DataType::Int64, true),
        described(Field::new("status", DataType::Utf8, true)),
        described(Field::new("tag_ids", DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))), true)),
        Field::new("score", DataType::Float64, true),
    ]))
}

pub(in crate::lake) fn id(row: usize) -> ObjectId {
    let mut bytes = [0x5a; 12];
    bytes[..4].copy_from_slice(&(1_600_000_000 + row as u32).to_be_bytes());
    ObjectId::from_bytes(bytes)
}

pub(in crate::lake) fn updated_ms(row: usize) -> i64 {
    1_700_000_000_000 + row as i64 * 61_000
}

pub(in crate::lake) fn status(row: usize) -> Option<&'static str> {
    [Some("open"), Some("done"), Some("snoozed"), None, Some(NEEDLE)][row % 5]
}

/// Rows `from..to` of an endless table, in the order of their ids.
pub(in crate::lake) fn rows(from: usize, to: usize) -> (RecordBatch, Vec<RecordKey>) {
    let ids: StringArray = (from..to).map(|row| Some(id(row).to_string())).collect();
    let updated: TimestampMillisecondArray = (from..to).map(|row| Some(updated_ms(row))).collect();
    let revs: Int64Array = (from..to).map(|row| (row % 11 != 0).then_some(row as i64 % 7)).collect();
    let statuses: StringArray = (from..to).map(status).collect();
    let mut tags = ListBuilder::new(StringBuilder::new());
    for row in from..to {
        (0..row % 3).for_each(|tag| tags.values().append_value(format!("tag-{tag}")));
        tags.append(row % 4 != 0);
    }
    let scores: Float64Array = (from..to).map(|row| (row % 2 == 0).then_some(row as f64 / 3.0)).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ids),
        Arc::new(updated.with_timezone("UTC")),
        Arc::new(revs),
        Arc::new(statuses),
        Arc::new(tags.finish()),
        Arc::new(scores),
    ];
    let keys = (from..to)
        .map(|row| RecordKey {
            id: id(row),
            updated_at_ms: Some(updated_ms(row)),
            rev: (row % 11 != 0).then_some(row as i64 % 7),
            deleted: row % 97 == 5,
        })
        .collect();
    (RecordBatch::try_new(schema(), columns).unwrap(), keys)
}

/// Rows as they are, in the order of their keys.
pub(in crate::lake) struct Rows {
    pub(in crate::lake) batch: RecordBatch,
    pub(in crate::lake) keys: Vec<RecordKey>,
}

impl Columns for Rows {
    fn schema(&self) -> &SchemaRef {
        self.batch.schema_ref()
    }

    fn keys(&self) -> &[RecordKey] {
        &self.keys
    }

    fn column(&self, index: usize, rows: impl Iterator<Item = usize>) -> Result<ArrayRef> {
        let rows: UInt32Array = rows.map(|row| row as u32).collect();
        Ok(arrow::compute::take(self.batch.column(index), &rows, None).unwrap())
    }
}

/// Encodes rows `from..to` as `data/tickets/<name>.parquet`.
pub(in crate::lake) fn encoded(ring: &KeyRing, name: &str, from: usize, to: usize) -> (Bytes, DataFile) {
    let (batch, keys) = rows(from, to);
    let path = format!("data/tickets/{name}.parquet");
    encode_columns(&path, &Rows { batch, keys }, "ticket_id", &Arc::from("digest"), ring).unwrap()
}

/// Puts files into a store in memory.
pub(in crate::lake) async fn stored(files: &[(Bytes, DataFile)]) -> (Arc<dyn ObjectStore>, TableState) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for (bytes, file) in files {
        store.put(&Path::from(file.path.as_str()), bytes.clone().into()).await.unwrap();
    }
    let files = files.iter().map(|(_, file)| Arc::new(file.clone())).collect();
    (store, TableState { schema: schema(), files })
}
