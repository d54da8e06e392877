"""An extract as a Dagster job: an op that runs the binary and reads its exit code.

    pip install dagster
    dagster dev -f dagster_job.py

The process that runs the op needs `counterfoil` in its PATH and the project's folder; the settings name where the secrets
are. Exit codes are those of docs/jobs.md: what time mends is tried again, the rest fails at once and says whom it waits for.
"""

import json
import os
import subprocess
import tempfile

import dagster as dg

# Codes that time mends, and the seconds to wait: a source or store that does not answer, and a run that is incomplete.
WAITS = {3: 300, 7: 0}
RETRIES = 3

# Another run does the work: no failure, and nothing to hand on.
SKIPPED = 9

# Codes that a person mends.
REASONS = {
    1: "a defect of the program: report it",
    2: "usage, settings or policy are wrong: correct them",
    4: "a key, a role or the root key is refused: get the right",
    5: "data is damaged: `counterfoil lake verify`, then restore it, at once",
    6: "an SQL text is wrong: `counterfoil check`",
    8: "data is older than the query allows: extract first",
    130: "ended by a signal: the next run goes on from there",
}


class Extract(dg.Config):
    """Where the extract runs, and with which options besides."""

    program: str = "counterfoil"
    project: str = "/srv/tickets"
    arguments: list[str] = []


def run(context: dg.OpExecutionContext, command: list[str], project: str) -> int:
    """Runs a command, its standard error in the log, and returns its exit code."""
    process = subprocess.Popen(
        command, cwd=project, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        for line in process.stderr:
            context.log.info(line.rstrip())
        return process.wait()
    except BaseException:
        # The run was cancelled. After SIGTERM it commits, and gives its lease back.
        process.terminate()
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        raise


@dg.op(out=dg.Out(dict, is_required=False, description="the run report"))
def extract(context: dg.OpExecutionContext, config: Extract):
    """Fetches what changed; downstream ops run when it is complete, and are skipped when another run does the work."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "run.json")
        code = run(context, [config.program, "extract", "--report", path, *config.arguments], config.project)
        # Written at 0, 7 and 130: counts, names, ids and times, no values.
        report = {}
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                report = json.load(file)
    metadata = {"exit_code": code, "report": dg.MetadataValue.json(report)}
    if code == 0:
        for stream in report["run"]["streams"]:
            for count in ("inserted", "updated", "deleted"):
                metadata[f"{stream['stream']}_{count}"] = stream[count]
        metadata["requests"] = report["requests_spent"]
        yield dg.Output(report, metadata=metadata)
    elif code == SKIPPED:
        context.log.warning("another run does the work: exit code 9")
    elif code in WAITS:
        context.log.warning(f"exit code {code}: again in {WAITS[code]} s")
        raise dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=WAITS[code])
    else:
        # Codes of signals are negative here: 9 is SIGKILL, mostly memory.
        reason = REASONS.get(code, "ended by a signal or by the system: nothing that was committed is lost")
        raise dg.Failure(f"exit code {code}: {reason}", metadata=metadata, allow_retries=False)


@dg.job
def counterfoil_extract():
    """One extract of the lake."""
    extract()


hourly = dg.ScheduleDefinition(job=counterfoil_extract, cron_schedule="7 * * * *")

defs = dg.Definitions(jobs=[counterfoil_extract], schedules=[hourly])
