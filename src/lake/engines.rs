//! What another engine needs to read a data file by itself: its key.
//!
//! An engine that speaks the key tools of Parquet (PyArrow, Spark) is given one exported master key and unwraps the rest.
//! DuckDB is not: it takes the data key of each file.

use std::sync::Arc;

use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::error::{Error, Result};
use crate::lake::manifest::DataFile;
use crate::lake::{Lake, file, store};
use crate::secret::SecretKey;

impl Lake {
    /// Unwraps the data key of one file, for an engine that is to read it without the lake's keys.
    ///
    /// Whoever holds it reads the file, so the caller warns first.
    ///
    /// # Errors
    ///
    /// [`Data`](crate::error::ErrorKind::Data) when the file is missing or not the one that the manifest pins;
    /// [`Denied`](crate::error::ErrorKind::Denied) when the ring does not have its master key.
    pub async fn export_file_key(&self, data_file: &Arc<DataFile>) -> Result<SecretKey> {
        let object = Path::from(data_file.path.as_str());
        let start = data_file.bytes.checked_sub(data_file.tail_bytes).ok_or_else(|| {
            Error::data("tail of the data file is longer than the file").with_context("file", &data_file.path)
        })?;
        let tail = self.0.store.get_range(&object, start..data_file.bytes).await;
        let tail = tail.map_err(|error| store::failed("read", &object, error))?;
        file::open_key(data_file, &tail, &self.0.ring)
    }
}
