//! A ticket's details as the policy lets them be shown, before anything of them is formatted.
//!
//! | part | what is shown |
//! |---|---|
//! | conversation, customer, messages, notes, events | what [`Redaction`] makes of them |
//! | attachments | ids, sizes and media types; names scrubbed |
//! | tags | unchanged: they are the organisation's own words |
//! | attributes | of the definitions: name, type, format, and whether there are several values |
//!
//! A record of which nothing can be shown, because it is not read as what it should be, is left out, and its part has an
//! error of kind `unreadable`: a gap that nobody is told of would read as the whole.

use std::sync::Arc;

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::detail::{Detail, Failure};
use super::page::{Attachment, Resource};
use super::parts::Part;
use crate::model::ObjectId;
use crate::policy::Redaction;

/// What of a definition says nothing about a person.
const OF_DEFINITIONS: [&str; 5] = ["type", "format", "displayName", "multi", "array"];

impl Detail {
    /// Redacts everything that was received, and says so.
    pub fn redact(&mut self, redaction: &Redaction) {
        let definitions = self.attributes.take();
        let defined = definitions.as_deref().unwrap_or_default();
        let sensitive: Vec<&str> =
            defined.iter().filter(|(_, json)| is_sensitive(json)).map(|(name, _)| name.as_str()).collect();
        let mut unreadable = Vec::new();
        if let Some(conversation) = self.conversation.take() {
            self.conversation = redacted(&conversation, |json| redaction.conversation(json, &sensitive)).map(Arc::new);
            unreadable.extend(self.conversation.is_none().then_some(Part::Conversation));
        }
        if let Some(customer) = self.customer.take() {
            self.customer = redacted(&customer, |json| redaction.customer(json)).map(Arc::new);
            unreadable.extend(self.customer.is_none().then_some(Part::Customer));
        }
        let mut list = |part, list: &mut Option<Vec<Resource>>, redact: &dyn Fn(&str) -> Option<String>| {
            let Some(received) = list.take() else { return };
            let shown: Vec<Resource> = received.iter().filter_map(|resource| redacted(resource, redact)).collect();
            if shown.len() < received.len() {
                unreadable.push(part);
            }
            *list = Some(shown);
        };
        list(Part::Messages, &mut self.messages, &|json| redaction.message(json));
        list(Part::Notes, &mut self.notes, &|json| redaction.note(json));
        list(Part::Events, &mut self.events, &|json| redaction.event(json, &sensitive));
        for file in self.attachments.iter_mut().flatten() {
            redact_attachment(file, redaction);
        }
        self.attributes = definitions
            .as_ref()
            .map(|list| list.iter().map(|(name, json)| (name.clone(), Arc::from(definition(json)))).collect());
        for part in unreadable {
            self.fail(part, Failure::Unreadable);
        }
        self.is_redacted = true;
    }
}

fn redacted(resource: &Resource, redact: impl Fn(&str) -> Option<String>) -> Option<Resource> {
    let id = resource.id.as_deref().and_then(id_of);
    Some(Resource { id, json: redact(&resource.json)? })
}

fn id_of(id: &str) -> Option<String> {
    ObjectId::from_hex(id.as_bytes()).map(|id| id.to_string())
}

fn redact_attachment(file: &mut Attachment, redaction: &Redaction) {
    file.id = file.id.as_deref().and_then(id_of);
    file.message_id = file.message_id.as_deref().and_then(id_of);
    let name = Zeroizing::new(file.name.take());
    file.name = name.as_deref().map(|name| redaction.text(name));
    file.content_type = file.content_type.take().and_then(|content_type| media_type(&content_type));
}

/// Returns a media type without its parameters, which may have a file's name.
fn media_type(text: &str) -> Option<String> {
    let essence = text.split(';').next()?.trim();
    let (kind, form) = essence.split_once('/')?;
    let is_token = |part: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-' | b'_');
        (1..=100).contains(&part.len()) && part.bytes().all(is_plain)
    };
    (is_token(kind) && is_token(form)).then(|| essence.to_owned())
}

/// Tells whether a definition marks its attribute sensitive; a mark of an unknown form is taken as set.
fn is_sensitive(json: &str) -> bool {
    let Ok(Value::Object(definition)) = serde_json::from_str(json) else { return true };
    !matches!(definition.get("hasSensitiveAttributes"), None | Some(Value::Null | Value::Bool(false)))
}

fn definition(json: &str) -> String {
    let Ok(Value::Object(mut definition)) = serde_json::from_str(json) else { return "{}".to_owned() };
    let kept = OF_DEFINITIONS.into_iter().filter_map(|key| {
        let value = definition.remove(key).filter(|value| value.is_string() || value.is_boolean())?;
        Some((key.to_owned(), value))
    });
    Value::Object(kept.collect::<Map<_, _>>()).to_string()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::super::{PartError, Parts};
    use super::*;
    use crate::policy::{Definitions, Policy};
    use crate::schema::Schemas;
    use crate::secret::{PseudonymKey, PseudonymKeys, SecretKey};

    const ID: &str = "58228e05d4e96711004eccb7";
    const FILE: &str = "57bb5d2e32e83a130052e94f";

    fn redaction() -> Redaction {
        let key = Arc::new(PseudonymKey { version: 1, key: SecretKey::new([7; 32]) });
        let policy = Policy::compile(&Schemas::builtin().unwrap()).unwrap();
        Redaction::try_new(&policy, &Definitions::default(), &PseudonymKeys::try_new([key]).unwrap()).unwrap()
    }

    fn resource(json: &Value) -> Resource {
        Resource { id: json["id"].as_str().map(str::to_owned), json: json.to_string() }
    }

    #[test]
    fn every_part_is_redacted_and_the_line_says_so() {
        let mut detail = Detail::new(ID.parse().unwrap());
        let conversation =
            json!({"id": ID, "attributes": {"name": "needle", "status": "open", "custom": {"aStr": "needle"}}});
        detail.conversation = Some(Arc::new(resource(&conversation)));
        detail.customer = Some(Arc::new(resource(&json!({"id": "needle", "attributes": {"name": "needle"}}))));
        let message = json!({"type": "message", "id": ID, "attributes": {"preview": "ask needle@example.com"}});
        detail.messages = Some(vec![resource(&message), resource(&json!("needle"))]);
        detail.notes = Some(Vec::new());
        detail.events = Some(vec![resource(&json!({"id": ID, "attributes": {"name": "needle needle"}}))]);
        detail.attachments = Some(vec![Attachment {
            id: Some(FILE.to_owned()),
            message_id: Some("needle".to_owned()),
            name: Some("needle@example.com.pdf".to_owned()),
            content_type: Some("application/pdf; name=needle.pdf".to_owned()),
            content_length: Some(7),
            redacted: Some(false),
        }]);
        let definition = r#"{"type":"string","displayName":"A","enumeration":["needle"],"modifiedBy":"needle"}"#;
        detail.attributes = Some(vec![("aStr".to_owned(), Arc::from(definition))]);

        detail.redact(&redaction());
        let mut line = String::new();
        detail.write_line(Parts::ALL, Timestamp::UNIX_EPOCH, &mut line);
        assert!(!line.contains("needle"), "{line}");
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["redacted"], true);
        assert_eq!(line["conversation"]["attributes"], json!({"status": "open"}));
        assert_eq!(line["customer"], Value::Null);
        assert_eq!(line["messages"][0]["attributes"]["preview"], "ask [email]");
        assert_eq!(line["attributes"], json!({"aStr": {"type": "string", "displayName": "A"}}));
        let file = &line["attachments"][0];
        assert_eq!((&file["id"], &file["content_type"]), (&json!(FILE), &json!("application/pdf")));
        assert_eq!((&file["message_id"], &file["name"]), (&Value::Null, &json!("[email]")));
        // What cannot be shown is told: half a list must not read as the whole.
        let failed: Vec<_> = detail.errors.iter().map(|PartError { part, failure }| (*part, failure.kind())).collect();
        assert_eq!(failed, [(Part::Customer, "unreadable"), (Part::Messages, "unreadable")]);
    }

    #[test]
    fn part_that_was_not_received_stays_what_it_is() {
        let mut detail = Detail::new(ID.parse().unwrap());
        detail.fail(Part::Conversation, Failure::Gone);
        detail.redact(&redaction());
        assert_eq!(detail.errors.len(), 1);
        let parts = [&detail.messages, &detail.notes, &detail.events];
        assert!(detail.conversation.is_none() && detail.customer.is_none() && parts.iter().all(|part| part.is_none()));
        assert!(detail.attachments.is_none() && detail.attributes.is_none());
    }
}
