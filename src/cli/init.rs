//! `counterfoil init`: first settings, the shipped schemas and queries, a root key and an empty lake.
//!
//! Nothing is overwritten: what is there already is named, and nothing is changed.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::{Context, say};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::keys::RootKey;
use crate::lake::{Lake, StoreSettings};
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
    /// Where the lake goes: file:PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX; a bucket is reached by the
    /// environment's credentials or by COUNTERFOIL_LAKE__ENDPOINT and its like
    #[arg(long, value_name = "URL", default_value = LAKE)]
    lake: String,
}

/// The root key that `init` makes unless told otherwise.
const KEY_FILE: &str = "file:root.key";

/// The lake that `init` makes unless told otherwise.
pub(super) const LAKE: &str = "file:lake";

/// What `init` makes, by name in the folder.
const MADE: [&str; 3] = ["counterfoil.toml", "schemas", "queries"];

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let folder = &arguments.folder;
    let source = format!(
        "org = \"{}\"          # https://{0}.kustomerapp.com in the browser\n",
        checked(&arguments.org)?
    ) + "api_key = \"env:KUSTOMER_API_KEY\"  # a reference: env:NAME or file:PATH, never the key itself\n"
        + "plan = \"enterprise\"   # professional | business | enterprise | ultimate: sets the organisation's requests a minute\n"
        + "share = 0.5           # the part of the rate limits that this program may use\n";
    write_folder(context, folder, &source, &arguments.root, &place(folder, &arguments.lake)?).await?;
    if context.quiet {
        return Ok(());
    }
    say(&format!("wrote {} to {}, and a lake at {}", MADE.join(", "), folder.display(), arguments.lake));
    match arguments.root.strip_prefix("file:") {
        Some(file) => say(&format!(
            "keep {file}: without it nobody can read the lake; keep it out of git and away from the lake's store"
        )),
        None => say(&format!("the root key is {}: without it nobody can read the lake", arguments.root)),
    }
    let enter = if folder == Path::new(".") { String::new() } else { format!("cd {}, ", folder.display()) };
    say(&format!(
        "next: {enter}export KUSTOMER_API_KEY=…, counterfoil doctor, counterfoil extract, counterfoil query reopened_vip"
    ));
    Ok(())
}

/// Reads the settings of a lake's store from the environment, as every command will.
fn place(folder: &Path, url: &str) -> Result<StoreSettings> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("COUNTERFOIL_LAKE__"));
    let mut lake = Settings::parse("", "environment", environment)?.compose(folder.to_owned())?.lake;
    url.clone_into(&mut lake.url);
    Ok(lake)
}

/// Writes everything; `source` is the text of the section `[source]`, `root` the reference of the root key.
pub(super) async fn write_folder(
    context: &Context,
    folder: &Path,
    source: &str,
    root: &str,
    lake: &StoreSettings,
) -> Result<()> {
    let key_file = root.strip_prefix("file:").map(|file| folder.join(file));
    let made = MADE.iter().map(|name| folder.join(name));
    for path in made.chain(key_file.clone()).chain(lake.folder()?) {
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
    if lake.folder()?.is_none() {
        // A bucket is asked before anything is written too.
        lake.check(context.clock.as_ref()).await?;
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
        RootKey::create_file(&file)?;
    }
    let key = RootKey::read(root, folder)?;
    Lake::create(lake, &key, Arc::clone(&context.clock)).await?;
    let ignore = folder.join(".gitignore");
    if !ignore.exists() {
        write(&ignore, "*.key\nlake/\n")?;
    }
    // The settings come last: a folder that has them is whole.
    write(&folder.join("counterfoil.toml"), &settings(source, root, lake))
}

fn settings(source: &str, root: &str, lake: &StoreSettings) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let mut place = format!(
        "url = {}     # file:PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX\n",
        quoted(&lake.url)
    );
    let texts = [("endpoint", &lake.endpoint), ("region", &lake.region), ("account", &lake.account)];
    for (name, value) in texts.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        let _ = writeln!(place, "{name} = {}", quoted(value));
    }
    let references = [
        ("access_key_id", &lake.access_key_id),
        ("secret_access_key", &lake.secret_access_key),
        ("session_token", &lake.session_token),
        ("service_account", &lake.service_account),
        ("account_key", &lake.account_key),
        ("sas_token", &lake.sas_token),
    ];
    for (name, value) in references.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        let _ = writeln!(place, "{name} = {}", quoted(&value.to_string()));
    }
    let root =
        format!("root = \"{root}\"    # file:PATH, passphrase:env:NAME, env:NAME, aws-kms:KEY or vault:MOUNT/KEY\n");
    let mut text = String::from(
        "# Settings of counterfoil. Each is also an environment variable, COUNTERFOIL_SECTION__KEY, which wins.\n\n",
    );
    let sections = [
        ("source", source),
        ("lake", place.as_str()),
        ("keys", root.as_str()),
        ("policy", "schemas = \"schemas\"       # which fields are stored, and how; what is not declared is dropped\n"),
        ("query", "library = \"queries\"\nmemory = \"320MiB\"\n"),
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
