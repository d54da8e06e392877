//! A project: settings, and what can be done with them, in a few calls for programs that use this crate as a library.
//!
//! ```text
//! settings ─▶ Project ─▶ create, open ─▶ Lake
//!                │                        │
//!                ├── extract ─────────────┤─▶ RunReport
//!                ├── query ───────────────┤─▶ Rows: record batches
//!                └── resolve ── ids ─▶ lines of live details
//! ```
//!
//! It composes what the lower layers do, as the command line does, and keeps their guarantees: it has no way around the
//! policy, the rate budget, the encryption or the access record. It prints nothing and installs neither a runtime, a logger,
//! nor a signal's receiver; those are the program's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;

use crate::clock::{SharedClock, SystemClock};
use crate::config::{Config, Settings};
use crate::error::{Error, Result};
use crate::extract::{self, ExtractSettings, Progress, RunReport};
use crate::keys::RootKey;
use crate::kustomer::Client;
use crate::lake::Lake;
use crate::lake::accesses::{Access, Cost, Delivery};
use crate::model::ObjectId;
use crate::policy::{Definitions, Policy, Redaction};
use crate::query::{self, Arguments, Library, QueryFile, Rows, Session};
use crate::resolve::{self, Detail, Hooks, Outcome, Parts, ResolveSettings};
use crate::schema::{self, Schemas};

/// Settings that were read and found right, and what can be done with them.
#[derive(Debug)]
pub struct Project {
    config: Config,
    clock: SharedClock,
}

impl Project {
    /// Reads settings from a file and from the process's environment, as the command line does.
    ///
    /// Relative paths in the settings stand from the folder of the file.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) when the file is missing, is not TOML, or has a key or a value that is not known.
    pub fn load(file: &Path) -> Result<Self> {
        let folder = file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        Ok(Self::of(Settings::load(file)?.compose(folder.to_path_buf())?))
    }

    /// Reads settings from a text, in the form of `counterfoil.toml`; the environment is left out.
    ///
    /// Relative paths in the settings stand from `folder`. Secrets are references there too: `env:NAME` or `file:PATH`.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) when the text is not TOML, or has a key or a value that is not known.
    pub fn parse(settings: &str, folder: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self::of(Settings::parse(settings, "settings", [])?.compose(folder.into())?))
    }

    fn of(config: Config) -> Self {
        Self { config, clock: Arc::new(SystemClock) }
    }

    /// Makes an empty lake, and beside it what the settings name and is not there: the root key's file, the shipped schemas and
    /// the shipped queries.
    ///
    /// Nothing is overwritten: schemas and queries that are there stay as they are. Keep the root key: without it nobody can
    /// read the lake.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) when a file cannot be written or a lake is there already,
    /// [`Denied`](crate::ErrorKind::Denied) when the root key cannot be read,
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when the store does not answer.
    pub async fn create(&self) -> Result<Lake> {
        write_missing(&self.config.schemas, &schema::BUILTIN)?;
        write_missing(&self.config.queries, &query::BUILTIN)?;
        if let Some(file) = self.config.root_key.strip_prefix("file:") {
            let file = self.config.base.join(file);
            if !file.exists() {
                RootKey::create_file(&file)?;
            }
        }
        Lake::create(&self.config.lake, &self.config.root()?, Arc::clone(&self.clock)).await
    }

    /// Opens the lake; restricted columns can be read where the settings name their root key.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) when there is no lake, [`Denied`](crate::ErrorKind::Denied) when the root key does
    /// not open it, [`Data`](crate::ErrorKind::Data) when it is damaged or older than this machine has seen it,
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when the store does not answer.
    pub async fn open(&self) -> Result<Lake> {
        let lake = Lake::open(&self.config.lake, &self.config.root()?, Arc::clone(&self.clock)).await?;
        match self.config.restricted()? {
            Some(root) => lake.with_restricted(&root).await,
            None => Ok(lake),
        }
    }

    /// Returns the bounds of an extract as set, to be changed for a single run.
    #[must_use]
    pub fn extract_settings(&self) -> ExtractSettings {
        self.config.extract.clone()
    }

    /// Runs one extraction into the lake; when `stop` ends, it ends early as an incomplete run.
    ///
    /// Dropping the future is safe too: what was committed stays, and the next run walks the rest. Maintenance that the settings
    /// ask for is the command line's; nothing is compacted here.
    ///
    /// # Errors
    ///
    /// [`Conflict`](crate::ErrorKind::Conflict) when another run is at work; otherwise what the settings, the schemas, the source or
    /// the lake answered. A run that ends incomplete is no error here: see [`RunReport::into_result`].
    pub async fn extract(
        &self,
        lake: &Lake,
        settings: &ExtractSettings,
        progress: &dyn Progress,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<RunReport> {
        let policy = self.policy()?;
        let client = self.client()?;
        extract::run(&client, &policy, lake, &self.clock, settings, progress, stop).await
    }

    /// Reads the SQL files of the settings' folder.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) when the folder cannot be read.
    pub fn library(&self) -> Result<Library> {
        Library::load(&self.config.queries)
    }

    /// Plans a query over the newest version of the lake and starts it; parameters are pairs of name and value.
    ///
    /// The rows are of that one version from the first to the last, whatever is committed meanwhile. `[query] timeout` is not
    /// looked at: drop the rows to end a query.
    ///
    /// # Errors
    ///
    /// [`Query`](crate::ErrorKind::Query) with file, line and column for SQL that is wrong or does more than read,
    /// [`Stale`](crate::ErrorKind::Stale) when the lake is older than the file's `max_age`,
    /// [`Config`](crate::ErrorKind::Config) for a parameter that the file does not have, lacks or cannot take.
    pub async fn query(&self, lake: &Lake, file: &QueryFile, parameters: &[(&str, &str)]) -> Result<Rows> {
        let given: Vec<_> = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let arguments = Arguments::parse(file, &given)?;
        let manifest = lake.latest().await?;
        let session = Session::open(lake, &manifest, &self.config.query, &self.clock)?;
        let plan = session.plan(file, &arguments).await?;
        session.stream(&plan).await
    }

    /// Fetches the details of tickets from the source and writes a line for each, in the order of `ids`; nothing is stored of them.
    ///
    /// What the settings say of every resolve holds here: the access is recorded in `lake` before the first line, and details
    /// are redacted where `[resolve] redact` is set, whatever `settings` says.
    ///
    /// # Errors
    ///
    /// Those of opening the source and of recording the access; then nothing was written.
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when a line cannot be written. What is missing of single tickets is no
    /// error here: see [`Outcome::error`].
    pub async fn resolve(
        &self,
        lake: &Lake,
        ids: &[ObjectId],
        settings: &ResolveSettings,
        out: &mut (impl io::Write + Send),
    ) -> Result<Outcome> {
        if ids.is_empty() {
            return Ok(Outcome::default());
        }
        let mut settings = settings.clone();
        if self.config.redact && settings.redaction.is_none() {
            settings.redaction = Some(Arc::new(self.redaction(lake).await?));
        }
        let client = self.client()?;
        let access = self.access(lake, &settings);
        let delivered = Mutex::new(Vec::new());
        let mut hooks = Hooks::default();
        if self.config.access_record {
            hooks.permit = lake.record_asked(&access, ids).boxed();
            hooks.writing = Box::new(|detail| {
                let delivery = delivery(detail, settings.parts);
                delivered.lock().unwrap_or_else(PoisonError::into_inner).push((detail.ticket_id, delivery));
            });
        }
        let ended = resolve::run(&client, ids, &settings, hooks, &self.clock, out).await;
        let delivered = delivered.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !delivered.is_empty() {
            let several_customers = ended.as_ref().ok().and_then(|outcome| outcome.several_customers);
            let cost = Cost { requests: client.ledger().total(), several_customers };
            let recorded = lake.record_delivered(&access, &delivered, cost).await;
            return ended.and_then(|outcome| recorded.map(|()| outcome));
        }
        ended
    }

    fn policy(&self) -> Result<Policy> {
        Policy::compile(&Schemas::load(&self.config.schemas)?)
    }

    fn client(&self) -> Result<Client> {
        // The jitter of retries has to differ between processes that were hit by the same failure.
        let seed = u64::from(std::process::id()) ^ self.clock.now().as_millisecond().unsigned_abs();
        Client::try_new(self.config.source.client_settings(&self.config.base)?, Arc::clone(&self.clock), seed)
    }

    fn access(&self, lake: &Lake, settings: &ResolveSettings) -> Access {
        Access {
            id: lake.new_access_id(),
            at_ms: self.clock.now().as_millisecond(),
            // A system that does not tell leaves them empty.
            login: whoami::username().unwrap_or_default(),
            host: whoami::hostname().unwrap_or_default(),
            command: "resolve".to_owned(),
            parts: settings.parts.to_string(),
            redacted: settings.redaction.is_some(),
            attachment_id: None,
        }
    }

    async fn redaction(&self, lake: &Lake) -> Result<Redaction> {
        let manifest = lake.latest().await?;
        let keys = lake.ring().pseudonym_keys(manifest.pseudonym_version())?;
        let mut definitions = Definitions::default();
        for (stream, table) in &manifest.tables {
            definitions.hold(*stream, &table.schema);
        }
        for (stream, kept) in &manifest.quarantine {
            definitions.recall(*stream, &kept.attributes);
        }
        Redaction::try_new(&self.policy()?, &definitions, &keys)
    }
}

fn delivery(detail: &Detail, parts: Parts) -> Delivery {
    match detail {
        detail if detail.errors.is_empty() => Delivery::Complete,
        detail if detail.is_missing(parts) => Delivery::Missing,
        _ => Delivery::Partial,
    }
}

/// Writes shipped files to a folder that is not there yet.
fn write_missing(folder: &Path, files: &[(&str, &str)]) -> Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let failed = |path: &Path, source| {
        Error::config("failed to write the shipped files").with_context("path", path.display()).with_source(source)
    };
    fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
    for (name, text) in files {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|source| failed(&path, source))?;
    }
    Ok(())
}
