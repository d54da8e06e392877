#!/usr/bin/env python3
"""Executes the Dagster job of examples/jobs/ in this process, once for each case.

Reads on standard input

    {"recipe": FILE, "program": FILE, "project": FOLDER, "environment": {...},
     "cases": [{"project": FOLDER, "environment": {...}, "arguments": [...]}, ...]}

where a case may have a project and an environment of its own, and prints what became of each case: whether it succeeded, how often the op was started, the texts of its failures, the
metadata of its output, and whether it handed one on. Waits between attempts are left out.
"""

import importlib.util
import json
import os
import sys
import tempfile


def result_of(dg, recipe, request, case):
    os.environ.update(request["environment"] | case.get("environment", {}))
    project = case.get("project", request["project"])
    config = {"program": request["program"], "project": project, "arguments": case.get("arguments", [])}
    with tempfile.TemporaryDirectory() as home:
        instance = dg.DagsterInstance.ephemeral(tempdir=home)
        result = recipe.counterfoil_extract.execute_in_process(
            run_config={"ops": {"extract": {"config": config}}}, raise_on_error=False, instance=instance
        )
    kinds = [event.event_type_value for event in result.all_events]
    failures = [event for event in result.all_events if event.is_step_failure]
    told = [event.step_failure_data.user_failure_data for event in failures]
    texts = [failure.description for failure in told if failure]
    outputs = [event.event_specific_data for event in result.all_events if event.is_successful_output]
    metadata = {name: value.value for output in outputs for name, value in output.metadata.items()}
    waits = [event.event_specific_data.seconds_to_wait for event in result.all_events if event.is_step_up_for_retry]
    return {
        "success": result.success,
        "starts": kinds.count("STEP_START") + kinds.count("STEP_RESTARTED"),
        "waits": waits,
        "failures": texts,
        "outputs": len(outputs),
        "metadata": metadata,
    }


def main():
    request = json.load(sys.stdin)
    # Nothing of this machine's Dagster is read, and nothing is told to anybody.
    os.environ.pop("DAGSTER_HOME", None)
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    import dagster as dg

    spec = importlib.util.spec_from_file_location("dagster_job", request["recipe"])
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    policy = {"waits": dict(recipe.WAITS), "skipped": recipe.SKIPPED, "reasons": sorted(recipe.REASONS)}
    recipe.WAITS.update({code: 0 for code in recipe.WAITS})
    cases = [result_of(dg, recipe, request, case) for case in request["cases"]]
    json.dump({"policy": policy, "cases": cases}, sys.stdout)


if __name__ == "__main__":
    main()
