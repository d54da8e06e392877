//! Methods: what happens to a value, as compiled and as applied.
//!
//! | method | arguments | types | what is stored |
//! |---|---|---|---|
//! | `keep` | | all | the value |
//! | `drop` | | all | nothing: no column is made |
//! | `mask` | | text, text_list | `***` |
//! | | `as = "email"` | | first letter, `***`, `@` and the domain; `***` where it is no address |
//! | | `as = "phone"` | | `***` and the last two digits; `***` below six digits |
//! | | `keep_last = N` | | `***` and the last N characters; `***` where that would be half of the text or more |
//! | `pseudonymize` | `domain` | text, text_list | a keyed pseudonym, see below |
//! | `truncate` | `to = "hour"`, `day`, `week`, `month` | timestamp | its start in UTC (weeks start on Monday) |
//! | | `chars = N` | text, text_list | the first N characters |
//! | `bucket` | `bounds = [a, b, …]` | int, float | the last bound that is not above the number; NULL below the first |
//! | | `width = w` | | the multiple of w below the number |
//! | `scrub` | `kinds = ["email", …]`, all unless written | text, text_list | the text, each match replaced by its kind |
//! | `restrict` | `after`: another method, and its arguments | all but any | what `after` makes, under the second key |
//!
//! A pseudonym is `p<version>_<code>`, as `policy/pseudonym.rs` has it. The domain is `table.column` unless written, so that
//! one value has unrelated pseudonyms in two columns, and joins across tables are asked for by naming one domain in both.
//!
//! Masks know what they have masked by its form, three asterisks and what they show, and leave it as it is: so `***` and the
//! last N characters come out as they went in, also where they come from the source.
//!
//! Empty text stays empty: it holds nothing, and would otherwise become the one value that everything joins on.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, Result, did_you_mean};
use crate::policy::bucket::Bucket;
use crate::policy::canonical;
use crate::policy::pseudonym::Pseudonymizer;
use crate::policy::scrub::{self, Scrub};
use crate::schema::{Argument, ColumnType, MethodText, Pattern};

const NAMES: [&str; 8] = ["keep", "drop", "mask", "pseudonymize", "truncate", "bucket", "scrub", "restrict"];
/// More is not a mask: it would show most of any identifier.
const MAX_KEEP_LAST: usize = 8;
const MASKED: &str = "***";

/// A method, its arguments checked.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Method {
    Keep,
    Drop,
    Mask(Mask),
    /// The domain is empty where each column of a custom rule has its own.
    Pseudonymize {
        domain: String,
    },
    TruncateTime(Grain),
    TruncateText {
        chars: usize,
    },
    Bucket(Bucket),
    Scrub(ScrubRule),
    /// The second key over what another method makes, which is none of `drop` and `restrict`.
    Restrict(Box<Method>),
}

/// What a scrub replaces.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ScrubRule {
    /// Known kinds, in the order of their names.
    pub(super) kinds: Vec<String>,
    /// Patterns of the schema file by name and regular expression, in the order of the file.
    pub(super) patterns: Vec<(String, String)>,
}

impl ScrubRule {
    /// Compiles what runs.
    pub(super) fn engine(&self) -> Result<Arc<Scrub>> {
        Scrub::compile(&self.kinds, &self.patterns).map(Arc::new)
    }
}

/// What a method's text is read with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults<'a> {
    /// Domain of `pseudonymize`.
    pub(super) domain: &'a str,
    /// Patterns of `scrub`.
    pub(super) patterns: &'a [Pattern],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mask {
    All,
    Email,
    Phone,
    KeepLast(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grain {
    Hour,
    Day,
    Week,
    Month,
}

/// Where a rule stands, for messages.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) file: String,
    pub(super) line: usize,
    /// Kind of declaration: `column` or `pattern`.
    pub(super) kind: &'static str,
    pub(super) name: String,
}

impl Place {
    pub(super) fn wrong(&self, message: &str) -> Error {
        Error::config(message)
            .with_context("file", &self.file)
            .with_context("line", self.line)
            .with_context(self.kind, &self.name)
    }
}

impl Method {
    /// Reads a method as written.
    pub(super) fn compile(text: &MethodText, defaults: Defaults<'_>, place: &Place) -> Result<Self> {
        let mut arguments = Arguments { method: &text.name, values: text.arguments.clone(), place };
        let method = match text.name.as_str() {
            "keep" => Self::Keep,
            "drop" => Self::Drop,
            "mask" => Self::Mask(mask(&mut arguments)?),
            "pseudonymize" => {
                let domain = match arguments.one("domain")? {
                    Some(domain) if domain.is_empty() || domain.contains(char::is_control) => {
                        return Err(wrong_argument(place, "domain", &domain, "write a name, e.g. `customer.email`"));
                    }
                    Some(domain) => domain,
                    None => defaults.domain.to_owned(),
                };
                Self::Pseudonymize { domain }
            }
            "truncate" => truncate(&mut arguments)?,
            "bucket" => Self::Bucket(bucket(&mut arguments)?),
            "scrub" => {
                let own = defaults.patterns.iter().map(|pattern| (pattern.name.clone(), pattern.regex.clone()));
                let rule = ScrubRule { kinds: kinds(&mut arguments)?, patterns: own.collect() };
                if rule.kinds.is_empty() && rule.patterns.is_empty() {
                    let hint = format!("known are: {}", scrub::KINDS.join(", "));
                    return Err(place.wrong("`scrub` replaces nothing").with_hint(hint));
                }
                Self::Scrub(rule)
            }
            "restrict" => {
                let name = arguments.one("after")?.unwrap_or_else(|| "keep".to_owned());
                if matches!(name.as_str(), "drop" | "restrict") {
                    return Err(wrong_argument(place, "after", &name, "write a method whose values can be stored"));
                }
                let inner = MethodText { name, arguments: std::mem::take(&mut arguments.values) };
                Self::Restrict(Box::new(Self::compile(&inner, defaults, place)?))
            }
            unknown => {
                return Err(place
                    .wrong("unknown method")
                    .with_context("method", unknown)
                    .with_hint(did_you_mean(unknown, NAMES)));
            }
        };
        match arguments.values.keys().next() {
            None => Ok(method),
            Some(unknown) => Err(place
                .wrong("method does not take this argument")
                .with_context("method", &text.name)
                .with_context("argument", unknown)
                .with_hint("remove the argument")),
        }
    }

    /// Reads the canonical text; `None` for one that this program does not write.
    pub(super) fn read_canonical(text: &str) -> Option<Self> {
        let mut text = canonical::read(text)?;
        // Not an argument that people write: the patterns of a file stand beside its columns.
        let patterns = match text.arguments.remove("patterns") {
            None => Vec::new(),
            Some(Argument::List(patterns)) => patterns
                .iter()
                .map(|pattern| {
                    let (name, regex) = pattern.split_once(':')?;
                    let (name, regex) = (name.to_owned(), regex.to_owned());
                    Some(Pattern { name, regex, description: String::new(), line: 0 })
                })
                .collect::<Option<_>>()?,
            Some(Argument::One(_)) => return None,
        };
        let place = Place { file: String::new(), line: 0, kind: "column", name: String::new() };
        Self::compile(&text, Defaults { domain: "", patterns: &patterns }, &place).ok()
    }

    /// Refuses a method that means nothing for a type.
    pub(super) fn check_fits(&self, column_type: ColumnType, place: &Place) -> Result<()> {
        let is_text = matches!(column_type, ColumnType::Text | ColumnType::TextList);
        let (fits, hint) = match self {
            Self::Drop => (true, ""),
            Self::Keep => (column_type != ColumnType::Any, "write `method = \"drop\"`: `any` is for what is dropped"),
            Self::Mask(_) | Self::Pseudonymize { .. } | Self::TruncateText { .. } | Self::Scrub(_) => {
                (is_text, "it takes text and text_list: keep or drop the column, or correct its type")
            }
            Self::TruncateTime(_) => {
                (column_type == ColumnType::Timestamp, "`to` is for a timestamp; a text takes `chars = 12`")
            }
            Self::Bucket(bucket) => match column_type {
                ColumnType::Int => (bucket.is_whole(), "an int takes whole bounds and widths"),
                _ => (
                    column_type == ColumnType::Float,
                    "it takes int and float; a timestamp takes `{ name = \"truncate\", to = \"day\" }`",
                ),
            },
            Self::Restrict(inner) => return inner.check_fits(column_type, place),
        };
        if fits {
            return Ok(());
        }
        Err(place
            .wrong("method does not fit the type")
            .with_context("method", self.name())
            .with_context("type", column_type.name())
            .with_hint(hint))
    }

    /// Refuses a scrub that does not compile.
    pub(super) fn check_scrub(&self, place: &Place) -> Result<()> {
        match self.inner() {
            Self::Scrub(rule) => rule.engine().map(|_| ()).map_err(|error| {
                let hint = error.hint().unwrap_or("correct the pattern").to_owned();
                place.wrong("scrub does not compile").with_hint(hint).with_source(error)
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::Mask(_) => "mask",
            Self::Pseudonymize { .. } => "pseudonymize",
            Self::TruncateTime(_) | Self::TruncateText { .. } => "truncate",
            Self::Bucket(_) => "bucket",
            Self::Scrub(_) => "scrub",
            Self::Restrict(_) => "restrict",
        }
    }

    /// Returns the method that makes the values: what `restrict` comes after, or the method itself.
    pub(super) fn inner(&self) -> &Self {
        match self {
            Self::Restrict(inner) => inner,
            other => other,
        }
    }

    pub(super) fn is_restricted(&self) -> bool {
        matches!(self, Self::Restrict(_))
    }

    /// Writes the method with its arguments in one fixed form, for the digest and for `DESCRIBE`.
    pub(super) fn canonical(&self) -> String {
        canonical::write(&self.text())
    }

    fn text(&self) -> MethodText {
        let one = |name: &str, value: &str| vec![(name.to_owned(), Argument::One(value.to_owned()))];
        let arguments = match self {
            Self::Keep | Self::Drop | Self::Mask(Mask::All) => Vec::new(),
            Self::Mask(Mask::Email) => one("as", "email"),
            Self::Mask(Mask::Phone) => one("as", "phone"),
            Self::Mask(Mask::KeepLast(last)) => one("keep_last", &last.to_string()),
            Self::Pseudonymize { domain } if domain.is_empty() => Vec::new(),
            Self::Pseudonymize { domain } => one("domain", domain),
            Self::TruncateTime(grain) => one("to", grain.name()),
            Self::TruncateText { chars } => one("chars", &chars.to_string()),
            Self::Bucket(Bucket::Width(width)) => one("width", &width.to_string()),
            Self::Bucket(Bucket::Bounds(bounds)) => {
                vec![("bounds".to_owned(), Argument::List(bounds.iter().map(f64::to_string).collect()))]
            }
            Self::Scrub(rule) => {
                let mut arguments = vec![("kinds".to_owned(), Argument::List(rule.kinds.clone()))];
                if !rule.patterns.is_empty() {
                    let patterns = rule.patterns.iter().map(|(name, regex)| format!("{name}:{regex}"));
                    arguments.push(("patterns".to_owned(), Argument::List(patterns.collect())));
                }
                arguments
            }
            Self::Restrict(inner) if **inner == Self::Keep => Vec::new(),
            Self::Restrict(inner) => {
                let mut arguments: Vec<_> = inner.text().arguments.into_iter().collect();
                arguments.extend(one("after", inner.name()));
                arguments
            }
        };
        MethodText { name: self.name().to_owned(), arguments: arguments.into_iter().collect() }
    }
}

/// The arguments of a method that were not looked at yet.
struct Arguments<'a> {
    method: &'a str,
    values: BTreeMap<String, Argument>,
    place: &'a Place,
}

impl Arguments<'_> {
    fn one(&mut self, name: &'static str) -> Result<Option<String>> {
        match self.values.remove(name) {
            None => Ok(None),
            Some(Argument::One(value)) => Ok(Some(value)),
            Some(Argument::List(_)) => Err(self.wrong_form(name, "write one value, without `[` and `]`")),
        }
    }

    fn list(&mut self, name: &'static str) -> Result<Option<Vec<String>>> {
        match self.values.remove(name) {
            None => Ok(None),
            Some(Argument::List(values)) => Ok(Some(values)),
            Some(Argument::One(_)) => Err(self.wrong_form(name, &format!("write an array: `{name} = [ … ]`"))),
        }
    }

    fn wrong_form(&self, name: &'static str, hint: &str) -> Error {
        self.place
            .wrong("argument has another form")
            .with_context("method", self.method)
            .with_context("argument", name)
            .with_hint(hint)
    }
}

fn mask(arguments: &mut Arguments<'_>) -> Result<Mask> {
    let place = arguments.place;
    match (arguments.one("as")?, arguments.one("keep_last")?) {
        (None, None) => Ok(Mask::All),
        (Some(form), None) => match form.as_str() {
            "email" => Ok(Mask::Email),
            "phone" => Ok(Mask::Phone),
            _ => Err(wrong_argument(place, "as", &form, "known are: email, phone")),
        },
        (None, Some(last)) => {
            let count = last.parse().ok().filter(|last| (1..=MAX_KEEP_LAST).contains(last));
            let hint = format!("write a number from 1 to {MAX_KEEP_LAST}");
            count.map(Mask::KeepLast).ok_or_else(|| wrong_argument(place, "keep_last", &last, &hint))
        }
        (Some(_), Some(_)) => {
            Err(place.wrong("`mask` takes one of `as` and `keep_last`").with_hint("remove one of the two arguments"))
        }
    }
}

fn truncate(arguments: &mut Arguments<'_>) -> Result<Method> {
    let place = arguments.place;
    match (arguments.one("to")?, arguments.one("chars")?) {
        (Some(to), None) => Ok(Method::TruncateTime(match to.as_str() {
            "hour" => Grain::Hour,
            "day" => Grain::Day,
            "week" => Grain::Week,
            "month" => Grain::Month,
            _ => return Err(wrong_argument(place, "to", &to, "known are: hour, day, week, month")),
        })),
        (None, Some(chars)) => {
            let count = chars.parse().ok().filter(|chars| *chars > 0);
            let hint = "write a number of characters, at least 1";
            let chars = count.ok_or_else(|| wrong_argument(place, "chars", &chars, hint))?;
            Ok(Method::TruncateText { chars })
        }
        _ => Err(place
            .wrong("`truncate` takes one of `to` and `chars`")
            .with_hint("write `to = \"day\"` for a time, `chars = 12` for a text")),
    }
}

fn bucket(arguments: &mut Arguments<'_>) -> Result<Bucket> {
    let place = arguments.place;
    match (arguments.list("bounds")?, arguments.one("width")?) {
        (Some(bounds), None) => Bucket::of_bounds(&bounds).ok_or_else(|| {
            let hint = "write up to 256 numbers in ascending order: `bounds = [0, 10, 100]`";
            wrong_argument(place, "bounds", &format!("[{}]", bounds.join(", ")), hint)
        }),
        (None, Some(width)) => Bucket::of_width(&width)
            .ok_or_else(|| wrong_argument(place, "width", &width, "write a number above zero: `width = 10`")),
        _ => Err(place
            .wrong("`bucket` takes one of `bounds` and `width`")
            .with_hint("write `bounds = [0, 10, 100]` or `width = 10`")),
    }
}

fn kinds(arguments: &mut Arguments<'_>) -> Result<Vec<String>> {
    let place = arguments.place;
    let Some(mut kinds) = arguments.list("kinds")? else {
        let mut all = scrub::KINDS.map(str::to_owned).to_vec();
        all.sort();
        return Ok(all);
    };
    if let Some(unknown) = kinds.iter().find(|kind| !scrub::KINDS.contains(&kind.as_str())) {
        return Err(wrong_argument(place, "kinds", unknown, &did_you_mean(unknown, scrub::KINDS)));
    }
    kinds.sort();
    kinds.dedup();
    Ok(kinds)
}

impl Grain {
    fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }
}

fn wrong_argument(place: &Place, argument: &'static str, value: &str, hint: &str) -> Error {
    place.wrong("argument cannot be used").with_context(argument, value).with_hint(hint)
}

/// What is done to a text, ready to run.
#[derive(Clone)]
pub(super) enum TextStep {
    Keep,
    Mask(Mask),
    Pseudonymize(Box<Pseudonymizer>),
    Truncate { chars: usize },
    Scrub(Arc<Scrub>),
}

impl TextStep {
    /// Returns the text to store, borrowed from `value` or written into `out`.
    pub(super) fn apply<'a>(&self, value: &'a str, out: &'a mut String) -> &'a str {
        if value.is_empty() {
            return value;
        }
        match self {
            Self::Keep => value,
            Self::Truncate { chars } => match value.char_indices().nth(*chars) {
                Some((end, _)) => &value[..end],
                None => value,
            },
            Self::Mask(mask) => {
                out.clear();
                mask.write(value, out);
                out
            }
            Self::Pseudonymize(pseudonymizer) => {
                out.clear();
                pseudonymizer.write(value, out);
                out
            }
            Self::Scrub(scrub) => {
                out.clear();
                if scrub.write(value, out) { out } else { value }
            }
        }
    }
}

impl Mask {
    fn write(self, value: &str, out: &mut String) {
        if self.is_masked(value) {
            out.push_str(value);
            return;
        }
        match self {
            Self::All => out.push_str(MASKED),
            Self::Email => {
                let parts = value.rsplit_once('@').filter(|(local, domain)| {
                    !local.is_empty()
                        && !local.contains(|c: char| c.is_whitespace() || c == '@')
                        && domain.contains('.')
                        && domain.chars().all(|c| c.is_alphanumeric() || c == '.' || c == '-')
                });
                match parts {
                    Some((local, domain)) => {
                        out.extend(local.chars().next());
                        out.push_str(MASKED);
                        out.push('@');
                        out.push_str(domain);
                    }
                    None => out.push_str(MASKED),
                }
            }
            Self::Phone => {
                out.push_str(MASKED);
                let digits = value.chars().filter(char::is_ascii_digit);
                let count = digits.clone().count();
                if count >= 6 {
                    out.extend(digits.skip(count - 2));
                }
            }
            Self::KeepLast(last) => {
                out.push_str(MASKED);
                let count = value.chars().count();
                if count > 2 * last {
                    out.extend(value.chars().skip(count - last));
                }
            }
        }
    }

    /// Tells whether a text has the form of what the mask makes. An address in this form comes out the same anyway.
    fn is_masked(self, value: &str) -> bool {
        let Some(shown) = value.strip_prefix(MASKED) else { return false };
        match self {
            Self::All | Self::Email => false,
            Self::Phone => shown.is_empty() || shown.len() == 2 && shown.bytes().all(|byte| byte.is_ascii_digit()),
            Self::KeepLast(last) => shown.is_empty() || shown.chars().count() == last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{PseudonymKey, PseudonymKeys, SecretKey};

    fn first_key(byte: u8) -> PseudonymKeys {
        let key = PseudonymKey { version: 1, key: SecretKey::new([byte; 32]) };
        PseudonymKeys::try_new([Arc::new(key)]).unwrap()
    }

    fn compile(name: &str, arguments: &[(&str, &str)]) -> Result<Method> {
        let arguments =
            arguments.iter().map(|(name, value)| ((*name).to_owned(), Argument::One((*value).to_owned()))).collect();
        compile_text(&MethodText { name: name.to_owned(), arguments })
    }

    fn compile_text(text: &MethodText) -> Result<Method> {
        let place = Place { file: "tags.toml".to_owned(), line: 7, kind: "column", name: "label".to_owned() };
        Method::compile(text, Defaults { domain: "tags.label", patterns: &[] }, &place)
    }

    /// Reads a method as a schema file writes it.
    fn written(toml: &str) -> Result<Method> {
        let file = format!(
            "stream = \"tags\"\n[[column]]\nname = \"tag_id\"\npath = \"id\"\ntype = \"text\"\nclass = \"internal\"\ndescription = \"Id.\"\n\
             [[custom]]\npattern = \"x\"\nclass = \"internal\"\nmethod = {toml}\n"
        );
        let schemas = crate::schema::Schemas::from_files([("tags.toml", file.as_str())]).unwrap();
        compile_text(&schemas.table(crate::model::Stream::Tags).unwrap().custom[0].method)
    }

    #[test]
    fn method_is_written_in_one_form_and_read_back() {
        const ALL_KINDS: &str = r#"kinds=["card","email","iban","national-id","phone","url"]"#;
        for (toml, canonical) in [
            (r#""keep""#, "keep"),
            (r#""drop""#, "drop"),
            (r#""mask""#, "mask"),
            (r#"{ name = "mask", as = "email" }"#, "mask(as=email)"),
            (r#"{ name = "mask", as = "phone" }"#, "mask(as=phone)"),
            (r#"{ name = "mask", keep_last = 4 }"#, "mask(keep_last=4)"),
            (r#""pseudonymize""#, "pseudonymize(domain=tags.label)"),
            (r#"{ name = "pseudonymize", domain = "person" }"#, "pseudonymize(domain=person)"),
            (r#"{ name = "pseudonymize", domain = "a \"b\", c)" }"#, r#"pseudonymize(domain="a \"b\", c)")"#),
            (r#"{ name = "truncate", to = "week" }"#, "truncate(to=week)"),
            (r#"{ name = "truncate", chars = 12 }"#, "truncate(chars=12)"),
            (r#"{ name = "bucket", bounds = [-0.0, 0.5, 1_0, 1e2] }"#, "bucket(bounds=[0,0.5,10,100])"),
            (r#"{ name = "bucket", width = 0x10 }"#, "bucket(width=16)"),
            (r#""scrub""#, &format!("scrub({ALL_KINDS})")),
            (r#"{ name = "scrub", kinds = ["phone", "email", "phone"] }"#, r#"scrub(kinds=["email","phone"])"#),
            (r#""restrict""#, "restrict"),
            (r#"{ name = "restrict", after = "keep" }"#, "restrict"),
            (r#"{ name = "restrict", after = "mask", keep_last = 2 }"#, "restrict(after=mask,keep_last=2)"),
            (r#"{ name = "restrict", after = "scrub" }"#, &format!("restrict(after=scrub,{ALL_KINDS})")),
            (r#"{ name = "restrict", after = "pseudonymize" }"#, "restrict(after=pseudonymize,domain=tags.label)"),
            (r#"{ name = "restrict", after = "bucket", width = 2.5 }"#, "restrict(after=bucket,width=2.5)"),
        ] {
            let method = written(toml).unwrap();
            assert_eq!(method.canonical(), canonical);
            assert_eq!(Method::read_canonical(canonical), Some(method));
        }
        let rule = ScrubRule { kinds: Vec::new(), patterns: vec![("order".to_owned(), r"\bO:[0-9]\)".to_owned())] };
        let own = Method::Restrict(Box::new(Method::Scrub(rule)));
        assert_eq!(own.canonical(), r#"restrict(after=scrub,kinds=[],patterns=["order:\\bO:[0-9]\\)"])"#);
        assert_eq!(Method::read_canonical(&own.canonical()), Some(own));
    }

    #[test]
    fn wrong_bucket_scrub_or_restriction_is_refused_with_a_way_out() {
        let place = "file: tags.toml, line: 7, column: label";
        for (toml, message, hint) in [
            (
                r#""bucket""#,
                format!("`bucket` takes one of `bounds` and `width` ({place})"),
                "write `bounds = [0, 10, 100]` or `width = 10`",
            ),
            (
                r#"{ name = "bucket", bounds = [10, 5] }"#,
                format!("argument cannot be used ({place}, bounds: [10, 5])"),
                "write up to 256 numbers in ascending order: `bounds = [0, 10, 100]`",
            ),
            (
                r#"{ name = "bucket", bounds = [] }"#,
                format!("argument cannot be used ({place}, bounds: [])"),
                "write up to 256 numbers in ascending order: `bounds = [0, 10, 100]`",
            ),
            (
                r#"{ name = "bucket", bounds = 5 }"#,
                format!("argument has another form ({place}, method: bucket, argument: bounds)"),
                "write an array: `bounds = [ … ]`",
            ),
            (
                r#"{ name = "bucket", width = inf }"#,
                format!("argument cannot be used ({place}, width: inf)"),
                "write a number above zero: `width = 10`",
            ),
            (
                r#"{ name = "scrub", kinds = ["mail"] }"#,
                format!("argument cannot be used ({place}, kinds: mail)"),
                "did you mean `email`?",
            ),
            (
                r#"{ name = "scrub", kinds = [] }"#,
                format!("`scrub` replaces nothing ({place})"),
                "known are: email, phone, card, iban, national-id, url",
            ),
            (
                r#"{ name = "scrub", patterns = ["a:b"] }"#,
                format!("method does not take this argument ({place}, method: scrub, argument: patterns)"),
                "remove the argument",
            ),
            (
                r#"{ name = "restrict", after = "drop" }"#,
                format!("argument cannot be used ({place}, after: drop)"),
                "write a method whose values can be stored",
            ),
            (
                r#"{ name = "restrict", to = "day" }"#,
                format!("method does not take this argument ({place}, method: keep, argument: to)"),
                "remove the argument",
            ),
            (
                r#"{ name = "mask", as = ["email"] }"#,
                format!("argument has another form ({place}, method: mask, argument: as)"),
                "write one value, without `[` and `]`",
            ),
        ] {
            let error = written(toml).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert_eq!(error.hint(), Some(hint), "{message}");
        }
    }

    #[test]
    fn wrong_method_or_argument_is_refused_with_place_and_hint() {
        for (name, arguments, message, hint) in [
            (
                "maks",
                &[][..],
                "unknown method (file: tags.toml, line: 7, column: label, method: maks)",
                "did you mean `mask`?",
            ),
            (
                "hash",
                &[],
                "unknown method (file: tags.toml, line: 7, column: label, method: hash)",
                "did you mean `mask`?",
            ),
            (
                "encrypted",
                &[],
                "unknown method (file: tags.toml, line: 7, column: label, method: encrypted)",
                "known are: keep, drop, mask, pseudonymize, truncate, bucket, scrub, restrict",
            ),
            (
                "keep",
                &[("to", "day")],
                "method does not take this argument (file: tags.toml, line: 7, column: label, method: keep, argument: to)",
                "remove the argument",
            ),
            (
                "mask",
                &[("as", "mail")],
                "argument cannot be used (file: tags.toml, line: 7, column: label, as: mail)",
                "known are: email, phone",
            ),
            (
                "mask",
                &[("keep_last", "20")],
                "argument cannot be used (file: tags.toml, line: 7, column: label, keep_last: 20)",
                "write a number from 1 to 8",
            ),
            (
                "truncate",
                &[],
                "`truncate` takes one of `to` and `chars` (file: tags.toml, line: 7, column: label)",
                "write `to = \"day\"` for a time, `chars = 12` for a text",
            ),
            (
                "truncate",
                &[("to", "year")],
                "argument cannot be used (file: tags.toml, line: 7, column: label, to: year)",
                "known are: hour, day, week, month",
            ),
        ] {
            let error = compile(name, arguments).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert_eq!(error.hint(), Some(hint));
        }
    }

    #[test]
    fn text_methods_store_what_the_table_says() {
        let email = TextStep::Mask(Mask::Email);
        let phone = TextStep::Mask(Mask::Phone);
        let last = TextStep::Mask(Mask::KeepLast(4));
        let truncate = TextStep::Truncate { chars: 3 };
        let pseudonym = TextStep::Pseudonymize(Box::new(Pseudonymizer::new(&first_key(7), "tags.label")));
        for (step, value, stored) in [
            (&TextStep::Keep, "Zoë", "Zoë"),
            (&TextStep::Mask(Mask::All), "Zoë", "***"),
            (&TextStep::Mask(Mask::All), "", ""),
            (&email, "zoe.doe@mail.example.com", "z***@mail.example.com"),
            (&email, "Zoe <zoe@example.com>", "***"),
            (&email, "a@b@example.com", "***"),
            (&email, "@example.com", "***"),
            (&email, "zoe", "***"),
            (&email, "émile@exämple.com", "é***@exämple.com"),
            (&phone, "+1 (212) 555-0123", "***23"),
            (&phone, "12345", "***"),
            (&phone, "none", "***"),
            (&last, "4111111111111111", "***1111"),
            (&last, "12345678", "***"),
            (&last, "日本語日本語日本語", "***語日本語"),
            (&truncate, "日本語日本語", "日本語"),
            (&truncate, "ab", "ab"),
            (&pseudonym, "", ""),
        ] {
            assert_eq!(step.apply(value, &mut String::new()), stored, "{value}");
        }
    }

    // The expected codes were computed with Python's hmac and base64 modules.
    #[test]
    fn pseudonym_is_keyed_versioned_and_separated_by_domain() {
        let pseudonym = |key: u8, domain, value: &str| {
            let step = TextStep::Pseudonymize(Box::new(Pseudonymizer::new(&first_key(key), domain)));
            step.apply(value, &mut String::new()).to_owned()
        };
        for (key, domain, value, stored) in VECTORS {
            assert_eq!(pseudonym(key, domain, value), stored);
        }
    }

    const VECTORS: [(u8, &str, &str, &str); 2] = [
        (7, "customers.email_pseudonym", "zoe@example.com", "p1_D-mGQlQwG3hBzmjmCIfjdg"),
        (7, "person", "日本 \u{1f600}", "p1_UInILSXo5cFtR39QcjxzJQ"),
    ];
}
