//! The file and the environment, read into one table of known keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Spanned, Value};

use super::value::{age, duration, size_bytes};
use super::{Config, Plan, SourceConfig};
use crate::error::{Error, Result, nearest};
use crate::extract::ExtractSettings;
use crate::keys::KeySettings;
use crate::lake::{DEFAULT_GC_AFTER, DEFAULT_KEEP_VERSIONS, MaintainSettings, RetainSettings, StoreSettings};
use crate::query::session::QuerySettings;
use crate::secret::SecretRef;

const KNOWN: [(&str, &[&str]); 7] = [
    (
        "source",
        &[
            "org",
            "base_url",
            "api_key",
            "email",
            "password",
            "plan",
            "org_rpm",
            "search_rpm",
            "share",
            "reserve",
            "timeout",
            "attempts",
        ],
    ),
    (
        "lake",
        &[
            "url",
            "maintain",
            "keep_history",
            "keep_tickets",
            "keep_lists",
            "keep_accesses",
            "keep_versions",
            "gc_after",
            "state",
            "endpoint",
            "region",
            "access_key_id",
            "secret_access_key",
            "session_token",
            "service_account",
            "account",
            "account_key",
            "sas_token",
        ],
    ),
    ("keys", &["root", "restricted", "endpoint", "region", "token", "namespace"]),
    ("policy", &["schemas"]),
    ("query", &["library", "memory", "spill", "temp", "timeout"]),
    ("resolve", &["access_record", "redact"]),
    ("extract", &["overlap", "index_lag", "concurrency", "small_every", "metrics_file", "commit_rows", "page_size"]),
];

/// Settings whose values are references of secrets: what stands there by mistake may be the secret.
const SECRETS: [&str; 9] = [
    "token",
    "api_key",
    "password",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "service_account",
    "account_key",
    "sas_token",
];

const PREFIX: &str = "COUNTERFOIL_";

/// The place of a value that came from there; its numbers are texts.
const ENVIRONMENT: &str = "environment";

/// The settings as written, each with the place it came from.
#[derive(Debug, Default)]
pub struct Settings {
    values: BTreeMap<(&'static str, &'static str), (Value, String)>,
    /// The folder where programs of this user keep their state.
    state_home: Option<PathBuf>,
}

impl Settings {
    /// Reads the file at `path` and the process's environment.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the file is missing, is not TOML, or has a key that is not known.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| {
            let missing = source.kind() == std::io::ErrorKind::NotFound;
            let error = Error::config(if missing { "no settings found" } else { "failed to read the settings" })
                .with_context("file", path.display())
                .with_hint(
                    "`counterfoil init` writes a first one here; `--config FILE` names another; \
                     `counterfoil demo` needs none",
                );
            if missing { error } else { error.with_source(source) }
        })?;
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            let value = value.into_string().ok()?;
            Some((name, value))
        });
        Self::parse(&text, &path.display().to_string(), environment)
    }

    /// Reads the text of a file, named `file` in messages, and environment variables.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn parse(text: &str, file: &str, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let mut settings = Self::default();
        let sections: BTreeMap<String, Spanned<Value>> = toml::from_str(text).map_err(|source| {
            // The parser's own message quotes the line, which may hold a pasted secret.
            let line = source.span().map_or(1, |span| line_of(text, span.start));
            Error::config("failed to read the settings")
                .with_context("place", format!("{file}:{line}"))
                .with_context("cause", source.message())
        })?;
        for (section, keys) in &sections {
            let place = format!("{file}:{}", line_of(text, keys.span().start));
            let Some((section, known)) = KNOWN.iter().find(|(name, _)| name == section) else {
                let names = KNOWN.iter().map(|(name, _)| *name);
                return Err(
                    unknown(format!("unknown section `{section}`"), "", section, names).with_context("place", place)
                );
            };
            let Value::Table(keys) = keys.get_ref() else {
                return Err(
                    Error::config(format!("`{section}` must be a section, [{section}]")).with_context("place", place)
                );
            };
            for (key, value) in keys {
                let place = format!("{file}:{}", line_of_key(text, section, key));
                settings.insert(section, known, key, value.clone(), &format!("{section}.{key}"), place)?;
            }
        }
        let mut home = None;
        for (name, value) in environment {
            match name.as_str() {
                "XDG_STATE_HOME" if Path::new(&value).is_absolute() => {
                    settings.state_home = Some(PathBuf::from(&value));
                }
                "HOME" if settings.state_home.is_none() && Path::new(&value).is_absolute() => {
                    home = Some(Path::new(&value).join(".local/state"));
                }
                _ => {}
            }
            let Some((section, key)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once("__")) else {
                continue;
            };
            let (section, key) = (section.to_lowercase(), key.to_lowercase());
            let Some((section, known)) = KNOWN.iter().find(|(known, _)| *known == section) else {
                let names = KNOWN.iter().map(|(name, _)| *name);
                return Err(unknown(
                    format!("unknown section in the environment variable {name}"),
                    "",
                    &section,
                    names,
                ));
            };
            settings.insert(section, known, &key, Value::String(value), &name, ENVIRONMENT.to_owned())?;
        }
        settings.state_home = settings.state_home.or(home);
        Ok(settings)
    }

    fn insert(
        &mut self,
        section: &'static str,
        known: &'static [&'static str],
        key: &str,
        value: Value,
        name: &str,
        place: String,
    ) -> Result<()> {
        let Some(key) = known.iter().find(|candidate| **candidate == key) else {
            let prefix = format!("{section}.");
            return Err(unknown(format!("unknown key `{name}`"), &prefix, key, known.iter().copied())
                .with_context("place", place));
        };
        self.values.insert((section, key), (value, place));
        Ok(())
    }

    /// Composes the settings of every module; `base` is the folder that relative paths stand from.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when a value has the wrong type or lies outside its range.
    pub fn compose(&self, base: PathBuf) -> Result<Config> {
        let source = SourceConfig {
            org: self.text("source", "org")?,
            base_url: self.text("source", "base_url")?,
            api_key: self.reference("source", "api_key")?,
            email: self.text("source", "email")?,
            password: self.reference("source", "password")?,
            plan: self.plan()?,
            org_rpm: self.count("source", "org_rpm", 100_000)?,
            search_rpm: self.count("source", "search_rpm", 100_000)?,
            share: self.share()?,
            reserve: self.count_from("source", "reserve", 0, 100_000)?,
            timeout: self.duration("source", "timeout")?,
            attempts: self.count("source", "attempts", 100)?,
        };
        let mut query = QuerySettings::default();
        if let Some(text) = self.text("query", "memory")? {
            query.memory_bytes = size_bytes(&text)
                .ok_or_else(|| self.wrong("query", "memory", "must be a size, such as \"512MiB\" or \"2GiB\""))?;
        }
        if let Some(text) = self.text("query", "spill")? {
            query.spill_bytes = match size_bytes(&text) {
                Some(bytes) => bytes as u64,
                None if text == "off" => 0,
                None => return Err(self.wrong("query", "spill", "must be a size, such as \"16GiB\", or \"off\"")),
            };
        }
        query.temp = self.text("query", "temp")?.map(|folder| base.join(folder));
        let mut extract = ExtractSettings::default();
        if let Some(overlap) = self.duration("extract", "overlap")? {
            extract.overlap = overlap;
        }
        if let Some(lag) = self.duration("extract", "index_lag")? {
            extract.index_lag = lag;
        }
        if let Some(every) = self.duration("extract", "small_every")? {
            extract.small_every = every;
        }
        if let Some(concurrency) = self.count("extract", "concurrency", 64)? {
            extract.concurrency = concurrency as usize;
        }
        if let Some(rows) = self.count("extract", "commit_rows", 10_000_000)? {
            extract.commit_rows = u64::from(rows);
        }
        if let Some(records) = self.count("extract", "page_size", 500)? {
            extract.page_size = records;
        }
        let folder = |text: Option<String>, default: &str| base.join(text.as_deref().unwrap_or(default));
        Ok(Config {
            source,
            lake: self.store(&base)?,
            maintain: self.maintain()?,
            retain: self.retain()?,
            gc_after: self.gc_after()?,
            root_key: self.text("keys", "root")?.unwrap_or_else(|| "file:root.key".to_owned()),
            restricted_key: self.text("keys", "restricted")?,
            keys: KeySettings {
                endpoint: self.text("keys", "endpoint")?,
                region: self.text("keys", "region")?,
                token: self.reference("keys", "token")?,
                namespace: self.text("keys", "namespace")?,
            },
            schemas: folder(self.text("policy", "schemas")?, "schemas"),
            query_timeout: self.duration("query", "timeout")?.filter(|timeout| !timeout.is_zero()),
            queries: folder(self.text("query", "library")?, "queries"),
            query,
            extract,
            metrics_file: self.text("extract", "metrics_file")?.map(|path| base.join(path)),
            access_record: self.switch("resolve", "access_record")?.unwrap_or(true),
            redact: self.switch("resolve", "redact")?.unwrap_or(false),
            base,
        })
    }

    fn text(&self, section: &'static str, key: &'static str) -> Result<Option<String>> {
        match self.values.get(&(section, key)) {
            None => Ok(None),
            Some((Value::String(text), _)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(section, key, "must be a text")),
        }
    }

    fn switch(&self, section: &'static str, key: &'static str) -> Result<Option<bool>> {
        match self.values.get(&(section, key)) {
            None => Ok(None),
            Some((Value::Boolean(on), _)) => Ok(Some(*on)),
            Some((Value::String(text), place)) if place == ENVIRONMENT && matches!(text.as_str(), "true" | "false") => {
                Ok(Some(text == "true"))
            }
            Some(_) => Err(self.wrong(section, key, "must be true or false")),
        }
    }

    fn reference(&self, section: &'static str, key: &'static str) -> Result<Option<SecretRef>> {
        self.text(section, key)?
            .map(|text| text.parse().map_err(|error: Error| error.with_context("setting", format!("{section}.{key}"))))
            .transpose()
    }

    fn store(&self, base: &Path) -> Result<StoreSettings> {
        let state = match self.text("lake", "state")? {
            Some(folder) if folder.is_empty() => return Err(self.wrong("lake", "state", "must name a folder")),
            Some(folder) => Some(base.join(folder)),
            None => self.state_home.as_ref().map(|home| home.join("counterfoil")),
        };
        Ok(StoreSettings {
            endpoint: self.text("lake", "endpoint")?,
            region: self.text("lake", "region")?,
            access_key_id: self.reference("lake", "access_key_id")?,
            secret_access_key: self.reference("lake", "secret_access_key")?,
            session_token: self.reference("lake", "session_token")?,
            service_account: self.reference("lake", "service_account")?,
            account: self.text("lake", "account")?,
            account_key: self.reference("lake", "account_key")?,
            sas_token: self.reference("lake", "sas_token")?,
            state,
            ..StoreSettings::new(self.text("lake", "url")?.unwrap_or_else(|| "file:lake".to_owned()), base)
        })
    }

    fn plan(&self) -> Result<Plan> {
        let Some(text) = self.text("source", "plan")? else { return Ok(Plan::default()) };
        Plan::parse(&text)
            .ok_or_else(|| unknown(format!("unknown plan `{text}` in `source.plan`"), "", &text, Plan::NAMES))
    }

    fn maintain(&self) -> Result<Option<MaintainSettings>> {
        match self.text("lake", "maintain")?.as_deref() {
            None | Some("auto") => Ok(Some(MaintainSettings {
                retain: self.retain()?,
                gc_after: self.gc_after()?,
                ..MaintainSettings::default()
            })),
            Some("off") => Ok(None),
            Some(_) => Err(self.wrong("lake", "maintain", "must be \"auto\" or \"off\"")),
        }
    }

    fn retain(&self) -> Result<RetainSettings> {
        Ok(RetainSettings {
            keep_history: self.age("keep_history")?,
            keep_tickets: self.age("keep_tickets")?,
            keep_lists: self.age("keep_lists")?,
            keep_accesses: self.age("keep_accesses")?,
            keep_versions: self.age("keep_versions")?.unwrap_or(DEFAULT_KEEP_VERSIONS),
        })
    }

    fn gc_after(&self) -> Result<Duration> {
        let age = self.age("gc_after")?.unwrap_or(DEFAULT_GC_AFTER);
        // A run puts files before the commit that names them.
        if age < Duration::from_hours(1) {
            Err(self.wrong("lake", "gc_after", "must be an hour or more"))
        } else {
            Ok(age)
        }
    }

    fn age(&self, key: &'static str) -> Result<Option<Duration>> {
        let text = self.text("lake", key)?;
        let read = |text: String| {
            age(&text).ok_or_else(|| self.wrong("lake", key, "must be a time span, such as \"400d\" or \"36h\""))
        };
        text.map(read).transpose()
    }

    fn share(&self) -> Result<Option<f64>> {
        let share = match self.values.get(&("source", "share")) {
            None => return Ok(None),
            Some((Value::Float(share), _)) => *share,
            Some((Value::Integer(share), _)) => *share as f64,
            Some((Value::String(text), place)) if place == ENVIRONMENT => text.parse().unwrap_or(f64::NAN),
            Some(_) => return Err(self.wrong("source", "share", "must be a number")),
        };
        if share > 0.0 && share <= 1.0 {
            Ok(Some(share))
        } else {
            Err(self.wrong("source", "share", "must be above 0 and at most 1"))
        }
    }

    fn count(&self, section: &'static str, key: &'static str, most: u32) -> Result<Option<u32>> {
        self.count_from(section, key, 1, most)
    }

    fn count_from(&self, section: &'static str, key: &'static str, least: u32, most: u32) -> Result<Option<u32>> {
        let number = match self.values.get(&(section, key)) {
            None => return Ok(None),
            Some((Value::Integer(number), _)) => Some(*number),
            Some((Value::String(text), place)) if place == ENVIRONMENT => text.parse().ok(),
            Some(_) => None,
        };
        match number.filter(|number| (i64::from(least)..=i64::from(most)).contains(number)) {
            Some(number) => Ok(Some(number as u32)),
            None => Err(self.wrong(section, key, &format!("must be a whole number from {least} to {most}"))),
        }
    }

    fn duration(&self, section: &'static str, key: &'static str) -> Result<Option<Duration>> {
        self.text(section, key)?
            .map(|text| {
                duration(&text).ok_or_else(|| self.wrong(section, key, "must be a duration, such as \"90s\" or \"2m\""))
            })
            .transpose()
    }

    fn wrong(&self, section: &'static str, key: &'static str, rule: &str) -> Error {
        let error = Error::config(format!("setting `{section}.{key}` {rule}"));
        match self.values.get(&(section, key)) {
            // Whatever stands there in place of a reference may be the secret.
            Some((_, place)) if SECRETS.contains(&key) => error.with_context("place", place),
            Some((value, place)) => error.with_context("value", value).with_context("place", place),
            None => error,
        }
    }
}

fn unknown<'a>(message: String, prefix: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
    let known: Vec<&str> = known.into_iter().collect();
    let hint = match nearest(name, known.iter().copied()) {
        Some(nearest) => format!("did you mean `{prefix}{nearest}`?"),
        None => format!("known are: {}", known.join(", ")),
    };
    Error::config(message).with_hint(hint)
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}

/// Returns the line of a key inside a section; the parsed table does not keep it.
fn line_of_key(text: &str, section: &str, key: &str) -> usize {
    let header = format!("[{section}]");
    text.lines()
        .enumerate()
        .skip_while(|(_, line)| line.trim() != header)
        .find(|(_, line)| line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('=')))
        .map_or(1, |(index, _)| index + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::KNOWN;

    #[test]
    fn every_setting_is_in_the_chapter_about_settings() {
        let chapter = include_str!("../../docs/settings.md");
        let rows = chapter.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
        let told: BTreeSet<String> =
            rows.flat_map(|cell| cell.split(", ")).map(|name| name.trim_matches('`').to_owned()).collect();
        let known = KNOWN.iter().flat_map(|(section, keys)| keys.iter().map(move |key| format!("{section}.{key}")));
        assert_eq!(told, known.collect());
    }
}
