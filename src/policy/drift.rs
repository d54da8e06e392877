//! Tests of pages that drift: whatever stands in a field of a record with a valid id, the page decodes.
//!
//! What a column cannot hold is null in it and counted by name and type; records beside it on the page are untouched.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, RecordBatch};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::model::{ObjectId, Stream};
use crate::policy::{Decoder, Definitions, Policy};
use crate::schema::{BUILTIN, ColumnType, OPTIONAL, Schemas};
use crate::secret::{PseudonymKey, PseudonymKeys, SecretKey};

static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| Schemas::from_files(BUILTIN.into_iter().chain(OPTIONAL)).unwrap());

static POLICY: LazyLock<Policy> = LazyLock::new(|| Policy::compile(&SCHEMAS).unwrap());

fn decoder(stream: Stream) -> Decoder {
    let mut definitions = Definitions::default();
    let page = br#"{"data":{"attributes":{"properties":{"tierStr":{"type":"string"},"scoreNum":{"type":"number"},
        "sinceAt":{"type":"string"},"openBool":{"type":"boolean"},"ordersId":{"type":"string","multi":true}}}}}"#;
    definitions.add(stream, page).unwrap();
    let key = PseudonymKey { version: 1, key: SecretKey::new([7; 32]) };
    let keys = PseudonymKeys::try_new([Arc::new(key)]).unwrap();
    POLICY.decoder(stream, &definitions, &keys).unwrap()
}

/// The paths that a stream declares, those of custom attributes, and some that nothing declares.
fn paths(stream: Stream) -> Vec<(Vec<String>, ColumnType)> {
    let columns = &SCHEMAS.table(stream).unwrap().columns;
    let mut paths: Vec<_> = columns.iter().map(|column| (column.path.clone(), column.column_type)).collect();
    for (path, column_type) in [
        ("attributes.custom.tierStr", ColumnType::Text),
        ("attributes.custom.scoreNum", ColumnType::Float),
        ("attributes.custom.sinceAt", ColumnType::Timestamp),
        ("attributes.custom.openBool", ColumnType::Bool),
        ("attributes.custom.ordersId", ColumnType::TextList),
        ("attributes.custom.newStr", ColumnType::Text),
        ("attributes.custom", ColumnType::Any),
        ("attributes.somethingNew.inside", ColumnType::Any),
        ("attributes", ColumnType::Any),
        ("relationships", ColumnType::Any),
        ("relationships.agent.data.id", ColumnType::Text),
        ("somethingNew", ColumnType::Any),
    ] {
        paths.push((path.split('.').map(str::to_owned).collect(), column_type));
    }
    paths.retain(|(path, _)| path[..] != ["id"]);
    paths
}

/// A value of a declared type.
fn usual(column_type: ColumnType) -> Value {
    match column_type {
        ColumnType::Text => json!("some text"),
        ColumnType::Int => json!(7),
        ColumnType::Float => json!(0.25),
        ColumnType::Bool => json!(true),
        ColumnType::Timestamp => json!("2026-10-30T01:02:03.004Z"),
        ColumnType::TextList => json!(["a", "b"]),
        ColumnType::Any => json!({"inside": "anything"}),
    }
}

/// Puts a value at a path, through objects and arrays that it makes on the way.
fn put(record: &mut Value, path: &[String], value: Value) {
    let Some((key, rest)) = path.split_first() else {
        *record = value;
        return;
    };
    if let Ok(index) = key.parse::<usize>() {
        if !record.is_array() {
            *record = json!([]);
        }
        let items = record.as_array_mut().unwrap();
        items.resize(items.len().max(index + 1), Value::Null);
        put(&mut items[index], rest, value);
        return;
    }
    if !record.is_object() {
        *record = Value::Object(Map::new());
    }
    put(record.as_object_mut().unwrap().entry(key.clone()).or_insert(Value::Null), rest, value);
}

fn record(stream: Stream, number: u8) -> Value {
    let mut record = json!({});
    for (path, column_type) in paths(stream) {
        if column_type != ColumnType::Any {
            put(&mut record, &path, usual(column_type));
        }
    }
    put(&mut record, &["id".to_owned()], json!(ObjectId::from_bytes([number; 12]).to_string()));
    record
}

fn page(records: &[Value]) -> Vec<u8> {
    serde_json::to_vec(&json!({"meta": {"total": records.len()}, "data": records})).unwrap()
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        prop::num::f64::NORMAL.prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(json!("2026-02-30T25:00:00Z")),
        Just(json!("a_state_of_next_year")),
        Just(json!("x".repeat(5_000))),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z0-9]{0,4}|time|data|id|[A-Z@.]{1,6}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn row(batch: &RecordBatch, row: usize) -> Vec<String> {
    let shown = |column| arrow::util::display::array_value_to_string(column, row).unwrap();
    batch.columns().iter().map(|column| shown(column)).collect()
}

fn check_mutated(stream: Stream, changes: &[(prop::sample::Index, Value)]) -> Result<(), TestCaseError> {
    let mut drifted = record(stream, 2);
    let paths = paths(stream);
    for (at, value) in changes {
        put(&mut drifted, &at.get(&paths).0, value.clone());
    }
    put(&mut drifted, &["id".to_owned()], json!(ObjectId::from_bytes([2; 12]).to_string()));

    let mut beside = decoder(stream);
    beside.push_page(&page(&[record(stream, 1), record(stream, 3)])).unwrap();
    let alone = beside.finish().unwrap();

    let mut decoder = beside.fork();
    let summary = decoder.push_page(&page(&[record(stream, 1), drifted, record(stream, 3)]));
    let Ok(summary) = summary else {
        return Err(TestCaseError::fail(format!("page did not decode: {summary:?}")));
    };
    prop_assert_eq!(summary.records.len() + summary.rejected.len(), 3);
    let found = decoder.finish().unwrap();
    let batch = found.batch();
    prop_assert_eq!(batch.num_rows(), summary.records.len());
    prop_assert_eq!(batch.schema(), alone.batch().schema());
    for column in batch.columns() {
        prop_assert_eq!(column.len(), batch.num_rows());
    }
    prop_assert_eq!(row(batch, 0), row(alone.batch(), 0));
    prop_assert_eq!(row(batch, batch.num_rows() - 1), row(alone.batch(), 1));
    for field in decoder.quarantine() {
        prop_assert!(field.count > 0 && !field.path.is_empty() && field.path.len() < 300, "{:?}", field);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn ticket_with_anything_in_its_fields_leaves_the_page_whole(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_value()), 1..12),
    ) {
        check_mutated(Stream::Tickets, &changes)?;
    }

    #[test]
    fn record_of_any_other_stream_does_too(
        stream in prop::sample::select(&Stream::ALL[1..]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_value()), 1..12),
    ) {
        check_mutated(stream, &changes)?;
    }
}

#[test]
fn null_and_containers_and_other_types_are_null_in_every_column() {
    let values = [Value::Null, json!([]), json!({}), json!([[1]]), json!({"a": {"b": 1}}), json!(1e300), json!("?")];
    for stream in Stream::ALL {
        let whole = decoder(stream);
        for (path, column_type) in paths(stream) {
            let records: Vec<Value> = (1u8..)
                .zip(&values)
                .map(|(number, value)| {
                    let mut drifted = record(stream, number);
                    let id = drifted["id"].clone();
                    put(&mut drifted, &path, value.clone());
                    drifted["id"] = id;
                    drifted
                })
                .collect();
            let mut decoder = whole.fork();
            let summary = decoder.push_page(&page(&records)).unwrap();
            let rows = decoder.finish().unwrap();
            let at = path.join(".");
            assert_eq!(summary.records.len() + summary.rejected.len(), values.len(), "{stream} {at}");
            assert_eq!(rows.batch().num_rows(), summary.records.len(), "{stream} {at}");
            let is_column = rows.batch().schema().fields().iter().any(|field| field.metadata()["path"] == at);
            if is_column && column_type != ColumnType::Any && summary.rejected.is_empty() {
                let counted = decoder.quarantine().iter().any(|field| field.path == at && field.json_type == "object");
                assert!(counted, "{stream} {at}: an object went unnoticed");
            }
        }
    }
}
