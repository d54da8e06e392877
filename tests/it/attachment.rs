//! `counterfoil attachment` as people meet it: bytes, lengths, links, broken connections, wrong ids.

use std::fs;
use std::io::Read as _;
use std::process::Stdio;

use counterfoil::sandbox::{Fault, FileFaults, SandboxSettings, Thread};
use serde_json::Value;

use crate::commands::{Bench, assert_fails, text};

/// A ticket with a file, the file's id and length.
struct Case {
    bench: Bench,
    ticket: String,
    file: String,
    bytes: usize,
}

async fn case() -> Case {
    case_with(SandboxSettings::default()).await
}

async fn case_with(settings: SandboxSettings) -> Case {
    let thread = Some(Thread { messages: 2, notes: 1, attachments: 2 });
    let bench = Bench::with(SandboxSettings { tickets: 50, customers: 20, thread, ..settings }).await;
    let tickets: Vec<String> = (0..50)
        .map(|number| bench.sandbox.organisation().conversation(number)["id"].as_str().unwrap().to_owned())
        .collect();
    let output = bench.run(
        &[&["resolve", "-q", "--only", "attachments"], &tickets.iter().map(String::as_str).collect::<Vec<_>>()[..]]
            .concat(),
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    let files = lines.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let file = &line["attachments"][0];
        let bytes = file["content_length"].as_u64()? as usize;
        let id = |value: &Value| value.as_str().unwrap().to_owned();
        (bytes > 5_000 && file["redacted"] == false).then(|| (id(&line["ticket_id"]), id(&file["id"]), bytes))
    });
    let (ticket, file, bytes) = files.into_iter().next().unwrap();
    Case { bench, ticket, file, bytes }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_come_whole_for_one_request_and_the_bearer_stays_with_the_api() {
    let case = case().await;
    case.bench.sandbox.reset_traffic();
    let before = case.bench.sandbox.requests();
    let output = case.bench.run(&["attachment", &case.ticket, &case.file]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(output.stdout.len(), case.bytes);
    let added: u64 = case.bench.sandbox.requests().values().sum::<u64>() - before.values().sum::<u64>();
    assert_eq!(added, 1);
    assert_eq!(case.bench.sandbox.file_requests(), (1, 0));
    let sql = "SELECT phase, command, outcome, requests, ticket_id FROM accesses WHERE attachment_id IS NOT NULL ORDER BY phase";
    let record = text(&case.bench.run(&["query", "-e", sql, "--format", "csv"]).stdout);
    let lines: Vec<&str> = record.lines().skip(1).collect();
    let ticket = &case.ticket;
    assert_eq!(lines, [format!("asked,attachment,,,{ticket}"), format!("delivered,attachment,complete,1,{ticket}")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_connection_is_taken_up_where_it_broke() {
    let case = case().await;
    let whole = case.bench.run(&["attachment", &case.ticket, &case.file]).stdout;
    case.bench.sandbox.fail_files(FileFaults { breaks: 1, after_bytes: 2_000, ..FileFaults::default() });
    let output = case.bench.run(&["attachment", &case.ticket, &case.file]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(output.stdout, whole);
    assert!(text(&output.stderr).is_empty() || !text(&output.stderr).contains("X-Amz"), "{}", text(&output.stderr));

    // What broke for good says how far it came.
    case.bench.sandbox.fail_files(FileFaults { breaks: 99, after_bytes: 1_000, ..FileFaults::default() });
    let output = case.bench.run(&["attachment", &case.ticket, &case.file]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains(&format!("bytes: 2000 of {}", case.bytes)) && !stderr.contains("receipt-"), "{stderr}");
    assert_eq!(output.stdout, whole[..2_000]);

    // The rest of another file is not joined to what came.
    case.bench.sandbox.fail_files(FileFaults { breaks: 1, after_bytes: 1_000, changes: true, ..FileFaults::default() });
    let output = case.bench.run(&["attachment", &case.ticket, &case.file]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(5), 1_000), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("changed while it was read"), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lengths_that_do_not_agree_and_links_elsewhere_give_no_byte() {
    let case = case().await;
    for more_bytes in [1, -1, 5_000] {
        case.bench.sandbox.fail_files(FileFaults { more_bytes, ..FileFaults::default() });
        let output = case.bench.run(&["attachment", &case.ticket, &case.file]);
        assert_fails(&output, 5, &["different lengths", &case.bytes.to_string(), &case.file]);
    }
    case.bench.sandbox.fail_files(FileFaults { redirects: true, ..FileFaults::default() });
    let output = case.bench.run(&["attachment", &case.ticket, &case.file]);
    assert_fails(&output, 5, &["redirect", "127.0.0.1"]);
    assert!(!text(&output.stderr).contains("elsewhere"), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_link_is_replaced_once() {
    let case = case().await;
    case.bench.sandbox.fail_files(FileFaults { expired: 1, ..FileFaults::default() });
    let output = case.bench.run(&["attachment", &case.ticket, &case.file]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(output.stdout.len(), case.bytes);
    case.bench.sandbox.fail_files(FileFaults { expired: 9, ..FileFaults::default() });
    let output = case.bench.run(&["attachment", &case.ticket, &case.file]);
    assert_fails(&output, 4, &["signed this moment", "doctor", &case.file]);
    assert_eq!(case.bench.sandbox.file_requests().0, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_ids_and_rights_end_in_one_clear_error() {
    let case = case().await;
    let nothing = "000000000000000000000000";
    assert_fails(&case.bench.run(&["attachment", "zz", &case.file]), 2, &["24 hex digits", "ticket: zz"]);
    assert_fails(&case.bench.run(&["attachment", &case.ticket, "../x"]), 2, &["24 hex digits", "attachment: ../x"]);
    assert_fails(&case.bench.run(&["attachment", nothing, &case.file]), 7, &["does not exist", nothing]);
    assert_fails(&case.bench.run(&["attachment", &case.ticket, nothing]), 7, &["no such attachment", &case.file]);
    let redacted =
        case.bench.run_with(&[("COUNTERFOIL_RESOLVE__REDACT", "true")], &["attachment", &case.ticket, &case.file]);
    assert_fails(&redacted, 4, &["cannot be redacted", "resolve.redact"]);
    let redacted = case.bench.run(&["attachment", &case.ticket, &case.file, "--redact"]);
    assert_fails(&redacted, 4, &["cannot be redacted", "--redact"]);
    case.bench.sandbox.fail_route("GET /v1/conversations/{id}/attachments", Some(Fault::Status(403)));
    assert_fails(&case.bench.run(&["attachment", &case.ticket, &case.file]), 4, &["org.user.attachment.read"]);
    case.bench.sandbox.fail_route("GET /v1/conversations/{id}/attachments", None);

    // Without a record of the access there is no byte.
    fs::rename(case.bench.path().join("lake"), case.bench.path().join("moved")).unwrap();
    assert_fails(
        &case.bench.run(&["attachment", &case.ticket, &case.file]),
        2,
        &["could not be recorded", "access_record = false"],
    );
    let off = case
        .bench
        .run_with(&[("COUNTERFOIL_RESOLVE__ACCESS_RECORD", "false")], &["attachment", &case.ticket, &case.file]);
    assert!(off.status.success(), "{}", text(&off.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_that_leaves_is_no_error() {
    let case = case().await;
    let mut child = case
        .bench
        .command(&["attachment", &case.ticket, &case.file])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_comes_from_a_host_without_ranges_and_over_a_fresh_link() {
    let case = case().await;
    let whole = case.bench.run(&["attachment", &case.ticket, &case.file]).stdout;
    let broken = FileFaults { breaks: 1, after_bytes: 2_001, ..FileFaults::default() };
    for faults in [
        FileFaults { ignores_ranges: true, ..broken },
        FileFaults { expired_rests: 1, ..broken },
        FileFaults { expired_rests: 1, ignores_ranges: true, ..broken },
    ] {
        case.bench.sandbox.fail_files(faults);
        let output = case.bench.run(&["attachment", &case.ticket, &case.file]);
        assert!(output.status.success(), "{faults:?}: {}", text(&output.stderr));
        assert!(output.stdout == whole, "{faults:?}");
    }
    // A link that is refused, and so is the fresh one: what came is told.
    case.bench.sandbox.fail_files(FileFaults { expired_rests: 9, ..broken });
    let output = case.bench.run(&["attachment", &case.ticket, &case.file]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(4), 2_001), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("bytes: 2001"), "{}", text(&output.stderr));
    assert_eq!(case.bench.sandbox.file_requests().1, 0, "no credential went to the file host");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_and_large_files_come_whole() {
    for bytes in [0, 1, 20 << 20] {
        let settings = SandboxSettings { attachment_bytes: Some(bytes), ..SandboxSettings::default() };
        let thread = Some(Thread { messages: 1, notes: 1, attachments: 1 });
        let bench = Bench::with(SandboxSettings { tickets: 20, customers: 5, thread, ..settings }).await;
        // A few files of an organisation are redacted.
        let delivered = (0..20).find_map(|number| {
            let ticket = bench.sandbox.organisation().conversation(number)["id"].as_str().unwrap().to_owned();
            let line = bench.run(&["resolve", &ticket, "--only", "attachments", "-q"]).stdout;
            let line: Value = serde_json::from_slice(&line).unwrap();
            let file = line["attachments"][0]["id"].as_str().unwrap().to_owned();
            let output = bench.run(&["attachment", &ticket, &file]);
            if line["attachments"][0]["redacted"] == true {
                assert_fails(&output, 7, &["taken away", &file]);
                return None;
            }
            Some(output)
        });
        let output = delivered.unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(output.stdout.len() as u64, bytes);
    }
}

/// Asked while the last part of the file waits in the pipe, whose room is far below it.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_file_passes_through_flat_memory() {
    const LENGTH: usize = 160 << 20;
    let case = case_with(SandboxSettings { attachment_bytes: Some(LENGTH as u64), ..SandboxSettings::default() }).await;
    let mut child =
        case.bench.command(&["attachment", &case.ticket, &case.file]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut piece = vec![0; 1 << 20];
    for _ in 1..LENGTH / piece.len() {
        out.read_exact(&mut piece).unwrap();
    }
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
    out.read_to_end(&mut piece).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(peak_kib < 120 << 10, "{peak_kib} KiB for a file of {} KiB", LENGTH >> 10);
}
