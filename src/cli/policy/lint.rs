//! `counterfoil policy lint`: what is wrong with the rules, and what may not be meant as it is written.
//!
//! | severity | means | exit code |
//! |---|---|---|
//! | error | the policy does not compile: no run would begin | 2 |
//! | warning | it compiles, and stores more than is usual, stores nothing, or differs from what the lake holds | 2 |
//! | note | worth knowing; nothing to do | 0 |
//!
//! | finding | severity |
//! |---|---|
//! | `compile`: a rule that cannot be applied, in every file and every rule | error |
//! | `unknown-field`: a path that no shipped declaration has and this lake never saw | warning; note where there is no lake |
//! | `unknown-attribute`: a rule by name for an attribute that the source does not define | warning |
//! | `kept`: a `personal` or `content` field with `keep` | warning; note where the shipped declaration is the same |
//! | `keys`: a rule that makes ids unreadable in a way that joins do not survive | warning |
//! | `widening`: what the lake holds shows less than the rules allow now, or a new column of class `personal` or `content` | warning |
//! | `new-column`: a new column of another class | note |
//! | `still-stored`: files that hold what the rules forbid now | warning |
//! | `overlap`: two custom rules that differ and may cover one attribute | note |
//! | `unused`: a pattern that covers nothing that the source defines | note |
//!
//! Without the lake (`--offline`, or when it does not open) what needs it is left out.

mod lake;
mod rules;

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use serde_json::json;

use super::{Ground, lake_if_any};
use crate::cli::{Context, print, say};
use crate::error::{Error, Result};
use crate::policy::Policy;
use crate::schema::Schemas;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Form of the findings: text or json
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    format: String,
    /// Do not open the lake: check the schema files alone
    #[arg(long)]
    offline: bool,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Error,
    Warning,
    Note,
}

impl Severity {
    const ALL: [Self; 3] = [Self::Error, Self::Warning, Self::Note];

    const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One thing that is wrong, or worth knowing, with its place and the way out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    file: String,
    line: usize,
    severity: Severity,
    name: &'static str,
    message: String,
    hint: String,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let config = context.settings()?;
    let (schemas, mut findings) = read(&config.schemas)?;
    findings.extend(Policy::problems(&schemas).iter().map(Finding::of));
    findings.dedup();
    if findings.is_empty() {
        let lake = if arguments.offline { None } else { lake_if_any(context, &config).await };
        match Ground::new(schemas, lake) {
            Ok(ground) => {
                findings.extend(rules::check(&ground)?);
                findings.extend(lake::check(context, &config, &ground).await?);
            }
            Err(error) => findings.push(Finding::of(&error)),
        }
    }
    findings.sort();
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let counts = Severity::ALL.map(count);
    print(&if arguments.format == "json" { in_json(&findings) } else { in_text(&findings) })?;
    let [errors, warnings, notes] = counts;
    if errors + warnings == 0 {
        if !context.quiet {
            say(&match notes {
                0 => "the policy is clean".to_owned(),
                1 => "the policy is clean; 1 note".to_owned(),
                _ => format!("the policy is clean; {notes} notes"),
            });
        }
        return Ok(());
    }
    Err(Error::config("the policy has findings")
        .with_context("errors", errors)
        .with_context("warnings", warnings)
        .with_context("notes", notes))
}

/// Reads the files of a folder one by one, so that each tells what is wrong with it.
fn read(folder: &Path) -> Result<(Schemas, Vec<Finding>)> {
    let error = match Schemas::load(folder) {
        Ok(schemas) => return Ok((schemas, Vec::new())),
        Err(error) => error,
    };
    let (mut texts, mut findings) = (Vec::new(), Vec::new());
    let Ok(entries) = std::fs::read_dir(folder) else { return Err(error) };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&path) else { return Err(error) };
        let file = path.display().to_string();
        match Schemas::from_files([(file.as_str(), text.as_str())]) {
            Ok(_) => texts.push((file, text)),
            Err(error) => findings.push(Finding::of(&error)),
        }
    }
    if findings.is_empty() {
        return Err(error);
    }
    let schemas = Schemas::from_files(texts.iter().map(|(file, text)| (file.as_str(), text.as_str())))?;
    Ok((schemas, findings))
}

impl Finding {
    /// Makes a finding of an error of the policy.
    fn of(error: &Error) -> Self {
        let context = |name: &str| error.context().find(|(known, _)| *known == name).map(|(_, value)| value.to_owned());
        let rest: Vec<String> = error
            .context()
            .filter(|(name, _)| !matches!(*name, "file" | "line"))
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        let rest = if rest.is_empty() { String::new() } else { format!(" ({})", rest.join(", ")) };
        Self {
            file: context("file").unwrap_or_default(),
            line: context("line").and_then(|line| line.parse().ok()).unwrap_or_default(),
            severity: Severity::Error,
            name: "compile",
            message: format!("{}{rest}", error.message()),
            hint: error.hint().unwrap_or_default().to_owned(),
        }
    }
}

fn in_text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { file, line, severity, name, message, hint } in findings {
        let _ = writeln!(text, "{file}:{line}: {}: {message} [{name}]", severity.name());
        if !hint.is_empty() {
            let _ = writeln!(text, "  hint: {hint}");
        }
    }
    text
}

fn in_json(findings: &[Finding]) -> String {
    let is_clean = findings.iter().all(|finding| finding.severity == Severity::Note);
    let findings = findings.iter().map(|finding| {
        json!({
            "file": finding.file, "line": finding.line, "severity": finding.severity.name(), "name": finding.name,
            "message": finding.message, "hint": finding.hint,
        })
    });
    format!("{}\n", json!({ "format": 1, "clean": is_clean, "findings": findings.collect::<Vec<_>>() }))
}
