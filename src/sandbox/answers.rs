//! What each route answers.

mod threads;

use serde_json::json;

use super::access::Caller;
use super::bucket::Signer;
use super::criteria::{Context, Search, instant_of};
use super::dice::hash;
use super::ids::Kind;
use super::json::Json;
use super::lists::{self, Meta, Page, Query};
use super::merges::Merge;
use super::organisation::{Organisation, View};
use super::refusal::Refusal;
use super::routes::Route;
use super::server::Server;
use super::staff::{self, Record};
use super::ticket::Ticket;
use super::{customer, definitions, search, spoil, times};
use crate::model::ObjectId;

/// The largest page of users and teams, and of conversation times.
const MOST_OF_STAFF: u64 = 500;
const MOST_OF_TIMES: u64 = 1000;

/// Status and body.
pub(super) type Answer = Result<(u16, Vec<u8>), Refusal>;

/// A request whose credentials are good.
pub(super) struct Question<'a> {
    pub(super) server: &'a Server,
    pub(super) path: &'a str,
    pub(super) query: Query,
    /// The values in the path.
    pub(super) values: Vec<&'a str>,
    pub(super) body: &'a [u8],
    /// The request's number, from 0.
    pub(super) number: u64,
    pub(super) now_ms: i64,
    pub(super) caller: Caller,
    /// Answer a search as one that timed out.
    pub(super) timed_out: bool,
    /// Leave records out of a search's page.
    pub(super) short: bool,
}

/// Answers a request.
pub(super) fn answer(question: &Question<'_>, route: Route) -> Answer {
    let org = question.org();
    let staff = &org.staff;
    match route {
        Route::Login => question.login(),
        Route::CurrentToken => Ok(question.current_token()),
        Route::CurrentUser => Ok(single(&staff.users[question.caller.user() as usize].json)),
        Route::CurrentOrg => Ok(question.current_org()),
        Route::Search => question.search(false),
        Route::ArchiveSearch => question.search(true),
        Route::Conversations => question.conversations(),
        Route::Conversation => question.conversation(),
        Route::ConversationMessages => question.messages(),
        Route::ConversationNotes => question.notes(),
        Route::ConversationAttachments => question.conversation_attachments(),
        Route::ConversationEvents => question.events(),
        Route::ConversationTimes => question.conversation_times(),
        Route::ConversationTime => question.conversation_time(),
        Route::CustomerConversations => question.customer_conversations(),
        Route::CustomerMessages => question.customer_messages(),
        Route::Customers => question.customers(),
        Route::Customer => question.customer(),
        Route::CustomerMerges => question.customer_merges(),
        Route::CustomerMerge => question.customer_merge(),
        Route::Message => question.message(),
        Route::Note => question.note(),
        Route::MessageAttachment => question.message_attachment(),
        Route::Attachments => question.attachments(),
        Route::Users => question.users(),
        Route::Teams => question.records(&staff.teams, MOST_OF_STAFF),
        Route::Tags => question.records(&staff.tags, question.most()),
        Route::Queues => question.records(&staff.queues, question.most()),
        Route::Brands => question.records(&staff.brands, question.most()),
        Route::Slas => question.slas(),
        Route::User => question.record(&staff.users),
        Route::Team => question.record(&staff.teams),
        Route::Tag => question.record(&staff.tags),
        Route::Queue => question.record(&staff.queues),
        Route::DefaultBrand => Ok(single(&staff.brands[0].json)),
        Route::Brand => question.record(&staff.brands),
        Route::Sla => question.record(&staff.slas),
        Route::Schedules => question.listed(&staff.schedules, question.holidays()),
        Route::Schedule => question.schedule(),
        Route::Metadata => {
            let metadata = definitions::metadata(&org.live(), question.values[0]).ok_or_else(Refusal::not_found)?;
            Ok((200, json!({"data": metadata}).to_string().into_bytes()))
        }
    }
}

fn single(object: &[u8]) -> (u16, Vec<u8>) {
    let mut json = Json::with_capacity(object.len() + 16);
    json.open().bare_key("data").item_raw(object).end_object();
    (200, json.into_bytes())
}

fn closed(mut json: Json) -> (u16, Vec<u8>) {
    json.end_list().end_object();
    (200, json.into_bytes())
}

/// Returns the records that lists leave out, ascending.
fn not_shown(context: Context, view: &View<'_>) -> Vec<u64> {
    let mut gone: Vec<u64> =
        context.changed(view, false).into_iter().filter(|(_, shown)| shown.is_none()).map(|(index, _)| index).collect();
    gone.sort_unstable();
    gone
}

/// Returns the record at a place among those that are not gone.
fn unless(gone: &[u64], place: u64) -> u64 {
    gone.iter().fold(place, |index, gone| index + u64::from(*gone <= index))
}

impl<'a> Question<'a> {
    fn org(&self) -> &'a Organisation {
        &self.server.organisation
    }

    fn signer(&self) -> &'a Signer {
        &self.server.signer
    }

    /// Returns the largest page of most lists.
    fn most(&self) -> u64 {
        self.server.settings.largest_list_page_size
    }

    fn page(&self, most: u64) -> Result<Page, Refusal> {
        Page::parse(&self.query, most, self.server.settings.oversize)
    }

    /// Opens a list; a record takes some 3 KB.
    fn list(&self, meta: Meta, page: Page, total: u64) -> Json {
        let mut json = Json::with_capacity(3_200 * page.size.min(total) as usize + 512);
        lists::open(&mut json, meta, self.path, &self.query, page, total, &self.server.settings.lists);
        json
    }

    /// Reads the id, or the ids with commas between them, in the path.
    fn ids(&self, several: bool) -> Result<Vec<ObjectId>, Refusal> {
        let value = self.values[0].replace("%2C", ",").replace("%2c", ",");
        // Look-ups such as `externalId=…` are not served: nothing has that external id.
        if value.contains('=') || value.contains("%3D") || value.contains("%3d") {
            return Err(Refusal::not_found());
        }
        let parts: Vec<&str> = value.split(',').collect();
        if parts.len() > 1 && !several {
            return Err(Refusal::not_found());
        }
        let most = self.server.settings.largest_id_list;
        if parts.len() > most {
            return Err(Refusal::bad_request(format!("At most {most} ids.")).about("id"));
        }
        parts
            .into_iter()
            .map(|id| {
                ObjectId::from_hex(id.as_bytes()).ok_or_else(|| Refusal::bad_request("Not a valid id.").about("id"))
            })
            .collect()
    }

    /// Answers with one object, or with a list when several ids were asked; missing ones of several are left out.
    fn objects(asked: usize, found: &[Vec<u8>]) -> Answer {
        match found {
            [] => Err(Refusal::not_found()),
            [one] if asked == 1 => Ok(single(one)),
            several => {
                let mut json = Json::with_capacity(several.iter().map(Vec::len).sum::<usize>() + 64);
                json.open().list("data");
                for object in several {
                    json.item_raw(object);
                }
                Ok(closed(json))
            }
        }
    }

    fn login(&self) -> Answer {
        let org = self.org();
        let token = self.server.access.login(&org.namer, self.body, self.now_ms)?;
        let mut json = self.token(Caller::Person, Some(&token));
        json.end_object();
        Ok((201, json.into_bytes()))
    }

    fn current_token(&self) -> (u16, Vec<u8>) {
        let mut json = self.token(self.caller, None);
        json.end_object();
        (200, json.into_bytes())
    }

    fn token(&self, caller: Caller, token: Option<&str>) -> Json {
        let namer = &self.org().namer;
        let id = namer.id(Kind::Token, 1 + u64::from(caller == Caller::Person), self.org().start);
        let name = if caller == Caller::Person { "login" } else { "sandbox" };
        let mut json = Json::default();
        json.open().object("data").text("type", "token").id("id", id).object("attributes").text("name", name);
        if let Some(token) = token {
            json.text("token", token).text("lastTokenChars", &token[token.len() - 4..]);
        }
        json.list("roles");
        for role in self.server.access.roles() {
            json.item_text(role);
        }
        json.end_list().time("createdAt", self.org().start);
        json.time("updatedAt", self.org().start).end_object().object("relationships");
        json.relation("org", "org", "/v1/orgs/", namer.org());
        json.relation("user", "user", "/v1/users/", namer.user(caller.user())).end_object();
        json.object("links").text("self", "/v1/auth/tokens/current").end_object().end_object();
        json
    }

    fn current_org(&self) -> (u16, Vec<u8>) {
        let namer = &self.org().namer;
        let mut json = Json::default();
        json.open()
            .object("data")
            .text("type", "org")
            .id("id", namer.org())
            .object("attributes")
            .text("name", "sandbox");
        json.time("createdAt", namer.founded).end_object().object("links").link("self", "/v1/orgs/", namer.org(), "");
        json.end_object().end_object().end_object();
        (200, json.into_bytes())
    }

    fn search(&self, archive: bool) -> Answer {
        let settings = &self.server.settings;
        let page = self.page(self.server.settings.largest_page_size)?;
        let search = Search::parse(self.body, archive)?;
        if page.number > u64::from(settings.max_pages) {
            let message = format!("Search has at most {} pages.", settings.max_pages);
            return Err(Refusal::bad_request(message).about("page"));
        }
        if page.number * page.size > settings.result_window_rows {
            let message = format!("Search reaches at most {} records.", settings.result_window_rows);
            return Err(Refusal::bad_request(message).about("page"));
        }
        let view = self.org().indexed();
        let unrest = settings.ties.then_some(self.number);
        let found = search::find(&view, &search, archive, page.first(), page.size, unrest);
        let mut json = self.list(Meta::Search { timed_out: self.timed_out }, page, found.total);
        let rows = if self.timed_out { &found.rows[..found.rows.len() / 2] } else { &found.rows[..] };
        let left_out = |row: u64| self.short && hash(self.number, 0x7368_6f72, row).is_multiple_of(8);
        for row in rows.iter().filter(|row| !left_out(**row)) {
            if self.query.has("idsOnly") {
                spoil::write_id(search.context, &view, *row, settings.ids_only, &mut json);
            } else {
                spoil::write(search.context, &view, *row, &mut json);
            }
        }
        Ok(closed(json))
    }

    fn conversations(&self) -> Answer {
        let descending = match self.query.get("sort") {
            None => false,
            Some("desc") => true,
            Some(_) => return Err(Refusal::bad_request("Must be desc.").about("sort")),
        };
        let page = self.page(self.most())?;
        let view = self.org().live();
        let gone = not_shown(Context::Conversation, &view);
        let total = self.org().tickets() - gone.len() as u64;
        let mut json = self.list(Meta::Page, page, total);
        for place in page.first()..total.min(page.first() + page.size) {
            let index = unless(&gone, if descending { total - 1 - place } else { place });
            spoil::write_ticket(&view, &Ticket::new(&view, index), &mut json);
        }
        Ok(closed(json))
    }

    fn conversation(&self) -> Answer {
        let ids = self.ids(true)?;
        let view = self.org().live();
        let found: Vec<Vec<u8>> = ids
            .iter()
            .filter_map(|id| self.org().ticket_number(*id))
            .map(|index| Ticket::new(&view, index))
            .filter(|ticket| !ticket.hidden && (!ticket.deleted || self.shows_deleted()))
            .map(|ticket| {
                let mut json = Json::with_capacity(4096);
                spoil::write_ticket(&view, &ticket, &mut json);
                json.into_bytes()
            })
            .collect();
        Self::objects(ids.len(), &found)
    }

    /// Returns the conversation in the path, unless it is deleted.
    fn ticket(&self, view: &View<'_>) -> Result<Ticket, Refusal> {
        let id = self.ids(false)?[0];
        let ticket = self.org().ticket_number(id).map(|index| Ticket::new(view, index));
        ticket.filter(|ticket| !ticket.is_gone()).ok_or_else(Refusal::not_found)
    }

    fn conversation_times(&self) -> Answer {
        let page = self.page(MOST_OF_TIMES)?;
        let view = self.org().live();
        let numbers = times::of_ticket(&view, self.ticket(&view)?.index);
        let mut json = self.list(Meta::Page, page, numbers.len() as u64);
        for number in numbers.iter().skip(page.first() as usize).take(page.size as usize) {
            times::write(&view, *number, &mut json);
        }
        Ok(closed(json))
    }

    fn conversation_time(&self) -> Answer {
        let ids = self.ids(true)?;
        let view = self.org().live();
        let found: Vec<Vec<u8>> = ids
            .iter()
            .filter_map(|id| times::number_of(&view, *id))
            .map(|number| {
                let mut json = Json::with_capacity(2048);
                times::write(&view, number, &mut json);
                json.into_bytes()
            })
            .collect();
        Self::objects(ids.len(), &found)
    }

    fn customers(&self) -> Answer {
        let page = self.page(self.most())?;
        let view = self.org().live();
        let gone = not_shown(Context::Customer, &view);
        let total = self.org().customers() - gone.len() as u64;
        let mut json = self.list(Meta::Totals, page, total);
        for place in page.first()..total.min(page.first() + page.size) {
            customer::write(&view, unless(&gone, place), &mut json);
        }
        Ok(closed(json))
    }

    fn customer(&self) -> Answer {
        let ids = self.ids(self.server.settings.several_customers)?;
        let view = self.org().live();
        let found: Vec<Vec<u8>> = ids
            .iter()
            .filter_map(|id| self.org().customer_number(*id))
            .filter(|index| self.shows_deleted() || !Context::Customer.is_deleted(&view, *index))
            .map(|index| {
                let mut json = Json::with_capacity(4096);
                Context::Customer.write(&view, index, &mut json);
                json.into_bytes()
            })
            .collect();
        Self::objects(ids.len(), &found)
    }

    fn shows_deleted(&self) -> bool {
        self.server.settings.deleted_by_id == super::DeletedById::Shown
    }

    fn customer_merges(&self) -> Answer {
        let id = self.ids(false)?[0];
        let customer = self.org().customer_number(id).ok_or_else(Refusal::not_found)?;
        let page = self.page(self.most())?;
        let view = self.org().live();
        let merges: Vec<&Merge> = view.merges().iter().filter(|merge| merge.concerns(customer)).collect();
        let mut json = self.list(Meta::Page, page, merges.len() as u64);
        for merge in merges.iter().skip(page.first() as usize).take(page.size as usize) {
            merge.write(self.org(), &mut json);
        }
        Ok(closed(json))
    }

    fn customer_merge(&self) -> Answer {
        let id = self.ids(false)?[0];
        let view = self.org().live();
        let merge = view.merges().iter().find(|merge| merge.id(self.org()) == id).ok_or_else(Refusal::not_found)?;
        let mut json = Json::default();
        merge.write(self.org(), &mut json);
        Ok(single(&json.into_bytes()))
    }

    fn customer_conversations(&self) -> Answer {
        let id = self.ids(false)?[0];
        let index = self.org().customer_number(id).ok_or_else(Refusal::not_found)?;
        let since = match self.query.get("fromDate") {
            None => i64::MIN,
            Some(text) => instant_of(text).ok_or_else(|| Refusal::bad_request("Not a date.").about("fromDate"))?,
        };
        let page = self.page(self.most())?;
        let view = self.org().live();
        let tickets = view.owned_by(index).into_iter().map(|index| Ticket::new(&view, index));
        let owned: Vec<Ticket> = tickets.filter(|ticket| !ticket.is_gone() && ticket.updated >= since).collect();
        let mut json = self.list(Meta::Page, page, owned.len() as u64);
        for ticket in owned.iter().skip(page.first() as usize).take(page.size as usize) {
            spoil::write_ticket(&view, ticket, &mut json);
        }
        Ok(closed(json))
    }

    fn users(&self) -> Answer {
        // The users are people and then machines; other types, which the service has too, are of nobody here.
        let (people, machines) = self.org().staff.users.split_at(staff::agents() as usize);
        match self.query.get("userType") {
            None => self.records(&self.org().staff.users, MOST_OF_STAFF),
            Some("user") => self.records(people, MOST_OF_STAFF),
            Some("machine") => self.records(machines, MOST_OF_STAFF),
            Some("limited" | "hourly") => self.records(&[], MOST_OF_STAFF),
            Some(_) => Err(Refusal::bad_request("Unknown type of user.").about("userType")),
        }
    }

    fn records(&self, records: &[Record], most: u64) -> Answer {
        let page = self.page(most)?;
        let without_deleted = self.query.get("deleted") == Some("false");
        let shown: Vec<&Record> = records.iter().filter(|record| !(without_deleted && record.deleted)).collect();
        let mut json = self.list(Meta::Page, page, shown.len() as u64);
        for record in shown.iter().skip(page.first() as usize).take(page.size as usize) {
            json.item_raw(&record.json);
        }
        Ok(closed(json))
    }

    fn slas(&self) -> Answer {
        let staff = &self.org().staff;
        self.listed(&staff.slas, self.query.get("versions").map(|_| staff.sla_versions.as_slice()))
    }

    fn schedule(&self) -> Answer {
        let ids = self.ids(false)?;
        let found = self.org().staff.schedules.iter().find(|record| ids.contains(&record.id));
        let mut json = Json::with_capacity(1024);
        json.open().bare_key("data").item_raw(&found.ok_or_else(Refusal::not_found)?.json);
        Ok(Self::including(json, self.holidays()))
    }

    fn holidays(&self) -> Option<&'a [Record]> {
        (self.query.get("include") == Some("holidays")).then_some(self.org().staff.holidays.as_slice())
    }

    /// Answers with a page of records, and beside it with all of what belongs to them, where that was asked for.
    fn listed(&self, records: &[Record], included: Option<&[Record]>) -> Answer {
        let page = self.page(self.most())?;
        let mut json = self.list(Meta::Page, page, records.len() as u64);
        for record in records.iter().skip(page.first() as usize).take(page.size as usize) {
            json.item_raw(&record.json);
        }
        json.end_list();
        Ok(Self::including(json, included))
    }

    fn including(mut json: Json, included: Option<&[Record]>) -> (u16, Vec<u8>) {
        if let Some(included) = included {
            json.list("included");
            for record in included {
                json.item_raw(&record.json);
            }
            json.end_list();
        }
        json.end_object();
        (200, json.into_bytes())
    }

    fn record(&self, records: &[Record]) -> Answer {
        let ids = self.ids(true)?;
        let found: Vec<Vec<u8>> =
            records.iter().filter(|record| ids.contains(&record.id)).map(|record| record.json.clone()).collect();
        Self::objects(ids.len(), &found)
    }
}
