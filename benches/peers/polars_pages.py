"""Polars over the same pages as duckdb_pages.py: the same columns to one Parquet file. It cannot write an encrypted one.

Usage: polars_pages.py PAGES_FOLDER OUT. Prints the seconds. Pages are whole JSON documents, which Polars reads by `read_json` one
a thread at a time, on two threads; the schema is given, so that nothing is inferred.
"""

import concurrent.futures
import glob
import os
import sys
import time

os.environ["POLARS_MAX_THREADS"] = "2"

import polars  # noqa: E402

folder, out = sys.argv[1:3]
TYPES = {"Utf8": polars.String, "Int64": polars.Int64, "Float64": polars.Float64, "Boolean": polars.Boolean}


def type_of(arrow):
    if arrow.startswith("Timestamp"):
        return polars.String  # Its JSON reader reads no time; it is parsed below.
    return polars.List(polars.String) if arrow.startswith("List") else TYPES[arrow]


columns, tree = [], {}
with open(os.path.join(folder, "columns.tsv"), encoding="utf-8") as lines:
    for line in lines:
        name, arrow, path = line.rstrip("\n").split("\t")
        keys = path.split(".")
        columns.append((name, arrow, keys))
        node = tree
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = type_of(arrow)


def schema(node):
    if not isinstance(node, dict):
        return node
    if all(key.isdigit() for key in node):
        return polars.List(schema(next(iter(node.values()))))
    return polars.Struct({key: schema(child) for key, child in node.items()})


def expression(name, arrow, keys):
    value = polars.col(keys[0])
    for key in keys[1:]:
        value = value.list.get(int(key), null_on_oob=True) if key.isdigit() else value.struct.field(key)
    if arrow.startswith("Timestamp"):
        value = value.str.to_datetime("%+", time_unit="ms", time_zone="UTC", strict=False)
    return value.alias(name)


begin = time.monotonic()
wanted = {"data": polars.List(schema(tree))}
selected = [expression(*column) for column in columns]


def part(page):
    return polars.read_json(page, schema=wanted).explode("data").unnest("data").select(selected)


with concurrent.futures.ThreadPoolExecutor(2) as threads:
    table = polars.concat(threads.map(part, sorted(glob.glob(os.path.join(folder, "page-*.json")))))
table.write_parquet(out, compression="zstd", compression_level=3)
print(time.monotonic() - begin)
print(f"{table.height} rows, {os.path.getsize(out) / 1e6:.1f} MB", file=sys.stderr)
