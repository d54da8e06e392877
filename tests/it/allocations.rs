//! Dropped fields cost no allocation: a page with many of them makes as many as the same page without.

#![expect(clippy::unwrap_used, reason = "functions of tests, which clippy.toml exempts only where they carry #[test]")]

use std::fmt::Write as _;
use std::sync::Arc;

use counterfoil::model::Stream;
use counterfoil::policy::{Decoder, Definitions, Policy};
use counterfoil::schema::Schemas;
use counterfoil::secret::{PseudonymKey, PseudonymKeys, SecretKey};

const RECORDS: usize = 60;

/// What is added to the attributes of each record, by what makes the decoder drop it.
const DROPPED: [(&str, &str); 8] = [
    (
        "a declared drop",
        r#""preview":"what someone wrote","name":"a subject, \"quoted\", \u65e5\u672c","externalId":7"#,
    ),
    (
        "what a column of type any covers",
        r#""suggestedShortcuts":[{"text":"a"},{"text":"b"}],"totalOpen":{"nights":{"a":[1,2,3]},"k\u0065y":"x"}"#,
    ),
    ("undeclared scalars", r#""oneOfNext":"text","twoOfNext":12.5,"threeOfNext":true,"fourOfNext":null"#),
    (
        "undeclared containers",
        r#""fiveOfNext":{"a":{"b":{"c":[[[{"d":"e"}]]]}}},"sixOfNext":[1,"two",[3],{"f":4}],"sevenOfNext":{}"#,
    ),
    (
        "escapes in undeclared keys",
        r#""eight\u004ffNext":"\ud83d\ude00\n","\u6771\u4eac":"x","nine\/Of\u0020Next":[1]"#,
    ),
    ("keys that are no names", r#""zoe@example.com":1,"+1 212 555 0123":"x","58228e05d4e96711004eccb7":{},"":0"#),
    (
        "undeclared custom attributes",
        r#""custom":{"a b":1,"noteTxt":"free text","pageUrl":"https://x.example","odd":"y","\u006fdd2":[1]}"#,
    ),
    ("a key that comes twice", r#""status":"second","status":{"a":["third"]},"status":"fourth""#),
];

fn decoder() -> Decoder {
    let policy = Policy::compile(&Schemas::builtin().unwrap()).unwrap();
    let key = PseudonymKey { version: 1, key: SecretKey::new([7; 32]) };
    let keys = PseudonymKeys::try_new([Arc::new(key)]).unwrap();
    policy.decoder(Stream::Tickets, &Definitions::default(), &keys).unwrap()
}

/// A page whose records have `repeated` times the dropped fields.
fn page(dropped: &str, repeated: usize) -> Vec<u8> {
    let mut page = String::from("{\"data\":[");
    for number in 0..RECORDS {
        let comma = if number == 0 { "" } else { "," };
        let _ = write!(
            page,
            r#"{comma}{{"type":"conversation","id":"{number:024x}","attributes":{{"status":"open","channels":["email","chat"],
            "updatedAt":"2026-01-02T03:04:05.006Z","rev":{number},"custom":{{}},"answers":[[[[[[[[]]]]]]]]"#
        );
        for _ in 0..repeated {
            page.push(',');
            page.push_str(dropped);
        }
        page.push_str("}}");
    }
    page.push_str("]}");
    page.into_bytes()
}

/// Counts the allocations of one page, after the first two: names are noted once, and columns learn how much they hold.
fn allocations(decoder: &Decoder, page: &[u8]) -> u64 {
    let mut decoder = decoder.fork();
    for _ in 0..2 {
        decoder.push_page(page).unwrap();
        decoder.finish().unwrap();
    }
    let counted = allocation_counter::measure(|| {
        assert_eq!(decoder.push_page(page).unwrap().records.len(), RECORDS);
    });
    assert_eq!(decoder.finish().unwrap().batch().num_rows(), RECORDS);
    counted.count_total
}

#[test]
fn dropped_fields_allocate_nothing() {
    let decoder = decoder();
    let plain = allocations(&decoder, &page("", 0));
    assert!(plain > 0, "the counter counts");
    let long = format!(r#""longOfNext":"{}","preview":"{}""#, "x".repeat(5_000), r"\u00e9".repeat(2_000));
    let cases = DROPPED.into_iter().chain([("long texts", long.as_str())]);
    let mut all = Vec::new();
    for (what, dropped) in cases {
        for repeated in [1, 7] {
            assert_eq!(allocations(&decoder, &page(dropped, repeated)), plain, "{what}, {repeated} times");
        }
        all.push(dropped);
    }
    assert_eq!(allocations(&decoder, &page(&all.join(","), 3)), plain, "all of them");
}

#[test]
fn values_that_do_not_fit_their_columns_allocate_by_column_and_not_by_value() {
    let decoder = decoder();
    let fit = page(r#""priority":3,"tags":[],"spam":false,"createdAt":"2026-01-02T03:04:05.006Z""#, 1);
    let unfit = page(r#""priority":"high","tags":[1,{"a":"b"}],"spam":"n\u006f","createdAt":["soon"]"#, 1);
    // Columns with nulls have a bitmap of them, which grows by doubling; the values are four times as many as the records.
    assert!(allocations(&decoder, &unfit) < allocations(&decoder, &fit) + RECORDS as u64 / 2);
}

#[test]
fn names_that_a_page_invents_take_bounded_memory() {
    let decoder = decoder();
    let invented = |from: usize| {
        let names: Vec<String> =
            (from..from + 200).map(|number| format!(r#""new{number}Of\u0061ll":"{number}""#)).collect();
        page(&names.join(","), 1)
    };
    let mut decoder = decoder.fork();
    // Beyond the names that are noted, a new name costs as little as a known one.
    for round in 0..12 {
        decoder.push_page(&invented(round * 200)).unwrap();
        decoder.finish().unwrap();
    }
    let pages = [invented(50_000), invented(60_000)];
    let counted = pages.map(|page| {
        let counted = allocation_counter::measure(|| drop(decoder.push_page(&page).unwrap()));
        decoder.finish().unwrap();
        counted.count_total
    });
    let plain = allocations(&decoder, &page("", 0));
    assert!(counted.iter().all(|count| *count <= plain + 2), "{counted:?} against {plain}");
}
