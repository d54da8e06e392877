//! Settings of every module, composed: flags over environment over `counterfoil.toml`.
//!
//! ```text
//! [section]            a table per module: source, lake, keys, policy, query, extract, resolve
//! key = value          each also as COUNTERFOIL_SECTION__KEY, which wins over the file
//! ```
//!
//! Everything is parsed once, into types that cannot be wrong; a key that is not known is an error that names the
//! nearest known one. Relative paths stand from the folder of the file. Secrets are references, never values.

mod file;
mod value;

use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

pub use self::file::Settings;
use crate::error::{Error, Result};
use crate::extract::ExtractSettings;
use crate::extract::price::Rates;
use crate::keys::{KeySettings, RootKey};
use crate::kustomer::{ClientSettings, Credential};
use crate::lake::{MaintainSettings, RetainSettings, StoreSettings};
use crate::query::session::QuerySettings;
use crate::secret::SecretRef;

/// The settings of one process.
#[derive(Debug)]
pub struct Config {
    /// The folder that relative paths stand from.
    pub base: PathBuf,
    /// How to reach the source; only commands that ask it need it.
    pub source: SourceConfig,
    /// Where the lake is, and how to get there.
    pub lake: StoreSettings,
    /// What an extract does for the lake at its end, when it is due; `None` when `[lake] maintain = "off"`. Default "auto": files
    /// stay few and queries quick without anybody's doing; off leaves it to `counterfoil lake compact`.
    pub maintain: Option<MaintainSettings>,
    /// What is kept for how long: `[lake] keep_history`, `keep_tickets`, `keep_lists`,
    /// `keep_accesses`, `keep_versions`.
    pub retain: RetainSettings,
    /// How old an object that nothing names has to be before it is deleted. Default 24 hours, an hour at least; it must be
    /// longer than any run takes from putting a file to committing it.
    pub gc_after: Duration,
    /// Reference of the root key, e.g. `file:root.key`.
    pub root_key: String,
    /// Reference of the root key of the restricted ring, of the same kinds, e.g. `file:restricted.key`. Default none: restricted
    /// columns read NULL, and a policy that restricts columns is not extracted with.
    pub restricted_key: Option<String>,
    /// Where the service is that keeps the root key, if one does.
    pub keys: KeySettings,
    /// Folder of the declarations.
    pub schemas: PathBuf,
    /// Folder of the SQL files.
    pub queries: PathBuf,
    /// Bounds of a query.
    pub query: QuerySettings,
    /// How long a query may take from its start to its last row, a reader's pauses included; then it ends with exit code 6.
    /// Default none: a person ends what takes too long. Schedulers set it, so that one query cannot hold up a whole job.
    pub query_timeout: Option<Duration>,
    /// Bounds of an extract.
    pub extract: ExtractSettings,
    /// Where each extract leaves its figures for a Prometheus textfile collector.
    pub metrics_file: Option<PathBuf>,
    /// `[resolve] access_record`: whether the lake's table `accesses` says who resolved what. Default true, because privacy
    /// officers ask; false saves two commits a call, and needs no lake.
    pub access_record: bool,
    /// `[resolve] redact`: whether details are always redacted on their way out, and attachments refused. Default false: then
    /// `--redact` decides. True cannot be undone on the command line.
    pub redact: bool,
}

impl Config {
    /// Reads the root key, or how to ask the service that keeps it.
    ///
    /// # Errors
    ///
    /// Those of [`RootKey::configured`].
    pub fn root(&self) -> Result<RootKey> {
        RootKey::configured(&self.root_key, &self.base, &self.keys)
    }

    /// Reads the root key of the restricted ring, or how to ask the service that keeps it; none without that setting.
    ///
    /// # Errors
    ///
    /// Those of [`RootKey::configured`].
    pub fn restricted(&self) -> Result<Option<RootKey>> {
        let configured = |reference: &String| RootKey::configured(reference, &self.base, &self.keys);
        self.restricted_key.as_ref().map(configured).transpose()
    }
}

/// The source as configured; secrets are read when a client is made.
#[derive(Debug, Clone, Default)]
pub struct SourceConfig {
    /// The organisation's name, as in `https://acme.kustomerapp.com`.
    pub org: Option<String>,
    /// Overrides the host; plain http on loopback only.
    pub base_url: Option<String>,
    /// Reference of the API key.
    pub api_key: Option<SecretRef>,
    /// E-mail address of a login.
    pub email: Option<String>,
    /// Reference of the login's password.
    pub password: Option<SecretRef>,
    /// The contract, which sets the organisation's requests a minute.
    pub plan: Plan,
    /// The organisation's requests a minute, where it differs from the plan's.
    pub org_rpm: Option<u32>,
    /// Searches a minute, where it differs from the documented 100.
    pub search_rpm: Option<u32>,
    /// Our part of both limits. Default 0.5: as much again stays for people and other integrations.
    pub share: Option<f64>,
    /// Requests a minute of the organisation's limit that are left to people, whatever the share. Default a tenth of the
    /// limit; more keeps the web app quicker while other integrations are busy, less lets a run end sooner then.
    pub reserve: Option<u32>,
    /// How long the source may stay silent; a whole answer may take four times as long. Default 30 s, which is what other
    /// clients of this API wait.
    pub timeout: Option<Duration>,
    /// Attempts at one request. Default 5.
    pub attempts: Option<u32>,
}

/// A contract with its requests a minute for the whole organisation (Kustomer, "Rate limits").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Plan {
    /// 300 a minute.
    Professional,
    /// 500 a minute.
    Business,
    /// 1,000 a minute.
    #[default]
    Enterprise,
    /// 2,000 a minute.
    Ultimate,
}

impl Plan {
    const NAMES: [&str; 4] = ["professional", "business", "enterprise", "ultimate"];

    fn parse(text: &str) -> Option<Self> {
        match text {
            "professional" => Some(Self::Professional),
            "business" => Some(Self::Business),
            "enterprise" => Some(Self::Enterprise),
            "ultimate" => Some(Self::Ultimate),
            _ => None,
        }
    }

    /// Returns the organisation's requests a minute.
    pub const fn requests_per_minute(self) -> u32 {
        match self {
            Self::Professional => 300,
            Self::Business => 500,
            Self::Enterprise => 1_000,
            Self::Ultimate => 2_000,
        }
    }
}

/// Searches a minute that a machine user may send (Kustomer, "Rate limits").
pub const SEARCHES_PER_MINUTE: u32 = 100;

impl SourceConfig {
    /// Reads the secrets and makes the client's settings; `base` is the folder of the configuration file.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the host or the credential is missing or cannot be read.
    pub fn client_settings(&self, base: &Path) -> Result<ClientSettings> {
        let credential = match (&self.api_key, &self.email, &self.password) {
            (Some(api_key), None, None) => Credential::ApiKey(api_key.read(base)?),
            (None, Some(email), Some(password)) => {
                Credential::Login { email: email.clone(), password: password.read(base)? }
            }
            (None, None, None) => {
                return Err(Error::config("missing setting `source.api_key`")
                    .with_hint("api_key = \"env:KUSTOMER_API_KEY\" under [source], and export that variable"));
            }
            (Some(_), _, _) => {
                return Err(Error::config("both `source.api_key` and a login are set").with_hint("keep one of them"));
            }
            _ => return Err(Error::config("a login needs both `source.email` and `source.password`")),
        };
        let Rates { org_rpm, search_rpm, share, .. } = self.rates();
        Ok(ClientSettings {
            base_url: self.url()?,
            credential,
            org_rpm,
            search_rpm,
            share,
            reserve: self.reserve.unwrap_or(org_rpm / 10),
            timeout: self.timeout.unwrap_or(Duration::from_secs(30)),
            attempts: self.attempts.unwrap_or(5),
        })
    }

    /// Returns the rate limits as configured, and our part of them.
    #[must_use]
    pub fn rates(&self) -> Rates {
        Rates::new(
            self.org_rpm.unwrap_or(self.plan.requests_per_minute()),
            self.search_rpm.unwrap_or(SEARCHES_PER_MINUTE),
            self.share.unwrap_or(0.5),
        )
    }

    fn url(&self) -> Result<Url> {
        let text = match (&self.base_url, &self.org) {
            (Some(url), _) => url.clone(),
            (None, Some(org)) => {
                let wrong = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
                if org.is_empty() || org.contains(wrong) {
                    return Err(Error::config("setting `source.org` is not an organisation's name")
                        .with_context("value", org)
                        .with_hint("the part before .kustomerapp.com in the browser, e.g. org = \"acme\""));
                }
                format!("https://{org}.api.kustomerapp.com")
            }
            (None, None) => {
                return Err(Error::config("missing setting `source.org`")
                    .with_hint("org = \"acme\" under [source], where https://acme.kustomerapp.com is the web app"));
            }
        };
        Url::parse(&text).map_err(|source| {
            Error::config("setting `source.base_url` is not a URL").with_context("value", &text).with_source(source)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config> {
        load_with(text, &[])
    }

    fn load_with(text: &str, environment: &[(&str, &str)]) -> Result<Config> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::parse(text, "counterfoil.toml", environment)?.compose(PathBuf::from("."))
    }

    #[test]
    fn settings_of_the_design_page_are_understood() {
        let config = load(
            "[source]\norg = \"acme\"\napi_key = \"env:KUSTOMER_API_KEY\"\nplan = \"ultimate\"\nshare = 0.25\n\
             [lake]\nurl = \"file:elsewhere\"\n[keys]\nroot = \"passphrase:env:P\"\n[policy]\nschemas = \"s\"\n\
             [query]\nlibrary = \"q\"\nmemory = \"1GiB\"\n[extract]\noverlap = \"10m\"\nsmall_every = \"24h\"\n",
        )
        .unwrap();
        assert_eq!(config.source.plan.requests_per_minute(), 2_000);
        assert_eq!(config.source.share, Some(0.25));
        assert_eq!(config.lake.url, "file:elsewhere");
        assert_eq!(config.query.memory_bytes, 1 << 30);
        assert_eq!(config.extract.overlap, Duration::from_mins(10));
        assert_eq!(config.extract.small_every, Duration::from_hours(24));
        assert_eq!(config.source.url().unwrap().as_str(), "https://acme.api.kustomerapp.com/");
    }

    #[test]
    fn wrong_settings_end_in_one_error_that_names_them() {
        let cases = [
            ("[sorce]\norg = \"a\"\n", "unknown section `sorce`", "did you mean `source`?"),
            ("[source]\nogr = \"a\"\n", "unknown key `source.ogr`", "did you mean `source.org`?"),
            ("[source]\nshare = 1.5\n", "setting `source.share` must be above 0 and at most 1", ""),
            ("[source]\nplan = \"entreprise\"\n", "unknown plan", "did you mean `enterprise`?"),
            ("[source]\norg = 3\n", "setting `source.org` must be a text", ""),
            ("[source]\napi_key = \"abcdef\"\n", "secret must be a reference", ""),
            ("[keys]\ntoken = \"abcdef\"\n", "secret must be a reference", ""),
            ("[source]\npassword = [\"abcdef\"]\n", "setting `source.password` must be a text", ""),
            ("[query]\nmemory = \"much\"\n", "setting `query.memory` must be a size", ""),
            ("[resolve]\nredact = \"yes\"\n", "setting `resolve.redact` must be true or false", ""),
            ("[extract]\noverlap = \"soon\"\n", "setting `extract.overlap` must be a duration", ""),
            ("[source\n", "failed to read the settings", ""),
            ("top = 1\n", "unknown section `top`", ""),
        ];
        for (text, message, hint) in cases {
            let error = load(text).unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::Config, "{text}");
            assert!(error.to_string().contains(message), "{text}: {error}");
            assert!(error.hint().unwrap_or_default().contains(hint), "{text}: {:?}", error.hint());
            assert!(!format!("{error:?}").contains("abcdef"), "a pasted secret is not repeated");
        }
    }

    #[test]
    fn environment_wins_over_the_file() {
        let environment =
            [("COUNTERFOIL_LAKE__URL", "file:b"), ("COUNTERFOIL_SOURCE__SHARE", "0.75"), ("PATH", "/bin")];
        let config = load_with("[lake]\nurl = \"file:a\"\n", &environment).unwrap();
        assert_eq!(config.lake.url, "file:b");
        assert_eq!(config.source.share, Some(0.75));
        let named =
            load_with("", &[("COUNTERFOIL_SOURCE__ORG", "007"), ("COUNTERFOIL_SOURCE__ATTEMPTS", "9")]).unwrap();
        assert_eq!(named.source.org.as_deref(), Some("007"));
        assert_eq!(named.source.attempts, Some(9));
        assert!(load_with("", &[("COUNTERFOIL_RESOLVE__REDACT", "true")]).unwrap().redact);
        assert!(load_with("", &[("COUNTERFOIL_SOURCE__ATTEMPTS", "few")]).is_err());
        let error = load_with("", &[("COUNTERFOIL_LAKE__ULR", "x")]).unwrap_err();
        assert!(error.to_string().contains("COUNTERFOIL_LAKE__ULR"), "{error}");
    }

    #[test]
    fn store_of_the_lake_is_read_and_its_secrets_are_references() {
        let config = load(
            "[lake]\nurl = \"s3://bucket/lake\"\nendpoint = \"https://s3.example.com\"\nregion = \"eu-west-1\"\n\
             access_key_id = \"env:ID\"\nsecret_access_key = \"file:s3.key\"\nstate = \"state\"\n",
        )
        .unwrap();
        assert_eq!(config.lake.region.as_deref(), Some("eu-west-1"));
        assert_eq!(config.lake.access_key_id.as_ref().unwrap().to_string(), "env:ID");
        assert_eq!(config.lake.state.as_deref(), Some(Path::new("./state")));
        for key in
            ["access_key_id", "secret_access_key", "session_token", "service_account", "account_key", "sas_token"]
        {
            for value in ["\"pasted\"", "[\"pasted\"]"] {
                let error = load(&format!("[lake]\n{key} = {value}\n")).unwrap_err();
                assert!(error.to_string().contains(&format!("lake.{key}")), "{error}");
                assert!(!format!("{error:?}").contains("pasted"), "{error:?}");
            }
        }
        assert!(load("[lake]\nstate = \"\"\n").unwrap_err().to_string().contains("lake.state"));
    }

    #[test]
    fn state_folder_is_the_settings_or_the_users_or_none() {
        let state = |text: &str, environment: &[(&str, &str)]| load_with(text, environment).unwrap().lake.state;
        let home = ("HOME", "/home/a");
        assert_eq!(state("", &[]), None);
        assert_eq!(state("", &[home]), Some(PathBuf::from("/home/a/.local/state/counterfoil")));
        assert_eq!(state("", &[home, ("XDG_STATE_HOME", "/state")]), Some(PathBuf::from("/state/counterfoil")));
        assert_eq!(state("", &[("XDG_STATE_HOME", "relative")]), None, "the standard wants it absolute");
        assert_eq!(state("[lake]\nstate = \"/s\"\n", &[home]), Some(PathBuf::from("/s")));
    }

    #[test]
    fn reserve_for_people_is_a_tenth_of_the_limit_unless_it_is_set() {
        for (text, reserve) in [("", 100), ("plan = \"business\"\n", 50), ("org_rpm = 80\n", 8), ("reserve = 0\n", 0)] {
            let credential = "api_key = \"file:Cargo.toml\"\norg = \"acme\"\n";
            let config = load(&format!("[source]\n{credential}{text}")).unwrap();
            let settings = config.source.client_settings(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
            assert_eq!(settings.reserve, reserve, "{text}");
        }
        let error = load("[source]\nreserve = -1\n").unwrap_err();
        assert!(error.to_string().contains("source.reserve"), "{error}");
    }

    #[test]
    fn missing_host_or_credential_is_named() {
        let config = load("").unwrap();
        let error = config.source.client_settings(Path::new(".")).unwrap_err();
        assert!(error.to_string().contains("source.api_key"), "{error}");
        let error = config.source.url().unwrap_err();
        assert!(error.to_string().contains("source.org"), "{error}");
    }
}
