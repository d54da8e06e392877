//! One customer: personal values, and counts that agree with the conversations.

use super::dice::Dice;
use super::json::{Json, instant};
use super::organisation::View;
use super::ticket::{Status, Ticket, settled_status};
use super::{definitions, words};

const CUSTOMER: u64 = 0x6375_7374;
const DETAIL: u64 = 0x6375_6465;

/// Returns a customer's full name.
pub(super) fn name(seed: u64, index: u64) -> String {
    let mut dice = Dice::new(seed, CUSTOMER, index);
    let first = dice.pick(words::FIRST_NAMES);
    let last = dice.pick(words::LAST_NAMES);
    // A third word keeps names apart in large organisations, as second family names do.
    format!("{first} {last} {}", dice.pick(words::LAST_NAMES))
}

/// Returns a customer's e-mail address.
pub(super) fn email(seed: u64, index: u64) -> String {
    let mut dice = Dice::new(seed, 0x6d61_696c, index);
    let word = dice.pick(&["sunny", "rider", "paper", "harbour", "fjord", "maple", "quill", "tinker"]);
    format!("{word}.{index}.{}@{}", dice.below(10_000), dice.pick(words::MAIL_HOSTS))
}

/// Returns a customer's telephone number.
pub(super) fn phone(seed: u64, index: u64) -> String {
    let mut dice = Dice::new(seed, 0x7068_6f6e, index);
    let country = dice.pick(&["+1555", "+4930", "+4822", "+3491", "+8190"]);
    format!("{country}{:07}", dice.below(10_000_000))
}

/// Returns a customer's id in the customer database; some records do not carry it.
pub(super) fn external_id(seed: u64, index: u64) -> String {
    format!("crm-{:06}-{index}", seed % 999_983)
}

/// Returns a customer's tier; some have none.
pub(super) fn tier(seed: u64, index: u64) -> Option<&'static str> {
    match Dice::new(seed, 0x7469_6572, index).below(100) {
        0..=6 => Some(words::TIERS[0]),
        7..=21 => Some(words::TIERS[1]),
        22..=46 => Some(words::TIERS[2]),
        47..=79 => Some(words::TIERS[3]),
        _ => None,
    }
}

/// Returns how many conversations of a customer are open, snoozed and done; deleted ones do not count.
pub(super) fn counts(view: &View<'_>, owned: &[u64]) -> [i64; 3] {
    let org = view.org();
    let mut counts = [0; 3];
    for index in owned {
        let status = match view.ticket_state(*index) {
            Some(state) if state.deleted => continue,
            Some(state) => state.status,
            None => settled_status(org.namer.seed, *index, org.tickets()),
        };
        counts[status as usize] += 1;
    }
    counts
}

/// Writes the whole object.
pub(super) fn write(view: &View<'_>, index: u64, json: &mut Json) {
    let org = view.org();
    let namer = &org.namer;
    let seed = namer.seed;
    let id = org.customer_id(index);
    let created = org.customer_times.created(index);
    let settled = org.customer_times.updated(org.customer_times.rank(index));
    let state = view.customer_state(index);
    let updated = state.map_or(settled, |state| state.at);
    let owned = view.owned_by(index);
    let [open, snoozed, done] = counts(view, &owned);
    let mut dice = Dice::new(seed, DETAIL, index);
    let name = name(seed, index);
    let mail = email(seed, index);

    json.open().text("type", "customer").id("id", id).object("attributes");
    json.text("name", &name).text("displayName", &name).text("displayColor", "green").text("displayIcon", "compass");
    if dice.chance(60) {
        let mut words = name.splitn(2, ' ');
        json.text("firstName", words.next().unwrap_or_default()).text("lastName", words.next().unwrap_or_default());
    }
    let external = external_id(seed, index);
    if dice.chance(70) {
        json.text("externalId", &external).list("externalIds").open().text("externalId", &external);
        json.flag("verified", true).null("externalVerified").end_object().end_list();
    } else {
        json.null("externalId").raw("externalIds", "[]");
    }
    json.raw("sharedExternalIds", "[]").null("avatarUrl").null("username").list("emails");
    json.open().text("type", "home").text("email", &mail).flag("verified", dice.chance(50)).end_object().end_list();
    json.raw("sharedEmails", "[]").list("phones");
    if dice.chance(65) {
        json.open().text("type", "mobile").text("phone", &phone(seed, index)).flag("verified", false).end_object();
    }
    json.end_list().raw("sharedPhones", "[]").list("whatsapps");
    if dice.chance(10) {
        json.open().text("phone", &format!("whatsapp:{}", phone(seed, index))).end_object();
    }
    json.end_list().raw("facebookIds", "[]").raw("instagramIds", "[]").raw("socials", "[]").raw("sharedSocials", "[]");
    json.raw("urls", "[]").list("locations");
    if dice.chance(40) {
        let address = format!("{} {}, {:05}", dice.pick(words::STREETS), dice.between(1, 200), dice.below(100_000));
        json.open().text("type", "home").text("address", &address).end_object();
    }
    json.end_list().raw("activeUsers", "[]").raw("watchers", "[]");
    if dice.chance(50) {
        json.object("recentLocation").time("updatedAt", settled).end_object();
    } else {
        json.null("recentLocation");
    }
    json.text("locale", "en_US").null("timeZone");
    json.time_or_null("birthdayAt", dice.chance(20).then_some(dice.below(1_000_000_000) as i64 * 1000));
    json.raw("gender", dice.pick(&["null", "\"m\"", "\"f\""])).text("presence", "offline");
    json.time("createdAt", created).time("updatedAt", updated).time("modifiedAt", updated);
    json.null("signedUpAt").time_or_null("lastSeenAt", dice.chance(50).then_some(settled));
    json.time("lastActivityAt", updated).text("defaultLang", dice.pick(words::LANGUAGES));
    write_last(view, &owned, updated, json);
    super::rare::write_customer(view, index, &owned, updated, json);
    json.object("conversationCounts").int("all", open + snoozed + done).int("snoozed", snoozed).int("open", open);
    json.int("done", done).end_object();
    json.ids("tags", dice.chance(15).then(|| namer.tag(dice.below(words::TAGS.len() as u64))));
    match dice.below(3) {
        0 => json.raw("sentiment", "{}"),
        1 => json.null("sentiment"),
        _ => json
            .object("sentiment")
            .int("polarity", dice.below(3) as i64 - 1)
            .cents("confidence", dice.below(100))
            .end_object(),
    };
    match (open, snoozed, done) {
        (0, 0, 0) => json.null("progressiveStatus"),
        (0, 0, _) => json.text("progressiveStatus", Status::Done.name()),
        (0, _, _) => json.text("progressiveStatus", Status::Snoozed.name()),
        _ => json.text("progressiveStatus", Status::Open.name()),
    };
    json.flag("verified", dice.chance(70)).int("rev", 3 + i64::from(state.map_or(0, |state| state.changes)));
    json.flag("deleted", state.is_some_and(|state| state.deleted));
    let known = state.map_or(0, |state| state.definitions);
    definitions::write(view, "customer", index, known, json, |json| {
        let Some(tier) = tier(seed, index) else { return };
        json.object("custom").text("tierStr", tier).cents("lifetimeValueNum", dice.between(0, 900_000));
        json.text("memberSinceAt", &format!("{}+01:00", &instant(created)[..19]))
            .flag("marketingOptInBool", dice.chance(40));
        json.end_object();
    });
    json.end_object().object("relationships").relation("org", "org", "/v1/orgs/", namer.org());
    json.object("messages").object("links").link("self", "/v1/customers/", id, "/messages").end_object().end_object();
    json.relation("createdBy", "user", "/v1/users/", namer.user(super::staff::agents()));
    if dice.chance(30) {
        json.object("shopify-orders").object("links");
        json.link("self", "/v1/customers/", id, "/klasses/shopify-order").end_object();
        json.object("meta").flag("kobject", true).end_object().end_object();
    }
    json.end_object().object("links").link("self", "/v1/customers/", id, "").end_object().end_object();
}

/// Writes what the customer's last conversation, of those that are not deleted, left.
fn write_last(view: &View<'_>, owned: &[u64], updated: i64, json: &mut Json) {
    let kept = owned.iter().rev().find(|index| !view.ticket_state(**index).is_some_and(|state| state.deleted));
    let Some(last) = kept else {
        json.raw("lastMessageIn", "{}").raw("lastConversation", r#"{"tags":[],"sentiment":{}}"#).raw("preview", "{}");
        return;
    };
    let namer = &view.org().namer;
    let ticket = Ticket::new(view, *last);
    let at = |number| ticket.sent_at(number).min(updated);
    let newest = ticket.messages - 1;
    json.object("lastMessageIn");
    if let Some(number) = ticket.last_inbound() {
        json.text("channel", ticket.channel).time("sentAt", at(number)).null("sentiment");
    }
    json.end_object();
    match ticket.last_outbound() {
        Some(number) => json.object("lastMessageOut").time("sentAt", at(number)).end_object(),
        None if last % 2 == 0 => json.raw("lastMessageOut", "{}"),
        None => json,
    };
    if let Some(number) = ticket.last_inbound() {
        json.time("lastCustomerActivityAt", at(number));
    }
    if !ticket.is_outbound(newest) {
        json.object("lastMessageUnrespondedTo").time("sentAt", at(newest)).text("channel", ticket.channel);
        json.end_object();
    }
    let sent = at(newest);
    json.time("lastMessageAt", sent).object("lastConversation").id("id", ticket.id).list("channels");
    json.item_text(ticket.channel).end_list().ids("tags", ticket.tags.iter().map(|tag| namer.tag(*tag)));
    let kind = if ticket.is_outbound(newest) { "message_out" } else { "message_in" };
    json.raw("sentiment", "{}").end_object().object("preview").time("previewAt", sent).text("type", kind);
    json.text("text", &super::thread::message_text(namer, &ticket, newest));
    json.text("subject", &ticket.subject(namer.seed).unwrap_or_default()).text("channel", ticket.channel).end_object();
}
