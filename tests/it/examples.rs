//! The response examples of the source's public documentation decode.
//!
//! They are read where they lie beside the project and never copied into it: where the folder is missing, each test says that
//! it was skipped.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "functions of tests, which clippy.toml exempts only where they carry #[test]"
)]

use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;
use counterfoil::clock::SystemClock;
use counterfoil::error::{Error, ErrorKind};
use counterfoil::kustomer::{Client, ClientSettings, Credential, Endpoint};
use counterfoil::model::Stream;
use counterfoil::policy::{Definitions, Policy};
use counterfoil::resolve::{Attachment, Page};
use counterfoil::schema::{BUILTIN, OPTIONAL, Schemas};
use counterfoil::secret::{PseudonymKey, PseudonymKeys, SecretKey, SecretString};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/kustomer/examples");

/// The declarations that the program ships with.
static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| Schemas::builtin().unwrap());

/// Reads an example, or says that the test is skipped.
fn example(name: &str) -> Option<Vec<u8>> {
    if !Path::new(FOLDER).is_dir() {
        // Written past the harness, which keeps to itself what a passing test prints.
        std::io::stderr()
            .write_all(format!("skipped: the response examples are not at {FOLDER}\n").as_bytes())
            .unwrap();
        return None;
    }
    Some(std::fs::read(Path::new(FOLDER).join(name)).unwrap())
}

/// Decodes an example as extract would.
fn decode(stream: Stream, page: &[u8], definitions: &Definitions) -> RecordBatch {
    let policy = Policy::compile(&SCHEMAS).unwrap();
    let key = PseudonymKey { version: 1, key: SecretKey::new([7; 32]) };
    let keys = PseudonymKeys::try_new([Arc::new(key)]).unwrap();
    let mut decoder = policy.decoder(stream, definitions, &keys).unwrap();
    let summary = decoder.push_page(page).unwrap();
    let batch = decoder.finish().unwrap();
    assert_eq!(summary.records.len(), batch.batch().num_rows());
    batch.batch().clone()
}

/// Returns a value as text; empty where it is null.
fn value(batch: &RecordBatch, column: &str, row: usize) -> String {
    let names = || batch.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    let column = batch.column_by_name(column).unwrap_or_else(|| panic!("no column {column} in {:?}", names()));
    array_value_to_string(column, row).unwrap()
}

/// Returns the name of the column that is declared at a path of the record.
fn column_at(stream: Stream, path: &[&str]) -> String {
    let table = SCHEMAS.table(stream).unwrap();
    let column = table.columns.iter().find(|column| column.path == path);
    column.unwrap_or_else(|| panic!("nothing is declared at {path:?}")).name.clone()
}

#[test]
fn conversations_decode_into_columns() {
    for name in [
        "GetConversation.response.200.json",
        "GetConversations.response.200.json",
        "GetConversationsByCustomer.response.200.json",
    ] {
        let Some(page) = example(name) else { return };
        let batch = decode(Stream::Tickets, &page, &Definitions::default());
        assert_eq!(batch.num_rows(), 1, "{name}");
        for (column, expected) in [
            ("ticket_id", "58228e05d4e96711004eccb7"),
            ("status", "done"),
            ("created_at", "2016-11-09T02:46:29.789Z"),
            ("updated_at", "2016-11-09T03:23:34.064Z"),
        ] {
            assert_eq!(value(&batch, column, 0), expected, "{name} {column}");
        }
        for (path, expected) in [
            (&["attributes", "messageCount"][..], "0"),
            (&["attributes", "noteCount"], "0"),
            (&["attributes", "outboundMessageCount"], "0"),
            (&["attributes", "direction"], "in"),
            (&["attributes", "rev"], "1"),
            (&["relationships", "customer", "data", "id"], "58210c3db0f09110006b7953"),
            (&["attributes", "firstResponse", "time"], ""),
        ] {
            assert_eq!(value(&batch, &column_at(Stream::Tickets, path), 0), expected, "{name} {path:?}");
        }
    }
}

#[test]
fn customers_decode_into_columns() {
    let counts = ["all", "open", "snoozed", "done"]
        .map(|name| column_at(Stream::Customers, &["attributes", "conversationCounts", name]));
    for (name, ids, counted) in [
        ("GetCustomerById.response.200.json", &["58210c3db0f09110006b7953"][..], ["3", "2", "0", "1"]),
        (
            "CustomerSearch.response.200.json",
            &["576db7781126c61100824494", "5771a9181126c611008253ff"],
            ["", "", "", ""],
        ),
        (
            "CustomerArchiveSearch.response.200.json",
            &["576db7781126c61100824494", "5771a9181126c611008253ff"],
            ["", "", "", ""],
        ),
    ] {
        let Some(page) = example(name) else { return };
        let batch = decode(Stream::Customers, &page, &Definitions::default());
        let found: Vec<_> = (0..batch.num_rows()).map(|row| value(&batch, "customer_id", row)).collect();
        assert_eq!(found, ids, "{name}");
        for (column, expected) in counts.iter().zip(counted) {
            assert_eq!(value(&batch, column, 0), expected, "{name} {column}");
        }
        let source: Value = serde_json::from_slice(&page).unwrap();
        let first = source.pointer("/data/0").or_else(|| source.pointer("/data")).unwrap();
        assert_eq!(value(&batch, "updated_at", 0), first["attributes"]["updatedAt"].as_str().unwrap(), "{name}");
        // Names and addresses are of the class personal: nothing of them is in the columns.
        let person = first["attributes"]["name"].as_str().unwrap();
        for column in 0..batch.num_columns() {
            assert!(!array_value_to_string(batch.column(column), 0).unwrap().contains(person), "{name}");
        }
    }
}

#[test]
fn definitions_of_custom_attributes_decode() {
    let Some(page) = example("GetCustomAttributeMetadata.response.200.json") else { return };
    Definitions::default().add(Stream::Customers, &page).unwrap();
    let definitions = Page::decode(&page).unwrap().resources[0].definitions();
    let names: Vec<_> = definitions.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["shopifyCustomerIdNum", "myCustomStr", "ordersId"]);
    let first: Value = serde_json::from_str(&definitions[0].1).unwrap();
    assert_eq!(first["type"], "number");
}

#[test]
fn conversation_times_decode_into_columns() {
    let whole = Schemas::from_files(BUILTIN.into_iter().chain(OPTIONAL)).unwrap();
    let policy = Policy::compile(&whole).unwrap();
    let key = PseudonymKey { version: 1, key: SecretKey::new([7; 32]) };
    let keys = PseudonymKeys::try_new([Arc::new(key)]).unwrap();
    let decoder = policy.decoder(Stream::TicketTimes, &Definitions::default(), &keys).unwrap();
    for (name, times) in [
        ("GetConversationTimeByIds.response.200.json", 1),
        ("GetConversationTimesByConversationId.response.200.json", 7),
    ] {
        let Some(page) = example(name) else { return };
        let mut decoder = decoder.fork();
        assert_eq!(decoder.push_page(&page).unwrap().records.len(), times, "{name}");
        assert_eq!(decoder.quarantine(), [], "{name}");
        let rows = decoder.finish().unwrap();
        for (column, expected) in [
            ("ticket_time_id", "5faee8bd01b6a7060833dafb"),
            ("updated_at", "2020-11-13T20:12:45.025Z"),
            ("ticket_id", "5f184e74c61792001af42e49"),
            ("user_id", "5ce4672fcce83d001a9e83e8"),
            ("handle_at", "2020-11-13T20:12:26.299Z"),
            ("handle_s", "19.0"),
            ("message_s", ""),
            ("channels", "[chat]"),
        ] {
            assert_eq!(value(rows.batch(), column, 0), expected, "{name}: {column}");
        }
        if times == 7 {
            assert_eq!(
                (value(rows.batch(), "message_s", 5), value(rows.batch(), "handle_s", 5)),
                ("3691.0".into(), "3692.0".into())
            );
        }
    }
}

#[test]
fn messages_and_notes_pass_unchanged_on_one_line() {
    for (name, id) in [
        ("GetMessagesByConversation.response.200.json", "57c8d2b01a57ed1400392073"),
        ("GetNotesByConversation.response.200.json", "5828a3be7c7f551a00b5b720"),
        ("GetConversation.response.200.json", "58228e05d4e96711004eccb7"),
        ("GetCustomerById.response.200.json", "58210c3db0f09110006b7953"),
    ] {
        let Some(body) = example(name) else { return };
        let page = Page::decode(&body).unwrap();
        let source: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(page.resources.len(), 1, "{name}");
        assert_eq!(page.resources[0].id.as_deref(), Some(id));
        assert_eq!(page.next, None);
        assert!(!page.resources[0].json.contains('\n'));
        let passed: Value = serde_json::from_str(&page.resources[0].json).unwrap();
        assert_eq!(Some(&passed), source.pointer("/data/0").or_else(|| source.pointer("/data")), "{name}");
    }
    let Some(body) = example("GetConversation.response.200.json") else { return };
    let references = Page::decode(&body).unwrap().resources[0].references();
    assert_eq!(references.customer_id.as_deref(), Some("58210c3db0f09110006b7953"));
    assert!(references.tag_ids.is_empty() && references.custom.is_empty());
}

#[test]
fn attachments_decode_without_their_signed_links() {
    let image = |id: &str, message: &str, name: &str| Attachment {
        id: Some(id.to_owned()),
        message_id: Some(message.to_owned()),
        name: Some(name.to_owned()),
        content_type: Some("image/jpeg".to_owned()),
        content_length: Some(98_153),
        redacted: Some(false),
    };
    let first = image("5e0e14c103a4e80018b374aa", "5e0e14a7af4e8c001a084dba", "example.jpg");
    let mut outbound = image("5a4d1a8a6d92880012ad2923", "", "myattachment.jpg");
    outbound.message_id = None;
    outbound.content_length = Some(512);
    for (name, expected) in [
        ("GetAttachmentByMessageAndAttachmentId.response.200.json", vec![first.clone()]),
        ("GetAttachmentsById.response.200.json", vec![outbound]),
        (
            "GetConversationAttachments.response.200.json",
            vec![first, image("5e0e14c103a4e80018b374ab", "5e0e14a7af4e8c001a084dbb", "example2.jpg")],
        ),
    ] {
        let Some(body) = example(name) else { return };
        let page = Page::decode_attachments(&body).unwrap();
        assert!(!format!("{page:?}").contains("X-Amz"), "{name}");
        assert_eq!(page.attachments, expected, "{name}");
    }
}

#[tokio::test]
async fn errors_decode_into_the_kind_that_tells_what_to_do() {
    for (name, status, kind) in [
        ("GetConversation.response.400.json", 400, ErrorKind::Internal),
        ("GetConversation.response.401.json", 401, ErrorKind::Denied),
        ("GetMessages.response.401.json", 401, ErrorKind::Denied),
        ("GetConversation.response.404.json", 404, ErrorKind::Data),
    ] {
        let Some(body) = example(name) else { return };
        let error = answered(status, body).await;
        assert_eq!(error.kind(), kind, "{name}: {error:?}");
        // The example's own words, where the kind of error repeats the source's.
        if status != 404 {
            assert!(error.to_string().contains("<string>"), "{name}: {error}");
        }
    }
}

/// Returns what the client makes of an answer.
async fn answered(status: u16, body: Vec<u8>) -> Error {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        }
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
    });
    let settings = ClientSettings {
        base_url: format!("http://{address}").parse().unwrap(),
        credential: Credential::ApiKey(SecretString::new("key".to_owned())),
        org_rpm: 1_000,
        search_rpm: 100,
        share: 1.0,
        reserve: 0,
        timeout: Duration::from_secs(10),
        attempts: 1,
    };
    let client = Client::try_new(settings, Arc::new(SystemClock), 7).unwrap();
    let error = client.get(Endpoint::Conversations, "/v1/conversations/58228e05d4e96711004eccb7").await.unwrap_err();
    server.await.unwrap();
    error
}
