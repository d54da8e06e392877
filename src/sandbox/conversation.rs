//! The JSON object of a conversation.
//!
//! Absent, null, `{}` and `[]` are mixed as real payloads mix them, and differently from record to record.

use super::dice::Dice;
use super::ids::Kind;
use super::json::{Json, instant};
use super::organisation::View;
use super::ticket::{Status, Ticket};
use super::{customer, definitions, staff, thread, words};

const DETAIL: u64 = 0x6465_7461;

impl Ticket {
    /// Writes the whole object.
    pub(super) fn write(&self, view: &View<'_>, json: &mut Json) {
        json.open().text("type", "conversation").id("id", self.id).object("attributes");
        self.write_attributes(view, json);
        json.end_object();
        self.write_relationships(view, json);
        json.object("links").link("self", "/v1/conversations/", self.id, "").end_object().end_object();
    }

    fn write_attributes(&self, view: &View<'_>, json: &mut Json) {
        let namer = &view.org().namer;
        let seed = namer.seed;
        let mut dice = Dice::new(seed, DETAIL, self.index);
        match self.external_id(seed) {
            Some(id) => json.text("externalId", &id),
            None if dice.chance(40) => json.null("externalId"),
            None => json,
        };
        match self.subject(seed) {
            Some(subject) => json.text("name", &subject),
            None => json.null("name"),
        };
        json.text("preview", &thread::message_text(namer, self, self.messages - 1));
        json.list("channels").item_text(self.channel);
        if dice.chance(8) {
            json.item_text(if self.channel == "email" { "chat" } else { "email" });
        }
        json.end_list().text("status", self.status.name());
        if self.status == Status::Open {
            json.object("open").time("statusAt", self.updated).end_object();
        }
        if self.status == Status::Snoozed {
            json.object("snooze").text("status", "scheduled").time("time", self.updated + 86_400_000);
            json.time("statusAt", self.updated).end_object();
        } else if dice.chance(10) {
            json.null("snooze");
        }
        json.int("messageCount", self.messages.into()).int("noteCount", self.notes.into());
        json.int("outboundMessageCount", self.outbound().into());
        if dice.chance(80) {
            json.int("inboundMessageCount", (self.messages - self.outbound()).into());
        }
        self.write_count(json, &mut dice, "doneCount", self.dones);
        self.write_count(json, &mut dice, "snoozeCount", self.snoozes);
        self.write_count(json, &mut dice, "reopenCount", self.reopens);
        self.write_count(json, &mut dice, "reopenFromDoneCount", self.reopens);
        json.int("satisfaction", 0);
        self.write_satisfaction(view, json);
        let modified = if self.changes > 0 { self.updated } else { self.settled - (self.settled - self.created) / 50 };
        json.time("createdAt", self.created).time("updatedAt", self.updated).time("modifiedAt", modified);
        json.time("lastActivityAt", self.updated);
        let last = self.messages - 1;
        json.time("lastMessageAt", self.sent_at(last));
        let received = self.last_inbound().filter(|_| dice.chance(60));
        if let Some(number) = received {
            json.time("lastReceivedAt", self.sent_at(number));
        }
        if dice.chance(3) {
            json.time("importedAt", self.created);
        } else if dice.chance(70) {
            json.null("importedAt");
        }
        if dice.chance(90) {
            json.flag("spam", false);
        }
        if self.channel == "chat" && self.status == Status::Done {
            json.flag("ended", true).time("endedAt", self.closed_at()).text("endedReason", "customer_ended");
            json.text("endedByType", if dice.chance(50) { "user" } else { "customer" });
        } else {
            json.flag("ended", false);
        }
        if self.deleted {
            json.flag("deleted", true);
        } else if dice.chance(15) {
            json.flag("deleted", false);
        }
        json.ids("tags", self.tags.iter().map(|tag| namer.tag(*tag)));
        json.raw("suggestedTags", "[]").raw("suggestedShortcuts", "[]").raw("predictions", "[]");
        match self.polarity {
            Some(polarity) => {
                json.object("sentiment").int("polarity", polarity).cents("confidence", dice.below(100)).end_object()
            }
            None => json.raw("sentiment", "{}"),
        };
        json.ids("assignedUsers", self.agent.map(|agent| namer.user(agent)));
        json.ids("assignedTeams", self.team.map(|team| namer.team(team)));
        json.text("direction", if self.inbound { "in" } else { "out" });
        json.text("lastMessageDirection", if self.is_outbound(last) { "out" } else { "in" });
        json.int("priority", self.priority).text("defaultLang", self.lang);
        if dice.chance(60) {
            json.text("locale", "US");
        }
        if dice.chance(50) {
            json.text("replyChannel", self.channel);
        } else {
            json.null("replyChannel");
        }
        json.int("rev", self.rev());
        self.write_messages(view, json);
        self.write_responses(view, json);
        self.write_dones(view, json);
        self.write_modifications(json);
        self.write_sla(json);
        self.write_rare(view, json);
        if dice.chance(5) {
            json.object("firstCompany").id("id", namer.id(Kind::Form, self.customer, self.created));
            json.text("name", "Kraków Trading sp. z o.o.").end_object();
        }
        definitions::write(view, "conversation", self.index, self.definitions, json, |json| {
            self.write_custom(view, json, &mut dice);
        });
    }

    fn write_count(&self, json: &mut Json, dice: &mut Dice, key: &str, value: u32) {
        match dice.below(4) {
            0 if value == 0 => {}
            1 if value == 0 && self.index.is_multiple_of(5) => {
                json.null(key);
            }
            _ => {
                json.int(key, value.into());
            }
        }
    }

    fn write_satisfaction(&self, view: &View<'_>, json: &mut Json) {
        let namer = &view.org().namer;
        let Some(satisfaction) = self.satisfaction else {
            if !self.index.is_multiple_of(3) {
                json.raw("satisfactionLevel", r#"{"sentByTeams":[],"answers":[]}"#);
            }
            return;
        };
        let sent = self.closed_at();
        json.object("satisfactionLevel").id("form", namer.id(Kind::Form, 1, namer.founded)).text("channel", "email");
        match satisfaction.rating {
            Some(rating) => {
                json.text("status", "rated").int("score", (rating >= 5).into()).int("rating", rating);
                json.id("formResponse", namer.id(Kind::Form, 100 + self.index, sent)).int("firstAnswer", rating);
            }
            None => {
                json.text("status", if self.index.is_multiple_of(2) { "offered" } else { "unresponded" });
            }
        }
        json.time("scheduledFor", sent).time("sentAt", sent).ids("sentByTeams", self.team.map(|team| namer.team(team)));
        if let Some(agent) = self.agent {
            json.id("sentBy", namer.user(agent));
        }
        json.raw("answers", "[]").time("createdAt", sent).time("updatedAt", self.settled).end_object();
    }

    fn write_messages(&self, view: &View<'_>, json: &mut Json) {
        let namer = &view.org().namer;
        let first_in = (0..self.messages).find(|number| !self.is_outbound(*number));
        let first_out = (0..self.messages).find(|number| self.is_outbound(*number));
        let last_in = self.last_inbound();
        let last_out = self.last_outbound();
        let stamp = |json: &mut Json, number: u32| {
            let sent = self.sent_at(number);
            json.id("id", self.message_id(namer, number)).time("sentAt", sent).time("createdAt", sent + 140);
        };
        if let Some(number) = first_in {
            json.object("firstMessageIn");
            stamp(json, number);
            let kind = if self.inbound { "initial-in" } else { "response-in" };
            json.text("channel", self.channel).text("directionType", kind).end_object();
        }
        if let Some(number) = first_out {
            json.object("firstMessageOut");
            stamp(json, number);
            let kind = if self.inbound { "response-out" } else { "initial-out" };
            json.text("channel", self.channel).text("directionType", kind);
            if let Some(agent) = self.agent {
                json.id("createdBy", namer.user(agent));
            }
            json.ids("createdByTeams", self.team.map(|team| namer.team(team))).end_object();
        }
        match last_in {
            Some(number) => {
                json.object("lastMessageIn");
                stamp(json, number);
                json.text("channel", self.channel).object("meta");
                json.text("from", &customer::email(namer.seed, self.customer));
                json.text("to", "support@desk.example").end_object().end_object();
            }
            None if self.index.is_multiple_of(2) => {
                json.null("lastMessageIn");
            }
            None => {
                json.raw("lastMessageIn", "{}");
            }
        }
        match last_out {
            Some(number) => {
                json.object("lastMessageOut");
                stamp(json, number);
                if let Some(agent) = self.agent {
                    json.id("createdBy", namer.user(agent));
                }
                json.end_object();
            }
            None => {
                json.raw("lastMessageOut", "{}");
            }
        }
        if !self.is_outbound(self.messages - 1) {
            json.object("lastMessageUnrespondedTo");
            stamp(json, self.messages - 1);
            json.end_object();
            if self.dones == 0 {
                json.object("lastMessageUnrespondedToSinceLastDone");
                stamp(json, self.messages - 1);
                json.end_object();
            }
        }
    }

    fn write_responses(&self, view: &View<'_>, json: &mut Json) {
        const EMPTY: &str = r#"{"createdByTeams":[],"assignedTeams":[],"assignedUsers":[]}"#;
        let namer = &view.org().namer;
        let Some(ms) = self.response_ms else {
            json.raw("firstResponse", if self.index.is_multiple_of(3) { "{}" } else { EMPTY });
            if self.index.is_multiple_of(2) {
                json.raw("lastResponse", EMPTY);
            }
            return;
        };
        let last = self.last_outbound().unwrap_or(1);
        for (key, number, ms) in [
            ("firstResponse", 1, ms),
            ("firstResponseSinceLastDone", 1, ms),
            ("lastResponse", last, if last == 1 { ms } else { self.sent_at(last) - self.sent_at(last - 1) }),
        ] {
            if key == "lastResponse" && number == 1 && self.index.is_multiple_of(2) {
                continue;
            }
            if key == "firstResponseSinceLastDone" && self.dones > 0 {
                continue;
            }
            let sent = self.sent_at(number);
            json.object(key).id("id", self.message_id(namer, number)).int("time", ms).int("businessTime", ms / 3);
            json.int("responseTime", ms).time("sentAt", sent).time("createdAt", sent + 140);
            if let Some(agent) = self.agent {
                json.id("createdBy", namer.user(agent));
            }
            json.ids("createdByTeams", self.team.map(|team| namer.team(team)));
            json.ids("assignedTeams", self.team.map(|team| namer.team(team)));
            json.ids("assignedUsers", self.agent.map(|agent| namer.user(agent))).end_object();
        }
    }

    fn write_dones(&self, view: &View<'_>, json: &mut Json) {
        let namer = &view.org().namer;
        let open_ms = self.closed_at() - self.created;
        if self.dones > 0 {
            for (key, at) in
                [("firstDone", self.closed_at()), ("lastDone", self.closed_at().max(self.updated_if_done()))]
            {
                if key == "firstDone" && !self.index.is_multiple_of(3) {
                    continue;
                }
                json.object(key).time("createdAt", at);
                match self.agent {
                    Some(agent) => json.id("createdBy", namer.user(agent)),
                    None => json.null("createdBy"),
                };
                if self.index.is_multiple_of(9) {
                    json.null("createdByTeams");
                } else {
                    json.ids("createdByTeams", self.team.map(|team| namer.team(team)));
                }
                json.int("time", open_ms).int("businessTime", open_ms / 3).int("messageCount", self.messages.into());
                json.int("noteCount", self.notes.into()).int("outboundMessageCount", self.outbound().into());
                json.object("messageCountByChannel").int(self.channel, self.messages.into()).end_object();
                json.object("outboundMessageCountByChannel");
                if self.outbound() > 0 {
                    json.int(self.channel, self.outbound().into());
                }
                json.end_object();
                json.text("lastMessageDirection", if self.is_outbound(self.messages - 1) { "out" } else { "in" });
                json.end_object();
            }
            json.object("totalDone")
                .int("time", (self.settled - self.closed_at()) / 2)
                .int("businessTime", 0)
                .end_object();
        } else {
            json.raw("totalDone", "{}");
        }
        json.object("totalOpen").int("time", open_ms).int("businessTime", open_ms / 3).end_object();
        if self.snoozes > 0 {
            json.object("totalSnooze").int("time", open_ms / 5).int("businessTime", open_ms / 15).end_object();
        } else if self.index.is_multiple_of(2) {
            json.raw("totalSnooze", "{}");
        }
    }

    fn updated_if_done(&self) -> i64 {
        if self.changes > 0 && self.status == Status::Done { self.updated } else { 0 }
    }

    fn write_modifications(&self, json: &mut Json) {
        let status_at = if self.changes > 0 { self.updated } else { self.closed_at() };
        json.object("modificationHistory")
            .time("nameAt", self.created)
            .null("priorityAt")
            .time("channelAt", self.created);
        json.time_or_null("assignedTeamsAt", self.team.map(|_| self.created + (self.settled - self.created) / 10));
        json.time_or_null("assignedUsersAt", self.agent.map(|_| self.created + (self.settled - self.created) / 9));
        json.null("brandAt")
            .time("statusAt", status_at)
            .time_or_null("tagsAt", self.tags.first().map(|_| self.closed_at()));
        json.end_object();
    }

    fn write_sla(&self, json: &mut Json) {
        let (Some(number), Some(breached)) = (self.sla, self.breached()) else {
            if self.index.is_multiple_of(4) {
                json.null("sla");
            }
            return;
        };
        let (name, target, _) = words::SLAS[number as usize];
        let due = self.created + target;
        let status = if self.status == Status::Done { "done" } else { "pending" };
        json.object("sla").text("name", name).int("version", 1).time("matchedAt", self.created);
        json.text("status", status).flag("breached", breached);
        if breached {
            json.object("breach").text("metric", "firstResponse").time("at", due).end_object();
        }
        json.object("summary");
        match self.response_ms {
            Some(ms) => json.time("satisfiedAt", self.created + ms),
            None => json,
        };
        if breached {
            json.time("firstBreachAt", due);
        }
        json.end_object().object("metrics");
        if self.inbound {
            json.object("firstResponse").time("breachAt", due);
            if let Some(ms) = self.response_ms {
                json.time("satisfiedAt", self.created + ms);
            }
            json.end_object();
        }
        json.end_object().end_object();
    }

    fn write_custom(&self, view: &View<'_>, json: &mut Json, dice: &mut Dice) {
        let namer = &view.org().namer;
        let remark = self.remark(namer.seed);
        if self.tier.is_none() && remark.is_none() && dice.chance(50) {
            if dice.chance(30) {
                json.raw("custom", "{}");
            }
            return;
        }
        json.object("custom");
        if let Some(tier) = self.tier {
            json.text("tierStr", tier);
        } else if dice.chance(30) {
            json.null("tierStr");
        }
        json.text("contactReasonTree", dice.pick(words::REASONS));
        if dice.chance(80) {
            json.int("orderNum", self.order(namer.seed) as i64);
            json.id("orderId", namer.id(Kind::Order, self.order(namer.seed), self.created));
        }
        if dice.chance(25) {
            json.cents("refundAmountNum", dice.between(199, 39_999));
        } else if dice.chance(20) {
            json.null("refundAmountNum");
        }
        if dice.chance(20) {
            let at = instant(self.created + dice.below(200) as i64 * 86_400_000);
            json.text("renewalAt", &format!("{}-05:00", &at[..19]));
        }
        if dice.chance(60) {
            json.flag("escalatedBool", dice.chance(9));
        }
        if dice.chance(30) {
            json.text("caseUrl", &format!("https://backoffice.example/cases/{}", self.order(namer.seed)));
        }
        if dice.chance(40) {
            json.text("productStr", dice.pick(words::PRODUCTS));
        }
        if let Some(remark) = remark {
            json.text("notesTxt", &remark);
        }
        if dice.chance(5) {
            // Not among the attribute definitions.
            json.int("legacyScoreNum", dice.below(1000) as i64);
        }
        json.end_object();
    }

    fn write_relationships(&self, view: &View<'_>, json: &mut Json) {
        let org = view.org();
        let namer = &org.namer;
        json.object("relationships").relation("org", "org", "/v1/orgs/", namer.org());
        json.relation("customer", "customer", "/v1/customers/", org.customer_id(self.owner));
        json.object("messages")
            .object("links")
            .link("self", "/v1/conversations/", self.id, "/messages")
            .end_object()
            .end_object();
        let author = self.agent.unwrap_or_else(staff::agents);
        json.relation(
            "createdBy",
            "user",
            "/v1/users/",
            namer.user(if self.inbound { staff::agents() } else { author }),
        );
        json.relation("modifiedBy", "user", "/v1/users/", namer.user(author));
        if let Some(queue) = self.queue {
            json.relation("queue", "queue", "/v1/routing/queues/", namer.queue(queue));
        }
        json.relation("brand", "brand", "/v1/brands/", namer.brand(self.brand));
        if let Some(sla) = self.sla {
            json.relation("sla", "sla", "/v1/slas/", namer.sla(sla));
            json.object("slaVersion").object("data").text("type", "sla_version").id("id", namer.sla_version(sla));
            json.end_object().end_object();
        }
        json.end_object();
    }
}
