"""Writes the rules of deploy/prometheus from deploy/thresholds.toml.

usage: python3 deploy/prometheus/generate [--check]
--check writes nothing and fails if what is there is not what would be written.
"""

import pathlib
import sys

import business
import example
import gateway
import gpu
import inference
import meta
import recording
from emit import document

HERE = pathlib.Path(__file__).resolve().parents[1]
COMMENT = "Generated from deploy/thresholds.toml by deploy/prometheus/generate; do not edit."
FILES = {
    "recording": recording,
    "gpu": gpu,
    "inference": inference,
    "business": business,
    "gateway": gateway,
    "meta": meta,
}


def outputs():
    every = []
    made = {}
    for name, module in FILES.items():
        groups = module.groups()
        every += groups
        made[f"rules/{name}.yaml"] = document({"groups": groups}, COMMENT)
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "tokenglass",
            "labels": {"app.kubernetes.io/name": "tokenglass", "app.kubernetes.io/component": "monitoring"},
        },
        "spec": {"groups": every},
    }
    made["prometheusrule.yaml"] = document(manifest, COMMENT)
    made["prometheus.yml"] = example.text()
    return made


def main(arguments):
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 64
    made = outputs()
    stale = [name for name, text in made.items() if read(HERE / name) != text]
    # A rule file that nobody writes any more would still be loaded.
    left = [path for path in sorted((HERE / "rules").glob("*.y*ml")) if f"rules/{path.name}" not in made]
    if arguments:
        for name in [*stale, *(f"rules/{path.name}" for path in left)]:
            print(f"deploy/prometheus/{name} is stale: run python3 deploy/prometheus/generate", file=sys.stderr)
        return 1 if stale or left else 0
    for name in stale:
        path = HERE / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(made[name], encoding="utf-8")
    for path in left:
        path.unlink()
    return 0


def read(path):
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
