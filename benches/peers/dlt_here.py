"""A pipeline of dlt as its documentation has users write it: a declared REST source, a cursor, Parquet in a folder.

Usage: dlt_here.py URL FOLDER once|again. `once` runs the pipeline one time and follows `links.next` of each answer. `again` stops
at the last page that the search can reach and runs the pipeline again from its cursor until a run brings no row: what users
do who know of the window of 10,000 results. Prints the rows that it loaded, by run. KUSTOMER_API_KEY is the key.
"""

import json
import os
import sys

url, folder, way = sys.argv[1:4]
os.makedirs(folder, exist_ok=True)
os.chdir(folder)
os.environ["DLT_PROJECT_DIR"] = folder
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"

import dlt  # noqa: E402
from dlt.sources.rest_api import rest_api_source  # noqa: E402

PAGE, WINDOW = 500, 10_000

if way == "once":
    paginator = {"type": "json_link", "next_url_path": "links.next"}
else:
    paginator = {
        "type": "page_number", "base_page": 1, "page_param": "page", "total_path": None, "maximum_page": WINDOW // PAGE + 1,
    }


def searched(name, kind):
    field = f"{kind}_updated_at"
    return {
        "name": name,
        "primary_key": "id",
        "write_disposition": "append",
        "endpoint": {
            "path": "v1/customers/search",
            "method": "POST",
            "params": {"pageSize": PAGE},
            "json": {
                "and": [{field: {"gte": "{incremental.start_value}"}}],
                "sort": [{field: "asc"}],
                "queryContext": kind,
            },
            "data_selector": "data",
            "paginator": paginator,
            "incremental": {"cursor_path": "attributes.updatedAt", "initial_value": "2000-01-01T00:00:00.000Z"},
        },
    }


def source():
    return rest_api_source({
        "client": {"base_url": url + "/", "auth": {"type": "bearer", "token": os.environ["KUSTOMER_API_KEY"]}},
        "resources": [searched("tickets", "conversation"), searched("customers", "customer")],
    })


pipeline = dlt.pipeline(
    "peer",
    pipelines_dir=os.path.join(folder, "state"),
    destination=dlt.destinations.filesystem(bucket_url="file://" + os.path.join(folder, "out")),
    dataset_name="desk",
)
runs = []
while True:
    pipeline.run(source(), loader_file_format="parquet")
    rows = pipeline.last_trace.last_normalize_info.row_counts
    runs.append({name: rows.get(name, 0) for name in ("tickets", "customers")})
    if way == "once" or not any(runs[-1].values()):
        break
print(json.dumps(runs))
