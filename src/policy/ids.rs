//! Answers that hold ids only.
//!
//! The form of an answer to `idsOnly=true` is not documented, so the items of `data` may be ids as texts, objects with an
//! `id`, or whole records, of which nothing else is read.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use crate::error::{Error, Result};
use crate::model::ObjectId;

/// One page of ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdPage {
    /// `meta.total`: records that match the search.
    pub total: Option<u64>,
    /// `meta.timed_out`.
    pub timed_out: bool,
    /// The ids, in the order of the page.
    pub ids: Vec<ObjectId>,
    /// Items that hold no valid id.
    pub rejected: u64,
}

impl IdPage {
    /// Decodes a page.
    ///
    /// # Errors
    ///
    /// [`Data`](crate::error::ErrorKind::Data) when it is not JSON or has no array `data`; the error repeats no value.
    pub fn decode(page: &[u8]) -> Result<Self> {
        let wire: Wire = serde_json::from_slice(page).map_err(|error| {
            Error::data(match error.classify() {
                Category::Eof => "page of ids ends in the middle of its JSON",
                Category::Syntax => "page of ids is not valid JSON",
                Category::Data | Category::Io => "page of ids has another form than an answer of the source",
            })
            .with_context("line", error.line())
            .with_context("column", error.column())
        })?;
        let items = wire.data.len() as u64;
        let ids: Vec<ObjectId> = wire.data.into_iter().filter_map(|item| item.0).collect();
        let meta = wire.meta.unwrap_or_default();
        Ok(Self {
            total: meta.total,
            timed_out: meta.timed_out.unwrap_or_default(),
            rejected: items - ids.len() as u64,
            ids,
        })
    }
}

#[derive(Deserialize)]
struct Wire {
    data: Vec<Item>,
    meta: Option<Meta>,
}

#[derive(Default, Deserialize)]
struct Meta {
    total: Option<u64>,
    timed_out: Option<bool>,
}

/// The id of one item, where it has a valid one.
struct Item(Option<ObjectId>);

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id")
    }

    fn visit_str<E>(self, text: &str) -> Result<Item, E> {
        Ok(Item(ObjectId::from_hex(text.as_bytes())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item, A::Error> {
        let mut id = None;
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                // The first of several counts, as in the decoder of records.
                Key::Id if id.is_none() => id = Some(map.next_value::<Item>()?),
                Key::Id | Key::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(id.unwrap_or(Item(None)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _seq: A) -> Result<Item, A::Error> {
        Err(A::Error::custom("an array is no id"))
    }

    fn visit_bool<E>(self, _value: bool) -> Result<Item, E> {
        Ok(Item(None))
    }

    fn visit_i64<E>(self, _value: i64) -> Result<Item, E> {
        Ok(Item(None))
    }

    fn visit_u64<E>(self, _value: u64) -> Result<Item, E> {
        Ok(Item(None))
    }

    fn visit_f64<E>(self, _value: f64) -> Result<Item, E> {
        Ok(Item(None))
    }

    fn visit_unit<E>(self) -> Result<Item, E> {
        Ok(Item(None))
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Key {
    Id,
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const ID: &str = "58228e05d4e96711004eccb7";

    #[test]
    fn ids_are_read_from_every_form_that_the_source_may_have() {
        let page = format!(
            r#"{{"meta":{{"total":7,"timed_out":true,"pageSize":500}},"links":{{}},"data":["{ID}",{{"id":"{ID}"}},
            {{"type":"conversation","attributes":{{"id":"no","name":["x"]}},"id":"{}","id":"000000000000000000000000"}},
            "needle",{{"type":"conversation"}},{{"id":7}},null]}}"#,
            ID.to_uppercase()
        );
        let page = IdPage::decode(page.as_bytes()).unwrap();
        assert_eq!((page.total, page.timed_out, page.rejected), (Some(7), true, 4));
        assert_eq!(page.ids, [ID.parse().unwrap(); 3]);
        assert_eq!(IdPage::decode(br#"{"data":[]}"#).unwrap(), IdPage::default());
    }

    #[test]
    fn page_of_another_form_is_refused_without_its_values() {
        for page in
            [r#"{"data":"needle"}"#, r#"{"needle":1}"#, r#"{"data":["needle""#, "needle", r#"{"data":[["needle"]]}"#]
        {
            let error = IdPage::decode(page.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data, "{page}");
            assert!(!format!("{error:?}").contains("needle"), "{error:?}");
        }
    }
}
