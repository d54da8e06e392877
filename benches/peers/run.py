"""This program beside its peers, in one table.

    python3 benches/peers/run.py BINARY [extraction|pages|queries|growth|all] [--quick] [--work DIR] [--json FILE] …

Makes virtual environments of pinned versions (requirements-*.txt) in the work folder, starts `BINARY sandbox` in a process of its
own, measures every pair side by side in the same run on the same input, in turns, and prints a Markdown table. `ratio` says how
many times better ours is; below 1, in bold, ours is worse. A peer that fails leaves its error in the table. All figures are
of processes as a user starts them, unless a remark says otherwise; peak memory is the resident memory of all its processes.

`pages` needs our bench: `--bench FILE`, an executable of `benches/pages.rs`; without it `cargo bench --bench pages` builds it.
`growth` takes about 25 GB in the work folder at 3 million tickets, and removes each size after it.
`--quick` is a smoke test: small sizes, one turn; its figures say nothing.
"""

import argparse
import datetime
import importlib
import json
import os
import resource
import subprocess
import sys
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from measure import HEAD, Row, machine

SECTIONS = ("extraction", "pages", "queries", "growth")


def versions(options):
    """What is compared with what."""
    ours = subprocess.run([options.binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    pinned = []
    for name in ("tap", "target", "dlt", "engines"):
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), f"requirements-{name}.txt"), encoding="utf-8") as file:
            pinned += [line.strip() for line in file if line.startswith(("tap-", "target-", "dlt", "duckdb==", "polars", "pyarrow"))]
    return f"{ours}; Python {sys.version.split()[0]}; {', '.join(sorted(set(pinned)))}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=os.path.abspath)
    parser.add_argument("section", nargs="*", default=["all"], choices=[*SECTIONS, "all"])
    parser.add_argument("--work", default="target/peers", type=os.path.abspath, help="folder of environments and what is measured")
    parser.add_argument("--json", help="file that the rows go to as JSON too")
    parser.add_argument("--tickets", type=int, help="tickets of the section extraction (20,000) and pages (100,000)")
    parser.add_argument("--query-tickets", type=int, help="tickets of the section queries (3,000,000)")
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], help="sizes of the section growth")
    parser.add_argument("--turns", type=int, help="turns of each pair (3)")
    parser.add_argument("--bench", type=os.path.abspath, help="executable of benches/pages.rs")
    parser.add_argument("--quick", action="store_true", help="2,000 tickets, one turn: does it work at all?")
    options = parser.parse_args()
    quick = options.quick
    options.turns = options.turns or (1 if quick else 3)
    options.query_tickets = options.query_tickets or (20_000 if quick else 3_000_000)
    options.sizes = options.sizes or ([2_000, 6_000] if quick else [100_000, 1_000_000, 3_000_000])
    options.page_tickets = options.tickets or (2_000 if quick else 100_000)
    options.tickets = options.tickets or (2_000 if quick else 20_000)
    options.say = sys.stderr
    os.makedirs(options.work, exist_ok=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    shape, began = machine(), datetime.datetime.now(datetime.timezone.utc)
    sections = SECTIONS if "all" in options.section else options.section
    rows = []
    print(HEAD, flush=True)
    for section in sections:
        try:
            found = importlib.import_module(section if section in ("extraction", "growth") else f"{section}_section").rows(options)
        except Exception as error:  # One section's failure leaves the others their turn.
            traceback.print_exc()
            found = [Row(section, "", "", "failed", "", "", None, f"{type(error).__name__}: {error}"[:300])]
        for row in found:
            print(row.markdown(), flush=True)
        rows += found
    behind = [row for row in rows if row.ratio is not None and row.ratio < 1]
    print(f"\n{len([row for row in rows if row.ratio is not None])} ratios, {len(behind)} below 1.")
    print(f"Machine: {shape}. Date: {began:%Y-%m-%d %H:%M} UTC. Versions: {versions(options)}.")
    print(f"Command: `{' '.join([os.path.basename(sys.executable), *sys.argv])}`")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"machine": shape, "date": began.isoformat(), "versions": versions(options), "command": sys.argv,
                       "rows": [vars(row) for row in rows]}, file, indent=1)
    return 0 if rows and not any(row.ours == "failed" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
