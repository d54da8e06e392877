//! The form in which a compiled policy is kept in the lake: what decides over stored values, and no more.
//!
//! ```text
//! {"digest": "<SHA-256 of the canonical text, hex>",
//!  "tables": [{"table": "tickets",
//!              "columns": [{"name": …, "path": …, "type": …, "class": …, "method": "truncate(to=day)"}, …],
//!              "custom":  [{"pattern": "*Num", "class": …, "method": …}, …]}, …]}
//! ```
//!
//! Columns and custom rules stand in the order of their file. Descriptions, units and lines are not part of it: the digest
//! does not cover them. A reader ignores fields that it does not know; the form says what was stored under a policy, and
//! no decoder is made of it.

use serde::{Deserialize, Serialize};

/// The rules of a compiled policy, by table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Digest of the policy, hex.
    pub digest: String,
    /// Tables in the order of the streams.
    pub tables: Vec<RulesOfTable>,
}

/// The rules of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesOfTable {
    /// The table.
    pub table: String,
    /// Declared columns.
    pub columns: Vec<ColumnRule>,
    /// Rules over custom attributes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub custom: Vec<AttributeRule>,
}

/// A declared column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnRule {
    /// Name in SQL.
    pub name: String,
    /// Keys from the record's root, joined by dots.
    pub path: String,
    /// Type, as schema files name it.
    #[serde(rename = "type")]
    pub column_type: String,
    /// Class, as schema files name it.
    pub class: String,
    /// Method with its arguments, in the canonical text.
    pub method: String,
}

/// A rule over custom attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeRule {
    /// Name, or pattern with one `*`.
    pub pattern: String,
    /// Class, as schema files name it.
    pub class: String,
    /// Method with its arguments, in the canonical text.
    pub method: String,
}

impl Rules {
    /// Returns the rules of one table.
    #[must_use]
    pub fn table(&self, table: &str) -> Option<&RulesOfTable> {
        self.tables.iter().find(|rules| rules.table == table)
    }
}
