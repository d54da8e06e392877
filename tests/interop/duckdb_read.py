"""Runs the SQL that `counterfoil lake files --format duckdb --with-keys` prints, then queries over its views.

Standard input is one JSON object: {"setup": "<the SQL>", "queries": {"name": "SELECT …"}}. Standard output is one JSON
object: per query its rows.
"""

import json
import sys

import duckdb


def main():
    request = json.load(sys.stdin)
    with duckdb.connect() as connection:
        connection.execute("SET autoinstall_known_extensions = false")
        connection.execute(request["setup"])
        rows = {name: connection.execute(sql).fetchall() for name, sql in request["queries"].items()}
    json.dump({"rows": rows}, sys.stdout, default=str)
    print()


if __name__ == "__main__":
    main()
