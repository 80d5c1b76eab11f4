"""Writes what values.schema.json says of `config` from config/tokenglass.toml: every section, every key, its types.

usage: python3 deploy/helm/generate.py [--check]
--check writes nothing and fails if what is there is not what would be written.
"""

import json
import pathlib
import re
import sys
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
SCHEMA = HERE / "tokenglass/values.schema.json"
CONFIG = HERE.parents[1] / "config/tokenglass.toml"


def kind(key, default):
    """The types that a key takes, told by its default."""
    if isinstance(default, bool):
        return {"type": "boolean"}
    if isinstance(default, int):
        return {"type": ["integer", "string"] if key.endswith("_bytes") else "integer"}
    if isinstance(default, list):
        return {"type": ["array", "string"]}
    # A duration or a size: "5s", "64KiB", or a number.
    if re.fullmatch(r"[0-9.]+ ?[A-Za-z]+", default):
        return {"type": ["string", "integer"]}
    return {"type": "string"}


def known():
    """Sections and keys with their defaults."""
    return tomllib.loads(CONFIG.read_text(encoding="utf-8"))


def config():
    sections = {}
    for section, keys in sorted(known().items()):
        sections[section] = {
            "type": "object",
            "additionalProperties": False,
            "properties": {key: kind(key, default) for key, default in keys.items()},
        }
    return {
        "$comment": "Generated from config/tokenglass.toml by deploy/helm/generate.py; do not edit.",
        "type": "object",
        "additionalProperties": False,
        "properties": sections,
    }


def main(arguments):
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 64
    there = SCHEMA.read_text(encoding="utf-8")
    schema = json.loads(there)
    schema["$defs"]["config"] = config()
    made = json.dumps(schema, indent=2) + "\n"
    if made == there:
        return 0
    if arguments:
        print("deploy/helm/tokenglass/values.schema.json is stale: run python3 deploy/helm/generate.py", file=sys.stderr)
        return 1
    SCHEMA.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
