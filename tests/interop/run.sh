#!/bin/sh
# Makes (once) a Python environment with PyArrow, PySpark, DuckDB, moto, Dagster and the schemas of Kubernetes, and runs a
# script of this folder in it:
#
#   tests/interop/run.sh pyarrow_open.py < request.json
#   tests/interop/run.sh --python        prints the interpreter, for COUNTERFOIL_INTEROP_PYTHON
#
# PySpark is a download of some 450 MB, and its test needs a JDK of version 17 or later besides. The environment lies in
# COUNTERFOIL_INTEROP_VENV, or else in the target directory.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
venv=${COUNTERFOIL_INTEROP_VENV:-${CARGO_TARGET_DIR:-$here/../../target}/interop-venv}

# A stamp of the requirements tells an environment that is complete and up to date from one that is not.
if ! cmp -s "$here/requirements.txt" "$venv/requirements.stamp"; then
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt" >&2
    cp "$here/requirements.txt" "$venv/requirements.stamp"
fi

if [ "${1:-}" = "--python" ]; then
    echo "$venv/bin/python"
else
    script=$1
    shift
    exec "$venv/bin/python" "$here/$script" "$@"
fi
