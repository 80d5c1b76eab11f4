"""The rules: generated, valid, and each alert shown to fire and not to."""

import re
import sys

import pytest
import yaml
from deployed import DEPLOY, ROOT, RULES, THRESHOLDS, VERSIONS, alerts, cases, groups, names, promtool, rules, run

CATALOGUE = (ROOT / "docs/metrics-catalog.md").read_text(encoding="utf-8")
# Of kube-state-metrics and Prometheus itself.
FOREIGN = {"kube_pod_container_status_restarts_total", "kube_pod_container_status_last_terminated_reason", "up"}
LAYERS = {"gpu": "Gpu", "inference": "Vllm", "business": "Requests", "gateway": "Gateway", "meta": "Tokenglass"}
DASHBOARDS = {
    "gpu": "tokenglass-gpu",
    "inference": "tokenglass-inference",
    "business": "tokenglass-requests",
    "gateway": "tokenglass-gateway",
    "meta": "tokenglass-requests",
}


def metric_names(expression):
    """Names of raw metrics in it: what is recorded has a level before its name."""
    found = re.findall(r"(?<![\w:])(?:vllm[:_]|tokenglass_|DCGM_|process_|kube_)\w+", expression)
    return {name for name in found if name != "tokenglass"}


def in_catalogue(name):
    if name in FOREIGN or f"`{name}`" in CATALOGUE:
        return True
    return any(f"`{name.removesuffix(end)}`" in CATALOGUE for end in ("_bucket", "_count", "_sum") if name.endswith(end))


def test_what_is_checked_in_is_what_is_generated():
    run(sys.executable, DEPLOY / "prometheus/generate", "--check")
    run(sys.executable, ROOT / "tests/deploy/cases", "--check")


def test_the_manifest_has_the_same_groups():
    manifest = yaml.safe_load((DEPLOY / "prometheus/prometheusrule.yaml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    made = {group["name"]: group for group in manifest["spec"]["groups"]}
    assert made == {group["name"]: group for group in groups()}
    assert len(made) == len(manifest["spec"]["groups"])


def test_the_yaml_says_what_the_generator_means(monkeypatch):
    """Its own small writer of YAML, against PyYAML as reader."""
    monkeypatch.syspath_prepend(str(DEPLOY / "prometheus/generate"))
    import emit

    odd = {"a": "no", "b": ["5m", "x: y", '"', "°C", "{{ $v }}", "two\nlines [5m]", "#"], "c": {"d": 1, "e": True, "f": "1"}}
    assert yaml.safe_load(emit.document(odd, "note")) == odd
    for name in ("recording", "gpu", "inference", "business", "gateway", "meta"):
        module = __import__(name)
        assert yaml.safe_load((RULES / f"{name}.yaml").read_text()) == {"groups": module.groups()}


@pytest.mark.parametrize("version", VERSIONS)
def test_promtool_takes_the_rules(version):
    lint = ["--lint=all", "--lint-fatal"]
    run(promtool(version), "check", "rules", *lint, *sorted(RULES.glob("*.yaml")))


@pytest.mark.parametrize("version", VERSIONS)
def test_promtool_takes_the_example(version, tmp_path):
    example = DEPLOY / "prometheus/prometheus.yml"
    run(promtool(version), "check", "config", example)
    # With what is commented out, in place of the static target. Debian's old one is built without Kubernetes.
    text = example.read_text(encoding="utf-8")
    parts = {"new": ("  - job_name: tokenglass\n", "  # In Kubernetes"), "old": ("  # In Kubernetes", "  # For VllmPodRestarts")}
    begin, end = (text.index(part) for part in parts[version])
    cut = text[:begin] + text[end:]
    (tmp_path / "prometheus.yml").write_text(re.sub(r"(?m)^#(?=  )", "", cut))
    (tmp_path / "rules").symlink_to(RULES)
    run(promtool(version), "check", "config", tmp_path / "prometheus.yml")


@pytest.mark.parametrize("file", ["recording", *LAYERS])
@pytest.mark.parametrize("version", VERSIONS)
def test_cases(version, file):
    run(promtool(version), "test", "rules", ROOT / f"tests/deploy/rules/{file}.yaml")


def ends(checks):
    """Whether something fires at one time and is gone at a later one."""
    pairs = zip(checks, checks[1:], strict=False)
    later = [(before["exp_alerts"], [alert["exp_labels"] for alert in after["exp_alerts"]]) for before, after in pairs]
    return any(alert["exp_labels"] not in after for before, after in later for alert in before)


@pytest.mark.parametrize("name", names())
def test_each_alert_is_shown_to_fire_and_not_to(name):
    mine = [test for test in cases() if any(check["alertname"] == name for check in test["alert_rule_test"])]
    assert len(mine) >= 3
    checks = [check for test in mine for check in test["alert_rule_test"]]
    assert any(not any(check["exp_alerts"] for check in test["alert_rule_test"]) for test in mine), "never quiet"
    assert any(check["exp_alerts"] for check in checks), "never fires"
    for rule in (rule for rule in alerts() if rule["alert"] == name):
        wanted = rule["labels"].items()
        fired = [alert for check in checks for alert in check["exp_alerts"] if wanted <= alert["exp_labels"].items()]
        assert fired, f"the rule of {dict(wanted)} never fires"
    assert any(ends(test["alert_rule_test"]) for test in mine), "never resolves"


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: f"{rule['alert']}-{'-'.join(rule['labels'].values())}")
def test_labels_and_annotations(rule):
    labels, notes = rule["labels"], rule["annotations"]
    assert labels["severity"] in {"critical", "warning"}
    assert rule["alert"].startswith(LAYERS[labels["layer"]])
    assert set(notes) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert re.fullmatch(r"([A-Z]|vLLM|tokenglass)[^{}]*[^{}.]", notes["summary"])
    assert "{{" in notes["description"] and notes["description"].removesuffix("{{ end }}").endswith(".")
    assert notes["runbook_url"] == f"{THRESHOLDS['urls']['runbooks']}/{rule['alert']}.md"
    assert notes["dashboard_url"] == f"{THRESHOLDS['urls']['dashboards']}/d/{DASHBOARDS[labels['layer']]}"
    # A scrape that fails once does not page.
    assert "for" in rule or "increase" in rule["expr"] or rule["alert"] in {"GpuEccDoubleBit", "GpuXidCritical"}


def test_recorded_names():
    recorded = [rule["record"] for rule in rules() if "record" in rule]
    assert all(re.fullmatch(r"(model|engine|gpu):[a-z0-9_]+:[a-z0-9_]+", name) for name in recorded)
    used = {name for rule in alerts() for name in re.findall(r"\b(?:model|engine|gpu):\w+:\w+", rule["expr"])}
    assert used <= set(recorded)
    assert {f"model:slo_errors:ratio_rate{window}" for window in ("5m", "30m", "1h", "2h", "6h", "1d", "3d")} <= set(recorded)


def test_every_metric_exists():
    missing = {name for rule in rules() for name in metric_names(rule["expr"]) if not in_catalogue(name)}
    assert not missing


def test_every_alert_has_its_thresholds_and_the_reverse():
    there = {(rule["alert"], rule["labels"]["severity"]) for rule in alerts() if "window" not in rule["labels"]}
    listed = {(name, severity) for name, table in THRESHOLDS["alerts"].items() for severity in table}
    assert there == listed


def edges(name):
    """Of a family of histograms, as the program has them."""
    source = (ROOT / "src/metrics/buckets.rs").read_text(encoding="utf-8")
    ((body),) = re.findall(rf"pub const {name}: &\[f64\] = &\[(.*?)\];", source, re.DOTALL)
    return [float(number.replace("_", "")) for number in body.split(",") if number.strip()]


def test_latencies_are_bucket_edges():
    limits = THRESHOLDS["alerts"]
    assert THRESHOLDS["slo"]["ttft"]["seconds"] in edges("TTFT")
    assert THRESHOLDS["slo"]["tpot"]["seconds"] in edges("ITL")
    assert limits["VllmTtftP95High"]["warning"]["above"] in edges("TTFT")
    assert limits["VllmInterTokenLatencyHigh"]["warning"]["above"] in edges("ITL")
    assert limits["VllmLatencyP99High"]["warning"]["above"] in edges("DURATION")
    assert limits["VllmHealthCheckSlow"]["warning"]["above"] in edges("PROBE")
    assert limits["TokenglassOverheadHigh"]["warning"]["above"] in edges("OVERHEAD")


def test_faults_that_count_are_real_ones():
    """And none of those that a client has to answer for."""
    source = (ROOT / "src/outcome.rs").read_text(encoding="utf-8")
    known = set(re.findall(r'=> "(\w+)"', source[source.index("labels!(ErrorType") :].split("});", 1)[0]))
    faults = set(THRESHOLDS["slo"]["availability"]["error_types"])
    clients = {
        "bad_request", "context_length_exceeded", "unauthorized", "forbidden", "model_not_found", "not_found",
        "payload_too_large", "unprocessable", "rate_limited", "client_error", "proxy_rejected",
    }
    assert faults | clients == known
    assert not faults & clients
    named = re.findall(r'error_type=~?"([^"]+)"', " ".join(rule["expr"] for rule in rules()))
    assert {kind for matcher in named for kind in matcher.split("|")} <= known


def test_short_windows_are_a_twelfth():
    """SRE workbook, table 5-8."""
    minutes = {"5m": 5, "30m": 30, "1h": 60, "6h": 360, "3d": 4320}
    for burn in (value for value in THRESHOLDS["slo"]["burn"].values()):
        assert minutes[burn["long"]] == 12 * minutes[burn["short"]]


def test_an_edge_matches_as_it_is_exposed(monkeypatch):
    """1 as the text format has it and Prometheus 2 keeps it, 1.0 as OpenMetrics and Prometheus 3 have it; and no other edge."""
    monkeypatch.syspath_prepend(str(DEPLOY / "prometheus/generate"))
    from promql import edge

    def matches(seconds, text):
        pattern = edge(seconds).removeprefix('le=~"').removesuffix('"').replace("\\\\", "\\")
        return re.fullmatch(pattern, text) is not None

    assert matches(1.0, "1") and matches(1.0, "1.0") and not matches(1.0, "10") and not matches(1.0, "1.5")
    assert matches(2.5, "2.5") and not matches(2.5, "205") and not matches(2.5, "2")
