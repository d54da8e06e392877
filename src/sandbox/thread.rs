//! What hangs on a conversation: messages, notes and attachments.

use super::customer;
use super::dice::{Dice, hash};
use super::ids::{Kind, Namer};
use super::json::Json;
use super::organisation::View;
use super::ticket::Ticket;
use super::{rare, staff, words};
use crate::model::ObjectId;

/// A file on a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) id: ObjectId,
    pub(super) message: ObjectId,
    pub(super) name: String,
    pub(super) content_type: &'static str,
    pub(super) length: u64,
    pub(super) redacted: bool,
}

impl Attachment {
    /// Returns the path of the file in the bucket.
    pub(super) fn object_path(&self, org: ObjectId) -> String {
        format!("/kustomer-prod1-attachments/attachments/{org}/{}-{}", self.id, self.name)
    }

    /// Returns what decides the file's bytes, see [`content`].
    pub(super) fn seed(&self) -> u64 {
        hash(0, 0x6669_6c65, self.length)
    }

    /// Writes the object, with its id or (as lists of a conversation do) without.
    pub(super) fn write(&self, namer: &Namer, with_id: bool, signed_link: &str, json: &mut Json) {
        json.open().text("type", "attachment");
        if with_id {
            json.id("id", self.id);
        }
        json.object("attributes").text("name", &self.name).text("contentType", self.content_type);
        json.int("contentLength", self.length as i64).flag("redacted", self.redacted).end_object();
        json.object("relationships").relation("org", "org", "/v1/orgs/", namer.org());
        json.relation("message", "message", "/v1/messages/", self.message).end_object();
        json.object("links").link("self", &format!("/v1/messages/{}/attachments/", self.message), self.id, "");
        json.text("related", signed_link).end_object().end_object();
    }
}

/// Returns the bytes of a file from one place to another, which are the same each time.
pub(super) fn content(seed: u64, from: u64, end: u64) -> Vec<u8> {
    (from / 8..end.div_ceil(8))
        .flat_map(|word| hash(seed, 1, word).to_be_bytes())
        .skip((from % 8) as usize)
        .take((end - from) as usize)
        .collect()
}

/// Returns the attachments of message `number`.
pub(super) fn attachments(namer: &Namer, ticket: &Ticket, number: u32) -> Vec<Attachment> {
    let mut dice = Dice::new(namer.seed, 0x6174_7461, namer.message_key(ticket.index, number));
    let rolled = match dice.below(100) {
        0..=15 => 1,
        16..=20 => 2,
        _ => 0,
    };
    let count = namer.thread.map_or(rolled, |thread| {
        u64::from(thread.attachments / thread.messages + u32::from(number < thread.attachments % thread.messages))
    });
    (0..count)
        .map(|place| {
            let (ending, content_type) =
                dice.pick(&[("jpg", "image/jpeg"), ("png", "image/png"), ("pdf", "application/pdf")]);
            let key = namer.file_key(ticket.index, number, place);
            Attachment {
                id: namer.id(Kind::Attachment, key, ticket.sent_at(number)),
                message: ticket.message_id(namer, number),
                name: format!("receipt-{}-{place}.{ending}", ticket.order(namer.seed)),
                content_type,
                length: namer.attachment_bytes.unwrap_or(dice.between(200, 40_000)),
                redacted: dice.chance(3),
            }
        })
        .collect()
}

/// Returns the conversation and the place in it of a message or (`Kind::Attachment`) of the message of an attachment.
pub(super) fn locate(view: &View<'_>, kind: Kind, id: ObjectId) -> Option<(Ticket, u32)> {
    let org = view.org();
    let key = org.namer.number(kind, id)?;
    let key = if kind == Kind::Attachment { org.namer.message_of_file(key) } else { key };
    let (index, number) = org.namer.message_place(key);
    if index >= org.tickets() {
        return None;
    }
    let ticket = Ticket::new(view, index);
    (number < ticket.messages && !ticket.is_gone()).then_some((ticket, number))
}

/// Returns the conversation and the place in it of a note.
pub(super) fn locate_note(view: &View<'_>, id: ObjectId) -> Option<(Ticket, u32)> {
    let org = view.org();
    let key = org.namer.number(Kind::Note, id)?;
    let (index, number) = org.namer.note_place(key);
    if index >= org.tickets() {
        return None;
    }
    let ticket = Ticket::new(view, index);
    let known = number < ticket.notes && !ticket.is_gone() && note_id(&org.namer, &ticket, number) == id;
    known.then_some((ticket, number))
}

fn note_at(ticket: &Ticket, number: u32) -> i64 {
    ticket.created + (ticket.settled - ticket.created) * i64::from(number + 1) / i64::from(ticket.notes.max(3) + 1)
}

fn note_id(namer: &Namer, ticket: &Ticket, number: u32) -> ObjectId {
    namer.id(Kind::Note, namer.note_key(ticket.index, number), note_at(ticket, number))
}

/// Returns the text of message `number`, with personal values in some.
pub(super) fn message_text(namer: &Namer, ticket: &Ticket, number: u32) -> String {
    let mut dice = Dice::new(namer.seed, 0x7465_7874, namer.message_key(ticket.index, number));
    let name = customer::name(namer.seed, ticket.customer);
    if ticket.is_outbound(number) {
        return format!("Dear {name},\n{} (order {})", dice.pick(words::ANSWERS), ticket.order(namer.seed));
    }
    let opening = dice.pick(words::OPENINGS);
    match dice.below(4) {
        0 => format!("{opening} My card 4111 1111 1111 {:04} was charged twice. {name}", dice.below(10_000)),
        1 => format!("{opening} Call me at {}, {name}", customer::phone(namer.seed, ticket.customer)),
        2 => format!("{opening}\nWrite to {}", customer::email(namer.seed, ticket.customer)),
        _ => format!("{opening} Order {} – {name}", ticket.order(namer.seed)),
    }
}

/// Writes message `number`; `include` names its attachments among the relationships.
pub(super) fn write_message(view: &View<'_>, ticket: &Ticket, number: u32, include: bool, json: &mut Json) {
    let org = view.org();
    let namer = &org.namer;
    let seed = namer.seed;
    let mut dice = Dice::new(seed, 0x6d65_7373, namer.message_key(ticket.index, number));
    let id = ticket.message_id(namer, number);
    let outbound = ticket.is_outbound(number);
    let sent = ticket.sent_at(number);
    let text = message_text(namer, ticket, number);
    let mail = customer::email(seed, ticket.customer);
    json.open().text("type", "message").id("id", id).object("attributes");
    if ticket.channel == "email" {
        json.text("externalId", &format!("<{:x}@mx.example>", dice.roll()));
    } else {
        json.null("externalId");
    }
    json.text("channel", ticket.channel)
        .text("app", if ticket.channel == "email" { "postmark" } else { ticket.channel });
    json.int("size", text.len() as i64).text("direction", if outbound { "out" } else { "in" });
    let role = match (number, outbound) {
        (0, false) => "initial-in",
        (0, true) => "initial-out",
        (1, true) => "response-out",
        (1, false) => "response-in",
        (_, true) => "followup-out",
        (_, false) => "followup-in",
    };
    json.text("directionType", role).text("preview", &text);
    match ticket.subject(seed) {
        Some(subject) if ticket.channel == "email" => json.text("subject", &subject),
        _ => json,
    };
    let (from, to) =
        if outbound { ("support@desk.example", mail.as_str()) } else { (mail.as_str(), "support@desk.example") };
    json.object("meta").text("from", from);
    match (ticket.index + u64::from(number)) % 4 {
        0 => json.list("to").open().text("email", to).end_object().end_list(),
        1 => json.object("to").text("email", to).end_object(),
        2 => json.list("to").item_text(to).end_list(),
        _ => json.text("to", to),
    };
    json.raw("cc", "[]");
    if ticket.channel == "voice" {
        json.time("answeredAt", sent).time("endedAt", sent + 180_000);
        json.text("externalRecordingUrl", &format!("https://voice.example/recordings/{:x}", dice.roll()));
    }
    json.end_object().text("status", if outbound { "sent" } else { "received" });
    if outbound && number > 0 {
        let waited = sent - ticket.sent_at(number - 1);
        json.int("responseTime", waited).int("responseBusinessTime", waited / 3);
    }
    json.ids("assignedTeams", ticket.team.map(|team| namer.team(team)));
    json.ids("assignedUsers", ticket.agent.map(|agent| namer.user(agent)));
    json.flag("auto", outbound && dice.chance(5)).time("sentAt", sent).time("createdAt", sent + 140);
    json.time("updatedAt", sent + 900)
        .time("modifiedAt", sent + 900)
        .flag("redacted", rare::is_redacted(namer, ticket, number))
        .int("rev", 1);
    json.raw("reactions", "[]")
        .raw("intentDetections", "[]")
        .raw("sentiment", "{}")
        .text("lang", ticket.lang)
        .end_object();
    json.object("relationships").relation("org", "org", "/v1/orgs/", namer.org());
    json.relation("customer", "customers", "/v1/customers/", org.customer_id(ticket.owner));
    json.relation("conversation", "conversation", "/v1/conversations/", ticket.id);
    if let Some(agent) = ticket.agent.filter(|_| outbound) {
        json.relation("createdBy", "user", "/v1/users/", namer.user(agent));
    }
    json.object("shortcuts").raw("data", "[]").end_object();
    if include {
        json.object("attachments").list("data");
        for attachment in attachments(namer, ticket, number) {
            json.open().text("type", "attachment").id("id", attachment.id).end_object();
        }
        json.end_list().end_object();
    }
    json.end_object().object("links").link("self", "/v1/messages/", id, "");
    if ticket.channel == "email" {
        json.link("related", "/v1/postmark/messages/", id, "");
    }
    json.end_object().end_object();
}

/// Writes note `number`.
pub(super) fn write_note(view: &View<'_>, ticket: &Ticket, number: u32, json: &mut Json) {
    let org = view.org();
    let namer = &org.namer;
    let mut dice = Dice::new(namer.seed, 0x6e6f_7465, namer.note_key(ticket.index, number));
    let at = note_at(ticket, number);
    let id = note_id(namer, ticket, number);
    let body = format!("{} {}", dice.pick(words::NOTES), customer::name(namer.seed, ticket.customer));
    let author = ticket.agent.unwrap_or_else(|| dice.below(staff::agents()));
    json.open().text("type", "note").id("id", id).object("attributes").text("body", &body).time("createdAt", at);
    json.time("updatedAt", at).time("modifiedAt", at).ids("createdByTeams", ticket.team.map(|team| namer.team(team)));
    json.end_object().object("relationships").relation("org", "org", "/v1/orgs/", namer.org());
    json.relation("customer", "customer", "/v1/customers/", org.customer_id(ticket.owner));
    json.relation("conversation", "conversation", "/v1/conversations/", ticket.id);
    json.relation("createdBy", "user", "/v1/users/", namer.user(author));
    json.object("userMentions").list("data");
    if dice.chance(30) {
        json.open().text("type", "user").id("id", namer.user(dice.below(staff::agents()))).end_object();
    }
    json.end_list()
        .end_object()
        .end_object()
        .object("links")
        .link("self", "/v1/notes/", id, "")
        .end_object()
        .end_object();
}
