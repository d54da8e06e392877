//! Where lakes live: an S3 bucket on a real server, full and vanishing disks, a log that is put back.
//!
//! The server is moto, from the Python that `tests/interop/run.sh --python` makes and CI names in
//! `COUNTERFOIL_INTEROP_PYTHON`. Without it these tests say that they were skipped.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use counterfoil::clock::{SharedClock, SystemClock};
use counterfoil::error::ErrorKind;
use counterfoil::keys::RootKey;
use counterfoil::lake::run::RunRecord;
use counterfoil::lake::{Lake, Purpose, StoreSettings};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::commands::{Bench, assert_fails, listing, text};
use crate::moto::Moto;
use crate::world::root;

impl Moto {
    /// Starts a server with an empty bucket `tickets`; `None` where there is no Python for it.
    async fn with_bucket() -> Option<Self> {
        let moto = Self::serve().await?;
        assert_eq!(moto.ask("PUT", "/tickets").await, 200);
        Some(moto)
    }

    /// Sends a request without a body; returns the status.
    async fn ask(&self, method: &str, path: &str) -> u16 {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The service is told by the host's name or by the credential's scope.
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: AWS4-HMAC-SHA256 Credential=id/20261122/us-east-1/s3/aws4_request, \
             SignedHeaders=host, Signature=0\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            self.address
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Settings of a lake in the bucket, with credentials in files of `folder`.
    fn settings(&self, folder: &Path, url: &str) -> StoreSettings {
        fs::write(folder.join("s3.id"), "AKIANEEDLE").unwrap();
        fs::write(folder.join("s3.key"), "needle-of-the-secret-key").unwrap();
        StoreSettings {
            endpoint: Some(self.endpoint()),
            region: Some("us-east-1".to_owned()),
            access_key_id: Some("file:s3.id".parse().unwrap()),
            secret_access_key: Some("file:s3.key".parse().unwrap()),
            state: Some(folder.join("state")),
            ..StoreSettings::new(url, folder)
        }
    }

    /// The same, for the binary.
    fn environment(&self) -> [(String, String); 4] {
        [
            ("COUNTERFOIL_LAKE__ENDPOINT".to_owned(), self.endpoint()),
            ("COUNTERFOIL_LAKE__REGION".to_owned(), "us-east-1".to_owned()),
            // The provider's own names, without which a credential is looked for at the machine's address.
            ("AWS_ACCESS_KEY_ID".to_owned(), "AKIANEEDLE".to_owned()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), "needle-of-the-secret-key".to_owned()),
        ]
    }
}

fn new_root() -> (TempDir, RootKey) {
    let folder = tempfile::tempdir().unwrap();
    RootKey::create_file(&folder.path().join("root.key")).unwrap();
    let key = root(folder.path());
    (folder, key)
}

fn clock() -> SharedClock {
    Arc::new(SystemClock)
}

async fn commit(lake: &Lake, run: &str) -> counterfoil::error::Result<u64> {
    let mut change = lake.transaction();
    change.record_run(RunRecord { id: run.to_owned(), ..RunRecord::default() });
    change.commit().await.map(|done| done.version)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lake_lives_in_a_bucket() {
    let Some(moto) = Moto::with_bucket().await else { return };
    let (folder, key) = new_root();
    let settings = moto.settings(folder.path(), "s3://tickets/some/lake/");
    settings.check(clock().as_ref()).await.unwrap();
    let lake = Lake::create(&settings, &key, clock()).await.unwrap();
    assert_eq!(lake.url(), "s3://tickets/some/lake");
    assert_eq!(Lake::create(&settings, &key, clock()).await.unwrap_err().kind(), ErrorKind::Config, "a second one");
    assert_eq!(moto.ask("HEAD", "/tickets/some/lake/lake.json").await, 200);
    lake.check_writable().await.unwrap();

    // Two writers race for each version: If-None-Match lets one make it, and the other makes the next.
    let rivals = (0..2).map(|writer| {
        let (settings, folder) = (settings.clone(), folder.path().to_owned());
        tokio::spawn(async move {
            let lake = Lake::open(&settings, &root(&folder), clock()).await.unwrap();
            let mut made = Vec::new();
            for round in 0..12 {
                made.push(commit(&lake, &format!("{writer}-{round}")).await.unwrap());
            }
            made
        })
    });
    let mut made: Vec<u64> =
        futures::future::join_all(rivals).await.into_iter().flat_map(|made| made.unwrap()).collect();
    made.sort_unstable();
    assert_eq!(made, (1..=24).collect::<Vec<_>>(), "each version was made once");
    let again = Lake::open(&settings, &key, clock()).await.unwrap();
    let manifest = again.latest().await.unwrap();
    assert_eq!((manifest.version, manifest.runs.len()), (24, 24));
    assert_eq!(moto.ask("HEAD", "/tickets/some/lake/log/00000000000000000020.snapshot").await, 200);

    // The lease is one, and a lease that was given back is free.
    let lease = lake.lease(Purpose::Extract, "first").await.unwrap();
    let refused = again.lease(Purpose::Extract, "second").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    lease.release().await.unwrap();
    again.lease(Purpose::Extract, "second").await.unwrap().release().await.unwrap();

    // A lake beside it, in a folder whose name begins the same, and one at the bucket's root are lakes of their own.
    for url in ["s3://tickets/some/lake2", "s3://tickets"] {
        let other = Lake::create(&moto.settings(folder.path(), url), &key, clock()).await.unwrap();
        assert_eq!(commit(&other, "x").await.unwrap(), 1, "{url}");
        assert_ne!(other.id(), lake.id());
    }
    assert_eq!(again.latest().await.unwrap().version, 24);

    // The marks: a version that is taken away is noticed here, accepted here, and unknown elsewhere.
    assert_eq!(moto.ask("DELETE", "/tickets/some/lake/log/00000000000000000024.commit").await, 204);
    let error = Lake::open(&settings, &key, clock()).await.unwrap().latest().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("rolled back"), "{error}");
    let elsewhere = StoreSettings { state: None, ..settings.clone() };
    assert_eq!(Lake::open(&elsewhere, &key, clock()).await.unwrap().latest().await.unwrap().version, 23);
    let lake = Lake::open(&settings, &key, clock()).await.unwrap();
    lake.accept_rollback(23).await.unwrap();
    assert_eq!(lake.latest().await.unwrap().version, 23);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_objects_than_a_page_of_the_listing_are_all_seen() {
    let Some(moto) = Moto::with_bucket().await else { return };
    let (folder, key) = new_root();
    let settings = moto.settings(folder.path(), "s3://tickets/many");
    let lake = Lake::create(&settings, &key, clock()).await.unwrap();
    assert_eq!(commit(&lake, "1").await.unwrap(), 1);
    // A thousand names that sort before the log's next commit, so that it stands on the listing's second page.
    for group in (0..1_050).collect::<Vec<_>>().chunks(50) {
        let put = group.iter().map(|number| {
            let path = format!("/tickets/many/log/00000000000000000001.note-{number:04}");
            let moto = &moto;
            async move { assert_eq!(moto.ask("PUT", &path).await, 200) }
        });
        futures::future::join_all(put).await;
    }
    assert_eq!(commit(&lake, "2").await.unwrap(), 2);
    let manifest = Lake::open(&settings, &key, clock()).await.unwrap().latest().await.unwrap();
    assert_eq!((manifest.version, manifest.runs.len()), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_buckets_are_told_apart() {
    let Some(moto) = Moto::with_bucket().await else { return };
    let (folder, key) = new_root();
    let settings = moto.settings(folder.path(), "s3://tickets/lake");
    let error = Lake::open(&settings, &key, clock()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("there is no lake (url: s3://tickets/lake"), "{error}");
    let unknown = moto.settings(folder.path(), "s3://ticket/lake");
    for error in [
        Lake::open(&unknown, &key, clock()).await.unwrap_err(),
        Lake::create(&unknown, &key, clock()).await.unwrap_err(),
        unknown.check(clock().as_ref()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
        assert!(error.hint().unwrap().contains("no such bucket"), "{error:?}");
        assert!(error.to_string().contains("s3://ticket/lake"), "{error}");
        assert!(!format!("{error:?}").to_lowercase().contains("needle"), "{error:?}");
    }
}

/// When the store goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The put has not reached it.
    Before,
    /// The put took effect, its answer is lost.
    After,
}

/// Stands between a client and a server until the client puts an object under a path; then nobody listens any more.
async fn relay(server: SocketAddr, path: &'static str, cut: Cut) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, ended) = watch::channel(false);
    let end = Arc::new(end);
    tokio::spawn(async move {
        let mut stop = ended.clone();
        loop {
            let client = tokio::select! {
                accepted = listener.accept() => accepted.unwrap().0,
                _ = stop.changed() => return,
            };
            let (mut stop, end) = (ended.clone(), Arc::clone(&end));
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = TcpStream::connect(server).await.unwrap().into_split();
                let mut asked = vec![0; 64 << 10];
                let mut answered = vec![0; 64 << 10];
                let mut is_last = false;
                loop {
                    tokio::select! {
                        _ = stop.changed() => return,
                        read = from_client.read(&mut asked) => {
                            let Ok(length @ 1..) = read else { return };
                            let line = String::from_utf8_lossy(&asked[..length.min(200)]).into_owned();
                            if line.starts_with("PUT ") && line.lines().next().is_some_and(|line| line.contains(path)) {
                                if cut == Cut::Before {
                                    let _ = end.send(true);
                                    return;
                                }
                                is_last = true;
                            }
                            to_server.write_all(&asked[..length]).await.unwrap();
                        }
                        read = from_server.read(&mut answered) => {
                            let Ok(length @ 1..) = read else { return };
                            if is_last {
                                let _ = end.send(true);
                                return;
                            }
                            if to_client.write_all(&answered[..length]).await.is_err() {
                                return;
                            }
                        }
                    }
                }
            });
        }
    });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn bucket_that_vanishes_is_told_and_goes_on_where_it_was() {
    let Some(mut moto) = Moto::with_bucket().await else { return };
    let bench = Bench::new(300).await;
    let environment = moto.environment();
    let run = |arguments: &[&str]| -> Output {
        bench.command(arguments).envs(environment.iter().map(|(name, value)| (name, value))).output().unwrap()
    };
    // `init` asks the bucket first: of one that does not exist nothing is written.
    assert_fails(&run(&["init", "far", "--lake", "s3://nowhere/lake"]), 2, &["NoSuchBucket", "s3://nowhere/lake"]);
    assert!(!bench.path().join("far").exists());
    let made = run(&["init", "far", "--lake", "s3://tickets/lake"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert!(!bench.path().join("far/lake").exists());
    let written = fs::read_to_string(bench.path().join("far/counterfoil.toml")).unwrap();
    assert!(written.contains("url = \"s3://tickets/lake\"") && !written.to_lowercase().contains("needle"), "{written}");

    let far = |arguments: &[&str]| run(&[&["--config", "far/counterfoil.toml"], arguments].concat());
    let count = ["query", "-e", "SELECT count(*) AS n, count(DISTINCT ticket_id) AS d FROM tickets", "--format", "csv"];
    let output = far(&["extract"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&far(&count).stdout), "n,d\n300,300\n");
    let doctor = far(&["doctor", "--offline"]);
    assert!(text(&doctor.stdout).contains("keeps two writers apart"), "{}", text(&doctor.stdout));

    // The store goes in the middle of a run: before a data file, before a commit, after a commit whose answer is lost.
    let versions = ["query", "-e", "SELECT count(*) AS n FROM ticket_versions", "--format", "csv"];
    let cuts = [("/lake/data/tickets/", Cut::Before), ("/lake/log/", Cut::Before), ("/lake/log/", Cut::After)];
    for (round, (path, cut)) in cuts.into_iter().enumerate() {
        bench.sandbox.organisation().touch(&(0..200).collect::<Vec<_>>());
        let relay = relay(moto.address, path, cut).await;
        let output = bench
            .command(&["--config", "far/counterfoil.toml", "extract"])
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env("COUNTERFOIL_LAKE__ENDPOINT", relay)
            .output()
            .unwrap();
        assert_fails(&output, 3, &["object of the lake", "refused"]);
        assert!(!text(&output.stderr).to_lowercase().contains("needle"), "{}", text(&output.stderr));
        assert_eq!(text(&far(&count).stdout), "n,d\n300,300\n", "{path} {cut:?}: whole, old or new");
        let output = far(&["extract"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&far(&count).stdout), "n,d\n300,300\n", "{path} {cut:?}");
        let expected = format!("n\n{}\n", 300 + 200 * (round + 1));
        assert_eq!(text(&far(&versions).stdout), expected, "{path} {cut:?}: each change is there once");
    }

    let _ = moto.child.kill();
    let _ = moto.child.wait();
    let gone = far(&["lake", "status"]);
    assert_fails(&gone, 3, &["the lake"]);
    assert!(!text(&gone.stderr).to_lowercase().contains("needle"), "{}", text(&gone.stderr));
}

/// Counts and versions of the tickets, as the binary tells them.
fn counts(bench: &Bench) -> (String, String) {
    let ask = |sql: &str| {
        let output = bench.run(&["query", "-e", sql, "--format", "csv"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).lines().nth(1).unwrap().to_owned()
    };
    (
        ask("SELECT count(*) AS n, count(DISTINCT ticket_id) AS d FROM tickets"),
        ask("SELECT count(*) AS n FROM ticket_versions"),
    )
}

fn assert_nothing_half_written(lake: &Path) {
    let staged: Vec<_> = listing(lake).into_iter().filter(|(path, _)| path.contains('#')).collect();
    assert!(staged.is_empty(), "{staged:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_that_takes_no_more_ends_the_run_and_the_lake_stays_whole() {
    let bench = Bench::new(300).await;
    assert!(bench.run(&["extract"]).status.success());
    bench.sandbox.organisation().touch(&(0..300).collect::<Vec<_>>());
    let before = listing(&bench.path().join("lake/log"));
    // The kernel cuts every file at 8 KiB: a write is short, the next one fails.
    let extract = bench.command(&["extract"]);
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" extract", env!("CARGO_BIN_EXE_counterfoil")])
        .current_dir(bench.path())
        .env_clear()
        .envs(extract.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_fails(&output, 3, &["failed to write an object of the lake (object: data/", "make room"]);
    assert_nothing_half_written(&bench.path().join("lake"));
    let after = listing(&bench.path().join("lake/log"));
    assert!(after.starts_with(&before), "no version was changed");
    assert_eq!(counts(&bench), ("300,300".to_owned(), "300".to_owned()));
    let output = bench.run(&["extract"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(counts(&bench), ("300,300".to_owned(), "600".to_owned()));
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folder_that_may_not_be_written_to_is_denied() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new(90).await;
    assert!(bench.run(&["extract"]).status.success());
    let folders = ["lake", "lake/log", "lake/leases", "lake/leases/extract", "lake/data", "lake/data/tickets"];
    let set = |mode: u32| {
        for folder in folders {
            fs::set_permissions(bench.path().join(folder), fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    set(0o500);
    if fs::write(bench.path().join("lake/test"), "").is_ok() {
        fs::remove_file(bench.path().join("lake/test")).unwrap();
        set(0o700);
        std::io::stderr().write_all(b"skipped: this user may write to read-only folders\n").unwrap();
        return;
    }
    let before = listing(&bench.path().join("lake"));
    let output = bench.run(&["extract"]);
    assert_eq!(listing(&bench.path().join("lake")), before);
    assert_eq!(counts(&bench).0, "90,90", "reading goes on");
    set(0o700);
    assert_fails(&output, 4, &["object of the lake"]);
    assert!(bench.run(&["extract"]).status.success());
}

#[tokio::test]
async fn folder_that_is_moved_between_two_calls_is_unavailable_and_comes_back_whole() {
    let (folder, key) = new_root();
    let settings = StoreSettings::new("file:lake", folder.path());
    let (here, away) = (folder.path().join("lake"), folder.path().join("away"));
    let lake = Lake::create(&settings, &key, clock()).await.unwrap();
    assert_eq!(commit(&lake, "1").await.unwrap(), 1);
    let lease = lake.lease(Purpose::Extract, "run").await.unwrap();
    fs::rename(&here, &away).unwrap();
    for error in [
        commit(&lake, "2").await.unwrap_err(),
        lake.latest().await.unwrap_err(),
        lake.lease(Purpose::Maintenance, "other").await.unwrap_err(),
        lake.check_writable().await.unwrap_err(),
        lease.release().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    }
    assert!(!here.exists(), "nothing was made in its place");
    fs::rename(&away, &here).unwrap();
    assert_eq!(commit(&lake, "2").await.unwrap(), 2);
    assert_eq!(Lake::open(&settings, &key, clock()).await.unwrap().latest().await.unwrap().runs.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_that_is_put_back_is_noticed_and_taken_only_on_demand() {
    let bench = Bench::new(90).await;
    let state = [("COUNTERFOIL_LAKE__STATE", "state")];
    let status = || bench.run_with(&state, &["lake", "status"]);
    assert!(bench.run_with(&state, &["extract"]).status.success());
    assert!(status().status.success());
    let marks = listing(&bench.path().join("state"));
    assert_eq!(marks.len(), 1, "{marks:?}");
    let mark = fs::read_to_string(&marks[0].0).unwrap();
    assert!(mark.starts_with("{\"format\":1,\"lake\":\""), "{mark}");

    let log = listing(&bench.path().join("lake/log"));
    let newest = log.len();
    let (commit, _) = log.last().unwrap();
    let bytes = fs::read(commit).unwrap();
    fs::remove_file(commit).unwrap();
    let words =
        [format!("newest: {}", newest - 1), format!("seen: {newest}"), format!("accept-rollback {}", newest - 1)];
    let words: Vec<&str> = ["rolled back"].into_iter().chain(words.iter().map(String::as_str)).collect();
    for arguments in [&["lake", "status"][..], &["extract"], &["query", "-e", "SELECT 1 AS x FROM runs"]] {
        assert_fails(&bench.run_with(&state, arguments), 5, &words);
    }
    assert!(bench.run(&["lake", "status"]).status.success(), "without a mark nobody knows");

    // Put back, all is well; taken away for good, it has to be accepted by its number.
    fs::write(commit, bytes).unwrap();
    assert!(status().status.success());
    fs::remove_file(commit).unwrap();
    let accept = |version: usize| bench.run_with(&state, &["lake", "accept-rollback", &version.to_string()]);
    assert_fails(&accept(newest), 2, &["newest version is another"]);
    assert_fails(&status(), 5, &["rolled back"]);
    assert!(accept(newest - 1).status.success());
    assert!(status().status.success());
    assert_fails(&bench.run(&["lake", "accept-rollback", "1"]), 2, &["no high-water mark"]);

    fs::write(&marks[0].0, "half").unwrap();
    assert_fails(&status(), 2, &[".mark", "damaged"]);
    fs::remove_file(&marks[0].0).unwrap();

    // A folder that cannot be written to costs a warning and nothing else.
    fs::write(bench.path().join("file"), "x").unwrap();
    let output = bench.run_with(&[("COUNTERFOIL_LAKE__STATE", "file/state")], &["extract"]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("high-water mark").count(), 1, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_is_kept_in_the_users_folder_unless_told_otherwise() {
    let bench = Bench::new(60).await;
    let home = bench.path().join("home");
    let environment = [("HOME", home.to_str().unwrap())];
    assert!(bench.run_with(&environment, &["demo", "--tickets", "300"]).status.success());
    assert!(!home.exists(), "the demo leaves nothing behind");
    assert!(bench.run_with(&environment, &["extract"]).status.success());
    assert_eq!(listing(&home.join(".local/state/counterfoil")).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_that_hold_no_such_lake_are_named() {
    let bench = Bench::new(60).await;
    let claim = bench.path().join("lake/lake.json");
    let whole = fs::read_to_string(&claim).unwrap();
    let other = r#"{"format":1,"id":"019a0000-0000-7000-8000-000000000001"}"#;
    for (written, words) in [
        ("", &["lake.json"][..]),
        (&whole[..whole.len() - 3], &["lake.json"]),
        (&whole.replace("\"format\":1", "\"format\":2"), &["format: 2", "known: 1", "upgrade"]),
        (other, &["key ring"]),
    ] {
        fs::write(&claim, written).unwrap();
        assert_fails(&bench.run(&["lake", "status"]), 5, words);
    }
    fs::remove_file(&claim).unwrap();
    assert_fails(&bench.run(&["lake", "status"]), 5, &["lake.json is missing"]);
    fs::write(&claim, &whole).unwrap();

    // Two lakes in one root: the second is not made, and the first stays as it is.
    let before = listing(&bench.path().join("lake"));
    let made = Command::new("sh")
        .args([
            "-c",
            "mkdir second && cd second && exec \"$0\" init . --lake file:../lake",
            env!("CARGO_BIN_EXE_counterfoil"),
        ])
        .current_dir(bench.path())
        .env_clear()
        .output()
        .unwrap();
    assert_fails(&made, 2, &["there already"]);
    assert_eq!(listing(&bench.path().join("lake")), before);

    for (url, words) in [
        ("lake", &["no scheme"][..]),
        ("fiel:lake", &["did you mean `file:`?"]),
        ("file:nowhere", &["there is no lake"]),
        ("s3:bucket", &["names no bucket"]),
        ("s3://bucket/../x", &["no plain folder"]),
        ("az://bucket/x", &["lake.account"]),
        ("memory:", &["ends with the process"]),
    ] {
        assert_fails(&bench.run_with(&[("COUNTERFOIL_LAKE__URL", url)], &["lake", "status"]), 2, words);
    }
    let plain = [("COUNTERFOIL_LAKE__URL", "s3://bucket/x"), ("COUNTERFOIL_LAKE__ENDPOINT", "http://s3.example.com")];
    assert_fails(&bench.run_with(&plain, &["lake", "status"]), 2, &["plain http"]);
}
