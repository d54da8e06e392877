"""Whole extracts by the release binary against its sandbox in another process, counted by the sandbox.

    python3 benches/extract.py BINARY budget     # 5 minutes at 100 searches a minute and 300 ms latency
    python3 benches/extract.py BINARY share      # the same at share 0.5 while another client spends the other half
    python3 benches/extract.py BINARY full       # 100,000 tickets and 33,333 customers without a limit
    python3 benches/extract.py BINARY memory     # 1,000,000 tickets from scratch, peak memory
    python3 benches/extract.py BINARY growth     # 1,000 changed tickets of 100 thousand and of 3 million

Python's standard library only. `--tickets N` changes the size of the organisation.
"""

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request


class Source:
    """A sandbox in a process of its own."""

    def __init__(self, binary, tickets, *flags):
        command = [binary, "sandbox", "--tickets", str(tickets), "--no-ties", *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.environment = {}
        for line in self.process.stderr:
            found = re.match(r"export (\w+)=(\S+)", line.strip())
            if found:
                self.environment[found[1]] = found[2]
            if "change records" in line:
                break
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self.url = self.environment["COUNTERFOIL_SOURCE__BASE_URL"]

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers)) as answer:
            return json.loads(answer.read() or "{}")

    def close(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()


class Folder:
    """A folder of settings and a lake."""

    def __init__(self, binary, source):
        self.binary, self.place = binary, tempfile.TemporaryDirectory()
        self.environment = {**os.environ, **source.environment}
        subprocess.run([binary, "-q", "init", self.place.name], check=True)

    def extract(self, *flags, seconds=None, **settings):
        """Runs an extract; returns its report, wall seconds, CPU seconds and peak memory in MiB."""
        report = os.path.join(self.place.name, "report.json")
        environment = {**self.environment, **{f"COUNTERFOIL_{name}": str(value) for name, value in settings.items()}}
        command = [self.binary, "extract", "--report", report, *flags]
        start = time.monotonic()
        process = subprocess.Popen(command, cwd=self.place.name, env=environment, stderr=subprocess.PIPE, text=True)
        timer = threading.Timer(seconds or 10**6, process.send_signal, [signal.SIGINT])
        timer.start()
        words = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        took = time.monotonic() - start
        if os.waitstatus_to_exitcode(status) not in (0, 130):
            raise SystemExit(f"{' '.join(command)}: {words}")
        with open(report, encoding="utf-8") as file:
            return json.load(file), took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024

    def size(self):
        files = [os.path.join(at, name) for at, _, names in os.walk(os.path.join(self.place.name, "lake")) for name in names]
        return len(files), sum(map(os.path.getsize, files)) / 1e6


FREE = ("--rpm", "10000000", "--search-rpm", "10000000")
UNBOUND = {"SOURCE__SHARE": 1, "SOURCE__ORG_RPM": 100000, "SOURCE__SEARCH_RPM": 100000}


def requests(report):
    return sum(report["run"]["requests"].values())


def budget(binary, tickets):
    for window in ("fixed", "sliding"):
        source = Source(binary, tickets or 3_000_000, "--latency", "300", "--window", window)
        folder = Folder(binary, source)
        folder.extract("--share", "1", seconds=300)
        traffic = source.ask("/sandbox/requests")
        source.close()
        searches = traffic["searches"]
        print(
            f"{window} window: {searches} searches in 5 minutes of 500 allowed ({searches / 5:.1f} %), "
            f"{traffic['refused']} refused, at most {traffic['most_searches_in_a_minute']} in any minute"
        )


def share(binary, tickets):
    source = Source(binary, tickets or 3_000_000, "--latency", "300", "--window", "sliding")
    folder = Folder(binary, source)
    stop, refused = threading.Event(), [0, 0]

    def other():
        """Spends half of the searches, one every 1.2 seconds."""
        key = source.environment["KUSTOMER_API_KEY"]
        body = json.dumps({"queryContext": "conversation"}).encode()
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json", "user-agent": "other"}
        while not stop.wait(1.2):
            try:
                urllib.request.urlopen(
                    urllib.request.Request(source.url + "/v1/customers/search?pageSize=1", body, headers)
                ).read()
                refused[0] += 1
            except urllib.error.HTTPError:
                refused[1] += 1

    thread = threading.Thread(target=other)
    thread.start()
    folder.extract("--share", "0.5", seconds=300)
    stop.set()
    thread.join()
    traffic = source.ask("/sandbox/requests")
    for agent, counted in traffic["agents"].items():
        print(f"{agent}: {counted['searches']} searches in 5 minutes, at most {counted['most_searches_in_a_minute']} in any minute")
    print(f"refused: {traffic['refused']} in all, {refused[1]} of them the other client's")
    source.close()


def full(binary, tickets):
    tickets = tickets or 100_000
    source = Source(binary, tickets, *FREE)
    folder = Folder(binary, source)
    report, took, cpu, memory = folder.extract(**UNBOUND)
    counted = source.ask("/sandbox/requests")["requests"]
    print(
        f"{tickets} tickets: {requests(report)} requests on the ledger, {counted} on the server, "
        f"{requests(report) * 100 / tickets:.3f} per 100 tickets; {took:.2f} s, {cpu:.2f} s of CPU, {memory:.0f} MiB peak"
    )
    print("planned:", report["run"].get("planned"))
    source.close()


def memory(binary, tickets):
    tickets = tickets or 1_000_000
    source = Source(binary, tickets, *FREE)
    folder = Folder(binary, source)
    report, took, cpu, peak = folder.extract(**UNBOUND)
    files, size = folder.size()
    print(
        f"{tickets} tickets from scratch: {took:.1f} s, {cpu:.1f} s of CPU, {peak:.0f} MiB peak, "
        f"{requests(report)} requests, {files} files, {size:.0f} MB"
    )
    source.close()


def growth(binary, tickets):
    for size in (100_000, tickets or 3_000_000):
        source = Source(binary, size, *FREE)
        folder = Folder(binary, source)
        _, took, cpu, peak = folder.extract(**UNBOUND)
        print(f"{size} tickets from scratch: {took:.1f} s, {cpu:.1f} s of CPU, {peak:.0f} MiB peak")
        for _ in range(3):
            source.ask("/sandbox/touch", {"count": 1000})
            time.sleep(1)
            report, took, cpu, peak = folder.extract(**UNBOUND, EXTRACT__OVERLAP="10s")
            changed = next(run for run in report["run"]["streams"] if run["stream"] == "tickets")["updated"]
            print(
                f"  {changed} changed of {size}: {requests(report)} requests, {took:.2f} s, {cpu:.2f} s of CPU, "
                f"{peak:.0f} MiB peak"
            )
        source.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=os.path.abspath)
    parser.add_argument("what", choices=["budget", "share", "full", "memory", "growth"])
    parser.add_argument("--tickets", type=int)
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    globals()[arguments.what](arguments.binary, arguments.tickets)
