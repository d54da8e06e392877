"""Reads tables of a lake with PyArrow's own key tools and prints their rows.

Standard input is one JSON object:

    {"keys": {"ring-1": "<base64 of 32 bytes>"},   master keys, as `counterfoil keys export` prints them
     "tables": {"tickets": {
         "files": [{"path": "/path/a.parquet", "hidden": [3, 4]}],   files, and positions of rows to leave out
         "columns": ["ticket_id", "updated_at"]}}}

Standard output is one JSON object: per table its rows, times as milliseconds since 1970.
"""

import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

from pyarrow_open import RingClient


def read(client, table):
    factory = pe.CryptoFactory(lambda configuration: client)
    rows = []
    for file in table["files"]:
        decryption = factory.file_decryption_properties(pe.KmsConnectionConfig(), pe.DecryptionConfiguration())
        with pq.ParquetFile(file["path"], decryption_properties=decryption) as opened:
            read = opened.read(columns=table["columns"])
        hidden = set(file["hidden"])
        read = read.take([position for position in range(read.num_rows) if position not in hidden])
        columns = [read.column(name) for name in table["columns"]]
        columns = [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in columns]
        rows += [list(row) for row in zip(*(column.to_pylist() for column in columns))]
    return rows


def main():
    request = json.load(sys.stdin)
    client = RingClient(request["keys"])
    tables = {name: read(client, table) for name, table in request["tables"].items()}
    json.dump({"tables": tables}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
