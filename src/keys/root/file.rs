//! The root key in a file: one line `counterfoil-root-1:` and the base64 of 32 bytes, mode 0600.
//!
//! Nobody but its owner may use it. A file of root's that its group may read is taken too, from a process that is not
//! root: so services get their secrets, from systemd (`LoadCredential=`, where its file system has access lists, which show
//! as the group's right) and from Kubernetes (a mounted Secret with an `fsGroup`).

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::keys::gcm;
use crate::keys::root::decode;
use crate::secret::SecretKey;

/// What the line of a key file begins with; the number is the format's version.
pub(super) const FILE_PREFIX: &str = "counterfoil-root-1:";

/// Makes a new key file of mode 0600; never overwrites.
///
/// The file and its directory are synced before this returns, so that no lake can outlive its key in a power cut.
///
/// # Errors
///
/// [`Conflict`](crate::error::ErrorKind::Conflict) when something stands at the path, [`Config`](crate::error::ErrorKind::Config)
/// when the file cannot be written.
pub(super) fn create(path: &Path) -> Result<()> {
    let key = gcm::random_key()?;
    let mut line = Zeroizing::new(String::with_capacity(FILE_PREFIX.len() + 45));
    line.push_str(FILE_PREFIX);
    STANDARD.encode_string(key.expose(), &mut line);
    line.push('\n');

    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let failed = |source: std::io::Error| {
        Error::config("failed to write the root key's file").with_context("file", path.display()).with_source(source)
    };
    let mut file = options.open(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Error::new(crate::error::ErrorKind::Conflict, "root key's file exists already")
                .with_context("file", path.display())
                .with_hint("keep it: what it wraps cannot be read without it; name another path for a new key")
        }
        _ => failed(source),
    })?;
    if let Err(source) = file.write_all(line.as_bytes()).and_then(|()| file.sync_all()) {
        // Half a key must not stand in the way of the next try; that it may stay behind is told by the error below.
        let _ = std::fs::remove_file(path);
        return Err(failed(source));
    }
    #[cfg(unix)]
    File::open(match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    })
    .and_then(|directory| directory.sync_all())
    .map_err(failed)?;
    Ok(())
}

/// Reads the key of a file.
pub(super) fn read(path: &Path) -> Result<SecretKey> {
    let mut file = File::open(path).map_err(|source| unreadable(path, source))?;
    refuse_readable_by_others(&file, path)?;
    // A key file is one short line; whatever is longer is no key, and is not read into memory whole.
    let mut text = Zeroizing::new(String::with_capacity(256));
    let key = match Read::by_ref(&mut file).take(256).read_to_string(&mut text) {
        Ok(_) => text.trim_end().strip_prefix(FILE_PREFIX).and_then(decode),
        Err(source) if source.kind() == std::io::ErrorKind::InvalidData => None,
        Err(source) => return Err(unreadable(path, source)),
    };
    key.ok_or_else(|| {
        Error::config(format!("file holds no root key, one line of `{FILE_PREFIX}` and the base64 of 32 bytes"))
            .with_context("file", path.display())
            .with_hint("name the key's file, or restore it from its backup")
    })
}

fn unreadable(path: &Path, source: std::io::Error) -> Error {
    let error = Error::config("failed to read the root key's file").with_context("file", path.display());
    let error = match source.kind() {
        std::io::ErrorKind::NotFound => error.with_hint(
            "`counterfoil init` makes one for a new lake, `counterfoil keys init --restricted` one for restricted columns; a lake \
             that is there opens with its own key only, from your backup",
        ),
        _ => error,
    };
    error.with_source(source)
}

#[cfg(unix)]
fn refuse_readable_by_others(file: &File, path: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = file.metadata().map_err(|source| unreadable(path, source))?;
    let mode = metadata.mode() & 0o777;
    // Where the system does not tell who asks, the stricter rule holds.
    let asked_by = std::fs::metadata("/proc/self").map_or(0, |own| own.uid());
    if is_private(mode, metadata.uid(), asked_by) {
        return Ok(());
    }
    Err(Error::config("root key's file can be used by other users")
        .with_context("file", path.display())
        .with_context("mode", format!("{mode:04o}"))
        .with_hint(format!("chmod 600 {}", path.display())))
}

/// Whether a file of this mode and owner is kept from others, as far as a process of user `asked_by` has to care.
#[cfg(unix)]
const fn is_private(mode: u32, owner: u32, asked_by: u32) -> bool {
    const ROOT: u32 = 0;
    /// Every right of the group and of all others.
    const OTHERS: u32 = 0o077;
    const GROUP_READS: u32 = 0o040;
    let is_given_by_root = owner == ROOT && asked_by != ROOT;
    mode & OTHERS == 0 || (is_given_by_root && mode & OTHERS == GROUP_READS)
}

#[cfg(not(unix))]
fn refuse_readable_by_others(_file: &File, _path: &Path) -> Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn file_is_private_to_its_owner_or_given_by_root_to_a_group() {
        let (root, service, other) = (0, 990, 1000);
        for (mode, owner, asked_by, expected) in [
            (0o600, service, service, true),
            (0o400, root, root, true),
            // What systemd and Kubernetes mount.
            (0o440, root, service, true),
            (0o640, root, service, true),
            (0o440, root, root, false),
            (0o440, service, service, false),
            (0o440, other, service, false),
            (0o444, root, service, false),
            (0o460, root, service, false),
            (0o450, root, service, false),
            (0o441, root, service, false),
        ] {
            assert_eq!(is_private(mode, owner, asked_by), expected, "{mode:o} of {owner}, asked by {asked_by}");
        }
    }
}
