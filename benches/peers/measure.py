"""What the sections of run.py share: a sandbox of its own process, a measured command, rows of the table, pinned environments.

Standard library only.
"""

import dataclasses
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import urllib.request
import venv

HERE = os.path.dirname(os.path.abspath(__file__))

# Rates that are never reached, and the settings that make `extract` use them.
FREE = ("--rpm", "10000000", "--search-rpm", "10000000")
UNBOUND = {
    "COUNTERFOIL_SOURCE__SHARE": "1",
    "COUNTERFOIL_SOURCE__ORG_RPM": "100000",
    "COUNTERFOIL_SOURCE__SEARCH_RPM": "100000",
}

# Starts a pipeline of commands and says how it went. A small process does it: what a command inherits of a large parent's memory
# would count as its own. Peaks of the commands are added up. The last one's output is kept away, all their errors are shown.
LAUNCH = """
import json, os, signal, subprocess, sys, threading, time
commands, limit, out = json.loads(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
begin, processes, words, late = time.perf_counter(), [], [], []
for number, command in enumerate(commands):
    last = number + 1 == len(commands)
    processes.append(subprocess.Popen(command, stdin=processes[-1].stdout if processes else subprocess.DEVNULL,
        stdout=open(out, "wb") if last else subprocess.PIPE, stderr=subprocess.PIPE))
    if number:
        processes[-2].stdout.close()
def listen(process):
    kept = b""
    while part := process.stderr.read1(65536):
        kept = (kept + part)[-20000:]
    words.append(kept.decode(errors="replace"))
def end():
    late.append(True)
    for process in processes:
        process.send_signal(signal.SIGKILL)
threads = [threading.Thread(target=listen, args=[process]) for process in processes]
timer = threading.Timer(limit, end)
for thread in [*threads, timer]:
    thread.start()
codes, peak, cpu = [], 0, 0
for process in processes:
    _, status, usage = os.wait4(process.pid, 0)
    codes.append(os.waitstatus_to_exitcode(status))
    peak, cpu = peak + usage.ru_maxrss / 1024, cpu + usage.ru_utime + usage.ru_stime
took = time.perf_counter() - begin
timer.cancel()
for thread in threads:
    thread.join()
print(json.dumps({"codes": codes, "seconds": took, "cpu": cpu, "mib": peak, "late": bool(late), "words": "".join(words)}))
"""


@dataclasses.dataclass
class Measured:
    """How a pipeline of commands went."""

    codes: list
    seconds: float
    cpu: float
    mib: float
    late: bool
    words: str
    more: dict = dataclasses.field(default_factory=dict)

    @property
    def well(self):
        return not self.late and not any(self.codes)

    def last_line(self):
        lines = [line.strip() for line in self.words.splitlines() if line.strip()]
        return lines[-1][:200] if lines else f"exit {self.codes}"


def run(*commands, cwd=None, env=None, limit=36_000, out=os.devnull):
    """Runs a pipeline, its processes side by side; `env` adds to the environment."""
    arguments = [sys.executable, "-S", "-c", LAUNCH, json.dumps(commands), str(limit), out]
    result = subprocess.run(
        arguments, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise RuntimeError(result.stderr[-2000:])
    return Measured(**json.loads(result.stdout.splitlines()[-1]))


class Source:
    """A sandbox in a process of its own."""

    def __init__(self, binary, tickets, *flags):
        command = [binary, "sandbox", "--tickets", str(tickets), *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.environment, said = {}, ""
        for line in self.process.stderr:
            said += line
            found = re.match(r"export (\w+)=(\S+)", line.strip())
            if found:
                self.environment[found[1]] = found[2]
            if "change records" in line:
                break
        else:
            raise RuntimeError(f"{' '.join(command)}: {said}")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self.url = self.environment["COUNTERFOIL_SOURCE__BASE_URL"]
        self.key = self.environment["KUSTOMER_API_KEY"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()

    def ask(self, path, body=None, **headers):
        text = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json", **headers}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, text, headers)) as answer:
            return json.loads(answer.read() or "{}")

    def search(self, kind, size, page=1, since="2000-01-01T00:00:00.000Z"):
        field = f"{kind}_updated_at"
        body = {"and": [{field: {"gte": since}}], "sort": [{field: "asc"}], "queryContext": kind}
        path = f"/v1/customers/search?page={page}&pageSize={size}"
        return self.ask(path, body, authorization=f"Bearer {self.key}")

    def traffic(self):
        return self.ask("/sandbox/requests")

    def reset(self):
        self.ask("/sandbox/requests/reset", {})

    def state(self):
        return self.ask("/sandbox/state")


class Folder:
    """A folder of settings with a lake in it."""

    def __init__(self, binary, at, source):
        self.binary, self.at, self.environment = binary, at, dict(source.environment)
        shutil.rmtree(at, ignore_errors=True)
        subprocess.run([binary, "-q", "init", at], check=True, capture_output=True)

    def extract(self, *flags, limit=36_000, **environment):
        """Runs an extract; `more` has its report."""
        report = os.path.join(self.at, "report.json")
        measured = run(
            [self.binary, "extract", "--report", report, *flags],
            cwd=self.at, env={**self.environment, **environment}, limit=limit,
        )
        if os.path.exists(report):
            with open(report, encoding="utf-8") as file:
                measured.more = json.load(file)
        return measured

    def query(self, sql, form="ndjson"):
        """Returns the rows of a query."""
        result = subprocess.run(
            [self.binary, "-q", "query", "-e", sql, "--format", form], cwd=self.at, capture_output=True, text=True, check=False,
            env={**os.environ, **self.environment},
        )
        if result.returncode:
            raise RuntimeError(f"{sql}: {result.stderr}")
        return [json.loads(line) for line in result.stdout.splitlines()]

    def size(self):
        """Returns how many files the lake has, and their MB."""
        return size(os.path.join(self.at, "lake"))


def size(folder):
    files = [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names]
    return len(files), sum(map(os.path.getsize, files)) / 1e6


def environment(work, name):
    """Returns the Python of a virtual environment with what `requirements-NAME.txt` pins; it is made once."""
    wanted = os.path.join(HERE, f"requirements-{name}.txt")
    home = os.path.join(work, f"venv-{name}")
    python, ready = os.path.join(home, "bin", "python"), os.path.join(home, "ready")
    with open(wanted, encoding="utf-8") as file:
        text = file.read()
    if os.path.exists(ready):
        with open(ready, encoding="utf-8") as file:
            if file.read() == text:
                return python
    shutil.rmtree(home, ignore_errors=True)
    venv.create(home, with_pip=True)
    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", wanted],
        capture_output=True, text=True, check=False,
    )
    if installed.returncode:
        raise RuntimeError(installed.stderr[-2000:])
    with open(ready, "w", encoding="utf-8") as file:
        file.write(text)
    return python


@dataclasses.dataclass
class Row:
    """A row of the table. `ratio` says how many times better ours is; below 1 it is worse."""

    section: str
    task: str
    figure: str
    ours: object
    peer: str
    theirs: object
    ratio: float | None = None
    remark: str = ""

    def markdown(self):
        ratio = "" if self.ratio is None else (f"{self.ratio:.2f}" if self.ratio < 100 else f"{self.ratio:,.0f}")
        ratio = f"**{ratio}**" if self.ratio is not None and self.ratio < 1 else ratio
        cells = [self.section, self.task, self.figure, shown(self.ours), self.peer, shown(self.theirs), ratio, self.remark]
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


HEAD = "| section | task | figure | ours | peer | peer's | ratio | remark |\n|---|---|---|---|---|---|---|---|"


def shown(value):
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def more(ours, theirs):
    """How many times better ours is where more is better."""
    return ours / theirs if ours and theirs else None


def less(ours, theirs):
    """How many times better ours is where less is better."""
    return theirs / ours if ours and theirs else None


def middle(values):
    return statistics.median(values)


def machine():
    """Returns the shape of the machine in one line."""
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) / 2**20
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, {os.uname().sysname} {os.uname().release}, load {load:.1f} at the start"
