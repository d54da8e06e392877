//! How what is stored stands to a policy: which columns of which files show what is forbidden, and what rows lack.
//!
//! It is told from the manifest alone: each file names its policy and describes its columns, and the rules of former policies
//! are kept. Files that were made alike are looked at once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Schema, SchemaRef};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::lake::manifest::{DataFile, Manifest};
use crate::lake::rewrite::{Restate, Restated};
use crate::model::Stream;
use crate::policy::{Definitions, Policy, Restatement, RuleChange, Rules, Step, compare};
use crate::secret::PseudonymKeys;

/// Field metadata of a column whose values were emptied.
const EMPTIED: &str = "emptied";

/// How what is stored stands to a policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// Tables that hold what is forbidden now, or lack what is allowed.
    pub tables: Vec<TableSurvey>,
    /// Tables that no schema declares any more.
    pub undeclared: Vec<String>,
}

/// How one table stands to a policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TableSurvey {
    /// The table.
    pub table: String,
    /// Files that hold what is forbidden.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The columns of them that do, and what becomes of each.
    pub columns: Vec<ColumnSurvey>,
    /// Files with live rows that lack what is allowed.
    pub lacking_files: u64,
    /// Those rows.
    pub lacking_rows: u64,
    /// The columns and custom rules that they lack, or have in a form that shows less.
    pub lacking: BTreeSet<String>,
}

/// A stored column that shows what is forbidden.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnSurvey {
    /// The column.
    pub column: String,
    /// What becomes of it when the policy is applied: `removed`, `emptied`, or the method that is applied.
    pub becomes: String,
    /// Files that have it.
    pub files: u64,
}

impl Survey {
    /// Tells whether a file holds what is forbidden now.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.tables.iter().any(|table| table.files > 0)
    }

    /// Tells whether live rows lack what is allowed now.
    #[must_use]
    pub fn is_lacking(&self) -> bool {
        self.tables.iter().any(|table| table.lacking_files > 0)
    }

    /// Says in a line which tables hold what is forbidden, if one does.
    #[must_use]
    pub fn forbidden(&self) -> Option<String> {
        let tables = self.tables.iter().filter(|table| table.files > 0);
        let tables = tables.map(|table| {
            let columns: BTreeSet<&str> = table.columns.iter().map(|column| column.column.as_str()).collect();
            format!("{} in {} files ({})", table.table, table.files, named(columns.into_iter()))
        });
        let tables = tables.collect::<Vec<_>>().join("; ");
        (!tables.is_empty()).then(|| format!("stored and forbidden by the policy now: {tables}"))
    }

    /// Says in a line which tables lack what is allowed, if one does.
    #[must_use]
    pub fn lacking(&self) -> Option<String> {
        let tables = self.tables.iter().filter(|table| table.lacking_files > 0);
        let tables = tables.map(|table| {
            let lacking = named(table.lacking.iter().map(String::as_str));
            format!("{} in {} rows ({lacking})", table.table, table.lacking_rows)
        });
        let tables = tables.collect::<Vec<_>>().join("; ");
        (!tables.is_empty())
            .then(|| format!("allowed by the policy now and missing from what was stored before: {tables}"))
    }
}

/// Names some of many, so that a line stays one.
fn named<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const NAMED: usize = 8;
    let names: Vec<&str> = names.collect();
    let more = names.len().saturating_sub(NAMED);
    let first = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{first}, and {more} more") } else { first }
}

/// A file that is to be rewritten.
pub(super) struct Work {
    pub(super) stream: Stream,
    pub(super) file: Arc<DataFile>,
    pub(super) restated: Restated,
}

/// How a version stands to a policy, and what follows.
#[derive(Default)]
pub(super) struct Surveyed {
    pub(super) survey: Survey,
    pub(super) work: Vec<Work>,
}

impl Surveyed {
    pub(super) fn of(manifest: &Manifest, policy: &Policy, keys: &PseudonymKeys, only: Option<Stream>) -> Result<Self> {
        let declared = policy.streams();
        let mut surveyed = Self::default();
        for (stream, table) in manifest.tables.iter().filter(|(stream, _)| only.is_none_or(|only| only == **stream)) {
            if !declared.contains(stream) {
                if !stream.is_own() && !table.files.is_empty() {
                    surveyed.survey.undeclared.push(stream.to_string());
                }
                continue;
            }
            let mut view = View::new(manifest, policy, keys, *stream);
            let mut found = TableSurvey { table: stream.to_string(), ..TableSurvey::default() };
            for file in &table.files {
                let Some(stand) = view.of(file)? else { continue };
                if stand.is_forbidden() {
                    found.add(file, &stand.forbidden);
                    let restated = stand.restated.clone();
                    surveyed.work.push(Work { stream: *stream, file: Arc::clone(file), restated });
                }
                if !stand.lacking.is_empty() && file.live_rows() > 0 {
                    found.lacking_files += 1;
                    found.lacking_rows += file.live_rows();
                    found.lacking.extend(stand.lacking.iter().cloned());
                }
            }
            if found.files > 0 || found.lacking_files > 0 {
                surveyed.survey.tables.push(found);
            }
        }
        Ok(surveyed)
    }
}

impl TableSurvey {
    fn add(&mut self, file: &DataFile, forbidden: &[(String, String)]) {
        self.files += 1;
        self.rows += file.rows;
        self.bytes += file.bytes;
        for (column, becomes) in forbidden {
            let known = self.columns.iter_mut().find(|known| known.column == *column && known.becomes == *becomes);
            match known {
                Some(known) => known.files += 1,
                None => self.columns.push(ColumnSurvey { column: column.clone(), becomes: becomes.clone(), files: 1 }),
            }
        }
    }
}

/// How the files of one policy and one set of columns stand to the present policy.
pub(super) struct Stand {
    /// Stored columns that show what is forbidden, and what becomes of them.
    forbidden: Vec<(String, String)>,
    /// Columns and custom rules that they lack.
    lacking: BTreeSet<String>,
    restated: Restated,
}

impl Stand {
    pub(super) fn is_forbidden(&self) -> bool {
        !self.forbidden.is_empty()
    }
}

/// One table as the present policy sees it; files that were made alike are looked at once.
pub(super) struct View<'a> {
    stream: Stream,
    policy: &'a Policy,
    /// Makes the pseudonyms of what was kept before, of the version in force.
    keys: &'a PseudonymKeys,
    policies: &'a BTreeMap<String, Arc<Rules>>,
    definitions: Definitions,
    /// What has changed since a policy, for each that was met.
    changes: HashMap<String, Option<Vec<RuleChange>>>,
    seen: Vec<(Arc<str>, SchemaRef, Arc<Stand>)>,
}

impl<'a> View<'a> {
    pub(super) fn new(manifest: &'a Manifest, policy: &'a Policy, keys: &'a PseudonymKeys, stream: Stream) -> Self {
        let mut definitions = Definitions::default();
        if let Some(table) = manifest.tables.get(&stream) {
            definitions.hold(stream, &table.schema);
        }
        let policies = &manifest.policies;
        Self { stream, policy, keys, policies, definitions, changes: HashMap::new(), seen: Vec::new() }
    }

    /// Looks at a file; nothing is to be said of one that the present policy made.
    pub(super) fn of(&mut self, file: &DataFile) -> Result<Option<Arc<Stand>>> {
        if file.policy == *self.policy.digest() {
            return Ok(None);
        }
        let is_like = |(policy, schema, _): &&(Arc<str>, SchemaRef, Arc<Stand>)| {
            *policy == file.policy && (Arc::ptr_eq(schema, &file.schema) || *schema == file.schema)
        };
        if let Some((_, _, stand)) = self.seen.iter().find(is_like) {
            return Ok(Some(Arc::clone(stand)));
        }
        let stand = Arc::new(self.look(file)?);
        self.seen.push((Arc::clone(&file.policy), Arc::clone(&file.schema), Arc::clone(&stand)));
        Ok(Some(stand))
    }

    fn look(&mut self, file: &DataFile) -> Result<Stand> {
        let restatement = self.policy.restate(self.stream, &self.definitions, &file.schema, self.keys)?;
        let mut forbidden = Vec::new();
        let mut lacking = BTreeSet::new();
        let mut emptied = HashSet::new();
        for (column, step, method) in restatement.steps() {
            let is_marked =
                file.schema.field_with_name(column).is_ok_and(|field| field.metadata().contains_key(EMPTIED));
            let becomes = match step {
                Step::Remove => Some("removed".to_owned()),
                Step::Apply => Some(format!("{method} applied")),
                Step::Empty => Some("emptied until a full extract".to_owned()),
                Step::Same | Step::Widened => None,
            };
            forbidden.extend(becomes.map(|becomes| (column.to_owned(), becomes)));
            if *step == Step::Empty || (is_marked && *step != Step::Remove) {
                emptied.insert(column.to_owned());
                lacking.insert(column.to_owned());
            } else if *step == Step::Widened {
                lacking.insert(column.to_owned());
            }
        }
        let rules = self.policy.rules().table(self.stream.table());
        let stored = rules.iter().flat_map(|rules| &rules.columns).filter(|column| column.method != "drop");
        let missing = stored.filter(|column| file.schema.field_with_name(&column.name).is_err());
        lacking.extend(missing.map(|column| column.name.clone()));
        let mut is_known = true;
        for digest in file.policy.split('+').filter(|digest| *digest != self.policy.digest().as_ref()) {
            match self.changes_since(digest) {
                Some(changes) => lacking.extend(changes.iter().map(|change| change.rule.clone())),
                None => is_known = false,
            }
        }
        let is_whole = is_known && lacking.is_empty();
        let policy =
            if is_whole { Arc::clone(self.policy.digest()) } else { joined(&file.policy, self.policy.digest()) };
        let schema = marked(restatement.schema(), &emptied);
        let by = Arc::new(By { restatement, stored: Arc::clone(&file.schema) });
        Ok(Stand { forbidden, lacking, restated: Restated { by, schema, policy, pseudonyms: self.keys.version() } })
    }

    /// Returns the custom rules of the table that were widened since a policy; nothing when its rules are not known.
    fn changes_since(&mut self, digest: &str) -> Option<&[RuleChange]> {
        if !self.changes.contains_key(digest) {
            let table = self.stream.table();
            let widened = |change: &RuleChange| change.is_custom && change.is_widening() && change.table == table;
            let changes = self
                .policies
                .get(digest)
                .map(|before| compare(before, self.policy.rules()).into_iter().filter(widened).collect::<Vec<_>>());
            self.changes.insert(digest.to_owned(), changes);
        }
        self.changes.get(digest)?.as_deref()
    }
}

/// Names the policies behind rows that lack something: those that made and restated them, and the present one.
fn joined(before: &str, now: &str) -> Arc<str> {
    let mut digests: Vec<&str> = before.split('+').filter(|digest| *digest != now).collect();
    digests.push(now);
    digests.join("+").into()
}

/// Marks the columns whose values were emptied.
fn marked(restated: &SchemaRef, emptied: &HashSet<String>) -> SchemaRef {
    if emptied.is_empty() {
        return Arc::clone(restated);
    }
    let fields = restated.fields().iter().map(|field| {
        if !emptied.contains(field.name()) {
            return Arc::clone(field);
        }
        let mut metadata = field.metadata().clone();
        metadata.insert(EMPTIED.to_owned(), "true".to_owned());
        Arc::new(field.as_ref().clone().with_metadata(metadata))
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// A restatement, by the names of the columns that it was made for.
struct By {
    restatement: Restatement,
    stored: SchemaRef,
}

impl Restate for By {
    fn column(&self, column: &str, values: ArrayRef) -> Result<ArrayRef> {
        let index = self.stored.index_of(column).map_err(|_| {
            Error::internal("a column is restated that the file does not have").with_context("column", column)
        })?;
        self.restatement.column(index, values)
    }
}
