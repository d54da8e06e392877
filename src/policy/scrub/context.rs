//! Words before a number that say what it is.

/// Words are looked for this far before a number, in characters.
const REACH: usize = 40;

/// Says that a phone number follows.
pub(super) const PHONE: &[&str] = &[
    "phone",
    "tel",
    "call",
    "mobile",
    "cell",
    "fax",
    "whatsapp",
    "sms",
    "text me",
    "ring me",
    "dial",
    "reach me",
    "viber",
    "handy",
    "mobil",
    "rufnummer",
    "anruf",
    "rückruf",
    "ruf ",
    "móvil",
    "movil",
    "llam",
    "celular",
    "ligar",
    "ligue",
    "portable",
    "appel",
    "joindre",
    "cellulare",
    "chiama",
    "bellen",
    "nummer is",
    "zadzwo",
    "komór",
    "тел",
    "звон",
    "電話",
    "电话",
    "手机",
    "携帯",
    "전화",
    "هاتف",
    "جوال",
    "फोन",
    "मोबाइल",
    "my number",
    "contact number",
    "hotline",
    "signal",
    "tlf",
    "tél",
    "llám",
    "bel ",
    "ring ",
    "ringen",
    "text at",
];
/// Says that a card number follows.
pub(super) const CARD: &[&str] = &[
    "card",
    "karte",
    "visa",
    "master",
    "maestro",
    "amex",
    "carte",
    "tarjeta",
    "carta",
    "cartão",
    "kaart",
    "карт",
    "卡",
    "カード",
    "debit",
    "credit",
];
/// Says that the number is one of the business, which is never a phone's.
pub(super) const CODE: &[&str] = &[
    "order",
    "invoice",
    "tracking",
    "track",
    "parcel",
    "ticket",
    "case",
    "ref",
    "sku",
    "serial",
    "item",
    "article",
    "product",
    "model",
    "batch",
    "shipment",
    "booking",
    "bestell",
    "rechnung",
    "sendung",
    "auftrag",
    "kunden",
    "artikel",
    "commande",
    "facture",
    "colis",
    "pedido",
    "factura",
    "envío",
    "envio",
    "ordine",
    "fattura",
    "spedizione",
    "bestelling",
    "factuur",
    "zamów",
    "заказ",
    "订单",
    "注文",
    "version",
    "isbn",
    "ean",
    "upc",
    "gtin",
    "vat",
    "iva",
    "ust",
    "tva",
    "build",
    "part no",
    "part number",
    "voucher",
    "coupon",
    "rma",
    "awb",
    "po ",
    "imei",
    "meter",
    "policy",
    "contract",
    "coordinates",
    "lot ",
    "transaction",
    "confirmation",
    "account",
    "konto",
    "zip",
    "s/n",
    "plz",
    "part ",
    "error",
    "code",
    "price",
    "total",
];

/// Tells whether one of the words stands before a place, and no word of `CODE` after it.
pub(super) fn says(text: &str, byte: usize, words: &[&str]) -> bool {
    nearest(text, byte, words).is_some()
}

/// Tells whether the nearest word names a code of the business, and not what `words` say.
pub(super) fn is_code(text: &str, byte: usize, words: &[&str]) -> bool {
    match (nearest(text, byte, CODE), nearest(text, byte, words)) {
        (Some(code), Some(word)) => code > word,
        (code, _) => code.is_some(),
    }
}

fn nearest(text: &str, byte: usize, words: &[&str]) -> Option<usize> {
    let from = text[..byte].char_indices().rev().take(REACH).last().map_or(byte, |(at, _)| at);
    let mut before = text[from..byte].to_lowercase();
    // A placeholder and a line end are where the talk is of something else.
    if let Some(cut) = before.rfind([']', '\n', '!', '?', ';']) {
        before.drain(..=cut);
    }
    words.iter().filter_map(|word| find_word(&before, word)).max()
}

/// Finds the last place where a word begins with `word`.
fn find_word(before: &str, word: &str) -> Option<usize> {
    let is_start = |at: &usize| {
        let last = before[..*at].chars().next_back();
        !last.is_some_and(char::is_alphanumeric) || !word.is_ascii() && !last.is_some_and(|c| c.is_ascii_alphanumeric())
    };
    before.rmatch_indices(word).map(|(at, _)| at).find(is_start).or_else(|| {
        // Compounds of German and Dutch: Mobilnummer, Kreditkarte.
        let is_compound = matches!(word, "karte" | "kaart" | "nummer" | "konto");
        if is_compound { before.rfind(word) } else { None }
    })
}
