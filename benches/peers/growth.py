"""Section growth: what a full run, a run after changes and queries cost as the number of tickets grows.

No peer: here each size is compared with the one before. `peer` names the smaller size, and `ratio` is the factor of the sizes over
the factor of the figure: at 1 a cost grows with the lake, above 1 slower. After a fixed number of changes a cost that does not
depend on the lake has the factor of the sizes as its ratio.
"""

import os
import shutil
import time

from measure import FREE, UNBOUND, Folder, Row, Source, middle, run

SELECTIVE = """
    SELECT ticket_id, status, queue_id, created_at FROM tickets
    WHERE status = 'open' AND created_at >= now() - INTERVAL '7 days' ORDER BY created_at, ticket_id"""
BROAD = """
    SELECT queue_id, date_trunc('month', created_at) AS month, count(DISTINCT customer_id) AS customers, count(*) AS tickets
    FROM tickets GROUP BY 1, 2 ORDER BY 1, 2"""
FIXED = 1000


def requests(measured):
    return sum(measured.more["run"]["requests"].values())


def extract(folder):
    # Runs of this section follow each other by seconds: with the usual overlap each would fetch again what changed before the
    # last ones.
    measured = folder.extract(**UNBOUND, COUNTERFOIL_EXTRACT__OVERLAP="1s")
    if not measured.well:
        raise RuntimeError(f"extract: {measured.last_line()}")
    return measured


def changed(folder, source, count, turns, say):
    """Runs after `count` changes, each time other ones."""
    runs = []
    for _ in range(turns):
        time.sleep(2)
        source.ask("/sandbox/touch", {"count": count})
        time.sleep(1)
        runs.append(extract(folder))
        streams = runs[-1].more["run"]["streams"]
        updated = next(stream["updated"] for stream in streams if stream["stream"] == "tickets")
        print(f"    {updated:,} updated: {runs[-1].seconds:.2f} s, {requests(runs[-1])} requests", file=say, flush=True)
    return {
        "seconds": middle([one.seconds for one in runs]),
        "CPU seconds": middle([one.cpu for one in runs]),
        "requests": middle([requests(one) for one in runs]),
        "peak MiB": middle([one.mib for one in runs]),
    }


def asked(binary, folder, sql, turns):
    runs = []
    for _ in range(turns + 1):
        out = os.path.join(folder.at, "result.csv")
        measured = run([binary, "-q", "query", "-e", sql, "-o", out], cwd=folder.at, env=folder.environment)
        if not measured.well:
            raise RuntimeError(f"query: {measured.last_line()}")
        runs.append(measured)
    runs = runs[1:]  # The first one warms the system's file cache.
    return {"ms of the process": middle([one.seconds * 1e3 for one in runs]), "peak MiB": middle([one.mib for one in runs])}


def measure(options, size):
    work = os.path.join(options.work, "growth")
    os.makedirs(work, exist_ok=True)
    place = os.path.join(work, str(size))
    found = {}
    try:
        with Source(options.binary, size, "--no-ties", *FREE) as source:
            folder = Folder(options.binary, place, source)
            print(f"  {size:,} tickets: from scratch", file=options.say, flush=True)
            full = extract(folder)
            files, megabytes = folder.size()
            found["full run"] = {"seconds": full.seconds, "CPU seconds": full.cpu, "requests": requests(full),
                                 "peak MiB": full.mib, "MB on disk": megabytes, "files": files}
            found["query, a week's open tickets"] = asked(options.binary, folder, SELECTIVE, options.turns)
            found["query, distinct customers of all"] = asked(options.binary, folder, BROAD, options.turns)
            print(f"  {size:,} tickets: after changes", file=options.say, flush=True)
            found[f"run after {FIXED:,} changes"] = changed(folder, source, FIXED, options.turns, options.say)
            found["run after 1 % changed"] = changed(folder, source, size // 100, 1, options.say)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return found


def rows(options):
    found, before, smaller = [], None, None
    for size in options.sizes:
        try:
            now = measure(options, size)
        except (RuntimeError, OSError, KeyError, StopIteration) as error:
            found.append(Row("growth", f"{size:,} tickets", "run", "failed", "", "", None, str(error)[:200]))
            continue
        for task, figures in now.items():
            for figure, value in figures.items():
                earlier = before and before[task][figure]
                ratio = (size / smaller) / (value / earlier) if earlier and value else None
                each = f"{value / size * 1e3:.3f} per 1,000 tickets" if task == "full run" and "MiB" not in figure else ""
                name = f"{smaller:,} tickets" if before else ""
                found.append(Row("growth", f"{size:,} tickets: {task}", figure, value, name, earlier, ratio, each))
        before, smaller = now, size
    return found
