//! Restricted columns as people meet them: what a process with the second key sees, one without, and what neither may break.

use std::fs;
use std::path::Path;
use std::process::Output;

use counterfoil::keys::RootKey;

use crate::commands::{Bench, assert_fails, listing, text};
use crate::keys::code_of;

const KEY: (&str, &str) = ("COUNTERFOIL_KEYS__RESTRICTED", "file:restricted.key");

/// Subjects under the second key, and directions as pseudonyms under it.
const RULES: [(&str, &str); 2] = [
    ("name", "{ name = \"restrict\", after = \"scrub\" }"),
    ("direction", "{ name = \"restrict\", after = \"pseudonymize\" }"),
];

#[track_caller]
fn succeeds(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Writes the method of columns of the tickets.
fn restrict(folder: &Path) {
    let file = folder.join("schemas/tickets.toml");
    let mut schema = fs::read_to_string(&file).unwrap();
    for (column, method) in RULES {
        let start = schema.find(&format!("\nname = \"{column}\"\n")).unwrap() + 1;
        let end = schema[start..].find("\n\n").map_or(schema.len(), |length| start + length);
        let lines = schema[start..end].lines().filter(|line| !line.starts_with("method = "));
        let declared = lines.collect::<Vec<_>>().join("\n");
        schema.replace_range(start..end, &format!("{declared}\nmethod = {method}"));
    }
    fs::write(file, schema).unwrap();
}

/// The bench with the key, and without it.
struct Sides(Bench);

impl Sides {
    async fn extracted(tickets: u64) -> Self {
        let bench = Bench::new(tickets).await;
        restrict(bench.path());
        let sides = Self(bench);
        let made = sides.with(&["keys", "init", "--restricted"]);
        assert!(made.status.success(), "{}", text(&made.stderr));
        succeeds(&sides.with(&["extract"]));
        sides
    }

    fn with(&self, arguments: &[&str]) -> Output {
        self.0.run_with(&[KEY, ("COUNTERFOIL_LAKE__MAINTAIN", "off")], arguments)
    }

    fn without(&self, arguments: &[&str]) -> Output {
        self.0.run_with(&[("COUNTERFOIL_LAKE__MAINTAIN", "off")], arguments)
    }

    /// One column of a query's rows, with the key.
    fn column(&self, sql: &str) -> Vec<String> {
        let out = succeeds(&self.with(&["query", "-e", sql, "--format", "csv"]));
        out.lines().skip(1).map(str::to_owned).collect()
    }

    /// The values that only the second key opens, by ticket.
    fn values(&self) -> Vec<String> {
        self.column("SELECT ticket_id, name, direction FROM tickets ORDER BY ticket_id")
    }

    /// Texts that are long enough not to come about by chance.
    fn needles(&self) -> Vec<String> {
        let mut needles = self.column("SELECT DISTINCT name FROM tickets WHERE length(name) > 11");
        needles.retain(|name| !name.contains(['"', ',']));
        assert!(needles.len() > 5, "{needles:?}");
        needles
    }
}

fn assert_shows_none(what: &str, shown: &str, needles: &[String]) {
    for needle in needles {
        assert!(!shown.contains(needle.as_str()), "{what} shows {needle:?}:\n{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_asked_for_while_the_key_of_a_restricted_column_is_missing() {
    let bench = Bench::new(30).await;
    restrict(bench.path());
    bench.sandbox.reset_traffic();
    let refused = bench.run(&["extract"]);
    assert_fails(&refused, 4, &["keys.restricted", "keys init --restricted"]);
    assert_eq!(bench.sandbox.requests().values().sum::<u64>(), 0, "before the first request");

    // A key that is named and missing, and one that is the same as the root key.
    assert_fails(
        &bench.run_with(&[KEY], &["query", "-e", "SELECT 1"]),
        2,
        &["restricted.key", "keys init --restricted"],
    );
    let same = ("COUNTERFOIL_KEYS__RESTRICTED", "file:root.key");
    assert_fails(&bench.run_with(&[same], &["keys", "init", "--restricted"]), 2, &["same key"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_without_the_key_reads_null_is_told_once_and_shown_nothing() {
    let sides = Sides::extracted(90).await;
    let needles = sides.needles();
    let counted =
        succeeds(&sides.with(&["query", "-e", "SELECT count(name), count(direction) FROM tickets", "--format", "csv"]));
    assert!(!counted.lines().nth(1).unwrap().starts_with('0'), "{counted}");

    for sql in [
        "SELECT name, direction, status FROM tickets",
        "SELECT * FROM ticket_versions",
        "SELECT min(name), max(name), count(DISTINCT direction) FROM tickets",
        "SELECT ticket_id FROM tickets WHERE name IS NOT NULL",
        "SELECT direction, count(*) FROM tickets GROUP BY direction ORDER BY direction",
        "SELECT a.ticket_id FROM tickets a JOIN tickets b ON a.name = b.name",
        "EXPLAIN ANALYZE SELECT name FROM tickets WHERE name > 'A' ORDER BY name",
        "EXPLAIN VERBOSE SELECT max(name) FROM tickets",
    ] {
        let output = sides.without(&["query", "-e", sql, "--format", "ndjson", "-vv"]);
        let (out, told) = (succeeds(&output), text(&output.stderr));
        assert_shows_none(sql, &format!("{out}{told}"), &needles);
        assert!(!out.contains("p1_") || sql.contains('*'), "{sql}: {out}");
        assert_eq!(told.matches("restricted columns read NULL").count(), 1, "{sql}: {told}");
        assert!(told.contains("tickets.direction") && told.contains("tickets.name"), "{told}");
    }
    let nulls = "SELECT count(name) + count(direction) AS n FROM ticket_versions";
    let nulls = sides.without(&["query", "-e", nulls, "--format", "csv"]);
    assert_eq!(succeeds(&nulls), "n\n0\n");
    let cast = sides.without(&["query", "-e", "SELECT CAST(name AS BIGINT) FROM tickets", "--format", "csv"]);
    assert_shows_none("an error", &text(&cast.stderr), &needles);

    // No byte under the lake's root tells them either.
    for (path, _) in listing(&sides.0.path().join("lake")) {
        let bytes = fs::read(&path).unwrap();
        for needle in &needles {
            assert!(!bytes.windows(needle.len()).any(|window| window == needle.as_bytes()), "{path}: {needle}");
        }
    }

    // A key that does not open the ring is an error, not a column of nothing.
    RootKey::create_file(&sides.0.path().join("other.key")).unwrap();
    let other = ("COUNTERFOIL_KEYS__RESTRICTED", "file:other.key");
    assert_fails(&sides.0.run_with(&[other], &["query", "-e", "SELECT 1"]), 4, &["does not open", "other.key"]);
    let damaged = sides.0.path().join("lake/keys/restricted-00000001");
    let good = fs::read(&damaged).unwrap();
    fs::write(&damaged, &good[..good.len() / 3]).unwrap();
    assert_fails(&sides.with(&["query", "-e", "SELECT 1"]), 5, &["key ring is damaged"]);
    fs::write(&damaged, good).unwrap();
    assert!(succeeds(&sides.with(&["lake", "verify"])).contains("sound"));
    assert!(succeeds(&sides.without(&["lake", "verify"])).contains("were not checked"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_rewrites_files_keeps_restricted_values_or_refuses() {
    let sides = Sides::extracted(90).await;
    let before = sides.values();
    for round in [[1, 2], [3, 4]] {
        sides.0.sandbox.organisation().touch(&round);
        succeeds(&sides.with(&["extract"]));
    }
    let names = |values: &[String]| -> Vec<String> {
        values.iter().map(|row| row.rsplit_once(',').unwrap().0.to_owned()).collect()
    };
    assert_eq!(names(&sides.values()), names(&before));

    // Without the key nothing is rewritten that would lose it.
    let files = listing(&sides.0.path().join("lake/data/tickets"));
    for arguments in [&["keys", "rotate", "--pseudonyms"][..], &["keys", "rewrap", "--files"], &["lake", "compact"]] {
        succeeds(&sides.with(&["keys", "rotate"]));
        let output = sides.without(arguments);
        let told = text(&output.stderr);
        assert!(
            output.status.code() == Some(4)
                || told.contains("restricted")
                || text(&output.stdout).contains("restricted"),
            "{arguments:?} is neither refused nor told: {}{told}",
            text(&output.stdout)
        );
        assert_eq!(sides.values(), before, "{arguments:?}");
        assert!(listing(&sides.0.path().join("lake/data/tickets")).len() >= files.len(), "{arguments:?}");
    }

    // With it, they stay restricted, and no older key is needed any more.
    succeeds(&sides.with(&["lake", "compact"]));
    assert_eq!(sides.values(), before);
    succeeds(&sides.with(&["keys", "rewrap", "--files"]));
    let code = code_of(&succeeds(&sides.with(&["keys", "destroy", "ring-1", "--dry-run"])));
    succeeds(&sides.with(&["keys", "destroy", "ring-1", "--confirm", &code]));
    assert_eq!(sides.values(), before);
    succeeds(&sides.with(&["keys", "rotate", "--pseudonyms"]));
    let rotated = sides.values();
    assert_eq!(names(&rotated), names(&before));
    assert!(
        rotated.iter().any(|row| row.contains(",p2_")) && !rotated.iter().any(|row| row.contains(",p1_")),
        "{rotated:?}"
    );
    let nulls =
        sides.without(&["query", "-e", "SELECT count(name) + count(direction) AS n FROM tickets", "--format", "csv"]);
    assert_eq!(succeeds(&nulls), "n\n0\n");

    // Destroying the second ring's key takes these columns and nothing else.
    succeeds(&sides.with(&["keys", "rotate", "--restricted"]));
    let dry_run = succeeds(&sides.with(&["keys", "destroy", "restricted-1", "--dry-run"]));
    let code = code_of(&dry_run);
    let destroyed = sides.with(&["keys", "destroy", "restricted-1", "--confirm", &code, "--lose-data"]);
    succeeds(&destroyed);
    let left = sides.with(&["query", "-e", "SELECT count(name) AS n, count(*) AS m FROM tickets", "--format", "csv"]);
    let live = before.len();
    assert_eq!(succeeds(&left), format!("n,m\n0,{live}\n"));
    assert!(text(&left.stderr).contains("restricted columns read NULL"), "{}", text(&left.stderr));
}
