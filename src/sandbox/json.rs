//! A JSON writer into a byte buffer: pages of hundreds of records are written without an object tree in between.
//!
//! The writer sets commas by itself; the caller balances `object`/`end_object` and `list`/`end_list`.
//! Times are milliseconds since 1970, written as the service does: UTC, three decimals, `Z`.

use crate::model::ObjectId;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The buffer and whether a comma is due before the next item.
#[derive(Debug, Default)]
pub(super) struct Json {
    out: Vec<u8>,
    comma: bool,
}

impl Json {
    /// Makes an empty buffer with room for `bytes`.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { out: Vec::with_capacity(bytes), comma: false }
    }

    /// Returns what was written.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// Opens an object that is an item of a list or the whole text.
    pub(super) fn open(&mut self) -> &mut Self {
        self.separate();
        self.out.push(b'{');
        self.comma = false;
        self
    }

    /// Opens an object under `key`.
    pub(super) fn object(&mut self, key: &str) -> &mut Self {
        self.key(key);
        self.out.push(b'{');
        self
    }

    /// Closes an object.
    pub(super) fn end_object(&mut self) -> &mut Self {
        self.out.push(b'}');
        self.comma = true;
        self
    }

    /// Opens a list under `key`.
    pub(super) fn list(&mut self, key: &str) -> &mut Self {
        self.key(key);
        self.out.push(b'[');
        self
    }

    /// Closes a list.
    pub(super) fn end_list(&mut self) -> &mut Self {
        self.out.push(b']');
        self.comma = true;
        self
    }

    /// Writes a text under `key`.
    pub(super) fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key);
        self.quoted(value);
        self
    }

    /// Writes JSON text as it stands under `key`.
    pub(super) fn raw(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key);
        self.out.extend_from_slice(value.as_bytes());
        self.comma = true;
        self
    }

    /// Writes `null` under `key`.
    pub(super) fn null(&mut self, key: &str) -> &mut Self {
        self.raw(key, "null")
    }

    /// Writes an integer under `key`.
    pub(super) fn int(&mut self, key: &str, value: i64) -> &mut Self {
        self.key(key);
        self.digits(value);
        self.comma = true;
        self
    }

    /// Writes hundredths as a decimal number under `key`.
    pub(super) fn cents(&mut self, key: &str, value: u64) -> &mut Self {
        self.key(key);
        self.digits((value / 100) as i64);
        let mut fraction = *b".00";
        two_digits(&mut fraction, 1, value % 100);
        self.out.extend_from_slice(&fraction);
        self.comma = true;
        self
    }

    /// Writes a truth value under `key`.
    pub(super) fn flag(&mut self, key: &str, value: bool) -> &mut Self {
        self.raw(key, if value { "true" } else { "false" })
    }

    /// Writes an instant under `key`.
    pub(super) fn time(&mut self, key: &str, ms: i64) -> &mut Self {
        self.key(key);
        self.out.push(b'"');
        self.instant(ms);
        self.out.push(b'"');
        self.comma = true;
        self
    }

    /// Writes an instant, or `null`, under `key`.
    pub(super) fn time_or_null(&mut self, key: &str, ms: Option<i64>) -> &mut Self {
        match ms {
            Some(ms) => self.time(key, ms),
            None => self.null(key),
        }
    }

    /// Writes a record id under `key`.
    pub(super) fn id(&mut self, key: &str, id: ObjectId) -> &mut Self {
        self.key(key);
        self.item_id(id)
    }

    /// Writes `prefix`, a record id and `suffix` as one text under `key`: a link.
    pub(super) fn link(&mut self, key: &str, prefix: &str, id: ObjectId, suffix: &str) -> &mut Self {
        self.key(key);
        self.out.push(b'"');
        self.out.extend_from_slice(prefix.as_bytes());
        self.hex(id);
        self.out.extend_from_slice(suffix.as_bytes());
        self.out.push(b'"');
        self.comma = true;
        self
    }

    /// Writes a list of record ids under `key`.
    pub(super) fn ids(&mut self, key: &str, ids: impl IntoIterator<Item = ObjectId>) -> &mut Self {
        self.list(key);
        for id in ids {
            self.item_id(id);
        }
        self.end_list()
    }

    /// Writes a record id as an item of a list.
    pub(super) fn item_id(&mut self, id: ObjectId) -> &mut Self {
        self.separate();
        self.out.push(b'"');
        self.hex(id);
        self.out.push(b'"');
        self.comma = true;
        self
    }

    /// Writes a text as an item of a list.
    pub(super) fn item_text(&mut self, value: &str) -> &mut Self {
        self.separate();
        self.quoted(value);
        self
    }

    /// Writes JSON text as it stands as an item of a list or as a value after [`Self::bare_key`].
    pub(super) fn item_raw(&mut self, value: &[u8]) -> &mut Self {
        self.separate();
        self.out.extend_from_slice(value);
        self.comma = true;
        self
    }

    /// Writes a key whose value follows.
    pub(super) fn bare_key(&mut self, key: &str) -> &mut Self {
        self.key(key);
        self
    }

    /// Writes a relationship with its link and identity under `key`.
    pub(super) fn relation(&mut self, key: &str, kind: &str, prefix: &str, id: ObjectId) -> &mut Self {
        self.object(key).object("links").link("self", prefix, id, "").end_object();
        self.object("data").text("type", kind).id("id", id).end_object().end_object()
    }

    fn separate(&mut self) {
        if self.comma {
            self.out.push(b',');
        }
    }

    fn key(&mut self, key: &str) {
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.comma = false;
    }

    fn quoted(&mut self, text: &str) {
        self.out.push(b'"');
        let mut from = 0;
        let bytes = text.as_bytes();
        for (at, byte) in bytes.iter().enumerate() {
            if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
                continue;
            }
            self.out.extend_from_slice(&bytes[from..at]);
            from = at + 1;
            match *byte {
                b'"' | b'\\' => self.out.extend_from_slice(&[b'\\', *byte]),
                b'\n' => self.out.extend_from_slice(b"\\n"),
                control => {
                    let (high, low) = (HEX[usize::from(control >> 4)], HEX[usize::from(control & 15)]);
                    self.out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
                }
            }
        }
        self.out.extend_from_slice(&bytes[from..]);
        self.out.push(b'"');
        self.comma = true;
    }

    // These run some forty times a record, in unoptimized builds too: plain loops over arrays, one copy into the buffer.
    fn hex(&mut self, id: ObjectId) {
        let bytes = id.as_bytes();
        let mut text = [0; 24];
        let mut at = 0;
        while at < 12 {
            text[2 * at] = HEX[(bytes[at] >> 4) as usize];
            text[2 * at + 1] = HEX[(bytes[at] & 15) as usize];
            at += 1;
        }
        self.out.extend_from_slice(&text);
    }

    fn digits(&mut self, value: i64) {
        if value < 0 {
            self.out.push(b'-');
        }
        let mut text = [0; 20];
        let mut at = text.len();
        let mut rest = value.unsigned_abs();
        loop {
            at -= 1;
            text[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&text[at..]);
    }

    fn instant(&mut self, ms: i64) {
        let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000) as u64);
        let (year, month, day) = civil(days);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        two_digits(&mut text, 0, year as u64 / 100);
        two_digits(&mut text, 2, year as u64 % 100);
        two_digits(&mut text, 5, month);
        two_digits(&mut text, 8, day);
        two_digits(&mut text, 11, of_day / 3_600_000);
        two_digits(&mut text, 14, of_day / 60_000 % 60);
        two_digits(&mut text, 17, of_day / 1000 % 60);
        two_digits(&mut text, 20, of_day % 1000 / 10);
        text[22] = b'0' + (of_day % 10) as u8;
        self.out.extend_from_slice(&text);
    }
}

const fn two_digits(text: &mut [u8], at: usize, value: u64) {
    text[at] = b'0' + (value / 10) as u8;
    text[at + 1] = b'0' + (value % 10) as u8;
}

/// Writes an instant as the service does.
pub(super) fn instant(ms: i64) -> String {
    let mut json = Json::default();
    json.instant(ms);
    String::from_utf8_lossy(&json.out).into_owned()
}

/// Turns days since 1970 into year, month and day (Howard Hinnant's `civil_from_days`).
pub(super) const fn civil(days: i64) -> (i64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + (month <= 2) as i64;
    (year, month as u64, day as u64)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn instants_read_back_as_the_same_millisecond() {
        for ms in [0, 1, 951_782_399_999, 951_782_400_000, 1_709_164_800_000, 1_798_761_599_999, 4_102_444_800_000] {
            let read: Timestamp = instant(ms).parse().unwrap();
            assert_eq!(read.as_millisecond(), ms, "{}", instant(ms));
        }
    }

    #[test]
    fn text_with_every_special_character_reads_back() {
        let text = "quote \" backslash \\ newline \n tab \t bell \u{7} emoji 🧾 李";
        let mut json = Json::default();
        json.open().text("a", text).list("b").item_text("x").item_text("y").end_list().int("c", -12).cents("d", 1205);
        json.raw("e", "{}").end_object();
        let value: serde_json::Value = serde_json::from_slice(&json.into_bytes()).unwrap();
        assert_eq!(value, serde_json::json!({"a": text, "b": ["x", "y"], "c": -12, "d": 12.05, "e": {}}));
    }
}
