//! Ids in JSON: an array, or an object a line. Values of other keys are passed over without being held.

use std::fmt;
use std::io::{self, BufRead, Read};

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{COLUMN, Ids, failed, wrong_id};
use crate::error::{Error, Result};
use crate::model::ObjectId;

/// Adds the ids of an array or of objects; the text begins in the line `first`.
pub(super) fn read(ids: &mut Ids, name: &str, first: u64, is_array: bool, text: impl BufRead) -> Result<()> {
    let line = std::cell::Cell::new(first);
    let mut reader = serde_json::Deserializer::from_reader(Counted { text, line: &line });
    let mut wrong = None;
    let mut add = |named: Named| {
        let Named(text) = named;
        let id = text.as_deref().and_then(|text| ObjectId::from_hex(text.trim().as_bytes()));
        if let Some(id) = id {
            ids.add(id);
            return true;
        }
        let error = match text {
            Some(text) => wrong_id(&text),
            None => Error::config("object has no `ticket_id`"),
        };
        wrong = Some(error.with_context("file", name).with_context("line", line.get()));
        false
    };
    let outcome = if is_array {
        Array(&mut add).deserialize(&mut reader).and_then(|()| reader.end())
    } else {
        reader.into_iter::<Named>().try_for_each(|named| if add(named?) { Ok(()) } else { Err(stopped()) })
    };
    match (outcome, wrong) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(wrong)) => Err(wrong),
        (Err(error), None) if error.is_io() => Err(failed(name, line.get(), error.into())),
        // What serde says repeats the value.
        (Err(_), None) => Err(Error::config("the list of ids is neither an array of ids nor an object a line")
            .with_context("file", name)
            .with_context("line", line.get())
            .with_hint("as `counterfoil query --format json` or `--format ndjson` writes it")),
    }
}

fn stopped<E: de::Error>() -> E {
    E::custom("stopped")
}

/// A reader that knows the line it is in.
struct Counted<'l, R> {
    text: R,
    line: &'l std::cell::Cell<u64>,
}

impl<R: BufRead> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.text.read(buffer)?;
        let breaks: u64 = buffer[..read].iter().map(|byte| u64::from(*byte == b'\n')).sum();
        self.line.set(self.line.get() + breaks);
        Ok(read)
    }
}

/// An id, or an object with one.
struct Named(Option<String>);

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(OfAny)
    }
}

struct OfAny;

impl<'de> Visitor<'de> for OfAny {
    type Value = Named;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id, or an object with `ticket_id`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Named, E> {
        Ok(Named(Some(text.to_owned())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Named, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            if key == COLUMN {
                found = map.next_value::<Option<String>>()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Named(found))
    }
}

/// An array whose elements are added one by one.
struct Array<'a, F>(&'a mut F);

impl<'de, F: FnMut(Named) -> bool> DeserializeSeed<'de> for Array<'_, F> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(Named) -> bool> Visitor<'de> for Array<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<(), A::Error> {
        while let Some(named) = items.next_element::<Named>()? {
            if !(self.0)(named) {
                return Err(stopped());
            }
        }
        Ok(())
    }
}
