//! Records that are wrong on purpose, and pages that belong to someone else.
//!
//! What is spoiled is only what the API sends: the organisation itself, which tests compare with, stays sound.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::PoisonError;

use serde_json::Value;

use super::IdsOnly;
use super::criteria::Context;
use super::ids::{Kind, Namer};
use super::json::Json;
use super::organisation::{Organisation, View};
use super::ticket::Ticket;
use crate::error::{Error, Result};
use crate::model::ObjectId;

/// What is wrong with a record that the API sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoil {
    /// Its id is not an ObjectId.
    BadId,
    /// It has no id.
    NoId,
    /// It is `null`, or a text where the record's number is odd.
    NotAnObject,
    /// Its `updatedAt` is not a date.
    BadUpdatedAt,
    /// It belongs to another organisation.
    ForeignOrg,
}

const NAMES: [(&str, Spoil); 5] = [
    ("bad_id", Spoil::BadId),
    ("no_id", Spoil::NoId),
    ("not_an_object", Spoil::NotAnObject),
    ("bad_updated_at", Spoil::BadUpdatedAt),
    ("foreign_org", Spoil::ForeignOrg),
];

impl FromStr for Spoil {
    type Err = Error;

    /// Reads `bad_id`, `no_id`, `not_an_object`, `bad_updated_at` or `foreign_org`.
    fn from_str(text: &str) -> Result<Self> {
        NAMES.iter().find(|(name, _)| *name == text).map(|(_, spoil)| *spoil).ok_or_else(|| {
            Error::config("unknown way to spoil a record")
                .with_context("how", text)
                .with_hint(format!("known are {}", NAMES.map(|(name, _)| name).join(", ")))
        })
    }
}

impl Spoil {
    fn apply(self, namer: &Namer, index: u64, object: &mut Value) {
        match self {
            Self::BadId => object["id"] = "not-an-object-id".into(),
            Self::NoId => {
                if let Some(object) = object.as_object_mut() {
                    object.remove("id");
                }
            }
            Self::NotAnObject if index.is_multiple_of(2) => *object = Value::Null,
            Self::NotAnObject => *object = "a text instead of a record".into(),
            Self::BadUpdatedAt => object["attributes"]["updatedAt"] = "yesterday".into(),
            Self::ForeignOrg => {
                let org = other_org(namer).to_string();
                object["relationships"]["org"]["links"]["self"] = format!("/v1/orgs/{org}").into();
                object["relationships"]["org"]["data"]["id"] = org.into();
            }
        }
    }
}

impl Organisation {
    /// Makes the API send conversations with something wrong from now on, in searches, in lists and by id.
    pub fn spoil(&self, numbers: &[u64], how: Spoil) {
        let mut changes = self.changes.write().unwrap_or_else(PoisonError::into_inner);
        changes.spoiled.extend(numbers.iter().filter(|number| **number < self.tickets()).map(|number| (*number, how)));
    }

    /// Makes the API send conversations as they are again.
    pub fn heal(&self, numbers: &[u64]) {
        let mut changes = self.changes.write().unwrap_or_else(PoisonError::into_inner);
        for number in numbers {
            changes.spoiled.remove(number);
        }
    }

    /// Returns which conversations the API sends with what wrong.
    pub fn spoiled(&self) -> BTreeMap<u64, Spoil> {
        self.changes.read().unwrap_or_else(PoisonError::into_inner).spoiled.clone()
    }
}

/// Writes a record as the API sends it.
pub(super) fn write(context: Context, view: &View<'_>, index: u64, json: &mut Json) {
    match view.spoiled(index).filter(|_| context == Context::Conversation) {
        None => context.write(view, index, json),
        Some(spoil) => {
            let mut sound = Json::with_capacity(4096);
            context.write(view, index, &mut sound);
            write_spoiled(spoil, view, index, &sound.into_bytes(), json);
        }
    }
}

/// Writes a conversation as the API sends it.
pub(super) fn write_ticket(view: &View<'_>, ticket: &Ticket, json: &mut Json) {
    match view.spoiled(ticket.index) {
        None => ticket.write(view, json),
        Some(_) => write(Context::Conversation, view, ticket.index, json),
    }
}

/// Writes the row of a search for ids only.
pub(super) fn write_id(context: Context, view: &View<'_>, index: u64, shape: IdsOnly, json: &mut Json) {
    let id = context.id(view, index);
    let spoil = view.spoiled(index).filter(|_| context == Context::Conversation);
    match (shape, spoil) {
        (IdsOnly::Objects, None) => json.open().text("type", context.name()).id("id", id).end_object(),
        (IdsOnly::Strings, None | Some(Spoil::BadUpdatedAt | Spoil::ForeignOrg)) => json.item_id(id),
        (IdsOnly::Strings, Some(Spoil::BadId)) => json.item_text("not-an-object-id"),
        (IdsOnly::Strings, Some(_)) => json.item_raw(b"null"),
        (IdsOnly::Objects, Some(Spoil::BadUpdatedAt | Spoil::ForeignOrg)) => {
            json.open().text("type", context.name()).id("id", id).end_object()
        }
        (IdsOnly::Objects, Some(spoil)) => {
            let mut sound = Json::default();
            sound.open().text("type", context.name()).id("id", id).end_object();
            write_spoiled(spoil, view, index, &sound.into_bytes(), json);
            json
        }
    };
}

fn write_spoiled(spoil: Spoil, view: &View<'_>, index: u64, sound: &[u8], json: &mut Json) {
    let mut object: Value = serde_json::from_slice(sound).unwrap_or_default();
    spoil.apply(&view.org().namer, index, &mut object);
    json.item_raw(object.to_string().as_bytes());
}

/// Returns the id of an organisation that is not this one.
fn other_org(namer: &Namer) -> ObjectId {
    namer.id(Kind::Org, 2, namer.founded)
}

/// Puts another organisation in the place of this one, everywhere in a body.
pub(super) fn abroad(namer: &Namer, body: &[u8]) -> Vec<u8> {
    let (own, other) = (namer.org().to_string(), other_org(namer).to_string());
    String::from_utf8_lossy(body).replace(&own, &other).into_bytes()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::sandbox::SandboxSettings;
    use crate::sandbox::tests::{generous, rig, text};

    async fn rows(settings: SandboxSettings, query: &str) -> Vec<Value> {
        let rig = rig(settings).await;
        let body = json!({"queryContext": "conversation", "sort": {"conversation_created_at": "asc"}});
        rig.search(query, &body).await.body["data"].as_array().unwrap().clone()
    }

    #[tokio::test]
    async fn spoiled_records_are_wrong_in_the_way_that_was_asked() {
        let bad_records = (0..).zip([Spoil::NotAnObject, Spoil::NotAnObject, Spoil::BadId, Spoil::NoId]).collect();
        let settings = || SandboxSettings { bad_records, ..generous(20) };
        let rig = rig(settings()).await;
        let id = |number| text(&rig.oracle().conversation(number), "/id").to_owned();
        rig.post("/sandbox/spoil", &json!({"ids": [id(4)], "how": "bad_updated_at"})).await;
        assert_eq!(rig.post("/sandbox/spoil", &json!({"ids": [id(5)], "how": "foreign_org"})).await.status, 200);
        assert_eq!(rig.post("/sandbox/spoil", &json!({"ids": [id(5)], "how": "sour"})).await.status, 400);
        let body = json!({"queryContext": "conversation", "sort": {"conversation_created_at": "asc"}});
        for path in ["/v1/customers/search", "/v1/conversations"] {
            let found = if path == "/v1/conversations" { rig.get(path).await } else { rig.post(path, &body).await };
            let rows = found.body["data"].as_array().unwrap().clone();
            assert_eq!(rows[0], Value::Null);
            assert!(rows[1].is_string());
            assert_eq!(rows[2]["id"], "not-an-object-id");
            assert!(rows[3].get("id").is_none() && rows[3]["attributes"]["rev"].is_i64());
            assert_eq!(rows[4]["attributes"]["updatedAt"], "yesterday");
            let org = |row: &Value| text(row, "/relationships/org/data/id").to_owned();
            assert_ne!(org(&rows[5]), org(&rows[6]));
            assert_eq!(rows[6], rig.oracle().conversation(6));
            assert_eq!(rows.len(), 20);
        }
        let one = rig.get(&format!("/v1/conversations/{}", id(4))).await.body;
        assert_eq!(one["data"]["attributes"]["updatedAt"], "yesterday");
        assert_ne!(rig.oracle().conversation(4)["attributes"]["updatedAt"], "yesterday");
        assert_eq!(rig.oracle().spoiled().len(), 6);
        rig.post("/sandbox/heal", &json!({"ids": (0..6).map(id).collect::<Vec<_>>()})).await;
        assert!(rig.oracle().spoiled().is_empty());
        assert_eq!(rig.get(&format!("/v1/conversations/{}", id(4))).await.body["data"], rig.oracle().conversation(4));
    }

    #[tokio::test]
    async fn ids_only_are_spoiled_too() {
        let bad_records = || (0..).zip([Spoil::NotAnObject, Spoil::BadUpdatedAt, Spoil::BadId, Spoil::NoId]).collect();
        let objects = rows(SandboxSettings { bad_records: bad_records(), ..generous(5) }, "idsOnly=true").await;
        let shown: Vec<bool> = objects.iter().map(|row| row["id"].as_str().is_some_and(|id| id.len() == 24)).collect();
        assert_eq!(shown, [false, true, false, false, true]);
        let ids_only = IdsOnly::Strings;
        let texts = rows(SandboxSettings { bad_records: bad_records(), ids_only, ..generous(5) }, "idsOnly=true").await;
        let shown: Vec<bool> = texts.iter().map(|row| row.as_str().is_some_and(|id| id.len() == 24)).collect();
        assert_eq!(shown, [false, true, false, false, true]);
    }

    #[tokio::test]
    async fn pages_belong_to_another_organisation_and_lead_elsewhere_where_so_set() {
        let settings = SandboxSettings {
            foreign_org: true,
            next_link_prefix: "//elsewhere.example".to_owned(),
            capped_totals: Some(70),
            largest_page_size: 30,
            largest_list_page_size: 20,
            ..generous(200)
        };
        let rig = rig(settings).await;
        let own = rig.get("/v1/orgs/current").await.body["data"]["id"].clone();
        assert_eq!(own, rig.oracle().conversation(0)["relationships"]["org"]["data"]["id"]);
        let page = rig.search("pageSize=500", &json!({"queryContext": "conversation"})).await.body;
        assert!(page["data"].as_array().unwrap().iter().all(|row| row["relationships"]["org"]["data"]["id"] != own));
        assert_eq!(text(&page, "/links/next"), "//elsewhere.example/v1/customers/search?page=2&pageSize=30");
        assert_eq!((&page["meta"]["total"], &page["meta"]["totalPages"]), (&json!(70), &json!(3)));
        let last = rig.search("page=4&pageSize=500", &json!({"queryContext": "conversation"})).await.body;
        assert_eq!(last["data"].as_array().unwrap().len(), 30);
        assert!(last["links"]["next"].is_string());
        let list = rig.get("/v1/conversations?pageSize=100").await.body;
        assert_eq!(text(&list, "/links/next"), "//elsewhere.example/v1/conversations?page=2&pageSize=20");
    }
}
