//! A result as a file: a temporary file beside it takes its place when all is written.
//!
//! The bytes are on the disk before the name is, so that after a power cut there is the older file or the whole new one. A
//! failure leaves the older file as it was, and no temporary file; a process that is killed leaves `.counterfoil-*` beside
//! it, which nobody reads. A new file is readable by its owner only, one that is replaced keeps its permissions. Devices and
//! pipes are written to as they are. A table is written whole: every row, which is held in memory until the columns are
//! measured, and every column as wide as its texts.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use super::{Format, Layout, Outcome, Sink, Written, unwritten};
use crate::error::{Error, Result};
use crate::query::session::Rows;

/// Writes the rows of a query to a file.
pub(super) async fn write(sink: &Sink, mut rows: Rows, path: &Path) -> Result<Written> {
    let whole = Layout { width: None, max_rows: usize::MAX };
    let sink = if sink.format == Format::Table { &sink.clone().with_layout(&whole) } else { sink };
    // A link keeps pointing where it points, and a device or a pipe is written to, never replaced.
    if let Ok(found) = fs::metadata(path)
        && !found.is_file()
        && !found.is_dir()
    {
        let mut device = File::options().write(true).open(path).map_err(|cause| unmade(path, &cause))?;
        return sink.write_with(&mut rows, &mut device, &|cause| unwritten(Some(path), cause)).await;
    }
    let mut replacement = Replacement::begin(path, ".counterfoil-")?;
    let written = replacement.write(sink, &mut rows).await?;
    replacement.commit()?;
    Ok(written)
}

/// A file that takes the place of another, or of none, once it is whole.
#[derive(Debug)]
pub(in crate::query) struct Replacement {
    /// As the caller calls it.
    path: PathBuf,
    /// Where links lead.
    target: PathBuf,
    file: File,
    temporary: TempPath,
}

impl Replacement {
    /// Makes the temporary file, whose name begins with `prefix`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) when the path is a folder or no file can be made there.
    pub(in crate::query) fn begin(path: &Path, prefix: &str) -> Result<Self> {
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let found = fs::metadata(&target).ok();
        if found.as_ref().is_some_and(fs::Metadata::is_dir) {
            return Err(Error::config("the output file is a folder")
                .with_context("file", path.display())
                .with_hint("give the path of a file to -o"));
        }
        let made = tempfile::Builder::new().prefix(prefix).tempfile_in(folder_of(&target));
        let (file, temporary) = made.map_err(|cause| unmade(path, &cause))?.into_parts();
        if let Some(found) = found {
            file.set_permissions(found.permissions()).map_err(|cause| unmade(path, &cause))?;
        }
        Ok(Self { path: path.to_owned(), target, file, temporary })
    }

    /// Writes the rows of a query.
    ///
    /// # Errors
    ///
    /// The query's own; [`ErrorKind::Unavailable`](crate::error::ErrorKind::Unavailable) when writing fails.
    pub(in crate::query) async fn write(&mut self, sink: &Sink, rows: &mut Rows) -> Result<Written> {
        let Self { path, file, .. } = self;
        let failed = |cause: &io::Error| unwritten(Some(path), cause);
        let mut out = BufWriter::new(file);
        let written = sink.write_with(rows, &mut out, &failed).await?;
        out.flush().map_err(|cause| failed(&cause))?;
        if written.outcome == Outcome::ReaderGone {
            return Err(failed(&io::ErrorKind::BrokenPipe.into()));
        }
        Ok(written)
    }

    /// Writes bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::error::ErrorKind::Unavailable) when writing fails.
    pub(in crate::query) fn write_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|cause| unwritten(Some(&self.path), &cause))
    }

    /// Returns the temporary file.
    pub(in crate::query) fn file(&self) -> &File {
        &self.file
    }

    /// Puts the file in its place, for good.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::error::ErrorKind::Unavailable) when the disk fails; the older file stays.
    pub(in crate::query) fn commit(self) -> Result<()> {
        let Self { path, target, file, temporary } = self;
        file.sync_all().map_err(|cause| unwritten(Some(&path), &cause))?;
        temporary.persist(&target).map_err(|error| unmade(&path, &error.error))?;
        sync_folder(folder_of(&target)).map_err(|cause| unwritten(Some(&path), &cause))
    }
}

fn folder_of(target: &Path) -> &Path {
    target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a new name in a folder survive a power cut, where folders can be synchronized.
fn sync_folder(folder: &Path) -> io::Result<()> {
    let Ok(folder) = File::open(folder) else { return Ok(()) };
    match folder.sync_all() {
        Err(cause) if matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        synchronized => synchronized,
    }
}

/// An output file that cannot be made: its path is wrong, or the disk fails.
pub(super) fn unmade(path: &Path, cause: &io::Error) -> Error {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};

    let error = match cause.kind() {
        NotFound | NotADirectory => Error::config("the folder of the output file does not exist")
            .with_hint("make the folder first, or give another path to -o"),
        PermissionDenied | ReadOnlyFilesystem | InvalidFilename => {
            Error::config("the output file cannot be made").with_hint("give a path to -o that you may write to")
        }
        _ => return unwritten(Some(path), cause),
    };
    // The cause itself may name the temporary file, which the caller never heard of.
    error.with_context("file", path.display()).with_source(io::Error::from(cause.kind()))
}
