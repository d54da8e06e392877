//! The small collections: users, teams, tags, queues, brands, SLAs, business schedules, and the definitions of custom attributes.
//!
//! They are few, so they are made once at the start, as JSON text, and served from there.

use serde_json::{Value, json};

use super::dice::Dice;
use super::ids::{Kind, Namer};
use super::json::{Json, instant};
use super::{schedules, words};
use crate::model::ObjectId;

const USERS: u64 = 40;
const MACHINES: u64 = 2;
const DAY_MS: i64 = 86_400_000;

/// A record of a small collection: its id and its JSON object.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: ObjectId,
    pub(super) json: Vec<u8>,
    pub(super) deleted: bool,
}

/// Every small collection.
#[derive(Debug)]
pub(super) struct Staff {
    pub(super) users: Vec<Record>,
    pub(super) teams: Vec<Record>,
    pub(super) tags: Vec<Record>,
    pub(super) queues: Vec<Record>,
    pub(super) brands: Vec<Record>,
    pub(super) slas: Vec<Record>,
    pub(super) sla_versions: Vec<Record>,
    pub(super) schedules: Vec<Record>,
    pub(super) holidays: Vec<Record>,
    /// Full names of the users, in the order of `users`.
    pub(super) user_names: Vec<String>,
    /// Numbers of the users of each team.
    pub(super) members: Vec<Vec<u64>>,
}

impl Staff {
    /// Hires everyone; the first user is the person who logs in.
    pub(super) fn new(namer: &Namer, login_email: &str) -> Self {
        let founded = namer.founded;
        let members: Vec<Vec<u64>> =
            (0..words::TEAMS.len() as u64).map(|team| (0..USERS).filter(|user| user % 6 == team).collect()).collect();
        let mut user_names = Vec::new();
        let users = (0..USERS + MACHINES)
            .map(|number| {
                let name =
                    if number < USERS { agent_name(namer.seed, number) } else { format!("Import Robot {number}") };
                let record = user(namer, number, &name, login_email, founded);
                user_names.push(name);
                record
            })
            .collect();
        let teams = (0..words::TEAMS.len() as u64).map(|number| team(namer, number, &members, founded)).collect();
        let tags = (0..words::TAGS.len() as u64).map(|number| tag(namer, number, founded)).collect();
        let queues = named(namer, Kind::Queue, "queue", "/v1/routing/queues/", words::QUEUES, founded);
        let brands = named(namer, Kind::Brand, "brand", "/v1/brands/", words::BRANDS, founded);
        let slas = (0..words::SLAS.len() as u64).map(|number| sla(namer, number, founded)).collect();
        let sla_versions = (0..words::SLAS.len() as u64).map(|number| sla_version(namer, number, founded)).collect();
        let (schedules, holidays) = schedules::make(namer, founded);
        Self { users, teams, tags, queues, brands, slas, sla_versions, schedules, holidays, user_names, members }
    }
}

/// Returns how many of the users are people.
pub(super) const fn agents() -> u64 {
    USERS
}

fn agent_name(seed: u64, number: u64) -> String {
    let mut dice = Dice::new(seed, 0x6167_656e, number);
    format!("{} {}-{}", dice.pick(words::FIRST_NAMES), dice.pick(words::LAST_NAMES), dice.pick(words::LAST_NAMES))
}

/// Closes the attributes and the object of a record.
pub(super) fn finish(json: &mut Json, namer: &Namer, prefix: &str, id: ObjectId) -> Record {
    json.end_object().object("relationships");
    json.relation("org", "org", "/v1/orgs/", namer.org());
    json.end_object().object("links").link("self", prefix, id, "").end_object().end_object();
    Record { id, json: std::mem::take(json).into_bytes(), deleted: false }
}

/// Opens a record and its attributes.
pub(super) fn begin(kind: &str, id: ObjectId) -> Json {
    let mut json = Json::with_capacity(1024);
    json.open().text("type", kind).id("id", id).object("attributes");
    json
}

fn user(namer: &Namer, number: u64, name: &str, login_email: &str, founded: i64) -> Record {
    let created = founded + number as i64 * 9 * DAY_MS + 4_711;
    let id = namer.user(number);
    let person = number < USERS;
    let mut json = begin("user", id);
    json.text("name", name);
    if number % 7 == 3 {
        json.null("displayName");
    } else {
        json.text("displayName", name.split(' ').next().unwrap_or(name));
    }
    json.text("userType", if person { "user" } else { "machine" });
    if number == 0 {
        // The person who logs in.
        json.text("email", login_email);
    } else {
        json.text("email", &format!("agent{number}.{}@desk.example", namer.seed % 1000));
    }
    if person {
        json.text("mobile", &format!("+1555010{:04}", 1000 + number));
    } else {
        json.null("mobile");
    }
    json.raw("emailSignature", "null").flag("isEmailValid", true).text("verifiedEmailStatus", "verified");
    json.time_or_null("emailVerifiedAt", person.then_some(created + DAY_MS));
    json.object("password").flag("allowNew", false).flag("forceNew", false).time("updatedAt", created).end_object();
    json.list("roles").item_text("org.user").end_list().list("roleGroups").end_list();
    json.time_or_null("mostRecentLoginAt", person.then_some(created + 400 * DAY_MS)).null("avatarUrl");
    json.time("createdAt", created)
        .time("updatedAt", created + 300 * DAY_MS)
        .time("modifiedAt", created + 300 * DAY_MS);
    let deleted = number % 13 == 12;
    json.time_or_null("deletedAt", deleted.then_some(created + 300 * DAY_MS));
    Record { deleted, ..finish(&mut json, namer, "/v1/users/", id) }
}

fn team(namer: &Namer, number: u64, members: &[Vec<u64>], founded: i64) -> Record {
    let created = founded + number as i64 * DAY_MS;
    let id = namer.team(number);
    let mut json = begin("team", id);
    let name = words::TEAMS[number as usize];
    json.text("name", name).text("displayName", name).text("icon", "rocket");
    json.ids("members", members[number as usize].iter().map(|user| namer.user(*user)));
    json.list("roleGroups").end_list().flag("deleted", false).null("deletedAt");
    json.time("createdAt", created).time("updatedAt", created + DAY_MS).time("modifiedAt", created + DAY_MS);
    finish(&mut json, namer, "/v1/teams/", id)
}

fn tag(namer: &Namer, number: u64, founded: i64) -> Record {
    let created = founded + number as i64 * 3 * DAY_MS;
    let id = namer.tag(number);
    let deleted = number + 1 == words::TAGS.len() as u64;
    let mut json = begin("tag", id);
    json.text("name", words::TAGS[number as usize])
        .text("color", ["red", "blue", "green", "yellow"][number as usize % 4]);
    json.flag("deleted", deleted).time_or_null("deletedAt", deleted.then_some(created + 90 * DAY_MS));
    json.time("createdAt", created).time("updatedAt", created + 90 * DAY_MS).time("modifiedAt", created + 90 * DAY_MS);
    Record { deleted, ..finish(&mut json, namer, "/v1/tags/", id) }
}

fn named(namer: &Namer, kind: Kind, word: &str, prefix: &str, names: &[&str], founded: i64) -> Vec<Record> {
    (0_u64..)
        .zip(names)
        .map(|(number, name)| {
            let created = founded + number as i64 * 5 * DAY_MS;
            let id = if kind == Kind::Brand { namer.brand(number) } else { namer.queue(number) };
            let mut json = begin(word, id);
            json.text("name", name);
            if kind == Kind::Brand {
                json.flag("default", number == 0).null("iconUrl");
            } else {
                json.text("displayName", name).text("description", "").int("priority", 1 + number as i64 % 5);
            }
            json.time("createdAt", created).time("updatedAt", created + DAY_MS);
            if number > 0 {
                json.time("modifiedAt", created + DAY_MS);
            }
            finish(&mut json, namer, prefix, id)
        })
        .collect()
}

fn sla(namer: &Namer, number: u64, founded: i64) -> Record {
    let id = namer.sla(number);
    let mut json = begin("sla", id);
    json.text("name", words::SLAS[number as usize].0).int("currentVersion", 1).time("createdAt", founded);
    json.time("updatedAt", founded + DAY_MS).end_object().object("relationships");
    json.relation("org", "org", "/v1/orgs/", namer.org());
    json.object("versions").raw("data", &format!(r#"[{{"type":"sla_version","id":"{}"}}]"#, namer.sla_version(number)));
    json.end_object();
    json.end_object().object("links").link("self", "/v1/slas/", id, "").end_object().end_object();
    Record { id, json: json.into_bytes(), deleted: false }
}

fn sla_version(namer: &Namer, number: u64, founded: i64) -> Record {
    let id = namer.sla_version(number);
    let (name, first_ms, longest_ms) = words::SLAS[number as usize];
    let mut json = begin("sla_version", id);
    json.text("name", name).text("description", "").int("version", 1).text("hours", "calendar").object("metrics");
    for (metric, ms) in [("firstResponse", first_ms), ("longestUnrespondedMessage", longest_ms)] {
        json.object(metric).flag("enabled", true).object("times");
        for priority in ["1", "2", "3", "4", "5"] {
            json.int(priority, ms);
        }
        json.end_object().end_object();
    }
    json.end_object().raw("criteria", r#"{"and":[]}"#).time("createdAt", founded).end_object();
    json.object("relationships").relation("org", "org", "/v1/orgs/", namer.org());
    json.relation("sla", "sla", "/v1/slas/", namer.sla(number)).end_object().end_object();
    Record { id, json: json.into_bytes(), deleted: false }
}

/// Returns the definitions of custom attributes of a kind of record, or nothing for a kind that has none.
pub(super) fn definitions(namer: &Namer, kind: &str, start: i64) -> Option<Value> {
    let changed = instant(start - 300 * DAY_MS);
    let plain =
        |name: &str, of: &str| json!({"type": of, "displayName": name, "modifiedAt": changed, "updatedAt": changed});
    let properties = match kind {
        "conversation" => json!({
            "tierStr": {"type": "string", "displayName": "Tier", "enumeration": words::TIERS, "modifiedAt": changed,
                "updatedAt": changed, "modifiedBy": namer.user(0).to_string()},
            "contactReasonTree": {"type": "string", "displayName": "Contact reason", "tree": {"children": []},
                "modifiedAt": changed, "updatedAt": changed},
            "orderNum": plain("Order number", "number"),
            "refundAmountNum": plain("Refund", "number"),
            "renewalAt": {"type": "string", "format": "date-time", "displayName": "Renewal"},
            "escalatedBool": plain("Escalated", "boolean"),
            "caseUrl": plain("Case in the back office", "string"),
            "orderId": {"type": "string", "target": "kobject.order", "multi": false, "displayName": "Order"},
            "notesTxt": {"type": "string", "displayName": "Remarks", "hasSensitiveAttributes": true},
            "productStr": plain("Product", "string"),
            "oldRegionStr": {"type": "string", "displayName": "Region (old)", "deletedAt": changed,
                "deletedBy": namer.user(1).to_string()},
        }),
        "customer" => json!({
            "tierStr": plain("Tier", "string"),
            "lifetimeValueNum": plain("Lifetime value", "number"),
            "memberSinceAt": {"type": "string", "format": "date-time", "displayName": "Member since"},
            "marketingOptInBool": plain("Marketing", "boolean"),
        }),
        "company" | "message" => json!({}),
        _ => return None,
    };
    let org = namer.org().to_string();
    Some(json!({
        "type": "metadata", "id": kind, "attributes": {"properties": properties},
        "relationships": {"org": {"links": {"self": format!("/v1/orgs/{org}")}, "data": {"type": "org", "id": org}}},
        "links": {"self": format!("/v1/metadata/{kind}")},
    }))
}
