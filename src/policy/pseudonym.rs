//! Pseudonyms: keyed codes in place of values, in a chain of versions.
//!
//! ```text
//! p<version>_<code>       version in decimal; code: 22 characters, base64url without padding
//!
//! code(1) = first 16 bytes of HMAC-SHA256(key 1, domain, 0x00, value)
//! code(n) = first 16 bytes of HMAC-SHA256(key n, domain, 0x00, "p<n-1>_<code(n-1)>")
//! ```
//!
//! A pseudonym of one version is made from that of the version before, so that a rotation is applied to what is stored and the
//! source is not asked; a fresh value goes through all versions and comes to the same. All of a lake are of one version, the
//! one in force, which its manifest says: so joins hold, in one table and between tables that share a domain.
//!
//! **What keys tell.** To find the value behind a pseudonym of version n, one has to guess it and needs every key up to n: a key
//! that leaked before a rotation, or all keys up to it, tell nothing of pseudonyms made after. The key of version n alone links
//! pseudonyms of version n - 1 that somebody kept to those of version n, and finds no value. Pseudonyms that were exported before a
//! rotation stay as strong as the keys of their version are secret.
//!
//! Empty text stays empty: it holds nothing, and would otherwise become the one value that everything joins on.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use crate::error::{Error, Result};
use crate::policy::method::Method;
use crate::secret::PseudonymKeys;

/// Bytes of the hash that a pseudonym shows.
const CODE_BYTES: usize = 16;

/// Characters that they take.
const CODE_CHARS: usize = 22;

/// Makes the pseudonyms of one domain.
#[derive(Clone)]
pub(super) struct Pseudonymizer {
    /// One for each version up to the one in force.
    links: Vec<Link>,
}

/// One version of a domain.
#[derive(Clone)]
struct Link {
    prefix: String,
    /// The keyed hash after the domain and its zero byte.
    begun: hmac::Context,
}

impl Pseudonymizer {
    pub(super) fn new(keys: &PseudonymKeys, domain: &str) -> Self {
        let link = |version: u32, key: &[u8]| {
            let mut begun = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
            begun.update(domain.as_bytes());
            begun.update(&[0]);
            Link { prefix: format!("p{version}_"), begun }
        };
        Self { links: keys.keys().iter().map(|key| link(key.version, key.key.expose())).collect() }
    }

    /// Appends the pseudonym of a value.
    pub(super) fn write(&self, value: &str, out: &mut String) {
        self.write_after(0, value, out);
    }

    /// Appends what becomes of a text that has gone through so many versions.
    fn write_after(&self, gone: usize, text: &str, out: &mut String) {
        let start = out.len();
        for (place, link) in self.links.iter().skip(gone).enumerate() {
            let mut context = link.begun.clone();
            context.update(if place == 0 { text.as_bytes() } else { &out.as_bytes()[start..] });
            out.truncate(start);
            out.push_str(&link.prefix);
            URL_SAFE_NO_PAD.encode_string(&context.sign().as_ref()[..CODE_BYTES], out);
        }
    }
}

/// Makes one pseudonym.
pub(super) fn pseudonym(keys: &PseudonymKeys, domain: &str, value: &str) -> String {
    let mut out = String::new();
    Pseudonymizer::new(keys, domain).write(value, &mut out);
    out
}

/// Returns the version of a text that has the form of a pseudonym.
fn version_of(text: &str) -> Option<u32> {
    let (digits, code) = text.strip_prefix('p')?.split_once('_')?;
    let is_code = code.len() == CODE_CHARS && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let is_number = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    if is_code && is_number { digits.parse().ok() } else { None }
}

/// Returns the domain of the pseudonyms that a stored column holds; `None` when it holds none.
#[must_use]
pub fn pseudonym_domain(field: &Field) -> Option<String> {
    // Nearly all columns have another method, and are asked for each file.
    let method = field.metadata().get("method").filter(|method| method.contains("pseudonymize"))?;
    match Method::read_canonical(method)?.inner() {
        Method::Pseudonymize { domain } => Some(domain.clone()),
        _ => None,
    }
}

/// Tells whether a column of these holds pseudonyms.
#[must_use]
pub fn holds_pseudonyms(columns: &Schema) -> bool {
    columns.fields().iter().any(|field| pseudonym_domain(field).is_some())
}

/// Turns stored pseudonyms of one version into those of a later one.
pub struct PseudonymRotation {
    from: u32,
    to: u32,
    columns: BTreeMap<String, Pseudonymizer>,
}

impl PseudonymRotation {
    /// Prepares the rotation of the columns of a file whose pseudonyms are of version `from`, to the version of the keys.
    ///
    /// # Errors
    ///
    /// [`Internal`](crate::error::ErrorKind::Internal) when the keys are not of a later version.
    pub fn try_new(columns: &Schema, from: u32, keys: &PseudonymKeys) -> Result<Self> {
        let to = keys.version();
        if from == 0 || from >= to {
            return Err(Error::internal("pseudonyms can be rotated to a later version only")
                .with_context("from", from)
                .with_context("to", to));
        }
        let columns = columns.fields().iter().filter_map(|field| {
            let domain = pseudonym_domain(field)?;
            Some((field.name().clone(), Pseudonymizer::new(keys, &domain)))
        });
        Ok(Self { from, to, columns: columns.collect() })
    }

    /// Returns the version that it leads to.
    #[must_use]
    pub fn to(&self) -> u32 {
        self.to
    }

    /// Rotates values of a column; those of a column without pseudonyms stay as they are, and so do texts that have not the
    /// form of a pseudonym, which a column can hold that was masked before it was pseudonymized.
    ///
    /// # Errors
    ///
    /// [`Data`](crate::error::ErrorKind::Data) naming the column when it holds a pseudonym of another version.
    pub fn column(&self, name: &str, values: ArrayRef) -> Result<ArrayRef> {
        let Some(pseudonymizer) = self.columns.get(name) else { return Ok(values) };
        match values.data_type() {
            DataType::Utf8 => Ok(Arc::new(self.texts(name, pseudonymizer, values.as_string::<i32>())?)),
            DataType::List(item) if *item.data_type() == DataType::Utf8 => {
                let lists = values.as_list::<i32>();
                let texts = self.texts(name, pseudonymizer, lists.values().as_string::<i32>())?;
                let (item, offsets, nulls) = (Arc::clone(item), lists.offsets().clone(), lists.nulls().cloned());
                let rotated = ListArray::try_new(item, offsets, Arc::new(texts), nulls);
                Ok(Arc::new(rotated.map_err(|_| Error::internal("list of pseudonyms lost its form"))?))
            }
            other => Err(Error::data("a column of pseudonyms has a type that holds no text")
                .with_context("column", name)
                .with_context("type", other)),
        }
    }

    fn texts(&self, name: &str, pseudonymizer: &Pseudonymizer, texts: &StringArray) -> Result<StringArray> {
        let mut rotated = StringBuilder::with_capacity(texts.len(), texts.value_data().len());
        let mut out = String::new();
        for text in texts {
            let Some(text) = text else {
                rotated.append_null();
                continue;
            };
            match version_of(text) {
                None => rotated.append_value(text),
                Some(version) if version == self.from => {
                    out.clear();
                    pseudonymizer.write_after(version as usize, text, &mut out);
                    rotated.append_value(&out);
                }
                Some(version) => {
                    return Err(Error::data("a column holds pseudonyms of another version than its file says")
                        .with_context("column", name)
                        .with_context("found", version)
                        .with_context("expected", self.from));
                }
            }
        }
        Ok(rotated.finish())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ListBuilder, StringBuilder};
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;
    use crate::secret::{PseudonymKey, SecretKey};

    /// Keys of 32 equal bytes: 7 for version 1, 8 for version 2, and so on.
    fn keys(version: u32) -> PseudonymKeys {
        let key = |number: u32| Arc::new(PseudonymKey { version: number, key: SecretKey::new([6 + number as u8; 32]) });
        PseudonymKeys::try_new((1..=version).map(key)).unwrap()
    }

    fn field(name: &str, data_type: DataType, method: &str) -> Field {
        Field::new(name, data_type, true).with_metadata([("method".to_owned(), method.to_owned())].into())
    }

    // The expected codes were computed with Python's hmac and base64 modules.
    #[test]
    fn pseudonyms_of_each_version_are_those_of_an_independent_implementation() {
        for (domain, value, expected) in [
            (
                "customers.email",
                "zoe@example.com",
                ["p1_lN_-5ixJaGYxc4uHf_Stzg", "p2_hTFlZ2oPDaNqC99Ghj0WUA", "p3_5sHWQXuQGrAbWqWG3PMfLg"],
            ),
            (
                "person",
                "zoe@example.com",
                ["p1_35hO59TZI3jvWtmvpl_zWQ", "p2_0QKTT9Fi49hydOj-KhGq1w", "p3_P1QAeiKoAI3mQpdge2jRVg"],
            ),
            (
                "person",
                "日本語",
                ["p1_4JlNvAH-N5zdYwe52fTLxA", "p2_7aZRaEKYlNthzCSSmrWREw", "p3_Y_oQHRoC3X9BjU9Af7yqhw"],
            ),
        ] {
            for (version, expected) in (1..).zip(expected) {
                assert_eq!(pseudonym(&keys(version), domain, value), expected);
                assert_eq!(version_of(expected), Some(version));
            }
        }
    }

    #[test]
    fn only_texts_of_the_form_are_pseudonyms() {
        for text in [
            "",
            "***",
            "p1_",
            "p1_short",
            "p01_lN_-5ixJaGYxc4uHf_Stzg",
            "p_lN_-5ixJaGYxc4uHf_Stzg",
            "p99999999999_lN_-5ixJaGYxc4uHf_Stzg",
            "p1_lN_-5ixJaGYxc4uHf_Stz=",
            "p1_lN_-5ixJaGYxc4uHf_Stzgg",
        ] {
            assert_eq!(version_of(text), None, "{text}");
        }
    }

    #[test]
    fn domain_is_read_from_the_method_of_a_column() {
        for (method, domain) in [
            ("pseudonymize(domain=person)", Some("person")),
            ("pseudonymize(domain=\"two (words)\")", Some("two (words)")),
            ("restrict(after=pseudonymize,domain=person)", Some("person")),
            ("restrict(after=mask,as=email)", None),
            ("keep", None),
            ("mask(as=email)", None),
        ] {
            let field = field("x", DataType::Utf8, method);
            assert_eq!(pseudonym_domain(&field).as_deref(), domain, "{method}");
            assert_eq!(holds_pseudonyms(&Schema::new(vec![field])), domain.is_some());
        }
    }

    #[test]
    fn keys_with_a_gap_are_refused() {
        let key = |version| Arc::new(PseudonymKey { version, key: SecretKey::new([1; 32]) });
        for versions in [&[][..], &[2], &[1, 3], &[2, 1], &[1, 1]] {
            let error = PseudonymKeys::try_new(versions.iter().map(|version| key(*version))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{versions:?}");
        }
    }

    #[test]
    fn pseudonyms_of_another_version_are_refused_and_never_shown() {
        let columns = Schema::new(vec![field("who", DataType::Utf8, "pseudonymize(domain=person)")]);
        let rotation = PseudonymRotation::try_new(&columns, 2, &keys(3)).unwrap();
        let stored = pseudonym(&keys(1), "person", "zoe");
        let error = rotation.column("who", Arc::new(StringArray::from(vec![stored.as_str()]))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.to_string().contains("column: who, found: 1, expected: 2"), "{error}");
        assert!(!error.to_string().contains(&stored));
        for from in [0, 3, 4] {
            assert!(PseudonymRotation::try_new(&columns, from, &keys(3)).is_err());
        }
    }

    #[test]
    fn nulls_masks_and_other_columns_stay_as_they_are() {
        let columns = Schema::new(vec![
            field("who", DataType::Utf8, "pseudonymize(domain=person)"),
            field("status", DataType::Utf8, "keep"),
        ]);
        let rotation = PseudonymRotation::try_new(&columns, 1, &keys(2)).unwrap();
        let values: ArrayRef = Arc::new(StringArray::from(vec![None, Some(""), Some("***")]));
        assert_eq!(&rotation.column("who", Arc::clone(&values)).unwrap(), &values);
        let kept: ArrayRef = Arc::new(StringArray::from(vec!["p1_lN_-5ixJaGYxc4uHf_Stzg"]));
        assert_eq!(&rotation.column("status", Arc::clone(&kept)).unwrap(), &kept);
    }

    proptest! {
        /// What a rotation makes of stored pseudonyms is what a fresh extract under the new version stores.
        #[test]
        fn rotated_pseudonyms_are_those_of_a_fresh_extract(
            lists in prop::collection::vec(prop::option::of(prop::collection::vec(prop::option::of(".{0,12}"), 0..4)), 0..8),
            from in 1_u32..4,
            later in 1_u32..4,
        ) {
            let stored = |version: u32| {
                let pseudonymizer = Pseudonymizer::new(&keys(version), "person");
                let made = |value: &String| {
                    let mut out = String::new();
                    if !value.is_empty() {
                        pseudonymizer.write(value, &mut out);
                    }
                    out
                };
                let mut column = ListBuilder::new(StringBuilder::new());
                for list in &lists {
                    for value in list.iter().flatten() {
                        column.values().append_option(value.as_ref().map(made));
                    }
                    column.append(list.is_some());
                }
                column.finish()
            };
            let (before, after) = (stored(from), stored(from + later));
            let columns = Schema::new(vec![
                field("who", before.data_type().clone(), "pseudonymize(domain=person)"),
                field("one", DataType::Utf8, "restrict(after=pseudonymize,domain=person)"),
            ]);
            let rotation = PseudonymRotation::try_new(&columns, from, &keys(from + later)).unwrap();
            prop_assert_eq!(rotation.to(), from + later);
            let texts = rotation.column("one", Arc::clone(before.values())).unwrap();
            prop_assert_eq!(&texts, after.values());
            let whole: ArrayRef = Arc::new(after);
            let rotated = rotation.column("who", Arc::new(before.clone())).unwrap();
            prop_assert_eq!(&rotated, &whole);
            // A slice keeps its own rows.
            let half = before.len() / 2;
            let rotated = rotation.column("who", Arc::new(before.slice(half, before.len() - half))).unwrap();
            prop_assert_eq!(&rotated, &whole.slice(half, before.len() - half));
        }
    }
}
