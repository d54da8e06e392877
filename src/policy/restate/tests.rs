//! Tests of restatement: over every pair of methods, what is stored under one comes out as the other would have made it.

use std::collections::HashMap;

use arrow::array::{BooleanArray, ListBuilder, RecordBatch};
use arrow::util::display::array_value_to_string;
use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;
use crate::schema::{ColumnType, Schemas};
use crate::secret::{PseudonymKey, SecretKey};

const HEAD: &str = "stream = \"tags\"\n[[column]]\nname = \"tag_id\"\npath = \"id\"\ntype = \"text\"\nclass = \"internal\"\ndescription = \"Id.\"\n";

fn keys() -> PseudonymKeys {
    let key = PseudonymKey { version: 1, key: SecretKey::new([7; 32]) };
    PseudonymKeys::try_new([Arc::new(key)]).unwrap()
}

fn policy(tail: &str) -> Policy {
    let text = format!("{HEAD}{tail}");
    Policy::compile(&Schemas::from_files([("tags.toml", text.as_str())]).unwrap()).unwrap()
}

fn column(name: &str, path: &str, column_type: &str, method: &str) -> String {
    format!(
        "[[column]]\nname = \"{name}\"\npath = \"{path}\"\ntype = \"{column_type}\"\nclass = \"internal\"\nmethod = {method}\ndescription = \"D.\"\n"
    )
}

fn rule(pattern: &str, method: &str) -> String {
    format!("[[custom]]\npattern = \"{pattern}\"\nclass = \"personal\"\nmethod = {method}\n")
}

/// A stored column as the metadata of the lake describe it.
fn stored(name: &str, path: &str, method: &str, data_type: DataType) -> Field {
    let metadata = [("path", path), ("method", method), ("class", "internal"), ("description", "Before.")];
    let metadata: HashMap<_, _> = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    Field::new(name, data_type, true).with_metadata(metadata)
}

fn restate(policy: &Policy, definitions: &Definitions, fields: Vec<Field>) -> Restatement {
    policy.restate(Stream::Tags, definitions, &Schema::new(fields), &keys()).unwrap()
}

fn steps(restatement: &Restatement) -> Vec<String> {
    restatement.steps().map(|(name, step, method)| format!("{name} {step:?} {method}")).collect()
}

const TEXT_METHODS: [&str; 12] = [
    r#""keep""#,
    r#""mask""#,
    r#"{ name = "mask", as = "email" }"#,
    r#"{ name = "mask", as = "phone" }"#,
    r#"{ name = "mask", keep_last = 2 }"#,
    r#"{ name = "mask", keep_last = 4 }"#,
    r#"{ name = "pseudonymize", domain = "a" }"#,
    r#"{ name = "pseudonymize", domain = "b" }"#,
    r#"{ name = "truncate", chars = 2 }"#,
    r#"{ name = "truncate", chars = 5 }"#,
    r#""restrict""#,
    r#"{ name = "restrict", after = "truncate", chars = 2 }"#,
];
const TIME_METHODS: [&str; 6] = [
    r#""keep""#,
    r#"{ name = "truncate", to = "hour" }"#,
    r#"{ name = "truncate", to = "day" }"#,
    r#"{ name = "truncate", to = "week" }"#,
    r#"{ name = "truncate", to = "month" }"#,
    r#"{ name = "restrict", after = "truncate", to = "day" }"#,
];
const NUMBER_METHODS: [&str; 8] = [
    r#""keep""#,
    r#"{ name = "bucket", width = 10 }"#,
    r#"{ name = "bucket", width = 30 }"#,
    r#"{ name = "bucket", width = 25 }"#,
    r#"{ name = "bucket", bounds = [0, 10, 100] }"#,
    r#"{ name = "bucket", bounds = [10, 100] }"#,
    r#"{ name = "bucket", bounds = [-5, 0, 7] }"#,
    r#"{ name = "restrict", after = "bucket", width = 10 }"#,
];

/// Compiles a method for a column of a type.
fn method(column_type: &str, toml: &str) -> Method {
    let policy = policy(&column("value", "attributes.value", column_type, toml));
    policy.rules_of(Stream::Tags).unwrap().columns[1].method.clone()
}

fn made(column_type: ColumnType, method: &Method, originals: &ArrayRef) -> ArrayRef {
    apply(&Steps::new(&keys()).kind(column_type, method).unwrap().unwrap(), originals).unwrap()
}

fn shown(values: &ArrayRef) -> Vec<Option<String>> {
    (0..values.len()).map(|row| values.is_valid(row).then(|| array_value_to_string(values, row).unwrap())).collect()
}

/// Checks every change from one method to another over some originals.
fn check(column_type: ColumnType, methods: &[&str], originals: &ArrayRef) -> Result<(), TestCaseError> {
    let of_type = column_type.name();
    for from in methods {
        let once = made(column_type, &method(of_type, from), originals);
        let twice = made(column_type, &method(of_type, from), &once);
        prop_assert!(once == twice || from.contains("pseudonymize"), "{from} is idempotent");
        for to in methods {
            let (from, to) = (method(of_type, from), method(of_type, to));
            let (from_text, to_text) = (from.canonical(), to.canonical());
            let policy = policy(&column("value", "attributes.value", of_type, &toml_of(methods, of_type, &to)));
            let field = stored("value", "attributes.value", &from_text, originals.data_type().clone());
            let restatement = restate(&policy, &Definitions::default(), vec![field]);
            let before = made(column_type, &from, originals);
            let now = made(column_type, &to, originals);
            let after = restatement.column(0, Arc::clone(&before)).unwrap();
            let case = format!("{from_text} -> {to_text}");
            prop_assert_eq!(after.data_type(), before.data_type(), "{}", case);
            let step = restatement.columns[0].step;
            match step {
                Step::Same => prop_assert!(from == to && after == before, "{case}"),
                Step::Apply => prop_assert_eq!(&after, &now, "{}", case),
                Step::Empty => prop_assert_eq!(after.null_count(), after.len(), "{}", case),
                Step::Widened => prop_assert_eq!(&after, &before, "{}", case),
                Step::Remove => prop_assert!(false, "{case}"),
            }
            // What the new method does not tell apart, the restated values do not either.
            let mut of_now: HashMap<Option<String>, Option<String>> = HashMap::new();
            for (now, after) in shown(&now).into_iter().zip(shown(&after)) {
                prop_assert_eq!(of_now.entry(now).or_insert_with(|| after.clone()), &after, "{}", case);
            }
            // Never readable by more than before or than the policy says.
            let is_restricted = crate::policy::is_restricted(restatement.schema().field(0));
            let must = matches!(step, Step::Widened) && from.is_restricted() || to.is_restricted();
            prop_assert_eq!(is_restricted, must, "{}", case);
            // Restating it again changes nothing.
            let again = restate(&policy, &Definitions::default(), vec![restatement.schema().field(0).clone()]);
            prop_assert!(matches!(again.columns[0].step, Step::Same | Step::Widened), "{case}");
            prop_assert_eq!(&again.column(0, Arc::clone(&after)).unwrap(), &after, "{}", case);
        }
    }
    Ok(())
}

fn toml_of(methods: &[&str], of_type: &str, wanted: &Method) -> String {
    methods.iter().find(|toml| method(of_type, toml) == *wanted).map(|toml| (*toml).to_owned()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(6) })]

    #[test]
    fn restated_texts_are_as_the_new_method_would_have_made_them(
        texts in prop::collection::vec(
            prop::option::of("[a-c]{0,6}|[a-z\u{e9}\u{65e5}]{0,3}@[a-b]\\.(de|com)|[+0-9 ]{0,12}|\\*{0,4}[0-9]{0,4}"), 1..60),
    ) {
        let originals: ArrayRef = Arc::new(StringArray::from(texts.clone()));
        check(ColumnType::Text, &TEXT_METHODS, &originals)?;
        let mut lists = ListBuilder::new(StringBuilder::new());
        for texts in texts.chunks(3) {
            if texts[0].is_none() {
                lists.append_null();
            } else {
                for text in texts {
                    lists.values().append_option(text.as_deref());
                }
                lists.append(true);
            }
        }
        check(ColumnType::TextList, &TEXT_METHODS, &(Arc::new(lists.finish()) as ArrayRef))?;
    }

    #[test]
    fn restated_times_are_as_the_new_method_would_have_made_them(
        times in prop::collection::vec(prop::option::of(-60_000_000_000i64..60_000_000_000), 1..200),
    ) {
        let originals: ArrayRef = Arc::new(TimestampMillisecondArray::from(times).with_timezone("UTC"));
        check(ColumnType::Timestamp, &TIME_METHODS, &originals)?;
    }

    #[test]
    fn restated_numbers_are_as_the_new_method_would_have_made_them(
        ints in prop::collection::vec(prop::option::of(prop_oneof![any::<i64>(), -200i64..200]), 1..200),
        floats in prop::collection::vec(prop::option::of(prop_oneof![-1e12f64..1e12, -200.0f64..200.0]), 1..200),
    ) {
        check(ColumnType::Int, &NUMBER_METHODS, &(Arc::new(Int64Array::from(ints)) as ArrayRef))?;
        check(ColumnType::Float, &NUMBER_METHODS, &(Arc::new(Float64Array::from(floats)) as ArrayRef))?;
    }
}

#[test]
fn flags_can_only_be_restricted() {
    let originals: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]));
    check(ColumnType::Bool, &[r#""keep""#, r#""restrict""#], &originals).unwrap();
}

#[test]
fn methods_compare_by_what_they_show() {
    use Shows::{Less, More, Other, Same};
    for (from, to, shows) in [
        ("keep", "keep", Same),
        ("keep", "drop", Less),
        ("drop", "keep", More),
        ("keep", "restrict", Less),
        ("restrict", "keep", More),
        ("keep", "pseudonymize(domain=a)", Less),
        ("mask(as=email)", "pseudonymize(domain=a)", Other),
        ("pseudonymize(domain=a)", "pseudonymize(domain=b)", Other),
        ("pseudonymize(domain=a)", "mask", Less),
        ("mask", "mask(as=phone)", More),
        ("mask(keep_last=4)", "mask(keep_last=2)", Other),
        ("truncate(chars=5)", "truncate(chars=2)", Less),
        ("truncate(chars=2)", "truncate(chars=5)", More),
        ("truncate(to=hour)", "truncate(to=month)", Less),
        ("truncate(to=week)", "truncate(to=month)", Other),
        ("truncate(to=month)", "truncate(to=week)", Other),
        ("bucket(width=10)", "bucket(bounds=[0,20])", Less),
        ("bucket(bounds=[0,20])", "bucket(width=10)", More),
        ("bucket(bounds=[0,20])", "bucket(width=50)", Other),
        (r#"scrub(kinds=["email"])"#, r#"scrub(kinds=["card","email"])"#, Less),
        (r#"scrub(kinds=["email"])"#, r#"scrub(kinds=["card"])"#, Other),
        (r#"scrub(kinds=["email"])"#, r#"scrub(kinds=["email"],patterns=["a:b"])"#, Less),
        (r#"scrub(kinds=["email"],patterns=["a:b"])"#, r#"scrub(kinds=["email"],patterns=["a:c"])"#, Other),
        ("truncate(chars=5)", "restrict(after=truncate,chars=2)", Less),
        ("truncate(chars=2)", "restrict(after=truncate,chars=5)", Other),
        ("restrict", "mask", Other),
        ("restrict", "restrict(after=mask)", Less),
        ("scrambled(how=well)", "scrambled(how=well)", Same),
        ("scrambled(how=well)", "mask", Other),
        ("scrambled(how=well)", "keep", More),
        ("", "mask", Other),
    ] {
        assert_eq!(compare_methods(from, to), shows, "{from} -> {to}");
    }
}

#[test]
fn columns_are_found_by_name_and_custom_ones_by_their_attribute() {
    let policy = policy(&format!(
        "{}{}{}{}{}{}{}",
        column("label", "attributes.label", "text", "\"mask\""),
        column("gone", "attributes.gone", "text", "\"drop\""),
        column("moved", "attributes.new", "text", "\"keep\""),
        column("fresh", "attributes.fresh", "int", "\"keep\""),
        column("own", "attributes.custom.ownStr", "text", "\"keep\""),
        rule("*Str", "\"mask\""),
        rule("secretStr", "\"pseudonymize\""),
    ));
    let mut definitions = Definitions::default();
    let page = br#"{"data":{"attributes":{"properties":{"tierStr":{"type":"string"},"hiddenStr":{"type":"string","hasSensitiveAttributes":true},
        "lateStr":{"type":"string"}}}}}"#;
    definitions.add(Stream::Tags, page).unwrap();
    let text = |name: &str, path: &str, method: &str| stored(name, path, method, DataType::Utf8);
    let fields = vec![
        text("tag_id", "id", "keep"),
        text("label", "attributes.label", "keep"),
        text("gone", "attributes.gone", "keep"),
        text("moved", "attributes.old", "keep"),
        text("old", "attributes.label", "keep"),
        text("custom_tier", "attributes.custom.tierStr", "keep"),
        stored("custom_tier_num", "attributes.custom.tierStr", "keep", DataType::Float64),
        text("custom_hidden", "attributes.custom.hiddenStr", "mask"),
        text("custom_secret", "attributes.custom.secretStr", "keep"),
        text("custom_own", "attributes.custom.ownStr", "keep"),
        text("custom_note", "attributes.custom.noteTxt", "keep"),
    ];
    definitions.hold(Stream::Tags, &Schema::new(fields.clone()));
    let restatement = restate(&policy, &definitions, fields);
    assert_eq!(
        steps(&restatement),
        [
            "tag_id Same keep",
            "label Apply mask",
            "gone Remove drop",
            "moved Empty keep",
            "old Remove drop",
            "custom_tier Apply mask",
            "custom_tier_num Remove drop",
            "custom_hidden Remove drop",
            "custom_secret Apply pseudonymize(domain=tags.custom_secret)",
            "custom_own Remove drop",
            "custom_note Remove drop",
        ]
    );
    assert_eq!(restatement.missing(), ["fresh", "own", "custom_late"]);
    assert!(restatement.is_narrowing() && restatement.is_widening());
    assert_eq!(restatement.names(&[Step::Empty]), ["moved"]);
    let after: Vec<String> = restatement
        .schema()
        .fields()
        .iter()
        .map(|field| {
            let metadata = field.metadata();
            format!("{} {} {} {}", field.name(), metadata["path"], metadata["class"], metadata["description"])
        })
        .collect();
    assert_eq!(
        after,
        [
            "tag_id id internal Id.",
            "label attributes.label internal D.",
            "moved attributes.new internal D.",
            "custom_tier attributes.custom.tierStr personal Before.",
            "custom_secret attributes.custom.secretStr personal Before.",
        ]
    );
    let values: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    assert_eq!(restatement.column(2, Arc::clone(&values)).unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(restatement.column(99, Arc::clone(&values)).unwrap_err().kind(), ErrorKind::Internal);
    let number: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    assert_eq!(restatement.column(1, number).unwrap_err().kind(), ErrorKind::Internal);
    let pseudonym = restatement.column(8, values).unwrap();
    let expected = crate::policy::pseudonym(&keys(), "tags.custom_secret", "a");
    assert_eq!(pseudonym.as_string::<i32>().value(0), expected);
}

#[test]
fn what_a_decoder_stored_is_the_same_under_the_same_policy() {
    let policy = policy(&format!(
        "{}{}{}",
        column("label", "attributes.label", "text", r#"{ name = "pseudonymize", domain = "a b" }"#),
        column("level", "attributes.level", "int", r#"{ name = "restrict", after = "bucket", width = 5 }"#),
        rule("*Str", "\"mask\""),
    ));
    let mut definitions = Definitions::default();
    definitions.add(Stream::Tags, br#"{"data":{"attributes":{"properties":{"tierStr":{"type":"string"}}}}}"#).unwrap();
    let mut decoder = policy.decoder(Stream::Tags, &definitions, &keys()).unwrap();
    let page =
        br#"{"data":{"id":"58228e05d4e96711004eccb7","attributes":{"label":"x","level":-7,"custom":{"tierStr":"t"}}}}"#;
    decoder.push_page(page).unwrap();
    let batch: RecordBatch = decoder.finish().unwrap().batch().clone();
    let restatement = policy.restate(Stream::Tags, &definitions, &batch.schema(), &keys()).unwrap();
    assert!(restatement.steps().all(|(_, step, _)| *step == Step::Same), "{restatement:?}");
    assert_eq!((restatement.schema(), restatement.missing().len()), (&batch.schema(), 0));
    assert!(!restatement.is_narrowing() && !restatement.is_widening());
    for (index, column) in batch.columns().iter().enumerate() {
        assert_eq!(&restatement.column(index, Arc::clone(column)).unwrap(), column);
    }
    assert_eq!(batch.column_by_name("level").unwrap().as_primitive::<Int64Type>().value(0), -10);
}

#[test]
fn text_of_a_scrub_goes_when_more_is_to_be_found_in_it() {
    let scrub = |kinds: &str| format!("{{ name = \"scrub\", kinds = [{kinds}] }}");
    let canonical = |kinds: &str| method("text", &scrub(kinds)).canonical();
    for (from, to, step) in [
        ("keep".to_owned(), "\"card\"", Step::Apply),
        (canonical("\"card\""), "\"card\"", Step::Same),
        (canonical("\"phone\""), "\"phone\", \"card\"", Step::Empty),
        (canonical("\"phone\", \"card\""), "\"phone\"", Step::Widened),
    ] {
        let policy = policy(&column("note", "attributes.note", "text", &scrub(to)));
        let field = stored("note", "attributes.note", &from, DataType::Utf8);
        let restatement = restate(&policy, &Definitions::default(), vec![field]);
        assert_eq!(restatement.columns[0].step, step, "{from} -> {to}");
    }
    let originals: ArrayRef = Arc::new(StringArray::from(vec![
        "mail jane.doe@example.com or call +49 30 1234567, card 4111 1111 1111 1111",
        "nothing in it",
        "",
    ]));
    let methods = [r#""keep""#, r#""scrub""#, r#""mask""#, r#"{ name = "restrict", after = "scrub" }"#];
    check(ColumnType::Text, &methods, &originals).unwrap();
    let scrubbed = made(ColumnType::Text, &method("text", r#""scrub""#), &originals);
    assert!(!scrubbed.as_string::<i32>().value(0).contains("jane"));
}

#[test]
fn other_type_is_refused() {
    let policy = policy(&column("label", "attributes.label", "text", "\"mask\""));
    let stored = Schema::new(vec![stored("label", "attributes.label", "keep", DataType::Int64)]);
    let error = policy.restate(Stream::Tags, &Definitions::default(), &stored, &keys()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}
