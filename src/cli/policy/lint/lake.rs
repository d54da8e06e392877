//! What differs between the rules and what the lake holds.

use super::rules::{finding, is_known, shipped_paths};
use super::{Finding, Severity};
use crate::cli::policy::find::{Rule, attribute_of, covering};
use crate::cli::policy::{Ground, words};
use crate::cli::{Context, grouped};
use crate::config::Config;
use crate::error::Result;
use crate::lake::Lake;
use crate::lake::manifest::Manifest;
use crate::policy::{Direction, RuleChange, Rules, compare};
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
    }
    if let Some((lake, manifest)) = &ground.lake {
        findings.extend(widened(ground, manifest));
        findings.extend(still_stored(ground, lake, manifest)?);
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

/// Compares the rules with those that the lake was last written under: what would be stored that was not.
fn widened(ground: &Ground, manifest: &Manifest) -> Vec<Finding> {
    let before = manifest.policy.as_deref().and_then(|digest| manifest.policies.get(digest));
    let Some(before) = before else { return Vec::new() };
    let now = ground.policy.rules();
    let mut findings = Vec::new();
    for stream in ground.schemas.streams() {
        let Some(table) = ground.schemas.table(stream) else { continue };
        if before.table(stream.table()).is_none() {
            findings.push(finding(
                &top(table),
                Severity::Note,
                "new-column",
                format!("table `{stream}` is new: the lake was last written without it"),
                "the next run extracts it from the beginning".to_owned(),
            ));
            continue;
        }
        let changes = compare(before, now);
        let changes = changes.iter().filter(|change| change.table == stream.table() && change.is_widening());
        findings.extend(changes.map(|change| widening(table, change, now)));
    }
    findings
}

/// Tells of one rule that lets more be stored.
fn widening(table: &TableSchema, change: &RuleChange, now: &Rules) -> Finding {
    let rules = now.table(&change.table);
    let class = rules.and_then(|rules| {
        let column = rules.columns.iter().find(|column| !change.is_custom && column.name == change.rule);
        let custom = rules.custom.iter().find(|custom| change.is_custom && custom.pattern == change.rule);
        column.map(|column| column.class.as_str()).or_else(|| custom.map(|custom| custom.class.as_str()))
    });
    let class = class.unwrap_or(Class::Internal.name());
    let is_about_people = [Class::Personal, Class::Content].iter().any(|known| known.name() == class);
    let what = if change.is_custom { "rule" } else { "column" };
    let method = |method: &Option<String>| words::method(method.as_deref().unwrap_or("drop"));
    if change.direction == Direction::Added {
        let (severity, name) =
            if is_about_people { (Severity::Warning, "widening") } else { (Severity::Note, "new-column") };
        return finding(
            &place(table, change),
            severity,
            name,
            format!("{class} {what} `{}` is new: the lake was last written without it", change.rule),
            "records that change get it from the next run on; `counterfoil extract --full` fills it for all".to_owned(),
        );
    }
    finding(
        &place(table, change),
        Severity::Warning,
        "widening",
        format!(
            "{what} `{}` lets more be stored than the policy that the lake was last written under: {}; before: {}",
            change.rule,
            method(&change.to),
            method(&change.from)
        ),
        "what is stored stays as it is until `counterfoil extract --full`; write the former method again if that is not meant"
            .to_owned(),
    )
}

/// Names the columns of which files hold what the rules forbid now.
fn still_stored(ground: &Ground, lake: &Lake, manifest: &Manifest) -> Result<Vec<Finding>> {
    let survey = lake.survey(manifest, &ground.policy)?;
    let mut findings = Vec::new();
    for found in &survey.tables {
        let Some(stream) = ground.schemas.streams().find(|stream| stream.table() == found.table) else { continue };
        let (Some(table), Some(held)) = (ground.schemas.table(stream), manifest.tables.get(&stream)) else { continue };
        for column in &found.columns {
            let field = held.schema.field_with_name(&column.column).ok();
            let path = field.and_then(|field| field.metadata().get("path")).map_or("", String::as_str);
            findings.push(finding(
                &rule_of(table, &column.column, path),
                Severity::Warning,
                "still-stored",
                format!(
                    "{} files still hold column `{}` as the rules do not allow it any more",
                    grouped(column.files),
                    column.column
                ),
                format!(
                    "`counterfoil lake compact --apply-policy` rewrites them; the column: {}",
                    match column.becomes.as_str() {
                        "removed" => "removed".to_owned(),
                        emptied if emptied.starts_with("emptied") => {
                            "emptied, until `counterfoil extract --full` fills it again".to_owned()
                        }
                        applied => words::method(applied.strip_suffix(" applied").unwrap_or(applied)),
                    }
                ),
            ));
        }
    }
    Ok(findings)
}

/// Finds the rule that a change is about.
fn place(table: &TableSchema, change: &RuleChange) -> Rule {
    if change.is_custom {
        let rule = table.custom.iter().find(|rule| rule.pattern == change.rule);
        let rule = rule.or_else(|| covering(table, &change.rule).first().copied());
        return rule.map_or_else(|| top(table), |rule| Rule::of_custom(table, rule));
    }
    rule_of(table, &change.rule, "")
}

/// The first line of a table's file, for what no rule stands for any more.
fn top(table: &TableSchema) -> Rule {
    Rule { file: table.file.clone(), line: 1, kind: "column", name: table.stream.table().to_owned() }
}

/// Finds the rule behind a column, or the top of the file where none is left.
fn rule_of(table: &TableSchema, name: &str, path: &str) -> Rule {
    if let Some(column) = table.columns.iter().find(|column| column.name == name) {
        return Rule::of_column(table, column);
    }
    match attribute_of(path).and_then(|attribute| covering(table, attribute).first().copied()) {
        Some(rule) => Rule::of_custom(table, rule),
        None => top(table),
    }
}
