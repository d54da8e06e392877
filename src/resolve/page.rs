//! The source's documents, read as little as possible: resources are passed on as they came.
//!
//! A document is `{data, included?, links?}` with `data` an array, one object or null. Of a resource only its id and the
//! few references that the resolver follows are read; its text goes into the line unchanged, but for two things:
//! line breaks between tokens become spaces, because a line is one ticket, and the signed links of attachments are
//! taken out, because they expire and open the file to anyone who has them.
//!
//! Errors name a position and never repeat a value: serde's own messages would.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, Result};

/// One answer of the source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The resources of `data`, in their order.
    pub resources: Vec<Resource>,
    /// The attachments of `included` and those that messages of `data` refer to, each once.
    pub attachments: Vec<Attachment>,
    /// `links.next` as it came: not yet checked.
    pub next: Option<String>,
}

/// One resource object of the source; `Debug` shows its id and size, because it holds what people wrote, and the text is
/// cleared when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its id; a few kinds of resources come without.
    pub id: Option<String>,
    /// Its JSON text on one line.
    pub json: String,
}

/// A file at a message: what it is, not where it is; its name is cleared when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its id, from its own link where the item has none.
    pub id: Option<String>,
    /// The message it belongs to.
    pub message_id: Option<String>,
    /// File name.
    pub name: Option<String>,
    /// Media type.
    pub content_type: Option<String>,
    /// Size in bytes.
    pub content_length: Option<u64>,
    /// Whether its content was taken away.
    pub redacted: Option<bool>,
}

/// What a conversation refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Its customer.
    pub customer_id: Option<String>,
    /// Ids of its tags.
    pub tag_ids: Vec<String>,
    /// Names of its custom attributes.
    pub custom: Vec<String>,
    /// How many messages it says it has.
    pub message_count: Option<i64>,
    /// How many notes it says it has.
    pub note_count: Option<i64>,
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    included: Option<&'a RawValue>,
    #[serde(borrow, default)]
    links: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Links {
    #[serde(rename = "self", default)]
    own: Option<String>,
    #[serde(default)]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(borrow, default)]
    attributes: Option<&'a RawValue>,
    #[serde(borrow, default)]
    relationships: Option<&'a RawValue>,
    #[serde(borrow, default)]
    links: Option<&'a RawValue>,
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource").field("id", &self.id).field("json_bytes", &self.json.len()).finish()
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("id", &self.id).field("message_id", &self.message_id).finish_non_exhaustive()
    }
}

impl Drop for Resource {
    fn drop(&mut self) {
        self.json.zeroize();
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.name.zeroize();
    }
}

impl Page {
    /// Reads an answer of any endpoint whose resources are passed on: conversations, customers, messages, notes, tags.
    ///
    /// # Errors
    ///
    /// [`Data`](crate::error::ErrorKind::Data) when the body is no such document.
    pub fn decode(body: &[u8]) -> Result<Self> {
        let document: Document<'_> = parse(body)?;
        let mut page = Self { next: links(document.links).next, ..Self::default() };
        for raw in items(document.included)? {
            let head: Head<'_> = parse(raw.get().as_bytes())?;
            if head.kind.as_deref().is_none_or(|kind| kind == "attachment") {
                page.attachments.push(Attachment::of(&head));
            }
        }
        let mut known: HashSet<String> = page.attachments.iter().filter_map(|file| file.id.clone()).collect();
        for raw in items(document.data)? {
            let head: Head<'_> = parse(raw.get().as_bytes())?;
            let related = head.relationships.and_then(lenient::<WithAttachments<'_>>).and_then(|it| it.attachments);
            if let Some(related) = related {
                for id in attachment_ids(related) {
                    if known.insert(id.clone()) {
                        page.attachments.push(Attachment::named(id, head.id.clone()));
                    } else if let Some(file) = page.attachments.iter_mut().find(|file| file.id.as_ref() == Some(&id)) {
                        file.message_id = file.message_id.take().or_else(|| head.id.clone());
                    }
                }
            }
            page.resources.push(Resource { json: one_line(without_signed_links(raw, related)), id: head.id });
        }
        Ok(page)
    }

    /// Reads an answer of the attachment endpoints: the attachments are in `data`.
    ///
    /// # Errors
    ///
    /// [`Data`](crate::error::ErrorKind::Data) when the body is no such document.
    pub fn decode_attachments(body: &[u8]) -> Result<Self> {
        let document: Document<'_> = parse(body)?;
        let attachments = items(document.data)?
            .into_iter()
            .map(|raw| parse::<Head<'_>>(raw.get().as_bytes()).map(|head| Attachment::of(&head)))
            .collect::<Result<_>>()?;
        Ok(Self { resources: Vec::new(), attachments, next: links(document.links).next })
    }
}

impl Resource {
    /// Reads what a conversation refers to; what is absent or of another type is left out.
    #[must_use]
    pub fn references(&self) -> References {
        #[derive(Deserialize)]
        struct Attributes<'a> {
            #[serde(borrow, default)]
            tags: Option<&'a RawValue>,
            #[serde(borrow, default)]
            custom: Option<&'a RawValue>,
            #[serde(borrow, rename = "messageCount", default)]
            message_count: Option<&'a RawValue>,
            #[serde(borrow, rename = "noteCount", default)]
            note_count: Option<&'a RawValue>,
        }
        #[derive(Deserialize)]
        struct Relationships<'a> {
            #[serde(borrow, default)]
            customer: Option<&'a RawValue>,
        }
        let Ok(head) = serde_json::from_str::<Head<'_>>(&self.json) else { return References::default() };
        let attributes = head.attributes.and_then(lenient::<Attributes<'_>>);
        let customer = head
            .relationships
            .and_then(lenient::<Relationships<'_>>)
            .and_then(|relationships| relationships.customer)
            .and_then(reference);
        References {
            customer_id: customer,
            message_count: attributes.as_ref().and_then(|attributes| lenient(attributes.message_count?)),
            note_count: attributes.as_ref().and_then(|attributes| lenient(attributes.note_count?)),
            tag_ids: attributes
                .as_ref()
                .and_then(|attributes| lenient::<Vec<Value>>(attributes.tags?))
                .unwrap_or_default()
                .into_iter()
                .filter_map(|tag| if let Value::String(id) = tag { Some(id) } else { None })
                .collect(),
            custom: attributes
                .and_then(|attributes| lenient::<Entries<IgnoredAny>>(attributes.custom?))
                .map(|entries| entries.0.into_iter().map(|(name, _)| name).collect())
                .unwrap_or_default(),
        }
    }

    /// Reads `attributes.name`, the name of a tag.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Named {
            #[serde(default)]
            name: Option<String>,
        }
        let head: Head<'_> = serde_json::from_str(&self.json).ok()?;
        lenient::<Named>(head.attributes?)?.name
    }

    /// Reads `attributes.properties`: each custom attribute's name and its definition on one line.
    #[must_use]
    pub fn definitions(&self) -> Vec<(String, String)> {
        #[derive(Deserialize)]
        struct Attributes<'a> {
            #[serde(borrow, default)]
            properties: Option<&'a RawValue>,
        }
        let Ok(head) = serde_json::from_str::<Head<'_>>(&self.json) else { return Vec::new() };
        head.attributes
            .and_then(|raw| lenient::<Attributes<'_>>(raw)?.properties)
            .and_then(lenient::<Entries<Box<RawValue>>>)
            .map(|entries| entries.0.into_iter().map(|(name, raw)| (name, one_line(raw.get().to_owned()))).collect())
            .unwrap_or_default()
    }
}

impl Attachment {
    fn named(id: String, message_id: Option<String>) -> Self {
        Self { id: Some(id), message_id, name: None, content_type: None, content_length: None, redacted: None }
    }

    fn of(head: &Head<'_>) -> Self {
        #[derive(Deserialize)]
        struct Relationships<'a> {
            #[serde(borrow, default)]
            message: Option<&'a RawValue>,
        }
        #[derive(Deserialize, Default)]
        struct Attributes<'a> {
            #[serde(borrow, default)]
            name: Option<&'a RawValue>,
            #[serde(borrow, rename = "contentType", default)]
            content_type: Option<&'a RawValue>,
            #[serde(borrow, rename = "contentLength", default)]
            content_length: Option<&'a RawValue>,
            #[serde(borrow, default)]
            redacted: Option<&'a RawValue>,
        }
        let attributes = head.attributes.and_then(lenient::<Attributes<'_>>).unwrap_or_default();
        let own = links(head.links).own.unwrap_or_default();
        let message = head
            .relationships
            .and_then(|raw| lenient::<Relationships<'_>>(raw)?.message)
            .and_then(reference)
            .or_else(|| segment_after(&own, "messages"));
        Self {
            id: head.id.clone().or_else(|| segment_after(&own, "attachments")),
            message_id: message,
            name: attributes.name.and_then(lenient),
            content_type: attributes.content_type.and_then(lenient),
            content_length: attributes.content_length.and_then(lenient),
            redacted: attributes.redacted.and_then(lenient),
        }
    }
}

#[derive(Deserialize)]
struct WithAttachments<'a> {
    #[serde(borrow, default)]
    attachments: Option<&'a RawValue>,
}

/// Entries of an object in their order; names may repeat.
struct Entries<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct InOrder<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for InOrder<T> {
            type Value = Vec<(String, T)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(InOrder(std::marker::PhantomData)).map(Self)
    }
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|error| {
        Error::data("failed to read an answer of the source")
            .with_context("line", error.line())
            .with_context("column", error.column())
    })
}

fn lenient<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

fn links(raw: Option<&RawValue>) -> Links {
    raw.and_then(lenient).unwrap_or_default()
}

/// Returns the elements of an array, an object alone, or nothing.
fn items(raw: Option<&RawValue>) -> Result<Vec<&RawValue>> {
    match raw {
        None => Ok(Vec::new()),
        Some(raw) if raw.get().starts_with('[') => parse(raw.get().as_bytes()),
        Some(raw) if raw.get() == "null" => Ok(Vec::new()),
        Some(raw) => Ok(vec![raw]),
    }
}

/// Returns the id that a relationship names, in `data` or at the end of its link.
fn reference(raw: &RawValue) -> Option<String> {
    let value: Value = lenient(raw)?;
    let id = value.pointer("/data/id").and_then(Value::as_str).map(str::to_owned);
    id.or_else(|| {
        let path = value.pointer("/links/self")?.as_str()?;
        path.split('?').next()?.trim_end_matches('/').rsplit('/').next().map(str::to_owned)
    })
    .filter(|id| !id.is_empty())
}

fn attachment_ids(raw: &RawValue) -> Vec<String> {
    let ids = |item: &Value| item.get("id").and_then(Value::as_str).map(str::to_owned);
    match lenient::<Value>(raw).as_mut().and_then(|value| value.get_mut("data").map(Value::take)) {
        Some(Value::Array(items)) => items.iter().filter_map(ids).collect(),
        Some(item @ Value::Object(_)) => ids(&item).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Reads the signed links of an answer of the attachment endpoints, in the order of its attachments.
///
/// # Errors
///
/// [`Data`](crate::error::ErrorKind::Data) when the body is no such document.
pub(super) fn related_links(body: &[u8]) -> Result<Vec<Option<Zeroizing<String>>>> {
    #[derive(Deserialize)]
    struct Linked<'a> {
        #[serde(borrow, default)]
        links: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Related<'a> {
        #[serde(borrow, default)]
        related: Option<&'a RawValue>,
    }
    let document: Document<'_> = parse(body)?;
    let links = |raw: &&RawValue| {
        let related = lenient::<Related<'_>>(lenient::<Linked<'_>>(raw)?.links?)?.related?;
        lenient::<String>(related).map(Zeroizing::new)
    };
    Ok(items(document.data)?.iter().map(links).collect())
}

fn segment_after(path: &str, name: &str) -> Option<String> {
    let mut segments = path.split('?').next()?.split('/');
    segments.find(|segment| *segment == name)?;
    segments.next().filter(|segment| !segment.is_empty()).map(str::to_owned)
}

/// Cuts absolute links out of a message's attachment relationship; the rest of the text stays as it is.
fn without_signed_links(resource: &RawValue, related: Option<&RawValue>) -> String {
    let text = resource.get();
    if let Some(related) = related
        && related.get().contains("://")
        && let Some(mut value) = lenient::<Value>(related)
        && let Some((before, after)) = around(text, related.get())
    {
        drop_absolute_links(&mut value);
        return format!("{before}{value}{after}");
    }
    text.to_owned()
}

/// Splits `text` around `part`, which is a slice of it: both point into the same body.
fn around<'a>(text: &'a str, part: &str) -> Option<(&'a str, &'a str)> {
    let start = (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    Some((text.get(..start)?, text.get(start + part.len()..)?))
}

fn drop_absolute_links(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            entries.retain(|_, entry| !entry.as_str().is_some_and(|text| text.contains("://")));
            entries.values_mut().for_each(drop_absolute_links);
        }
        Value::Array(items) => {
            items.retain(|item| !item.as_str().is_some_and(|text| text.contains("://")));
            items.iter_mut().for_each(drop_absolute_links);
        }
        _ => {}
    }
}

/// Puts JSON on one line: inside of strings a line break is always escaped, so the raw ones stand between tokens.
fn one_line(mut json: String) -> String {
    if !json.contains(['\n', '\r']) {
        return json;
    }
    let line = json.replace(['\n', '\r'], " ");
    json.zeroize();
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_pass_unchanged() {
        let message = r#"{"type":"message","id":"m1","attributes":{"preview":"a\nb","n":1.10,"big":12345678901234567890123,"to":"x"}}"#;
        let page = Page::decode(format!(r#"{{"data":[{message}],"links":{{"next":null}}}}"#).as_bytes()).unwrap();
        assert_eq!(page.resources, [Resource { id: Some("m1".to_owned()), json: message.to_owned() }]);
        assert_eq!(page.next, None);
        assert!(!format!("{page:?}").contains("preview"), "{page:?}");
    }

    #[test]
    fn documents_of_every_shape_are_read() {
        for (body, resources) in [
            (r#"{"data":[]}"#, 0),
            (r#"{"data":null}"#, 0),
            (r"{}", 0),
            (r#"{"data":{"id":"a"}}"#, 1),
            (r#"{"data":[{"id":"a"},{}],"links":[],"included":null}"#, 2),
        ] {
            assert_eq!(Page::decode(body.as_bytes()).unwrap().resources.len(), resources, "{body}");
        }
        let pretty = Page::decode(b"{\"data\":{\r\n\"id\":\n\"a\"}}").unwrap();
        assert_eq!(pretty.resources[0].json, "{  \"id\": \"a\"}");
    }

    #[test]
    fn unreadable_document_is_an_error_that_repeats_no_value() {
        for body in [r#"{"data":["needle"]}"#, r#"{"data":"needle"}"#, r#"{"data":[{"id":["needle"]}]}"#, "needle", ""]
        {
            let error = Page::decode(body.as_bytes()).unwrap_err();
            assert!(!format!("{error:?}").contains("needle"), "{error:?}");
        }
    }

    #[test]
    fn attachments_are_found_wherever_they_are_named() {
        let body = r#"{"data":[
            {"type":"message","id":"m1","relationships":{"attachments":{"data":[{"type":"attachment","id":"a1"},{"type":"attachment","id":"a2"}]}}},
            {"type":"message","id":"m2","relationships":{"attachments":{"data":{"type":"attachment","id":"a3"}}}}],
            "included":[
            {"type":"attachment","id":"a1","attributes":{"name":"x.jpg","contentType":"image/jpeg","contentLength":9,"redacted":false},"links":{"related":"https://files.example/x?X-Amz-Signature=s"}},
            {"type":"attachment","attributes":{"name":null,"contentLength":"9"},"links":{"self":"/v1/messages/m2/attachments/a4?x=1"}},
            {"type":"user","id":"u1"}]}"#;
        let page = Page::decode(body.as_bytes()).unwrap();
        let found: Vec<_> = page
            .attachments
            .iter()
            .map(|file| (file.id.as_deref().unwrap(), file.message_id.as_deref().unwrap(), file.name.as_deref()))
            .collect();
        assert_eq!(found, [("a1", "m1", Some("x.jpg")), ("a4", "m2", None), ("a2", "m1", None), ("a3", "m2", None)]);
        assert_eq!(page.attachments[0].content_length, Some(9));
        assert_eq!(page.attachments[0].redacted, Some(false));

        let single = r#"{"data":[],"included":{"type":"attachment","id":"a1"}}"#;
        assert_eq!(Page::decode(single.as_bytes()).unwrap().attachments.len(), 1);
    }

    #[test]
    fn signed_links_inside_of_a_message_are_cut_and_nothing_else() {
        let message = r#"{"id":"m1","attributes":{"preview":"see https://shop.example/?X=1","n":1.10},"relationships":{"attachments":{"data":[{"id":"a1","links":{"self":"/v1/attachments/a1","related":"https://files.example/k?X-Amz-Signature=s"}}]},"org":{"links":{"self":"/v1/orgs/o"}}}}"#;
        let page = Page::decode(format!(r#"{{"data":[{message}]}}"#).as_bytes()).unwrap();
        assert_eq!(
            page.resources[0].json,
            message.replace(r#","related":"https://files.example/k?X-Amz-Signature=s""#, "")
        );
    }

    #[test]
    fn references_are_read_leniently() {
        let read = |json: &str| Resource { id: None, json: json.to_owned() }.references();
        assert_eq!(
            read(
                r#"{"attributes":{"tags":["t1",null,"t2"],"custom":{"aStr":1,"bNum":{}}},"relationships":{"customer":{"data":{"id":"c1"}}}}"#
            ),
            References {
                customer_id: Some("c1".to_owned()),
                tag_ids: vec!["t1".to_owned(), "t2".to_owned()],
                custom: vec!["aStr".to_owned(), "bNum".to_owned()],
                message_count: None,
                note_count: None,
            }
        );
        let linked = read(r#"{"relationships":{"customer":{"links":{"self":"/v1/customers/c2/"}}}}"#);
        assert_eq!(linked.customer_id.as_deref(), Some("c2"));
        for odd in [
            "{}",
            r#"{"attributes":null,"relationships":null}"#,
            r#"{"attributes":{"tags":"x","custom":[]},"relationships":{"customer":{"data":null}}}"#,
            r#"{"attributes":[],"relationships":[]}"#,
        ] {
            assert_eq!(read(odd), References::default(), "{odd}");
        }
    }
}
