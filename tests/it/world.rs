//! A sandbox, a lake and a client on one clock that the test moves: waits cost no real time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use counterfoil::clock::{ManualClock, SharedClock};
use counterfoil::error::Result;
use counterfoil::extract::{self, ExtractSettings, NoProgress, RunReport};
use counterfoil::keys::RootKey;
use counterfoil::kustomer::{Client, ClientSettings, Credential};
use counterfoil::lake::{Lake, StoreSettings};
use counterfoil::policy::Policy;
use counterfoil::query::sink::{self, Layout};
use counterfoil::query::{Arguments, Format, QueryFile, QuerySettings, Session};
use counterfoil::sandbox::{Sandbox, SandboxSettings};
use counterfoil::schema::Schemas;
use counterfoil::secret::SecretString;
use serde_json::Value;
use tempfile::TempDir;

/// Everything that a test needs; the folder goes with it.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) sandbox: Sandbox,
    pub(crate) lake: Lake,
    pub(crate) policy: Policy,
}

impl World {
    pub(crate) async fn new(settings: SandboxSettings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new("2026-11-01T12:00:00Z".parse().unwrap()));
        let shared: SharedClock = clock.clone();
        let sandbox = Sandbox::start(settings, Arc::clone(&shared)).await.unwrap();
        RootKey::create_file(&folder.path().join("root.key")).unwrap();
        let lake =
            Lake::create(&StoreSettings::new("file:lake", folder.path()), &root(folder.path()), shared).await.unwrap();
        let policy = Policy::compile(&Schemas::builtin().unwrap()).unwrap();
        Self { folder, clock, sandbox, lake, policy }
    }

    pub(crate) async fn with_tickets(tickets: u64) -> Self {
        Self::new(SandboxSettings { tickets, customers: tickets / 3, ..SandboxSettings::default() }).await
    }

    pub(crate) fn shared_clock(&self) -> SharedClock {
        self.clock.clone()
    }

    pub(crate) fn lake_folder(&self) -> PathBuf {
        self.folder.path().join("lake")
    }

    pub(crate) fn client(&self) -> Client {
        self.client_of(self.sandbox.base_url(), self.sandbox.api_key())
    }

    pub(crate) fn client_of(&self, url: &str, key: &str) -> Client {
        let settings = ClientSettings {
            base_url: url.parse().unwrap(),
            credential: Credential::ApiKey(SecretString::new(key.to_owned())),
            org_rpm: 1_000,
            search_rpm: 100,
            share: 0.9,
            reserve: 0,
            timeout: Duration::from_secs(30),
            attempts: 5,
        };
        Client::try_new(settings, self.shared_clock(), 7).unwrap()
    }

    pub(crate) async fn extract(&self) -> Result<RunReport> {
        let settings = ExtractSettings { index_lag: Duration::ZERO, ..ExtractSettings::default() };
        self.extract_with(&self.client(), &settings).await
    }

    pub(crate) async fn extract_with(&self, client: &Client, settings: &ExtractSettings) -> Result<RunReport> {
        // The range of a run ends before the present; a step makes sure that the newest change lies in it.
        self.clock.advance(Duration::from_secs(1));
        extract::run(
            client,
            &self.policy,
            &self.lake,
            &self.shared_clock(),
            settings,
            &NoProgress,
            std::future::pending(),
        )
        .await
    }

    /// Opens the lake anew, as another process would.
    pub(crate) async fn reopened(&self) -> Result<Lake> {
        Lake::open(&StoreSettings::new("file:lake", self.folder.path()), &root(self.folder.path()), self.shared_clock())
            .await
    }

    /// Runs one SQL text over the newest version of the reopened lake.
    pub(crate) async fn sql(&self, sql: &str) -> Vec<Value> {
        let lake = self.reopened().await.unwrap();
        let manifest = lake.latest().await.unwrap();
        rows(&lake, manifest, self.shared_clock(), sql).await
    }
}

/// Runs one SQL text over one version.
pub(crate) async fn rows(
    lake: &Lake,
    manifest: Arc<counterfoil::lake::manifest::Manifest>,
    clock: SharedClock,
    sql: &str,
) -> Vec<Value> {
    let session = Session::open(lake, &manifest, &QuerySettings::default(), &clock).unwrap();
    let file = QueryFile::inline(sql).unwrap();
    let plan = session.plan(&file, &Arguments::parse(&file, &[]).unwrap()).await.unwrap();
    let rows = session.stream(&plan).await.unwrap();
    let mut out = Vec::new();
    sink::write(rows, Format::Ndjson, &Layout::default(), &mut out).await.unwrap();
    String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn root(folder: &Path) -> RootKey {
    RootKey::read("file:root.key", folder).unwrap()
}
