#!/usr/bin/env python3
"""Checks Kubernetes manifests against the schemas of several versions, strictly: a field that is not known is an error.

Reads {"path": FILE, "versions": ["1.31", ...]} on standard input; prints {"documents": [...], "errors": [...]}, where the
documents are the parsed manifests and each error names its version and place.
"""

import json
import sys

import kubernetes_validate
import yaml


def main():
    request = json.load(sys.stdin)
    with open(request["path"], encoding="utf-8") as file:
        documents = list(yaml.safe_load_all(file))
    errors = []
    for version in request["versions"]:
        for document in documents:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except (kubernetes_validate.ValidationError, kubernetes_validate.VersionNotSupportedError) as error:
                errors.append(f"{version}, {document.get('kind')}: {str(error).splitlines()[0]}")
    # What the strict schema is for: with a field that no version knows, it must complain.
    documents_with_typo = json.loads(json.dumps(documents[-1]))
    documents_with_typo["spec"]["concurencyPolicy"] = "Forbid"
    try:
        kubernetes_validate.validate(documents_with_typo, request["versions"][-1], strict=True)
        errors.append("a misspelt field was not noticed")
    except kubernetes_validate.ValidationError:
        pass
    json.dump({"documents": documents, "errors": errors}, sys.stdout)


if __name__ == "__main__":
    main()
