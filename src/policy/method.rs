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
//!
//! A pseudonym is `p<version>_<code>`: the version of the ring key in decimal and the first 16 bytes of
//! HMAC-SHA256(key, domain, `0x00`, value) as base64url without padding. The domain is `table.column` unless written, so that
//! one value has unrelated pseudonyms in two columns, and joins across tables are asked for by naming one domain in both.
//! Empty text stays empty: it holds nothing, and would otherwise become the one value that everything joins on.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use crate::error::{Error, Result, did_you_mean};
use crate::schema::{ColumnType, MethodText};
use crate::secret::PseudonymKey;

const NAMES: [&str; 5] = ["keep", "drop", "mask", "pseudonymize", "truncate"];
/// More is not a mask: it would show most of any identifier.
const MAX_KEEP_LAST: usize = 8;
const MASKED: &str = "***";

/// A method, its arguments checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Method {
    Keep,
    Drop,
    Mask(Mask),
    Pseudonymize { domain: String },
    TruncateTime(Grain),
    TruncateText { chars: usize },
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
    /// Reads a method as written; `domain` is the default of `pseudonymize`.
    pub(super) fn compile(text: &MethodText, domain: &str, place: &Place) -> Result<Self> {
        let mut arguments = text.arguments.clone();
        let method = match text.name.as_str() {
            "keep" => Self::Keep,
            "drop" => Self::Drop,
            "mask" => Self::Mask(match (arguments.remove("as"), arguments.remove("keep_last")) {
                (None, None) => Mask::All,
                (Some(form), None) => match form.as_str() {
                    "email" => Mask::Email,
                    "phone" => Mask::Phone,
                    _ => return Err(wrong_argument(place, "as", &form, "known are: email, phone")),
                },
                (None, Some(last)) => Mask::KeepLast(
                    last.parse().ok().filter(|last| (1..=MAX_KEEP_LAST).contains(last)).ok_or_else(|| {
                        wrong_argument(place, "keep_last", &last, &format!("write a number from 1 to {MAX_KEEP_LAST}"))
                    })?,
                ),
                (Some(_), Some(_)) => {
                    return Err(place
                        .wrong("`mask` takes one of `as` and `keep_last`")
                        .with_hint("remove one of the two arguments"));
                }
            }),
            "pseudonymize" => {
                let domain = arguments.remove("domain").unwrap_or_else(|| domain.to_owned());
                if domain.is_empty() || domain.contains(char::is_control) {
                    return Err(wrong_argument(place, "domain", &domain, "write a name, e.g. `customer.email`"));
                }
                Self::Pseudonymize { domain }
            }
            "truncate" => match (arguments.remove("to"), arguments.remove("chars")) {
                (Some(to), None) => Self::TruncateTime(match to.as_str() {
                    "hour" => Grain::Hour,
                    "day" => Grain::Day,
                    "week" => Grain::Week,
                    "month" => Grain::Month,
                    _ => return Err(wrong_argument(place, "to", &to, "known are: hour, day, week, month")),
                }),
                (None, Some(chars)) => Self::TruncateText {
                    chars: chars.parse().ok().filter(|chars| *chars > 0).ok_or_else(|| {
                        wrong_argument(place, "chars", &chars, "write a number of characters, at least 1")
                    })?,
                },
                _ => {
                    return Err(place
                        .wrong("`truncate` takes one of `to` and `chars`")
                        .with_hint("write `to = \"day\"` for a time, `chars = 12` for a text"));
                }
            },
            unknown => {
                return Err(place
                    .wrong("unknown method")
                    .with_context("method", unknown)
                    .with_hint(did_you_mean(unknown, NAMES)));
            }
        };
        match arguments.keys().next() {
            None => Ok(method),
            Some(unknown) => Err(place
                .wrong("method does not take this argument")
                .with_context("method", &text.name)
                .with_context("argument", unknown)
                .with_hint("remove the argument")),
        }
    }

    /// Refuses a method that means nothing for a type.
    pub(super) fn check_fits(&self, column_type: ColumnType, place: &Place) -> Result<()> {
        let is_text = matches!(column_type, ColumnType::Text | ColumnType::TextList);
        let (fits, hint) = match self {
            Self::Drop => (true, ""),
            Self::Keep => (column_type != ColumnType::Any, "write `method = \"drop\"`: `any` is for what is dropped"),
            Self::Mask(_) | Self::Pseudonymize { .. } | Self::TruncateText { .. } => {
                (is_text, "it takes text and text_list: keep or drop the column, or correct its type")
            }
            Self::TruncateTime(_) => {
                (column_type == ColumnType::Timestamp, "`to` is for a timestamp; a text takes `chars = 12`")
            }
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

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::Mask(_) => "mask",
            Self::Pseudonymize { .. } => "pseudonymize",
            Self::TruncateTime(_) | Self::TruncateText { .. } => "truncate",
        }
    }

    /// Writes the method with its arguments in one fixed form, for the digest and for `DESCRIBE`.
    pub(super) fn canonical(&self) -> String {
        match self {
            Self::Keep | Self::Drop | Self::Mask(Mask::All) => self.name().to_owned(),
            Self::Mask(Mask::Email) => "mask(as=email)".to_owned(),
            Self::Mask(Mask::Phone) => "mask(as=phone)".to_owned(),
            Self::Mask(Mask::KeepLast(last)) => format!("mask(keep_last={last})"),
            Self::Pseudonymize { domain } => format!("pseudonymize(domain={domain})"),
            Self::TruncateTime(grain) => format!("truncate(to={})", grain.name()),
            Self::TruncateText { chars } => format!("truncate(chars={chars})"),
        }
    }
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
        }
    }
}

impl Mask {
    fn write(self, value: &str, out: &mut String) {
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
}

/// Makes the pseudonyms of one domain.
#[derive(Clone)]
pub(super) struct Pseudonymizer {
    prefix: String,
    /// The keyed hash after the domain and its zero byte.
    begun: hmac::Context,
}

impl Pseudonymizer {
    pub(super) fn new(key: &hmac::Key, version: u32, domain: &str) -> Self {
        let mut begun = hmac::Context::with_key(key);
        begun.update(domain.as_bytes());
        begun.update(&[0]);
        Self { prefix: format!("p{version}_"), begun }
    }

    fn write(&self, value: &str, out: &mut String) {
        let mut context = self.begun.clone();
        context.update(value.as_bytes());
        out.push_str(&self.prefix);
        URL_SAFE_NO_PAD.encode_string(&context.sign().as_ref()[..16], out);
    }
}

/// Makes one pseudonym.
pub(super) fn pseudonym(key: &PseudonymKey, domain: &str, value: &str) -> String {
    let mut out = String::new();
    let hmac_key = hmac::Key::new(hmac::HMAC_SHA256, key.key.expose());
    Pseudonymizer::new(&hmac_key, key.version, domain).write(value, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn compile(name: &str, arguments: &[(&str, &str)]) -> Result<Method> {
        let arguments: BTreeMap<String, String> =
            arguments.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let place = Place { file: "tags.toml".to_owned(), line: 7, kind: "column", name: "label".to_owned() };
        Method::compile(&MethodText { name: name.to_owned(), arguments }, "tags.label", &place)
    }

    #[test]
    fn method_is_read_in_its_canonical_form() {
        for (name, arguments, canonical) in [
            ("keep", &[][..], "keep"),
            ("drop", &[], "drop"),
            ("mask", &[], "mask"),
            ("mask", &[("as", "email")], "mask(as=email)"),
            ("mask", &[("as", "phone")], "mask(as=phone)"),
            ("mask", &[("keep_last", "4")], "mask(keep_last=4)"),
            ("pseudonymize", &[], "pseudonymize(domain=tags.label)"),
            ("pseudonymize", &[("domain", "person")], "pseudonymize(domain=person)"),
            ("truncate", &[("to", "week")], "truncate(to=week)"),
            ("truncate", &[("chars", "12")], "truncate(chars=12)"),
        ] {
            assert_eq!(compile(name, arguments).unwrap().canonical(), canonical);
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
                "known are: keep, drop, mask, pseudonymize, truncate",
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
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        let email = TextStep::Mask(Mask::Email);
        let phone = TextStep::Mask(Mask::Phone);
        let last = TextStep::Mask(Mask::KeepLast(4));
        let truncate = TextStep::Truncate { chars: 3 };
        let pseudonym = TextStep::Pseudonymize(Box::new(Pseudonymizer::new(&key, 3, "tags.label")));
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
        let pseudonym = |key: u8, version, domain, value: &str| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &[key; 32]);
            let step = TextStep::Pseudonymize(Box::new(Pseudonymizer::new(&key, version, domain)));
            step.apply(value, &mut String::new()).to_owned()
        };
        for (key, version, domain, value, stored) in VECTORS {
            assert_eq!(pseudonym(key, version, domain, value), stored);
        }
    }

    const VECTORS: [(u8, u32, &str, &str, &str); 4] = [
        (7, 1, "customers.email_pseudonym", "zoe@example.com", "p1_D-mGQlQwG3hBzmjmCIfjdg"),
        (7, 2, "tickets.email", "zoe@example.com", "p2_tUrr_pkI48p6RvGjFIJD0A"),
        (8, 12, "tickets.email", "zoe@example.com", "p12_wAaFOIg1A3OwYj0gdUm7Ig"),
        (7, 1, "person", "日本 \u{1f600}", "p1_UInILSXo5cFtR39QcjxzJQ"),
    ];
}
