//! The vocabulary of the synthetic organisation: names, subjects, phrases.
//!
//! Names and subjects of many scripts are there on purpose: a decoder that counts bytes for characters shows.

pub(super) const FIRST_NAMES: &[&str] = &[
    "Zoë",
    "Łukasz",
    "José",
    "Åsa",
    "Ngọc",
    "Ольга",
    "محمد",
    "李伟",
    "Siobhán",
    "Grace",
    "Amara",
    "Björn",
    "Chidi",
    "Daniela",
    "Eszter",
    "Fatima",
    "Giulia",
    "Hiroshi",
    "Ivana",
    "Jörg",
    "Kwame",
    "Leïla",
    "Marisol",
    "Nikolai",
    "Oluwaseun",
    "Priya",
    "Quentin",
    "Rosalind",
    "Sørina",
    "Tomás",
    "Ulrike",
    "Valentina",
    "Wendell",
    "Ximena",
    "Yusuf",
    "Žaneta",
];

pub(super) const LAST_NAMES: &[&str] = &[
    "Abernathy",
    "Bjørnstad",
    "Castellanos",
    "Dąbrowski",
    "Eriksson",
    "Fernández",
    "Gutiérrez",
    "Hashimoto",
    "Ibrahimović",
    "Jankowska",
    "Kovačević",
    "Lindqvist",
    "Montgomery",
    "Nakamura",
    "O'Sullivan",
    "Papadopoulos",
    "Quiñones",
    "Rasmussen",
    "Sørensen",
    "Takahashi",
    "Underwood",
    "Vasilescu",
    "Wiśniewska",
    "Xanthopoulos",
    "Yılmaz",
    "Zimmermann",
    "Петрова",
    "陳",
    "Oyelaran",
    "D'Angelo",
    "van der Meer",
];

pub(super) const SUBJECTS: &[&str] = &[
    "Where is my parcel",
    "Refund not received",
    "Zahlung doppelt abgebucht",
    "¿Dónde está mi pedido?",
    "Mot de passe oublié",
    "配送が届きません",
    "Wrong size delivered",
    "Cannot log in \"again\"",
    "Cancel my subscription",
    "Damaged on arrival 😡",
    "Invoice for our company",
    "Change of delivery address",
    "Gutschein funktioniert nicht",
    "الطلب لم يصل",
    "Great service! 🎉",
    "App crashes at checkout",
    "Question about warranty",
    "Товар не подошёл",
];

pub(super) const OPENINGS: &[&str] = &[
    "Hello, I am still waiting for an answer.",
    "Hi there, something went wrong with my order.",
    "Guten Tag, ich brauche Hilfe.",
    "Buenos días, tengo un problema con mi compra.",
    "Bonjour, je n'ai rien reçu.",
    "Dear team,\nplease look into this.",
    "お世話になっております。",
    "This is the third time that I write to you!",
];

pub(super) const ANSWERS: &[&str] = &[
    "Thank you for your patience, we have looked into it.",
    "We are sorry for the trouble and have sent a replacement.",
    "Your refund is on its way.",
    "Could you send us a photo of the parcel?",
    "Wir haben Ihr Konto wieder freigeschaltet.",
    "We have escalated this to the warehouse.",
];

pub(super) const NOTES: &[&str] = &[
    "Spoke with the warehouse about",
    "Customer was upset on the phone, call back",
    "Verified identity of",
    "Offered a voucher to",
];

pub(super) const STREETS: &[&str] =
    &["Ahornallee", "Kungsgatan", "Rue de l'Église", "Calle Mayor", "Elm Street", "ul. Długa", "Sakura-dōri"];

pub(super) const MAIL_HOSTS: &[&str] = &["post.example", "mail.example", "inbox.example.net", "firma.example.org"];

pub(super) const CHANNELS: &[&str] = &["email", "chat", "sms", "voice", "whatsapp", "facebook", "instagram", "form"];

pub(super) const TIERS: &[&str] = &["vip", "gold", "silver", "standard"];

pub(super) const REASONS: &[&str] = &[
    "billing.refund.late",
    "billing.refund.partial",
    "billing.invoice",
    "shipping.delay.carrier",
    "shipping.delay.customs",
    "shipping.lost",
    "product.defect.hardware",
    "product.defect.software",
    "product.question",
    "account.login",
    "account.cancel",
    "other",
];

pub(super) const PRODUCTS: &[&str] = &["Lampe Größe L", "Trail Runner 3", "Café Crème", "Home Hub", "凧キット"];

pub(super) const TEAMS: &[&str] =
    &["Billing", "Shipping", "Product Support", "VIP Desk", "Escalations", "Équipe Francophone"];

pub(super) const QUEUES: &[&str] =
    &["Inbox", "Billing", "Shipping", "Returns", "VIP", "Voice", "Escalations", "Social Media"];

pub(super) const BRANDS: &[&str] = &["default", "Nordlicht Outdoor", "Café Crème"];

pub(super) const TAGS: &[&str] = &[
    "refund",
    "vip",
    "damaged",
    "late-delivery",
    "lost",
    "warranty",
    "duplicate",
    "complaint",
    "praise",
    "bug",
    "login",
    "password",
    "invoice",
    "voucher",
    "return",
    "exchange",
    "customs",
    "address-change",
    "cancellation",
    "subscription",
    "escalated",
    "legal",
    "fraud-check",
    "follow-up",
    "photo-missing",
    "größe",
    "livraison",
    "spam-suspect",
    "b2b",
    "press",
];

/// Policy name, first response target in ms, longest unresponded target in ms.
pub(super) const SLAS: &[(&str, i64, i64)] = &[
    ("VIP", 900_000, 3_600_000),
    ("Gold", 3_600_000, 14_400_000),
    ("Standard", 14_400_000, 43_200_000),
    ("Best effort", 86_400_000, 172_800_000),
];

pub(super) const LANGUAGES: &[&str] = &["en_us", "de", "es", "fr", "ja", "pl"];
