//! Redaction: rules as written, rules as compiled, methods, and the decoder that applies them.
//!
//! ```text
//! schema::Schemas ─▶ Policy::compile ─▶ rules ─┐
//!                                              ├─▶ plan (tree of paths) ─▶ Decoder: page bytes ─▶ RedactedBatch
//! metadata answers ─▶ Definitions ─────────────┘                            └─▶ quarantine: names, types, counts
//! ```
//!
//! This is the border where Kustomer's *conversation* becomes the product's *ticket*, and the only place where values of a
//! page are looked at. A page is walked once: values of declared columns go straight into Arrow builders through their
//! method, everything else is skipped where it stands. [`RedactedBatch`] has no public constructor, so that what the lake
//! stores went through here.
//!
//! # Order and precedence
//!
//! What decides over a field, the first that applies:
//!
//! 1. The `[[column]]` with the longest path: one of type `any` drops all below its path, less what longer paths name.
//! 2. For a custom attribute that no column reads, the `[[custom]]` rule by its name; then the longest pattern that covers
//!    it, of equally long ones the first in the file.
//! 3. Nothing: the field is dropped, and its name, type and count are reported ([`Decoder::quarantine`]).
//!
//! An attribute that the source marks sensitive is stored only by a column or by a rule by name; patterns can only drop it.
//! A value that its column's type cannot hold is NULL and reported; so is an attribute whose type its rule cannot be
//! applied to. Of a key that a record has twice, the first value stays.
//!
//! # Defaults
//!
//! Everything is dropped that nothing declares. A declared column is kept when its class is `public` or `internal`; for
//! `personal` and `content` a method must be written. Text of class `content` is stored only as `scrub`, `mask` or
//! `pseudonymize` make it, also behind `restrict`. Key and replication columns take `keep` alone. A scrub replaces every
//! kind that is known, and the patterns of its file. A pseudonym's domain is its own column.
//!
//! Rules that can never match, two rules for one field, and methods that do not fit their type are refused when the policy
//! is compiled (`policy/reach.rs`, `policy/method.rs`): file, line and the way out, before the first request.
//!
//! # What happens to a value
//!
//! One method, once, while the page is decoded; `null`, `{}` and, but for lists, `[]` are NULL, and empty text stays empty. Methods may be applied to their own output and change nothing, which a restatement relies on
//! ([`Policy::restate`]); all but `pseudonymize`, whose output is a text like any other. Nothing applies it twice: a page holds
//! originals only, and what a stored column holds is said by the method in its metadata, which makes the same method over it a
//! column that stays as it is.
//!
//! # Errors of this module
//!
//! They name paths, positions and counts, never a value of a page: the text of a JSON error is not passed on.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};

use crate::error::{Error, Result};
use crate::model::Stream;
use crate::schema::Schemas;
use crate::secret::PseudonymKeys;

mod batch;
mod bucket;
mod canonical;
mod change;
mod columns;
mod custom;
mod decode;
mod definitions;
#[cfg(test)]
mod drift;
mod form;
mod ids;
mod json;
mod method;
mod names;
mod plan;
mod pseudonym;
mod quarantine;
mod reach;
mod redaction;
mod restate;
mod rules;
mod scalar;
mod schedules;
mod scrub;
mod tombstone;
mod tree;
mod view;

pub use batch::{RecordKey, RedactedBatch, SortedRows};
pub use change::{Direction, RuleChange, compare};
pub use custom::{AttributeChange, Change};
pub use decode::{Decoder, PageSummary, Rejected};
pub use definitions::{Definitions, column_type};
pub use form::{AttributeRule, ColumnRule, Rules, RulesOfTable};
pub use ids::IdPage;
pub use pseudonym::{PseudonymRotation, holds_pseudonyms, pseudonym_domain};
pub use quarantine::{Quarantined, Reason};
pub use redaction::Redaction;
pub use restate::{Restatement, Step};
pub use schedules::lacking_holidays;
pub use view::RuleView;

use plan::Plan;
use rules::TableRules;

/// A compiled policy.
#[derive(Debug)]
pub struct Policy {
    tables: BTreeMap<Stream, TableRules>,
    digest: Arc<str>,
    form: Arc<Rules>,
}

/// Makes the pseudonym that the method `pseudonymize` stores in place of a value, of the version that the keys make.
#[must_use]
pub fn pseudonym(keys: &PseudonymKeys, domain: &str, value: &str) -> String {
    pseudonym::pseudonym(keys, domain, value)
}

/// Tells whether a column is kept under the second key.
#[must_use]
pub fn is_restricted(column: &Field) -> bool {
    column.metadata().get("method").is_some_and(|method| method == "restrict" || method.starts_with("restrict("))
}

impl Policy {
    /// Compiles the declarations.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) for the first rule that cannot be applied: an unknown method, an argument
    /// that it does not take, a method that does not fit the type, a key or replication column that is not kept.
    pub fn compile(schemas: &Schemas) -> Result<Self> {
        let mut tables = BTreeMap::new();
        // The first line is the version of the canonical text.
        let mut canonical = String::from("counterfoil policy 1\n");
        for stream in schemas.streams() {
            let Some(schema) = schemas.table(stream) else { continue };
            let rules = TableRules::compile(schema)?;
            rules.write_canonical(&mut canonical);
            tables.insert(stream, rules);
        }
        let digest = hex_sha256(&canonical);
        let form = Rules { digest: digest.clone(), tables: tables.values().map(TableRules::form).collect() };
        Ok(Self { tables, digest: digest.into(), form: Arc::new(form) })
    }

    /// Lists everything that [`compile`](Self::compile) would refuse, where that stops at the first.
    #[must_use]
    pub fn problems(schemas: &Schemas) -> Vec<Error> {
        let tables = schemas.streams().filter_map(|stream| schemas.table(stream));
        tables.flat_map(|schema| TableRules::problems(schema)).collect()
    }

    /// Returns the SHA-256 of the compiled policy, in hex.
    ///
    /// It covers what decides over the stored values (names, paths, types, classes, methods, order of the custom rules)
    /// and not descriptions and units.
    pub fn digest(&self) -> &Arc<str> {
        &self.digest
    }

    /// Returns the compiled rules in the form in which the lake keeps them.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.form
    }

    /// Returns the streams that are declared.
    pub fn streams(&self) -> Vec<Stream> {
        self.tables.keys().copied().collect()
    }

    /// Makes a decoder of one stream's pages.
    ///
    /// For decoders side by side, make one and [`Decoder::fork`] it: they share the compiled tree.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the stream is not declared. Nothing that the source defines is an
    /// error: see [`attribute_changes`](Self::attribute_changes).
    pub fn decoder(&self, stream: Stream, definitions: &Definitions, keys: &PseudonymKeys) -> Result<Decoder> {
        let columns = self.rules_of(stream)?.columns_with(definitions)?;
        Ok(Decoder::new(Arc::new(Plan::try_new(stream, Arc::clone(&self.digest), &columns, keys)?)))
    }

    /// Tells what is new about a stream's custom attributes, against the columns that [`Definitions::hold`] was told of.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the stream is not declared.
    pub fn attribute_changes(&self, stream: Stream, definitions: &Definitions) -> Result<Vec<AttributeChange>> {
        self.rules_of(stream)?.changes(definitions)
    }

    /// Refuses a table of the lake in which a column that a person declared has another type.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) naming the first such column and both types.
    pub fn check_table(&self, stream: Stream, columns: &Schema) -> Result<()> {
        self.tables.get(&stream).map_or(Ok(()), |rules| rules.check_held(columns))
    }

    fn rules_of(&self, stream: Stream) -> Result<&TableRules> {
        self.tables.get(&stream).ok_or_else(|| {
            Error::config("stream is not declared")
                .with_context("stream", stream)
                .with_hint(format!("add `{stream}.toml` to the schemas; `counterfoil init` writes it"))
        })
    }
}

fn hex_sha256(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
    use arrow::datatypes::{Float64Type, Int64Type, TimestampMillisecondType};
    use arrow::util::display::array_value_to_string;
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;
    use crate::secret::{PseudonymKey, SecretKey};

    const ID: &str = "58228e05d4e96711004eccb7";
    const COLUMNS: &str = r#"
stream = "tickets"
[[column]]
name = "ticket_id"
path = "id"
type = "text"
class = "internal"
description = "Id."
[[column]]
name = "updated_at"
path = "attributes.updatedAt"
type = "timestamp"
class = "internal"
description = "Change."
[[column]]
name = "rev"
path = "attributes.rev"
type = "int"
class = "internal"
description = "Revision."
[[column]]
name = "deleted"
path = "attributes.deleted"
type = "bool"
class = "internal"
description = "Deleted."
"#;
    const FIELDS: &str = r#"
[[column]]
name = "status"
path = "attributes.status"
type = "text"
class = "public"
description = "Status."
[[column]]
name = "first_response_ms"
path = "attributes.firstResponse.time"
type = "int"
unit = "ms"
class = "internal"
description = "Time."
[[column]]
name = "polarity"
path = "attributes.sentiment.polarity"
type = "float"
class = "internal"
description = "Polarity."
[[column]]
name = "tag_ids"
path = "attributes.tags"
type = "text_list"
class = "internal"
description = "Tags."
[[column]]
name = "opened_on"
path = "attributes.createdAt"
type = "timestamp"
class = "internal"
method = { name = "truncate", to = "day" }
description = "Day."
[[column]]
name = "email"
path = "attributes.emails.0.email"
type = "text"
class = "personal"
method = { name = "mask", as = "email" }
description = "First address."
[[column]]
name = "people"
path = "attributes.people"
type = "text_list"
class = "personal"
method = { name = "pseudonymize", domain = "person" }
description = "People."
[[column]]
name = "area"
path = "attributes.area"
type = "text"
class = "personal"
method = { name = "truncate", chars = 2 }
description = "Area."
[[column]]
name = "subject"
path = "attributes.name"
type = "text"
class = "content"
method = "drop"
description = "Subject."
[[column]]
name = "relationships"
path = "relationships"
type = "any"
class = "internal"
method = "drop"
description = "Links."
[[column]]
name = "customer_id"
path = "relationships.customer.data.id"
type = "text"
class = "internal"
description = "Customer."
[[custom]]
pattern = "*Str"
class = "internal"
[[custom]]
pattern = "*Num"
class = "internal"
[[custom]]
pattern = "*Txt"
class = "content"
method = "drop"
[[custom]]
pattern = "secretStr"
class = "personal"
method = "mask"
[[custom]]
pattern = "*Id"
class = "internal"
"#;

    fn schemas(tail: &str) -> Schemas {
        Schemas::from_files([("tickets.toml", format!("{COLUMNS}{tail}").as_str())]).unwrap()
    }

    fn keys(byte: u8) -> PseudonymKeys {
        let key = PseudonymKey { version: 1, key: SecretKey::new([byte; 32]) };
        PseudonymKeys::try_new([Arc::new(key)]).unwrap()
    }

    fn definitions() -> Definitions {
        let mut definitions = Definitions::default();
        let page = br#"{"data":{"attributes":{"properties":{
            "tierStr":{"type":"string","displayName":"Tier"},"refundAmountNum":{"type":"number"},
            "noteTxt":{"type":"string","hasSensitiveAttributes":true},"secretStr":{"type":"string","hasSensitiveAttributes":true},
            "ssnStr":{"type":"string","hasSensitiveAttributes":true},
            "orderId":{"type":"string","multi":true,"deletedAt":"2020-01-01T00:00:00Z"}}}}}"#;
        definitions.add(Stream::Tickets, page).unwrap();
        definitions
    }

    fn decoder() -> Decoder {
        let policy = Policy::compile(&schemas(FIELDS)).unwrap();
        policy.decoder(Stream::Tickets, &definitions(), &keys(7)).unwrap()
    }

    fn decode(records: &[&str]) -> (RedactedBatch, Vec<Quarantined>) {
        let mut decoder = decoder();
        decoder.push_page(format!("{{\"data\":[{}]}}", records.join(",")).as_bytes()).unwrap();
        (decoder.finish().unwrap(), decoder.quarantine())
    }

    fn shown(batch: &RecordBatch, column: &str, row: usize) -> String {
        let column = batch.column_by_name(column).unwrap_or_else(|| panic!("no column {column}"));
        if column.is_null(row) { "NULL".to_owned() } else { array_value_to_string(column, row).unwrap() }
    }

    fn quarantined(list: &[Quarantined]) -> Vec<String> {
        list.iter().map(|q| format!("{} {} {} {}", q.path, q.json_type, q.reason.name(), q.count)).collect()
    }

    #[test]
    fn record_lands_in_columns_through_its_methods() {
        let record = format!(
            r#"{{"type":"conversation","attributes":{{"name":"needle","status":"do\u006ee","rev":3.0,"deleted":true,
            "updatedAt":"2016-11-09T03:23:34.064Z","createdAt":"2016-11-09T02:46:29.789Z","tags":["a",null,"b\"c"],
            "firstResponse":{{"time":241653,"createdByTeams":[]}},"sentiment":{{"polarity":-1}},
            "emails":[{{"email":"zoe@example.com","type":"home"}},{{"email":"needle@example.com"}}],
            "people":["zoe","zoe",""],"area":"日本語",
            "custom":{{"tierStr":"vip","refundAmountNum":12.5,"noteTxt":"needle","secretStr":"needle","ssnStr":"needle","orderId":["1"]}}}},
            "relationships":{{"customer":{{"links":{{"self":"/v1"}},"data":{{"type":"customer","id":"c1"}}}},"org":{{}}}},
            "id":"{}"}}"#,
            ID.to_uppercase()
        );
        let (batch, quarantine) = decode(&[&record]);
        assert_eq!(
            batch.keys(),
            [RecordKey {
                id: ID.parse().unwrap(),
                updated_at_ms: Some(1_478_661_814_064),
                rev: Some(3),
                deleted: true
            }]
        );
        let batch = batch.batch();
        for (column, expected) in [
            ("ticket_id", ID),
            ("updated_at", "2016-11-09T03:23:34.064Z"),
            ("rev", "3"),
            ("deleted", "true"),
            ("status", "done"),
            ("first_response_ms", "241653"),
            ("polarity", "-1.0"),
            ("tag_ids", "[a, , b\"c]"),
            ("opened_on", "2016-11-09T00:00:00Z"),
            ("email", "z***@example.com"),
            ("area", "日本"),
            ("customer_id", "c1"),
            ("custom_tier", "vip"),
            ("custom_refund_amount", "12.5"),
            ("custom_secret", "***"),
            ("custom_order", "[1]"),
        ] {
            assert_eq!(shown(batch, column, 0), expected, "{column}");
        }
        let people = batch.column_by_name("people").unwrap().as_list::<i32>().value(0);
        let people = people.as_string::<i32>();
        assert_eq!(people.value(0), people.value(1));
        assert!(people.value(0).starts_with("p1_") && people.value(0).len() == 25);
        assert_eq!(people.value(2), "");
        assert_eq!(
            quarantined(&quarantine),
            [
                "attributes.custom.ssnStr text undeclared 1",
                "attributes.emails.* object undeclared 1",
                "attributes.emails.type text undeclared 1",
                "attributes.firstResponse.createdByTeams array undeclared 1",
                "type text undeclared 1",
            ]
            .map(|line| line.replace("emails.type", "emails.0.type"))
        );
        assert!(!format!("{batch:?}{quarantine:?}").contains("needle"));
    }

    #[test]
    fn schema_tells_type_class_method_and_description() {
        let schema = decoder().schema();
        let field = schema.field_with_name("first_response_ms").unwrap();
        assert!(field.is_nullable() && !schema.field_with_name("ticket_id").unwrap().is_nullable());
        assert_eq!(field.metadata()["unit"], "ms");
        assert_eq!(field.metadata()["class"], "internal");
        assert_eq!(schema.field_with_name("opened_on").unwrap().metadata()["method"], "truncate(to=day)");
        assert_eq!(
            schema.field_with_name("custom_tier").unwrap().metadata()["description"],
            "Custom attribute tierStr: Tier"
        );
        for absent in ["subject", "relationships", "custom_note", "custom_ssn"] {
            assert!(schema.field_with_name(absent).is_err(), "{absent}");
        }
    }

    #[test]
    fn absent_null_and_empty_are_null_and_only_an_empty_list_is_a_list() {
        let wrap = |attributes: &str| format!(r#"{{"id":"{ID}","attributes":{attributes}}}"#);
        for (attributes, tags) in [
            ("{}", "NULL"),
            ("null", "NULL"),
            ("[]", "NULL"),
            (r#"{"tags":null,"status":null,"firstResponse":null,"emails":null}"#, "NULL"),
            (r#"{"tags":{},"status":{},"firstResponse":{},"emails":{},"rev":[ ]}"#, "NULL"),
            (r#"{"tags":[],"status":[],"firstResponse":[],"emails":[],"sentiment":{}}"#, "[]"),
            (r#"{"emails":[{}],"sentiment":{"polarity":{}}}"#, "NULL"),
        ] {
            let (batch, quarantine) = decode(&[&wrap(attributes), &wrap(r#"{"tags":["x"],"status":"open"}"#)]);
            assert_eq!(shown(batch.batch(), "tag_ids", 0), tags, "{attributes}");
            assert_eq!(shown(batch.batch(), "tag_ids", 1), "[x]");
            for column in ["status", "first_response_ms", "email", "polarity", "rev", "updated_at"] {
                assert_eq!(shown(batch.batch(), column, 0), "NULL", "{attributes} {column}");
            }
            assert_eq!(shown(batch.batch(), "status", 1), "open");
            assert_eq!(quarantine, [], "{attributes}");
        }
    }

    #[test]
    fn value_of_another_type_is_null_and_counted() {
        for (attributes, column, counted) in [
            (r#"{"status":7}"#, "status", "attributes.status number mismatch 1"),
            (r#"{"status":{"a":1}}"#, "status", "attributes.status object mismatch 1"),
            (r#"{"rev":"3"}"#, "rev", "attributes.rev text mismatch 1"),
            (r#"{"rev":3.5}"#, "rev", "attributes.rev number mismatch 1"),
            (r#"{"rev":1e999}"#, "rev", "attributes.rev number mismatch 1"),
            (r#"{"deleted":"true"}"#, "deleted", "attributes.deleted text mismatch 1"),
            (r#"{"updatedAt":"yesterday"}"#, "updated_at", "attributes.updatedAt text mismatch 1"),
            (r#"{"updatedAt":1478661814064}"#, "updated_at", "attributes.updatedAt number mismatch 1"),
            (r#"{"updatedAt":"99999-01-01T00:00:00.000Z"}"#, "updated_at", "attributes.updatedAt text mismatch 1"),
            (r#"{"sentiment":{"polarity":true}}"#, "polarity", "attributes.sentiment.polarity bool mismatch 1"),
            (r#"{"sentiment":"good"}"#, "polarity", "attributes.sentiment text mismatch 1"),
            (r#"{"sentiment":[1]}"#, "polarity", "attributes.sentiment array mismatch 1"),
            (r#"{"tags":"a"}"#, "tag_ids", "attributes.tags text mismatch 1"),
            (r#"{"tags":["a",1]}"#, "tag_ids", "attributes.tags array mismatch 1"),
        ] {
            let (batch, quarantine) = decode(&[&format!(r#"{{"id":"{ID}","attributes":{attributes}}}"#)]);
            assert_eq!(shown(batch.batch(), column, 0), "NULL", "{attributes}");
            assert!(quarantined(&quarantine).contains(&counted.to_owned()), "{attributes}: {quarantine:?}");
        }
    }

    #[test]
    fn first_of_duplicate_keys_stays_and_rows_stay_aligned() {
        let double = format!(
            r#"{{"id":"{ID}","id":"000000000000000000000000","attributes":{{"status":"a","status":"b","tags":["1"],"tags":[],"rev":1}},
            "attributes":{{"rev":2,"deleted":true}}}}"#
        );
        let (batch, _) = decode(&[&double, &format!(r#"{{"id":"{ID}","attributes":{{"status":"c"}}}}"#)]);
        assert_eq!(
            (batch.keys()[0].rev, batch.keys()[0].deleted, batch.keys()[0].id.to_string()),
            (Some(1), true, ID.to_owned())
        );
        let batch = batch.batch();
        for (column, rows) in [("status", ["a", "c"]), ("tag_ids", ["[1]", "NULL"]), ("rev", ["1", "NULL"])] {
            assert_eq!([shown(batch, column, 0), shown(batch, column, 1)], rows, "{column}");
        }
    }

    #[test]
    fn page_says_how_it_goes_on() {
        let mut decoder = decoder();
        let page = format!(
            r#"{{"links":{{"self":"/a","next":"/v1/customers/search?page=2"}},"data":[{{"id":"{ID}"}}],"included":[1],
            "meta":{{"pageSize":100,"page":1,"total":7503,"totalPages":76,"aggregations":{{}},"timed_out":true}}}}"#
        );
        let summary = decoder.push_page(page.as_bytes()).unwrap();
        assert_eq!((summary.total, summary.timed_out, summary.records.len()), (Some(7503), true, 1));
        assert_eq!(summary.next.as_deref(), Some("/v1/customers/search?page=2"));
        let summary = decoder.push_page(br#"{"data":[],"links":{"next":null},"meta":{}}"#).unwrap();
        assert_eq!((summary.total, summary.timed_out, summary.next, summary.records.len()), (None, false, None, 0));
        let single = decoder.push_page(format!(r#"{{"data":{{"id":"{ID}"}}}}"#).as_bytes()).unwrap();
        assert_eq!(single.records[0].id.to_string(), ID);
        assert_eq!(decoder.rows(), 2);
        assert_eq!(decoder.finish().unwrap().batch().num_rows(), 2);
        assert_eq!((decoder.rows(), decoder.finish().unwrap().batch().num_rows()), (0, 0));
    }

    #[test]
    fn failed_page_leaves_no_row_and_repeats_no_value() {
        let mut decoder = decoder();
        let good = format!(r#"{{"id":"{ID}","attributes":{{"status":"kept","x":1}}}}"#);
        decoder.push_page(format!("{{\"data\":[{good}]}}").as_bytes()).unwrap();
        let before = decoder.quarantine();
        for (page, message) in [
            (format!(r#"{{"data":[{good}],"data":[]}}"#), "page has `data` twice (stream: tickets,"),
            (format!(r#"{{"data":[{good}"#), "page ends in the middle of its JSON (stream: tickets, line: 1, column:"),
            (format!(r#"{{"data":[{good}]}} needle"#), "page is not valid JSON (stream: tickets,"),
            (
                format!(r#"{{"data":[{good}],"meta":{{"total":"needle"}}}}"#),
                "page has another form than an answer of the source (stream",
            ),
            (r#"{"data":null}"#.to_owned(), "page has another form than an answer of the source (stream"),
            (r#"{"errors":[{"detail":"needle"}]}"#.to_owned(), "page has no `data` (stream: tickets)"),
            (r#"["needle"]"#.to_owned(), "page has another form than an answer of the source (stream"),
            ("<html>needle".to_owned(), "page is not valid JSON (stream"),
            (String::new(), "page ends in the middle of its JSON (stream"),
        ] {
            let error = decoder.push_page(page.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
            assert!(error.to_string().starts_with(message), "{error}\n{message}");
            assert!(!format!("{error:?}").contains("needle"), "{error:?}");
            assert_eq!(decoder.rows(), 1);
            assert_eq!(decoder.quarantine(), before);
        }
        decoder.push_page(format!("{{\"data\":[{good}]}}").as_bytes()).unwrap();
        let batch = decoder.finish().unwrap();
        assert_eq!(batch.keys().len(), 2);
        assert_eq!(shown(batch.batch(), "status", 1), "kept");
    }

    #[test]
    fn record_that_does_not_decode_is_left_out_and_the_others_of_its_page_stay() {
        let good = |status: &str| format!(r#"{{"id":"{ID}","attributes":{{"status":"{status}","rev":1}}}}"#);
        let updated = "2026-01-01T00:00:00.000Z";
        for (bad, reason, updated_at_ms) in [
            (
                format!(r#"{{"attributes":{{"status":"needle","rev":9,"updatedAt":"{updated}"}}}}"#),
                "its id",
                Some(1_767_225_600_000),
            ),
            (r#"{"id":"needle","attributes":{"status":"needle"}}"#.to_owned(), "its id", None),
            (r#"{"id":7,"attributes":{"tags":["needle"]}}"#.to_owned(), "its id", None),
            (r#""needle""#.to_owned(), "it is no object", None),
            ("null".to_owned(), "it is no object", None),
            ("true".to_owned(), "it is no object", None),
            ("-7".to_owned(), "it is no object", None),
            ("7.5".to_owned(), "it is no object", None),
            (r#"["needle",{"id":1}]"#.to_owned(), "it is no object", None),
        ] {
            let mut decoder = decoder();
            let page = format!(r#"{{"data":[{},{bad},{}]}}"#, good("first"), good("last"));
            let summary = decoder.push_page(page.as_bytes()).unwrap();
            let [rejected] = summary.rejected.as_slice() else { panic!("{bad}: {:?}", summary.rejected) };
            assert_eq!((rejected.position, rejected.updated_at_ms), (1, updated_at_ms), "{bad}");
            assert!(rejected.reason.starts_with(reason), "{bad}: {rejected:?}");
            let rows = decoder.finish().unwrap();
            assert_eq!((summary.records.len(), rows.keys().len(), rows.batch().num_rows()), (2, 2, 2));
            assert_eq!(
                (shown(rows.batch(), "status", 0), shown(rows.batch(), "status", 1)),
                ("first".to_owned(), "last".to_owned())
            );
        }
    }

    #[test]
    fn page_of_another_organisation_is_refused_whole() {
        let record = |organisation: &str| {
            format!(r#"{{"id":"{ID}","relationships":{{"org":{{"data":{{"type":"org","id":"{organisation}"}}}}}}}}"#)
        };
        let (ours, theirs) = ("58228e05d4e96711004ecc00", "58228e05d4e96711004ecc01");
        let mut decoder = decoder();
        decoder.expect_organisation(ours.parse().unwrap());
        let mut decoder = decoder.fork();
        decoder.push_page(format!(r#"{{"data":[{}]}}"#, record(ours)).as_bytes()).unwrap();
        decoder.push_page(format!(r#"{{"data":[{{"id":"{ID}"}}]}}"#).as_bytes()).unwrap();
        let error =
            decoder.push_page(format!(r#"{{"data":[{},{}]}}"#, record(ours), record(theirs)).as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert_eq!(decoder.rows(), 2);
    }

    #[test]
    fn broken_text_in_a_dropped_or_kept_field_does_not_stop_a_page() {
        let record = format!(
            r#"{{"id":"{ID}","attributes":{{"name":"cut \ud83d","other":"cut \ud83d","status":"cut \ud83d","big":1e999,"deep":{}{}}}}}"#,
            "[".repeat(500),
            "]".repeat(500)
        );
        let (batch, _) = decode(&[&record]);
        assert_eq!(shown(batch.batch(), "status", 0), "cut \u{fffd}");
    }

    #[test]
    fn numbers_are_bucketed_and_restricted_columns_say_so() {
        let column = |name: &str, column_type: &str, method: &str| {
            format!(
                "[[column]]\nname = \"{name}\"\npath = \"attributes.{name}\"\ntype = \"{column_type}\"\nclass = \"personal\"\nmethod = {method}\ndescription = \"x\"\n"
            )
        };
        let tail = [
            column("age", "int", "{ name = \"bucket\", bounds = [18, 30] }"),
            column("score", "float", "{ name = \"restrict\", after = \"bucket\", width = 0.5 }"),
            column("city", "text", "{ name = \"restrict\", after = \"truncate\", chars = 2 }"),
            column("vip", "bool", "\"restrict\""),
        ];
        let policy = Policy::compile(&schemas(&tail.concat())).unwrap();
        let mut decoder = policy.decoder(Stream::Tickets, &Definitions::default(), &keys(1)).unwrap();
        let record = |n: u8, age: i32, score: f64| {
            format!(r#"{{"id":"{n:024x}","attributes":{{"age":{age},"score":{score},"city":"Bonn","vip":true}}}}"#)
        };
        let records = [record(1, 17, 0.4), record(2, 18, -0.4), record(3, 99, 7.5)].join(",");
        decoder.push_page(format!(r#"{{"data":[{records}]}}"#).as_bytes()).unwrap();
        let batch = decoder.finish().unwrap();
        let rows: Vec<String> = (0..3)
            .map(|row| ["age", "score", "city", "vip"].map(|name| shown(batch.batch(), name, row)).join(" "))
            .collect();
        assert_eq!(rows, ["NULL 0.0 Bo true", "18 -0.5 Bo true", "30 7.5 Bo true"]);
        assert_eq!(decoder.quarantine(), [], "below the first bound is no mismatch");
        let schema = decoder.schema();
        let restricted = schema.fields().iter().filter(|field| is_restricted(field));
        assert!(restricted.map(|field| field.name()).eq(["score", "city", "vip"]));
    }

    #[test]
    fn rules_are_found_with_their_place() {
        let policy = Policy::compile(&schemas(&format!(
            "{FIELDS}[[column]]\nname = \"inner\"\npath = \"attributes.custom.boxes.inner\"\ntype = \"int\"\nclass = \"public\"\ndescription = \"x\"\n"
        )))
        .unwrap();
        let shown = |rule: &RuleView| {
            let RuleView { name, path, column_type, class, method, file, line } = rule;
            format!("{file}:{line} {name} {path} {} {class} {method}", column_type.unwrap_or("-"))
        };
        let columns = policy.columns(Stream::Tickets).unwrap();
        assert_eq!(columns.len(), 16);
        assert_eq!(shown(&columns[0]), "tickets.toml:3 ticket_id id text internal keep");
        assert_eq!(shown(&columns[9]), "tickets.toml:60 email attributes.emails.0.email text personal mask(as=email)");
        let rules: Vec<String> = policy.custom_rules(Stream::Tickets).unwrap().iter().map(shown).collect();
        assert_eq!(rules.len(), 5);
        assert_eq!(rules[3], "tickets.toml:111 secretStr attributes.custom.secretStr - personal mask");
        let of = |attribute: &str| policy.rule_of_attribute(Stream::Tickets, attribute).unwrap().map(|rule| rule.name);
        for (attribute, rule) in
            [("tierStr", Some("*Str")), ("secretStr", Some("secretStr")), ("boxes", Some("inner")), ("plain", None)]
        {
            assert_eq!(of(attribute).as_deref(), rule, "{attribute}");
        }
        assert!(policy.columns(Stream::Tags).is_err());
    }

    #[test]
    fn wrong_policy_is_refused_with_place_and_hint() {
        let column = |name: &str, column_type: &str, class: &str, method: &str| {
            format!(
                "[[column]]\nname = \"{name}\"\npath = \"attributes.{name}\"\ntype = \"{column_type}\"\nclass = \"{class}\"\nmethod = {method}\ndescription = \"x\"\n"
            )
        };
        for (tail, message, hint) in [
            (
                column("a", "int", "internal", "\"mask\""),
                "method does not fit the type (file: tickets.toml, line: 27, column: a, method: mask, type: int)",
                "it takes text and text_list: keep or drop the column, or correct its type",
            ),
            (
                column("a", "text", "internal", "{ name = \"truncate\", to = \"day\" }"),
                "method does not fit the type (file: tickets.toml, line: 27, column: a, method: truncate, type: text)",
                "`to` is for a timestamp; a text takes `chars = 12`",
            ),
            (
                column("a", "any", "internal", "\"keep\""),
                "method does not fit the type (file: tickets.toml, line: 27, column: a, method: keep, type: any)",
                "write `method = \"drop\"`: `any` is for what is dropped",
            ),
            (
                column("a", "text", "content", "\"keep\""),
                "free text cannot be kept (file: tickets.toml, line: 27, column: a, class: content, method: keep)",
                "scrub it, drop it, or give the column the class that it has if people do not write into it",
            ),
            (
                column("a", "text", "content", "\"restrict\""),
                "free text cannot be kept (file: tickets.toml, line: 27, column: a, class: content, method: restrict)",
                "write `method = { name = \"restrict\", after = \"scrub\" }`, or drop it",
            ),
            (
                column("a", "text_list", "content", "{ name = \"restrict\", after = \"truncate\", chars = 2 }"),
                "free text cannot be kept (file: tickets.toml, line: 27, column: a, class: content, method: restrict)",
                "write `method = { name = \"restrict\", after = \"scrub\" }`, or drop it",
            ),
            (
                column("a", "int", "internal", "{ name = \"bucket\", width = 0.5 }"),
                "method does not fit the type (file: tickets.toml, line: 27, column: a, method: bucket, type: int)",
                "an int takes whole bounds and widths",
            ),
            (
                column("a", "timestamp", "internal", "{ name = \"bucket\", width = 5 }"),
                "method does not fit the type (file: tickets.toml, line: 27, column: a, method: bucket, type: timestamp)",
                "it takes int and float; a timestamp takes `{ name = \"truncate\", to = \"day\" }`",
            ),
            (
                column("a", "int", "internal", "{ name = \"restrict\", after = \"mask\" }"),
                "method does not fit the type (file: tickets.toml, line: 27, column: a, method: mask, type: int)",
                "it takes text and text_list: keep or drop the column, or correct its type",
            ),
            (
                column("a", "any", "internal", "\"restrict\""),
                "method does not fit the type (file: tickets.toml, line: 27, column: a, method: keep, type: any)",
                "write `method = \"drop\"`: `any` is for what is dropped",
            ),
            (
                column("a", "text", "internal", "\"psuedonymize\""),
                "unknown method (file: tickets.toml, line: 27, column: a, method: psuedonymize)",
                "did you mean `pseudonymize`?",
            ),
            (
                "[[custom]]\npattern = \"*Num\"\nclass = \"internal\"\nmethod = \"pseudonymize\"\n".to_owned(),
                "method does not fit the type (file: tickets.toml, line: 27, pattern: *Num, method: pseudonymize, type: float)",
                "it takes text and text_list: keep or drop the column, or correct its type",
            ),
        ] {
            let error = Policy::compile(&schemas(&tail)).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert_eq!(error.hint(), Some(hint));
        }
        for name in ["ticket_id", "updated_at", "rev", "deleted"] {
            for method in ["drop", "restrict", "mask", "pseudonymize"] {
                let with = format!("name = \"{name}\"\nmethod = \"{method}\"\n");
                let text = COLUMNS.replace(&format!("name = \"{name}\"\n"), &with);
                let schemas = Schemas::from_files([("tickets.toml", text.as_str())]).unwrap();
                let error = Policy::compile(&schemas).unwrap_err();
                assert_eq!(
                    error.message(),
                    "key and replication columns cannot be masked or dropped",
                    "{name} {method}"
                );
            }
        }
        let error = Policy::compile(&schemas("")).unwrap().decoder(Stream::Tags, &Definitions::default(), &keys(1));
        assert_eq!(error.unwrap_err().to_string(), "stream is not declared (stream: tags)");
    }

    #[test]
    fn digest_follows_what_is_stored_and_not_what_is_described() {
        let digest = |text: String| {
            Policy::compile(&Schemas::from_files([("tickets.toml", text.as_str())]).unwrap())
                .unwrap()
                .digest()
                .to_string()
        };
        let text = format!("{COLUMNS}{FIELDS}");
        let original = digest(text.clone());
        assert_eq!(original.len(), 64);
        assert_eq!(digest(text.replace("Status.", "State.")), original);
        for (from, to) in [
            ("to = \"day\"", "to = \"week\""),
            ("\"*Num\"", "\"*Bool\""),
            ("domain = \"person\"", "domain = \"people\""),
        ] {
            assert_ne!(digest(text.replace(from, to)), original, "{to}");
        }
    }

    #[test]
    fn builtin_compiles_and_has_the_columns_that_queries_name() {
        let policy = Policy::compile(&Schemas::builtin().unwrap()).unwrap();
        assert!(policy.streams().iter().eq(Stream::ALL.iter().filter(|stream| **stream != Stream::TicketTimes)));
        for (stream, names) in [
            (
                Stream::Tickets,
                "ticket_id updated_at created_at status customer_id channels tag_ids assigned_user_ids assigned_team_ids \
                 queue_id brand_id sla_id sla_name sla_status sla_breached sla_breached_metric sla_breached_at \
                 sla_first_response_breach_at priority message_count note_count inbound_message_count outbound_message_count \
                 reopen_count done_count snooze_count satisfaction_score satisfaction_rating satisfaction_status \
                 sentiment_polarity first_response_ms first_response_business_ms first_response_at first_response_user_id \
                 first_done_at first_done_ms last_done_at last_done_ms total_open_ms total_done_ms last_message_in_at \
                 last_message_out_at last_message_direction last_activity_at direction deleted rev spam ended_at custom_tier \
                 custom_refund_amount",
            ),
            (
                Stream::Customers,
                "customer_id updated_at created_at rev deleted conversation_count_all conversation_count_open \
                 conversation_count_snoozed conversation_count_done locale last_activity_at satisfaction_avg_rating \
                 satisfaction_count email_pseudonym progressive_status tag_ids company_id",
            ),
            (Stream::Users, "user_id name email user_type"),
            (Stream::Teams, "team_id name member_ids"),
            (Stream::Tags, "tag_id name color deleted"),
            (Stream::Queues, "queue_id name"),
            (Stream::Brands, "brand_id name is_default"),
            (Stream::Slas, "sla_id name"),
            (Stream::Schedules, "schedule_id name timezone hours holidays is_default deleted"),
        ] {
            let schema = policy.decoder(stream, &definitions(), &keys(1)).unwrap().schema();
            for name in names.split_whitespace() {
                assert!(schema.field_with_name(name).is_ok(), "{stream}: {name}");
            }
        }
    }

    // Every attribute that the source is known to have, with a value or empty: none is forgotten by the built-in schemas.
    const KNOWN: [(Stream, &str); 9] = [
        (
            Stream::Tickets,
            "externalId name preview channels status open.statusAt snooze.status snooze.time snooze.statusAt messageCount \
             noteCount outboundMessageCount inboundMessageCount doneCount snoozeCount reopenCount reopenFromDoneCount \
             satisfaction satisfactionLevel.form satisfactionLevel.formResponse satisfactionLevel.channel \
             satisfactionLevel.status satisfactionLevel.score satisfactionLevel.rating satisfactionLevel.firstAnswer \
             satisfactionLevel.scheduledFor satisfactionLevel.sentAt satisfactionLevel.sentBy satisfactionLevel.sentByTeams \
             satisfactionLevel.answers satisfactionLevel.createdAt satisfactionLevel.updatedAt createdAt updatedAt modifiedAt \
             lastActivityAt lastReceivedAt lastMessageAt importedAt endedAt spam ended pinned mergedTarget deleted locked \
             endedReason endedByType tags suggestedTags suggestedShortcuts predictions skills matchedTimeBasedRules \
             roleGroupVersions accessOverride linkedConversations sentiment.polarity sentiment.confidence assignedUsers \
             assignedTeams direction lastMessageDirection priority defaultLang locale replyChannel phase billingStatus \
             externalQueue rev firstMessageIn.id firstMessageIn.sentAt firstMessageIn.createdAt firstMessageIn.directionType \
             firstMessageIn.channel firstMessageIn.meta firstMessageIn.firstDelivered firstMessageOut.id firstMessageOut.sentAt \
             firstMessageOut.createdAt firstMessageOut.channel firstMessageOut.directionType firstMessageOut.createdBy \
             firstMessageOut.createdByTeams lastMessageIn.id lastMessageIn.sentAt lastMessageIn.createdAt lastMessageIn.meta \
             lastMessageIn.channel lastMessageOut.id lastMessageOut.sentAt lastMessageOut.createdAt lastMessageOut.createdBy \
             lastMessageUnrespondedTo.id lastMessageUnrespondedTo.sentAt lastMessageUnrespondedTo.createdAt \
             lastMessageUnrespondedToSinceLastDone.id lastMessageUnrespondedToSinceLastDone.sentAt \
             lastMessageUnrespondedToSinceLastDone.createdAt firstResponse.id firstResponse.time firstResponse.businessTime \
             firstResponse.responseTime firstResponse.createdAt firstResponse.sentAt firstResponse.createdBy \
             firstResponse.createdByTeams firstResponse.assignedTeams firstResponse.assignedUsers firstResponse.source \
             firstResponseSinceLastDone.time lastResponse.time firstDone.createdAt firstDone.createdBy firstDone.createdByTeams \
             firstDone.assignedTeams firstDone.assignedUsers firstDone.time firstDone.businessTime firstDone.messageCount \
             firstDone.noteCount firstDone.outboundMessageCount firstDone.messageCountByChannel \
             firstDone.outboundMessageCountByChannel firstDone.lastMessageDirection firstDone.lastMessageDirectionType \
             firstDone.source lastDone.time lastDone.messageCountByChannel totalOpen.time totalOpen.businessTime \
             totalOpen.timeSinceLastDone totalOpen.businessTimeSinceLastDone totalDone.time totalSnooze.time firstCompany.id \
             firstCompany.name modificationHistory.nameAt modificationHistory.priorityAt modificationHistory.channelAt \
             modificationHistory.assignedTeamsAt modificationHistory.assignedUsersAt modificationHistory.brandAt \
             modificationHistory.defaultLangAt modificationHistory.statusAt modificationHistory.tagsAt \
             modificationHistory.customAt assistant.assistantId assistant.status assistant.type assistant.app \
             assistant.channel assistant.emulation assistant.transferredAt assistant.fac.isFac assistant.fac.source \
             assistant.fac.reasons assistant.fac.exclusions assistant.fac.createdAt aiAgent.automationId sla.name sla.version \
             sla.matchedAt sla.status sla.breached sla.breach.metric sla.breach.at sla.summary.satisfiedAt \
             sla.summary.firstBreachAt sla.metrics.firstResponse.breachAt sla.metrics.firstResponse.satisfiedAt \
             sla.metrics.firstResponse.onTimeCount sla.metrics.firstResponse.lateCount \
             sla.metrics.longestUnrespondedMessage.breachAt sla.metrics.totalCustomerWaitTime.breachAt \
             sla.metrics.totalConversationOpenTime.breachAt sla.metrics.nextReply.breachAt attribution.totalRevenue \
             attribution.hasAttributableRevenue attribution.currency lastDeflection.type lastDeflection.status \
             lastDeflection.deflectedAt lastDeflection.articles lastDeflection.query custom.tierStr custom.refundAmountNum",
        ),
        (
            Stream::Customers,
            "name firstName lastName displayName displayColor displayIcon externalId externalIds sharedExternalIds username \
             avatarUrl emails sharedEmails phones sharedPhones whatsapps sharedWhatsapps facebookIds instagramIds smoochIds \
             socials sharedSocials urls locations activeUsers watchers recentLocation locale timeZone birthdayAt gender presence \
             createdAt updatedAt modifiedAt signedUpAt lastSeenAt lastActivityAt lastCustomerActivityAt lastMessageIn.channel \
             lastMessageIn.sentAt lastMessageIn.sentiment lastMessageOut.sentAt lastMessageAt lastMessageUnrespondedTo.sentAt \
             lastMessageUnrespondedTo.channel lastConversation.id lastConversation.channels lastConversation.tags \
             lastConversation.sentiment conversationCounts.all conversationCounts.open conversationCounts.snoozed \
             conversationCounts.done preview tags sentiment custom sla progressiveStatus verified rev recentItems \
             satisfactionLevel.firstSatisfaction satisfactionLevel.lastSatisfaction satisfactionLevel.count \
             satisfactionLevel.acknowledgeCount satisfactionLevel.avgRating satisfactionLevel.avgScore roleGroupVersions \
             accessOverride defaultLang companyName unmaskingWindow deleted importedAt",
        ),
        (
            Stream::Users,
            "displayName name userType email mobile emailSignature emailVerifiedAt firstEmailVerifiedAt isEmailValid \
             verifiedEmailStatus password roles roleGroups firstLoginAt mostRecentLoginAt avatarUrl createdAt updatedAt \
             modifiedAt deletedAt",
        ),
        (Stream::Teams, "name displayName icon members roleGroups deleted deletedAt createdAt updatedAt modifiedAt"),
        (Stream::Tags, "name color deleted deletedAt createdAt updatedAt modifiedAt"),
        (Stream::Queues, "name createdAt updatedAt"),
        (Stream::Brands, "name default iconUrl createdAt updatedAt modifiedAt"),
        (Stream::Slas, "currentVersion createdAt"),
        (Stream::Schedules, "name timezone hours holidays default deleted deletedAt createdAt updatedAt modifiedAt"),
    ];

    #[test]
    fn every_known_attribute_is_declared() {
        let policy = Policy::compile(&Schemas::builtin().unwrap()).unwrap();
        for (stream, paths) in KNOWN {
            let mut decoder = policy.decoder(stream, &definitions(), &keys(1)).unwrap();
            for path in paths.split_whitespace() {
                let value = path.rsplit('.').fold("{}".to_owned(), |inner, name| format!("{{\"{name}\":{inner}}}"));
                let page = format!(
                    r#"{{"data":{{"type":"x","id":"{ID}","attributes":{value},"relationships":{{"org":{{}}}},"links":{{}}}}}}"#
                );
                decoder.push_page(page.as_bytes()).unwrap();
            }
            let quarantine: Vec<String> =
                quarantined(&decoder.quarantine()).into_iter().filter(|line| line.contains("undeclared")).collect();
            assert_eq!(quarantine, [""; 0], "{stream}");
        }
    }

    #[test]
    fn custom_rules_decide_by_name_then_by_length_then_by_order() {
        let rules = "[[custom]]\npattern = \"*Str\"\nclass = \"internal\"\n\
             [[custom]]\npattern = \"tier*\"\nclass = \"internal\"\nmethod = \"mask\"\n\
             [[custom]]\npattern = \"secretStr\"\nclass = \"personal\"\nmethod = { name = \"mask\", keep_last = 2 }\n\
             [[custom]]\npattern = \"areaAt\"\nclass = \"internal\"\nmethod = { name = \"truncate\", to = \"week\" }\n\
             [[column]]\nname = \"note\"\npath = \"attributes.custom.noteTxt\"\ntype = \"text\"\nclass = \"personal\"\nmethod = \"mask\"\ndescription = \"x\"\n";
        let policy = Policy::compile(&schemas(rules)).unwrap();
        let methods = |definitions: &Definitions| -> Vec<String> {
            let schema = policy.decoder(Stream::Tickets, definitions, &keys(1)).unwrap().schema();
            let fields =
                schema.fields().iter().filter(|field| field.name() == "note" || field.name().starts_with("custom_"));
            fields.map(|field| format!("{} {}", field.name(), field.metadata()["method"])).collect()
        };
        assert_eq!(
            methods(&definitions()),
            ["note mask", "custom_area truncate(to=week)", "custom_secret mask(keep_last=2)", "custom_tier mask"]
        );
        assert_eq!(
            methods(&Definitions::default()),
            ["note mask", "custom_area truncate(to=week)", "custom_secret mask(keep_last=2)"]
        );
    }

    #[test]
    fn examples_of_the_source_decode_and_nothing_of_them_is_undeclared() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/kustomer/examples"));
        let policy = Policy::compile(&Schemas::builtin().unwrap()).unwrap();
        let mut definitions = Definitions::default();
        for (stream, file, rows) in [
            (Stream::Tickets, "GetConversation", 1),
            (Stream::Tickets, "GetConversations", 1),
            (Stream::Tickets, "GetConversationsByCustomer", 1),
            (Stream::Customers, "CustomerSearch", 2),
            (Stream::Customers, "CustomerArchiveSearch", 2),
            (Stream::Customers, "GetCustomerById", 1),
            (Stream::Customers, "GetCustomers", 1),
            (Stream::Brands, "GetBrands", 2),
            (Stream::Slas, "GetSlaById", 1),
        ] {
            let path = folder.join(format!("{file}.response.200.json"));
            let Ok(page) = std::fs::read(&path) else {
                skipped(&path);
                continue;
            };
            let mut decoder = policy.decoder(stream, &definitions, &keys(1)).unwrap();
            let summary = decoder.push_page(&page).unwrap();
            assert!(summary.records.len() >= rows, "{file}: {}", summary.records.len());
            assert_eq!(quarantined(&decoder.quarantine()), [""; 0], "{file}");
        }
        match std::fs::read(folder.join("GetCustomAttributeMetadata.response.200.json")) {
            Ok(page) => {
                definitions.add(Stream::Customers, &page).unwrap();
                let schema = policy.decoder(Stream::Customers, &definitions, &keys(1)).unwrap().schema();
                for name in ["custom_my_custom", "custom_orders"] {
                    assert!(schema.field_with_name(name).is_ok(), "{name}");
                }
                // The number of an account elsewhere names a person there.
                assert!(schema.field_with_name("custom_shopify_customer_id").is_err());
            }
            Err(_) => skipped(folder),
        }
    }

    /// Says that an example is missing, past the harness, which keeps to itself what a passing test prints.
    fn skipped(missing: &std::path::Path) {
        let line = format_args!("skipped: no response examples at {}\n", missing.display());
        std::io::Write::write_fmt(&mut std::io::stderr(), line).unwrap();
    }

    #[test]
    fn batches_are_filtered_and_joined_in_order_of_their_keys() {
        let record = |id: u8, at: &str, rev: u8| {
            format!(r#"{{"id":"{id:024x}","attributes":{{"updatedAt":"2024-01-0{at}T00:00:00.000Z","rev":{rev}}}}}"#)
        };
        let first = decode(&[&record(3, "1", 1), &record(1, "2", 2)]).0;
        let second = decode(&[&record(2, "1", 1), &record(1, "2", 1), &record(1, "1", 9)]).0;
        let joined = SortedRows::try_new(&[first.clone(), second.clone()]).unwrap();
        let keys = |rows: &SortedRows| -> Vec<(u8, i64)> {
            rows.keys().iter().map(|key| (key.id.as_bytes()[11], key.rev.unwrap())).collect()
        };
        let rev = joined.schema().index_of("rev").unwrap();
        let revs = |rows: &SortedRows| -> Vec<i64> {
            let column = rows.column(rev, 0..rows.keys().len()).unwrap();
            column.as_primitive::<Int64Type>().values().to_vec()
        };
        assert_eq!(keys(&joined), [(1, 9), (1, 1), (1, 2), (2, 1), (3, 1)]);
        assert_eq!(revs(&joined), [9, 1, 2, 1, 1]);
        assert_eq!(joined.policy(), first.policy());
        assert_eq!(joined.column(rev, [4, 0].into_iter()).unwrap().as_primitive::<Int64Type>().values(), &[1, 9]);
        assert!(joined.column(rev, 0..6).is_err() && joined.column(99, 0..1).is_err());
        let status = joined.schema().index_of("status").unwrap();
        assert_eq!(joined.column(status, 0..5).unwrap().null_count(), 5);

        let kept =
            joined.filter(&BooleanArray::from(vec![Some(true), None, Some(false), Some(true), Some(false)])).unwrap();
        assert_eq!((keys(&kept), revs(&kept)), (vec![(1, 9), (2, 1)], vec![9, 1]));
        assert!(joined.filter(&BooleanArray::from(vec![true])).is_err());

        let other = Policy::compile(&schemas("")).unwrap();
        let mut other = other.decoder(Stream::Tickets, &Definitions::default(), &super::tests::keys(1)).unwrap();
        assert!(SortedRows::try_new(&[first, other.finish().unwrap()]).is_err());
        assert!(SortedRows::try_new(&[]).is_err());
    }

    #[test]
    fn fork_shares_the_plan_and_no_rows() {
        let mut decoder = decoder();
        decoder.push_page(format!(r#"{{"data":[{{"id":"{ID}","x":1}}]}}"#).as_bytes()).unwrap();
        let fork = decoder.fork();
        assert_eq!((fork.rows(), fork.quarantine().len(), fork.schema()), (0, 0, decoder.schema()));
        assert!(!format!("{decoder:?}").contains("HMAC"), "{decoder:?}");
    }

    /// A record in parts, each in the states that real ones have.
    #[derive(Debug, Clone)]
    struct Parts {
        id: [u8; 12],
        attributes: Vec<String>,
        custom: Vec<String>,
    }

    /// Values that must not survive start with this, which no method leaves in place.
    fn needle() -> impl Strategy<Value = String> {
        "[a-z\u{e9}\u{65e5}\"\\\\ ]{0,8}".prop_map(|text| format!("needle{text}"))
    }

    fn quoted(text: &str) -> String {
        serde_json::to_string(text).unwrap()
    }

    fn state(key: &'static str, value: impl Strategy<Value = String>) -> impl Strategy<Value = Option<String>> {
        prop_oneof![
            1 => Just(None),
            1 => Just(Some(format!("\"{key}\":null"))),
            1 => Just(Some(format!("\"{key}\":{{}}"))),
            1 => Just(Some(format!("\"{key}\":[]"))),
            4 => value.prop_map(move |value| Some(format!("\"{key}\":{value}"))),
        ]
    }

    fn parts() -> impl Strategy<Value = Parts> {
        let attributes = (
            state("name", needle().prop_map(|n| quoted(&n))),
            state("undeclared", needle().prop_map(|n| format!("[{{\"a\":{}}}]", quoted(&n)))),
            state(
                "sentiment",
                needle().prop_map(|n| {
                    let name = quoted(&format!("{n}@example.com"));
                    format!("{{\"note\":{},{name}:1,\"polarity\":0.5}}", quoted(&n))
                }),
            ),
            state(
                "emails",
                needle().prop_map(|n| {
                    format!("[{{\"email\":{}}},{{\"email\":{}}}]", quoted(&format!("{n}@example.com")), quoted(&n))
                }),
            ),
            state("people", needle().prop_map(|n| format!("[{},null]", quoted(&n)))),
            state("area", needle().prop_map(|n| quoted(&n))),
            state("rev", needle().prop_map(|n| quoted(&n))),
            state("tags", prop::collection::vec("[a-z]{1,3}", 0..3).prop_map(|tags| format!("{tags:?}"))),
            state("status", "[a-z]{1,6}".prop_map(|status| quoted(&status))),
            state(
                "updatedAt",
                (0i64..4_000_000_000_000)
                    .prop_map(|ms| quoted(&format!("{:.3}", jiff::Timestamp::from_millisecond(ms).unwrap()))),
            ),
        );
        let custom = (
            state("tierStr", "[a-z]{1,4}".prop_map(|tier| quoted(&tier))),
            state("noteTxt", needle().prop_map(|n| quoted(&n))),
            state("secretStr", needle().prop_map(|n| quoted(&n))),
            state("ssnStr", needle().prop_map(|n| quoted(&n))),
            state("refundAmountNum", needle().prop_map(|n| format!("{{\"a\":{}}}", quoted(&n)))),
        );
        (any::<[u8; 12]>(), attributes, custom).prop_map(|(id, a, c)| Parts {
            id,
            attributes: [a.0, a.1, a.2, a.3, a.4, a.5, a.6, a.7, a.8, a.9].into_iter().flatten().collect(),
            custom: [c.0, c.1, c.2, c.3, c.4].into_iter().flatten().collect(),
        })
    }

    impl Parts {
        fn json(&self, is_reversed: bool) -> String {
            let order = |mut parts: Vec<String>| {
                if is_reversed {
                    parts.reverse();
                }
                format!("{{{}}}", parts.join(","))
            };
            let mut attributes = self.attributes.clone();
            attributes.push(format!("\"custom\":{}", order(self.custom.clone())));
            order(vec![
                format!("\"id\":\"{}\"", crate::model::ObjectId::from_bytes(self.id)),
                format!("\"attributes\":{}", order(attributes)),
            ])
        }
    }

    fn text_of(batch: &RedactedBatch) -> Vec<String> {
        let batch = batch.batch();
        (0..batch.num_rows())
            .map(|row| batch.columns().iter().map(|c| array_value_to_string(c, row).unwrap() + "|").collect())
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

        #[test]
        fn no_classified_value_survives_in_any_order_or_split(
            records in prop::collection::vec(parts(), 1..8),
            split in 0usize..8,
        ) {
            let json = |is_reversed| records.iter().map(|record| record.json(is_reversed)).collect::<Vec<_>>();
            let page = |records: &[String]| format!("{{\"data\":[{}]}}", records.join(","));
            let mut whole = decoder();
            whole.push_page(page(&json(false)).as_bytes()).unwrap();
            let batch = whole.finish().unwrap();
            prop_assert_eq!(batch.batch().num_rows(), records.len());
            let all = format!("{:?}{:?}{:?}", text_of(&batch), batch, whole.quarantine());
            prop_assert!(!all.contains("needle"), "{}", all);

            let mut parted = whole.fork();
            let reversed = json(true);
            let (left, right) = reversed.split_at(split.min(reversed.len()));
            parted.push_page(page(left).as_bytes()).unwrap();
            parted.push_page(page(right).as_bytes()).unwrap();
            let other = parted.finish().unwrap();
            prop_assert_eq!(batch.batch(), other.batch());
            prop_assert_eq!(batch.keys(), other.keys());
            prop_assert_eq!(whole.quarantine(), parted.quarantine());
        }

        #[test]
        fn damaged_bytes_neither_panic_nor_leave_rows_behind(
            record in parts(),
            at in 0usize..400,
            bytes in prop::collection::vec(any::<u8>(), 0..6),
        ) {
            let mut page = format!("{{\"data\":[{}]}}", record.json(false)).into_bytes();
            let at = at.min(page.len());
            page.splice(at..(at + bytes.len() / 2).min(page.len()), bytes);
            let mut decoder = decoder();
            let rows = decoder.push_page(&page).map_or(0, |summary| summary.records.len());
            prop_assert_eq!(decoder.rows(), rows);
            prop_assert_eq!(decoder.finish().unwrap().batch().num_rows(), rows);
        }
    }

    #[test]
    fn columns_have_the_arrow_types_of_their_declaration() {
        let (batch, _) = decode(&[&format!(r#"{{"id":"{ID}","attributes":{{"sentiment":{{"polarity":1}}}}}}"#)]);
        let batch = batch.batch();
        assert_eq!(batch.column_by_name("polarity").unwrap().as_primitive::<Float64Type>().values(), &[1.0]);
        let opened_on = batch.column_by_name("opened_on").unwrap();
        assert!(opened_on.as_primitive_opt::<TimestampMillisecondType>().is_some());
        assert_eq!(opened_on.data_type().to_string(), "Timestamp(ms, \"UTC\")");
    }
}
