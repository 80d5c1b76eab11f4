"""deploy/kubernetes: every kustomization that one may build, as it is and with what is commented out."""

import os
import pathlib
import re
import shutil
import subprocess

import manifests
import pytest
import tomllib
import yaml
from deployed import DEPLOY, ROOT, THRESHOLDS, VERSIONS, groups, promtool, run
from manifests import KUBERNETES, containers, load, name, namespace, of, pods

CACHE = pathlib.Path(os.environ.get("TGTEST_CACHE") or pathlib.Path.home() / ".cache/tokenglass")
KUSTOMIZE = CACHE / "kustomize/bin/kustomize"
OVERLAYS = ["gateway", "sidecar", "dev", "injector"]
BUILDS = ["base", *(f"overlays/{overlay}" for overlay in OVERLAYS), "full/gateway", "full/sidecar", "full/injector"]


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """deploy/ with every suggestion of the kustomizations followed: what is commented out is not."""
    folder = tmp_path_factory.mktemp("full") / "deploy"
    for part in ("kubernetes", "prometheus", "grafana", "otel"):
        shutil.copytree(DEPLOY / part, folder / part)
    changed = 0
    for path in folder.glob("kubernetes/**/kustomization.yaml"):
        text = path.read_text(encoding="utf-8")
        made = re.sub(r"(?m)^#(?=  |[a-z]+:$)", "", text)
        changed += made != text
        path.write_text(made, encoding="utf-8")
    assert changed == 4
    return folder


@pytest.fixture(scope="module")
def built(full):
    """What a kustomization makes."""
    made = {}

    def build(which):
        if which not in made:
            place = full / "kubernetes/overlays" / which.removeprefix("full/")
            if not which.startswith("full/"):
                place = DEPLOY / "kubernetes" / which
            made[which] = load(run(KUSTOMIZE, "build", place))
        return made[which]

    return build


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("which", BUILDS)
def test_schemas(built, which, version):
    assert manifests.invalid(built(which), version) == []


@pytest.mark.parametrize("which", BUILDS)
def test_pod_security_restricted(built, which):
    things = built(which)
    found = {name(thing): manifests.unrestricted(spec) for thing, _, spec in pods(things)}
    assert found and not any(found.values()), found
    # Namespaces of our own ask for it.
    for each in of(things, "Namespace"):
        assert each["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("which", BUILDS)
def test_what_is_named_is_there(built, which):
    things = built(which)
    assert manifests.dangling(things) == []
    found = [each for thing, _, spec in pods(things) for each in manifests.untidy(thing, spec)]
    assert found == []


@pytest.mark.parametrize("which", BUILDS)
def test_nobody_is_killed_while_it_drains(built, which):
    assert manifests.hurried(built(which)) == []


def test_kubectl_builds_the_same(built):
    """Its kustomize is the one that most have, and an older one."""
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl")
    for which in BUILDS[:5]:
        assert load(run("kubectl", "kustomize", DEPLOY / "kubernetes" / which)) == built(which)


def test_every_component_is_built_by_some_of_them():
    folders = {path.parent.name for path in (DEPLOY / "kubernetes/components").glob("*/kustomization.yaml")}
    texts = "".join(path.read_text() for path in (DEPLOY / "kubernetes/overlays").glob("*/kustomization.yaml"))
    assert set(re.findall(r"components/([\w-]+)", texts)) == folders


def test_the_gateway_is_in_the_namespace_whose_service_it_follows(built):
    things = built("overlays/gateway")
    (config,) = [tomllib.loads(text) for text in manifests.configurations(things)]
    (discover,) = config["gateway"]["discover"]
    where = re.fullmatch(r"kubernetes:([\w-]+)/([\w-]+):([\w-]+)", discover)[1]
    assert {namespace(thing) for thing in things} == {where}
    (role,) = of(things, "Role")
    assert role["rules"] == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}
    ]
    # And what is said twice is the same.
    (base,) = [tomllib.loads(text) for text in manifests.configurations(built("base"))]
    base["gateway"] = config["gateway"]
    assert base == config


def test_dev_is_what_compose_has(built):
    things = built("overlays/dev")
    services = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())["services"]
    ran = {each["name"]: each for _, _, spec in pods(things) for each in containers(spec)}
    assert ran["sim"]["args"] == services["sim"]["command"]
    traffic = [re.sub(r"\$\{RATE:-(\d+)\}", r"\1", word) for word in services["traffic"]["command"]]
    # Behind its Service, whose port is vLLM's.
    assert ran["traffic"]["args"] == [word.replace(":8080", ":8000") for word in traffic]
    assert {each["image"] for each in ran.values()} == {services["sim"]["image"], services["tokenglass"]["image"]}
    (config,) = [tomllib.loads(text) for text in manifests.configurations(things)]
    (headless,) = [each for each in of(things, "Service") if each["metadata"]["name"] == "vllm"]
    assert headless["spec"]["clusterIP"] == "None"
    assert config["gateway"]["discover"] == [f"dns:http://vllm:{headless['spec']['ports'][0]['port']}"]


def test_the_sidecar_takes_vllms_place(built):
    things = built("overlays/sidecar")
    (deployment,) = of(things, "Deployment")
    spec = deployment["spec"]["template"]["spec"]
    (proxy,), (vllm,) = spec["initContainers"], spec["containers"]
    assert (proxy["name"], proxy["restartPolicy"]) == ("tokenglass", "Always")
    environment = {each["name"]: each["value"] for each in proxy["env"]}
    (own,) = [word.removeprefix("--port=") for word in vllm["args"] if word.startswith("--port=")]
    assert environment["TOKENGLASS_UPSTREAM__URL"] == f"http://127.0.0.1:{own}"
    # The port that vLLM's container declares is the proxy's now: they share the network, and Services find it as before.
    (front,) = [each["containerPort"] for each in vllm["ports"] if each["name"] == "http"]
    assert environment["TOKENGLASS_SERVER__LISTEN"].endswith(f":{front}")
    (admin,) = [each["containerPort"] for each in proxy["ports"] if each["name"] == "tg-admin"]
    assert environment["TOKENGLASS_ADMIN__LISTEN"].endswith(f":{admin}")
    # vLLM's life does not depend on the proxy, its readiness does, and it waits for the proxy's drain.
    assert {vllm[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe")} == {int(own)}
    assert vllm["readinessProbe"]["httpGet"]["port"] in ("http", front)
    assert vllm["lifecycle"]["preStop"]["httpGet"] == {"path": "/drain?wait=1", "port": admin}
    (monitor,) = of(things, "PodMonitor")
    assert namespace(monitor) == namespace(deployment)
    assert manifests.matches(monitor["spec"]["selector"], deployment["spec"]["template"]["metadata"]["labels"])
    assert [each["port"] for each in monitor["spec"]["podMetricsEndpoints"]] == ["tg-admin"]
    # Nobody goes around it.
    (policy,) = of(things, "NetworkPolicy")
    allowed = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    assert allowed == {front, admin}


def test_rules_and_dashboards_are_those_of_their_folders(built):
    things = built("full/gateway")
    (rule,) = of(things, "PrometheusRule")
    assert by_name(rule["spec"]["groups"]) == by_name(groups())
    found = {}
    for each in of(things, "ConfigMap"):
        if each["metadata"].get("labels", {}).get("grafana_dashboard") == "1":
            found |= each["data"]
    wanted = {path.name: path.read_text(encoding="utf-8") for path in (DEPLOY / "grafana/dashboards").glob("*.json")}
    assert found == wanted
    assert all(len(text) < 900_000 for text in found.values())
    (release,) = {each["metadata"]["labels"]["release"] for each in of(things, "ServiceMonitor", "PodMonitor", "PrometheusRule")}
    assert release == "kube-prometheus-stack"


def by_name(every):
    made = {group["name"]: group for group in every}
    assert len(made) == len(every)
    return made


def test_the_collectors_configuration_is_that_of_deploy_otel(built):
    (config,) = [each for each in of(built("full/sidecar"), "ConfigMap") if "collector.yaml" in each["data"]]
    assert config["data"]["collector.yaml"] == (DEPLOY / "otel/collector.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("version", VERSIONS)
def test_promtool_takes_the_rules_of_the_manifest(built, tmp_path, version):
    (rule,) = of(built("full/gateway"), "PrometheusRule")
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(rule["spec"]))
    run(promtool(version), "check", "rules", "--lint=all", "--lint-fatal", file)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_vllm_is_scaled_by(built, tmp_path, version):
    (scaled,) = of(built("full/sidecar"), "ScaledObject")
    scaling(scaled, namespace(scaled), tmp_path, version)


def scaling(scaled, where, folder, version):
    """Its queries, on series as a gateway's and a sidecar's are."""
    queue, ttft = scaled["spec"]["triggers"]
    # KEDA falls back only where one trigger is an average.
    assert (queue["metricType"], ttft["metricType"]) == ("AverageValue", "Value")
    assert float(ttft["metadata"]["threshold"]) == THRESHOLDS["slo"]["ttft"]["seconds"]
    rules = [{"record": f"scale:{each['name']}", "expr": each["metadata"]["query"]} for each in (queue, ttft)]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "scale", "rules": rules}]}))
    here = f'namespace="{where}"'

    def case(series, waiting, first):
        tests = [(f"scale:{what}", value) for what, value in (("queue", waiting), ("ttft", first))]
        return {
            "interval": "1m",
            "input_series": [{"series": key, "values": value} for key, value in series.items()],
            "promql_expr_test": [
                {
                    "expr": expr,
                    "eval_time": "10m",
                    "exp_samples": [] if value is None else [{"labels": expr, "value": value}],
                }
                for expr, value in tests
            ],
        }

    waiting = "vllm:num_requests_waiting{%s, model_name=\"m\", engine=\"0\", instance=\"%s\"%s}"
    gateways = {
        waiting % (here, instance, f', upstream="{upstream}"'): f"{number}x10"
        for instance in ("g1", "g2")
        for upstream, number in (("http://a:8000", 3), ("http://b:8000", 4))
    }
    sidecars = {waiting % (here, pod, ""): "5x10" for pod in ("p1", "p2", "p3")}
    other = {waiting.replace("{%s", '{namespace="elsewhere"%.0s') % (here, "p9", ""): "99x10"}
    bucket = "vllm_request_time_to_first_token_seconds_bucket{%s, le=\"%s\", instance=\"p1\"}"
    # All within 1 s to 2.5 s: the P95 is at 95 % of that bucket.
    slow = {bucket % (here, le): f"0+{step}x10" for le, step in (("1", 0), ("2.5", 60), ("+Inf", 60))}
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            # Two gateways see the same two vLLMs.
            case({**gateways, **other}, 7, 0),
            case({**sidecars, **other, **slow}, 15, 2.425),
            # Behind both, what waits in front counts once, with the sidecars' own names left out.
            case({**gateways, **sidecars}, 7, 0),
            # Nothing there: no value, so that the fallback speaks, rather than a queue of zero.
            case(other, None, 0),
        ],
    }
    (folder / "test.yaml").write_text(yaml.safe_dump(test))
    run(promtool(version), "test", "rules", folder / "test.yaml")


# === With the real program


def binary():
    folders = [os.environ.get("TGTEST_BIN"), ROOT / "target/release/tokenglass", ROOT / "target/debug/tokenglass"]
    for path in filter(None, folders):
        if pathlib.Path(path).exists():
            return pathlib.Path(path)
    pytest.skip("tokenglass is not built")


def takes(text, folder, environment=None):
    """Whether the program takes the configuration, beside that environment."""
    file = folder / "tokenglass.toml"
    file.write_text(text, encoding="utf-8")
    command = [binary(), "validate", "--config", file]
    done = subprocess.run(command, env=os.environ | (environment or {}), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("which", [each for each in BUILDS if "sidecar" not in each and "injector" not in each])
def test_the_program_takes_the_configuration(built, which, tmp_path):
    texts = manifests.configurations(built(which))
    assert texts
    for text in texts:
        takes(text, tmp_path)


@pytest.mark.parametrize("which", ["overlays/sidecar", "overlays/dev"])
def test_the_program_takes_the_environment(built, which):
    found = [
        each for _, _, spec in pods(built(which)) for each in containers(spec) if each["name"] == "tokenglass" and "env" in each
    ]
    assert found
    for each in found:
        environment = {variable["name"]: variable["value"] for variable in each["env"]}
        done = subprocess.run([binary(), "validate"], env=os.environ | environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        wrong = environment | {"TOKENGLASS_SHUTDOWN__NO_SUCH_KEY": "1"}
        assert subprocess.run([binary(), "validate"], env=os.environ | wrong, capture_output=True).returncode == 78


def offers(command):
    """What the program says of the command."""
    shown = subprocess.run([binary(), command, "--help"], capture_output=True, text=True)
    if "unrecognized subcommand" in shown.stderr:
        pytest.skip(f"the program has no {command} yet")
    return shown.stdout


def test_the_webhook_is_scraped_as_a_job_of_its_own(built):
    """TokenglassDown is about the request path, which the webhook is not in."""
    (monitor,) = of(built("full/injector"), "ServiceMonitor")
    assert of(built("overlays/injector"), "ServiceMonitor") == []
    (scrape,) = monitor["spec"]["endpoints"]
    jobs = [each["replacement"] for each in scrape["relabelings"] if each["targetLabel"] == "job"]
    assert jobs == [THRESHOLDS["scope"]["injector_job"]]


def test_the_program_takes_the_webhooks_arguments(built):
    things = built("overlays/injector")
    (container,) = [each for _, _, spec in pods(things) for each in containers(spec)]
    command, *flags = container["args"]
    shown = offers(command)
    for flag in flags:
        assert flag.split("=")[0] in shown
    # Which sidecars it makes: those of its own version.
    assert f"--image={container['image']}" in flags


def test_the_program_makes_the_sidecar():
    offers("inject")
    folder = DEPLOY / "kubernetes/overlays/sidecar"
    assert run(binary(), "inject", "-f", folder / "vllm.yaml") == (folder / "injected.yaml").read_text(encoding="utf-8")
