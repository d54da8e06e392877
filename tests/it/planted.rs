//! Policies and records made from a seed: each record holds values that its policy forbids, wherever a record can hold one.
//!
//! What is forbidden is decided here, from the rules as they are documented, and not by asking the code under test. A value
//! that may not be stored holds one of a few marks; what may be stored holds none. So whatever a program writes is searched
//! for the marks, as they are and in the forms that programs give to texts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use counterfoil::model::Stream;

/// Marks of forbidden texts: letters in both cases, another script, digits of numbers and of phones, the end of a time.
const MARKS: [&str; 5] = ["QJXVKW", "qjxvkw", "鰐鱻龘", "7319468", "43:29.613"];

/// Random numbers from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// The type of a column, by its name in schema files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Text,
    TextList,
    Int,
    Float,
    Bool,
    Timestamp,
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::TextList => "text_list",
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Timestamp => "timestamp",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Keep,
    Drop,
    Mask,
    MaskEmail,
    MaskPhone,
    KeepLast(usize),
    Pseudonymize,
    Chars(usize),
    Hour,
    Month,
    Width,
    Bounds,
    Scrub,
}

impl Method {
    const OF_TEXT: [Self; 9] = [
        Self::Keep,
        Self::Drop,
        Self::Mask,
        Self::MaskEmail,
        Self::MaskPhone,
        Self::KeepLast(3),
        Self::Pseudonymize,
        Self::Chars(4),
        Self::Scrub,
    ];
    const OF_TIME: [Self; 4] = [Self::Keep, Self::Drop, Self::Hour, Self::Month];
    const OF_NUMBER: [Self; 4] = [Self::Keep, Self::Drop, Self::Width, Self::Bounds];
    const OF_BOOL: [Self; 2] = [Self::Keep, Self::Drop];

    fn toml(self) -> String {
        match self {
            Self::Keep => "\"keep\"".to_owned(),
            Self::Drop => "\"drop\"".to_owned(),
            Self::Mask => "\"mask\"".to_owned(),
            Self::MaskEmail => r#"{ name = "mask", as = "email" }"#.to_owned(),
            Self::MaskPhone => r#"{ name = "mask", as = "phone" }"#.to_owned(),
            Self::KeepLast(last) => format!(r#"{{ name = "mask", keep_last = {last} }}"#),
            Self::Pseudonymize => r#"{ name = "pseudonymize", domain = "person" }"#.to_owned(),
            Self::Chars(chars) => format!(r#"{{ name = "truncate", chars = {chars} }}"#),
            Self::Hour => r#"{ name = "truncate", to = "hour" }"#.to_owned(),
            Self::Month => r#"{ name = "truncate", to = "month" }"#.to_owned(),
            Self::Scrub => r#"{ name = "scrub", kinds = ["email"] }"#.to_owned(),
            Self::Width => r#"{ name = "bucket", width = 1000 }"#.to_owned(),
            Self::Bounds => r#"{ name = "bucket", bounds = [-5, 1000, 6000000, 100000000] }"#.to_owned(),
        }
    }

    fn of(column_type: Type) -> &'static [Self] {
        match column_type {
            Type::Text | Type::TextList => &Self::OF_TEXT,
            Type::Timestamp => &Self::OF_TIME,
            Type::Int | Type::Float => &Self::OF_NUMBER,
            Type::Bool => &Self::OF_BOOL,
        }
    }

    fn random(dice: &mut Dice, column_type: Type) -> Self {
        *dice.pick(Self::of(column_type))
    }

    /// A class that the method may have.
    fn class(self, dice: &mut Dice) -> &'static str {
        let classes = ["public", "internal", "personal", "content"];
        // What people wrote cannot be kept, whole or in part.
        let allowed = if matches!(self, Self::Keep | Self::Chars(_)) { 3 } else { 4 };
        classes[dice.below(allowed)]
    }
}

/// Where values stand in a record, and of what type a column there would be. None leads through another.
const SLOTS: [(&str, Type); 24] = [
    ("attributes.name", Type::Text),
    ("attributes.status", Type::Text),
    ("attributes.größe", Type::Text),
    ("attributes.emails.0.email", Type::Text),
    ("attributes.emails.1.email", Type::Text),
    ("attributes.firstMessageIn.meta.from", Type::Text),
    ("attributes.firstMessageIn.channel", Type::Text),
    ("attributes.satisfactionLevel.firstAnswer", Type::Text),
    ("attributes.deep.a.b.c.d.e.f", Type::Text),
    ("attributes.preview.text", Type::Text),
    ("attributes.sla.name", Type::Text),
    ("relationships.customer.data.id", Type::Text),
    ("relationships.queue.data.id", Type::Text),
    ("relationships.modifiedBy.links.self", Type::Text),
    ("links.self", Type::Text),
    ("type", Type::Text),
    ("attributes.tags", Type::TextList),
    ("attributes.people", Type::TextList),
    ("attributes.lists.2", Type::TextList),
    ("attributes.priority", Type::Int),
    ("attributes.satisfactionLevel.rating", Type::Float),
    ("attributes.sla.open", Type::Bool),
    ("attributes.createdAt", Type::Timestamp),
    ("attributes.sla.breach.at", Type::Timestamp),
];

/// Objects that may be declared as `any`, which drops all that is not declared inside.
const COVERS: [&str; 7] = [
    "attributes.emails",
    "attributes.firstMessageIn",
    "attributes.satisfactionLevel",
    "attributes.deep",
    "attributes.preview",
    "attributes.sla",
    "relationships",
];

/// Objects whose keys a record may invent.
const OPEN: [&str; 7] = [
    "",
    "attributes",
    "attributes.custom",
    "attributes.sla",
    "attributes.firstMessageIn",
    "relationships",
    "relationships.customer",
];

/// Custom attributes: their type, whether the source defines them, and whether it marks them sensitive.
const ATTRIBUTES: [(&str, Type, bool, bool); 16] = [
    ("tierStr", Type::Text, true, false),
    ("noteTxt", Type::Text, true, false),
    ("mailStr", Type::Text, true, false),
    ("amountNum", Type::Float, true, false),
    ("sinceAt", Type::Timestamp, true, false),
    ("openBool", Type::Bool, true, false),
    ("orderId", Type::Text, true, false),
    ("pageUrl", Type::Text, true, false),
    ("reasonTree", Type::Text, true, false),
    ("vipStr", Type::Text, true, false),
    ("vipNum", Type::Float, true, false),
    ("vipsStr", Type::TextList, true, false),
    ("ssnStr", Type::Text, true, true),
    ("pinNum", Type::Float, true, true),
    ("lateStr", Type::Text, false, false),
    ("oddity", Type::Text, true, false),
];

/// Names and patterns of rules, with the type that the suffix tells.
const PATTERNS: [(&str, Type); 17] = [
    ("*Str", Type::Text),
    ("*Txt", Type::Text),
    ("*Num", Type::Float),
    ("*At", Type::Timestamp),
    ("*Bool", Type::Bool),
    ("*Id", Type::Text),
    ("*Url", Type::Text),
    ("*Tree", Type::Text),
    ("vip*", Type::Text),
    ("odd*", Type::Text),
    ("*ipStr", Type::Text),
    ("tierStr", Type::Text),
    ("ssnStr", Type::Text),
    ("pinNum", Type::Float),
    ("lateStr", Type::Text),
    ("amountNum", Type::Float),
    ("*sStr", Type::Text),
];

/// The rules of one stream, as written and as this file understands them.
#[derive(Debug)]
pub(crate) struct Rules {
    stream: Stream,
    slots: Vec<Option<Method>>,
    covers: Vec<&'static str>,
    custom: Vec<(&'static str, Method)>,
    /// The schema file.
    pub(crate) text: String,
}

impl Rules {
    pub(crate) fn random(stream: Stream, dice: &mut Dice) -> Self {
        let mut text = format!("stream = \"{stream}\"\n");
        let mut column = |name: &str, path: &str, column_type: &str, class: &str, method: &str| {
            let _ = write!(
                text,
                "[[column]]\nname = \"{name}\"\npath = \"{path}\"\ntype = \"{column_type}\"\nclass = \"{class}\"\n\
                 method = {method}\ndescription = \"A column.\"\n"
            );
        };
        column(stream.key_column(), "id", "text", "internal", "\"keep\"");
        column("updated_at", "attributes.updatedAt", "timestamp", "internal", "\"keep\"");
        column("rev", "attributes.rev", "int", "internal", "\"keep\"");
        column("deleted", "attributes.deleted", "bool", "internal", "\"keep\"");
        let mut slots = Vec::new();
        for (number, (path, column_type)) in SLOTS.into_iter().enumerate() {
            let method = (!dice.one_in(3)).then(|| Method::random(dice, column_type));
            if let Some(method) = method {
                let class = method.class(dice);
                column(&format!("column_{number}"), path, column_type.name(), class, &method.toml());
            }
            slots.push(method);
        }
        let covers: Vec<&str> = COVERS.into_iter().filter(|_| dice.one_in(3)).collect();
        for (number, path) in covers.iter().enumerate() {
            column(&format!("cover_{number}"), path, "any", "personal", "\"drop\"");
        }
        let mut custom = Vec::new();
        for (pattern, column_type) in PATTERNS {
            if dice.one_in(2) {
                custom.insert(dice.below(custom.len() + 1), (pattern, Method::random(dice, column_type)));
            }
        }
        for (pattern, method) in &custom {
            let class = method.class(dice);
            let _ =
                write!(text, "[[custom]]\npattern = \"{pattern}\"\nclass = \"{class}\"\nmethod = {}\n", method.toml());
        }
        Self { stream, slots, covers, custom, text }
    }

    /// What becomes of a custom attribute: a name decides before a pattern, a longer pattern before a shorter one, the
    /// first before the others.
    fn custom(&self, attribute: &str, column_type: Type, is_defined: bool, is_sensitive: bool) -> Option<Method> {
        let named = self.custom.iter().find(|(pattern, _)| *pattern == attribute);
        let mut best: Option<&(&str, Method)> = None;
        for rule in &self.custom {
            let covers = match (rule.0.strip_prefix('*'), rule.0.strip_suffix('*')) {
                (Some(end), _) => attribute.ends_with(end),
                (_, Some(start)) => attribute.starts_with(start),
                _ => false,
            };
            if covers && best.is_none_or(|best| rule.0.len() > best.0.len()) {
                best = Some(rule);
            }
        }
        let rule = match named {
            Some(rule) => rule,
            None if is_defined && !is_sensitive => best?,
            None => return None,
        };
        Method::of(column_type).contains(&rule.1).then_some(rule.1)
    }

    /// The source's definitions of custom attributes.
    pub(crate) fn definitions() -> Vec<u8> {
        let mut properties = BTreeMap::new();
        for (name, column_type, is_defined, is_sensitive) in ATTRIBUTES {
            let json_type = match column_type {
                Type::Float => "number",
                Type::Bool => "boolean",
                _ => "string",
            };
            let definition = serde_json::json!({"type": json_type, "hasSensitiveAttributes": is_sensitive,
                "multi": column_type == Type::TextList});
            if is_defined {
                properties.insert(name, definition);
            }
        }
        serde_json::json!({"data": {"attributes": {"properties": properties}}}).to_string().into_bytes()
    }

    /// A record with planted values; `kept` gets the texts that must be stored.
    pub(crate) fn record(&self, key: &Key, dice: &mut Dice, kept: &mut Vec<String>) -> String {
        let mut record = Json::Object(Vec::new());
        let mut fields: Vec<(String, Json)> = vec![
            ("id".to_owned(), Json::Text(key.id.clone())),
            ("attributes.updatedAt".to_owned(), Json::Text(key.updated_at.clone())),
            ("attributes.rev".to_owned(), Json::Raw(key.rev.clone())),
            ("attributes.deleted".to_owned(), Json::Raw(key.deleted.to_string())),
        ];
        let mut plant = |path: String, column_type: Type, method: Option<Method>, dice: &mut Dice| {
            let mut stored = Vec::new();
            if dice.one_in(8) {
                return;
            }
            let is_wrong = dice.one_in(5);
            let value = match method {
                None | Some(Method::Drop) => forbidden(dice, 2),
                Some(_) if is_wrong => misfit(dice, column_type),
                Some(method) => planted(dice, column_type, method, &mut stored),
            };
            // Of a key that comes twice the first value stays, whether it fits or not.
            if dice.one_in(6) {
                fields.push((path.clone(), Json::Raw("null".to_owned())));
            }
            fields.push((path.clone(), value));
            if dice.one_in(6) {
                fields.push((path, forbidden(dice, 1)));
            }
            kept.append(&mut stored);
        };
        for ((path, column_type), method) in SLOTS.into_iter().zip(&self.slots) {
            plant(path.to_owned(), column_type, *method, dice);
        }
        for (name, column_type, is_defined, is_sensitive) in ATTRIBUTES {
            let method = self.custom(name, column_type, is_defined, is_sensitive);
            plant(format!("attributes.custom.{name}"), column_type, method, dice);
        }
        for path in OPEN {
            if dice.one_in(2) {
                // A plain word as a key would be reported as an attribute's name: the source's names are no secrets.
                let key = match dice.below(5) {
                    0 => format!("QJXVKW {}", dice.below(1_000)),
                    1 => format!("qjxvkw{}@example.com", dice.below(1_000)),
                    2 => "鰐鱻龘".to_owned(),
                    3 => format!("+1 7319468{:02}", dice.below(100)),
                    _ => format!("{} qjxvkw", "long".repeat(40)),
                };
                let dot = if path.is_empty() { "" } else { "." };
                // Keys have no dots of their own here.
                fields.push((format!("{path}{dot}{}", key.replace('.', " ")), forbidden(dice, 1)));
            }
        }
        for cover in &self.covers {
            if dice.one_in(2) {
                let inside = if *cover == "attributes.emails" { ".2" } else { "" };
                fields.push((format!("{cover}{inside}.qjxvkw"), forbidden(dice, 1)));
            }
        }
        fields.push(("attributes.mapOfNext".to_owned(), forbidden(dice, 2)));
        // Fields come in any order, those of one path in theirs.
        for _ in 0..fields.len() {
            let at = dice.below(fields.len() - 1);
            if fields[at].0 != fields[at + 1].0 {
                fields.swap(at, at + 1);
            }
        }
        for (path, value) in fields {
            let path: Vec<&str> = path.split('.').filter(|key| !key.is_empty()).collect();
            record.put(&path, value);
        }
        let mut out = String::new();
        record.write(dice, &mut out);
        out
    }

    pub(crate) fn stream(&self) -> Stream {
        self.stream
    }
}

/// What identifies a record, as the source has it.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) updated_at: String,
    /// As JSON.
    pub(crate) rev: String,
    pub(crate) deleted: bool,
}

/// JSON that may say a key twice, and is written with escapes where none are needed.
#[derive(Debug, Clone)]
enum Json {
    Raw(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    fn put(&mut self, path: &[&str], value: Self) {
        let Some((key, rest)) = path.split_first() else {
            *self = value;
            return;
        };
        if let Ok(index) = key.parse::<usize>() {
            if !matches!(self, Self::Array(_)) {
                *self = Self::Array(Vec::new());
            }
            let Self::Array(items) = self else { return };
            while items.len() <= index {
                items.push(Self::Raw("null".to_owned()));
            }
            // An index has one value.
            if !rest.is_empty() || matches!(&items[index], Self::Raw(raw) if raw == "null") {
                items[index].put(rest, value);
            }
            return;
        }
        if !matches!(self, Self::Object(_)) {
            *self = Self::Object(Vec::new());
        }
        let Self::Object(members) = self else { return };
        if rest.is_empty() {
            members.push(((*key).to_owned(), value));
            return;
        }
        let at = members.iter().position(|(name, _)| name == key).unwrap_or_else(|| {
            members.push(((*key).to_owned(), Self::Object(Vec::new())));
            members.len() - 1
        });
        members[at].1.put(rest, value);
    }

    fn write(&self, dice: &mut Dice, out: &mut String) {
        match self {
            Self::Raw(raw) => out.push_str(raw),
            Self::Text(text) => write_text(text, dice, out),
            Self::Array(items) => {
                out.push('[');
                for (number, item) in items.iter().enumerate() {
                    out.push_str(if number > 0 { "," } else { "" });
                    item.write(dice, out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (number, (key, value)) in members.iter().enumerate() {
                    out.push_str(if number > 0 { ", " } else { "" });
                    write_text(key, dice, out);
                    out.push(':');
                    value.write(dice, out);
                }
                out.push('}');
            }
        }
    }
}

fn write_text(text: &str, dice: &mut Dice, out: &mut String) {
    let escaped_in = [1, 4, 1_000][dice.below(3)];
    out.push('"');
    for letter in text.chars() {
        if letter < ' ' || matches!(letter, '"' | '\\') || dice.one_in(escaped_in) {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                let _ = if dice.one_in(2) { write!(out, "\\u{unit:04x}") } else { write!(out, "\\u{unit:04X}") };
            }
        } else {
            out.push(letter);
        }
    }
    out.push('"');
}

fn mark(dice: &mut Dice) -> String {
    let number = dice.below(100_000);
    match dice.below(9) {
        0 => format!("qjxvkw{number}@example.com"),
        1 => format!("Zoë QJXVKW {number}"),
        2 => format!("鰐鱻龘 {number}"),
        3 => format!("+1 7319468{:03}", number % 1_000),
        4 => format!("\"QJXVKW\"\n\t\\{number}\u{1F600}"),
        5 => format!("https://example.com/?token=qjxvkw{number}"),
        6 => format!("{}QJXVKW{number}", "much text ".repeat(dice.below(30))),
        7 => format!("مرحبا qjxvkw {number}"),
        _ => format!("QJXVKW{number}"),
    }
}

fn marked_number(dice: &mut Dice) -> String {
    match dice.below(4) {
        0 => format!("{}7319468", dice.below(90) + 1),
        1 => format!("7319468.{}", dice.below(1_000)),
        2 => "-7319468e3".to_owned(),
        _ => "7319468".to_owned(),
    }
}

/// Anything, with a mark in every part that holds something.
fn forbidden(dice: &mut Dice, depth: usize) -> Json {
    match dice.below(if depth == 0 { 2 } else { 5 }) {
        0 => Json::Raw(marked_number(dice)),
        1 | 2 => Json::Text(mark(dice)),
        3 => Json::Array((0..=dice.below(3)).map(|_| forbidden(dice, depth - 1)).collect()),
        _ => {
            let members = (0..=dice.below(3)).map(|_| (mark(dice), forbidden(dice, depth - 1)));
            Json::Object(members.collect())
        }
    }
}

/// What a column of a type cannot hold, with a mark.
fn misfit(dice: &mut Dice, column_type: Type) -> Json {
    let object = |dice: &mut Dice| Json::Object(vec![(mark(dice), forbidden(dice, 1))]);
    match column_type {
        Type::Text => match dice.below(3) {
            0 => Json::Raw(marked_number(dice)),
            1 => Json::Array(vec![Json::Text(mark(dice))]),
            _ => object(dice),
        },
        Type::TextList => match dice.below(3) {
            0 => Json::Text(mark(dice)),
            1 => Json::Array(vec![Json::Text(mark(dice)), Json::Raw(marked_number(dice))]),
            _ => object(dice),
        },
        Type::Int | Type::Float | Type::Bool | Type::Timestamp => match dice.below(3) {
            0 => Json::Text(mark(dice)),
            1 => Json::Array(vec![Json::Raw(marked_number(dice))]),
            _ => object(dice),
        },
    }
}

/// A value of the column's type that the method has to change, or that is kept; `kept` gets what must be stored of it.
fn planted(dice: &mut Dice, column_type: Type, method: Method, kept: &mut Vec<String>) -> Json {
    match column_type {
        Type::Text => Json::Text(planted_text(dice, method, kept)),
        Type::TextList => {
            let items = (0..=dice.below(3)).map(|_| Json::Text(planted_text(dice, method, kept)));
            Json::Array(items.collect())
        }
        Type::Int | Type::Float => {
            let millions = dice.below(9) * 10_000_000;
            let (value, stored) = match method {
                Method::Keep => (dice.below(1_000), None),
                Method::Width => (millions + 7_319_468, Some(millions + 7_319_000)),
                _ => (millions + 7_319_468, Some(6_000_000)),
            };
            kept.extend(stored.map(|stored| stored.to_string()));
            Json::Raw(value.to_string())
        }
        Type::Bool => Json::Raw(dice.one_in(2).to_string()),
        Type::Timestamp => {
            let day = dice.below(28) + 1;
            Json::Text(match method {
                Method::Keep => format!("2021-03-{day:02}T05:06:07.008Z"),
                _ if dice.one_in(2) => format!("2021-03-{day:02}T05:43:29.613Z"),
                _ => format!("2021-03-{day:02}T05:43:29.613+02:00"),
            })
        }
    }
}

fn planted_text(dice: &mut Dice, method: Method, kept: &mut Vec<String>) -> String {
    let number = dice.below(1_000_000);
    let (value, stored) = match method {
        Method::Keep => {
            let value = format!("kept{number}é");
            (value.clone(), value)
        }
        Method::Drop | Method::Mask | Method::Pseudonymize => return mark(dice),
        Method::MaskEmail => match dice.below(3) {
            0 => return format!("Zoë <qjxvkw{number}@example.com>"),
            1 => return format!("qjxvkw{number} at example.com"),
            _ => (format!("aqjxvkw{number}@kept{number}.example"), format!("a***@kept{number}.example")),
        },
        Method::MaskPhone => (format!("+1 (7319468) {number}42"), "***42".to_owned()),
        Method::KeepLast(last) => {
            let end = &format!("{number:06}")[..last];
            (format!("QJXVKWqjxvkw{end}"), format!("***{end}"))
        }
        Method::Chars(chars) => {
            let start = dice.pick(&["o", "語", "é", "😀"]).repeat(chars);
            (format!("{start}QJXVKW鰐鱻龘{number}"), start)
        }
        Method::Scrub => {
            (format!("kept{number} qjxvkw{number}@example.com, kept"), format!("kept{number} [email], kept"))
        }
        Method::Hour | Method::Month | Method::Width | Method::Bounds => return String::new(),
    };
    kept.push(stored);
    value
}

/// Finds the marks in bytes, in any of their forms.
pub(crate) struct Search {
    /// By their first byte.
    forms: Vec<Vec<Vec<u8>>>,
}

impl Search {
    pub(crate) fn new() -> Self {
        let mut forms = vec![Vec::new(); 256];
        let mut add = |form: Vec<u8>| forms[usize::from(form[0])].push(form);
        for mark in MARKS {
            add(mark.as_bytes().to_vec());
            for shift in 0..3 {
                // Of the code of a text inside another, the characters that no neighbour shares.
                let padded = [&[0; 3][..shift], mark.as_bytes()].concat();
                let (from, to) = ((shift * 8).div_ceil(6), padded.len() * 8 / 6);
                for engine in [STANDARD, URL_SAFE] {
                    add(engine.encode(&padded).as_bytes()[from..to].to_vec());
                }
            }
            let hex: String = mark.bytes().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
            add(hex.to_uppercase().into_bytes());
            add(hex.into_bytes());
            let escaped = mark.encode_utf16().fold(String::new(), |text, unit| format!("{text}\\u{unit:04x}"));
            add(escaped.to_uppercase().replace("\\U", "\\u").into_bytes());
            add(escaped.into_bytes());
            let escaped = mark.chars().fold(String::new(), |text, letter| format!("{text}\\u{{{:x}}}", letter as u32));
            add(escaped.into_bytes());
            add(mark.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02X}")).into_bytes());
            add(mark.encode_utf16().flat_map(u16::to_le_bytes).collect());
            add(mark.bytes().rev().collect());
        }
        Self { forms }
    }

    /// Returns what was found, with what stands around it.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<String> {
        (0..bytes.len()).find_map(|at| {
            let found = self.forms[usize::from(bytes[at])].iter().find(|form| bytes[at..].starts_with(form))?;
            let around = &bytes[at.saturating_sub(80)..(at + found.len() + 40).min(bytes.len())];
            Some(String::from_utf8_lossy(around).into_owned())
        })
    }
}

#[test]
fn marks_are_found_in_every_form() {
    let search = Search::new();
    for mark in MARKS {
        let text = format!("a {mark} b");
        let hex: String = text.bytes().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        for form in
            [text.clone(), STANDARD.encode(&text), STANDARD.encode(&text[1..]), URL_SAFE.encode(&text[2..]), hex]
        {
            assert!(search.find(form.as_bytes()).is_some(), "{mark}: {form}");
        }
    }
    assert!(search.find(r"\u0051\u004A\u0058\u0056\u004B\u0057".as_bytes()).is_some());
    assert_eq!(search.find("kept, and nothing else".as_bytes()), None);
}
