"""Filters over 3 million tickets and 1 million customers: this program beside DuckDB, on encrypted and on plain Parquet.

    python3 benches/peers/duckdb_queries.py BINARY [--tickets 3000000] [--rounds 5] [--keep FOLDER] [--only NAME,…]

Installs DuckDB and its httpfs extension (which brings the fast AES) from PyPI in a virtual environment of FOLDER. The rows come
from the sandbox by `extract`, leave by `query --format parquet --plaintext`, and DuckDB writes them into its own files, plain
and encrypted, in the order of their ids. FOLDER keeps all of it, so that another run starts at once.

Everything is measured in turns, two threads each, the result written as CSV to memory. One side is a whole process of this
program, whose log says how long planning and running took; the other one `COPY (…) TO` on a fresh DuckDB instance, without
opening it and without Python's start. Both read their files' footers in that time. `/plain` and `/encrypted` are our planning
and running over DuckDB's time, `over` is what our process takes besides, `MiB` its largest resident memory. First columns of
results are compared, but for the sample: DuckDB draws by its own hash, which is cheaper and changes with versions.
"""

import argparse
import csv
import datetime
import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
import venv

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

PEERS = ("duckdb==1.5.5", "duckdb-extensions==1.5.5", "duckdb-extension-httpfs==1.5.5")

# A process of this program is started by a small one: what it may inherit of a parent's memory would count as its own.
LAUNCH = """
import json, os, subprocess, sys, time
begin = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
words = process.stderr.read().decode()
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), time.perf_counter() - begin, usage.ru_maxrss / 1024, words]))
"""

FIRST_AGENT = "assigned_user_ids[1]"


def queries(today, tags):
    """Name, what it is, our SQL, and DuckDB's where it differs."""

    def ago(days):
        return f"TIMESTAMP '{today - datetime.timedelta(days=days)} 00:00:00'"

    sample = f"""
        WITH drawn AS (
            SELECT ticket_id, {FIRST_AGENT} AS agent,
                row_number() OVER (PARTITION BY {FIRST_AGENT} ORDER BY DRAW, ticket_id) AS pick
            FROM tickets
            WHERE status = 'done' AND last_done_at >= {ago(365)} AND message_count >= 2
              AND {FIRST_AGENT} IS NOT NULL AND spam IS DISTINCT FROM true)
        SELECT ticket_id, agent, pick FROM drawn WHERE pick <= 5 ORDER BY agent, pick"""
    tagged = f"SELECT ticket_id, tag_ids FROM tickets WHERE HAS(tag_ids, ['{tags[0]}', '{tags[1]}']) AND status <> 'done'"
    backlog = """
        SELECT ticket_id, queue_id, priority, channels, created_at FROM tickets
        WHERE status IN ('open', 'snoozed') AND coalesce(LENGTH(assigned_user_ids), 0) = 0
        ORDER BY created_at, ticket_id"""
    return [
        ("recent_open", "open tickets of a week, in order", f"""
            SELECT ticket_id, status, queue_id, created_at FROM tickets
            WHERE status = 'open' AND created_at >= {ago(7)} AND spam IS DISTINCT FROM true
            ORDER BY created_at, ticket_id"""),
        ("busy_done", "a broad filter, ids only", """
            SELECT ticket_id FROM tickets WHERE status = 'done' AND message_count >= 4 AND note_count >= 1"""),
        ("tags", "any of two tags", tagged.replace("HAS", "array_has_any"), tagged.replace("HAS", "list_has_any")),
        ("custom", "custom attributes of half a year", f"""
            SELECT ticket_id, reopen_count, custom_contact_reason FROM tickets
            WHERE custom_tier = 'vip' AND custom_contact_reason LIKE 'billing.%' AND custom_escalated
              AND updated_at >= {ago(180)}
            ORDER BY reopen_count DESC NULLS LAST, ticket_id"""),
        ("customers", "a quarter's tickets, joined with customers", f"""
            SELECT t.ticket_id, t.customer_id, c.conversation_count_all
            FROM tickets t JOIN customers c ON c.customer_id = t.customer_id
            WHERE t.created_at >= {ago(92)} AND c.conversation_count_all >= 5 AND t.status <> 'done'
            ORDER BY c.conversation_count_all DESC, t.ticket_id"""),
        ("top_per_agent", "ten longest open of each agent", f"""
            WITH ranked AS (
                SELECT ticket_id, {FIRST_AGENT} AS agent, total_open_ms, row_number() OVER (
                    PARTITION BY {FIRST_AGENT} ORDER BY total_open_ms DESC NULLS LAST, ticket_id) AS place
                FROM tickets WHERE status = 'done' AND created_at >= {ago(330)})
            SELECT ticket_id, agent, total_open_ms, place FROM ranked WHERE place <= 10 ORDER BY agent, place"""),
        ("sample", "5 tickets of each agent over a year", sample.replace("DRAW", "sample_key('qa', ticket_id)"),
            sample.replace("DRAW", "hash('qa' || ticket_id)")),
        ("distinct", "customers by queue and month", """
            SELECT queue_id, date_trunc('month', created_at) AS month, count(DISTINCT customer_id) AS customers,
                count(*) AS tickets
            FROM tickets GROUP BY queue_id, date_trunc('month', created_at) ORDER BY queue_id, month"""),
        ("weekly", "a year by week and channel", f"""
            WITH weeks AS (
                SELECT date_trunc('week', created_at) AS monday, unnest(channels) AS channel
                FROM tickets WHERE created_at >= {ago(364)} AND spam IS DISTINCT FROM true)
            SELECT monday, channel, count(*) AS tickets FROM weeks GROUP BY monday, channel ORDER BY monday, channel"""),
        ("sla_misses", "first responses later than the SLA", f"""
            SELECT ticket_id, sla_name, created_at, sla_first_response_breach_at, first_response_at FROM tickets
            WHERE created_at >= {ago(92)} AND sla_first_response_breach_at IS NOT NULL
              AND coalesce(first_response_at, {ago(0)}) > sla_first_response_breach_at AND spam IS DISTINCT FROM true
            ORDER BY ticket_id"""),
        ("low_score", "low score after long handling", f"""
            SELECT ticket_id, satisfaction_score, total_open_ms, message_count FROM tickets
            WHERE updated_at >= {ago(325)} AND satisfaction_score <= 0 AND total_open_ms >= 86400000
            ORDER BY satisfaction_score, total_open_ms DESC, ticket_id"""),
        ("backlog", "unassigned tickets, oldest first", backlog.replace("LENGTH", "array_length"),
            backlog.replace("LENGTH", "len")),
        ("agent_week", "a year by agent and week", f"""
            SELECT {FIRST_AGENT} AS agent, date_trunc('week', last_done_at) AS week, count(*) AS done,
                avg(first_response_ms) AS mean_ms, max(total_open_ms) AS longest
            FROM tickets WHERE last_done_at >= {ago(364)} GROUP BY 1, 2 ORDER BY 1, 2"""),
        ("repeat", "customers who came five times in half a year", f"""
            SELECT customer_id, count(*) AS tickets, max(created_at) AS newest FROM tickets
            WHERE created_at >= {ago(180)} GROUP BY customer_id HAVING count(*) >= 5 ORDER BY tickets DESC, customer_id"""),
        ("million_ids", "over a million ids, no order", f"""
            SELECT ticket_id FROM tickets WHERE created_at >= {ago(400)}"""),
    ]


class Lake:
    """A lake that the sandbox filled, and the same rows in DuckDB's files."""

    def __init__(self, binary, folder, tickets):
        self.binary, self.folder = binary, folder
        self.home = os.path.join(folder, "home")
        if not os.path.exists(os.path.join(folder, "ready")):
            self.fill(tickets)

    def path(self, table, kind):
        return os.path.join(self.folder, f"{table}.{kind}.parquet")

    def run(self, *arguments, **environment):
        command = [self.binary, *arguments]
        result = subprocess.run(
            command, cwd=self.home, env={**os.environ, **environment}, capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise SystemExit(f"{' '.join(command)}: {result.stderr}")
        return result.stdout

    def fill(self, tickets):
        import extract

        source = extract.Source(self.binary, tickets, *extract.FREE)
        subprocess.run([self.binary, "-q", "init", self.home], check=True)
        unbound = {f"COUNTERFOIL_{name}": str(value) for name, value in extract.UNBOUND.items()}
        self.run("extract", **source.environment, **unbound)
        source.close()
        self.run("lake", "compact")
        for table, key in (("tickets", "ticket_id"), ("customers", "customer_id")):
            exported = os.path.join(self.folder, f"{table}.exported.parquet")
            self.run("query", "-e", f"SELECT * FROM {table}", "--format", "parquet", "--plaintext", "-o", exported)
            connection = connect(None, self)
            for kind, option in (("plain", ""), ("encrypted", ", ENCRYPTION_CONFIG {footer_key: 'key'}")):
                connection.execute(
                    f"COPY (SELECT * FROM read_parquet('{exported}') ORDER BY {key}) "
                    f"TO '{self.path(table, kind)}' (FORMAT parquet, COMPRESSION zstd{option})"
                )
            connection.close()
            os.remove(exported)
        open(os.path.join(self.folder, "ready"), "w", encoding="utf-8").close()


def connect(kind, lake):
    import duckdb

    connection = duckdb.connect()
    connection.execute("LOAD httpfs; SET threads = 2; SET TimeZone = 'UTC'")
    connection.execute("PRAGMA add_parquet_key('key', '01234567891123450123456789112345')")
    if kind:
        option = ", encryption_config = {footer_key: 'key'}" if kind == "encrypted" else ""
        for table in ("tickets", "customers"):
            connection.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{lake.path(table, kind)}'{option})")
    return connection


def ours(lake, sql, out):
    command = [lake.binary, "--log-format", "json", "-v", "query", "-e", sql, "--format", "csv", "-o", out]
    launched = subprocess.run(
        [sys.executable, "-S", "-c", LAUNCH, *command], cwd=lake.home, capture_output=True, text=True, check=True
    )
    code, wall, memory, words = json.loads(launched.stdout)
    if code:
        raise SystemExit(words)
    events = [json.loads(line) for line in words.splitlines() if '"query done"' in line]
    fields = events[0].get("fields", events[0])
    return (fields["planning_ms"] + fields["running_ms"]) / 1e3, wall, memory


def duckdb_copy(lake, kind, sql, out):
    connection = connect(kind, lake)
    begin = time.perf_counter()
    connection.execute(f"COPY ({sql}) TO '{out}' (HEADER)")
    took = time.perf_counter() - begin
    connection.close()
    return took


def first_column(path):
    """Rows, and a digest of the first column in any order."""
    with open(path, encoding="utf-8", newline="") as file:
        values = sorted(row[0] for row in csv.reader(file) if row)
    return len(values) - 1, hashlib.sha256("\n".join(values).encode()).hexdigest()


def mean(ratios):
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def compare(lake, rounds, only):
    today = datetime.datetime.fromtimestamp(os.path.getmtime(lake.path("tickets", "plain")), datetime.timezone.utc).date()
    tags = lake.run(
        "query", "-e", "SELECT tag_id FROM tags WHERE name IN ('praise', 'legal') ORDER BY 1", "--format", "ids"
    ).split()
    mine, theirs = "/dev/shm/counterfoil.csv", "/dev/shm/duckdb.csv"
    print("| query | rows | ours, ms | DuckDB plain, ms | encrypted, ms | /plain | /encrypted | over, ms | MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    plain_ratios, encrypted_ratios = [], []
    for name, what, sql, *other in queries(today, tags):
        if only and name not in only:
            continue
        their_sql = other[0] if other else sql
        runs, plain, encrypted = [], [], []
        for _ in range(rounds):
            runs.append(ours(lake, sql, mine))
            plain.append(duckdb_copy(lake, "plain", their_sql, theirs))
            encrypted.append(duckdb_copy(lake, "encrypted", their_sql, theirs))
        (rows, digest), (their_rows, their_digest) = first_column(mine), first_column(theirs)
        if rows != their_rows or (digest != their_digest and name not in ("sample", "distinct", "weekly", "agent_week")):
            raise SystemExit(f"{name}: the results differ ({rows} and {their_rows} rows)")
        took = statistics.median(run[0] for run in runs)
        over = statistics.median(run[1] - run[0] for run in runs)
        plain, encrypted = statistics.median(plain), statistics.median(encrypted)
        plain_ratios.append(took / plain)
        encrypted_ratios.append(took / encrypted)
        print(
            f"| {name}: {what} | {rows:,} | {took * 1e3:.0f} | {plain * 1e3:.0f} | {encrypted * 1e3:.0f} "
            f"| {plain_ratios[-1]:.2f} | {encrypted_ratios[-1]:.2f} | {over * 1e3:.0f} | {max(run[2] for run in runs):.0f} |",
            flush=True,
        )
    print(f"| geometric mean | | | | | **{mean(plain_ratios):.2f}** | **{mean(encrypted_ratios):.2f}** | | |")


def in_peers_environment(folder):
    """Starts this script again in an environment that has the peers, unless it runs there."""
    home = os.path.join(os.path.abspath(folder), "venv")
    python = os.path.join(home, "bin", "python")
    if os.path.realpath(sys.prefix) == os.path.realpath(home):
        return
    if not os.path.exists(os.path.join(home, "ready")):
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEERS], check=True)
        code = "from duckdb_extensions import import_extension; import_extension('httpfs')"
        subprocess.run([python, "-c", code], check=True)
        open(os.path.join(home, "ready"), "w", encoding="utf-8").close()
    os.execv(python, [python, *sys.argv])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=os.path.abspath)
    parser.add_argument("--tickets", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", default="target/peers", help="folder of the lake and of DuckDB's files")
    parser.add_argument("--only", type=lambda names: names.split(","), default=[])
    arguments = parser.parse_args()
    os.makedirs(arguments.keep, exist_ok=True)
    in_peers_environment(arguments.keep)
    compare(Lake(arguments.binary, os.path.abspath(arguments.keep), arguments.tickets), arguments.rounds, arguments.only)
