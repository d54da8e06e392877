//! What is answered about messages, notes, events and attachments.

use super::{Answer, Question, closed, single};
use crate::model::ObjectId;
use crate::sandbox::events;
use crate::sandbox::ids::Kind;
use crate::sandbox::json::Json;
use crate::sandbox::lists::Meta;
use crate::sandbox::organisation::View;
use crate::sandbox::refusal::Refusal;
use crate::sandbox::thread::{self, Attachment};
use crate::sandbox::ticket::Ticket;

impl Question<'_> {
    pub(super) fn messages(&self) -> Answer {
        let view = self.org().live();
        let ticket = self.ticket(&view)?;
        self.messages_of(&view, &[ticket])
    }

    pub(super) fn customer_messages(&self) -> Answer {
        let id = self.ids(false)?[0];
        let index = self.org().customer_number(id).ok_or_else(Refusal::not_found)?;
        let view = self.org().live();
        let tickets = view.owned_by(index).into_iter().map(|index| Ticket::new(&view, index));
        let kept: Vec<Ticket> = tickets.filter(|ticket| !ticket.is_gone()).collect();
        self.messages_of(&view, &kept)
    }

    /// Answers with a page of the messages of conversations, one conversation after the other.
    fn messages_of(&self, view: &View<'_>, tickets: &[Ticket]) -> Answer {
        let include = match self.query.get("include") {
            None => false,
            Some("attachments") => true,
            Some(_) => return Err(Refusal::bad_request("Cannot be included.").about("include")),
        };
        let page = self.page(self.most())?;
        let all = tickets.iter().flat_map(|ticket| (0..ticket.messages).map(move |number| (ticket, number)));
        let mut json = self.list(Meta::Page, page, all.clone().count() as u64);
        let shown = all.skip(page.first() as usize).take(page.size as usize);
        for (ticket, number) in shown.clone() {
            thread::write_message(view, ticket, number, include, &mut json);
        }
        json.end_list();
        if include {
            json.list("included");
            for (ticket, number) in shown {
                for attachment in thread::attachments(&self.org().namer, ticket, number) {
                    self.write_attachment(&attachment, true, &mut json);
                }
            }
            json.end_list();
        }
        json.end_object();
        Ok((200, json.into_bytes()))
    }

    pub(super) fn notes(&self) -> Answer {
        let page = self.page(self.most())?;
        let view = self.org().live();
        let ticket = self.ticket(&view)?;
        let total = u64::from(ticket.notes);
        let mut json = self.list(Meta::Page, page, total);
        for number in page.first()..total.min(page.first() + page.size) {
            thread::write_note(&view, &ticket, number as u32, &mut json);
        }
        Ok(closed(json))
    }

    pub(super) fn events(&self) -> Answer {
        let ascending = match self.query.get("sort") {
            None | Some("desc") => false,
            Some("asc") => true,
            Some(_) => return Err(Refusal::bad_request("Must be asc or desc.").about("sort")),
        };
        let page = self.page(self.most())?;
        let view = self.org().live();
        let ticket = self.ticket(&view)?;
        let mut json = self.list(Meta::Empty, page, events::count(&view, &ticket) as u64);
        let first = page.first() as usize;
        events::write(&view, &ticket, first..first + page.size as usize, ascending, &mut json);
        Ok(closed(json))
    }

    pub(super) fn conversation_attachments(&self) -> Answer {
        let page = self.page(self.most())?;
        let view = self.org().live();
        let ticket = self.ticket(&view)?;
        let all: Vec<Attachment> =
            (0..ticket.messages).flat_map(|number| thread::attachments(&self.org().namer, &ticket, number)).collect();
        let mut json = self.list(Meta::Empty, page, all.len() as u64);
        for attachment in all.iter().skip(page.first() as usize).take(page.size as usize) {
            self.write_attachment(attachment, false, &mut json);
        }
        Ok(closed(json))
    }

    fn write_attachment(&self, attachment: &Attachment, with_id: bool, json: &mut Json) {
        let namer = &self.org().namer;
        let link = self.signer().link(attachment, namer.org(), self.now_ms);
        attachment.write(namer, with_id, &link, json);
    }

    pub(super) fn message(&self) -> Answer {
        let id = self.ids(false)?[0];
        let view = self.org().live();
        let (ticket, number) = thread::locate(&view, Kind::Message, id).ok_or_else(Refusal::not_found)?;
        if ticket.message_id(&self.org().namer, number) != id {
            return Err(Refusal::not_found());
        }
        let mut json = Json::with_capacity(4096);
        thread::write_message(&view, &ticket, number, false, &mut json);
        Ok(single(&json.into_bytes()))
    }

    pub(super) fn note(&self) -> Answer {
        let id = self.ids(false)?[0];
        let view = self.org().live();
        let (ticket, number) = thread::locate_note(&view, id).ok_or_else(Refusal::not_found)?;
        let mut json = Json::with_capacity(2048);
        thread::write_note(&view, &ticket, number, &mut json);
        Ok(single(&json.into_bytes()))
    }

    fn attachment(&self, id: ObjectId) -> Option<Attachment> {
        let view = self.org().live();
        let (ticket, number) = thread::locate(&view, Kind::Attachment, id)?;
        thread::attachments(&self.org().namer, &ticket, number).into_iter().find(|attachment| attachment.id == id)
    }

    pub(super) fn message_attachment(&self) -> Answer {
        let wanted = ObjectId::from_hex(self.values[1].as_bytes());
        let found = wanted.and_then(|id| self.attachment(id)).ok_or_else(Refusal::not_found)?;
        if found.message != self.ids(false)?[0] {
            return Err(Refusal::not_found());
        }
        let mut json = Json::with_capacity(2048);
        self.write_attachment(&found, true, &mut json);
        Ok(single(&json.into_bytes()))
    }

    pub(super) fn attachments(&self) -> Answer {
        let ids = self.ids(true)?;
        let found: Vec<Vec<u8>> = ids
            .iter()
            .filter_map(|id| self.attachment(*id))
            .map(|attachment| {
                let mut json = Json::with_capacity(2048);
                self.write_attachment(&attachment, true, &mut json);
                json.into_bytes()
            })
            .collect();
        Self::objects(ids.len(), &found)
    }
}
