"""What the injector writes (tests/injector/*/out.yaml), read by others: Kubernetes' schemas of three versions, and PyYAML."""

import copy
import json
import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/injector"
# The first with native sidecars, one in between, the newest that kubernetes-validate knows.
VERSIONS = ["1.29", "1.33", "1.37"]
CASES = sorted(path.parent.name for path in GOLDEN.glob("*/out.yaml"))
STATUS = "tokenglass.dev/status"
BUILT_IN = {"v1", "apps/v1", "batch/v1"}


def documents(name, which):
    """The objects of a golden file, lists unpacked."""
    found = []
    for document in yaml.safe_load_all((GOLDEN / name / f"{which}.yaml").read_text()):
        if document:
            found += document["items"] if document["kind"] == "List" else [document]
    return found


def pods(document):
    """Each pod of an object: its metadata and its specification."""
    spec = document.get("spec", {})
    kind = document["kind"]
    if kind == "Pod":
        return [(document.get("metadata") or {}, spec)]
    if kind == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    if kind == "LeaderWorkerSet":
        group = spec["leaderWorkerTemplate"]
        templates = [group[part] for part in ("leaderTemplate", "workerTemplate") if part in group]
    elif kind == "InferenceService":
        return [(document["metadata"], spec["predictor"])]
    elif kind == "LLMInferenceService":
        return [(document["metadata"], spec["template"])]
    else:
        templates = [spec["template"]] if "template" in spec else []
    return [(template.get("metadata") or {}, template["spec"]) for template in templates]


def pod_fields(spec):
    """KServe's predictor is a pod with fields of its own."""
    return {key: value for key, value in spec.items() if key not in {"minReplicas", "model"}}


def test_there_are_enough():
    assert len(list(GOLDEN.iterdir())) >= 60
    assert len(CASES) >= 40
    for folder in GOLDEN.iterdir():
        report = (folder / "report.txt").read_text()
        assert (folder / "out.yaml").exists() == (": injected " in report), folder.name


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CASES)
def test_kubernetes_takes_it(name, version):
    for document in documents(name, "out"):
        document = {key: value for key, value in document.items() if not key.startswith("x-")}
        if document["apiVersion"] in BUILT_IN:
            kubernetes_validate.validate(document, version, strict=True)
        for metadata, spec in pods(document):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", **metadata}, "spec": pod_fields(spec)}
            kubernetes_validate.validate(pod, version, strict=True)


def test_the_schema_can_fail():
    (document,) = documents("args-only", "out")
    document["spec"]["initContainers"][0]["restartPolcy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, "1.33", strict=True)


@pytest.mark.parametrize("name", CASES)
def test_nothing_else_changes(name):
    """Undone by hand, it is what it was."""
    before, after = documents(name, "in"), documents(name, "out")
    assert len(before) == len(after)
    injected = 0
    for old, new in zip(before, after):
        for (old_meta, old_spec), (new_meta, new_spec) in zip(pods(old), pods(new), strict=True):
            injected += STATUS in new_meta.get("annotations", {})
            undo(old_meta, old_spec, new_meta, new_spec)
        if any(pods(new)):
            strip_empty(old), strip_empty(new)
        assert new == old
    assert injected >= 1


def undo(old_meta, old_spec, new_meta, new_spec):
    status = (new_meta.get("annotations") or {}).pop(STATUS, None)
    if status is None:
        return
    status = json.loads(status)
    listen, upstream, admin = (status["ports"][key] for key in ("listen", "upstream", "admin"))
    for key in ("prometheus.io/port", "prometheus.io/path"):
        if key in (old_meta.get("annotations") or {}):
            new_meta["annotations"][key] = old_meta["annotations"][key]

    # The sidecar, at the end of its list.
    native = new_spec.get("initContainers") and new_spec["initContainers"][-1]["name"] == "tokenglass"
    sidecar = new_spec["initContainers" if native else "containers"].pop()
    assert sidecar["name"] == "tokenglass"
    assert (sidecar.get("restartPolicy") == "Always") == bool(native)
    check_sidecar(sidecar, listen, upstream, admin)
    names = {container["name"] for container in old_spec["containers"]}
    assert status["container"] in names

    for old, new in zip(old_spec["containers"], new_spec["containers"], strict=True):
        if old["name"] == status["container"]:
            undo_container(old, new, listen, upstream, admin)
    grace = new_spec.get("terminationGracePeriodSeconds", 30)
    assert grace >= old_spec.get("terminationGracePeriodSeconds", 30)
    for key in ("terminationGracePeriodSeconds", "enableServiceLinks", "volumes"):
        if key == "volumes":
            extra = [volume for volume in new_spec.get(key, []) if volume["name"] == "tokenglass-config"]
            for volume in extra:
                new_spec[key].remove(volume)
        elif key in old_spec:
            new_spec[key] = old_spec[key]
        else:
            new_spec.pop(key, None)


def check_sidecar(sidecar, listen, upstream, admin):
    env = {entry["name"]: entry.get("value") for entry in sidecar["env"]}
    assert len(env) == len(sidecar["env"])
    assert env["TOKENGLASS_SERVER__LISTEN"].endswith(f":{listen}")
    assert env["TOKENGLASS_UPSTREAM__URL"].endswith(f":{upstream}")
    assert env["TOKENGLASS_ADMIN__LISTEN"].endswith(f":{admin}")
    assert all(isinstance(value, str) or value is None for value in env.values())
    assert len({listen, upstream, admin}) == 3
    # Pod Security, level restricted.
    security = sidecar["securityContext"]
    assert security["runAsNonRoot"] is True and security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security.get("runAsUser") != 0


def undo_container(old, new, listen, upstream, admin):
    # Whatever asked vLLM whether it lives still asks vLLM.
    for probe in ("livenessProbe", "startupProbe"):
        for kind in ("httpGet", "tcpSocket"):
            action = new.get(probe, {}).get(kind)
            if action and isinstance(action["port"], int):
                assert action["port"] != listen
    for part in ("livenessProbe", "startupProbe", "readinessProbe", "lifecycle"):
        if part in old:
            if part == "lifecycle" and "preStop" not in old[part]:
                assert new[part]["preStop"]["httpGet"] == {"path": "/drain?wait=1", "port": admin}
            new[part] = copy.deepcopy(old[part])
        else:
            new.pop(part, None)
    # The port is in the command line, once, and all else in it is as it was.
    line = lambda container: [*container.get("command", []), *container.get("args", [])]
    words = lambda container: " ".join(line(container))
    if words(old) != words(new):
        pattern = rf"(?<!\d){upstream}(?!\d)"
        assert len(re.findall(pattern, words(new))) == 1
        assert not re.search(pattern, words(old))
        assert re.search(rf"--port[= ]['\"]?{upstream}\b", words(new))
    for part in ("command", "args"):
        if part in old:
            new[part] = old[part]
        else:
            new.pop(part, None)


def strip_empty(node):
    """What was made only to hold something of ours."""
    for key in ("annotations", "metadata", "initContainers", "volumes"):
        for holder in [node, *children(node)]:
            if isinstance(holder, dict) and holder.get(key) in ({}, [], None):
                holder.pop(key, None)


def children(node):
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
        yield value
        yield from children(value)
