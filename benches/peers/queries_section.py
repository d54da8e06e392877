"""Section queries: duckdb_queries.py, whose table becomes rows of this one.

Ours is planning and running as our log tells it, DuckDB's is its `COPY`; what our process takes besides is in the remark.
"""

import os
import subprocess
import sys

from measure import HERE, Row


def number(text):
    return float(text.replace(",", "").replace("*", ""))


def rows(options):
    keep = os.path.join(options.work, f"queries-{options.query_tickets}")
    command = [
        sys.executable, os.path.join(HERE, "duckdb_queries.py"), options.binary, "--tickets", str(options.query_tickets),
        "--rounds", str(max(options.turns, 1)), "--keep", keep,
    ]
    print(f"  {options.query_tickets:,} tickets", file=options.say, flush=True)
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    found = []
    for line in result.stdout.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 9 or cells[0] in ("query", "---"):
            continue
        name, count, ours, plain, encrypted, to_plain, to_encrypted, over, mib = cells
        if name == "geometric mean":
            found.append(Row("queries", "all of them", "geometric mean, ms", None, "DuckDB, plain files", None, 1 / number(to_plain)))
            found.append(
                Row("queries", "all of them", "geometric mean, ms", None, "DuckDB, encrypted files", None, 1 / number(to_encrypted))
            )
            continue
        remark = f"{count} rows; our process takes {over} ms besides and {mib} MiB"
        for peer, theirs, ratio in (("plain", plain, to_plain), ("encrypted", encrypted, to_encrypted)):
            better = 1 / number(ratio) if number(ratio) else None
            found.append(
                Row("queries", name, "ms", number(ours), f"DuckDB, {peer} files", number(theirs), better, remark)
            )
    if result.returncode:
        found.append(Row("queries", "", "run", "failed", "", "", None, result.stderr.strip().splitlines()[-1][:300]))
    return found
