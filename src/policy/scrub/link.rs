//! URLs: which of them go.
//!
//! A URL goes as a whole when it has user-info, names a person (an at-sign, a key such as `email` or `customer_id`), has a key of
//! a credential (`token`, `sig`, `reset`), holds a value or a segment that looks random (16 characters or more of mixed letters
//! and digits, a UUID, a card number), leads to a step that is for one person (`/reset/…`, `/invite/…` and a code), or has a
//! value of 40 characters and more. `mailto:`, `tel:` and links to a chat by number always go. All others stay.

use super::cells::{WALL, at, before, is_word};
use super::number;

/// Keys whose value is a credential or a person, whatever it looks like; compared without `-` and `_`.
const KEYS: [&str; 63] = [
    "token",
    "code",
    "accesstoken",
    "idtoken",
    "refreshtoken",
    "authtoken",
    "apikey",
    "auth",
    "authorization",
    "sig",
    "signature",
    "secret",
    "clientsecret",
    "password",
    "passwd",
    "pwd",
    "pass",
    "session",
    "sessionid",
    "sid",
    "jsessionid",
    "phpsessid",
    "jwt",
    "otp",
    "pin",
    "invite",
    "confirm",
    "confirmationtoken",
    "verify",
    "verification",
    "reset",
    "resettoken",
    "resetpasswordtoken",
    "magic",
    "magiclink",
    "credential",
    "xamzsignature",
    "xamzcredential",
    "xgoogsignature",
    "keypairid",
    "email",
    "mail",
    "emailaddress",
    "user",
    "username",
    "userid",
    "uid",
    "login",
    "name",
    "firstname",
    "lastname",
    "fullname",
    "phone",
    "tel",
    "mobile",
    "customer",
    "customerid",
    "account",
    "accountid",
    "dob",
    "ssn",
    "iban",
    "subscriber",
];
const STEPS: [&str; 16] = [
    "reset",
    "password-reset",
    "reset-password",
    "magic",
    "magic-link",
    "verify",
    "confirm",
    "invite",
    "invitation",
    "unsubscribe",
    "activate",
    "login",
    "signin",
    "sso",
    "share",
    "s",
];
const CHATS: [&str; 4] = ["wa.me", "api.whatsapp.com", "t.me", "signal.me"];
const LONG_VALUE: usize = 40;

/// A URL of the text.
pub(super) struct Link {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) is_secret: bool,
}

/// Finds the URL whose `:`, `?` or `w` of `www.` stands at `index`.
pub(super) fn find(cells: &[u8], index: usize, from: usize) -> Option<Link> {
    let is_url = |cell: u8| {
        cell > b' ' && cell != WALL && cell != 0x81 && !b"\"<>\\^`{|}".contains(&cell) && cell < 0x80 || cell == 0x80
    };
    let mut start = index;
    let mut is_secret = false;
    match at(cells, index) {
        b':' => {
            while start > from && (cells[start - 1].is_ascii_alphanumeric() || b"+-.".contains(&cells[start - 1])) {
                start -= 1;
            }
            while start < index && !cells[start].is_ascii_alphabetic() {
                start += 1;
            }
            let scheme = cells[start..index].to_ascii_lowercase();
            if matches!(scheme.as_slice(), b"mailto" | b"tel" | b"sms" | b"callto" | b"sip") {
                let next = at(cells, index + 1);
                if !(next.is_ascii_alphanumeric() || next == b'+') {
                    return None;
                }
                is_secret = true;
            } else if start == index || at(cells, index + 1) != b'/' || at(cells, index + 2) != b'/' {
                return None;
            }
        }
        b'w' | b'W' => {
            if is_word(before(cells, index)) || !cells[index..].get(..4)?.eq_ignore_ascii_case(b"www.") {
                return None;
            }
        }
        // Without a scheme: host, path and a query.
        b'?' => {
            while start > from && is_url(cells[start - 1]) && !b"(),;'@?:".contains(&cells[start - 1]) {
                start -= 1;
            }
            let host = cells[start..index].split(|cell| *cell == b'/').next()?;
            let (_, ending) = std::str::from_utf8(host).ok()?.rsplit_once('.')?;
            let has_query = cells[index..].iter().take(64).take_while(|cell| is_url(**cell)).any(|cell| *cell == b'=');
            if ending.len() < 2 || !ending.bytes().all(|c| c.is_ascii_alphabetic()) || !has_query {
                return None;
            }
        }
        _ => return None,
    }
    let mut end = index;
    while end < cells.len() && is_url(cells[end]) {
        end += 1;
    }
    let is_open = cells[start..end].contains(&b'(');
    while end > index && (b".,;:!?'*_]".contains(&cells[end - 1]) || cells[end - 1] == b')' && !is_open) {
        end -= 1;
    }
    // A host is needed.
    if end <= index + 3 && cells[index] == b':' {
        return None;
    }
    let is_secret = is_secret || is_secret_url(&cells[start..end]);
    Some(Link { start, end, is_secret })
}

fn is_secret_url(url: &[u8]) -> bool {
    let lower = url.to_ascii_lowercase();
    if lower.contains(&b'@') || find_bytes(&lower, b"%40") || number::has_card(&lower) {
        return true;
    }
    // The original letters: mixed case is a sign of randomness. Bytes outside ASCII cannot be in what is looked for.
    let text: String = url.iter().map(|cell| if cell.is_ascii() { char::from(*cell) } else { 'x' }).collect();
    let rest = text.split_once("://").map_or(text.as_str(), |(_, rest)| rest);
    let (place, queries) = match rest.find(['?', '#']) {
        Some(cut) => (&rest[..cut], &rest[cut + 1..]),
        None => (rest, ""),
    };
    let mut segments = place.split('/');
    let host = segments.next().unwrap_or_default().to_ascii_lowercase();
    let is_chat = CHATS.contains(&host.trim_start_matches("www."));
    let mut is_step = false;
    for segment in segments {
        let is_record = segment.len() == 24 && segment.bytes().all(|c| c.is_ascii_hexdigit());
        if (is_random(segment) && !is_record)
            || (is_step && is_code(segment))
            || (is_chat && segment.bytes().any(|c| c.is_ascii_digit()))
        {
            return true;
        }
        is_step = STEPS.contains(&segment.to_ascii_lowercase().as_str());
    }
    queries.split(['&', ';', '?', '#']).any(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or(("", pair));
        let key: String = key.chars().filter(|c| *c != '-' && *c != '_').map(|c| c.to_ascii_lowercase()).collect();
        if value.is_empty() || key.starts_with("utm") {
            return false;
        }
        KEYS.contains(&key.as_str())
            || value.len() >= LONG_VALUE
            || is_random(value)
            || (is_chat && value.bytes().any(|c| c.is_ascii_digit()))
            || (matches!(key.as_str(), "code" | "key" | "hash" | "state" | "ref" | "t" | "k" | "c")
                && value.len() >= 12
                && is_code(value))
    })
}

/// Tells whether a segment could be a code that someone was sent.
fn is_code(segment: &str) -> bool {
    segment.len() >= 6 && segment.bytes().any(|c| c.is_ascii_digit()) && !segment.contains('.')
}

/// Tells whether a part of the value looks drawn at random.
fn is_random(value: &str) -> bool {
    let is_uuid = value.len() >= 36
        && value.split('-').filter(|part| part.len() >= 4 && part.bytes().all(|c| c.is_ascii_hexdigit())).count() >= 5;
    is_uuid
        || value.split(['-', '_', '.', '~', '%', '=', '+', ',', ':']).any(|part| {
            if part.len() < 16 {
                return false;
            }
            let kind = |c: u8| match c {
                b'0'..=b'9' => 0,
                b'a'..=b'z' => 1,
                _ => 2,
            };
            let turns = part.as_bytes().windows(2).filter(|pair| kind(pair[0]) != kind(pair[1])).count();
            part.bytes().all(|c| c.is_ascii_alphanumeric()) && turns >= 4
        })
}

fn find_bytes(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}
