"""`python -m tests.chart.lint`: helm lint, and a rendering with everything switched on. Part of `make check`.

Where no helm has been built yet, the values are held against their schema and the YAML is read, which needs none.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import yaml

from tests.cluster.config import cache_root

CHART = Path(__file__).parents[2] / "charts" / "r1-operator"
EVERYTHING = (
    "watchNamespaces={a,b},networkPolicy.enabled=true,metrics.serviceMonitor=true,metrics.podMonitor=true,"
    "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.a=b,"
    "images.registry=registry.example,images.pullSecrets[0].name=pull,priorityClassName=high,podLabels.a=b,"
    "podAnnotations.a=b,nodeSelector.a=b,tolerations[0].operator=Exists,serviceAccount.annotations.a=b"
)


def check_without_helm() -> None:
    """Raises what is wrong with the chart's data files."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load((CHART / "values.yaml").read_text()), schema)
    for file in (CHART / "Chart.yaml", CHART / "files" / "r1deployments.yaml"):
        yaml.safe_load(file.read_text())


def main() -> int:
    check_without_helm()
    # Any build's helm will do: a check must not wait minutes for a newer one.
    helm = next((path for path in sorted(cache_root().glob("k8s-*/helm"), reverse=True) if path.exists()), None)
    if helm is None:
        print("helm is not built yet (`make cluster` builds it): checked the values and their schema only")
        return 0
    for arguments in (
        ["lint", "--strict", str(CHART)],
        ["lint", "--strict", str(CHART), "--set", EVERYTHING],
        ["template", "r1-operator", str(CHART), "--set", EVERYTHING],
    ):
        done = subprocess.run([str(helm), *arguments], capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            print(f"helm {' '.join(arguments)}\n{done.stdout}{done.stderr}", file=sys.stderr)
            return 1
        if arguments[0] == "template" and any(obj is None for obj in yaml.safe_load_all(done.stdout)):
            print("a template renders an empty document: guard the whole file", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
