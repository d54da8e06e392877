"""Section extraction: whole runs over the sandbox's HTTP server, ours beside tap-kustomer with target-jsonl, and dlt.

All of them fetch tickets and customers, and nothing else: the declarations of our small tables (users, teams, tags and the like, a
request or two each) are taken out of the project, since the peers are not asked for them either. Ours proves besides that nothing is
missing, reads the definitions of custom attributes, and encrypts; these requests and this time are in its figures.
"""

import json
import os
import re
import shutil
import subprocess

from measure import FREE, HERE, UNBOUND, Folder, Row, Source, environment, less, middle, more, run, size

DLT_AGAIN, DLT_ONCE, TAP = "dlt", "dlt, one run", "tap-kustomer"


class Ours:
    name = "ours"

    def __init__(self, binary, work, source, **settings):
        self.folder = Folder(binary, os.path.join(work, "ours"), source)
        self.settings = settings
        schemas = os.path.join(self.folder.at, "schemas")
        for name in os.listdir(schemas):
            if name not in ("tickets.toml", "customers.toml"):
                os.remove(os.path.join(schemas, name))

    def run(self, limit):
        measured = self.folder.extract(limit=limit, **self.settings)
        if measured.codes == [3]:
            # The run says that it is not complete yet: a scheduled job would repeat it. Not a failure, but not complete.
            measured.more["incomplete"] = True
        return measured

    def tables(self):
        """The rows as somebody with every right reads them; on disk they are encrypted."""
        said = {}
        for table in ("tickets", "customers"):
            place = os.path.join(self.folder.at, f"{table}.ndjson")
            command = [self.folder.binary, "-q", "query", "-e", f"SELECT * FROM {table}", "--format", "ndjson", "-o", place]
            result = subprocess.run(command, cwd=self.folder.at, capture_output=True, text=True, check=False,
                                    env={**os.environ, **self.folder.environment})
            if result.returncode:
                raise RuntimeError(result.stderr)
            said[table] = place
        return said

    def disk(self):
        return self.folder.size()[1]


class Tap:
    name = TAP

    def __init__(self, tap, target, work, source):
        self.at = os.path.join(work, "tap")
        shutil.rmtree(self.at, ignore_errors=True)
        os.makedirs(self.at)
        self.target = [os.path.join(os.path.dirname(target), "target-jsonl"), "-c", "target.json"]
        self.tap = [tap, os.path.join(HERE, "tap_here.py"), "--config", "config.json"]
        self.put("config.json", {
            "api_token": source.key, "start_date": "2000-01-01T00:00:00Z", "user_agent": "peer", "base_url": source.url,
        })
        self.put("target.json", {"destination_path": os.path.join(self.at, "out"), "do_timestamp_file": False})
        discovered = run([*self.tap, "--discover"], cwd=self.at, out=os.path.join(self.at, "catalog.json"))
        if not discovered.well:
            raise RuntimeError(discovered.last_line())
        with open(os.path.join(self.at, "catalog.json"), encoding="utf-8") as file:
            catalog = json.load(file)
        for stream in catalog["streams"]:
            for entry in stream["metadata"]:
                if not entry["breadcrumb"]:
                    entry["metadata"]["selected"] = stream["stream"] in ("conversations", "customers")
        self.put("catalog.json", catalog)
        source.reset()

    def put(self, name, value):
        with open(os.path.join(self.at, name), "w", encoding="utf-8") as file:
            json.dump(value, file)

    def run(self, limit):
        said = os.path.join(self.at, "state.jsonl")
        state = []
        if os.path.exists(said) and os.path.getsize(said):
            with open(said, encoding="utf-8") as file:
                self.put("state.json", json.loads(file.read().splitlines()[-1]))
            state = ["--state", "state.json"]
        return run([*self.tap, "--catalog", "catalog.json", *state], self.target, cwd=self.at, limit=limit, out=said)

    def tables(self):
        return {"tickets": os.path.join(self.at, "out", "conversations.jsonl"),
                "customers": os.path.join(self.at, "out", "customers.jsonl")}

    def disk(self):
        return size(os.path.join(self.at, "out"))[1]


class Dlt:
    def __init__(self, python, work, source, way):
        self.name = DLT_ONCE if way == "once" else DLT_AGAIN
        self.at = os.path.join(work, f"dlt-{way}")
        shutil.rmtree(self.at, ignore_errors=True)
        self.command = [python, os.path.join(HERE, "dlt_here.py"), source.url, self.at, way]
        self.environment = source.environment

    def run(self, limit):
        return run(self.command, env=self.environment, limit=limit)

    def tables(self):
        return {table: os.path.join(self.at, "out", "desk", table) for table in ("tickets", "customers")}

    def disk(self):
        return size(os.path.join(self.at, "out"))[1]


class Outcome:
    """What one client did in one turn."""

    def __init__(self, client, source, measured, looker, known, work):
        self.measured, self.traffic = measured, source.traffic()
        self.requests, self.refused = self.traffic["requests"], self.traffic["refused"]
        held = source.state()
        out = os.path.join(work, "look.json")
        looked = run([looker, os.path.join(HERE, "look.py"), known, out,
                      *(f"{table}={place}" for table, place in client.tables().items())])
        if not looked.well:
            raise RuntimeError(looked.last_line())
        with open(out, encoding="utf-8") as file:
            self.tables = json.load(file)
        self.tickets = self.tables["tickets"]["distinct"]
        self.missing = sum(max(held[table] - self.tables[table]["distinct"], 0) for table in self.tables)
        self.twice = sum(table["rows"] - table["distinct"] for table in self.tables.values())
        self.personal = sum(len(table["personal"]) for table in self.tables.values())
        self.disk = client.disk()

    def remark(self, limit):
        if self.measured.late:
            return f"did not end within {limit} s and was stopped"
        if self.measured.well:
            return ""
        return f"failed: {reason(self.measured)}"


def reason(measured):
    """The line of the log that names the error."""
    lines = [line.strip() for line in measured.words.splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line or "error" in line]
    line = (named or lines or [f"exit {measured.codes}"])[-1]
    status = re.search(r"\b\d{3} (Client|Server) Error: [A-Za-z ]+", line)
    return (status[0] if status else line)[:160]


class Extraction:
    def __init__(self, options):
        self.options, self.work = options, os.path.join(options.work, "extraction")
        os.makedirs(self.work, exist_ok=True)
        self.pythons, self.failed = {}, {}
        for name in ("tap", "target", "dlt"):
            try:
                self.pythons[name] = environment(options.work, name)
            except (RuntimeError, OSError) as error:
                self.failed[name] = str(error).strip().splitlines()[-1]
        self.looker = self.pythons["dlt"]

    def known(self, source):
        """Texts of the first customers that nobody should find on a disk."""
        texts = set()
        for row in source.search("customer", 100)["data"]:
            attributes = row["attributes"]
            texts |= {attributes.get("name"), attributes.get("displayName"), attributes.get("lastName")}
            texts |= {one.get("email") for one in attributes.get("emails") or []}
            texts |= {one.get("phone") for one in attributes.get("phones") or []}
        path = os.path.join(self.work, "known.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(sorted(text for text in texts if text), file)
        source.reset()
        return path

    def clients(self, source, names, settings):
        for name in names:
            try:
                if name == "ours":
                    yield Ours(self.options.binary, self.work, source, **settings)
                elif name == TAP:
                    yield Tap(self.pythons["tap"], self.pythons["target"], self.work, source)
                else:
                    yield Dlt(self.pythons["dlt"], self.work, source, "once" if name == DLT_ONCE else "again")
            except (RuntimeError, OSError, KeyError) as error:
                self.failed[name] = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)

    def play(self, task, tickets, flags, *, turns, limit, names, settings=UNBOUND, second=0):
        """Runs every client in turn, in an order that turns; returns outcomes by name, those of second runs too."""
        first, again = {}, {}
        for turn in range(turns):
            with Source(self.options.binary, tickets, *flags) as source:
                known = self.known(source)
                order = list(names)[turn % len(names):] + list(names)[: turn % len(names)]
                clients = []
                for client in self.clients(source, order, settings):
                    source.reset()
                    print(f"  {task}: {client.name}, turn {turn + 1} of {turns}", file=self.options.say, flush=True)
                    measured = client.run(limit)
                    try:
                        outcome = Outcome(client, source, measured, self.looker, known, self.work)
                        first.setdefault(client.name, []).append(outcome)
                        clients.append(client)
                    except (RuntimeError, OSError, KeyError) as error:
                        self.failed[client.name] = f"{error} ({reason(measured)})"
                    print(f"    {measured.seconds:.1f} s, exit {measured.codes}", file=self.options.say, flush=True)
                if second:
                    source.ask("/sandbox/touch", {"count": second})
                    for client in clients:
                        source.reset()
                        measured = client.run(limit)
                        try:
                            outcome = Outcome(client, source, measured, self.looker, known, self.work)
                            again.setdefault(client.name, []).append(outcome)
                        except (RuntimeError, OSError, KeyError) as error:
                            self.failed[client.name] = f"second run: {error}"
        return first, again


def figures(task, outcomes, limit, wanted):
    """Rows of one task, figure by figure and peer by peer."""
    rows = []
    mine = outcomes["ours"]

    def value(of, take):
        return middle([take(one) for one in of])

    takes = {
        "requests": (lambda one: one.requests, less),
        "searches": (lambda one: one.traffic["searches"], less),
        "seconds": (lambda one: one.measured.seconds, less),
        "tickets a second": (lambda one: one.tickets / one.measured.seconds, more),
        "CPU seconds": (lambda one: one.measured.cpu, less),
        "peak MiB": (lambda one: one.measured.mib, less),
        "MB on disk": (lambda one: one.disk, less),
    }
    counts = {
        "rows missing": lambda one: one.missing,
        "rows more than once": lambda one: one.twice,
        "answers 429": lambda one: one.refused,
        "fields with personal content on disk": lambda one: one.personal,
    }
    for figure in wanted:
        for name, theirs in outcomes.items():
            if name == "ours":
                continue
            remark = theirs[0].remark(limit)
            complete = theirs[0].measured.well and not value(theirs, lambda one: one.missing)
            if figure in takes:
                take, better = takes[figure]
                ours, peers = value(mine, take), value(theirs, take)
                if not complete and not remark:
                    remark = "did less: rows are missing"
                if figure == "requests":
                    lists = value(mine, lambda one: one.requests - one.traffic["searches"])
                    remark = f"{remark}; " if remark else ""
                    remark += f"{lists:.0f} of ours are no searches: definitions of custom attributes and the like"
                rows.append(Row("extraction", task, figure, ours, name, peers, better(ours, peers) if complete else None, remark))
            elif figure == "encrypted at rest":
                rows.append(Row("extraction", task, figure, "yes", name, "no"))
            else:
                take = counts[figure]
                ours = 0 if figure.startswith("fields") else value(mine, take)
                if figure.startswith("fields"):
                    remark = f"{remark}; " if remark else ""
                    remark += f"ours decrypted, by the same search: {value(mine, take)}"
                rows.append(Row("extraction", task, figure, ours, name, value(theirs, take), None, remark))
    return rows


def rows(options):
    extraction = Extraction(options)
    tickets, turns = options.tickets, options.turns
    everyone = ("ours", TAP, DLT_AGAIN, DLT_ONCE)
    found = []
    tasks = [
        (f"{tickets:,} tickets and their customers, no ties, rates lifted", dict(
            tickets=tickets, flags=("--no-ties", *FREE), turns=turns, limit=600, names=everyone, second=200),
         ("requests", "searches", "seconds", "tickets a second", "CPU seconds", "peak MiB", "MB on disk", "rows missing", "rows more than once",
          "fields with personal content on disk", "encrypted at rest")),
        ("6,000 tickets with ties", dict(
            tickets=6000, flags=FREE, turns=1, limit=15 if options.quick else 60, names=("ours", TAP, DLT_AGAIN)),
         ("requests", "seconds", "rows missing", "rows more than once")),
        ("3,000 tickets at 10 searches and 100 requests a minute", dict(
            tickets=3000, flags=("--no-ties", "--search-rpm", "10", "--rpm", "100"), turns=1, limit=300,
            names=("ours", TAP, DLT_AGAIN),
            settings={"COUNTERFOIL_SOURCE__SHARE": "1", "COUNTERFOIL_SOURCE__SEARCH_RPM": "10", "COUNTERFOIL_SOURCE__ORG_RPM": "100"}),
         ("answers 429", "requests", "seconds", "rows missing")),
    ]
    for task, how, wanted in tasks:
        first, again = extraction.play(task, **how)
        for outcomes, name in ((first, task), (again, f"the next run, after {how.get('second')} tickets changed")):
            if "ours" in outcomes:
                figures_wanted = wanted if outcomes is first else ("requests", "seconds", "peak MiB", "rows missing")
                found += figures(name, outcomes, how["limit"], figures_wanted)
            elif outcomes is first:
                found.append(Row("extraction", task, "run", "failed", "", "", None, extraction.failed.get("ours", "")))
        for name in how["names"][1:]:
            if name not in first:
                found.append(Row("extraction", task, "run", "done", name, "failed", None, extraction.failed.get(name, "")))
    return found
