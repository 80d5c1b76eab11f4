#!/usr/bin/env python3
"""Writes the dashboards. usage: generate.py [--check]

`--check` writes nothing and fails if a file is not what source/ says.
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from source import gateway, gpu, inference, requests  # noqa: E402

DASHBOARDS = {
    "gpu-overview": gpu,
    "inference-performance": inference,
    "request-analysis": requests,
    "gateway": gateway,
}


def rendered():
    for name, module in DASHBOARDS.items():
        yield (
            HERE / "dashboards" / f"{name}.json",
            json.dumps(module.board().json(), indent=2, ensure_ascii=False) + "\n",
        )


def main(arguments):
    if arguments not in ([], ["--check"]):
        print(__doc__.strip(), file=sys.stderr)
        return 64
    stale = []
    for path, text in rendered():
        if path.exists() and path.read_text() == text:
            continue
        stale.append(path.name)
        if not arguments:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    if arguments and stale:
        print(f"not what source/ says: {', '.join(stale)}; run {pathlib.Path(__file__).name}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
