//! Customers that are merged, and conversations that vanish: changes that a client cannot see by `updated_at` alone.
//!
//! A merge gives every conversation of one customer to another and marks the first as deleted. Whether that moves the
//! `updatedAt` of the conversations is not documented, so the caller says. A hidden conversation is one that was deleted
//! for good: no search returns it, asking for it gives 404, and nothing says that it ever was.

use std::sync::PoisonError;

use super::ids::Kind;
use super::json::Json;
use super::organisation::{Changes, Organisation, State};
use super::ticket::{Status, settled_status};
use crate::model::ObjectId;

/// A merge of two customers, by number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Merge {
    number: u64,
    from: u64,
    into: u64,
    at: i64,
}

impl Merge {
    /// Tells whether a customer gave or took.
    pub(super) const fn concerns(&self, customer: u64) -> bool {
        self.from == customer || self.into == customer
    }

    pub(super) fn id(&self, org: &Organisation) -> ObjectId {
        org.namer.id(Kind::Merge, self.number, self.at)
    }

    /// Writes the whole object.
    pub(super) fn write(&self, org: &Organisation, json: &mut Json) {
        let id = self.id(org);
        json.open().text("type", "customer_merge").id("id", id).object("attributes").text("status", "success");
        json.time("createdAt", self.at).time("updatedAt", self.at + 116).end_object().object("relationships");
        json.relation("org", "org", "/v1/orgs/", org.namer.org());
        json.relation("source", "customer", "/v1/customers/", org.customer_id(self.from));
        json.relation("target", "customer", "/v1/customers/", org.customer_id(self.into));
        json.relation("createdBy", "user", "/v1/users/", org.namer.user(0)).end_object();
        json.object("links").link("self", "/v1/customers/merges/", id, "").end_object().end_object();
    }
}

impl Organisation {
    /// Merges customer `from` into customer `into`, by number, and returns the conversations that changed hands.
    ///
    /// `from` is marked as deleted, both are updated now; the conversations keep `updatedAt` and `rev` unless
    /// `moves_updated_at`. Nothing happens when either is unknown or deleted, or both are one.
    pub fn merge(&self, from: u64, into: u64, moves_updated_at: bool) -> Vec<u64> {
        let at = self.now_ms();
        let owned = self.live().owned_by(from);
        let mut guard = self.changes.write().unwrap_or_else(PoisonError::into_inner);
        let changes = &mut *guard;
        let is_there = |customer: u64| {
            let last = changes.customers.get(&customer).and_then(|states| states.last());
            customer < self.customers() && !last.is_some_and(|state| state.deleted)
        };
        if from == into || !is_there(from) || !is_there(into) {
            return Vec::new();
        }
        let definitions = changes.definitions.len();
        for index in &owned {
            changes.owners.entry(*index).or_default().push((at, into));
            if moves_updated_at {
                let states = changes.tickets.entry(*index).or_default();
                let last = states.last().copied().unwrap_or_else(|| State {
                    status: settled_status(self.namer.seed, *index, self.tickets()),
                    ..UNCHANGED
                });
                states.push(State { at, changes: last.changes + 1, definitions, ..last });
            }
        }
        touch_customer(changes, from, at, true);
        touch_customer(changes, into, at, false);
        let number = changes.merges.len() as u64;
        changes.merges.push(Merge { number, from, into, at });
        owned
    }

    /// Hides conversations: from now on no search returns them and asking for them gives 404, as if they never were.
    ///
    /// Their customers' counts follow, and with them the customers' `updatedAt`.
    pub fn hide(&self, numbers: &[u64]) {
        self.set_hidden(numbers, true);
    }

    /// Brings hidden conversations back.
    pub fn unhide(&self, numbers: &[u64]) {
        self.set_hidden(numbers, false);
    }

    /// Tells whether a conversation is hidden.
    pub fn is_hidden(&self, number: u64) -> bool {
        self.live().is_hidden(number)
    }

    /// Returns the number of the customer with this id.
    pub fn customer_index(&self, id: &str) -> Option<u64> {
        self.customer_number(ObjectId::from_hex(id.as_bytes())?)
    }

    /// Returns the number of the customer whose conversation `number` is now.
    pub fn customer_of(&self, number: u64) -> u64 {
        self.live().owner_of(number)
    }

    fn set_hidden(&self, numbers: &[u64], hidden: bool) {
        let at = self.now_ms();
        let mut owners: Vec<u64> = Vec::new();
        {
            let view = self.live();
            let known = numbers.iter().copied().filter(|number| *number < self.tickets());
            owners.extend(known.filter(|number| view.is_hidden(*number) != hidden).map(|number| view.owner_of(number)));
        }
        owners.sort_unstable();
        owners.dedup();
        let mut changes = self.changes.write().unwrap_or_else(PoisonError::into_inner);
        for number in numbers.iter().copied().filter(|number| *number < self.tickets()) {
            if hidden {
                changes.hidden.insert(number);
            } else {
                changes.hidden.remove(&number);
            }
        }
        for owner in owners {
            touch_customer(&mut changes, owner, at, false);
        }
    }
}

const UNCHANGED: State =
    State { at: 0, changes: 0, status: Status::Open, reopens: 0, dones: 0, deleted: false, definitions: 0 };

/// Updates a customer, and deletes it if asked so.
pub(super) fn touch_customer(changes: &mut Changes, customer: u64, at: i64, delete: bool) {
    let definitions = changes.definitions.len();
    let states = changes.customers.entry(customer).or_default();
    let last = states.last().copied().unwrap_or(UNCHANGED);
    states.push(State { at, changes: last.changes + 1, deleted: last.deleted || delete, definitions, ..last });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use crate::sandbox::tests::{Rig, generous, ids, rig, text};
    use crate::sandbox::{DeletedById, SandboxSettings};

    /// Returns the first customers that have at least `least` conversations each.
    fn owners(rig: &Rig, least: u64) -> Vec<(u64, String, u64)> {
        let all = (0..rig.oracle().customers()).map(|number| {
            let row = rig.oracle().customer(number);
            let count = row["attributes"]["conversationCounts"]["all"].as_u64().unwrap();
            (number, text(&row, "/id").to_owned(), count)
        });
        all.filter(|(.., count)| *count >= least).take(3).collect()
    }

    async fn customers(rig: &Rig, body: Value) -> Value {
        let mut body = body;
        body["queryContext"] = json!("customer");
        rig.search("pageSize=500", &body).await.body
    }

    #[tokio::test]
    async fn merged_customer_leaves_its_conversations_to_the_other() {
        for moves in [false, true] {
            let rig = rig(generous(600)).await;
            rig.clock.advance(Duration::from_hours(1));
            let [(from, from_id, gave), (into, into_id, had), (third, third_id, _)] =
                <[_; 3]>::try_from(owners(&rig, 2)).unwrap();
            let before: Vec<Value> = (0..600).map(|number| rig.oracle().conversation(number)).collect();
            let merge = json!({"from": from_id, "into": into_id, "moves_updated_at": moves});
            let merged = rig.post("/sandbox/merge", &merge).await.body;
            assert_eq!(merged["count"], gave);
            for id in merged["ids"].as_array().unwrap() {
                let number = rig.oracle().conversation_number(id.as_str().unwrap()).unwrap();
                assert_eq!(rig.oracle().customer_of(number), into);
                let live = rig.get(&format!("/v1/conversations/{}", id.as_str().unwrap())).await.body["data"].clone();
                assert_eq!(live, rig.oracle().conversation(number));
                assert_eq!(text(&live, "/relationships/customer/data/id"), into_id);
                let old = &before[number as usize];
                assert_eq!(live["attributes"]["rev"] != old["attributes"]["rev"], moves);
                assert_eq!(live["attributes"]["updatedAt"] != old["attributes"]["updatedAt"], moves);
                assert_eq!(live["attributes"]["status"], old["attributes"]["status"]);
            }
            let moved = json!([{"conversation_updated_at": {"gte": "2026-11-22T13:00:00Z"}}]);
            assert_eq!(rig.found(moved).await.0, if moves { gave } else { 0 });
            assert_eq!(rig.found(json!([])).await.0, 600);
            assert_eq!(rig.found(json!([{"conversation_customer_id": {"equals": into_id}}])).await.0, gave + had);
            let rest = &rig.oracle().customer(into)["attributes"];
            assert_eq!((&rest["conversationCounts"]["all"], &rest["deleted"]), (&json!(gave + had), &json!(false)));
            let gone = rig.oracle().customer(from);
            assert_eq!(gone["attributes"]["conversationCounts"]["all"], 0);
            assert_eq!(gone["attributes"]["deleted"], true);
            let changed = json!([{"customer_updated_at": {"gte": "2026-11-22T13:00:00Z"}}]);
            assert_eq!(ids(&customers(&rig, json!({"and": changed})).await), [into_id.as_str()]);
            let both = customers(&rig, json!({"and": changed, "includeDeleted": true})).await;
            assert!(both["data"].as_array().unwrap().contains(&gone));
            assert_eq!(both["meta"]["total"], 2);
            assert_eq!(rig.get("/v1/customers").await.body["meta"]["total"], rig.oracle().customers() - 1);
            assert_eq!(rig.get(&format!("/v1/customers/{from_id}")).await.status, 404);
            let owned = rig.get(&format!("/v1/customers/{into_id}/conversations")).await.body;
            assert_eq!(ids(&owned).len() as u64, gave + had);
            let merges = rig.get(&format!("/v1/customers/{into_id}/merges")).await.body;
            assert_eq!(text(&merges, "/data/0/relationships/source/data/id"), from_id);
            assert_eq!(rig.get(text(&merges, "/data/0/links/self")).await.body["data"], merges["data"][0]);
            assert_eq!(rig.get(&format!("/v1/customers/{third_id}/merges")).await.body["data"], json!([]));
            // What a customer took goes on with it.
            rig.oracle().merge(into, third, moves);
            let again = rig.oracle().customer(third);
            assert!(again["attributes"]["conversationCounts"]["all"].as_u64().unwrap() >= gave + had);
            assert_eq!(rig.oracle().merge(from, third, moves), Vec::<u64>::new());
        }
    }

    #[tokio::test]
    async fn merged_customer_shows_by_its_id_where_so_set() {
        let rig = rig(SandboxSettings { deleted_by_id: DeletedById::Shown, ..generous(100) }).await;
        rig.oracle().merge(0, 1, false);
        let id = text(&rig.oracle().customer(0), "/id").to_owned();
        assert_eq!(rig.get(&format!("/v1/customers/{id}")).await.body["data"]["attributes"]["deleted"], true);
        rig.oracle().delete(&[5]);
        let id = text(&rig.oracle().conversation(5), "/id").to_owned();
        assert_eq!(rig.get(&format!("/v1/conversations/{id}")).await.body["data"]["attributes"]["deleted"], true);
        rig.oracle().hide(&[5]);
        assert_eq!(rig.get(&format!("/v1/conversations/{id}")).await.status, 404);
    }

    #[tokio::test]
    async fn hidden_conversations_are_nowhere_until_they_are_shown_again() {
        let rig = rig(generous(300)).await;
        rig.clock.advance(Duration::from_hours(1));
        rig.oracle().touch(&[11, 12]);
        let hidden: Vec<String> =
            [3, 11, 200].iter().map(|number| text(&rig.oracle().conversation(*number), "/id").to_owned()).collect();
        let counts = |number: u64| {
            let customer = rig.oracle().customer(rig.oracle().customer_of(number));
            customer["attributes"]["conversationCounts"]["all"].as_u64().unwrap()
        };
        let before = counts(200);
        assert_eq!(rig.post("/sandbox/hide", &json!({"ids": hidden})).await.body["count"], 3);
        assert!(rig.oracle().is_hidden(11) && !rig.oracle().is_hidden(12));
        for include in [false, true] {
            let body = json!({"queryContext": "conversation", "includeDeleted": include});
            let found = rig.search("pageSize=500&idsOnly=true", &body).await.body;
            assert_eq!(found["meta"]["total"], 297);
            assert_eq!(ids(&found).len(), 297);
            assert!(!ids(&found).iter().any(|id| hidden.contains(id)));
        }
        for id in &hidden {
            assert_eq!(rig.get(&format!("/v1/conversations/{id}")).await.status, 404);
            assert_eq!(rig.get(&format!("/v1/conversations/{id}/messages")).await.status, 404);
        }
        assert_eq!(counts(200), before - 1);
        let mut listed = Vec::new();
        for page in 1..=3 {
            listed.extend(ids(&rig.get(&format!("/v1/conversations?page={page}")).await.body));
        }
        assert_eq!(listed.len(), 297);
        assert_eq!(rig.post("/sandbox/unhide", &json!({"ids": hidden})).await.status, 200);
        assert_eq!((rig.found(json!([])).await.0, counts(200)), (300, before));
    }
}
