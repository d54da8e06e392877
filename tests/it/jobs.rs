//! The files of `examples/jobs/` that start an extract, checked by the programs that read them: systemd, the schemas of
//! Kubernetes, Dagster itself; cron's lines by their grammar. All of them, and the chapter, agree on what is run again.

#![cfg(all(test, target_os = "linux"))]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use counterfoil::error::ErrorKind;
use regex::Regex;
use serde_json::{Value, json};

use crate::commands::{Bench, text};
use crate::guide::assert_line_parses;
use crate::interop;
use crate::traces::can_trace;

type Codes = BTreeSet<u8>;

const CHAPTER: &str = "docs/jobs.md";

/// Every kind of error, each of which has an exit code.
const KINDS: [ErrorKind; 9] = [
    ErrorKind::Internal,
    ErrorKind::Config,
    ErrorKind::Unavailable,
    ErrorKind::Denied,
    ErrorKind::Data,
    ErrorKind::Query,
    ErrorKind::Incomplete,
    ErrorKind::Stale,
    ErrorKind::Conflict,
];

/// Ctrl-C and SIGTERM.
const INTERRUPTED: u8 = 130;

/// What the unit may expose at most, in tenths of systemd's scale of ten.
const EXPOSURE: &str = "12";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn recipe(name: &str) -> PathBuf {
    repository().join("examples/jobs").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(recipe(name)).unwrap()
}

fn numbers(list: &str) -> Codes {
    list.split(|c: char| !c.is_ascii_digit())
        .filter(|word| !word.is_empty())
        .map(|word| word.parse().unwrap())
        .collect()
}

/// Kinds of errors whose repetition mends them without anybody.
fn mended_by_time() -> Codes {
    [ErrorKind::Unavailable, ErrorKind::Incomplete].map(ErrorKind::exit_code).into()
}

fn failures() -> Codes {
    KINDS.map(ErrorKind::exit_code).into()
}

/// The values of a key of a unit, in their order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn every_recipe_and_the_chapter_repeat_the_same_exit_codes() {
    let chapter = fs::read_to_string(repository().join(CHAPTER)).unwrap();
    let row = Regex::new(r"(?m)^\| (\d+) \| ([^|]+) \|").unwrap();
    let again: BTreeMap<u8, String> =
        row.captures_iter(&chapter).map(|row| (row[1].parse().unwrap(), row[2].to_owned())).collect();
    let mut every_code = failures();
    every_code.extend([0, INTERRUPTED]);
    assert_eq!(again.keys().copied().collect::<Codes>(), every_code, "{CHAPTER} explains every code");
    let repeated: Codes = again.iter().filter(|(_, again)| again.starts_with("yes")).map(|(code, _)| *code).collect();
    assert_eq!(repeated, mended_by_time(), "the table of {CHAPTER}");
    let one = |pattern: &str, text: &str| -> Codes {
        let pattern = Regex::new(pattern).unwrap();
        numbers(&pattern.captures(text).unwrap_or_else(|| panic!("{pattern} is not in:\n{text}"))[1])
    };
    assert_eq!(one(r"(?m)^ +([\d |]+)\) sleep", &chapter), mended_by_time(), "the shell of {CHAPTER}");

    let service = read("counterfoil.service");
    assert_eq!(values(&service, "Restart"), ["on-failure"]);
    let prevented = numbers(&values(&service, "RestartPreventExitStatus").join(" "));
    let success = numbers(&values(&service, "SuccessExitStatus").join(" "));
    assert_eq!(success, [ErrorKind::Conflict.exit_code(), INTERRUPTED].into());
    let ends: Codes = prevented.union(&success).copied().collect();
    assert_eq!(failures().difference(&ends).copied().collect::<Codes>(), mended_by_time(), "counterfoil.service");

    let failed = one(r"operator: In\s+values: \[([\d, ]+)\]", &read("cronjob.yaml"));
    assert_eq!(failures().difference(&failed).copied().collect::<Codes>(), mended_by_time(), "cronjob.yaml");
    assert!(!failed.contains(&0) && !failed.contains(&INTERRUPTED), "{failed:?}");

    let dagster = read("dagster_job.py");
    let waits = Regex::new(r"(?m)^WAITS = \{(.*)\}$").unwrap();
    let waits = waits.captures(&dagster).unwrap()[1].to_owned();
    assert_eq!(
        waits.split(',').flat_map(|pair| numbers(pair.split(':').next().unwrap())).collect::<Codes>(),
        mended_by_time()
    );
    assert_eq!(one(r"(?m)^SKIPPED = (\d+)$", &dagster), [ErrorKind::Conflict.exit_code()].into());
    let reason = Regex::new(r"(?m)^    (\d+): ").unwrap();
    let mut told: Codes = reason.captures_iter(&dagster).map(|found| found[1].parse().unwrap()).collect();
    told.extend(mended_by_time());
    told.extend([0, ErrorKind::Conflict.exit_code()]);
    assert_eq!(told, every_code, "dagster_job.py knows every code");
}

/// The values that a field of a crontab stands for; nothing where cron would refuse it.
fn cron_field(field: &str, first: u8, last: u8) -> Option<BTreeSet<u8>> {
    let mut found = BTreeSet::new();
    for part in field.split(',') {
        let (range, step) =
            part.split_once('/').map_or((part, Some(1_usize)), |(range, step)| (range, step.parse().ok()));
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (from.parse().ok()?, to.parse().ok()?),
            None if range == "*" => (first, last),
            None => (range.parse().ok()?, range.parse().ok()?),
        };
        let step = step.filter(|step| *step > 0)?;
        if from < first || to > last || from > to {
            return None;
        }
        found.extend((from..=to).step_by(step));
    }
    Some(found)
}

/// A line of a crontab: minutes, hours, days of the month, months, days of the week, and the command.
fn cron_line(line: &str) -> Option<([BTreeSet<u8>; 5], &str)> {
    const BOUNDS: [(u8, u8); 5] = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];
    let mut rest = line.trim_start();
    let mut fields: [BTreeSet<u8>; 5] = Default::default();
    for (field, (first, last)) in fields.iter_mut().zip(BOUNDS) {
        let (word, others) = rest.split_once([' ', '\t'])?;
        *field = cron_field(word, first, last)?;
        rest = others.trim_start();
    }
    // A bare percent sign is the end of the command: the rest is given to its standard input.
    let is_whole = rest.match_indices('%').all(|(at, _)| rest[..at].ends_with('\\'));
    (is_whole && !rest.is_empty()).then_some((fields, rest))
}

#[test]
fn lines_that_cron_would_refuse_or_cut_are_noticed() {
    for line in [
        "7 * * * true",
        "60 * * * * true",
        "7 24 * * * true",
        "7 * 0 * * true",
        "7 * * 13 * true",
        "7 * * * 8 true",
        "7 5-2 * * * true",
        "*/0 * * * * true",
        "7 * * * * date +%F",
        "7 * * * *",
    ] {
        assert!(cron_line(line).is_none(), "{line}");
    }
    let (fields, command) = cron_line(r"*/20 1,3-5 * * 0 date +\%F").unwrap();
    assert_eq!(fields[0], [0, 20, 40].into());
    assert_eq!(fields[1], [1, 3, 4, 5].into());
    assert_eq!(command, r"date +\%F");
}

#[test]
fn crontab_starts_each_schedule_of_the_chapter_with_commands_that_exist() {
    let crontab = read("crontab");
    let assignment = Regex::new("^[A-Z_]+=").unwrap();
    let mut variables = BTreeSet::new();
    let mut jobs = Vec::new();
    for line in crontab.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        if assignment.is_match(line) {
            variables.insert(line.split('=').next().unwrap());
            continue;
        }
        let (times, command) = cron_line(line).unwrap_or_else(|| panic!("cron does not read: {line}"));
        assert_eq!(assert_line_parses("crontab", &command.replace("\\%", "%")), 1, "{command}");
        jobs.push((times, command));
    }
    for name in ["SHELL", "PATH", "MAILTO", "COUNTERFOIL_CONFIG"] {
        assert!(variables.contains(name), "{name}: {variables:?}");
    }
    assert!(crontab.ends_with('\n'), "cron leaves out a last line that has no end");

    // One extract in each hour of the week, one of them with the weekly comparison.
    let extracts: Vec<_> = jobs.iter().filter(|(_, command)| command.contains("counterfoil extract")).collect();
    let starts = |weekday: u8, hour: u8| {
        let at = |(times, _): &&&(_, _)| -> bool {
            let times: &[BTreeSet<u8>; 5] = times;
            times[4].contains(&weekday) && times[1].contains(&hour) && times[0].len() == 1
        };
        extracts.iter().filter(at).map(|(_, command)| *command).collect::<Vec<_>>()
    };
    let mut compared = 0;
    for hour in 0..168 {
        let started = starts(hour / 24, hour % 24);
        assert_eq!(started.len(), 1, "day {} at {}: {started:?}", hour / 24, hour % 24);
        assert!(started[0].contains("--report") && started[0].contains("--metrics-file"), "{}", started[0]);
        compared += usize::from(started[0].contains("--reconcile"));
    }
    assert_eq!(compared, 1);

    // The others, by how many days of the week or of the month they run.
    for (words, days_of_month, days_of_week) in
        [("query --quiet --all --out-dir", 31, 8), ("--record", 31, 1), ("lake verify", 1, 8)]
    {
        let [(times, command)] = jobs.iter().filter(|job| job.1.contains(words)).collect::<Vec<_>>()[..] else {
            panic!("one line of the crontab has {words}");
        };
        assert_eq!((times[2].len(), times[4].len()), (days_of_month, days_of_week), "{command}");
        assert_eq!((times[0].len(), times[1].len()), (1, 1), "{command}");
    }
    let chapter = fs::read_to_string(repository().join(CHAPTER)).unwrap();
    let section = chapter.split("## Several schedules").nth(1).unwrap().split("\n## ").next().unwrap();
    let schedules = section.lines().filter(|line| line.starts_with("| `counterfoil")).count();
    assert_eq!(schedules, 5, "schedules of the chapter are those above");
}

/// Runs systemd-analyze in a folder; nothing, aloud, where it is not there, which is an error in CI.
fn analyze(folder: &Path, arguments: &[&str]) -> Option<Output> {
    let asked = Command::new("systemd-analyze")
        .args(arguments)
        .env("SYSTEMD_PAGER", "cat")
        .current_dir(folder)
        .stdin(Stdio::null())
        .output();
    let Ok(output) = asked else {
        assert!(std::env::var_os("CI").is_none(), "CI must have systemd-analyze (Debian's package systemd)");
        // Past the harness, which keeps to itself what a passing test prints.
        std::io::stderr().write_all(b"skipped: systemd-analyze does not run, so the units are not checked\n").unwrap();
        return None;
    };
    Some(output)
}

/// Writes the units with the binary under test as their program, and the unit that tells somebody of a failure.
fn write_units(folder: &Path, service: &str) {
    let installed = "/usr/local/bin/counterfoil";
    assert!(service.contains(&format!("ExecStart={installed} extract ")), "{service}");
    let service = service.replace(installed, env!("CARGO_BIN_EXE_counterfoil"));
    fs::write(folder.join("counterfoil.service"), service).unwrap();
    fs::write(folder.join("counterfoil.timer"), read("counterfoil.timer")).unwrap();
    let stub = "[Unit]\nDescription=Tell somebody\n\n[Service]\nType=oneshot\nExecStart=/bin/true\n";
    fs::write(folder.join("counterfoil-failed.service"), stub).unwrap();
}

#[test]
fn units_are_as_systemd_has_them_and_expose_little() {
    const VERIFY: [&str; 4] = ["verify", "--man=no", "./counterfoil.service", "./counterfoil.timer"];
    let threshold = format!("--threshold={EXPOSURE}");
    let security = ["security", "--offline=true", "--no-pager", &threshold, "./counterfoil.service"];
    let folder = tempfile::tempdir().unwrap();
    let service = read("counterfoil.service");
    write_units(folder.path(), &service);
    let Some(verified) = analyze(folder.path(), &VERIFY) else { return };
    let told = |output: &Output| format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!((verified.status.code(), told(&verified).as_str()), (Some(0), ""), "systemd has nothing to remark");
    let exposed = analyze(folder.path(), &security).unwrap();
    assert!(exposed.status.success(), "{}", told(&exposed));

    let arguments = values(&service, "ExecStart")[0].replace("/usr/local/bin/", "");
    assert_eq!(assert_line_parses("counterfoil.service", &arguments), 1);
    let lowered = service.to_lowercase();
    assert!(
        !lowered.contains("api_key=env:") && !lowered.contains("kustomer_api_key="),
        "no secret in the environment"
    );

    // The same questions find what is wrong.
    write_units(folder.path(), &service.replace("Restart=on-failure", "Restart=always"));
    let remarks = analyze(folder.path(), &VERIFY).unwrap();
    assert!(told(&remarks).contains("Restart="), "{}", told(&remarks));
    write_units(folder.path(), service.split("NoNewPrivileges=").next().unwrap());
    assert!(
        !analyze(folder.path(), &security).unwrap().status.success(),
        "a unit without bounds is over the threshold"
    );
}

/// Names of the sets of calls of `systemd-analyze syscall-filter`, with what they hold.
fn filters(listing: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut sets: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in listing.lines() {
        let word = line.trim();
        if line.starts_with('@') {
            word.clone_into(&mut current);
            sets.entry(current.clone()).or_default();
        } else if line.starts_with(' ') && !word.starts_with('#') {
            sets.get_mut(&current).unwrap().insert(word.to_owned());
        }
    }
    sets
}

fn calls(sets: &BTreeMap<String, BTreeSet<String>>, name: &str) -> BTreeSet<String> {
    match sets.get(name) {
        Some(inside) => inside.iter().flat_map(|name| calls(sets, name)).collect(),
        None => [name.to_owned()].into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extract_asks_nothing_of_the_system_that_the_service_forbids() {
    let Some(listing) = analyze(repository(), &["syscall-filter"]) else { return };
    if !can_trace() {
        return;
    }
    let service = read("counterfoil.service");
    let sets = filters(&text(&listing.stdout));
    let mut permitted = BTreeSet::new();
    for filter in values(&service, "SystemCallFilter") {
        for name in filter.trim_start_matches('~').split(' ') {
            assert!(sets.contains_key(name), "{name} is a set that systemd knows");
            let calls = calls(&sets, name);
            permitted = if filter.starts_with('~') {
                permitted.difference(&calls).cloned().collect()
            } else {
                permitted.union(&calls).cloned().collect()
            };
        }
    }
    let families: Vec<&str> = values(&service, "RestrictAddressFamilies")[0].split(' ').collect();
    assert_eq!(values(&service, "MemoryDenyWriteExecute"), ["yes"]);

    let bench = Bench::new(300).await;
    let plain = bench.command(&["extract", "--quiet", "--report", "run.json", "--metrics-file", "counterfoil.prom"]);
    let log = bench.path().join("trace.txt");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-s", "0", "-o"]).arg(&log).arg(plain.get_program()).args(plain.get_args());
    command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let output = command.env("PATH", path).current_dir(bench.path()).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));

    let call = Regex::new(r"^\d+ +([a-z_0-9]+)\((.*)").unwrap();
    let trace = fs::read_to_string(log).unwrap();
    let mut seen = BTreeSet::new();
    for line in trace.lines() {
        let Some(found) = call.captures(line) else { continue };
        let (name, arguments) = (&found[1], &found[2]);
        assert!(permitted.contains(name), "SystemCallFilter= forbids: {line}");
        let is_written_and_run =
            arguments.contains("PROT_EXEC") && (arguments.contains("PROT_WRITE") || name == "mprotect");
        assert!(!is_written_and_run, "MemoryDenyWriteExecute= forbids: {line}");
        if name == "socket" {
            let family = arguments.split(',').next().unwrap();
            assert!(families.contains(&family), "RestrictAddressFamilies= forbids: {line}");
        }
        seen.insert(name.to_owned());
    }
    for name in ["socket", "connect", "openat", "mmap", "fsync"] {
        assert!(seen.contains(name), "an extract calls {name}: {seen:?}");
    }
}

#[test]
fn manifests_hold_to_the_schemas_of_kubernetes() {
    let Some(python) = interop::python("kubernetes_validate", None) else { return };
    let request = json!({ "path": recipe("cronjob.yaml"), "versions": ["1.31", "1.34", "1.37"] });
    let answer = interop::ask(&python, "kubernetes_check.py", &request);
    assert_eq!(answer["errors"], json!([]));
    let documents = answer["documents"].as_array().unwrap();
    assert_eq!(
        documents.iter().map(|document| &document["kind"]).collect::<Vec<_>>(),
        ["PersistentVolumeClaim", "CronJob"]
    );
    let cron_job = &documents[1]["spec"];
    let (times, _) = cron_line(&format!("{} true", cron_job["schedule"].as_str().unwrap())).unwrap();
    assert_eq!((times[0].len(), times[1].len()), (1, 24), "every hour");

    let job = &cron_job["jobTemplate"]["spec"];
    let rules = job["podFailurePolicy"]["rules"].as_array().unwrap();
    assert_eq!(rules[0]["action"], "Ignore");
    assert_eq!(rules[0]["onPodConditions"], json!([{ "type": "DisruptionTarget", "status": "True" }]));
    let failed: Codes = rules[1]["onExitCodes"]["values"]
        .as_array()
        .unwrap()
        .iter()
        .map(|code| u8::try_from(code.as_u64().unwrap()).unwrap())
        .collect();
    assert_eq!(failures().difference(&failed).copied().collect::<Codes>(), mended_by_time());
    assert_eq!(rules[1]["action"], "FailJob");

    let pod = &job["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(rules[1]["onExitCodes"]["containerName"], container["name"]);
    let words = container["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
    let command = ["counterfoil"].into_iter().chain(words).collect::<Vec<_>>().join(" ");
    assert_eq!(assert_line_parses("cronjob.yaml", &command), 1);

    // What is mounted is there, and secrets come as files only.
    let names = |list: &Value| {
        list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(names(&container["volumeMounts"]), names(&pod["volumes"]));
    let mounts: Vec<&str> = container["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["mountPath"].as_str().unwrap())
        .collect();
    for variable in container["env"].as_array().unwrap() {
        assert!(variable.get("valueFrom").is_none(), "{variable}");
        let path = variable["value"].as_str().unwrap().trim_start_matches("file:");
        assert!(mounts.iter().any(|mount| path.starts_with(mount)), "{variable} is in a volume");
    }
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["securityContext"]["capabilities"], json!({ "drop": ["ALL"] }));
    assert_eq!(pod["automountServiceAccountToken"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dagster_repeats_what_time_mends_and_fails_for_good_where_it_does_not() {
    let Some(python) = interop::python("dagster", None) else { return };
    let bench = Bench::new(600).await;
    let busy = Bench::new(900).await;
    // Two searches a minute: this run soon waits for its budget, with the lease in its hands.
    let holder = busy
        .command(&["extract"])
        .env("COUNTERFOIL_SOURCE__SEARCH_RPM", "4")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let has_searched = || busy.sandbox.requests().keys().any(|route| route.ends_with("search"));
    for _ in 0..6_000 {
        if has_searched() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let environment = |bench: &Bench| -> Value {
        let command = bench.command(&[]);
        let set =
            command.get_envs().filter_map(|(name, value)| Some((name.to_str()?.to_owned(), json!(value?.to_str()?))));
        Value::Object(set.collect())
    };
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let request = json!({
        "recipe": recipe("dagster_job.py"),
        "program": env!("CARGO_BIN_EXE_counterfoil"),
        "project": bench.path(),
        "environment": environment(&bench),
        "cases": [
            { "arguments": ["--max-requests", "14"] },
            {},
            { "environment": { "KUSTOMER_API_KEY": "wrong" } },
            { "environment": { "COUNTERFOIL_SOURCE__BASE_URL": format!("http://{closed}") } },
            { "environment": environment(&busy), "project": busy.path() },
        ],
    });
    let answer =
        tokio::task::spawn_blocking(move || interop::ask(&python, "dagster_job_run.py", &request)).await.unwrap();
    assert!(Command::new("kill").args(["-TERM", &holder.id().to_string()]).status().unwrap().success());
    assert_eq!(holder.wait_with_output().unwrap().status.code(), Some(i32::from(INTERRUPTED)));

    let [incomplete, well, denied, unavailable, meeting] = answer["cases"].as_array().unwrap().as_slice() else {
        panic!("{answer}");
    };
    let outcome = |case: &Value| [&case["success"], &case["starts"], &case["outputs"]].map(Clone::clone);
    assert_eq!(outcome(incomplete), [json!(true), json!(2), json!(1)], "7, and at its second start 0: {incomplete}");
    assert_eq!(incomplete["metadata"]["exit_code"], 0);
    assert_eq!(incomplete["metadata"]["report"]["complete"], true);
    assert!(incomplete["metadata"]["tickets_inserted"].as_u64() > Some(0), "{incomplete}");
    assert_eq!(outcome(well), [json!(true), json!(1), json!(1)], "{well}");
    assert_eq!(well["metadata"]["tickets_inserted"], 0);
    assert_eq!(outcome(denied), [json!(false), json!(1), json!(0)], "4 is not tried again: {denied}");
    assert!(denied["failures"][0].as_str().unwrap().starts_with("exit code 4: "), "{denied}");
    assert_eq!(outcome(unavailable), [json!(false), json!(4), json!(0)], "3 is tried three times more: {unavailable}");
    assert_eq!(outcome(meeting), [json!(true), json!(1), json!(0)], "9 hands nothing on: {meeting}");

    let policy = &answer["policy"];
    let waits = policy["waits"].as_object().unwrap();
    assert_eq!(waits.keys().map(|code| code.parse().unwrap()).collect::<Codes>(), mended_by_time());
    assert!(waits["3"].as_u64() >= Some(60), "a source that does not answer is left alone for a while");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_the_crontab_run_as_cron_runs_them_and_mail_nothing_when_all_is_well() {
    let bench = Bench::new(900).await;
    let crontab = read("crontab").replace("/srv/tickets", bench.path().to_str().unwrap());
    fs::create_dir(bench.path().join("metrics")).unwrap();
    fs::write(bench.path().join("kustomer.key"), bench.sandbox.api_key()).unwrap();

    // The crontab's own variables and no others, but for where the source and the binary are.
    let mut environment = BTreeMap::from([
        ("HOME".to_owned(), bench.path().display().to_string()),
        ("COUNTERFOIL_SOURCE__BASE_URL".to_owned(), bench.sandbox.base_url().to_owned()),
        ("COUNTERFOIL_EXTRACT__INDEX_LAG".to_owned(), "0s".to_owned()),
    ]);
    let assignment = Regex::new("(?m)^([A-Z_]+)=(.*)$").unwrap();
    environment.extend(assignment.captures_iter(&crontab).map(|found| (found[1].to_owned(), found[2].to_owned())));
    let folder = Path::new(env!("CARGO_BIN_EXE_counterfoil")).parent().unwrap().display().to_string();
    let path = format!("{folder}:{}", environment["PATH"]);
    environment.insert("PATH".to_owned(), path);

    let lines = crontab.lines().filter(|line| !line.starts_with('#') && !assignment.is_match(line));
    for (_, command) in lines.filter_map(cron_line) {
        let command = command.replace("\\%", "%");
        let mut shell = Command::new(&environment["SHELL"]);
        shell.args(["-c", &command]).env_clear().envs(&environment).current_dir(bench.path()).stdin(Stdio::null());
        let output = shell.output().unwrap();
        let mailed = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!((output.status.code(), mailed.as_str()), (Some(0), ""), "{command}");
    }
    let sample = fs::read_to_string(bench.path().join("sample.csv")).unwrap();
    assert!(sample.starts_with("ticket_id,") && sample.lines().count() > 1, "{sample}");
    for made in ["run.json", "metrics/counterfoil.prom", "feed", "verified.txt"] {
        assert!(bench.path().join(made).exists(), "{made}");
    }
}
