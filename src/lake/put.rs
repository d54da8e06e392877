//! Putting data files: rows become bytes, and bytes an object that a commit can name.

use std::sync::Arc;

use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::error::{Error, Result};
use crate::lake::file::{self, Columns};
use crate::lake::manifest::DataFile;
use crate::lake::scan::IdFilter;
use crate::lake::{Inner, layout, store};
use crate::model::Stream;
use crate::policy::SortedRows;

/// Encodes redacted rows as one file and puts it.
pub(super) async fn put_rows(lake: &Inner, rows: SortedRows) -> Result<DataFile> {
    let (stream, policy) = (rows.stream(), Arc::clone(rows.policy()));
    put_columns(lake, stream, policy, rows).await
}

/// Encodes rows that went through the policy named by its digest, in key order, as one file and puts it.
pub(super) async fn put_columns<C: Columns + Send + 'static>(
    lake: &Inner,
    stream: Stream,
    policy: Arc<str>,
    rows: C,
) -> Result<DataFile> {
    let path = layout::new_data_file(stream, lake.clock.as_ref());
    let object = Path::from(path.as_str());
    let ring = lake.ring.clone();
    let filter = IdFilter::new(rows.keys().iter().map(|key| key.id));
    let encoding =
        tokio::task::spawn_blocking(move || file::encode_columns(&path, &rows, stream.key_column(), &policy, &ring));
    let (bytes, file) =
        encoding.await.map_err(|error| Error::internal("failed to encode a data file").with_source(error))??;
    lake.store.put(&object, bytes.into()).await.map_err(|error| store::failed("write", &object, error))?;
    lake.look_ups.insert_filter(&file, filter);
    Ok(file)
}
