//! `counterfoil policy suggest`: declarations for what is in quarantine, as text for the schema files.
//!
//! Lines that begin with `# ` are TOML: take the `# ` away and they compile. Lines that begin with `## ` are remarks.
//! Types are guessed from names and from the types that were seen; classes and methods err on the careful side: what may
//! be about a person is pseudonymized, masked or dropped, and free text is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use clap::Args;

use super::Ground;
use super::find::attribute_of;
use crate::cli::{Context, grouped, print, say};
use crate::error::Result;
use crate::lake::quarantine::Quarantine;
use crate::model::Stream;
use crate::schema::{Column, TableSchema};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// One table only
    #[arg(long)]
    table: Option<Stream>,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let config = context.settings()?;
    let (ground, _, manifest) = Ground::with_lake(context, &config).await?;
    let mut text = String::new();
    for (stream, kept) in &manifest.quarantine {
        if arguments.table.is_some_and(|table| table != *stream) {
            continue;
        }
        if let Some(table) = ground.schemas.table(*stream) {
            text += &suggestions(table, kept);
        }
    }
    if text.is_empty() && !context.quiet {
        say(match manifest.version {
            0 => "nothing was extracted yet; `counterfoil extract` fills the quarantine",
            _ => "nothing is in quarantine: every field that came is declared",
        });
    }
    print(&text)
}

/// A field in quarantine, over all its types.
#[derive(Default)]
struct Seen {
    /// How often, by JSON type.
    types: BTreeMap<String, u64>,
    is_sensitive: bool,
}

/// What is suggested for one field.
struct Guess {
    column_type: &'static str,
    class: &'static str,
    method: &'static str,
    why: &'static str,
}

/// Writes what one table's file may declare.
fn suggestions(table: &TableSchema, kept: &Quarantine) -> String {
    let mut seen: BTreeMap<&str, Seen> = BTreeMap::new();
    let mut mismatched = String::new();
    let mut nameless = 0;
    for (key, count) in &kept.fields {
        if key.reason == "mismatch" {
            let declared = table.columns.iter().find(|column| column.path.join(".") == key.path);
            let declared = declared.map_or_else(String::new, |column| {
                format!(" (column `{}` of line {}, {})", column.name, column.line, column.column_type.name())
            });
            let _ = writeln!(
                mismatched,
                "## {}{declared} came {} times as {}: those values are not stored; another type needs a column of another name",
                key.path,
                grouped(count.count),
                key.json_type
            );
        } else if key.path.split('.').any(|name| name == "*") {
            nameless += count.count;
        } else if !is_within_reach(&key.path) {
            let _ = writeln!(
                mismatched,
                "## {} came {} times as {} beside `attributes`, where no rule reaches",
                key.path,
                grouped(count.count),
                key.json_type
            );
        } else {
            let field = seen.entry(&key.path).or_default();
            *field.types.entry(key.json_type.clone()).or_default() += count.count;
            field.is_sensitive |= key.reason == "sensitive";
        }
    }
    let mut taken: BTreeSet<String> = table.columns.iter().map(|column| column.name.clone()).collect();
    let mut text = String::new();
    for (path, field) in &seen {
        if let Some(declaration) = declaration(table, path, field, &mut taken) {
            text += &declaration;
        }
    }
    text += &mismatched;
    if nameless > 0 {
        let _ = writeln!(
            text,
            "## {} values stood under names that may be values themselves; they are not shown",
            grouped(nameless)
        );
    }
    if text.is_empty() {
        return text;
    }
    format!("## {}: take `# ` away from what is to be declared\n\n{text}\n", table.file)
}

/// Tells whether a rule can be written for a path: records have few keys beside their attributes, and rules know those.
fn is_within_reach(path: &str) -> bool {
    let first = path.split('.').next().unwrap_or_default();
    matches!(first, "id" | "type" | "attributes" | "relationships" | "links" | "meta")
}

fn declaration(table: &TableSchema, path: &str, field: &Seen, taken: &mut BTreeSet<String>) -> Option<String> {
    let guess = guess(path, field);
    let types: Vec<String> = field.types.iter().map(|(name, count)| format!("{} as {name}", grouped(*count))).collect();
    let mut text = format!("## seen {}; {}\n", types.join(", "), guess.why);
    let mut toml = Vec::new();
    if let Some(attribute) = attribute_of(path) {
        if table.custom.iter().any(|rule| rule.pattern == attribute) {
            return None;
        }
        toml.push("[[custom]]".to_owned());
        toml.push(format!("pattern = \"{attribute}\""));
    } else {
        let is_taken = |column: &Column| column.path.join(".") == path;
        if table.columns.iter().any(is_taken) {
            return None;
        }
        let name = column_name(path, taken);
        taken.insert(name.clone());
        toml.push("[[column]]".to_owned());
        toml.push(format!("name = \"{name}\""));
        toml.push(format!("path = \"{path}\""));
        toml.push(format!("type = \"{}\"", guess.column_type));
    }
    toml.push(format!("class = \"{}\"", guess.class));
    toml.push(format!("method = {}", guess.method));
    toml.push(format!("description = \"{path}, as the source has it.\""));
    for line in toml {
        let _ = writeln!(text, "# {line}");
    }
    text.push('\n');
    Some(text)
}

/// Words in names, the class that they speak for and the method that goes with it; the first that fits counts.
const PERSONAL: [&str; 22] = [
    "name", "address", "street", "city", "zip", "postal", "birth", "gender", "age", "ssn", "passport", "tax", "iban",
    "card", "ip", "user", "handle", "social", "location", "avatar", "url", "link",
];
const CONTENT: [&str; 14] = [
    "note",
    "notes",
    "text",
    "txt",
    "comment",
    "comments",
    "subject",
    "body",
    "message",
    "preview",
    "summary",
    "description",
    "title",
    "reply",
];

/// Guesses what a field is, by its name and the types that it was seen with.
fn guess(path: &str, field: &Seen) -> Guess {
    let last = path.rsplit('.').find(|key| key.parse::<u8>().is_err()).unwrap_or(path);
    let words = words(last);
    let has = |known: &[&str]| words.iter().any(|word| known.contains(&word.as_str()));
    let ends = |known: &[&str]| words.last().is_some_and(|word| known.contains(&word.as_str()));
    let is_attribute = attribute_of(path).is_some();
    let seen = |name: &str| field.types.contains_key(name);
    let is_only = |name: &str| field.types.len() == 1 && seen(name);
    // The type of an attribute follows from its definition or its suffix, whatever was seen.
    let is_text = if is_attribute {
        !["num", "bool", "at"].iter().any(|suffix| ends(&[suffix])) && !is_only("number") && !is_only("bool")
    } else {
        seen("text") || seen("array")
    };
    let column_type = match () {
        () if seen("object") => "any",
        () if seen("array") => "text_list",
        () if is_only("bool") => "bool",
        () if is_only("number") => {
            if ends(&["count", "ms", "seconds", "rev", "index"]) {
                "int"
            } else {
                "float"
            }
        }
        () if ends(&["at", "date", "time"]) => "timestamp",
        () => "text",
    };
    let guess = |class, method, why| Guess { column_type, class, method, why };
    let drop = "\"drop\"";
    if column_type == "any" {
        return guess(
            "personal",
            drop,
            "an object, which only its parts can be stored of: declare those you want by their paths",
        );
    }
    if field.is_sensitive {
        return guess("personal", drop, "the source marks it sensitive");
    }
    if has(&["email", "mail"]) && is_text && !is_attribute && column_type.starts_with("text") {
        return guess("personal", "{ name = \"mask\", as = \"email\" }", "the name speaks of an address");
    }
    if has(&["phone", "mobile", "fax"]) && is_text && !is_attribute && column_type.starts_with("text") {
        return guess("personal", "{ name = \"mask\", as = \"phone\" }", "the name speaks of a phone number");
    }
    if has(&CONTENT) && !ends(&["id", "ids", "count"]) {
        return guess("content", drop, "the name speaks of what people wrote");
    }
    if has(&PERSONAL) || has(&["email", "mail", "phone", "mobile", "fax"]) {
        return if ends(&["id", "ids", "count"]) {
            guess("internal", "\"keep\"", "an id or a count, by its name")
        } else {
            guess("personal", drop, "the name speaks of a person")
        };
    }
    if ends(&["id", "ids", "count"]) || matches!(column_type, "bool" | "int" | "float" | "timestamp") {
        return guess("internal", "\"keep\"", "about the record, by its name and type");
    }
    if is_attribute {
        // Whether a pseudonym fits is known when the source's definition is.
        return guess("personal", drop, "may be about a person: keep it under class internal if nobody writes into it");
    }
    guess(
        "personal",
        "\"pseudonymize\"",
        "may be about a person: keep it under class internal if nobody writes into it",
    )
}

/// Splits a name into its words, in small letters.
fn words(name: &str) -> Vec<String> {
    snake(name).split('_').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn snake(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut snake = String::new();
    for (place, letter) in letters.iter().enumerate() {
        if !letter.is_ascii_alphanumeric() {
            snake.push('_');
            continue;
        }
        let before = place.checked_sub(1).and_then(|before| letters.get(before));
        let is_start = letter.is_ascii_uppercase()
            && (before.is_some_and(|before| !before.is_ascii_uppercase())
                || letters.get(place + 1).is_some_and(char::is_ascii_lowercase));
        if is_start {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// Names a column after its path, with as much of it as makes the name new.
fn column_name(path: &str, taken: &BTreeSet<String>) -> String {
    let keys: Vec<&str> = path.split('.').filter(|key| *key != "attributes").collect();
    let named = |from: usize| {
        let name = keys[from..].iter().flat_map(|key| words(key)).collect::<Vec<_>>().join("_");
        let name =
            if name.starts_with(|first: char| first.is_ascii_lowercase()) { name } else { format!("field_{name}") };
        name.chars().take(60).collect::<String>().trim_end_matches('_').to_owned()
    };
    let longer = (0..keys.len()).rev().map(named);
    let full = named(0);
    let numbered = (2..).map(|number: u32| format!("{full}_{number}"));
    longer.chain(numbered).find(|name| !taken.contains(name)).unwrap_or(full)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lake::quarantine::{FieldCount, FieldKey};
    use crate::policy::Policy;
    use crate::schema::{BUILTIN, OPTIONAL, Schemas};

    fn quarantine(fields: &[(&str, &str, &str)]) -> Quarantine {
        let field = |(path, json_type, reason): &(&str, &str, &str)| {
            let key =
                FieldKey { path: (*path).to_owned(), json_type: (*json_type).to_owned(), reason: (*reason).to_owned() };
            (key, FieldCount { count: 1_200, first_ms: 1, last_ms: 2, run: "run".to_owned() })
        };
        Quarantine { fields: fields.iter().map(field).collect(), ..Quarantine::default() }
    }

    /// Takes the marks away, as a person would who declares everything.
    fn uncommented(text: &str) -> String {
        text.lines().map(|line| line.strip_prefix("# ").unwrap_or(line)).collect::<Vec<_>>().join("\n")
    }

    fn compile(file: &str, shipped: &str, kept: &Quarantine) -> std::result::Result<String, String> {
        let schemas = Schemas::from_files([(file, shipped)]).unwrap();
        let stream = schemas.streams().next().unwrap();
        let text = suggestions(schemas.table(stream).unwrap(), kept);
        let whole = format!("{shipped}\n{}", uncommented(&text));
        let shown = |error: crate::error::Error| format!("{error}: {:?}\n{text}", error.hint());
        let schemas = Schemas::from_files([(file, whole.as_str())]).map_err(shown)?;
        Policy::compile(&schemas).map(|_| text.clone()).map_err(shown)
    }

    #[test]
    fn what_is_suggested_compiles_and_errs_on_the_careful_side() {
        let kept = quarantine(&[
            ("attributes.billingEmail", "text", "undeclared"),
            ("attributes.mobilePhone", "text", "undeclared"),
            ("attributes.internalNote", "text", "undeclared"),
            ("attributes.homeAddress", "text", "undeclared"),
            ("attributes.reviewedAt", "text", "undeclared"),
            ("attributes.retryCount", "number", "undeclared"),
            ("attributes.area", "text", "undeclared"),
            ("attributes.status", "text", "undeclared"),
            ("attributes.flags", "array", "undeclared"),
            ("attributes.blob", "object", "undeclared"),
            ("attributes.emails.*", "object", "undeclared"),
            ("attributes.custom.ssnStr", "text", "sensitive"),
            ("attributes.custom.legacyScoreNum", "number", "undeclared"),
            ("attributes.custom.remark", "text", "undeclared"),
            ("attributes.rev", "text", "mismatch"),
            ("2fa", "bool", "undeclared"),
        ]);
        let text = compile(BUILTIN[0].0, BUILTIN[0].1, &kept).unwrap();
        for words in [
            "## 2fa came 1,200 times as bool beside `attributes`, where no rule reaches",
            "# name = \"billing_email\"\n# path = \"attributes.billingEmail\"\n# type = \"text\"\n# class = \"personal\"\n# method = { name = \"mask\", as = \"email\" }",
            "# method = { name = \"mask\", as = \"phone\" }",
            "# name = \"internal_note\"\n# path = \"attributes.internalNote\"\n# type = \"text\"\n# class = \"content\"\n# method = \"drop\"",
            "# name = \"reviewed_at\"\n# path = \"attributes.reviewedAt\"\n# type = \"timestamp\"\n# class = \"internal\"",
            "# name = \"retry_count\"\n# path = \"attributes.retryCount\"\n# type = \"int\"",
            "# pattern = \"ssnStr\"\n# class = \"personal\"\n# method = \"drop\"",
            "# pattern = \"legacyScoreNum\"\n# class = \"internal\"\n# method = \"keep\"",
            "## attributes.rev (column `rev` of line",
            "## seen 1,200 as text; the source marks it sensitive",
            "# type = \"any\"\n# class = \"personal\"\n# method = \"drop\"",
        ] {
            assert!(text.contains(words), "{words}\nis not in\n{text}");
        }
        assert!(!text.contains("emails"), "names that may be values stay out: {text}");
        assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
    }

    #[test]
    fn empty_quarantine_suggests_nothing() {
        let schemas = Schemas::builtin().unwrap();
        assert_eq!(suggestions(schemas.table(Stream::Tickets).unwrap(), &Quarantine::default()), "");
    }

    #[test]
    fn names_are_new_and_valid() {
        let taken = BTreeSet::from(["time".to_owned(), "response_time".to_owned()]);
        assert_eq!(column_name("attributes.response.time", &taken), "response_time_2");
        assert_eq!(column_name("attributes.firstURL", &taken), "first_url");
        assert_eq!(column_name("2fa", &taken), "field_2fa");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn whatever_is_in_quarantine_the_suggestions_compile(
            file in prop::sample::select(BUILTIN.into_iter().chain(OPTIONAL).collect::<Vec<_>>()),
            fields in prop::collection::vec(
                (
                    "(attributes\\.|relationships\\.|)(custom\\.)?[a-zA-Z][a-zA-Z0-9_-]{0,9}(Email|Phone|Note|At|Id|Num|Txt|Str|Bool|)",
                    "text|number|bool|array|object",
                    "undeclared|sensitive|mismatch",
                ),
                0..12,
            ),
        ) {
            // Fields that a column declares are never in quarantine as undeclared.
            let fields: Vec<(&str, &str, &str)> =
                fields.iter().map(|(path, json_type, reason)| (path.as_str(), json_type.as_str(), reason.as_str())).collect();
            let compiled = compile(file.0, file.1, &quarantine(&fields));
            prop_assert!(compiled.is_ok(), "{}", compiled.unwrap_err());
        }
    }
}
