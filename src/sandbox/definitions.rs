//! Custom attributes that are defined, change their type or go away while the server runs.
//!
//! A record carries what was defined when it last changed: one that nobody touched since keeps its old attributes and
//! types, as in a real organisation. Values follow from the record's number.

use std::sync::PoisonError;

use serde_json::{Map, Value, json};

use super::dice::hash;
use super::ids::Namer;
use super::json::{Json, instant};
use super::organisation::{Organisation, View};
use super::staff;
use crate::error::{Error, Result};

const TYPES: [&str; 5] = ["string", "number", "boolean", "date-time", "array"];
const OBJECTS: [&str; 2] = ["conversation", "customer"];

/// A change of the definitions.
#[derive(Debug)]
pub(super) struct Definition {
    object: String,
    name: String,
    /// None where the attribute went away.
    json_type: Option<String>,
    at: i64,
}

impl Organisation {
    /// Defines a custom attribute of `conversation` or `customer`: records that change later carry a value of it.
    ///
    /// The type is `string`, `number`, `boolean`, `date-time` or `array` (of texts).
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the object or the type is unknown.
    pub fn define(&self, object: &str, name: &str, json_type: &str) -> Result<()> {
        if !TYPES.contains(&json_type) {
            return Err(Error::config("unknown type of a custom attribute")
                .with_context("type", json_type)
                .with_hint(format!("known are {}", TYPES.join(", "))));
        }
        self.push_definition(object, name, Some(json_type))
    }

    /// Changes the type of a custom attribute; records that change later carry a value of the new type.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the object or the type is unknown, or the attribute not defined.
    pub fn redefine(&self, object: &str, name: &str, json_type: &str) -> Result<()> {
        self.require_definition(object, name)?;
        self.define(object, name, json_type)
    }

    /// Marks a custom attribute as deleted; records that change later do not carry it.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the object is unknown, or the attribute not defined.
    pub fn undefine(&self, object: &str, name: &str) -> Result<()> {
        self.require_definition(object, name)?;
        self.push_definition(object, name, None)
    }

    fn require_definition(&self, object: &str, name: &str) -> Result<()> {
        let known = properties(&self.live(), object).is_some_and(|known| known["properties"].get(name).is_some());
        if known {
            return Ok(());
        }
        Err(Error::config("no such custom attribute").with_context("object", object).with_context("name", name))
    }

    fn push_definition(&self, object: &str, name: &str, json_type: Option<&str>) -> Result<()> {
        if !OBJECTS.contains(&object) {
            return Err(Error::config("custom attributes of this object cannot be defined here")
                .with_context("object", object)
                .with_hint(format!("known are {}", OBJECTS.join(", "))));
        }
        let at = self.now_ms();
        let mut changes = self.changes.write().unwrap_or_else(PoisonError::into_inner);
        changes.definitions.push(Definition {
            object: object.to_owned(),
            name: name.to_owned(),
            json_type: json_type.map(str::to_owned),
            at,
        });
        Ok(())
    }
}

/// Returns the definitions of a kind of record as they are now, with `properties` by name.
fn properties(view: &View<'_>, kind: &str) -> Option<Value> {
    let org = view.org();
    let mut object = staff::definitions(&org.namer, kind, org.start)?;
    let mut attributes = object["attributes"].take();
    for definition in view.definitions(usize::MAX).iter().filter(|definition| definition.object == kind) {
        definition.define(&org.namer, &mut attributes["properties"]);
    }
    Some(attributes)
}

/// Returns the metadata of a kind of record, or nothing for a kind that has none.
pub(super) fn metadata(view: &View<'_>, kind: &str) -> Option<Value> {
    let org = view.org();
    let mut metadata = staff::definitions(&org.namer, kind, org.start)?;
    metadata["attributes"] = properties(view, kind)?;
    Some(metadata)
}

/// Writes the custom attributes that `plain` writes, with what was defined when the record last changed.
///
/// `known` is how many changes of the definitions came before the record's last change.
pub(super) fn write(
    view: &View<'_>,
    kind: &str,
    index: u64,
    known: usize,
    json: &mut Json,
    plain: impl FnOnce(&mut Json),
) {
    let definitions = view.definitions(known);
    if definitions.is_empty() {
        return plain(json);
    }
    let mut written = Json::default();
    written.open();
    plain(&mut written);
    written.end_object();
    let written: Value = serde_json::from_slice(&written.into_bytes()).unwrap_or_default();
    let mut custom: Map<String, Value> = written["custom"].as_object().cloned().unwrap_or_default();
    for definition in definitions.iter().filter(|definition| definition.object == kind) {
        match definition.value(view.org().namer.seed, index) {
            Some(value) => custom.insert(definition.name.clone(), value),
            None => custom.remove(&definition.name),
        };
    }
    json.raw("custom", &Value::Object(custom).to_string());
}

impl Definition {
    fn define(&self, namer: &Namer, properties: &mut Value) {
        let at = instant(self.at);
        let property = &mut properties[&self.name];
        if !property.is_object() {
            *property = json!({"displayName": self.name});
        }
        property["modifiedAt"] = at.clone().into();
        property["updatedAt"] = at.clone().into();
        let Some(property) = property.as_object_mut() else { return };
        let Some(json_type) = &self.json_type else {
            property.insert("deletedAt".to_owned(), at.into());
            property.insert("deletedBy".to_owned(), namer.user(1).to_string().into());
            return;
        };
        for key in ["deletedAt", "deletedBy", "format", "enumeration", "tree", "array"] {
            property.remove(key);
        }
        let (json_type, more) = match json_type.as_str() {
            "date-time" => ("string", Some(("format", json!("date-time")))),
            "array" => ("string", Some(("array", json!(true)))),
            other => (other, None),
        };
        property.insert("type".to_owned(), json_type.into());
        if let Some((key, value)) = more {
            property.insert(key.to_owned(), value);
        }
    }

    fn value(&self, seed: u64, index: u64) -> Option<Value> {
        let roll = hash(seed, 0x6465_6669, index);
        Some(match self.json_type.as_deref()? {
            "number" => json!(roll % 1000),
            "boolean" => json!(roll.is_multiple_of(2)),
            "date-time" => json!(instant((roll % 1_700_000_000_000) as i64)),
            "array" => json!(["first", format!("second {}", roll % 10)]),
            _ => json!(format!("value {}", roll % 1000)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use crate::error::ErrorKind;
    use crate::sandbox::tests::{generous, rig};

    #[tokio::test]
    async fn records_carry_what_was_defined_when_they_last_changed() {
        let rig = rig(generous(60)).await;
        rig.clock.advance(Duration::from_hours(1));
        let oracle = rig.oracle();
        let custom = |number: u64, name: &str| oracle.conversation(number)["attributes"]["custom"][name].clone();
        oracle.touch(&[1]);
        let define = json!({"object": "conversation", "name": "moodNum", "type": "number"});
        assert_eq!(rig.post("/sandbox/define", &define).await.status, 200);
        oracle.touch(&[2, 3]);
        assert_eq!((custom(1, "moodNum"), custom(9, "moodNum")), (Value::Null, Value::Null));
        assert!(custom(2, "moodNum").is_u64());
        let owner = oracle.customer_of(2);
        assert!(oracle.customer(owner)["attributes"]["custom"]["moodNum"].is_null());
        oracle.redefine("conversation", "moodNum", "string").unwrap();
        oracle.redefine("conversation", "orderNum", "string").unwrap();
        oracle.define("customer", "sinceAt", "date-time").unwrap();
        oracle.touch(&[3, 4]);
        assert!(custom(2, "moodNum").is_u64() && custom(3, "moodNum").is_string() && custom(4, "orderNum").is_string());
        let owner = oracle.customer(oracle.customer_of(3));
        assert!(owner["attributes"]["custom"]["sinceAt"].is_string());
        assert_eq!(rig.post("/sandbox/undefine", &define).await.status, 200);
        oracle.touch(&[3]);
        assert!(custom(3, "moodNum").is_null() && custom(4, "moodNum").is_string());
        let id = oracle.conversation(4)["id"].as_str().unwrap().to_owned();
        assert_eq!(rig.get(&format!("/v1/conversations/{id}")).await.body["data"], oracle.conversation(4));
        let properties = rig.get("/v1/metadata/conversation").await.body["data"]["attributes"]["properties"].clone();
        assert_eq!(properties["moodNum"]["deletedAt"], "2026-11-22T13:00:00.000Z");
        assert_eq!(
            (&properties["moodNum"]["type"], &properties["orderNum"]["type"]),
            (&json!("string"), &json!("string"))
        );
        assert_eq!(properties["productStr"]["type"], "string");
        let customer = rig.get("/v1/metadata/customer").await.body["data"]["attributes"]["properties"].clone();
        assert_eq!(customer["sinceAt"]["format"], "date-time");
    }

    #[tokio::test]
    async fn wrong_definitions_are_refused() {
        let rig = rig(generous(10)).await;
        for (object, name, json_type) in
            [("kitten", "aStr", "string"), ("conversation", "aStr", "blob"), ("customer", "newNum", "number")]
        {
            let refused = rig.oracle().redefine(object, name, json_type).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Config);
            let body = json!({"object": object, "name": name, "type": json_type});
            assert_eq!(rig.post("/sandbox/redefine", &body).await.status, 400);
        }
        assert!(rig.oracle().define("conversation", "aStr", "blob").is_err());
        assert!(rig.oracle().define("kitten", "aStr", "string").is_err());
        assert_eq!(rig.post("/sandbox/define", &json!({"object": "customer"})).await.status, 400);
    }
}
