//! `counterfoil lake compact --apply-policy`: what is stored becomes what the schemas allow now.

use crate::cli::{Context, extract, grouped, print, say};
use crate::error::Result;
use crate::lake::{ApplyOutcome, ApplySettings, OlderVersions, Survey};

/// Applies the policy, or says what that would do.
pub(super) async fn run(context: &Context, settings: &ApplySettings, is_dry_run: bool) -> Result<()> {
    let config = context.settings()?;
    // Before the lake is opened: rules that do not compile change nothing.
    let policy = extract::policy(&config)?;
    let lake = context.lake(&config).await?;
    let note = |line: &str| {
        if !context.quiet {
            say(line);
        }
    };
    if is_dry_run {
        let plan = lake.plan_policy(&policy, settings).await?;
        if plan.is_empty() {
            note("nothing that the newest version holds is forbidden by the policy");
        }
        print(&plan.to_string())?;
        after(&plan.survey, plan.older, note);
        return Ok(());
    }
    let progress = |done: &ApplyOutcome| note(&format!("{}: {} files restated", done.stream, grouped(done.files)));
    let holder = format!("lake compact --apply-policy, process {}", std::process::id());
    let report = lake.apply_policy(&policy, settings, &holder, progress).await?;
    if report.dropped > 0 {
        tracing::warn!(
            tasks = report.dropped,
            "another process has changed files meanwhile; if any of them is left, the next run restates it"
        );
    }
    if report.done.is_empty() && report.columns.is_empty() {
        note("nothing that the newest version holds is forbidden by the policy");
    }
    for (stream, column) in &report.columns {
        note(&format!("{stream}: column {column} has left the table"));
    }
    print(&report.done.iter().map(line).collect::<String>())?;
    if let Some(expiry) = report.expiry {
        note(&format!(
            "{} older versions ended, {} data files and indexes were deleted; not reached: backups, object versions that the store keeps",
            grouped(expiry.versions),
            grouped(report.deleted)
        ));
    }
    let survey = lake.survey(lake.latest().await?.as_ref(), &policy)?;
    after(&survey, report.older, note);
    Ok(())
}

/// Says what is left to do when the newest version is as it should be.
fn after(survey: &Survey, older: OlderVersions, note: impl Fn(&str)) {
    if older.files > 0 {
        note(&format!(
            "{} files of {} older versions still hold what is forbidden: `counterfoil lake compact --apply-policy --expire` ends \
             these versions and deletes the files; without it they end after `lake.keep_versions` (`counterfoil lake retain`), \
             and `counterfoil lake gc` deletes what no version names",
            grouped(older.files),
            grouped(older.versions)
        ));
    }
    for table in &survey.undeclared {
        note(&format!("{table}: no schema declares this table any more; it is left as it is"));
    }
    if let Some(line) = lacking(survey) {
        note(&line);
    }
}

/// Says what is stored and forbidden now, and how it goes.
pub(in crate::cli) fn forbidden(survey: &Survey) -> Option<String> {
    survey.forbidden().map(|line| format!("{line}: `counterfoil lake compact --apply-policy` rewrites them"))
}

/// Says what is allowed now and was not stored, and how it comes.
pub(in crate::cli) fn lacking(survey: &Survey) -> Option<String> {
    survey.lacking().map(|line| format!("{line}: `counterfoil extract --full` brings it"))
}

/// One line per version that was made.
fn line(done: &ApplyOutcome) -> String {
    format!(
        "version {:>6}  {:<10}  {:>6} files  {:>12} rows  {:>14} bytes -> {:>14}\n",
        done.version,
        done.stream,
        grouped(done.files),
        grouped(done.rows),
        grouped(done.bytes_before),
        grouped(done.bytes_after),
    )
}
