//! `counterfoil keys`: the key ring of the lake.
//!
//! What cannot be undone asks first: `destroy` shows what would be lost and gives a code that a second call has to repeat,
//! `export` wants to be told `--yes` or to be answered on a terminal. Key bytes go to standard output of `export`, and nowhere
//! else.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{Context, grouped, print, say};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{KeyRing, KeySettings, KeyState, RootKey, Series};
use crate::lake::{Expire, Lake, Lease, Protected, Protection, Purpose};

mod pseudonyms;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keys of the ring, and what each still protects
    Ls,
    /// Make the root key's file and the lake with its ring, where they are missing
    Init {
        /// Make the second ring, which opens restricted columns, and the file of keys.restricted
        #[arg(long)]
        restricted: bool,
    },
    /// Make a new primary key; older keys go on decrypting
    Rotate(Rotate),
    /// Seal the ring under another root key, or move files under the primary key
    Rewrap(Rewrap),
    /// Refuse the use of a key until it is enabled again
    Disable {
        /// Key, such as ring-1
        id: String,
    },
    /// Allow a disabled key again
    Enable {
        /// Key, such as ring-1
        id: String,
    },
    /// Destroy a key: what it protects can never be read again
    Destroy(Destroy),
    /// Print a key in base64, for PyArrow, Spark or DuckDB
    Export {
        /// Key, such as ring-1
        id: String,
        /// Do not ask whether to print it
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
struct Rotate {
    /// Instead make a new key of pseudonyms, and change every stored pseudonym to it
    #[arg(long, conflicts_with = "restricted")]
    pseudonyms: bool,
    /// Of the ring that opens restricted columns
    #[arg(long)]
    restricted: bool,
    /// Only say what would be rewritten
    #[arg(long, requires = "pseudonyms")]
    dry_run: bool,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
struct Rewrap {
    /// Seal the ring under this root key; afterwards change the setting keys.root
    #[arg(long, value_name = "REFERENCE", group = "what")]
    root: Option<String>,
    /// Address of the key service of --root, where it differs from the setting keys.endpoint
    #[arg(long, value_name = "URL", requires = "root")]
    endpoint: Option<String>,
    /// Seal the ring that opens restricted columns, by --root; afterwards change the setting keys.restricted
    #[arg(long, requires = "root")]
    restricted: bool,
    /// Wrap the keys of files anew under the primary key, so that older keys are not needed any more
    #[arg(long, group = "what")]
    files: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct Destroy {
    /// Key, such as ring-1
    id: String,
    /// Show what would be lost, and the code for --confirm
    #[arg(long, conflicts_with = "confirm")]
    dry_run: bool,
    /// Code that the dry run printed
    #[arg(long, value_name = "CODE")]
    confirm: Option<String>,
    /// Destroy the key although the newest version cannot be read without it
    #[arg(long)]
    lose_data: bool,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let config = context.settings()?;
    match &arguments.command {
        Command::Ls => list(context, &config).await,
        Command::Init { restricted: true } => init_restricted(context, &config).await,
        Command::Init { restricted: false } => init(context, &config).await,
        Command::Rotate(Rotate { pseudonyms: true, dry_run, .. }) => {
            pseudonyms::rotate(context, &config, *dry_run).await
        }
        Command::Rotate(Rotate { restricted, .. }) => rotate(context, &config, *restricted).await,
        Command::Rewrap(Rewrap { root: Some(root), endpoint, restricted, dry_run, .. }) => {
            let series = if *restricted { Series::Restricted } else { Series::Main };
            rewrap_ring(context, &config, (series, root), endpoint.as_ref(), *dry_run).await
        }
        Command::Rewrap(rewrap) => rewrap_files(context, &config, rewrap.dry_run).await,
        Command::Disable { id } => switch(context, &config, id, KeyState::Disabled).await,
        Command::Enable { id } => switch(context, &config, id, KeyState::Enabled).await,
        Command::Destroy(arguments) => destroy(context, &config, arguments).await,
        Command::Export { id, yes } => export(context, &config, id, *yes).await,
    }
}

/// The leases that keep others from writing; given back together.
struct Leases(Vec<Lease>);

impl Leases {
    async fn take(lake: &Lake, purposes: &[Purpose], command: &str) -> Result<Self> {
        let holder = format!("keys {command}, process {}", std::process::id());
        let mut leases = Self(Vec::new());
        for purpose in purposes {
            match lake.lease(*purpose, &holder).await {
                Ok(lease) => leases.0.push(lease),
                Err(error) => {
                    leases.release().await;
                    return Err(error);
                }
            }
        }
        Ok(leases)
    }

    /// Gives the leases back; one that stays ends by itself.
    async fn release(self) {
        for lease in self.0.into_iter().rev() {
            let _ = lease.release().await;
        }
    }
}

/// All leases, in the order in which everybody takes them.
const ALL: [Purpose; 3] = [Purpose::Maintenance, Purpose::Extract, Purpose::Record];

async fn list(context: &Context, config: &Config) -> Result<()> {
    let lake = context.lake(config).await?;
    let protection = lake.protection().await?;
    let ring = lake.ring();
    let mut text = format!("ring version  {}\nroot key      {}\n", ring.version(), config.root_key);
    let _ = writeln!(text, "lake          {}, id {}", lake.url(), lake.id());
    if protection.version.is_none() {
        text +=
            "note          the newest version needs a key that is disabled or destroyed; its files count as others\n";
    }
    let _ = writeln!(
        text,
        "{:<10} {:<10} {:<16} {:>10} {:>16} {:>11} {:>11}",
        "key", "state", "made", "live files", "bytes", "other files", "log objects"
    );
    let restricted = ring.restricted().map(KeyRing::keys).unwrap_or_default();
    for key in ring.keys().into_iter().chain(restricted) {
        let protected = protection.of(&key.id);
        let (files, bytes) = protected.live_files();
        let _ = writeln!(
            text,
            "{:<10} {:<10} {:<16} {:>10} {:>16} {:>11} {:>11}",
            key.id,
            key.state.name(),
            day(key.created_ms),
            grouped(files),
            grouped(bytes),
            grouped(protected.other_files),
            grouped(protected.commits + protected.snapshots),
        );
    }
    match (ring.restricted(), lake.restricted_version().await?, &config.restricted_key) {
        (Some(restricted), _, Some(root)) => {
            let _ = writeln!(text, "restricted ring version {}, root key {root}", restricted.version());
        }
        (None, Some(version), _) => {
            let _ = writeln!(text, "restricted ring version {version} is not opened: keys.restricted is not set");
            let known = protection.keys.iter().filter(|(id, _)| Series::of(id) == Series::Restricted);
            for (id, protected) in known {
                let (files, _) = protected.live_files();
                let _ = writeln!(text, "{id} protects columns of {} live files", grouped(files));
            }
        }
        _ => {}
    }
    // The newest version cannot be read where it needs a key that is disabled or destroyed.
    let in_force = match protection.version {
        Some(_) => Some(lake.latest().await?.pseudonym_version()),
        None => None,
    };
    let _ = writeln!(text, "\n{:<10} {:<10} {:<16}", "pseudonyms", "state", "made");
    for key in ring.pseudonym_versions() {
        let state = in_force.map_or("unknown", |in_force| match key.version.cmp(&in_force) {
            Ordering::Less => "former",
            Ordering::Equal => "in force",
            Ordering::Greater => "waiting",
        });
        let _ = writeln!(text, "{:<10} {state:<10} {:<16}", format!("p{}", key.version), day(key.created_ms));
    }
    print(&text)
}

/// Reads the root key of the ring that a key belongs to.
fn root_of(config: &Config, series: Series) -> Result<RootKey> {
    match series {
        Series::Main => config.root(),
        Series::Restricted => config.restricted()?.ok_or_else(|| {
            Error::config("missing setting `keys.restricted`")
                .with_hint("restricted = \"file:restricted.key\" under [keys]: the root key of the restricted ring")
        }),
    }
}

async fn init_restricted(context: &Context, config: &Config) -> Result<()> {
    let Some(reference) = &config.restricted_key else { return root_of(config, Series::Restricted).map(drop) };
    if *reference == config.root_key {
        return Err(Error::config("`keys.restricted` is the same key as `keys.root`; nothing was changed")
            .with_context("reference", reference)
            .with_hint("restricted columns are worth their name only under a key that not everybody has"));
    }
    let lake = Lake::open(&config.lake, &config.root()?, Arc::clone(&context.clock)).await?;
    let file = reference.strip_prefix("file:").map(|file| config.base.join(file));
    let is_missing = file.as_ref().is_some_and(|path| !path.exists());
    if let (Some(path), true, None) = (&file, is_missing, lake.restricted_version().await?) {
        RootKey::create_file(path)?;
    }
    let root = root_of(config, Series::Restricted)?;
    let leases = Leases::take(&lake, &ALL, "init --restricted").await?;
    let made = lake.create_restricted(&root).await;
    leases.release().await;
    let ring = made?;
    if !context.quiet {
        say(&format!("made the restricted ring with {}, sealed by {reference}", ring.primary_id()?));
        say("keep that root key apart from the other: whoever has only keys.root reads NULL in restricted columns");
    }
    Ok(())
}

async fn init(context: &Context, config: &Config) -> Result<()> {
    if Lake::exists(&config.lake).await? {
        return Err(Error::config("there is a lake with a key ring already; nothing was changed")
            .with_context("url", &config.lake.url)
            .with_hint("`counterfoil keys ls` shows its keys; `counterfoil keys rotate` makes a new one"));
    }
    let file = config.root_key.strip_prefix("file:").map(|file| config.base.join(file));
    let made = match &file {
        Some(path) if !path.exists() => {
            RootKey::create_file(path)?;
            true
        }
        _ => false,
    };
    let lake = Lake::create(&config.lake, &config.root()?, Arc::clone(&context.clock)).await?;
    if !context.quiet {
        say(&format!("made the lake {} with a key ring, sealed by {}", lake.url(), config.root_key));
        if made {
            say(&format!("made {}: without it nobody can read the lake; keep it apart from the lake", config.root_key));
        }
    }
    Ok(())
}

async fn rotate(context: &Context, config: &Config, restricted: bool) -> Result<()> {
    let root = root_of(config, if restricted { Series::Restricted } else { Series::Main })?;
    let lake = context.lake(config).await?;
    let leases = Leases::take(&lake, &ALL, "rotate").await?;
    let rotated = if restricted { lake.rotate_restricted(&root).await } else { lake.rotate_keys(&root).await };
    leases.release().await;
    let ring = rotated?;
    if !context.quiet {
        say(&format!("{} is the primary key now, ring version {}", ring.primary_id()?, ring.version()));
        say(
            "files keep the key that they were written under until they are compacted, or `counterfoil keys rewrap --files` \
             moves them; processes that are running go on with the old ring until they are started again",
        );
    }
    Ok(())
}

async fn switch(context: &Context, config: &Config, id: &str, state: KeyState) -> Result<()> {
    let root = root_of(config, Series::of(id))?;
    let lake = context.lake(config).await?;
    let leases = Leases::take(&lake, &ALL, state.name()).await?;
    let switched = match state {
        KeyState::Disabled => lake.disable_key(&root, id).await,
        _ => lake.enable_key(&root, id).await,
    };
    leases.release().await;
    let ring = switched?;
    if !context.quiet {
        say(&format!("{id} is {}, ring version {}", state.name(), ring.version()));
        if state == KeyState::Disabled {
            say(
                "older rings under keys/ still hold it as enabled: this guards against use, not against whoever has the root key",
            );
        }
    }
    Ok(())
}

async fn rewrap_ring(
    context: &Context,
    config: &Config,
    (series, reference): (Series, &str),
    endpoint: Option<&String>,
    dry_run: bool,
) -> Result<()> {
    let (setting, present) = (
        series.setting(),
        match series {
            Series::Main => config.root_key.as_str(),
            Series::Restricted => config.restricted_key.as_deref().unwrap_or_default(),
        },
    );
    let settings = KeySettings { endpoint: endpoint.or(config.keys.endpoint.as_ref()).cloned(), ..config.keys.clone() };
    let root = RootKey::configured(reference, &config.base, &settings)?;
    let lake = context.lake(config).await?;
    let ring = if series == Series::Main { lake.ring() } else { lake.ring().restricted_ring()? };
    let older = lake.others_of(ring).await?.len() + 1;
    let version = ring.version();
    if dry_run {
        return print(&format!(
            "would seal the ring under {reference} as version {}, and delete the {older} older versions that {} opens\n",
            version.saturating_add(1),
            present
        ));
    }
    let leases = Leases::take(&lake, &ALL, "rewrap --root").await?;
    let sealed = match series {
        Series::Main => lake.rewrap_ring(&root).await,
        Series::Restricted => lake.rewrap_restricted(&root).await,
    };
    leases.release().await;
    let ring = sealed?;
    // Said whatever --quiet asks for: without it the next command fails.
    say(&format!("ring version {} is sealed by {reference}; set {setting} = \"{reference}\" now", ring.version()));
    if let Some(endpoint) = endpoint {
        say(&format!("and keys.endpoint = \"{endpoint}\""));
    }
    if !context.quiet {
        say(&format!(
            "the {older} older ring versions were deleted; copies of them in backups still open with {present}, and hold the same \
             keys: keep that root key as secret as before, or `counterfoil keys rotate` and rewrap the files too"
        ));
    }
    Ok(())
}

async fn rewrap_files(context: &Context, config: &Config, dry_run: bool) -> Result<()> {
    let lake = context.lake(config).await?;
    if dry_run {
        let plan = lake.plan_rewrap().await?;
        let log = if plan.log { "; the newest version of the log moves as well" } else { "" };
        return print(&format!(
            "would wrap {} files of {} bytes anew under {}{log}\n",
            grouped(plan.files),
            grouped(plan.bytes),
            lake.ring().primary_id()?
        ));
    }
    let mut leases = Leases::take(&lake, &[Purpose::Maintenance], "rewrap --files").await?;
    let done = match leases.0.first_mut() {
        Some(lease) => lake.rewrap_files(lease).await,
        None => Err(Error::internal("lease is missing")),
    };
    leases.release().await;
    let done = done?;
    if !context.quiet {
        let primary = lake.ring().primary_id()?;
        if done.files == 0 && !done.log {
            say(&format!("everything that version {} needs is under {primary} already", done.version));
        } else {
            say(&format!(
                "wrapped {} files of {} bytes anew under {primary}, version {}",
                grouped(done.files),
                grouped(done.bytes),
                done.version
            ));
            say(
                "earlier versions still need the older keys, until they expire and `counterfoil lake gc` deletes their objects",
            );
        }
    }
    Ok(())
}

async fn destroy(context: &Context, config: &Config, arguments: &Destroy) -> Result<()> {
    let id = arguments.id.as_str();
    let root = root_of(config, Series::of(id))?;
    let lake = context.lake(config).await?;
    let ring = lake.ring().holder(id)?;
    if ring.state(id)? == KeyState::Primary {
        return Err(Error::config("primary key cannot be destroyed; nothing was changed")
            .with_context("key", id)
            .with_hint(
                "`counterfoil keys rotate` makes another key the primary one, `keys rewrap --files` moves the files",
            ));
    }
    let code = code(ring, id);
    if arguments.dry_run {
        return print(&losses(&lake, id, &lake.protection().await?, &code).await?);
    }
    let refused = |message: &str| {
        Error::config(message).with_context("key", id).with_context("ring version", ring.version()).with_hint(format!(
            "`counterfoil keys destroy {id} --dry-run` shows what would be lost, and the code for --confirm"
        ))
    };
    match &arguments.confirm {
        None => return Err(refused("key is destroyed only after a dry run; nothing was changed")),
        Some(given) if *given != code => {
            return Err(refused("code is not the one of the last dry run of this key and ring; nothing was changed"));
        }
        Some(_) => {}
    }
    let leases = Leases::take(&lake, &ALL, "destroy").await?;
    let destroyed = destroy_with_leases(&lake, &root, id, arguments.lose_data).await;
    leases.release().await;
    let ring = destroyed?;
    say(&format!("{id} is destroyed, ring version {}; older ring versions were deleted", ring.version()));
    say("copies and backups of keys/ still hold it: delete them too, or what it protected can be read with them");
    Ok(())
}

async fn destroy_with_leases(lake: &Lake, root: &RootKey, id: &str, lose_data: bool) -> Result<KeyRing> {
    // Looked at again under the leases: nobody writes any more.
    let protection = lake.protection().await?;
    let is_needed = lake.ring().holder(id)?.state(id)? != KeyState::Destroyed && protection.needs(id);
    if is_needed && !lose_data {
        return Err(Error::config("newest version of the lake cannot be read without the key; nothing was changed")
            .with_context("key", id)
            .with_hint(
                "`counterfoil keys rewrap --files` moves it under the primary key; --lose-data destroys the key all the same",
            ));
    }
    // Versions that only the key opens end before it does: a log that began with one of them could be neither read nor tidied.
    if !is_needed && let Some((_, last)) = protection.of(id).versions.last() {
        lake.expire(Expire::BeforeVersion(last + 1)).await?;
    }
    lake.destroy_key(root, id).await
}

/// Says what the destruction of a key would make unreadable.
async fn losses(lake: &Lake, id: &str, protection: &Protection, code: &str) -> Result<String> {
    let protected = protection.of(id);
    let ring = lake.ring().holder(id)?;
    let state = ring.state(id)?;
    let mut text = format!("key {id}, {}, ring version {} of lake {}\n", state.name(), ring.version(), lake.id());
    let older = lake.others_of(ring).await?.len() + usize::from(state != KeyState::Destroyed);
    let _ = writeln!(text, "would be deleted: {older} older ring versions that hold keys");
    if protected == Protected::default() {
        text += "would become unreadable: nothing\n";
    } else {
        text += match ring.series() {
            Series::Main => "would become unreadable:\n",
            Series::Restricted => "restricted columns would read NULL for everybody:\n",
        };
        for (stream, files) in &protected.tables {
            let _ = writeln!(
                text,
                "  {:<10} {:>8} files  {:>12} live rows  {:>14} bytes of the newest version",
                stream.table(),
                grouped(files.files),
                grouped(files.live_rows),
                grouped(files.bytes)
            );
        }
        if protected.other_files > 0 {
            let _ = writeln!(
                text,
                "  {} files of {} bytes that only earlier versions name, or none",
                grouped(protected.other_files),
                grouped(protected.other_bytes)
            );
        }
        if protected.commits + protected.snapshots > 0 {
            let _ = writeln!(
                text,
                "  {} commits and {} snapshots of the log",
                grouped(protected.commits),
                grouped(protected.snapshots)
            );
        }
        if !protected.versions.is_empty() {
            let ranges: Vec<String> = protected
                .versions
                .iter()
                .map(|(from, to)| if from == to { from.to_string() } else { format!("{from} to {to}") })
                .collect();
            let _ = writeln!(text, "  versions {}", ranges.join(", "));
        }
    }
    let lose = if protection.needs(id) {
        text += "the newest version needs it: `counterfoil keys rewrap --files` first, or --lose-data\n";
        " --lose-data"
    } else {
        ""
    };
    let _ = writeln!(text, "this cannot be undone: counterfoil keys destroy {id} --confirm {code}{lose}");
    Ok(text)
}

/// The code that a dry run gives: of the lake, the ring as it is, and the key.
fn code(ring: &KeyRing, id: &str) -> String {
    let text = format!("counterfoil keys destroy\n{}\n{}\n{id}", ring.lake_id(), ring.version());
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let mut parts =
        digest.as_ref().chunks(2).map(|pair| pair.iter().fold(0_u16, |sum, byte| sum << 8 | u16::from(*byte)));
    let mut part = || parts.next().unwrap_or_default();
    format!("{:04x}-{:04x}", part(), part())
}

async fn export(context: &Context, config: &Config, id: &str, yes: bool) -> Result<()> {
    let lake = context.lake(config).await?;
    lake.ring().holder(id)?.state(id)?;
    let key = lake.ring().export(id)?;
    say(&format!(
        "whoever has {id} can read every file that it wraps, for as long as there are copies; it is not logged"
    ));
    if !yes && !is_answered(id)? {
        return Err(Error::new(ErrorKind::Config, "key was not printed")
            .with_context("key", id)
            .with_hint("say --yes, or answer the question on a terminal"));
    }
    let mut line = Zeroizing::new(String::with_capacity(45));
    STANDARD.encode_string(key.expose(), &mut line);
    line.push('\n');
    print(&line)
}

/// Asks on a terminal whether to print a key; without one there is nobody to answer.
fn is_answered(id: &str) -> Result<bool> {
    let input = std::io::stdin();
    if !input.is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(false);
    }
    say(&format!("type {id} to print it"));
    let mut answer = String::new();
    let read = input.lock().read_line(&mut answer);
    read.map_err(|source| Error::config("failed to read the answer").with_source(source))?;
    Ok(answer.trim() == id)
}

fn day(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| time.strftime("%Y-%m-%d %H:%M").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_of_one_lake_one_ring_and_one_key() {
        let ring = KeyRing::generate("lake", 0).unwrap();
        let rotated = ring.rotate(0).unwrap();
        let codes = [
            code(&ring, "ring-1"),
            code(&rotated, "ring-1"),
            code(&rotated, "ring-2"),
            code(&KeyRing::generate("other", 0).unwrap(), "ring-1"),
        ];
        for (place, code) in codes.iter().enumerate() {
            assert_eq!(code.len(), 9);
            assert!(!codes[place + 1..].contains(code));
        }
        assert_eq!(codes[0], code(&ring, "ring-1"));
    }
}
