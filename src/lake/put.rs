//! Putting data files: rows become bytes, and bytes objects that a commit can name.
//!
//! A file of an incremental stream gets its index ([`index`]); small tables are replaced as a whole and looked up seldom.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::error::{Error, Result};
use crate::keys::KeyRing;
use crate::lake::file::{self, Columns};
use crate::lake::index::{self, BLOCK_ROWS, Entry, Header};
use crate::lake::manifest::{DataFile, IndexSize};
use crate::lake::scan::{REV, UPDATED_AT};
use crate::lake::{Inner, layout, store};
use crate::model::Stream;
use crate::policy::SortedRows;

/// Encodes redacted rows as one file and puts it.
pub(super) async fn put_rows(lake: &Inner, rows: SortedRows) -> Result<DataFile> {
    let (stream, policy) = (rows.stream(), Arc::clone(rows.policy()));
    put_columns(lake, stream, policy, rows).await
}

/// Encodes rows that went through the policy named by its digest, in key order, as one file and puts it, with its index.
pub(super) async fn put_columns<C: Columns + Send + 'static>(
    lake: &Inner,
    stream: Stream,
    policy: Arc<str>,
    rows: C,
) -> Result<DataFile> {
    let path = layout::new_data_file(stream, lake.clock.as_ref());
    let ring = lake.ring.clone();
    let encoding = tokio::task::spawn_blocking(move || {
        let (bytes, mut file) = file::encode_columns(&path, &rows, stream.key_column(), &policy, &ring)?;
        let index = stream.is_incremental().then(|| index_of(&ring, &path, &rows)).transpose()?;
        file.index = index.as_ref().map(|(_, size, _)| *size);
        Ok::<_, Error>((bytes, file, index))
    });
    let failed = |error| Error::internal("failed to encode a data file").with_source(error);
    let (bytes, file, index) = encoding.await.map_err(failed)??;
    match index {
        None => put(lake, &file.path, bytes).await?,
        Some((index, _, header)) => {
            let beside = layout::index_of(&file.path);
            try_join(put(lake, &file.path, bytes), put(lake, &beside, index)).await?;
            lake.look_ups.insert_index(&file, &Arc::new(header));
        }
    }
    Ok(file)
}

/// Makes the index of rows: what it tells is what the columns of the file tell.
fn index_of(ring: &KeyRing, path: &str, rows: &impl Columns) -> Result<(Bytes, IndexSize, Header)> {
    let has = |column| rows.schema().column_with_name(column).is_some();
    let (has_updated_at, has_rev) = (has(UPDATED_AT), has(REV));
    let entries = rows.keys().iter().map(|key| Entry {
        id: key.id,
        updated_at_ms: key.updated_at_ms.filter(|_| has_updated_at),
        rev: key.rev.filter(|_| has_rev),
    });
    index::encode(ring, path, BLOCK_ROWS, entries)
}

async fn put(lake: &Inner, path: &str, bytes: Bytes) -> Result<()> {
    let object = Path::from(path);
    lake.store.put(&object, bytes.into()).await.map(drop).map_err(|error| store::failed("write", &object, error))
}
