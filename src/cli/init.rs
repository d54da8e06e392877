//! `counterfoil init`: first settings, the shipped schemas and queries, a root key and an empty lake.
//!
//! Nothing is overwritten: what is there already is named, and nothing is changed.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::{Context, say};
use crate::error::{Error, Result};
use crate::keys::RootKey;
use crate::lake::Lake;
use crate::{query, schema};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Folder to write to
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Organisation, the part before .kustomerapp.com
    #[arg(long, default_value = "acme")]
    org: String,
    /// Root key: a new key file (file:root.key), passphrase:env:NAME, env:NAME, aws-kms:KEY or vault:MOUNT/KEY
    #[arg(long, value_name = "REFERENCE", default_value = KEY_FILE)]
    root: String,
}

/// The root key that `init` makes unless told otherwise.
const KEY_FILE: &str = "file:root.key";

/// What `init` makes, by name in the folder.
const MADE: [&str; 4] = ["counterfoil.toml", "schemas", "queries", "lake"];

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let folder = &arguments.folder;
    let source = format!(
        "org = \"{}\"          # https://{0}.kustomerapp.com in the browser\n",
        checked(&arguments.org)?
    ) + "api_key = \"env:KUSTOMER_API_KEY\"  # a reference: env:NAME or file:PATH, never the key itself\n"
        + "plan = \"enterprise\"   # professional | business | enterprise | ultimate: sets the organisation's requests a minute\n"
        + "share = 0.5           # the part of the rate limits that this program may use\n";
    write_folder(context, folder, &source, &arguments.root).await?;
    if context.quiet {
        return Ok(());
    }
    say(&format!("wrote {} to {}", MADE.join(", "), folder.display()));
    match arguments.root.strip_prefix("file:") {
        Some(file) => say(&format!(
            "keep {file}: without it nobody can read the lake; keep it out of git and away from the lake's store"
        )),
        None => say(&format!("the root key is {}: without it nobody can read the lake", arguments.root)),
    }
    let enter = if folder == Path::new(".") { String::new() } else { format!("cd {}, ", folder.display()) };
    say(&format!("next: {enter}export KUSTOMER_API_KEY=…, counterfoil extract, counterfoil query reopened_vip"));
    Ok(())
}

/// Writes everything; `source` is the text of the section `[source]`, `root` the reference of the root key.
pub(super) async fn write_folder(context: &Context, folder: &Path, source: &str, root: &str) -> Result<()> {
    let key_file = root.strip_prefix("file:");
    for name in MADE.into_iter().chain(key_file) {
        let path = folder.join(name);
        if path.exists() {
            return Err(Error::config("there already; nothing was changed")
                .with_context("path", path.display())
                .with_hint("name another folder: `counterfoil init FOLDER`"));
        }
    }
    if key_file.is_none() {
        // A reference that cannot be read is told before anything is written.
        RootKey::read(root, folder)?;
    }
    for (name, files) in [("schemas", &schema::BUILTIN[..]), ("queries", &query::library::BUILTIN[..])] {
        create_folder(&folder.join(name))?;
        for (file, text) in files {
            write(&folder.join(name).join(file), text)?;
        }
    }
    for (file, text) in schema::OPTIONAL {
        // Only what ends in `.toml` is read: removing `.off` turns the stream on.
        write(&folder.join("schemas").join(format!("{file}.off")), text)?;
    }
    if let Some(file) = key_file {
        RootKey::create_file(&folder.join(file))?;
    }
    let key = RootKey::read(root, folder)?;
    Lake::create("file:lake", folder, &key, Arc::clone(&context.clock)).await?;
    let ignore = folder.join(".gitignore");
    if !ignore.exists() {
        write(&ignore, "*.key\nlake/\n")?;
    }
    // The settings come last: a folder that has them is whole.
    write(&folder.join("counterfoil.toml"), &settings(source, root))
}

fn settings(source: &str, root: &str) -> String {
    let root =
        format!("root = \"{root}\"    # file:PATH, passphrase:env:NAME, env:NAME, aws-kms:KEY or vault:MOUNT/KEY\n");
    let mut text = String::from(
        "# Settings of counterfoil. Each is also an environment variable, COUNTERFOIL_SECTION__KEY, which wins.\n\n",
    );
    let sections = [
        ("source", source),
        ("lake", "url = \"file:lake\"\n"),
        ("keys", root.as_str()),
        ("policy", "schemas = \"schemas\"       # which fields are stored, and how; what is not declared is dropped\n"),
        ("query", "library = \"queries\"\nmemory = \"1GiB\"\n"),
        (
            "extract",
            "index_lag = \"2m\"          # the newest minutes are left to the next run: the source's search index is late\n\
             overlap = \"5m\"            # each run looks this far back behind the last one\n\
             small_every = \"1h\"        # agents, teams, tags, queues, brands and SLAs are read again after this time\n",
        ),
    ];
    for (index, (name, lines)) in sections.iter().enumerate() {
        let gap = if index == 0 { "" } else { "\n" };
        let _ = write!(text, "{gap}[{name}]\n{lines}");
    }
    text
}

fn checked(org: &str) -> Result<&str> {
    if !org.is_empty() && org.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        Ok(org)
    } else {
        Err(Error::config("not an organisation's name")
            .with_context("org", org)
            .with_hint("the part before .kustomerapp.com in the browser, e.g. --org acme"))
    }
}

fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|source| {
        Error::config("failed to make the folder").with_context("path", path.display()).with_source(source)
    })
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|source| {
        Error::config("failed to write the file").with_context("path", path.display()).with_source(source)
    })
}
