//! What differs between the rules and what the lake holds.

use std::collections::BTreeMap;

use super::rules::{finding, is_known, shipped_paths};
use super::{Finding, Severity};
use crate::cli::policy::find::{Rule, attribute_of, covering};
use crate::cli::policy::{Ground, words};
use crate::cli::{Context, grouped};
use crate::config::Config;
use crate::error::Result;
use crate::lake::manifest::TableState;
use crate::query::{Arguments as Bound, QueryFile, Session};
use crate::schema::{Class, Column, TableSchema};

pub(super) async fn check(context: &Context, config: &Config, ground: &Ground) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let session = match &ground.lake {
        Some((lake, manifest)) => Some(Session::open(lake, manifest, &config.query, &context.clock)?),
        None => None,
    };
    for stream in ground.schemas.streams() {
        let Some(table) = ground.schemas.table(stream) else { continue };
        let held = ground.manifest().and_then(|manifest| manifest.tables.get(&stream));
        let known = shipped_paths(stream)?;
        for column in &table.columns {
            let path = column.path.join(".");
            if is_known(&path, &known) || is_in_quarantine(ground, table, &path) {
                continue;
            }
            if let (Some(session), Some(held)) = (&session, held)
                && held.schema.field_with_name(&column.name).is_ok()
                && holds_any(session, table, column).await?
            {
                continue;
            }
            findings.push(unknown(ground, table, column, held.is_some_and(|held| !held.files.is_empty())));
        }
        if let Some(held) = held {
            findings.extend(against(ground, table, held)?);
        }
    }
    Ok(findings)
}

/// Tells whether a run saw a field, or an object that it may stand in.
fn is_in_quarantine(ground: &Ground, table: &TableSchema, path: &str) -> bool {
    let Some(kept) = ground.quarantine(table.stream) else { return false };
    kept.fields.keys().any(|key| {
        let is_container = matches!(key.json_type.as_str(), "object" | "array");
        key.path == path || (is_container && path.strip_prefix(&key.path).is_some_and(|rest| rest.starts_with('.')))
    })
}

/// Tells whether a column of the lake holds anything but NULL.
async fn holds_any(session: &Session, table: &TableSchema, column: &Column) -> Result<bool> {
    // Names of columns are letters, digits and `_`.
    let sql = format!("SELECT 1 AS found FROM {} WHERE \"{}\" IS NOT NULL LIMIT 1", table.stream, column.name);
    let file = QueryFile::inline(&sql)?;
    let plan = session.plan(&file, &Bound::parse(&file, &[])?).await?;
    let mut rows = session.stream(&plan).await?;
    while let Some(batch) = rows.next().await? {
        if batch.num_rows() > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

fn unknown(ground: &Ground, table: &TableSchema, column: &Column, has_rows: bool) -> Finding {
    let path = column.path.join(".");
    let known = shipped_paths(table.stream).unwrap_or_default();
    let seen = ground.quarantine(table.stream).into_iter().flat_map(|kept| kept.fields.keys());
    let known = known.iter().map(|(path, _)| path.as_str()).chain(seen.map(|key| key.path.as_str()));
    let last = column.path.last().map_or(0, |last| last.chars().count());
    let near = known
        .map(|known| (strsim::damerau_levenshtein(&path, known), known))
        .filter(|(distance, _)| *distance <= (last / 3).max(2))
        .min();
    let severity = if has_rows || near.is_some() { Severity::Warning } else { Severity::Note };
    let message = if has_rows {
        format!("no record ever had `{path}`: column `{}` holds nothing", column.name)
    } else {
        format!("`{path}` (column `{}`) is in no shipped declaration, and no lake says that it exists", column.name)
    };
    let hint = near.map_or_else(
        || "check the path against a record of the source; `counterfoil policy explain` lists what was seen".to_owned(),
        |(_, near)| format!("did you mean `{near}`?"),
    );
    finding(&Rule::of_column(table, column), severity, "unknown-field", message, hint)
}

/// Compares the columns that would be stored now with those of the lake.
fn against(ground: &Ground, table: &TableSchema, held: &TableState) -> Result<Vec<Finding>> {
    if held.files.is_empty() {
        return Ok(Vec::new());
    }
    let mut findings = Vec::new();
    let stored = ground.stored(table.stream)?;
    for field in stored.fields() {
        let method = field.metadata().get("method").map_or("", String::as_str);
        let class = field.metadata().get("class").map_or("", String::as_str);
        let rule = rule_of(table, field.name(), field.metadata().get("path").map_or("", String::as_str));
        match held.schema.field_with_name(field.name()) {
            Err(_) => {
                let is_about_people = [Class::Personal, Class::Content].iter().any(|known| known.name() == class);
                let (severity, name) =
                    if is_about_people { (Severity::Warning, "widening") } else { (Severity::Note, "new-column") };
                findings.push(finding(
                    &rule,
                    severity,
                    name,
                    format!("{class} column `{}` is new: the lake does not have it", field.name()),
                    "records that change get it from the next run on; `counterfoil extract --full` fills it for all"
                        .to_owned(),
                ));
            }
            Ok(known) => {
                let before = known.metadata().get("method").map_or("", String::as_str);
                if before != method && method == "keep" {
                    findings.push(finding(
                        &rule,
                        Severity::Warning,
                        "widening",
                        format!("column `{}` is stored as it is from now on; the lake holds it through {before}", field.name()),
                        "what is stored stays as it is until `counterfoil extract --full`; write the method again if that is \
                         not meant"
                            .to_owned(),
                    ));
                }
            }
        }
    }
    // By column: files and rows that hold it in a form that is not allowed any more.
    let mut forbidden: BTreeMap<(String, String, String), (u64, u64)> = BTreeMap::new();
    for file in &held.files {
        for field in file.schema.fields() {
            let before = field.metadata().get("method").cloned().unwrap_or_default();
            let now = stored.field_with_name(field.name()).ok();
            let now = now.and_then(|now| now.metadata().get("method")).map_or("drop", String::as_str);
            if now != before && (now == "drop" || before == "keep") {
                let path = field.metadata().get("path").cloned().unwrap_or_default();
                let (files, rows) = forbidden.entry((field.name().clone(), path, now.to_owned())).or_default();
                *files += 1;
                *rows += file.rows;
            }
        }
    }
    for ((name, path, now), (files, rows)) in forbidden {
        findings.push(finding(
            &rule_of(table, &name, &path),
            Severity::Warning,
            "still-stored",
            format!(
                "{} files of {} rows still hold column `{name}` as it was; now: {}",
                grouped(files),
                grouped(rows),
                words::method(&now)
            ),
            "`counterfoil lake compact --apply-policy` rewrites them".to_owned(),
        ));
    }
    Ok(findings)
}

/// Finds the rule behind a column, or the top of the file where none is left.
fn rule_of(table: &TableSchema, name: &str, path: &str) -> Rule {
    if let Some(column) = table.columns.iter().find(|column| column.name == name) {
        return Rule::of_column(table, column);
    }
    match attribute_of(path).and_then(|attribute| covering(table, attribute).first().copied()) {
        Some(rule) => Rule::of_custom(table, rule),
        None => Rule { file: table.file.clone(), line: 1, kind: "column", name: name.to_owned() },
    }
}
