"""What an extraction left on disk: rows, distinct ids and which fields hold personal content.

Usage: look.py KNOWN OUT TABLE=FILE_OR_FOLDER…. KNOWN is a JSON list of names, addresses and telephone numbers of the source's
customers. A place is read as JSON lines or, where it is a folder, as Parquet. A field counts as personal where one of its first
values holds one of the known texts, an address of e-mail outside the desk's own domain, a telephone number or a card number.
"""

import json
import os
import re
import sys

FIRST = 1000
LOOKS = re.compile(r"[\w.+-]+@(?!desk\.example)[\w-]+\.[\w.]+|\+\d{9,}|\b(?:\d{4} ){3}\d{4}\b")


def records(place):
    if os.path.isfile(place):
        with open(place, encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
    elif os.path.isdir(place):
        import pyarrow.parquet

        for name in sorted(os.listdir(place)):
            if name.endswith(".parquet"):
                yield from pyarrow.parquet.read_table(os.path.join(place, name)).to_pylist()


def texts(value, path=""):
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from texts(child, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for child in value:
            yield from texts(child, path)


def children(table, place):
    """Tables that dlt puts beside one: lists of its records."""
    if os.path.isdir(place):
        around = os.path.dirname(place.rstrip("/"))
        for name in sorted(os.listdir(around)):
            if name.startswith(os.path.basename(place.rstrip("/")) + "__"):
                yield f"{table}:{name}", os.path.join(around, name)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        known = [text for text in json.load(file) if len(text) > 5]
    said = {}
    for argument in sys.argv[3:]:
        table, place = argument.split("=", 1)
        rows, ids, fields = 0, set(), set()
        for name, at in [(table, place), *children(table, place)]:
            for number, record in enumerate(records(at)):
                if name == table:
                    rows += 1
                    ids.add(record.get("id") or record.get("ticket_id") or record.get("customer_id"))
                if number < FIRST:
                    for path, text in texts(record):
                        field = f"{name}.{path}"
                        if field not in fields and (LOOKS.search(text) or any(one in text for one in known)):
                            fields.add(field)
        said[table] = {"rows": rows, "distinct": len(ids), "personal": sorted(fields)}
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(said, file)


main()
