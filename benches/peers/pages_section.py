"""Section pages: pages of search to Parquet, by our bench `benches/pages.rs`, DuckDB and Polars in turns.

The bench's own measurement of redacting, encrypting and committing to a lake on disk, two threads; DuckDB's and Polars's times are
taken inside their processes too, so that no start counts. Ours redacts, the peers do not. Peak memory is of whole processes; ours is
the bench's, which holds all pages in memory.
"""

import os
import re
import shutil
import subprocess

from measure import HERE, Row, environment, less, middle, run


def bench(options):
    """The command of our bench."""
    if options.bench:
        return [options.bench]
    root = os.path.dirname(os.path.dirname(HERE))
    said = subprocess.run(
        ["cargo", "bench", "--bench", "pages", "--no-run"], cwd=root, capture_output=True, text=True, check=False
    )
    found = re.search(r"Executable .*\((.+)\)", said.stderr)
    if said.returncode or not found:
        raise RuntimeError(f"cargo bench --bench pages --no-run: {said.stderr.strip().splitlines()[-1]}")
    return [os.path.join(root, found[1])]


def first_number(path):
    with open(path, encoding="utf-8") as file:
        return [float(text) for text in file.read().split()]


def rows(options):
    python = environment(options.work, "engines")
    # Brings DuckDB's fast AES; without the extension its bundled one writes.
    code = "from duckdb_extensions import import_extension; import_extension('httpfs')"
    fast = not subprocess.run([python, "-c", code], capture_output=True, check=False).returncode
    pages = os.path.join(options.work, f"pages-{options.page_tickets}")
    whole = [*bench(options), "--tickets", str(options.page_tickets), "--rounds", "1", "--only-whole", "--pages", pages]
    said, out = os.path.join(options.work, "pages.txt"), os.path.join(options.work, "pages.parquet")
    times, peaks, wrong = {}, {}, {}

    def ours():
        measured = run(whole, out=said)
        with open(said, encoding="utf-8") as file:
            found = re.search(r"commit to a lake on disk .*? ([\d.]+) s", file.read())
        if not measured.well or not found:
            raise RuntimeError(measured.last_line())
        return measured, [float(found[1])]

    def peer(script):
        measured = run([python, os.path.join(HERE, script), pages, out], out=said)
        if not measured.well:
            raise RuntimeError(measured.last_line())
        return measured, first_number(said)

    takes = [
        (("ours",), ours),
        (("DuckDB, encrypted", "DuckDB, plain"), lambda: peer("duckdb_pages.py")),
        (("Polars, plain",), lambda: peer("polars_pages.py")),
    ]
    ours()  # Fetches the pages where they are not there, and writes columns.tsv.
    for turn in range(options.turns):
        for names, take in takes[turn % len(takes):] + takes[: turn % len(takes)]:
            print(f"  pages: {names[0]}, turn {turn + 1} of {options.turns}", file=options.say, flush=True)
            try:
                measured, seconds = take()
            except (RuntimeError, OSError) as error:
                wrong.update({name: str(error) for name in names})
                continue
            for name, time in zip(names, seconds):
                times.setdefault(name, []).append(time)
                peaks.setdefault(name, []).append(measured.mib)
    shutil.rmtree(out, ignore_errors=True)
    if "ours" not in times:
        raise RuntimeError(wrong["ours"])
    found, task, mine = [], f"{options.page_tickets:,} tickets in pages of 500", middle(times["ours"])
    remarks = {
        "DuckDB, encrypted": "" if fast else "without httpfs, by its bundled ciphers",
        "DuckDB, plain": "not encrypted: less work than ours",
        "Polars, plain": "cannot write encrypted Parquet: less work than ours",
    }
    for name, remark in remarks.items():
        if name in times:
            theirs = middle(times[name])
            found.append(Row("pages", task, "seconds", mine, name, theirs, less(mine, theirs), remark))
            ratio = less(middle(peaks["ours"]), middle(peaks[name]))
            found.append(Row("pages", task, "peak MiB", middle(peaks["ours"]), name, middle(peaks[name]), ratio,
                             "ours holds every page in memory before it starts"))
        else:
            found.append(Row("pages", task, "seconds", mine, name, "failed", None, wrong.get(name, "")[:200]))
    return found
