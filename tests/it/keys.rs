//! The keys as operators meet them: the ring's life, root keys that a service keeps, and no key byte where none belongs.
//!
//! AWS KMS is played by moto, which CI's Python has (`tests/interop/run.sh --python`); Vault by a small server in this file.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use counterfoil::clock::SystemClock;
use counterfoil::keys::RootKey;
use counterfoil::lake::{Lake, Purpose, StoreSettings};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde_json::{Value, json};

use crate::commands::{Bench, assert_fails, text};
use crate::moto::Moto;

const COUNT: [&str; 5] =
    ["query", "-e", "SELECT count(*) AS n, max(updated_at) AS last FROM tickets", "--format", "csv"];

#[track_caller]
fn succeeds(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn rings(bench: &Bench) -> Vec<String> {
    let entries = fs::read_dir(bench.path().join("lake/keys")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn opened(bench: &Bench) -> Lake {
    let root = RootKey::read("file:root.key", bench.path()).unwrap();
    Lake::open(&StoreSettings::new("file:lake", bench.path()), &root, Arc::new(SystemClock)).await.unwrap()
}

/// The words of a line of a listing.
fn words(listing: &str, first: &str) -> Vec<String> {
    let line = listing.lines().find(|line| line.starts_with(&format!("{first} "))).unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

/// Opens every data file with PyArrow's key tools and the primary key alone, where there is a Python for it.
async fn pyarrow_reads_every_file(bench: &Bench) {
    let Some(python) = std::env::var_os("COUNTERFOIL_INTEROP_PYTHON") else { return };
    let lake = opened(bench).await;
    let manifest = lake.latest().await.unwrap();
    let files: Vec<_> = manifest.tables.values().flat_map(|table| table.files.iter()).collect();
    let primary = lake.ring().primary_id().unwrap();
    let key = STANDARD.encode(lake.ring().export(&primary).unwrap().expose());
    let paths: Vec<_> = files.iter().map(|file| bench.path().join("lake").join(&file.path)).collect();
    let request = json!({ "files": paths, "keys": { primary: key } });
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/pyarrow_open.py");
    let mut child = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows: Vec<u64> =
        answer["files"].as_array().unwrap().iter().map(|file| file["rows"].as_u64().unwrap()).collect();
    assert_eq!(rows, files.iter().map(|file| file.rows).collect::<Vec<_>>());
}

/// The code that a dry run gave.
pub(crate) fn code_of(dry_run: &str) -> String {
    let (_, after) = dry_run.split_once("--confirm ").unwrap();
    after.split_whitespace().next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ring_is_rotated_wrapped_anew_and_an_old_key_destroyed_without_losing_a_row() {
    let bench = Bench::new(90).await;
    succeeds(&bench.run(&["extract"]));
    let before = succeeds(&bench.run(&COUNT));
    let mut said = Vec::new();
    let mut run = |arguments: &[&str]| {
        let output = bench.run(arguments);
        said.push((text(&output.stdout), text(&output.stderr)));
        output
    };

    let listing = succeeds(&run(&["keys", "ls"]));
    assert!(listing.contains("ring version  1") && listing.contains("file:root.key"), "{listing}");
    assert_eq!(words(&listing, "ring-1")[1], "primary");
    assert_fails(&run(&["keys", "destroy", "ring-1", "--dry-run"]), 2, &["primary key cannot be destroyed", "rotate"]);
    assert_fails(&run(&["keys", "destroy", "ring-7", "--dry-run"]), 2, &["no such key", "ring-7", "ring-1"]);
    assert_fails(&run(&["keys", "disable", "ring-1"]), 2, &["ring-1", "primary"]);
    assert_eq!(run(&["keys", "rewrap"]).status.code(), Some(2));
    assert_eq!(run(&["keys", "rewrap", "--files", "--root", "env:X"]).status.code(), Some(2));

    let rotated = run(&["keys", "rotate"]);
    succeeds(&rotated);
    assert!(text(&rotated.stderr).contains("ring-2 is the primary key now"), "{}", text(&rotated.stderr));
    bench.sandbox.organisation().touch(&[1, 2]);
    succeeds(&run(&["extract"]));
    let after = succeeds(&run(&COUNT));
    assert_eq!(before.lines().nth(1).unwrap().split(',').next(), after.lines().nth(1).unwrap().split(',').next());
    let listing = succeeds(&run(&["keys", "ls"]));
    let live: usize = words(&listing, "ring-1")[4].parse().unwrap();
    assert!(live >= 8, "the files of the first run: {listing}");
    assert_eq!(words(&listing, "ring-2")[1], "primary");

    // Nothing is destroyed without a dry run, with a wrong code, or while it is needed.
    let hint = "counterfoil keys destroy ring-1 --dry-run";
    assert_fails(&run(&["keys", "destroy", "ring-1"]), 2, &["only after a dry run", hint]);
    let dry_run = succeeds(&run(&["keys", "destroy", "ring-1", "--dry-run"]));
    for word in ["tickets", "live rows", "versions 1", "--lose-data", "cannot be undone"] {
        assert!(dry_run.contains(word), "{word} is not in:\n{dry_run}");
    }
    let code = code_of(&dry_run);
    assert_fails(&run(&["keys", "destroy", "ring-1", "--confirm", "0000-0000"]), 2, &["not the one", hint]);
    assert_fails(
        &run(&["keys", "destroy", "ring-1", "--confirm", &code]),
        2,
        &["cannot be read without", "rewrap --files"],
    );

    let plan = succeeds(&run(&["keys", "rewrap", "--files", "--dry-run"]));
    assert!(plan.contains(&format!("would wrap {live} files")), "{plan}");
    succeeds(&run(&["keys", "rewrap", "--files"]));
    assert_eq!(succeeds(&run(&COUNT)), after);
    let listing = succeeds(&run(&["keys", "ls"]));
    assert_eq!(words(&listing, "ring-1")[4], "0", "{listing}");
    pyarrow_reads_every_file(&bench).await;
    assert!(text(&run(&["keys", "rewrap", "--files"]).stderr).contains("already"));

    let lake = opened(&bench).await;
    let secrets: Vec<[u8; 32]> =
        lake.ring().keys().iter().map(|key| *lake.ring().export(&key.id).unwrap().expose()).collect();
    succeeds(&run(&["keys", "rotate"]));
    assert_fails(&run(&["keys", "destroy", "ring-1", "--confirm", &code]), 2, &["not the one of the last dry run"]);
    let dry_run = succeeds(&run(&["keys", "destroy", "ring-1", "--dry-run"]));
    assert!(!dry_run.contains("--lose-data"), "{dry_run}");
    let destroyed = run(&["keys", "destroy", "ring-1", "--confirm", &code_of(&dry_run)]);
    succeeds(&destroyed);
    assert!(text(&destroyed.stderr).contains("copies and backups"), "{}", text(&destroyed.stderr));
    assert_eq!(rings(&bench), ["ring-00000004"]);
    assert_eq!(succeeds(&run(&COUNT)), after);
    bench.sandbox.organisation().touch(&[3]);
    succeeds(&run(&["extract"]));
    assert_fails(&run(&["keys", "export", "ring-1", "--yes"]), 4, &["destroyed", "ring-1"]);
    assert_fails(&run(&["query", "-e", "SELECT 1 FROM tickets", "--as-of", "1"]), 2, &["not kept any more"]);

    // No key byte in anything that was said.
    for (out, err) in &said {
        for secret in &secrets {
            let hex: Vec<String> = secret.iter().map(|byte| format!("{byte:02x}")).collect();
            let list: Vec<String> = secret.iter().take(6).map(u8::to_string).collect();
            for needle in [STANDARD.encode(secret), hex.concat(), list.join(", ")] {
                assert!(!out.contains(&needle) && !err.contains(&needle), "{out}{err}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erasing_compacting_and_shredding_in_turn_leave_a_sound_lake() {
    let bench = Bench::new(90).await;
    succeeds(&bench.run(&["extract"]));
    bench.sandbox.organisation().touch(&[1, 2, 3]);
    succeeds(&bench.run(&["extract"]));
    let one = succeeds(&bench.run(&["query", "-e", "SELECT customer_id FROM tickets LIMIT 1", "--format", "csv"]));
    let customer = one.lines().nth(1).unwrap().to_owned();
    let erased = bench.run(&["lake", "erase", "--customer", &customer]);
    let receipt: Value = serde_json::from_str(&succeeds(&erased)).unwrap();
    assert_eq!(receipt["customers"], json!([customer]));
    let after = succeeds(&bench.run(&COUNT));

    succeeds(&bench.run(&["keys", "rotate"]));
    succeeds(&bench.run(&["lake", "compact"]));
    succeeds(&bench.run(&["keys", "rewrap", "--files"]));
    let code = code_of(&succeeds(&bench.run(&["keys", "destroy", "ring-1", "--dry-run"])));
    succeeds(&bench.run(&["keys", "destroy", "ring-1", "--confirm", &code]));
    let eager = bench.run_with(&[("COUNTERFOIL_LAKE__KEEP_VERSIONS", "0s")], &["lake", "retain"]);
    succeeds(&eager);
    succeeds(&bench.run(&["lake", "gc"]));
    assert!(succeeds(&bench.run(&["lake", "verify"])).contains("sound"));
    assert_eq!(succeeds(&bench.run(&COUNT)), after);
    let traces = format!("SELECT count(*) FROM ticket_versions WHERE customer_id = '{customer}'");
    assert_eq!(succeeds(&bench.run(&["query", "-e", &traces, "--format", "csv"])).lines().nth(1), Some("0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn export_prints_a_key_only_when_it_is_meant() {
    let bench = Bench::new(30).await;
    assert_fails(&bench.run(&["keys", "export", "ring-1"]), 2, &["not printed", "--yes"]);
    assert_fails(&bench.run(&["keys", "export", "ring-9", "--yes"]), 2, &["no such key", "ring-1"]);
    let output = bench.run(&["keys", "export", "ring-1", "--yes"]);
    let key = succeeds(&output);
    let expected = *opened(&bench).await.ring().export("ring-1").unwrap().expose();
    assert_eq!(STANDARD.decode(key.trim_end()).unwrap(), expected);
    assert!(text(&output.stderr).contains("whoever has ring-1"), "{}", text(&output.stderr));
    assert!(!text(&output.stderr).contains(key.trim_end()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lease_of_another_process_stops_a_rotation_and_a_disabled_key_is_named() {
    let bench = Bench::new(30).await;
    succeeds(&bench.run(&["extract"]));
    let lake = opened(&bench).await;
    for purpose in [Purpose::Maintenance, Purpose::Extract] {
        let lease = lake.lease(purpose, "test").await.unwrap();
        for command in [&["keys", "rotate"][..], &["keys", "rewrap", "--root", "env:OTHER_ROOT"]] {
            let other = STANDARD.encode([5; 32]);
            assert_fails(&bench.run_with(&[("OTHER_ROOT", &other)], command), 9, &["holds the lease", purpose.name()]);
        }
        lease.release().await.unwrap();
    }
    assert_eq!(rings(&bench), ["ring-00000001"]);
    succeeds(&bench.run(&["keys", "rotate"]));
    succeeds(&bench.run(&["keys", "disable", "ring-1"]));
    assert_fails(&bench.run(&COUNT), 4, &["ring-1", "disabled"]);
    assert!(succeeds(&bench.run(&["keys", "ls"])).contains("disabled or destroyed"));
    succeeds(&bench.run(&["keys", "enable", "ring-1"]));
    succeeds(&bench.run(&COUNT));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ring_moves_to_another_root_key_and_the_old_one_is_told_so() {
    let bench = Bench::new(30).await;
    succeeds(&bench.run(&["extract"]));
    let other = STANDARD.encode([9; 32]);
    let with = [("OTHER_ROOT", other.as_str())];
    let plan = succeeds(&bench.run_with(&with, &["keys", "rewrap", "--root", "env:OTHER_ROOT", "--dry-run"]));
    assert!(plan.contains("env:OTHER_ROOT") && plan.contains("version 2"), "{plan}");
    assert_eq!(rings(&bench), ["ring-00000001"]);
    assert_fails(&bench.run(&["keys", "rewrap", "--root", "env:OTHER_ROOT"]), 2, &["OTHER_ROOT"]);

    let moved = bench.run_with(&with, &["keys", "rewrap", "--root", "env:OTHER_ROOT"]);
    succeeds(&moved);
    assert!(text(&moved.stderr).contains("set keys.root = \"env:OTHER_ROOT\" now"), "{}", text(&moved.stderr));
    assert_eq!(rings(&bench), ["ring-00000002"]);
    assert_fails(&bench.run_with(&with, &COUNT), 4, &["root key does not open the key ring", "keys.root"]);
    let set = [with[0], ("COUNTERFOIL_KEYS__ROOT", "env:OTHER_ROOT")];
    succeeds(&bench.run_with(&set, &COUNT));
    let passphrase = [set[0], ("COUNTERFOIL_KEYS__ROOT", "env:OTHER_ROOT"), ("WORDS", "correct horse")];
    succeeds(&bench.run_with(&passphrase, &["keys", "rewrap", "--root", "passphrase:env:WORDS"]));
    succeeds(
        &bench.run_with(&[("COUNTERFOIL_KEYS__ROOT", "passphrase:env:WORDS"), ("WORDS", "correct horse")], &COUNT),
    );
    let wrong = [("COUNTERFOIL_KEYS__ROOT", "passphrase:env:WORDS"), ("WORDS", "correct house")];
    assert_fails(&bench.run_with(&wrong, &COUNT), 4, &["sealed by: passphrase:"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_init_makes_what_is_missing_and_never_a_second_ring() {
    let bench = Bench::new(30).await;
    assert_fails(&bench.run(&["keys", "init"]), 2, &["there is a lake with a key ring already"]);
    fs::rename(bench.path().join("root.key"), bench.path().join("kept.key")).unwrap();
    assert_fails(&bench.run(&["keys", "init"]), 2, &["there is a lake with a key ring already"]);
    assert!(!bench.path().join("root.key").exists(), "a new key would hide that the old one is missing");

    fs::remove_dir_all(bench.path().join("lake")).unwrap();
    let made = bench.run(&["keys", "init"]);
    succeeds(&made);
    assert!(text(&made.stderr).contains("root.key"), "{}", text(&made.stderr));
    succeeds(&bench.run(&["extract"]));
    fs::remove_dir_all(bench.path().join("lake")).unwrap();
    let key = fs::read(bench.path().join("root.key")).unwrap();
    succeeds(&bench.run(&["keys", "init"]));
    assert_eq!(fs::read(bench.path().join("root.key")).unwrap(), key, "a key that is there is taken");
}

/// A transit engine: it encrypts under keys of its own, and checks the token and the namespace.
struct Transit {
    keys: Mutex<HashMap<String, [u8; 32]>>,
    /// Answers every request with this status; 0 for none.
    answers: AtomicU16,
    requests: AtomicUsize,
}

const TOKEN: &str = "hvs.needle-of-the-token";

impl Transit {
    async fn start() -> (Arc<Self>, SocketAddr) {
        let keys = HashMap::from([("lake".to_owned(), [1; 32]), ("other".to_owned(), [2; 32])]);
        let transit =
            Arc::new(Self { keys: Mutex::new(keys), answers: AtomicU16::new(0), requests: AtomicUsize::new(0) });
        let routes = Router::new()
            .route("/v1/team/transit/encrypt/{key}", post(encrypt))
            .route("/v1/team/transit/decrypt/{key}", post(decrypt))
            .with_state(Arc::clone(&transit));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (transit, address)
    }

    fn key(&self, name: &str, headers: &HeaderMap) -> Result<LessSafeKey, StatusCode> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let answers = self.answers.load(Ordering::SeqCst);
        if answers != 0 {
            return Err(StatusCode::from_u16(answers).unwrap());
        }
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if header("x-vault-token") != Some(TOKEN) || header("x-vault-namespace") != Some("support") {
            return Err(StatusCode::FORBIDDEN);
        }
        let key = self.keys.lock().unwrap().get(name).copied().ok_or(StatusCode::BAD_REQUEST)?;
        Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap()))
    }
}

type Answered = Result<Json<Value>, (StatusCode, String)>;

/// What a service might say in an error: nothing of it may reach a message.
fn refused(status: StatusCode) -> (StatusCode, String) {
    (status, json!({ "errors": ["needle-of-the-body"] }).to_string())
}

fn bytes(body: &Value, field: &str) -> Vec<u8> {
    STANDARD.decode(body[field].as_str().unwrap()).unwrap()
}

async fn encrypt(
    State(transit): State<Arc<Transit>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Answered {
    let key = transit.key(&name, &headers).map_err(refused)?;
    let mut text = bytes(&body, "plaintext");
    assert_eq!(text.len(), 32, "a key is wrapped, never the ring");
    let nonce = Nonce::assume_unique_for_key([7; 12]);
    key.seal_in_place_append_tag(nonce, Aad::from(bytes(&body, "associated_data")), &mut text).unwrap();
    Ok(Json(json!({ "data": { "ciphertext": format!("vault:v1:{}", STANDARD.encode(text)) } })))
}

async fn decrypt(
    State(transit): State<Arc<Transit>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Answered {
    let key = transit.key(&name, &headers).map_err(refused)?;
    let text = body["ciphertext"].as_str().unwrap().strip_prefix("vault:v1:").unwrap();
    let mut text = STANDARD.decode(text).unwrap();
    let nonce = Nonce::assume_unique_for_key([7; 12]);
    let plain = key
        .open_in_place(nonce, Aad::from(bytes(&body, "associated_data")), &mut text)
        .map_err(|_| refused(StatusCode::BAD_REQUEST))?;
    Ok(Json(json!({ "data": { "plaintext": STANDARD.encode(plain) } })))
}

/// Makes the ring of a lake one of another lake: in `lake.json` and in the ring's header.
fn rename_lake(bench: &Bench) {
    let path = bench.path().join("lake/lake.json");
    let mut claim: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let id = claim["id"].as_str().unwrap().to_owned();
    let other: String = id.chars().rev().collect();
    claim["id"] = json!(other);
    fs::write(&path, claim.to_string()).unwrap();
    let ring = bench.path().join("lake/keys").join(&rings(bench)[0]);
    let mut bytes = fs::read(&ring).unwrap();
    let at = bytes.windows(id.len()).position(|window| window == id.as_bytes()).unwrap();
    bytes[at..at + id.len()].copy_from_slice(other.as_bytes());
    fs::write(&ring, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vault_keeps_the_root_key() {
    let (transit, address) = Transit::start().await;
    let endpoint = format!("http://{address}");
    let bench = Bench::new(30).await;
    let settings = |key: &'static str| {
        [
            ("COUNTERFOIL_KEYS__ROOT", key),
            ("COUNTERFOIL_KEYS__ENDPOINT", endpoint.as_str()),
            ("COUNTERFOIL_KEYS__NAMESPACE", "support"),
            ("VAULT_TOKEN", TOKEN),
        ]
    };
    let lake = settings("vault:team/transit/lake");
    fs::remove_dir_all(bench.path().join("lake")).unwrap();
    succeeds(&bench.run_with(&lake, &["keys", "init"]));
    let header = fs::read(bench.path().join("lake/keys/ring-00000001")).unwrap();
    assert_eq!(header[7], 3);

    let asked = transit.requests.load(Ordering::SeqCst);
    succeeds(&bench.run_with(&lake, &["extract"]));
    assert_eq!(transit.requests.load(Ordering::SeqCst), asked + 1, "a process asks once");
    succeeds(&bench.run_with(&lake, &["keys", "rotate"]));
    succeeds(&bench.run_with(&lake, &COUNT));

    let mut said = Vec::new();
    let mut fails = |environment: &[(&str, &str)], code, words: &[&str]| {
        let output = bench.run_with(environment, &COUNT);
        assert_fails(&output, code, words);
        said.push(text(&output.stderr));
    };
    fails(
        &settings("vault:team/transit/other"),
        4,
        &["not the one that sealed", "team/transit/other", "team/transit/lake"],
    );
    fails(&settings("vault:team/transit/unknown"), 4, &["team/transit/unknown"]);
    fails(&settings("vault:elsewhere/lake"), 2, &["no transit engine", "elsewhere/lake"]);
    fails(&settings("vault:lake"), 2, &["vault:MOUNT/KEY"]);
    let denied = [lake[0], lake[1], lake[2], ("VAULT_TOKEN", "hvs.needle-of-another-token")];
    fails(&denied, 4, &["Vault refuses", "status: 403"]);
    fails(&lake[..3], 2, &["VAULT_TOKEN"]);
    let by_setting = [lake[0], lake[1], lake[2], ("COUNTERFOIL_KEYS__TOKEN", "env:MINE"), ("MINE", TOKEN)];
    succeeds(&bench.run_with(&by_setting, &COUNT));
    let address_only = [lake[0], ("VAULT_ADDR", endpoint.as_str()), lake[3], ("VAULT_NAMESPACE", "support")];
    succeeds(&bench.run_with(&address_only, &COUNT));
    let plain = [lake[0], ("COUNTERFOIL_KEYS__ENDPOINT", "http://vault.example.com"), lake[2], lake[3]];
    fails(&plain, 2, &["plain http", "vault.example.com"]);

    let asked = transit.requests.load(Ordering::SeqCst);
    transit.answers.store(503, Ordering::SeqCst);
    fails(&lake, 3, &["cannot answer now", "status: 503", "attempts: 3"]);
    assert_eq!(transit.requests.load(Ordering::SeqCst), asked + 3);
    transit.answers.store(0, Ordering::SeqCst);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = format!("http://{free}");
    fails(&[lake[0], ("COUNTERFOIL_KEYS__ENDPOINT", &gone), lake[2], lake[3]], 3, &["does not answer"]);
    fails(&[("COUNTERFOIL_KEYS__ROOT", "file:root.key")], 4, &["sealed by: vault:"]);

    fs::remove_file(bench.path().join("lake/keys/ring-00000001")).unwrap();
    rename_lake(&bench);
    fails(&lake, 4, &["not the one that sealed"]);
    for said in said {
        assert!(!said.contains("needle"), "{said}");
    }
}

impl Moto {
    async fn ask_kms(&self, operation: &str, request: Value) -> Value {
        let scope =
            "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/kms/aws4_request, SignedHeaders=host, Signature=0";
        let client = reqwest::Client::builder().no_proxy().tls_built_in_root_certs(false).build().unwrap();
        let answer = client
            .post(format!("{}/", self.endpoint()))
            .header("x-amz-target", format!("TrentService.{operation}"))
            .header("content-type", "application/x-amz-json-1.1")
            .header("authorization", scope)
            .body(request.to_string())
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{operation}: {}", answer.status());
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default()
    }

    async fn key(&self) -> String {
        let made = self.ask_kms("CreateKey", json!({})).await;
        made["KeyMetadata"]["Arn"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aws_kms_keeps_the_root_key() {
    let Some(moto) = Moto::serve().await else { return };
    let (first, second) = (moto.key().await, moto.key().await);
    moto.ask_kms("CreateAlias", json!({ "AliasName": "alias/lake", "TargetKeyId": first })).await;
    let endpoint = moto.endpoint();
    let bench = Bench::new(30).await;
    succeeds(&bench.run(&["extract"]));
    let count = succeeds(&bench.run(&COUNT));

    let environment = |root: &str| -> Vec<(String, String)> {
        [
            ("COUNTERFOIL_KEYS__ROOT", root),
            ("COUNTERFOIL_KEYS__ENDPOINT", endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "needle-of-the-secret"),
            ("AWS_REGION", "us-east-1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    };
    let run = |environment: &[(String, String)], arguments: &[&str]| {
        let pairs: Vec<(&str, &str)> =
            environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let output = bench.run_with(&pairs, arguments);
        assert!(!text(&output.stderr).contains("needle"), "{}", text(&output.stderr));
        output
    };
    let (by_first, by_second) = (environment(&format!("aws-kms:{first}")), environment(&format!("aws-kms:{second}")));
    let by_alias = environment("aws-kms:alias/lake");

    // From a key file to KMS; the endpoint of the new root key is given beside it.
    let by_file: Vec<_> = by_first[2..].to_vec();
    let reference = format!("aws-kms:{first}");
    succeeds(&run(&by_file, &["keys", "rewrap", "--root", &reference, "--endpoint", &endpoint]));
    assert_fails(&bench.run(&COUNT), 4, &["sealed by: aws-kms:"]);
    assert_eq!(succeeds(&run(&by_first, &COUNT)), count);
    assert_eq!(succeeds(&run(&by_alias, &COUNT)), count);
    let key = fs::read(bench.path().join("lake/keys/ring-00000002")).unwrap();
    assert_eq!(key[7], 2);

    assert_fails(&run(&by_second, &COUNT), 4, &[&second, &first, "Decrypt"]);
    let unknown = environment("aws-kms:00000000-0000-0000-0000-000000000000");
    assert_fails(&run(&unknown, &COUNT), 2, &["does not know the key", "00000000-0000"]);
    assert_fails(&run(&environment("aws-kms:not a key"), &COUNT), 2, &["not a key of AWS KMS"]);
    let nowhere: Vec<_> = by_alias[..4].to_vec();
    assert_fails(&run(&nowhere, &COUNT), 2, &["region", "AWS_REGION"]);
    let mut in_arn = by_first.clone();
    in_arn.truncate(4);
    assert_eq!(succeeds(&run(&in_arn, &COUNT)), count, "the ARN tells the region");

    // An alias that points at another key does not open older rings; its key does, and seals the ring under the alias again.
    moto.ask_kms("UpdateAlias", json!({ "AliasName": "alias/lake", "TargetKeyId": second })).await;
    assert_fails(&run(&by_alias, &COUNT), 4, &["alias/lake", &first]);
    succeeds(&run(&by_first, &["keys", "rewrap", "--root", "aws-kms:alias/lake"]));
    assert_eq!(succeeds(&run(&by_alias, &COUNT)), count);
    assert_eq!(succeeds(&run(&by_second, &COUNT)), count);
    assert_fails(&run(&by_first, &COUNT), 4, &[&first, &second]);
    succeeds(&run(&by_alias, &["keys", "rotate"]));
    succeeds(&run(&by_alias, &["extract"]));

    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut down = by_alias.clone();
    down[1].1 = format!("http://{free}");
    assert_fails(&run(&down, &COUNT), 3, &["does not answer", "try again later"]);
    down[1].1 = "http://kms.example.com".to_owned();
    assert_fails(&run(&down, &COUNT), 2, &["plain http"]);

    let older = bench.path().join("lake/keys/ring-00000003");
    fs::remove_file(older).unwrap();
    rename_lake(&bench);
    assert_fails(&run(&by_alias, &COUNT), 4, &["InvalidCiphertextException"]);
}
