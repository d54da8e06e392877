//! Details are stored nowhere: what the real binary asks of the system is watched.

#![cfg(target_os = "linux")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use counterfoil::sandbox::{Fault, Organisation, SandboxSettings, Thread};
use serde_json::Value;

use crate::commands::{Bench, text};

/// System calls that neither store nor send anything, as far as they can be told by their names.
const HARMLESS: &[&str] = &[
    "accept4",
    "access",
    "chdir",
    "close",
    "dup",
    "dup2",
    "dup3",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_wait",
    "eventfd2",
    "execve",
    "faccessat",
    "faccessat2",
    "fcntl",
    "flock",
    "fstat",
    "fstatfs",
    "fsync",
    "fdatasync",
    "getcwd",
    "getdents64",
    "getpeername",
    "getsockname",
    "getsockopt",
    "inotify_init1",
    "ioctl",
    "lseek",
    "lstat",
    "newfstatat",
    "pipe2",
    "poll",
    "ppoll",
    "prctl",
    "pread64",
    "preadv",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "readv",
    "recvfrom",
    "recvmsg",
    "select",
    "setrlimit",
    "setsockopt",
    "shutdown",
    "signalfd4",
    "socket",
    "socketpair",
    "stat",
    "statfs",
    "statx",
    "timerfd_create",
    "timerfd_settime",
];

/// Calls that change names: each path in them counts.
const OF_NAMES: &[&str] = &[
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "mknod",
    "mknodat",
    "truncate",
    "ftruncate",
    "fallocate",
    "chmod",
    "fchmod",
    "fchmodat",
    "utimensat",
];

/// Calls that write to what their first argument names.
const WRITES: &[&str] = &["write", "writev", "pwrite64", "pwritev", "pwritev2", "sendto", "sendmsg", "sendmmsg"];

/// Devices that keep nothing.
const DEVICES: &[&str] = &["/dev/null", "/dev/tty"];

/// Whom the C library asks for the name of a user, whom the access record names; it says a number to them.
const NAME_SERVICES: &[&str] = &["/var/run/nscd/socket", "/run/systemd/userdb/"];

/// What a process may touch besides its standard output and standard error.
struct Permitted {
    /// Where it may create, write and rename.
    folders: Vec<PathBuf>,
    /// Ports on loopback that it may speak to.
    ports: Vec<String>,
}

impl Permitted {
    fn place(&self, path: &str) -> bool {
        let is_under = |folder: &PathBuf| Path::new(path).starts_with(folder) && !path.contains("..");
        DEVICES.contains(&path) || self.folders.iter().any(is_under)
    }

    fn peer(&self, text: &str) -> bool {
        self.ports.iter().any(|port| text.ends_with(&format!("->127.0.0.1:{port}]>")))
    }

    /// Returns what a line of `strace -f -yy` tells of a deed that is not permitted.
    fn offence(&self, line: &str) -> Option<String> {
        let call = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        // What is left of a call that was begun, the end of a process, a signal, and a thread that the end of its process
        // took before it came to its call.
        if ["<...", "+++", "---", "???("].iter().any(|start| call.starts_with(start)) {
            return None;
        }
        let (name, arguments) = call.split_once('(')?;
        let is_permitted = match name {
            "open" | "openat" | "openat2" | "creat" => {
                let writes = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND", "O_TMPFILE"];
                let is_read = name != "creat" && !writes.iter().any(|flag| arguments.contains(flag));
                is_read || paths(arguments).all(|path| self.place(&path))
            }
            // A map that others see is a file that is written.
            "mmap" => !(arguments.contains("MAP_SHARED") && arguments.contains("PROT_WRITE")),
            "connect" => {
                let is_source = |port: &String| {
                    arguments.contains(&format!("sin_port=htons({port}), sin_addr=inet_addr(\"127.0.0.1\")"))
                };
                let is_told_a_user = |path: &&str| arguments.contains(&format!("sun_path=\"{path}"));
                self.ports.iter().any(is_source) || NAME_SERVICES.iter().any(is_told_a_user)
            }
            _ if WRITES.contains(&name) => {
                let target = arguments.split_once(", ").map_or(arguments, |(target, _)| target);
                let (number, what) = target.split_once('<').unwrap_or((target, ""));
                let own = ["anon_inode:[eventfd]", "pipe:[", "UNIX-STREAM:[", "UNIX-DGRAM:["];
                number == "1"
                    || number == "2"
                    || own.iter().any(|own| what.starts_with(own))
                    || self.peer(target)
                    || self.place(what.trim_end_matches('>'))
            }
            _ if OF_NAMES.contains(&name) => paths(arguments).all(|path| self.place(&path)),
            _ => HARMLESS.contains(&name),
        };
        (!is_permitted).then(|| line.chars().take(300).collect())
    }
}

/// The paths in the arguments of a call: quoted ones, those after a folder's descriptor as parts of it, and descriptors.
fn paths(arguments: &str) -> impl Iterator<Item = String> {
    let mut found = Vec::new();
    let mut folder: Option<&str> = None;
    let given = arguments.split(" <unfinished").next().unwrap_or_default();
    let mut rest = given.split(") = ").next().unwrap_or_default();
    while let Some(at) = rest.find(['<', '"']) {
        let close = if rest[at..].starts_with('<') { '>' } else { '"' };
        let Some(length) = rest[at + 1..].find(close) else { break };
        let inside = &rest[at + 1..at + 1 + length];
        rest = &rest[at + length + 2..];
        if close == '>' {
            folder = Some(inside);
            // The one descriptor of a call without a name is the file itself.
            if !rest.contains('"') {
                found.push(inside.to_owned());
            }
        } else {
            found.push(Path::new(folder.unwrap_or("/")).join(inside).display().to_string());
        }
    }
    found.into_iter()
}

/// Whether other programs' calls can be watched here; says so aloud where not.
pub(crate) fn can_trace() -> bool {
    let probe = Command::new("strace").args(["-qq", "-f", "-o", "/dev/null", "true"]).output();
    let reason = match probe {
        Ok(output) if output.status.success() => return true,
        Ok(output) => format!("strace may not trace here: {}", text(&output.stderr).trim()),
        Err(error) => format!("strace does not run: {error}"),
    };
    assert!(std::env::var_os("CI").is_none(), "CI must have strace: {reason}");
    std::io::stderr().write_all(format!("skipped: {reason}\n").as_bytes()).unwrap();
    false
}

/// Runs a command of the binary under strace; returns its exit code and the lines of the trace.
fn trace(bench: &Bench, environment: &[(&str, &str)], arguments: &[String]) -> (Option<i32>, String, Vec<String>) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let plain = bench.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-yy", "-s", "48", "-e", "trace=%file,%desc,%network,prctl,prlimit64,setrlimit"]);
    command.arg("-o").arg(log.path()).arg(plain.get_program()).args(plain.get_args()).current_dir(bench.path());
    command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let output = command.envs(environment.iter().copied()).stdin(Stdio::null()).output().unwrap();
    let lines = fs::read_to_string(log.path()).unwrap().lines().map(str::to_owned).collect();
    (output.status.code(), text(&output.stderr), lines)
}

fn port(url: &str) -> String {
    url.rsplit(':').next().unwrap().to_owned()
}

/// A sandbox and a lake of its tickets, with runs that are watched.
pub(crate) struct Scene {
    pub(crate) bench: Bench,
    /// Each way to look at details, with the exit code that it has.
    pub(crate) runs: Vec<(Vec<String>, i32)>,
}

impl Scene {
    /// Makes tickets of which `ids.txt` names the first thirty.
    pub(crate) async fn new() -> Self {
        let thread = Thread { messages: 2, notes: 1, attachments: 1 };
        let settings =
            SandboxSettings { tickets: 60, customers: 60, thread: Some(thread), ..SandboxSettings::default() };
        let bench = Bench::with(SandboxSettings { org_rpm: 1_000_000, search_rpm: 1_000_000, ..settings }).await;
        let ids: Vec<String> = (0..30).map(|number| id_of(bench.sandbox.organisation(), number)).collect();
        fs::write(bench.path().join("ids.txt"), ids.join("\n")).unwrap();
        fs::create_dir(bench.path().join("reports")).unwrap();
        let output = bench.run(&["extract"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let output = bench.run(&["resolve", "--only", "attachments", &ids[5]]);
        let line: Value = serde_json::from_slice(&output.stdout).unwrap();
        let file = line["attachments"][0]["id"].as_str().unwrap().to_owned();
        let runs = Self::runs(&ids, &file);
        Self { bench, runs }
    }

    fn runs(ids: &[String], file: &str) -> Vec<(Vec<String>, i32)> {
        const ALL: &str = "--only conversation,customer,messages,notes,attachments,tags,metadata,events";
        let unknown = "58228e05d4e96711004eccb7";
        [
            (format!("resolve {}", ids[0]), 0),
            (format!("resolve --from ids.txt {ALL}"), 0),
            ("-v -v --log-format json resolve --from ids.txt".to_owned(), 0),
            ("resolve --from ids.txt --max-requests 9".to_owned(), 7),
            (format!("resolve {unknown} {}", ids[1]), 7),
            (format!("resolve --pretty {}", ids[2]), 0),
            (format!("resolve --pretty --utc --from ids.txt {ALL}"), 0),
            ("resolve --from ids.txt --report reports/last.json".to_owned(), 0),
            (format!("resolve --redact --from ids.txt {ALL}"), 0),
            (format!("-v -v resolve --redact --pretty {}", ids[3]), 0),
            ("resolve --from ids.txt --dry-run".to_owned(), 0),
            (format!("-v -v attachment {} {file}", ids[5]), 0),
            (format!("-v -v attachment {} {unknown}", ids[5]), 7),
        ]
        .into_iter()
        .map(|(line, code)| (line.split(' ').map(str::to_owned).collect(), code))
        .collect()
    }
}

fn id_of(organisation: &Organisation, number: u64) -> String {
    organisation.conversation(number)["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn details_are_written_to_standard_output_and_nowhere_else() {
    if !can_trace() {
        return;
    }
    let Scene { bench, runs } = Scene::new().await;
    let folder = bench.path().canonicalize().unwrap();
    let state = folder.join("state");
    fs::create_dir(&state).unwrap();
    let state = state.to_str().unwrap();
    let ports = vec![port(bench.sandbox.base_url()), port(bench.sandbox.attachments_url())];
    for record in ["true", "false"] {
        for (arguments, code) in &runs {
            // The access record is in the lake, with a mark of its version in the folder for such; a report is where it
            // was wanted.
            let mut permitted = Permitted { folders: Vec::new(), ports: ports.clone() };
            permitted.folders.extend((record == "true").then(|| folder.join("lake")));
            permitted.folders.extend((record == "true").then(|| folder.join("state/counterfoil")));
            permitted
                .folders
                .extend(arguments.iter().any(|argument| argument == "--report").then(|| folder.join("reports")));
            let environment =
                [("COUNTERFOIL_RESOLVE__ACCESS_RECORD", record), ("RUST_BACKTRACE", "full"), ("XDG_STATE_HOME", state)];
            let (ended, said, lines) = trace(&bench, &environment, arguments);
            assert_eq!(ended, Some(*code), "{arguments:?}: {said}");
            assert!(lines.len() > 50, "the trace saw the run: {}", lines.len());
            if lines.iter().any(|line| line.contains("openat(") && line.contains(", 0x")) {
                assert!(std::env::var_os("CI").is_none(), "CI must let strace read what is traced");
                std::io::stderr().write_all(b"skipped: strace may not read the arguments of calls\n").unwrap();
                return;
            }
            let offences: Vec<String> = lines.iter().filter_map(|line| permitted.offence(line)).collect();
            assert!(offences.is_empty(), "{arguments:?} with access_record = {record}:\n{}", offences.join("\n"));

            // Before anything is received, the process is one of which no dump is made.
            let first = |what: &str| lines.iter().position(|line| line.contains(what));
            let Some(socket) = first("socket(AF_INET") else {
                assert!(arguments.iter().any(|argument| argument == "--dry-run"), "{arguments:?} asks the source");
                continue;
            };
            assert!(first("prctl(PR_SET_DUMPABLE, SUID_DUMP_DISABLE) = 0").unwrap() < socket);
            assert!(first("RLIMIT_CORE, {rlim_cur=0, rlim_max=0}").unwrap() < socket);
        }
    }
}

#[test]
fn trace_of_a_run_that_stores_something_is_not_taken_for_a_clean_one() {
    let permitted = Permitted { folders: vec!["/w/lake".into()], ports: vec!["4000".to_owned()] };
    for clean in [
        r#"12 openat(AT_FDCWD</w>, "/etc/hosts", O_RDONLY|O_CLOEXEC) = 3</etc/hosts>"#,
        r#"12 openat(AT_FDCWD</w>, "/w/lake/log/1.tmp", O_WRONLY|O_CREAT|O_EXCL, 0666) = 3</w/lake/log/1.tmp>"#,
        r#"12 openat(AT_FDCWD</w>, "lake/log/1.tmp", O_WRONLY|O_CREAT <unfinished ...>"#,
        r#"12 rename("/w/lake/a", "/w/lake/b") = 0"#,
        r#"12 write(1<pipe:[77]>, "{", 1) = 1"#,
        r#"12 write(7</w/lake/log/1.tmp>, "x", 1) = 1"#,
        r#"12 writev(9<TCP:[127.0.0.1:5->127.0.0.1:4000]>, [{iov_base="GET", iov_len=3}], 1) = 3"#,
        "12 ftruncate(9</w/lake/x>, 0) = 0",
        "12 +++ exited with 0 +++",
    ] {
        assert_eq!(permitted.offence(clean), None, "{clean}");
    }
    for offence in [
        r#"12 openat(AT_FDCWD</w>, "/tmp/x", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 3</tmp/x>"#,
        r#"12 openat(AT_FDCWD</w>, "/tmp", O_RDWR|O_TMPFILE|O_CLOEXEC, 0600 <unfinished ...>"#,
        r#"12 openat(AT_FDCWD</w>, "cache", O_WRONLY|O_CREAT) = -1 EACCES (Permission denied)"#,
        r#"12 openat(4</w>, "lakes", O_WRONLY|O_CREAT) = 3</w/lakes>"#,
        r#"12 openat(AT_FDCWD</w>, "/w/lake/../x", O_WRONLY|O_CREAT) = 3</w/x>"#,
        r#"12 creat("/w/x", 0600) = 4"#,
        r#"12 rename("/w/lake/a", "/w/b") = 0"#,
        r#"12 mkdir("/home/ann/.cache", 0777) = 0"#,
        r#"12 unlink("/w/x") = 0"#,
        r#"12 write(7</w/x>, "x", 1) = 1"#,
        "12 ftruncate(9</w/x>, 0) = 0",
        r#"12 connect(9<TCP:[5]>, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("1.1.1.1")}, 16) = 0"#,
        r#"12 connect(9<UNIX-STREAM:[5]>, {sa_family=AF_UNIX, sun_path="/dev/log"}, 110) = 0"#,
        r#"12 sendto(9<UDP:[127.0.0.1:5->127.0.0.53:53]>, "q", 1, 0, NULL, 0) = 1"#,
        "12 memfd_create(\"x\", MFD_CLOEXEC) = 5</memfd:x>",
        "12 io_uring_setup(8, {}) = 5",
        "12 mmap(NULL, 9, PROT_READ|PROT_WRITE, MAP_SHARED, 5</w/x>, 0) = 0x7",
        "12 copy_file_range(1, NULL, 2, NULL, 9, 0) = 9",
    ] {
        assert!(permitted.offence(offence).is_some(), "{offence}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_is_never_dumped_while_it_holds_details() {
    let bench = Scene::new().await.bench;
    bench.sandbox.fail_request(25, Fault::Slow);
    let mut command = bench.command(&["resolve", "--from", "ids.txt"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut String::new()).unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_that_leaves_stops_the_spending() {
    let settings = SandboxSettings { tickets: 2_000, org_rpm: 1_000_000, ..SandboxSettings::default() };
    let latency = Duration::from_millis(10);
    let bench = Bench::with(SandboxSettings { latency, ..settings }).await;
    let ids: Vec<String> = (0..1_000).map(|number| id_of(bench.sandbox.organisation(), number * 2)).collect();
    fs::write(bench.path().join("ids.txt"), ids.join("\n")).unwrap();
    bench.sandbox.reset_traffic();
    let mut command = bench.command(&["resolve", "--from", "ids.txt"]);
    command.env("COUNTERFOIL_RESOLVE__ACCESS_RECORD", "false");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // What `head -1` does: read a line, and close.
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    drop(reader);
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["ticket_id"], ids[0]);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.contains("error")), (Some(0), false), "{said}");
    let spent = bench.sandbox.traffic().all.requests;
    // A window of tickets and what the pipe holds was under way.
    assert!(spent < 400, "{spent} requests of some 3,000 for one ticket that was read");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(bench.sandbox.traffic().all.requests, spent, "and nothing after the end");
}
