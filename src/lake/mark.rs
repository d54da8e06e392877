//! The high-water mark: the newest version that this machine has seen of a lake, kept outside the lake.
//!
//! ```text
//! <state>/<lake id>.mark   {"format":1,"lake":"<uuid>","version":42,"commit":"<uuid>"}     mode 0600, no secrets
//! ```
//!
//! Everything in a lake is authenticated, and still whoever can write to the store can put back an older state of the
//! whole log, or one that another writer went on from. Each object of it is genuine. Only a memory outside tells: the
//! newest version must not be lower than the mark, and the version of the mark, while its commit is kept, must be the
//! very commit that was seen. `commit` is that commit's own id, which the seal covers and which stays when the object
//! is sealed anew under another key.
//!
//! What holds:
//! - **A mark never fails the work that it follows**: one that cannot be written is told once. One that is there and
//!   cannot be read does stop, since reading on would be what it guards against.
//! - **A mark only rises**, but for [`accept`](Mark::accept). Two processes that write at once may lose one step of it.
//! - **A mark is whole**: temporary file, fsync, rename.
//!
//! What does not: a machine that has never seen the lake, or whose state folder is gone, knows nothing.
//!
//! Reader rule: a `format` above the known one is refused, unknown fields are ignored. Writer rule: a change that an older
//! reader would misunderstand raises `format`.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The format of the file.
const FORMAT: u32 = 1;

/// The mark of one lake on this machine. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Mark(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    lake: String,
    is_warned: AtomicBool,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Terms {
    format: u32,
    lake: String,
    /// The newest version seen.
    pub(super) version: u64,
    /// The id of its commit.
    pub(super) commit: String,
}

impl Mark {
    pub(super) fn new(folder: &Path, lake: &str) -> Self {
        let inner = Inner { folder: folder.to_owned(), lake: lake.to_owned(), is_warned: AtomicBool::new(false) };
        Self(Arc::new(inner))
    }

    /// Reads the mark; `None` when this machine has not seen the lake.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the file cannot be read or understood.
    pub(super) async fn read(&self) -> Result<Option<Terms>> {
        self.blocking(Inner::read).await
    }

    /// Raises the mark to a version that was read or made. A failure is told once.
    pub(super) async fn raise(&self, version: u64, commit: String) {
        let raised = self
            .blocking(move |mark| {
                // Read again: another process may have seen more meanwhile.
                match mark.read()? {
                    Some(terms) if terms.version >= version => Ok(()),
                    _ => mark.write(version, commit),
                }
            })
            .await;
        if let Err(error) = raised
            && !self.0.is_warned.swap(true, Ordering::Relaxed)
        {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(error = %error, cause, "a log that is rolled back would not be noticed on this machine; `lake.state` names another folder");
        }
    }

    /// Sets the mark to a version, also to a lower one.
    pub(super) async fn accept(&self, version: u64, commit: String) -> Result<()> {
        self.blocking(move |mark| mark.write(version, commit)).await
    }

    /// Refuses a log whose newest version is lower than the mark.
    pub(super) fn check_newest(&self, terms: &Terms, newest: u64) -> Result<()> {
        if newest >= terms.version {
            return Ok(());
        }
        Err(self.refusal("log of the lake was rolled back", newest).with_context("seen", terms.version))
    }

    /// Refuses a log in which the version of the mark is another commit than the one that was seen.
    pub(super) fn check_commit(&self, terms: &Terms, commit: &str, newest: u64) -> Result<()> {
        if commit == terms.commit {
            return Ok(());
        }
        Err(self
            .refusal("the lake has another history than the one this machine has seen", newest)
            .with_context("version", terms.version)
            .with_context("seen", &terms.commit)
            .with_context("found", commit))
    }

    fn refusal(&self, message: &'static str, newest: u64) -> Error {
        Error::data(message)
            .with_context("mark", self.0.file().display())
            .with_context("newest", newest)
            .with_hint(format!(
                "restore the objects under log/ that are missing; if the lake was put back on purpose, `counterfoil lake accept-rollback {newest}` takes it as it is"
            ))
    }

    /// Does what blocks on a thread for that.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let mark = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&mark)).await;
        done.map_err(|error| {
            Error::internal("reading or writing the high-water mark was interrupted").with_source(error)
        })?
    }
}

impl Inner {
    fn file(&self) -> PathBuf {
        // The ring is bound to the id, so it is one that this program made; it must not lead elsewhere all the same.
        let name: String =
            self.lake.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        self.folder.join(format!("{name}.mark"))
    }

    fn read(&self) -> Result<Option<Terms>> {
        let file = self.file();
        let failed = |message: &'static str| {
            Error::config(message).with_context("file", file.display()).with_hint(
                "the file only remembers the newest version seen: mend it, or remove it once you know that the lake is whole",
            )
        };
        let text = match std::fs::read(&file) {
            Ok(text) => text,
            // Nor can there be one where a file stands in place of the folder; that is told when it is written.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(failed("failed to read the lake's high-water mark").with_source(error)),
        };
        let terms: Terms = serde_json::from_slice(&text)
            .map_err(|error| failed("the lake's high-water mark is damaged").with_source(error))?;
        if !(1..=FORMAT).contains(&terms.format) {
            return Err(failed("the lake's high-water mark has a format that this program does not know")
                .with_context("format", terms.format)
                .with_context("known", FORMAT)
                .with_hint("upgrade counterfoil"));
        }
        if terms.lake != self.lake {
            return Err(failed("the high-water mark is of another lake")
                .with_context("lake", &self.lake)
                .with_context("mark", terms.lake));
        }
        Ok(Some(terms))
    }

    fn write(&self, version: u64, commit: String) -> Result<()> {
        let terms = Terms { format: FORMAT, lake: self.lake.clone(), version, commit };
        let text = serde_json::to_vec(&terms)
            .map_err(|error| Error::internal("failed to encode the high-water mark").with_source(error))?;
        self.replace(&text).map_err(|error| {
            Error::config("failed to write the lake's high-water mark")
                .with_context("file", self.file().display())
                .with_source(error)
        })
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let mut folders = DirBuilder::new();
        folders.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut folders, 0o700);
        folders.create(&self.folder)?;
        // A new name of its own for each writer, mode 0600, removed unless it becomes the mark.
        let mut staged = tempfile::Builder::new().prefix(".mark-").tempfile_in(&self.folder)?;
        staged.write_all(text)?;
        staged.as_file().sync_all()?;
        staged.persist(self.file()).map_err(|error| error.error)?;
        // If the name is lost in a power cut, the older mark is a mark too.
        drop(File::open(&self.folder).map(|folder| folder.sync_all()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const LAKE: &str = "019a0000-0000-7000-8000-000000000001";

    fn names(folder: &Path) -> Vec<String> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[tokio::test]
    async fn mark_rises_and_never_falls() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state/counterfoil");
        let mark = Mark::new(&state, LAKE);
        assert_eq!(mark.read().await.unwrap(), None);
        assert!(!state.exists(), "reading makes nothing");
        for (version, expected) in [(3, 3), (2, 3), (3, 3), (7, 7), (1, 7)] {
            mark.raise(version, format!("commit {version}")).await;
            let terms = Mark::new(&state, LAKE).read().await.unwrap().unwrap();
            assert_eq!((terms.version, terms.commit), (expected, format!("commit {expected}")));
        }
        mark.accept(4, "commit 4".to_owned()).await.unwrap();
        assert_eq!(mark.read().await.unwrap().unwrap().version, 4);
        assert_eq!(names(&state), [format!("{LAKE}.mark")], "no staged file is left");
        let text = std::fs::read_to_string(state.join(format!("{LAKE}.mark"))).unwrap();
        assert_eq!(text, format!(r#"{{"format":1,"lake":"{LAKE}","version":4,"commit":"commit 4"}}"#));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn mark_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        Mark::new(&state, LAKE).raise(1, String::new()).await;
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&state), mode(&state.join(format!("{LAKE}.mark")))), (0o700, 0o600));
    }

    #[tokio::test]
    async fn many_writers_end_at_one_of_their_versions() {
        let folder = tempfile::tempdir().unwrap();
        let marks = (1..=16_u64).map(|version| {
            let mark = Mark::new(folder.path(), LAKE);
            tokio::spawn(async move { mark.raise(version, version.to_string()).await })
        });
        futures::future::join_all(marks).await;
        let terms = Mark::new(folder.path(), LAKE).read().await.unwrap().unwrap();
        assert_eq!(terms.commit, terms.version.to_string(), "whole, whoever wrote it");
        Mark::new(folder.path(), LAKE).raise(20, "20".to_owned()).await;
        assert_eq!(Mark::new(folder.path(), LAKE).read().await.unwrap().unwrap().version, 20);
    }

    #[tokio::test]
    async fn garbled_mark_is_a_config_error_naming_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let mark = Mark::new(folder.path(), LAKE);
        let file = folder.path().join(format!("{LAKE}.mark"));
        let other = LAKE.replace("000001", "000002");
        for (text, part) in [
            (String::new(), "damaged"),
            ("{\"format\":1".to_owned(), "damaged"),
            (format!(r#"{{"format":2,"lake":"{LAKE}","version":4,"commit":"x"}}"#), "format"),
            (format!(r#"{{"format":1,"lake":"{other}","version":4,"commit":"x"}}"#), "another lake"),
        ] {
            std::fs::write(&file, &text).unwrap();
            let error = mark.read().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            assert!(error.to_string().contains(part), "{text}: {error}");
            assert!(error.to_string().contains(".mark"), "{error}");
            assert!(error.hint().is_some());
        }
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert_eq!(mark.read().await.unwrap_err().kind(), ErrorKind::Config, "not readable as a file");
    }

    #[tokio::test]
    async fn folder_that_cannot_be_made_fails_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "x").unwrap();
        let mark = Mark::new(&folder.path().join("file"), LAKE);
        // A file stands where the folder should be, so the mark is absent, not unreadable.
        mark.raise(1, String::new()).await;
        mark.raise(2, String::new()).await;
        assert!(mark.0.is_warned.load(Ordering::Relaxed));
        assert!(mark.accept(1, String::new()).await.is_err());
    }

    #[test]
    fn name_of_the_file_stays_in_the_folder() {
        let mark = Mark::new(Path::new("/state"), "../../etc/x");
        assert_eq!(mark.0.file(), Path::new("/state/______etc_x.mark"));
    }
}
