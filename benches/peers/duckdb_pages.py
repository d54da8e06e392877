"""DuckDB over the same pages: read_json, one column per declared column, COPY to one Parquet file, encrypted and plain.

Usage: duckdb_pages.py PAGES_FOLDER OUT. Prints the seconds of the encrypted COPY and of the plain one. DuckDB's fast AES comes
with its httpfs extension, which is loaded where it is installed; without it the bundled one is allowed to write, so the plain
COPY tells how much of the time is its ciphers'. `columns.tsv` in the folder names the columns,
their Arrow types and their paths; masks and pseudonyms are left out, which is in DuckDB's favour.
"""

import base64
import os
import sys
import time

import duckdb

folder, out = sys.argv[1:3]
TYPES = {"Utf8": "VARCHAR", "Int64": "BIGINT", "Float64": "DOUBLE", "Boolean": "BOOLEAN"}


def type_of(arrow: str) -> str:
    if arrow.startswith("Timestamp"):
        return "TIMESTAMPTZ"
    return "VARCHAR[]" if arrow.startswith("List") else TYPES[arrow]


columns = []
tree: dict = {}
with open(os.path.join(folder, "columns.tsv"), encoding="utf-8") as lines:
    for line in lines:
        name, arrow, path = line.rstrip("\n").split("\t")
        keys = path.split(".")
        # An index into an array: its parent is a list of objects.
        columns.append((name, type_of(arrow), keys))
        node = tree
        for key in keys[:-1]:
            node = node.setdefault(key, {})
            assert isinstance(node, dict), path
        node[keys[-1]] = type_of(arrow)


def is_list(node) -> bool:
    return isinstance(node, dict) and all(key.isdigit() for key in node)


def sql_type(node) -> str:
    if isinstance(node, str):
        return node
    if is_list(node):
        return sql_type(next(iter(node.values()))) + "[]"
    return "STRUCT(" + ", ".join(f'"{key}" {sql_type(child)}' for key, child in node.items()) + ")"


def expression(keys) -> str:
    text = "r"
    for key in keys:
        text += f"[{int(key) + 1}]" if key.isdigit() else f'."{key}"'
    return text


selected = ", ".join(f'{expression(keys)} AS "{name}"' for name, _, keys in columns)
connection = duckdb.connect()
connection.execute("SET threads = 2")
connection.execute("SET preserve_insertion_order = false")
connection.execute(f"PRAGMA add_parquet_key('key', '{base64.b64encode(b'0' * 32).decode()}')")
try:
    connection.execute("LOAD httpfs")
except duckdb.Error:
    connection.execute("SET force_mbedtls_unsafe = 'true'")


def copy(options: str) -> float:
    start = time.monotonic()
    connection.execute(
        f"COPY (SELECT {selected} FROM (SELECT unnest(data) AS r FROM read_json('{folder}/page-*.json', "
        f"columns = {{data: '{sql_type(tree)}[]'}}, maximum_object_size = 67108864))) "
        f"TO '{out}' (FORMAT parquet, COMPRESSION zstd{options})"
    )
    return time.monotonic() - start


plain = copy("")
encrypted = copy(", ENCRYPTION_CONFIG {footer_key: 'key'}")
rows = connection.execute(
    f"SELECT count(*) FROM read_parquet('{out}', encryption_config = {{footer_key: 'key'}})"
).fetchone()[0]
print(f"{rows} rows, {os.path.getsize(out) / 1e6:.1f} MB", file=sys.stderr)
print(encrypted, plain)
