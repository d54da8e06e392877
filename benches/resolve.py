"""Resolves by the release binary against its sandbox in another process, counted by the sandbox.

    python3 benches/resolve.py BINARY price      # requests for 100 tickets of 100 customers, at both kinds of source
    python3 benches/resolve.py BINARY latency    # 1 and 100 tickets at 200 ms, beside a plain client
    python3 benches/resolve.py BINARY memory     # 1,000 and 10,000 tickets, peak memory
    python3 benches/resolve.py BINARY all        # everything

Every ticket has 2 messages, 1 note and 1 attachment. The plain client does what the replaced service does: for each ticket
one request after the other, for conversation, customer, messages, notes, attachments and attribute definitions, and one for each
attachment; as many tickets side by side as the binary has, over connections that are kept. Both run in turns against one
sandbox, and the middle of several runs is told. Python's standard library only.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import resource
import statistics
import subprocess
import threading
import time
import urllib.parse
import urllib.request

from extract import UNBOUND, Folder, Source

FREE = ("--rpm", "10000000", "--search-rpm", "10000000", "--thread", "2,1,1")
SIDE_BY_SIDE = 16


def read(source, path):
    key = source.environment["KUSTOMER_API_KEY"]
    request = urllib.request.Request(source.url + path, headers={"authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def of_different_customers(source, count):
    """Ids of tickets no two of which have one customer."""
    found, path = {}, "/v1/conversations?pageSize=100"
    while len(found) < count and path:
        page = read(source, path)
        for row in page["data"]:
            found.setdefault(row["relationships"]["customer"]["data"]["id"], row["id"])
        path = page["links"]["next"]
    return list(found.values())[:count]


def any_tickets(source, count):
    pages = [f"/v1/conversations?page={page}&pageSize=100" for page in range(1, count // 100 + 1)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return [row["id"] for page in pool.map(lambda path: read(source, path), pages) for row in page["data"]]


def resolve(folder, source, ids, *flags):
    """Runs a resolve; returns its lines, wall seconds, peak memory in MiB and the requests that the sandbox counted."""
    list_of = os.path.join(folder.place.name, "ids.txt")
    with open(list_of, "w", encoding="utf-8") as file:
        file.write("\n".join(ids))
    environment = {**folder.environment, **{f"COUNTERFOIL_{name}": str(value) for name, value in UNBOUND.items()}}
    source.ask("/sandbox/requests/reset", {})
    lines, out = 0, subprocess.PIPE
    start = time.monotonic()
    command = [folder.binary, "-q", "resolve", "--from", list_of, *flags]
    process = subprocess.Popen(command, cwd=folder.place.name, env=environment, stdout=out)
    for line in process.stdout:
        lines += 1
        last = line
    _, status, usage = os.wait4(process.pid, 0)
    took = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or lines != len(ids) or json.loads(last)["errors"]:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}, {lines} lines of {len(ids)}")
    return took, usage.ru_maxrss / 1024, source.ask("/sandbox/requests")


class Plain:
    """What the replaced service does."""

    def __init__(self, source):
        self.address = urllib.parse.urlsplit(source.url).netloc
        self.headers = {"authorization": f"Bearer {source.environment['KUSTOMER_API_KEY']}"}
        self.own = threading.local()

    def read(self, path):
        if not hasattr(self.own, "connection"):
            self.own.connection = http.client.HTTPConnection(self.address)
        self.own.connection.request("GET", path, headers=self.headers)
        return json.loads(self.own.connection.getresponse().read())

    def ticket(self, id):
        conversation = self.read(f"/v1/conversations/{id}")["data"]
        customer = conversation["relationships"]["customer"]["data"]["id"]
        parts = [conversation, self.read(f"/v1/customers/{customer}")]
        parts += [self.read(f"/v1/conversations/{id}/messages"), self.read(f"/v1/conversations/{id}/notes")]
        files = self.read(f"/v1/conversations/{id}/attachments")["data"]
        parts.append(self.read("/v1/metadata/conversation"))
        parts += [self.read(file["links"]["self"]) for file in files]
        return json.dumps(parts)

    def run(self, source, ids):
        source.ask("/sandbox/requests/reset", {})
        start = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            written = sum(len(line) for line in pool.map(self.ticket, ids))
        took = time.monotonic() - start
        assert written
        return took, source.ask("/sandbox/requests")["requests"]


def price(binary):
    for flags in ((), ("--several-customers",)):
        source = Source(binary, 1_000, *FREE, *flags)
        folder = Folder(binary, source)
        ids = of_different_customers(source, 100)
        _, _, counted = resolve(folder, source, ids)
        kind = "takes several customers in one request" if flags else "takes one customer in a request"
        print(f"100 tickets of 100 customers, source {kind}: {counted['requests'] / 100:.2f} requests a ticket")
        for route, count in counted["routes"].items():
            print(f"    {count:5} {route}")
        source.close()


def latency(binary, runs=5):
    source = Source(binary, 1_000, *FREE, "--latency", "200")
    folder = Folder(binary, source)
    plain = Plain(source)
    tickets = of_different_customers(source, 100)
    for extracted in (False, True):
        if extracted:
            folder.extract(**UNBOUND)
        for ids in (tickets[:1], tickets):
            ours, theirs = [], []
            for _ in range(runs):
                took, _, counted = resolve(folder, source, ids)
                ours.append(took)
                requests, rounds = counted["requests"], counted["rounds"]
                if not extracted:
                    took, asked = plain.run(source, ids)
                    theirs.append(took)
            middle = statistics.median(ours)
            lake = "lake that knows the customers" if extracted else "empty lake"
            line = f"{len(ids)} tickets at 200 ms, {lake}: {middle:.2f} s (best {min(ours):.2f}, worst {max(ours):.2f})"
            line += f", {requests} requests in {rounds} rounds"
            if theirs:
                other = statistics.median(theirs)
                line += f"; plain client {other:.2f} s, {asked} requests: {other / middle:.1f} times the time, "
                line += f"{asked / requests:.2f} times the requests"
            print(line)
    source.close()


def memory(binary):
    source = Source(binary, 30_000, *FREE)
    folder = Folder(binary, source)
    tickets = any_tickets(source, 10_000)
    everything = "conversation,customer,messages,notes,attachments,tags,metadata,events"
    for flags in ((), ("--only", everything), ("--pretty",)):
        for count in (1_000, 10_000):
            if flags == ("--pretty",):
                took, peak = shown(folder, tickets[:count])
                print(f"{count} tickets --pretty: {peak:.0f} MiB peak, {took:.1f} s")
                continue
            took, peak, counted = resolve(folder, source, tickets[:count], *flags)
            print(f"{count} tickets {' '.join(flags)}: {peak:.0f} MiB peak, {took:.1f} s, {counted['requests']} requests")
    source.close()


def shown(folder, ids):
    """Runs a resolve whose output is not lines; returns wall seconds and peak memory in MiB."""
    list_of = os.path.join(folder.place.name, "ids.txt")
    with open(list_of, "w", encoding="utf-8") as file:
        file.write("\n".join(ids))
    environment = {**folder.environment, **{f"COUNTERFOIL_{name}": str(value) for name, value in UNBOUND.items()}}
    start = time.monotonic()
    command = [folder.binary, "-q", "resolve", "--pretty", "--from", list_of]
    process = subprocess.Popen(command, cwd=folder.place.name, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return time.monotonic() - start, usage.ru_maxrss / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=os.path.abspath)
    parser.add_argument("what", choices=["price", "latency", "memory", "all"])
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for one in (price, latency, memory):
        if arguments.what in (one.__name__, "all"):
            one(arguments.binary)
