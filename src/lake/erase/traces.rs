//! What an erasure must not leave behind, and where values name it.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, StringArray, StringBuilder};
use arrow::datatypes::DataType;

use crate::error::{Error, Result};
use crate::model::ObjectId;

/// Digits of an id.
const DIGITS: usize = 24;

/// Ids, and texts that stand for them. Cheap to clone.
#[derive(Clone, Default)]
pub(in crate::lake) struct Traces {
    ids: Arc<HashSet<ObjectId>>,
    texts: Arc<HashSet<String>>,
}

impl Traces {
    pub(super) fn new(ids: HashSet<ObjectId>, texts: HashSet<String>) -> Self {
        Self { ids: Arc::new(ids), texts: Arc::new(texts) }
    }

    /// Tells whether there is nothing to look for.
    pub(in crate::lake) fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.texts.is_empty()
    }

    /// Tells whether an id is one of them.
    pub(super) fn has(&self, id: ObjectId) -> bool {
        self.ids.contains(&id)
    }

    /// Tells whether a text is one of them or holds an id of them, as the path of a link does.
    pub(super) fn names(&self, text: &str) -> bool {
        let mut runs = text.as_bytes().split(|byte| !byte.is_ascii_hexdigit());
        self.texts.contains(text)
            || runs.any(|run| {
                run.windows(DIGITS).any(|digits| ObjectId::from_hex(digits).is_some_and(|id| self.ids.contains(&id)))
            })
    }

    /// Tells which rows of a column of texts, or of lists of texts, name one of them.
    pub(super) fn rows(&self, values: &ArrayRef) -> Vec<u32> {
        let is_named = |row: usize| match values.data_type() {
            DataType::Utf8 => values.is_valid(row) && self.names(values.as_string::<i32>().value(row)),
            DataType::List(item) if *item.data_type() == DataType::Utf8 => {
                values.is_valid(row)
                    && values
                        .as_list::<i32>()
                        .value(row)
                        .as_string::<i32>()
                        .iter()
                        .flatten()
                        .any(|text| self.names(text))
            }
            _ => false,
        };
        (0_u32..).zip(0..values.len()).filter(|(_, row)| is_named(*row)).map(|(row, _)| row).collect()
    }

    /// Leaves out the texts that name one of them: a value becomes null, an entry of a list goes.
    pub(in crate::lake) fn blank(&self, values: &ArrayRef) -> Result<ArrayRef> {
        if self.rows(values).is_empty() {
            return Ok(Arc::clone(values));
        }
        let kept = |text: &&str| !self.names(text);
        let blanked: ArrayRef = match values.data_type() {
            DataType::Utf8 => {
                Arc::new(values.as_string::<i32>().iter().map(|text| text.filter(kept)).collect::<StringArray>())
            }
            DataType::List(item) => {
                let mut lists = ListBuilder::new(StringBuilder::new()).with_field(Arc::clone(item));
                for list in values.as_list::<i32>().iter() {
                    if let Some(texts) = &list {
                        for text in texts.as_string::<i32>() {
                            if text.is_none_or(|text| !self.names(text)) {
                                lists.values().append_option(text);
                            }
                        }
                    }
                    lists.append(list.is_some());
                }
                Arc::new(lists.finish())
            }
            other => return Err(Error::internal("column cannot hold an id").with_context("type", other)),
        };
        Ok(blanked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "58228e05d4e96711004eccb7";

    fn traces() -> Traces {
        Traces::new([ID.parse().unwrap()].into(), ["p1_code".to_owned()].into())
    }

    #[test]
    fn texts_that_hold_an_id_or_are_its_pseudonym_are_found() {
        let cases = [
            (ID.to_owned(), true),
            (ID.to_uppercase(), true),
            (format!("https://x.example/customers/{ID}?a=1"), true),
            (format!("ab{ID}cd"), true),
            ("p1_code".to_owned(), true),
            ("p1_code2".to_owned(), false),
            (ID[1..].to_owned(), false),
            (ID.replace('8', "9"), false),
            (String::new(), false),
        ];
        for (text, expected) in cases {
            assert_eq!(traces().names(&text), expected, "{text}");
        }
        assert!(!Traces::default().names(ID));
    }

    #[test]
    fn values_become_null_and_entries_of_lists_go() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some(ID), None]));
        assert_eq!(traces().rows(&texts), [1]);
        let blanked = traces().blank(&texts).unwrap();
        assert_eq!(blanked.as_string::<i32>().iter().collect::<Vec<_>>(), [Some("a"), None, None]);
        let mut lists = ListBuilder::new(StringBuilder::new());
        lists.append_value([Some("a"), Some(ID), None]);
        lists.append_null();
        lists.append_value([Some(ID)]);
        let lists: ArrayRef = Arc::new(lists.finish());
        assert_eq!(traces().rows(&lists), [0, 2]);
        let blanked = traces().blank(&lists).unwrap();
        assert_eq!(blanked.data_type(), lists.data_type());
        let blanked = blanked.as_list::<i32>();
        assert_eq!((blanked.value(0).len(), blanked.is_null(1), blanked.value(2).len()), (2, true, 0));
        assert!(traces().rows(&(Arc::new(blanked.clone()) as ArrayRef)).is_empty());
    }
}
