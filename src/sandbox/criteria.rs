//! The body of a search: parsed, checked against the attributes of its context, and matched against records.

use std::cmp::Ordering;

use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::Value;

use super::attributes::{self, Attribute, Class};
use super::json::Json;
use super::organisation::{State, View};
use super::refusal::Refusal;
use super::ticket::Ticket;
use super::timeline::Timeline;
use super::{customer, times};
use crate::model::ObjectId;

const KEYS: [&str; 10] =
    ["queryContext", "and", "or", "not", "sort", "includeDeleted", "timeZone", "fields", "aggs", "searchHash"];
const MOST_CRITERIA: usize = 20;

/// What is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Context {
    Conversation,
    Customer,
    Time,
}

impl Context {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Conversation => "conversation",
            Self::Customer => "customer",
            Self::Time => "conversation_time",
        }
    }

    /// Returns when the records were created and updated; conversation times have no updates.
    pub(super) fn timeline<'a>(self, view: &View<'a>) -> Option<&'a Timeline> {
        match self {
            Self::Conversation => Some(&view.org().ticket_times),
            Self::Customer => Some(&view.org().customer_times),
            Self::Time => None,
        }
    }

    fn created(self, view: &View<'_>, index: u64) -> i64 {
        self.timeline(view).map_or_else(|| times::created(view, index), |timeline| timeline.created(index))
    }

    pub(super) fn id(self, view: &View<'_>, index: u64) -> ObjectId {
        match self {
            Self::Conversation => view.org().ticket_id(index),
            Self::Customer => view.org().customer_id(index),
            Self::Time => times::id(view, index),
        }
    }

    pub(super) fn write(self, view: &View<'_>, index: u64, json: &mut Json) {
        match self {
            Self::Conversation => Ticket::new(view, index).write(view, json),
            Self::Customer => customer::write(view, index, json),
            Self::Time => times::write(view, index, json),
        }
    }

    /// Returns the number of every changed record, with its `updated_at` if it is shown.
    pub(super) fn changed(self, view: &View<'_>, include_deleted: bool) -> Vec<(u64, Option<i64>)> {
        let shown = |state: &State| (include_deleted || !state.deleted).then_some(state.at);
        match self {
            Self::Conversation => {
                let seen = view.changed_tickets();
                let changed = seen.map(|(index, state)| (index, shown(state).filter(|_| !view.is_hidden(index))));
                let hidden = view.hidden().filter(|index| view.ticket_state(*index).is_none());
                changed.chain(hidden.map(|index| (index, None))).collect()
            }
            Self::Customer => view.changed_customers().map(|(index, state)| (index, shown(state))).collect(),
            Self::Time => Vec::new(),
        }
    }

    /// Tells whether a record is marked as deleted.
    pub(super) fn is_deleted(self, view: &View<'_>, index: u64) -> bool {
        let state = match self {
            Self::Conversation => view.ticket_state(index),
            Self::Customer => view.customer_state(index),
            Self::Time => None,
        };
        state.is_some_and(|state| state.deleted)
    }

    const fn attributes(self) -> &'static [Attribute] {
        match self {
            Self::Conversation => attributes::CONVERSATION,
            Self::Customer => attributes::CUSTOMER,
            Self::Time => attributes::TIME,
        }
    }
}

/// The first sort key; the service does not honour further ones reliably, this one not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SortKey {
    Updated,
    /// By creation, then id.
    Created,
    Owner,
    Deleted,
    /// By the values of an attribute, where a context lets any be sorted by.
    Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equals,
    Gt,
    Gte,
    Lt,
    Lte,
    In,
    Contains,
    NotSet,
}

#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Absent,
    Number(f64),
    Texts(Vec<String>),
    Flag(bool),
}

impl Cell {
    fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(left), Self::Number(right)) => left.total_cmp(right),
            (Self::Texts(left), Self::Texts(right)) => left.cmp(right),
            (Self::Flag(left), Self::Flag(right)) => left.cmp(right),
            (left, right) => (*left == Self::Absent).cmp(&(*right == Self::Absent)),
        }
    }
}

#[derive(Debug)]
struct Criterion {
    class: Class,
    path: String,
    operator: Operator,
    operands: Vec<Cell>,
}

/// A search, checked.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) context: Context,
    /// First and past the last `updated_at`, in ms.
    pub(super) from: i64,
    pub(super) until: i64,
    pub(super) sort: SortKey,
    /// The attribute of [`SortKey::Value`].
    sort_attribute: Option<(Class, String)>,
    pub(super) descending: bool,
    pub(super) include_deleted: bool,
    all: Vec<Criterion>,
    any: Vec<Criterion>,
    none: Vec<Criterion>,
}

impl Search {
    /// Parses and checks a body.
    pub(super) fn parse(body: &[u8], archive: bool) -> Result<Self, Refusal> {
        let body: Value =
            serde_json::from_slice(body).map_err(|_| Refusal::bad_request("Invalid JSON in the request body."))?;
        let Value::Object(body) = body else {
            return Err(Refusal::bad_request("The request body must be an object."));
        };
        if let Some(key) = body.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(Refusal::bad_request("Unexpected property in the request body.").about(key));
        }
        let context = match body.get("queryContext").map(|context| context.as_str().unwrap_or_default()) {
            Some("conversation") => Context::Conversation,
            Some("customer") | None => Context::Customer,
            Some("conversation_time") if !archive => Context::Time,
            Some(_) => return Err(Refusal::bad_request("This query context is not served.").about("queryContext")),
        };
        let include_deleted = match body.get("includeDeleted") {
            None => false,
            Some(Value::Bool(include)) => *include,
            Some(_) => return Err(Refusal::bad_request("Must be true or false.").about("includeDeleted")),
        };
        if let Some(zone) = body.get("timeZone")
            && !zone.as_str().is_some_and(|zone| ["GMT", "UTC", "Etc/UTC"].contains(&zone))
        {
            return Err(Refusal::bad_request("Unknown time zone.").about("timeZone"));
        }
        let parse = |key: &str| match body.get(key) {
            None => Ok(Vec::new()),
            Some(criteria) => parse_criteria(criteria, key, context, archive),
        };
        let (sort, descending, sort_attribute) = parse_sort(body.get("sort"), context, archive)?;
        let mut search = Self {
            context,
            from: i64::MIN,
            until: i64::MAX,
            sort,
            sort_attribute,
            descending,
            include_deleted,
            all: parse("and")?,
            any: parse("or")?,
            none: parse("not")?,
        };
        let mut all = std::mem::take(&mut search.all);
        all.retain(|criterion| !search.narrow(criterion));
        search.all = all;
        Ok(search)
    }

    /// Tells whether the range of `updated_at` is all that a record must meet.
    pub(super) const fn is_range_only(&self) -> bool {
        self.all.is_empty() && self.any.is_empty() && self.none.is_empty()
    }

    /// Tells whether a record meets the criteria besides the range.
    pub(super) fn matches(&self, view: &View<'_>, index: u64) -> bool {
        let mut record = Lookup { view, context: self.context, index, object: None };
        self.all.iter().all(|criterion| criterion.holds(&mut record))
            && (self.any.is_empty() || self.any.iter().any(|criterion| criterion.holds(&mut record)))
            && !self.none.iter().any(|criterion| criterion.holds(&mut record))
    }

    /// Sorts records by the sorted attribute, those without it last.
    pub(super) fn sort_by_value(&self, view: &View<'_>, rows: &mut [u64]) {
        let Some((class, path)) = &self.sort_attribute else { return };
        let cell = |index: u64| Lookup { view, context: self.context, index, object: None }.cell(path, *class);
        let mut cells: Vec<(Cell, u64)> = rows.iter().map(|index| (cell(*index), *index)).collect();
        cells.sort_by(|left, right| left.0.order(&right.0).then(left.1.cmp(&right.1)));
        for (row, (_, index)) in rows.iter_mut().zip(cells) {
            *row = index;
        }
    }

    /// Takes a bound of `updated_at` into the range; tells whether it did.
    fn narrow(&mut self, criterion: &Criterion) -> bool {
        let ordered_by = if self.context == Context::Time { "@created" } else { "@updated" };
        let Some(Cell::Number(time)) = criterion.operands.first().filter(|_| criterion.path == ordered_by) else {
            return false;
        };
        let time = *time as i64;
        let (from, until) = match criterion.operator {
            Operator::Equals => (time, time + 1),
            Operator::Gt => (time + 1, i64::MAX),
            Operator::Gte => (time, i64::MAX),
            Operator::Lt => (i64::MIN, time),
            Operator::Lte => (i64::MIN, time + 1),
            Operator::In | Operator::Contains | Operator::NotSet => return false,
        };
        self.from = self.from.max(from);
        self.until = self.until.min(until);
        true
    }
}

fn attribute(name: &str, context: Context, archive: bool) -> Result<(Class, String), Refusal> {
    let unknown = || Refusal::bad_request("Unknown search attribute for this context.").about(name);
    let short = name.strip_prefix(context.name()).and_then(|rest| rest.strip_prefix('_')).ok_or_else(unknown)?;
    if archive && !attributes::ARCHIVE.contains(&short) {
        return Err(Refusal::bad_request("Archive search does not accept this attribute.").about(name));
    }
    if archive && short == "deleted" {
        return Ok((attributes::DELETED.1, attributes::DELETED.2.to_owned()));
    }
    if let Some(custom) = short.strip_prefix("custom_") {
        let class = match custom {
            _ if custom.ends_with("Num") => Class::Number,
            _ if custom.ends_with("At") => Class::Datetime,
            _ if custom.ends_with("Bool") => Class::Boolean,
            _ if custom.ends_with("Txt") => Class::Words,
            _ if ["Str", "Url", "Id", "Tree"].iter().any(|suffix| custom.ends_with(suffix)) => Class::Exact,
            _ => return Err(unknown()),
        };
        return Ok((class, format!("custom/{custom}")));
    }
    let found = context.attributes().iter().find(|(known, ..)| *known == short).ok_or_else(unknown)?;
    Ok((found.1, found.2.to_owned()))
}

fn parse_criteria(criteria: &Value, key: &str, context: Context, archive: bool) -> Result<Vec<Criterion>, Refusal> {
    let list = match criteria {
        Value::Array(list) if list.len() <= MOST_CRITERIA => list.as_slice(),
        Value::Object(_) => std::slice::from_ref(criteria),
        Value::Array(_) => return Err(Refusal::bad_request("At most 20 criteria.").about(key)),
        _ => return Err(Refusal::bad_request("Must be a criterion or a list of criteria.").about(key)),
    };
    let mut parsed = Vec::new();
    for criterion in list {
        let one = criterion.as_object().filter(|one| one.len() == 1).and_then(|one| one.iter().next());
        let Some((name, condition)) = one else {
            return Err(Refusal::bad_request("A criterion names one attribute.").about(key));
        };
        let (class, path) = attribute(name, context, archive)?;
        // Several operators on one attribute are all required, as `{"gte": …, "lt": …}`.
        let Some(conditions) = condition.as_object().filter(|conditions| !conditions.is_empty()) else {
            return Err(Refusal::bad_request("An attribute needs an operator.").about(name));
        };
        if conditions.len() > 1 && key != "and" {
            return Err(Refusal::bad_request("One operator per criterion.").about(name));
        }
        for (operator, operand) in conditions {
            let operator = parse_operator(operator, class).ok_or_else(|| {
                Refusal::bad_request("This operator does not apply to the attribute.")
                    .about(format!("{name}.{operator}"))
            })?;
            let operands = parse_operands(operator, operand, class, name)?;
            parsed.push(Criterion { class, path: path.clone(), operator, operands });
        }
    }
    Ok(parsed)
}

fn parse_operator(operator: &str, class: Class) -> Option<Operator> {
    let ordered = matches!(class, Class::Number | Class::Datetime);
    let textual = !ordered && class != Class::Boolean;
    Some(match operator {
        "equals" => Operator::Equals,
        "gt" if ordered => Operator::Gt,
        "gte" if ordered => Operator::Gte,
        "lt" if ordered => Operator::Lt,
        "lte" if ordered => Operator::Lte,
        "in" if class != Class::Boolean && class != Class::Any => Operator::In,
        "contains" if textual => Operator::Contains,
        "not_set" => Operator::NotSet,
        _ => return None,
    })
}

fn parse_operands(operator: Operator, operand: &Value, class: Class, name: &str) -> Result<Vec<Cell>, Refusal> {
    let list = match (operator, operand) {
        (Operator::NotSet, Value::String(text)) if text.is_empty() => return Ok(Vec::new()),
        (Operator::NotSet, _) => return Err(Refusal::bad_request("not_set takes an empty text.").about(name)),
        (Operator::In, Value::Array(list)) => list.as_slice(),
        (Operator::In, _) => return Err(Refusal::bad_request("in takes a list.").about(name)),
        _ => std::slice::from_ref(operand),
    };
    let short = name.split_once('_').map_or(name, |(_, short)| short);
    list.iter()
        .map(|operand| {
            let wrong = || Refusal::bad_request("The value does not fit the attribute.").about(name);
            match (class, operand) {
                (Class::Datetime, Value::String(text)) => {
                    instant_of(text).map(|ms| Cell::Number(ms as f64)).ok_or_else(wrong)
                }
                (Class::Number, Value::Number(number)) => number.as_f64().map(Cell::Number).ok_or_else(wrong),
                (Class::Boolean, Value::Bool(flag)) => Ok(Cell::Flag(*flag)),
                (Class::Any | Class::Words | Class::Exact | Class::List, Value::String(text)) => {
                    match attributes::allowed_values(short) {
                        Some(allowed) if !allowed.contains(&text.as_str()) => Err(wrong()),
                        _ => Ok(Cell::Texts(vec![text.clone()])),
                    }
                }
                _ => Err(wrong()),
            }
        })
        .collect()
}

/// The key, whether it descends, and the attribute of [`SortKey::Value`].
type Sort = (SortKey, bool, Option<(Class, String)>);

fn parse_sort(sort: Option<&Value>, context: Context, archive: bool) -> Result<Sort, Refusal> {
    let wrong = |about: &str| Refusal::bad_request("Cannot sort by this.").about(about);
    let usual = (if context == Context::Time { SortKey::Created } else { SortKey::Updated }, true, None);
    let first = match sort {
        None => return Ok(usual),
        Some(Value::Array(list)) if list.len() <= 5 => match list.first() {
            None => return Ok(usual),
            Some(first) => first,
        },
        Some(Value::Array(_)) => return Err(wrong("sort")),
        Some(one) => one,
    };
    let one = first.as_object().filter(|one| one.len() == 1).and_then(|one| one.iter().next());
    let (name, direction) = one.ok_or_else(|| wrong("sort"))?;
    let descending = match direction.as_str() {
        Some("asc") => false,
        Some("desc") => true,
        _ => return Err(wrong(name)),
    };
    let known = attribute(name, context, archive)?;
    let key = match name.strip_prefix(context.name()) {
        Some("_updated_at") => SortKey::Updated,
        Some("_created_at" | "_id") => SortKey::Created,
        Some("_customer_id") => SortKey::Owner,
        Some("_deleted") => SortKey::Deleted,
        _ if context == Context::Time => return Ok((SortKey::Value, descending, Some(known))),
        _ => return Err(wrong(name)),
    };
    Ok((key, descending, None))
}

/// Reads an instant, or a date as its midnight in UTC, in ms since 1970.
pub(super) fn instant_of(text: &str) -> Option<i64> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.as_millisecond());
    }
    let date: Date = (text.len() == 10).then(|| text.parse().ok())??;
    let since: i64 = date.duration_since(Date::constant(1970, 1, 1)).as_hours();
    Some(since * 3_600_000)
}

/// A record whose values are asked for; the object is made when the first value needs it.
struct Lookup<'a, 'v> {
    view: &'a View<'v>,
    context: Context,
    index: u64,
    object: Option<Value>,
}

impl Lookup<'_, '_> {
    fn cell(&mut self, path: &str, class: Class) -> Cell {
        let org = self.view.org();
        let text = |id: ObjectId| Cell::Texts(vec![id.to_string()]);
        match (path, self.context) {
            ("@id", context) => text(context.id(self.view, self.index)),
            ("@customer", Context::Conversation) => text(org.customer_id(self.view.owner_of(self.index))),
            ("@created", context) => Cell::Number(context.created(self.view, self.index) as f64),
            ("@status", Context::Conversation) => {
                let status = self.view.ticket_state(self.index).map_or_else(
                    || super::ticket::settled_status(org.namer.seed, self.index, org.tickets()),
                    |state| state.status,
                );
                Cell::Texts(vec![status.name().to_owned()])
            }
            _ => self.object_cell(path, class),
        }
    }

    fn object_cell(&mut self, path: &str, class: Class) -> Cell {
        let object = self.object.get_or_insert_with(|| {
            let mut json = Json::with_capacity(4096);
            self.context.write(self.view, self.index, &mut json);
            serde_json::from_slice(&json.into_bytes()).unwrap_or_default()
        });
        let attributes = &object["attributes"];
        let mut found = Vec::new();
        match path {
            "@any" => {
                for key in ["name", "preview"] {
                    found.push(&attributes[key]);
                }
            }
            "@updated" => found.push(&attributes["updatedAt"]),
            "@sentiment" => {
                let word = match attributes["sentiment"]["polarity"].as_i64() {
                    Some(1) => "happy",
                    Some(-1) => "unhappy",
                    Some(_) => "indifferent",
                    None => return Cell::Absent,
                };
                return Cell::Texts(vec![word.to_owned()]);
            }
            "@imported" => return Cell::Flag(!attributes["importedAt"].is_null()),
            _ => match path.strip_prefix("@relationships/") {
                Some(name) => found.push(&object["relationships"][name]["data"]["id"]),
                None => collect(attributes, path, &mut found),
            },
        }
        cell_of(&found, class)
    }
}

fn collect<'a>(value: &'a Value, path: &str, found: &mut Vec<&'a Value>) {
    let (key, rest) = path.split_once('/').unwrap_or((path, ""));
    match (key, value) {
        ("", Value::Array(items)) => found.extend(items),
        ("", value) => found.push(value),
        ("*", Value::Array(items)) => items.iter().for_each(|item| collect(item, rest, found)),
        (key, value) => {
            if let Some(value) = value.get(key) {
                collect(value, rest, found);
            }
        }
    }
}

fn cell_of(found: &[&Value], class: Class) -> Cell {
    let texts: Vec<String> = found.iter().filter_map(|value| value.as_str()).map(str::to_owned).collect();
    match class {
        Class::Datetime => {
            texts.first().and_then(|text| instant_of(text)).map_or(Cell::Absent, |ms| Cell::Number(ms as f64))
        }
        Class::Number => found.first().and_then(|value| value.as_f64()).map_or(Cell::Absent, Cell::Number),
        Class::Boolean => found.first().and_then(|value| value.as_bool()).map_or(Cell::Absent, Cell::Flag),
        Class::Any | Class::Words | Class::Exact | Class::List if texts.is_empty() => Cell::Absent,
        Class::Any | Class::Words | Class::Exact | Class::List => Cell::Texts(texts),
    }
}

impl Criterion {
    fn holds(&self, record: &mut Lookup<'_, '_>) -> bool {
        let cell = record.cell(&self.path, self.class);
        match self.operator {
            Operator::NotSet => cell == Cell::Absent,
            Operator::In => self.operands.iter().any(|operand| self.compare(&cell, operand)),
            _ => self.operands.first().is_some_and(|operand| self.compare(&cell, operand)),
        }
    }

    fn compare(&self, cell: &Cell, operand: &Cell) -> bool {
        match (cell, operand) {
            (Cell::Number(value), Cell::Number(bound)) => match self.operator {
                Operator::Gt => value > bound,
                Operator::Gte => value >= bound,
                Operator::Lt => value < bound,
                Operator::Lte => value <= bound,
                _ => (value - bound).abs() < f64::EPSILON,
            },
            (Cell::Flag(value), Cell::Flag(wanted)) => value == wanted,
            (Cell::Texts(values), Cell::Texts(wanted)) => wanted.iter().any(|wanted| {
                values.iter().any(|value| match (self.operator, self.class) {
                    (Operator::Contains, Class::Words | Class::Any) => has_words(value, wanted),
                    _ => value.eq_ignore_ascii_case(wanted),
                })
            }),
            // A deletion flag that is absent is false.
            (Cell::Absent, Cell::Flag(false)) => true,
            _ => false,
        }
    }
}

/// Tells whether every word of `wanted` is a word of `text`.
fn has_words(text: &str, wanted: &str) -> bool {
    let split = |text: &str| -> Vec<String> {
        text.split(|letter: char| !letter.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect()
    };
    let words = split(text);
    split(wanted).iter().all(|word| words.contains(word))
}
