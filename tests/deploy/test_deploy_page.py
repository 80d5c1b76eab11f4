"""docs/deploy.md: few commands for each way, and what they name is there."""

import re
import shlex
import subprocess

import manifests
import pytest
import tomllib
import yaml
from deployed import DEPLOY, ROOT, run
from helm_python import Chart
from manifests import load, of
from test_kubernetes import KUSTOMIZE, offers

PAGE = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
CHART = DEPLOY / "helm/tokenglass"


def sections():
    """Command lines of each block, by heading."""
    made = {}
    for heading, text in re.findall(r"(?ms)^## (.+?)\n(.*?)(?=^## |\Z)", PAGE):
        blocks = re.findall(r"(?ms)^```sh\n(.*?)^```", text)
        made[heading] = [block.strip().splitlines() for block in blocks]
    return made


def commands():
    return [line for blocks in sections().values() for block in blocks for line in block]


@pytest.mark.parametrize("way", ["In front of vLLM", "Sidecar", "Gateway"])
def test_five_commands_or_fewer(way):
    blocks = sections()[way]
    assert blocks and all(1 <= len(block) <= 5 for block in blocks)
    assert not any("&&" in line or ";" in line for block in blocks for line in block)


def test_what_is_named_is_there():
    words = [word for line in commands() for word in shlex.split(line.rstrip("&"))]
    paths = {word for word in words if re.match(r"(deploy|config)/", word)}
    assert len(paths) >= 6
    assert not [path for path in paths if not (ROOT / path).exists()]
    for target in re.findall(r"components/[\w/-]+", PAGE):
        assert (DEPLOY / "kubernetes" / target / "kustomization.yaml").exists(), target
    for path in re.findall(r"kubectl apply -k (\S+)", PAGE):
        run(KUSTOMIZE, "build", ROOT / path)
    stages = re.findall(r"(?m) AS (\w+)$", (DEPLOY / "docker/Dockerfile").read_text())
    assert set(re.findall(r"--target (\w+)", PAGE)) <= set(stages)
    # -D makes the folder, which a machine need not have.
    assert len(re.findall(r"(?m)^sudo install -D", PAGE)) == 3


def test_objects_that_the_commands_ask_for():
    built = {
        "tokenglass-system": load(run(KUSTOMIZE, "build", DEPLOY / "kubernetes/overlays/injector")),
        "tokenglass-dev": load(run(KUSTOMIZE, "build", DEPLOY / "kubernetes/overlays/dev")),
        "vllm": load(run(KUSTOMIZE, "build", DEPLOY / "kubernetes/overlays/sidecar"))
        + load(run(KUSTOMIZE, "build", DEPLOY / "kubernetes/overlays/gateway")),
    }
    asked = re.findall(r"(?m)^kubectl -n (\S+) .*?(deployment|service)/([\w-]+)", PAGE)
    assert len(asked) >= 5
    for where, kind, what in asked:
        assert (kind, what) in {(each["kind"].lower(), each["metadata"]["name"]) for each in built[where]}, what
    # Who waits for the webhook, and what stamps and labels it goes by.
    (hook,) = of(built["tokenglass-system"], "MutatingWebhookConfiguration")
    (label,) = re.findall(r"kubectl label namespace \S+ (\S+)=(\S+)", PAGE)
    (asks,) = [each for each in hook["webhooks"] if "matchLabels" in each["namespaceSelector"]]
    assert asks["namespaceSelector"]["matchLabels"] == dict([label])


def test_helm_takes_its_command():
    (line,) = [line for line in commands() if line.startswith("helm install")]
    words = shlex.split(line)
    release, where = words[2], words[words.index("--namespace") + 1]
    assert ROOT / words[3] == CHART
    key, value = words[words.index("--set") + 1].split("=", 1)
    values = value.strip("{}").split(",")
    for part in reversed(key.split(".")):
        values = {part: values}
    things = [
        each
        for path, text in Chart.load(str(CHART)).render(values, name=release, namespace=where).items()
        if path.endswith(".yaml")
        for each in load(text)
    ]
    (config,) = [tomllib.loads(text) for text in manifests.configurations(things)]
    assert config["gateway"]["discover"] == [value.strip("{}")]
    names = {(each["kind"].lower(), each["metadata"]["name"]) for each in things}
    assert {("deployment", "tokenglass"), ("service", "tokenglass")} <= names
    # The address that the page gives to clients.
    (name, space, port) = re.search(r"http://([\w-]+)\.([\w-]+)\.svc:(\d+)", PAGE).groups()
    (service,) = [each for each in of(things, "Service") if each["metadata"]["name"] == name]
    assert (service["metadata"]["namespace"], service["spec"]["ports"][0]["port"]) == (space, int(port))


def test_values_and_keys_that_the_page_names():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    table = re.search(r"(?ms)^## What can be added\n(.*?)(?=^## )", PAGE)[1]
    rows = [row.split("|")[3] for row in table.splitlines() if row.startswith("| ") and "---" not in row]
    named = [name for row in rows for name in re.findall(r"`([\w.]+)`", row)]
    assert len(named) >= 8
    for name in named:
        place = values
        for part in name.split("."):
            place = place[part]
    known = tomllib.loads((ROOT / "config/tokenglass.toml").read_text())
    for section, key in re.findall(r"`(shutdown|log|server)\.(\w+)`", PAGE):
        assert key in known[section]


def test_the_score_is_what_is_said():
    done = subprocess.run(
        ["systemd-analyze", "--no-pager", "security", "--offline=yes", DEPLOY / "systemd/tokenglass.service"],
        capture_output=True,
        text=True,
    )
    (said,) = re.findall(r"`systemd-analyze security`: ([\d.]+)", PAGE)
    assert f" {said} " in done.stdout.splitlines()[-1]


def test_flags_that_the_page_names():
    shown = offers("inject")
    for flag in ("--check", "--file", "--image"):
        assert flag in shown
