//! `counterfoil doctor`: looks at everything that a run needs, and says how to mend what is wrong.
//!
//! ```text
//! ok       key ring      version 1, 3 keys, opened by file:root.key
//! warning  credential    expires 2026-12-01T00:00:00Z, in 9 days
//!          mend: make a new API key (Settings, Security, API Keys) …
//! ```
//!
//! It goes on after a check that fails, as far as that is possible; what cannot be looked at is said too. Nothing is changed:
//! one object is made in the lake and removed, to see whether that is allowed. The source is asked for as little as it gives,
//! and of tickets' details nothing: those are asked for by an id that no ticket has.
//!
//! With `--format json` the answer is one object: `format` (1; a reader refuses a higher number), `requests` that were sent,
//! and `findings`, each with `check`, `level` (`ok`, `warning`, `problem`), `seen`, `mend` and `kind` (null unless a problem).
//! The exit code is that of the gravest problem; warnings leave it 0.

mod local;
mod source;

use clap::Args;
use serde_json::{Value, json};

use super::plan::Format;
use super::{Context, print};
use crate::error::{Error, ErrorKind, Result};

/// Version of the JSON.
const FORMAT: u32 = 1;

/// The kinds of problems, gravest first: what is damaged, what is refused, what is set wrong, what may pass.
const GRAVITY: [ErrorKind; 5] =
    [ErrorKind::Data, ErrorKind::Denied, ErrorKind::Config, ErrorKind::Query, ErrorKind::Unavailable];

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Ask nothing of the source
    #[arg(long)]
    offline: bool,
    /// Lines for people, or JSON for machines
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warning,
    Problem(ErrorKind),
}

/// What a check has seen, and the way to mend it.
#[derive(Debug, Clone)]
struct Finding {
    check: &'static str,
    level: Level,
    seen: String,
    mend: Option<String>,
}

/// The findings, each printed as soon as it is there unless they are asked for as JSON.
#[derive(Debug)]
struct Findings {
    is_printed: bool,
    all: Vec<Finding>,
}

impl Findings {
    fn ok(&mut self, check: &'static str, seen: impl Into<String>) -> Result<()> {
        self.add(Finding { check, level: Level::Ok, seen: seen.into(), mend: None })
    }

    fn warn(&mut self, check: &'static str, seen: impl Into<String>, mend: impl Into<String>) -> Result<()> {
        self.add(Finding { check, level: Level::Warning, seen: seen.into(), mend: Some(mend.into()) })
    }

    /// Says what stands in the way of a check.
    fn skipped(&mut self, check: &'static str, reason: &str) -> Result<()> {
        self.warn(check, format!("not checked: {reason}"), "mend what stands above, then look again")
    }

    fn problem(
        &mut self,
        check: &'static str,
        kind: ErrorKind,
        seen: impl Into<String>,
        mend: impl Into<String>,
    ) -> Result<()> {
        self.add(Finding { check, level: Level::Problem(kind), seen: seen.into(), mend: Some(mend.into()) })
    }

    /// Makes a problem of an error: its message and causes are seen, its hint is the way out.
    fn failed(&mut self, check: &'static str, error: &Error) -> Result<()> {
        let mut seen = error.to_string();
        if let Some(cause) = std::error::Error::source(error) {
            seen.push_str(": ");
            seen.push_str(&cause.to_string());
        }
        let mend = error.hint().map_or_else(|| usual_way_out(error.kind()).to_owned(), str::to_owned);
        self.problem(check, error.kind(), seen, mend)
    }

    fn add(&mut self, finding: Finding) -> Result<()> {
        if self.is_printed {
            print(&line(&finding))?;
        }
        self.all.push(finding);
        Ok(())
    }

    /// Returns the gravest kind of the problems.
    fn gravest(&self) -> Option<ErrorKind> {
        let gravity = |kind: ErrorKind| GRAVITY.iter().position(|known| *known == kind).unwrap_or(GRAVITY.len());
        let kinds = self.all.iter().filter_map(|finding| match finding.level {
            Level::Problem(kind) => Some(kind),
            _ => None,
        });
        kinds.min_by_key(|kind| gravity(*kind))
    }
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let mut findings = Findings { is_printed: arguments.format == Format::Table, all: Vec::new() };
    let mut requests = 0;
    if let Some(config) = local::settings(context, &mut findings)? {
        let policy = local::policy(&config, &mut findings)?;
        let manifest = local::lake(context, &config, policy.as_ref(), &mut findings).await?;
        if arguments.offline {
            findings.ok("source", "not asked, as told")?;
        } else {
            requests = source::check(context, &config, policy.as_ref(), manifest.as_deref(), &mut findings).await?;
        }
    }
    if arguments.format == Format::Json {
        print(&(json(&findings, requests).to_string() + "\n"))?;
    }
    let problems = findings.all.iter().filter(|finding| matches!(finding.level, Level::Problem(_))).count();
    match findings.gravest() {
        None => Ok(()),
        Some(kind) => Err(Error::new(kind, "not everything is well")
            .with_context("problems", problems)
            .with_hint("each problem has its way out beside it; the exit code is that of the gravest")),
    }
}

const fn usual_way_out(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Config => "correct the settings",
        ErrorKind::Unavailable => "try again later",
        ErrorKind::Denied => "get the right, or the right key",
        ErrorKind::Data => "restore it from a copy",
        ErrorKind::Query => "correct the SQL",
        _ => "report it",
    }
}

fn line(finding: &Finding) -> String {
    let level = match finding.level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Problem(_) => "problem",
    };
    let mut text = format!("{level:<8} {:<13} {}\n", finding.check, finding.seen);
    if let Some(mend) = &finding.mend {
        text.push_str("         mend: ");
        text.push_str(mend);
        text.push('\n');
    }
    text
}

fn json(findings: &Findings, requests: u64) -> Value {
    let findings: Vec<Value> = findings
        .all
        .iter()
        .map(|finding| {
            let (level, kind) = match finding.level {
                Level::Ok => ("ok", None),
                Level::Warning => ("warning", None),
                Level::Problem(kind) => ("problem", Some(kind.name())),
            };
            json!({ "check": finding.check, "level": level, "seen": finding.seen, "mend": finding.mend, "kind": kind })
        })
        .collect();
    json!({ "format": FORMAT, "requests": requests, "findings": findings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gravest_problem_decides_whatever_comes_first() {
        let mut findings = Findings { is_printed: false, all: Vec::new() };
        assert_eq!(findings.gravest(), None);
        findings.warn("a", "b", "c").unwrap();
        assert_eq!(findings.gravest(), None);
        for (kind, gravest) in [
            (ErrorKind::Unavailable, ErrorKind::Unavailable),
            (ErrorKind::Config, ErrorKind::Config),
            (ErrorKind::Query, ErrorKind::Config),
            (ErrorKind::Denied, ErrorKind::Denied),
            (ErrorKind::Data, ErrorKind::Data),
            (ErrorKind::Internal, ErrorKind::Data),
        ] {
            findings.problem("a", kind, "b", "c").unwrap();
            assert_eq!(findings.gravest(), Some(gravest));
        }
    }

    #[test]
    fn finding_is_one_line_and_its_way_out_another() {
        let error = Error::denied("it is refused").with_context("role", "x").with_hint("ask for it");
        let mut findings = Findings { is_printed: false, all: Vec::new() };
        findings.failed("roles", &error).unwrap();
        assert_eq!(
            line(&findings.all[0]),
            "problem  roles         it is refused (role: x)\n         mend: ask for it\n"
        );
        assert_eq!(json(&findings, 3)["findings"][0]["kind"], "denied");
    }
}
