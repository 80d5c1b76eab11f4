"""deploy/helm: the chart, rendered by Helm's own engine with several values files and held against what holds of any manifest.
These are its unit tests; helm test, in a cluster, runs the program's own validation."""

import copy
import functools
import json
import re
import sys
import tarfile

import jsonschema
import manifests
import pytest
import tomllib
import yaml
from deployed import DEPLOY, ROOT, VERSIONS, groups, promtool, run
from helm_python import Chart, HelmError, lint, package
from manifests import KUBERNETES, VERSION, containers, load, name, namespace, of, pods
from test_kubernetes import by_name, scaling, takes

CHART = DEPLOY / "helm/tokenglass"
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
VALUES = {path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text()) for path in CHART.glob("ci/*-values.yaml")}
# What those values say is there already.
OUTSIDE = {
    "single": ("ServiceAccount/existing", "Secret/injector-tls"),
    "everything": ("Deployment/vllm",),
}
EVERYTHING = VALUES["everything"]


@functools.cache
def chart():
    return Chart.load(str(CHART))


def render(values, **options):
    """Text by template."""
    options = {"name": "rel", "namespace": "vllm"} | options
    made = chart().render(values, **options)
    return {path.split("/templates/")[1]: text for path, text in made.items()}


def objects(values, **options):
    return copy.deepcopy(read(json.dumps(values), json.dumps(options)))


@functools.cache
def read(values, options):
    made = render(json.loads(values), **json.loads(options))
    return [each for path, text in made.items() if path.endswith(".yaml") for each in load(text)]


def merged(*every):
    made = {}
    for values in every:
        for key, value in values.items():
            both = isinstance(value, dict) and isinstance(made.get(key), dict)
            made[key] = merged(made[key], value) if both else value
    return made


@pytest.fixture(params=sorted(VALUES))
def case(request):
    return request.param


def test_there_are_enough_of_them():
    assert len(VALUES) >= 4


@pytest.mark.parametrize("version", KUBERNETES)
def test_schemas(case, version):
    assert manifests.invalid(objects(VALUES[case]), version) == []


def test_pod_security_restricted(case):
    found = {name(thing): manifests.unrestricted(spec) for thing, _, spec in pods(objects(VALUES[case]))}
    assert found and not any(found.values()), found


def test_what_is_named_is_there(case):
    things = objects(VALUES[case])
    assert manifests.dangling(things, OUTSIDE.get(case, ())) == []
    assert manifests.hurried(things) == []
    assert [each for thing, _, spec in pods(things) for each in manifests.untidy(thing, spec)] == []


def test_labels(case):
    """Every object says what it is of."""
    for thing in objects(VALUES[case]):
        if thing["metadata"]["name"] in ("rel-extra", "rel-tokenglass-text"):
            continue
        labels = thing["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "rel", name(thing)
        assert labels["app.kubernetes.io/version"] == VERSION
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels.get("release") == VALUES[case].get("additionalLabels", {}).get("release")
        if thing["kind"] not in manifests.CLUSTER | {"Role", "RoleBinding"}:
            assert namespace(thing) == "vllm", name(thing)


def test_lint(case, tmp_path):
    assert severe(lint(str(CHART), VALUES[case], strict=True, namespace="vllm")) == []


def test_lint_would_say_so(tmp_path):
    assert severe(lint(str(CHART), {"gateway": {"replicas": "two"}}, strict=True))


def severe(report):
    # 1 is a remark: there is no icon.
    return [each for each in report["messages"] if each["severity"] > 1] + report["errors"]


@pytest.mark.parametrize("release", ["tokenglass", "a" * 53, "1st"])
def test_names_are_short_enough_and_differ_by_release(release):
    things = objects(EVERYTHING, name=release)
    assert all(len(each["metadata"]["name"]) <= 63 for each in of(things, "Service", "Deployment"))
    assert manifests.dangling(things, OUTSIDE["everything"]) == []
    assert all(manifests.invalid([each], KUBERNETES[0]) == [] for each in of(things, "Deployment", "Service"))
    if release == "tokenglass":
        assert {each["metadata"]["name"] for each in of(things, "Deployment")} == {"tokenglass", "tokenglass-injector"}


# === What is switched


SWITCHES = {
    "gateway": ("Deployment", "rel-tokenglass"),
    "injector": ("MutatingWebhookConfiguration", "rel-tokenglass-injector.vllm"),
    "serviceMonitor": ("ServiceMonitor", "rel-tokenglass"),
    "podMonitor": ("PodMonitor", "rel-tokenglass"),
    "prometheusRule": ("PrometheusRule", "rel-tokenglass"),
    "dashboards": ("ConfigMap", "rel-tokenglass-gpu-overview"),
    "networkPolicy": ("NetworkPolicy", "rel-tokenglass"),
    "keda": ("ScaledObject", "vllm"),
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_switches(switch):
    def there(values):
        return SWITCHES[switch] in {(each["kind"], each["metadata"]["name"]) for each in objects(merged(EVERYTHING, values))}

    assert there({switch: {"enabled": True}})
    assert not there({switch: {"enabled": False}})


def test_each_part_stands_alone():
    nothing = {switch: {"enabled": False} for switch in SWITCHES}
    assert objects(nothing) == []
    for switch in set(SWITCHES) - {"serviceMonitor", "networkPolicy", "keda"}:
        things = objects(merged(nothing, {switch: {"enabled": True}}))
        assert things and manifests.dangling(things) == [], switch


def test_auto_is_where_the_cluster_has_it():
    # Rendered without one, Helm knows only what Kubernetes has itself.
    kinds = {each["kind"] for each in objects({"podMonitor": {"enabled": "auto"}, "keda": {"enabled": "auto"}})}
    assert not kinds & set(manifests.CRDS)
    text = (CHART / "templates/_helpers.tpl").read_text() + "".join(path.read_text() for path in CHART.glob("templates/*.yaml"))
    assert text.count("Capabilities.APIVersions.Has") == 1
    for api in ("monitoring.coreos.com/v1", "keda.sh/v1alpha1"):
        assert f'"api" "{api}"' in text


def test_a_budget_and_a_scaler_can_be_left_out():
    off = {"gateway": {"pdb": {"enabled": False}, "autoscaling": {"enabled": False}}, "injector": {"pdb": {"enabled": False}}}
    kinds = [each["kind"] for each in objects(merged(EVERYTHING, off))]
    assert "PodDisruptionBudget" not in kinds and "HorizontalPodAutoscaler" not in kinds
    (gateway,) = [each for each in of(objects({}), "Deployment")]
    assert gateway["spec"]["replicas"] == 2


# === Values that end up somewhere


def test_the_image():
    def image(values):
        return {each["image"] for _, _, spec in pods(objects(merged(EVERYTHING, {"image": values}))) for each in containers(spec)}

    assert image({}) == {f"ghcr.io/tokenglass/tokenglass:{VERSION}"}
    assert image({"repository": "mine/it", "tag": "7"}) == {"mine/it:7"}
    digest = "sha256:" + "a" * 64
    assert image({"tag": "7", "digest": digest}) == {f"ghcr.io/tokenglass/tokenglass@{digest}"}


def test_the_versions_are_the_programs():
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about["appVersion"] == VERSION
    # Native sidecars.
    assert about["kubeVersion"] == ">=1.29.0-0"


def test_rights_are_given_where_something_is_followed():
    things = objects(EVERYTHING)
    assert sorted(namespace(role) for role in of(things, "Role")) == ["models", "vllm"]
    for role in of(things, "Role"):
        assert role["rules"] == [
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}
        ]
    none = objects(VALUES["dns"])
    assert of(none, "Role", "RoleBinding") == []
    (gateway,) = of(none, "Deployment")
    assert gateway["spec"]["template"]["spec"]["automountServiceAccountToken"] is False


def test_a_changed_configuration_rolls_the_pods():
    def stamp(values):
        (gateway,) = of(objects(values), "Deployment")
        return gateway["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert stamp({}) == stamp({"serviceMonitor": {"enabled": True}})
    assert stamp({}) != stamp({"config": {"log": {"level": "debug"}}})


def test_labels_of_ones_own_do_not_break_a_selector():
    odd = {"app.kubernetes.io/name": "mine", "app.kubernetes.io/component": "mine", "team": "x"}
    values = merged(EVERYTHING, {"additionalLabels": odd, "gateway": {"podLabels": odd}})
    things = objects(values)
    assert manifests.dangling(things, OUTSIDE["everything"]) == []
    assert all(each["metadata"]["labels"]["team"] == "x" for each in of(things, "Deployment", "Service"))


def test_what_one_adds_is_rendered():
    extra = {each["metadata"]["name"]: each["data"] for each in objects(EVERYTHING) if each["metadata"]["name"].endswith(("-extra", "-text"))}
    assert extra == {"rel-extra": {"upstream": "vllm"}, "rel-tokenglass-text": {"gateway": "true"}}


def test_certificates():
    def parts(tls):
        things = objects({"injector": {"enabled": True, "tls": tls}})
        (hook,) = of(things, "MutatingWebhookConfiguration")
        return things, hook, {each["clientConfig"].get("caBundle") for each in hook["webhooks"]}

    things, hook, bundles = parts({})
    # An upgrade would take out what cert-manager has written.
    assert bundles == {None} and len(of(things, "Certificate")) == 1 and not of(things, "Secret")
    things, hook, bundles = parts({"mode": "generate"})
    (secret,) = of(things, "Secret")
    assert bundles == {secret["data"]["ca.crt"]} and not of(things, "Certificate")
    assert "annotations" not in hook["metadata"]
    things, hook, bundles = parts({"mode": "existing", "existingSecret": "mine", "caBundle": "YQ=="})
    assert bundles == {"YQ=="} and not of(things, "Certificate", "Secret")


# === The configuration


def test_the_program_takes_the_configuration(case, tmp_path):
    things = objects(VALUES[case])
    # Secrets come from the environment.
    secret = {each["name"]: "s" * 32 for each in VALUES[case].get("gateway", {}).get("extraEnv", [])}
    for text in manifests.configurations(things):
        takes(text, tmp_path, secret)


def test_the_configuration_is_what_the_values_say():
    config = {
        "server": {"workers": 3, "max_body_bytes": "16MiB", "max_connections": 1000000},
        "gateway": {"discover": ["dns:http://{{ .Release.Name }}:8000"], "affinity": 'a "quoted" \\ <name> ü'},
        "admin": {"allow_remote": True},
        "upstream": {"url": []},
        "tokens": {"model": [{"name": ["qwen3", 'odd"one'], "tokenizer": "/models/qwen3"}]},
        "gpu": None,
    }
    (text,) = manifests.configurations(objects({"config": config}))
    made = tomllib.loads(text)
    assert "gpu" not in made
    wanted = {key: value for key, value in config.items() if value is not None}
    wanted["gateway"] = wanted["gateway"] | {"discover": ["dns:http://rel:8000"]}
    assert {key: made[key] for key in wanted} == wanted
    assert isinstance(made["server"]["max_connections"], int)
    # And what the chart says itself.
    assert made["shutdown"] == {"ready_delay": "10s", "drain_timeout": "5m"}


def test_the_defaults_are_those_of_the_kustomize_base():
    """But for where vLLM is: the two cannot drift apart in the rest."""
    (ours,) = [tomllib.loads(text) for text in manifests.configurations(objects({}))]
    theirs = tomllib.loads((DEPLOY / "kubernetes/overlays/gateway/tokenglass.toml").read_text(encoding="utf-8"))
    ours["gateway"] = theirs["gateway"]
    assert ours == theirs


def test_so_are_the_pods():
    base = load((DEPLOY / "kubernetes/base/deployment.yaml").read_text())[0]["spec"]["template"]["spec"]
    (made,) = of(objects({}), "Deployment")
    made = made["spec"]["template"]["spec"]
    same = ("terminationGracePeriodSeconds", "enableServiceLinks", "securityContext")
    assert {key: made[key] for key in same} == {key: base[key] for key in same}
    (ours,), (theirs,) = made["containers"], base["containers"]
    assert {key: value for key, value in ours.items() if key != "imagePullPolicy"} == theirs


def test_so_is_the_injector():
    def of_folder(which):
        return load((DEPLOY / f"kubernetes/components/injector/{which}.yaml").read_text())

    made = objects({"injector": {"enabled": True}})
    (ours,), (theirs,) = of(made, "MutatingWebhookConfiguration"), of_folder("webhook")
    text = json.dumps(theirs["webhooks"]).replace("tokenglass-system", "vllm")
    text = text.replace('"name": "tokenglass-injector"', '"name": "rel-tokenglass-injector"')
    assert ours["webhooks"] == json.loads(text)
    (ours,) = [each for each in of(made, "Deployment") if each["metadata"]["name"] == "rel-tokenglass-injector"]
    (ours,), (theirs,) = (each["spec"]["template"]["spec"]["containers"] for each in (ours, *of_folder("deployment")))
    assert {key: value for key, value in ours.items() if key != "imagePullPolicy"} == theirs


def test_the_injectors_monitor_is_that_of_the_component():
    made = objects({"injector": {"enabled": True}, "serviceMonitor": {"enabled": True}, "gateway": {"enabled": False}})
    (ours,) = of(made, "ServiceMonitor")
    (theirs,) = load((DEPLOY / "kubernetes/components/injector/monitoring/servicemonitor.yaml").read_text())
    assert ours["metadata"]["name"] == "rel-tokenglass-injector"
    assert ours["spec"]["endpoints"] == theirs["spec"]["endpoints"]
    off = objects({"injector": {"enabled": False}, "serviceMonitor": {"enabled": True}})
    assert [each["metadata"]["name"] for each in of(off, "ServiceMonitor")] == ["rel-tokenglass"]


# === Rules, dashboards, scaling


def test_rules_and_dashboards_are_those_of_their_folders():
    things = objects(EVERYTHING)
    (rule,) = of(things, "PrometheusRule")
    assert by_name(rule["spec"]["groups"]) == by_name(groups())
    found = {}
    for each in of(things, "ConfigMap"):
        if each["metadata"].get("labels", {}).get("grafana_dashboard") == "1":
            found |= {key: json.loads(value) for key, value in each["data"].items()}
    assert found == {path.name: json.loads(path.read_text()) for path in (DEPLOY / "grafana/dashboards").glob("*.json")}


def test_a_package_has_them_and_not_the_links(tmp_path):
    file = package(str(CHART), destination=str(tmp_path))
    with tarfile.open(file) as archive:
        members = {member.name: member for member in archive.getmembers()}
        assert all(member.isfile() for member in members.values())
        for folder, place in (("rules", "prometheus/rules"), ("dashboards", "grafana/dashboards")):
            for path in (DEPLOY / place).glob("*.*"):
                text = archive.extractfile(members[f"tokenglass/files/{folder}/{path.name}"]).read()
                assert text == path.read_bytes(), path
    # What Helm keeps of a release, templates and all, has to fit into a Secret of 1 MiB.
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 300_000


@pytest.mark.parametrize("version", VERSIONS)
def test_promtool_takes_the_rules(tmp_path, version):
    (rule,) = of(objects(EVERYTHING), "PrometheusRule")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
    run(promtool(version), "check", "rules", "--lint=all", "--lint-fatal", tmp_path / "rules.yaml")


@pytest.mark.parametrize("version", VERSIONS)
def test_what_vllm_is_scaled_by(tmp_path, version):
    (scaled,) = of(objects(EVERYTHING, namespace="prod"), "ScaledObject")
    scaling(scaled, "prod", tmp_path, version)
    (component,) = load((DEPLOY / "kubernetes/components/autoscaling-vllm/scaledobject.yaml").read_text())
    (ours,) = of(objects(merged(EVERYTHING, {"keda": {"waitingPerReplica": 5}})), "ScaledObject")
    assert ours["spec"] == component["spec"]


# === Values


def test_the_defaults_fit_the_schema_and_the_schema_knows_no_more():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    chart().validate_schema(values)

    def compare(schema, values, place):
        if "$ref" in schema:
            schema = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]]
        if "properties" not in schema or place == "config":
            return
        assert schema["additionalProperties"] is False, place
        # Of a part that another chart brings; of what Kubernetes knows and nobody sets.
        known = set(schema["properties"]) - {"global", "claims"}
        if place.rsplit(".", 1)[-1] != "resources":
            assert known == set(values), place
        for key in values:
            compare(schema["properties"][key], values[key], f"{place}.{key}".strip("."))

    compare(SCHEMA, values, "")


WRONG = [
    {"replicas": 2},
    {"gateway": {"replica": 2}},
    {"gateway": {"replicas": "2"}},
    {"gateway": {"replicas": -1}},
    {"gateway": {"service": {"type": "ExternalName"}}},
    {"gateway": {"service": {"port": 70000}}},
    {"gateway": {"autoscaling": {"minReplicas": 0}}},
    {"gateway": {"podLabels": {"a": True}}},
    {"gateway": {"extraEnv": {"A": "b"}}},
    {"gateway": {"resources": {"request": {}}}},
    {"config": {"sever": {}}},
    {"config": {"server": {"worker": 2}}},
    {"config": {"server": {"workers": "two"}}},
    {"config": {"admin": {"allow_remote": "yes"}}},
    {"config": {"gateway": {"discover": {"a": 1}}}},
    {"image": {"digest": "abc"}},
    {"image": {"pullPolicy": "Sometimes"}},
    {"serviceMonitor": {"enabled": "yes"}},
    {"serviceMonitor": {"interval": 15}},
    {"dashboards": {"enabled": "auto"}},
    {"injector": {"failurePolicy": "Perhaps"}},
    {"injector": {"timeoutSeconds": 60}},
    {"injector": {"tls": {"mode": "existing"}}},
    {"injector": {"tls": {"mode": "self-signed"}}},
    {"keda": {"target": {"names": "vllm"}}},
    {"keda": {"prometheusAddress": "prometheus:9090"}},
    {"extraObjects": ["a", 1]},
    {"nameOverride": "a" * 60},
]


@pytest.mark.parametrize("values", WRONG, ids=json.dumps)
def test_wrong_values_are_refused(values):
    with pytest.raises(HelmError):
        render(values)


def test_the_schema_of_config_is_generated():
    run(sys.executable, DEPLOY / "helm/generate.py", "--check")
    known = tomllib.loads((ROOT / "config/tokenglass.toml").read_text(encoding="utf-8"))
    sections = SCHEMA["$defs"]["config"]["properties"]
    for section, keys in known.items():
        assert set(sections[section]["properties"]) == set(keys), section
    # The whole file as values: every default has a type that the schema takes, and comes out as it went in.
    (text,) = manifests.configurations(objects({"config": known}))
    made = tomllib.loads(text)
    assert {section: made[section] for section in known} == known


# === What is said at the end


def test_notes_are_short_and_name_what_is_there():
    for case, values in VALUES.items():
        text = render(values)["NOTES.txt"]
        assert len(text.splitlines()) < 25
        assert "{{" not in text and "<no value>" not in text
        things = {(each["kind"].lower(), each["metadata"]["name"]) for each in objects(values)}
        for kind, what in re.findall(r"(deployment|service)/([\w-]+)", text):
            assert (kind, what) in things or what == "VLLM", (case, kind, what)
        assert ("Nothing scrapes it yet" in text) == (
            values.get("gateway", {}).get("enabled", True) and values.get("serviceMonitor", {}).get("enabled") is not True
        )
