//! Spilling: what a query does not hold in memory goes to disk encrypted.
//!
//! The engine's own spill files are plaintext (ENCRYPTION.md, trap 9). Here each spill file has a key of its own that
//! exists in memory only, and no name: it is unlinked as soon as it is made, so that nothing is left to find when the
//! process is killed. Bytes are written in frames, in order:
//!
//! ```text
//! frame n: nonce 12 | AES-256-GCM ciphertext of at most FRAME_BYTES | tag 16      associated data: n
//! ```
//!
//! Where each frame begins is kept in memory, so a file that somebody cuts, swaps or changes does not open.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::spill_file::{SpillFile, SpillWriter, TempFileFactory};
use futures::{Stream, stream};

use crate::error::{Error, ErrorKind, Result};
use crate::keys::{BLOCK_OVERHEAD, BlockKey};

/// Bytes of a frame before it is sealed: large enough that sealing and reading cost little for each.
const FRAME_BYTES: usize = 128 << 10;

/// Makes the spill files of one session, bounded in bytes altogether.
pub(super) struct EncryptedSpill(Arc<Quota>);

struct Quota {
    folder: PathBuf,
    limit_bytes: u64,
    used_bytes: AtomicU64,
}

impl EncryptedSpill {
    /// Spills into `folder`, at most `limit_bytes` at a time.
    pub(super) fn new(folder: PathBuf, limit_bytes: u64) -> Self {
        Self(Arc::new(Quota { folder, limit_bytes, used_bytes: AtomicU64::new(0) }))
    }
}

impl fmt::Debug for EncryptedSpill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedSpill").field("folder", &self.0.folder).finish_non_exhaustive()
    }
}

impl TempFileFactory for EncryptedSpill {
    fn create_temp_file(&self, _description: &str) -> DataFusionResult<Arc<dyn SpillFile>> {
        let quota = Arc::clone(&self.0);
        let file = tempfile::tempfile_in(&quota.folder).map_err(|cause| external(failed("make", &quota, cause)))?;
        let key = BlockKey::generate().map_err(external)?;
        let contents = Mutex::new(Contents { file, ends: Vec::new() });
        Ok(Arc::new(Encrypted(Arc::new(Shared { quota, key, contents }))))
    }
}

/// One spill file.
struct Encrypted(Arc<Shared>);

struct Shared {
    quota: Arc<Quota>,
    key: BlockKey,
    contents: Mutex<Contents>,
}

/// The file with where each of its frames ends.
struct Contents {
    file: File,
    ends: Vec<u64>,
}

impl Shared {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals the bytes as the next frame, and leaves the buffer empty.
    fn append(&self, frame: &mut Vec<u8>) -> Result<()> {
        if frame.is_empty() {
            return Ok(());
        }
        let mut contents = self.contents();
        let number = u32::try_from(contents.ends.len())
            .map_err(|_| Error::internal("a spill file has more frames than can be numbered"))?;
        let mut sealed = Vec::with_capacity(frame.len() + BLOCK_OVERHEAD);
        self.key.seal_into(&mut sealed, number, frame)?;
        frame.clear();
        let length = sealed.len() as u64;
        let used = self.quota.used_bytes.fetch_add(length, Ordering::Relaxed) + length;
        // Counted first, so that the file's end frees it also when the write fails.
        let end = contents.ends.last().copied().unwrap_or(0) + length;
        contents.ends.push(end);
        if used > self.quota.limit_bytes {
            return Err(Error::query("needs more memory than query.memory and more disk than query.spill allow")
                .with_context("limit", self.quota.limit_bytes)
                .with_hint("raise query.spill or query.memory, or narrow the rows before ORDER BY and GROUP BY"));
        }
        let start = end - length;
        let written = contents.file.seek(SeekFrom::Start(start)).and_then(|_| contents.file.write_all(&sealed));
        written.map_err(|cause| failed("write", &self.quota, cause))
    }

    /// Reads a frame; `None` past the last one.
    fn frame(&self, number: usize) -> Result<Option<Bytes>> {
        let mut contents = self.contents();
        let Some(end) = contents.ends.get(number).copied() else { return Ok(None) };
        let start = number.checked_sub(1).map_or(0, |before| contents.ends[before]);
        let mut frame = vec![0; (end - start) as usize];
        let read = contents.file.seek(SeekFrom::Start(start)).and_then(|_| contents.file.read_exact(&mut frame));
        drop(contents);
        read.map_err(|cause| failed("read", &self.quota, cause))?;
        let opened = u32::try_from(number).map(|number| self.key.open(number, &frame));
        match opened {
            Ok(Ok(Some(mut plain))) => Ok(Some(std::mem::take(&mut *plain).into())),
            Ok(Err(error)) => Err(error),
            _ => Err(Error::data("a temporary file was changed by somebody else").with_context("frame", number)),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let used = self.contents().ends.last().copied().unwrap_or(0);
        self.quota.used_bytes.fetch_sub(used, Ordering::Relaxed);
    }
}

impl SpillFile for Encrypted {
    fn size(&self) -> Option<u64> {
        self.0.contents().ends.last().copied().or(Some(0))
    }

    fn read_stream(&self) -> DataFusionResult<Pin<Box<dyn Stream<Item = DataFusionResult<Bytes>> + Send>>> {
        let frames = stream::try_unfold((Arc::clone(&self.0), 0), |(file, number)| async move {
            let reader = Arc::clone(&file);
            let read = tokio::task::spawn_blocking(move || reader.frame(number)).await;
            let frame =
                read.map_err(|cause| external(Error::internal("failed to read a spill file").with_source(cause)))?;
            Ok(frame.map_err(external)?.map(|bytes| (bytes, (file, number + 1))))
        });
        Ok(Box::pin(frames))
    }

    fn open_writer(&self) -> DataFusionResult<Box<dyn SpillWriter>> {
        Ok(Box::new(Writer { file: Arc::clone(&self.0), frame: Vec::new() }))
    }
}

/// Collects bytes into frames.
struct Writer {
    file: Arc<Shared>,
    frame: Vec<u8>,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(FRAME_BYTES - self.frame.len());
        self.frame.extend_from_slice(&bytes[..taken]);
        if self.frame.len() == FRAME_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.append(&mut self.frame).map_err(io::Error::other)
    }
}

impl SpillWriter for Writer {
    fn finish(&mut self) -> DataFusionResult<()> {
        self.file.append(&mut self.frame).map_err(external)
    }
}

fn failed(action: &'static str, quota: &Quota, cause: io::Error) -> Error {
    let kind = match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::Config
        }
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("failed to {action} a temporary file for what does not fit into query.memory"))
        .with_context("folder", quota.folder.display())
        .with_hint("set query.temp to a folder with room, or raise query.memory")
        .with_source(cause)
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use proptest::prelude::*;

    use super::*;

    fn spill(limit_bytes: u64) -> (EncryptedSpill, Arc<dyn SpillFile>) {
        let spill = EncryptedSpill::new(std::env::temp_dir(), limit_bytes);
        let file = spill.create_temp_file("sorting").unwrap();
        (spill, file)
    }

    async fn read(file: &Arc<dyn SpillFile>) -> DataFusionResult<Vec<u8>> {
        let parts: Vec<Bytes> = file.read_stream()?.try_collect().await?;
        Ok(parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_was_written_in_any_pieces_is_read_back(pieces in prop::collection::vec((0_usize..200_000, any::<bool>()), 0..8)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (_, file) = spill(u64::MAX);
            let mut expected = Vec::new();
            let mut writer = file.open_writer().unwrap();
            for (number, (length, flushed)) in pieces.into_iter().enumerate() {
                let piece: Vec<u8> = (0..length).map(|at| (at * 31 + number) as u8).collect();
                writer.write_all(&piece).unwrap();
                expected.extend_from_slice(&piece);
                if flushed {
                    writer.flush().unwrap();
                    prop_assert_eq!(&runtime.block_on(read(&file)).unwrap(), &expected);
                }
            }
            writer.finish().unwrap();
            prop_assert_eq!(runtime.block_on(read(&file)).unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn file_has_no_name_and_frees_its_room_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let spill = EncryptedSpill::new(folder.path().to_path_buf(), u64::MAX);
        let file = spill.create_temp_file("sorting").unwrap();
        let mut writer = file.open_writer().unwrap();
        writer.write_all(&vec![7; 300_000]).unwrap();
        writer.finish().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(file.size(), Some(300_000 + 3 * 28));
        assert_eq!(spill.0.used_bytes.load(Ordering::Relaxed), 300_000 + 3 * 28);
        drop((writer, file));
        assert_eq!(spill.0.used_bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn trap_09_what_is_spilled_is_ciphertext_and_a_changed_byte_is_found() {
        let spill = EncryptedSpill::new(std::env::temp_dir(), u64::MAX);
        let shared = Arc::new(Shared {
            quota: Arc::clone(&spill.0),
            key: BlockKey::generate().unwrap(),
            contents: Mutex::new(Contents { file: tempfile::tempfile().unwrap(), ends: Vec::new() }),
        });
        shared.append(&mut b"needle in a haystack".to_vec()).unwrap();
        let mut stored = Vec::new();
        {
            let mut contents = shared.contents();
            contents.file.seek(SeekFrom::Start(0)).unwrap();
            contents.file.read_to_end(&mut stored).unwrap();
            contents.file.seek(SeekFrom::Start(3)).unwrap();
            contents.file.write_all(&[stored[3] ^ 1]).unwrap();
        }
        assert!(!stored.windows(6).any(|window| window == b"needle"));
        let file: Arc<dyn SpillFile> = Arc::new(Encrypted(shared));
        let error = read(&file).await.unwrap_err().to_string();
        assert!(error.contains("changed by somebody else"), "{error}");
    }

    #[test]
    fn full_quota_and_missing_folder_name_the_way_out() {
        let (_, file) = spill(100_000);
        let mut writer = file.open_writer().unwrap();
        let error = writer.write_all(&vec![7; 300_000]).unwrap_err().to_string();
        assert!(error.contains("query.spill"), "{error}");
        let spill = EncryptedSpill::new(PathBuf::from("/no/such/folder"), 1);
        let error = spill.create_temp_file("sorting").err().unwrap().to_string();
        assert!(error.contains("folder: /no/such/folder"), "{error}");
    }
}
