"""Reads tables of a lake with PySpark and prints their rows.

Standard input is one JSON object:

    {"keys": {"ring-1": "<base64 of 32 bytes>"},   master keys, as `counterfoil keys export` prints them
     "tables": {"tickets": {
         "files": [{"path": "/path/a.parquet", "hidden": [3, 4]}],   files, and positions of rows to leave out
         "select": ["ticket_id", "unix_millis(updated_at)"]}}}       SQL expressions

Standard output is one JSON object: per table its rows. The key client is compiled from RingKms.java against the jars of
pyspark, which ships none of its own. Needs a JDK of version 17 or later.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile


def compile_client(folder):
    import pyspark

    jars = pathlib.Path(pyspark.__file__).parent / "jars"
    source = pathlib.Path(__file__).with_name("RingKms.java")
    subprocess.run(["javac", "-cp", f"{jars}/*", "-d", folder, source], check=True, stdout=sys.stderr)


def session(folder):
    from pyspark.sql import SparkSession

    settings = {
        "spark.master": "local[1]",
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "1g",
        "spark.driver.extraClassPath": folder,
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.warehouse.dir": f"{folder}/warehouse",
        "spark.hadoop.parquet.crypto.factory.class": "org.apache.parquet.crypto.keytools.PropertiesDrivenCryptoFactory",
        "spark.hadoop.parquet.encryption.kms.client.class": "RingKms",
        "spark.hadoop.counterfoil.keys": f"{folder}/keys",
    }
    builder = SparkSession.builder.appName("interop")
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def read(spark, table):
    from pyspark.sql import functions

    rows = []
    for file in table["files"]:
        frame = spark.read.parquet(f"file://{file['path']}")
        frame = frame.where(~functions.col("_metadata.row_index").isin(file["hidden"])) if file["hidden"] else frame
        rows += [list(row) for row in frame.selectExpr(*table["select"]).collect()]
    return rows


def main():
    request = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        compile_client(folder)
        keys = pathlib.Path(folder, "keys")
        keys.mkdir(mode=0o700)
        for key_id, key in request["keys"].items():
            keys.joinpath(key_id).write_text(key)
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        spark = session(folder)
        tables = {name: read(spark, table) for name, table in request["tables"].items()}
        spark.stop()
    json.dump({"tables": tables}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
