//! What only a few records in a hundred carry: the attributes that a schema learns late.
//!
//! They are rolled from a sequence of their own, so that the attributes which most records have stay as they are.

use super::dice::Dice;
use super::ids::{Kind, Namer};
use super::json::Json;
use super::organisation::View;
use super::ticket::Ticket;
use super::{customer, words};

const TICKET: u64 = 0x7261_7265;
const CUSTOMER: u64 = 0x7261_7263;
const QUERY: u64 = 0x7175_6572;

const COMPANIES: &[&str] = &["Kraków Trading sp. z o.o.", "Fjord & Sønner AS", "Boulangerie de l'Étoile SARL"];

impl Ticket {
    /// Returns what the customer asked a self-service form, with personal values, where one was tried before.
    pub(super) fn deflected_query(&self, seed: u64) -> Option<String> {
        Dice::new(seed, QUERY, self.index).chance(4).then(|| {
            let (name, mail) = (customer::name(seed, self.customer), customer::email(seed, self.customer));
            format!("{name} cannot find order {}, write to {mail}", self.order(seed))
        })
    }

    /// Writes the attributes that few conversations have.
    pub(super) fn write_rare(&self, view: &View<'_>, json: &mut Json) {
        let org = view.org();
        let namer = &org.namer;
        let mut dice = Dice::new(namer.seed, TICKET, self.index);
        for key in ["pinned", "locked", "mergedTarget"] {
            match dice.below(50) {
                0 => json.flag(key, true),
                1..=4 => json.flag(key, false),
                _ => json,
            };
        }
        match dice.below(25) {
            0 => json.ids("linkedConversations", [org.ticket_id((self.index + 1) % org.tickets())]),
            1..=10 => json.raw("linkedConversations", "[]"),
            _ => json,
        };
        match dice.below(25) {
            0 => json.ids("skills", [namer.id(Kind::Form, 7, namer.founded)]),
            1..=5 => json.raw("skills", "[]"),
            _ => json,
        };
        if dice.chance(5) {
            json.text("phase", "initial");
        }
        if dice.chance(5) {
            json.text("billingStatus", "no_messages");
        }
        match dice.below(25) {
            0 => json.text("externalQueue", "amazon-connect"),
            1 => json.null("externalQueue"),
            _ => json,
        };
        if dice.chance(4) {
            self.write_assistant(view, &mut dice, json);
        }
        if dice.chance(3) {
            json.object("aiAgent").ids("automationId", [namer.id(Kind::Form, 9, namer.founded)]).end_object();
        }
        if dice.chance(4) {
            let revenue = dice.below(2) * dice.between(500, 90_000);
            json.object("attribution").cents("totalRevenue", revenue);
            json.flag("hasAttributableRevenue", revenue > 0).text("currency", "USD").end_object();
        }
        if let Some(query) = self.deflected_query(namer.seed) {
            json.object("lastDeflection").text("type", "form").text("status", "undeflected");
            json.time("deflectedAt", self.created).ids("articles", [namer.id(Kind::Form, 11, namer.founded)]);
            json.object("query").text("rawText", &query).end_object().end_object();
        }
    }

    fn write_assistant(&self, view: &View<'_>, dice: &mut Dice, json: &mut Json) {
        let namer = &view.org().namer;
        json.object("assistant").ids("assistantId", [namer.id(Kind::Form, 8, namer.founded)]);
        json.text("status", "transferred").text("type", "conversational").text("app", self.channel);
        json.text("channel", self.channel).flag("emulation", false).time("transferredAt", self.created);
        json.object("fac").flag("isFac", dice.chance(20)).raw("source", "{}").raw("reasons", "[]");
        json.raw("exclusions", "[]").time("createdAt", self.created).end_object().end_object();
    }
}

/// Writes the attributes that few customers have; `updated` is the record's own.
pub(super) fn write_customer(view: &View<'_>, index: u64, owned: &[u64], updated: i64, json: &mut Json) {
    let org = view.org();
    let seed = org.namer.seed;
    let mut dice = Dice::new(seed, CUSTOMER, index);
    match dice.below(25) {
        0 => json.text("companyName", dice.pick(COMPANIES)),
        1 | 2 => json.null("companyName"),
        _ => json,
    };
    match dice.below(25) {
        0 => json.time("importedAt", org.customer_times.created(index)),
        1..=12 => json.null("importedAt"),
        _ => json,
    };
    match (dice.below(10), customer::tier(seed, index)) {
        (0..=3, Some("vip")) => {
            let matched = org.customer_times.created(index);
            json.object("sla").text("name", words::SLAS[0].0).int("version", 1).time("matchedAt", matched);
            json.text("status", "pending").flag("breached", false).end_object()
        }
        (4, _) => json.raw("sla", "{}"),
        _ => json,
    };
    if dice.chance(30) {
        write_satisfaction(view, owned, updated, json);
    }
}

/// Writes the sum of the answered surveys of a customer's conversations.
fn write_satisfaction(view: &View<'_>, owned: &[u64], updated: i64, json: &mut Json) {
    let mut rated: Vec<(i64, i64)> = owned
        .iter()
        .map(|index| Ticket::new(view, *index))
        .filter(|ticket| !ticket.deleted)
        .filter_map(|ticket| Some((ticket.closed_at(), ticket.satisfaction?.rating?)))
        .collect();
    rated.sort_unstable();
    json.object("satisfactionLevel");
    for (key, survey) in [("firstSatisfaction", rated.first()), ("lastSatisfaction", rated.last())] {
        json.object(key);
        if let Some((at, rating)) = survey {
            json.text("status", "rated").int("rating", *rating).int("score", (*rating >= 5).into());
            json.text("channel", "email").time("sentAt", (*at).min(updated)).time("createdAt", (*at).min(updated));
        }
        json.end_object();
    }
    let count = rated.len() as u64;
    json.int("count", count as i64).int("acknowledgeCount", 0);
    let ratings: u64 = rated.iter().map(|(_, rating)| rating.unsigned_abs()).sum();
    let good = rated.iter().filter(|(_, rating)| *rating >= 5).count() as u64;
    // Without an answer there is no average.
    if let (Some(rating), Some(score)) = ((ratings * 100).checked_div(count), (good * 100).checked_div(count)) {
        json.cents("avgRating", rating).cents("avgScore", score);
    }
    json.end_object();
}

/// Tells whether message `number` of a conversation was redacted by an agent.
pub(super) fn is_redacted(namer: &Namer, ticket: &Ticket, number: u32) -> bool {
    Dice::new(namer.seed, TICKET ^ 1, namer.message_key(ticket.index, number)).chance(2)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde_json::Value;

    use super::super::SandboxSettings;
    use super::super::organisation::Organisation;
    use crate::clock::ManualClock;

    fn organisation() -> Organisation {
        let clock = Arc::new(ManualClock::new("2026-11-22T12:00:00Z".parse().unwrap()));
        Organisation::new(&SandboxSettings { tickets: 3_000, ..SandboxSettings::default() }, clock)
    }

    /// Counts how many records have a value that is not null, by attribute.
    fn filled(records: &[Value]) -> BTreeMap<&str, usize> {
        let mut filled = BTreeMap::new();
        for (key, value) in records.iter().flat_map(|record| record["attributes"].as_object().unwrap()) {
            *filled.entry(key.as_str()).or_default() += usize::from(!value.is_null());
        }
        filled
    }

    #[test]
    fn every_rare_attribute_is_on_some_records_and_not_on_most() {
        let organisation = organisation();
        let conversations: Vec<Value> = (0..3_000).map(|number| organisation.conversation(number)).collect();
        let customers: Vec<Value> = (0..1_000).map(|number| organisation.customer(number)).collect();
        let seen = filled(&conversations);
        for key in [
            "pinned",
            "locked",
            "mergedTarget",
            "linkedConversations",
            "phase",
            "billingStatus",
            "externalQueue",
            "firstResponseSinceLastDone",
            "lastMessageUnrespondedToSinceLastDone",
            "assistant",
            "aiAgent",
            "attribution",
            "lastDeflection",
            "skills",
            "importedAt",
        ] {
            assert!((20..1_500).contains(seen.get(key).unwrap_or(&0)), "{key}: {:?}", seen.get(key));
        }
        let seen = filled(&customers);
        for key in ["satisfactionLevel", "lastMessageUnrespondedTo", "companyName", "sla", "importedAt"] {
            assert!((10..500).contains(seen.get(key).unwrap_or(&0)), "{key}: {:?}", seen.get(key));
        }
        assert!(seen["lastMessageOut"] > 100 && seen["lastCustomerActivityAt"] > 100);
    }

    #[test]
    fn rare_values_agree_with_the_records_they_sum_up() {
        let organisation = organisation();
        let (mut deflected, mut redacted, mut rated) = (0, 0, 0);
        for number in 0..1_000 {
            let row = organisation.conversation(number);
            let messages = organisation.messages(number);
            if let Some(query) = row["attributes"]["lastDeflection"]["query"]["rawText"].as_str() {
                assert!(organisation.needles(number).iter().any(|needle| needle == query));
                deflected += 1;
            }
            redacted += messages.iter().filter(|message| message["attributes"]["redacted"] == true).count();
            let inbound = messages.iter().rev().find(|message| message["attributes"]["direction"] == "in");
            if let Some(received) = row["attributes"].get("lastReceivedAt") {
                assert_eq!(Some(received), inbound.map(|message| &message["attributes"]["sentAt"]));
            }
            let level = &organisation.customer(number)["attributes"]["satisfactionLevel"];
            if level["count"].as_u64() > Some(0) {
                assert!((0.0..=10.0).contains(&level["avgRating"].as_f64().unwrap()));
                assert!((0.0..=1.0).contains(&level["avgScore"].as_f64().unwrap()));
                assert_eq!(level["firstSatisfaction"]["status"], "rated");
                rated += 1;
            }
        }
        assert!(deflected > 10 && redacted > 10 && rated > 10, "{deflected} {redacted} {rated}");
    }
}
