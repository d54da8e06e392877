"""Reads results of one query, in every format, with PyArrow, DuckDB and jq, and prints their rows.

Standard input is one JSON object:

    {"files": {"csv": "/path/a.csv", "json": …, "ndjson": …, "arrow": …, "parquet": …, "sealed": …},
     "keys": {"ring-1": "<base64 of 32 bytes>"},    master keys, for the sealed Parquet file
     "jq": true}                                    whether jq is there

Standard output is one JSON object: rows by engine and format. Times are milliseconds since 1970; a list that CSV holds as
JSON text is parsed.
"""

import base64
import datetime
import json
import subprocess
import sys

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

from pyarrow_open import RingClient


class Keeper(RingClient):
    """Keeps the data key that PyArrow asked for, which is what DuckDB takes."""

    def unwrap_key(self, wrapped_key, master_key_identifier):
        self.data_key = super().unwrap_key(wrapped_key, master_key_identifier)
        return self.data_key


def cell(name, value):
    if isinstance(value, datetime.datetime):
        value = value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)
        return round(value.timestamp() * 1000)
    if name == "updated_at" and isinstance(value, str):
        return cell(name, datetime.datetime.fromisoformat(value))
    if name == "tag_ids" and isinstance(value, str):
        return json.loads(value)
    return value


def plain(rows):
    return [{name: cell(name, value) for name, value in row.items()} for row in rows]


def pyarrow_reads(files, client):
    read = pyarrow.csv.read_csv(
        files["csv"],
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False),
    )
    tables = {"csv": read, "parquet": pq.read_table(files["parquet"])}
    tables["ndjson"] = pyarrow.json.read_json(files["ndjson"])
    with pa.ipc.open_stream(files["arrow"]) as reader:
        tables["arrow"] = reader.read_all()
    factory = pe.CryptoFactory(lambda configuration: client)
    decryption = factory.file_decryption_properties(pe.KmsConnectionConfig(), pe.DecryptionConfiguration())
    with pq.ParquetFile(files["sealed"], decryption_properties=decryption) as file:
        tables["sealed"] = file.read()
    for table in tables.values():
        table.validate(full=True)
    return {format: plain(table.to_pylist()) for format, table in tables.items()}


def duckdb_reads(files, data_key):
    key = base64.b64encode(data_key).decode()
    with duckdb.connect() as connection:
        connection.execute("SET autoinstall_known_extensions = false")
        connection.execute(f"PRAGMA add_parquet_key('result', '{key}')")
        stream = pa.ipc.open_stream(files["arrow"])
        connection.register("stream", stream)
        sources = {
            "csv": f"read_csv('{files['csv']}', allow_quoted_nulls = false)",
            "json": f"read_json('{files['json']}')",
            "ndjson": f"read_json('{files['ndjson']}')",
            "parquet": f"read_parquet('{files['parquet']}')",
            "sealed": f"read_parquet('{files['sealed']}', encryption_config = {{footer_key: 'result'}})",
            "arrow": "stream",
        }
        rows = {}
        for format, source in sources.items():
            # DuckDB reads no nested column of an encrypted file, whoever wrote it.
            flat = "EXCLUDE (tag_ids)" if format == "sealed" else ""
            times = "REPLACE (epoch_ms(updated_at::TIMESTAMPTZ) AS updated_at)"
            answer = connection.execute(f"SELECT * {flat} {times} FROM {source}")
            names = [column[0] for column in answer.description]
            rows[format] = plain(dict(zip(names, row)) for row in answer.fetchall())
        return rows


def jq_reads(files):
    rows = {}
    for format, program in {"json": ".[]", "ndjson": "."}.items():
        out = subprocess.run(["jq", "-c", program, files[format]], check=True, capture_output=True).stdout
        rows[format] = plain(json.loads(line) for line in out.splitlines())
    return rows


def main():
    request = json.load(sys.stdin)
    files = request["files"]
    client = Keeper(request["keys"])
    answer = {"PyArrow": pyarrow_reads(files, client)}
    answer["DuckDB"] = duckdb_reads(files, client.data_key)
    if request["jq"]:
        answer["jq"] = jq_reads(files)
    json.dump(answer, sys.stdout)
    print()


if __name__ == "__main__":
    main()
