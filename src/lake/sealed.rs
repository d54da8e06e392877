//! Results that leave the lake encrypted: the keys of a Parquet file that holds the rows of a query.
//!
//! The file has the portable profile of the lake's own (`lake/file.rs`): a fresh AES-256 key, wrapped by the
//! primary key of the ring in PKMT1 key metadata, for the footer and every column. It is no part of the lake: no manifest
//! pins it, no rotation wraps it anew, and when its ring key is destroyed nobody opens it any more.
//!
//! Columns that hold restricted values are sealed under the restricted ring, and then every column has a key of its own, as
//! in the lake. PyArrow and Spark read such files with both exported keys, DuckDB does not. A process without the restricted
//! ring reads NULL where such values stand, so that it has none to seal.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Fields, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;

use crate::error::{Error, Result};
use crate::keys::KeyRing;
use crate::keys::metadata::master_key_id;
use crate::lake::{Lake, file, restricted};

/// Seals results under the ring of a lake.
#[derive(Debug, Clone)]
pub struct Seal {
    ring: KeyRing,
    /// By position, the columns that go under the restricted ring.
    restricted: Vec<bool>,
}

impl Lake {
    /// Makes what seals a result under the ring; `restricted` says of each column whether it holds restricted values.
    #[must_use]
    pub fn seal(&self, restricted: Vec<bool>) -> Seal {
        Seal::new(self.ring(), restricted)
    }
}

/// How one file is encrypted, and what must hold of it when it is written.
#[derive(Debug)]
pub struct Sealing {
    /// What the writer is given.
    pub properties: WriterProperties,
    declared: SchemaRef,
    restricted_key: Option<String>,
}

impl Seal {
    fn new(ring: &KeyRing, mut restricted: Vec<bool>) -> Self {
        if ring.restricted().is_none() {
            restricted.fill(false);
        }
        Self { ring: ring.clone(), restricted }
    }

    /// Lists the ring keys that the next file is sealed under: first the ring's, then the restricted ring's where needed.
    ///
    /// # Errors
    ///
    /// [`Denied`](crate::error::ErrorKind::Denied) when a ring has no primary key.
    pub fn key_ids(&self) -> Result<Vec<String>> {
        let mut ids = vec![self.ring.primary_id()?];
        if self.restricted.contains(&true) {
            ids.push(self.ring.restricted_ring()?.primary_id()?);
        }
        Ok(ids)
    }

    /// Makes the keys of one file. The encoding of each column is chosen by the first rows, where there are any.
    ///
    /// # Errors
    ///
    /// [`Denied`](crate::error::ErrorKind::Denied) when a ring has no primary key.
    pub fn new_file(&self, schema: &SchemaRef, first: Option<&RecordBatch>) -> Result<Sealing> {
        let failed =
            |cause: ParquetError| Error::internal("failed to set up the encryption of a result").with_source(cause);
        let declared = self.declared(schema);
        let file_key = self.ring.new_file_key()?;
        let is_restricted = restricted::columns(&declared).next().is_some();
        let restricted_key = is_restricted.then(|| self.ring.new_restricted_key()).transpose()?;
        let encryption = match &restricted_key {
            None => FileEncryptionProperties::builder(file_key.key.expose().to_vec())
                .with_footer_key_metadata(file_key.metadata)
                .build()
                .map_err(failed)?,
            Some(restricted_key) => file::column_keys(&declared, file_key, restricted_key, &self.ring)?,
        };
        let restricted_key = restricted_key.map(|key| master_key_id(&key.metadata)).transpose()?;
        let properties = file::properties(&declared, "", &distinct(schema, first), encryption).map_err(failed)?;
        Ok(Sealing { properties, declared, restricted_key })
    }

    /// Turns a digest of rows into one that tells nothing of them without the keys that open the rows.
    ///
    /// # Errors
    ///
    /// [`Denied`](crate::error::ErrorKind::Denied) when a ring has no primary key.
    pub fn blinded(&self, digest: &[u8; 32]) -> Result<[u8; 32]> {
        let digest = if self.restricted.contains(&true) { self.ring.blinded(digest)? } else { *digest };
        let key = self.ring.export(&self.ring.primary_id()?)?;
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.expose());
        let mut message = b"rows of a result\0".to_vec();
        message.extend_from_slice(&digest);
        let mut blinded = [0; 32];
        blinded.copy_from_slice(ring::hmac::sign(&key, &message).as_ref());
        Ok(blinded)
    }

    /// Copies the schema with nothing in its metadata but which columns are restricted.
    fn declared(&self, schema: &SchemaRef) -> SchemaRef {
        let bare = file::without_metadata(schema);
        let fields = bare.fields().iter().enumerate().map(|(index, field)| {
            let is_restricted = self.restricted.get(index).copied().unwrap_or(false);
            let metadata = is_restricted.then(|| ("method".to_owned(), "restrict".to_owned()));
            Arc::new(field.as_ref().clone().with_metadata(metadata.into_iter().collect::<HashMap<_, _>>()))
        });
        Arc::new(Schema::new(fields.collect::<Fields>()))
    }
}

impl Sealing {
    /// Refuses a file of which a part is not encrypted by the key that it should have; `end` are its last bytes.
    ///
    /// # Errors
    ///
    /// [`Internal`](crate::error::ErrorKind::Internal): the file must not be kept.
    pub fn check(&self, metadata: &ParquetMetaData, end: &[u8]) -> Result<()> {
        if end.ends_with(file::MAGIC) && file::has_its_keys(metadata, &self.declared, self.restricted_key.as_deref()) {
            return Ok(());
        }
        Err(Error::internal("the result was not encrypted as it should be; it is not kept"))
    }
}

/// Returns the columns for which a dictionary would cost more than it saves.
fn distinct(schema: &SchemaRef, first: Option<&RecordBatch>) -> Vec<FieldRef> {
    let Some(first) = first else { return Vec::new() };
    let columns = schema.fields().iter().zip(first.columns());
    let distinct = columns.filter(|(field, column)| {
        column.data_type() == field.data_type()
            && file::can_be_sampled(field.data_type())
            && file::has_few_repetitions(column)
    });
    distinct.map(|(field, _)| Arc::clone(field)).collect()
}
