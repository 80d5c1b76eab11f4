"""Routing: valid with and without its examples, to whom what goes, and what silences what."""

import datetime
import json
import re
import socket
import subprocess
import time
import urllib.request

import pytest
import yaml
from deployed import DEPLOY, VERSIONS, alertmanager, amtool, run

CONFIG = DEPLOY / "alertmanager/alertmanager.yml"
ROUTES = [
    ({"alertname": "GpuTemperatureHigh", "severity": "warning"}, "default"),
    ({"alertname": "GpuTemperatureHigh", "severity": "critical"}, "default,critical"),
    ({"alertname": "VllmServiceDown", "severity": "critical", "layer": "inference"}, "default,critical"),
    ({"alertname": "RequestsTtftBudgetBurn", "severity": "warning", "window": "3d"}, "default"),
    ({"alertname": "SomebodyElses"}, "default"),
]


def with_examples(path):
    """The same file with every example taken out of its comment."""
    path.write_text(re.sub(r"(?m)^#(?=  )", "", CONFIG.read_text(encoding="utf-8")))
    return path


@pytest.mark.parametrize("version", VERSIONS)
def test_amtool_takes_it(version, tmp_path):
    run(amtool(version), "check-config", CONFIG)
    run(amtool(version), "check-config", with_examples(tmp_path / "alertmanager.yml"))


def test_the_examples_are_there(tmp_path):
    config = yaml.safe_load(with_examples(tmp_path / "alertmanager.yml").read_text())
    default, critical = config["receivers"]
    for receiver in (default, critical):
        assert {"webhook_configs", "slack_configs", "email_configs"} <= receiver.keys()
    urls = " ".join(hook["url"] for hook in critical["webhook_configs"])
    assert "dingtalk" in urls and "type=fs" in urls
    assert all(key.endswith("_file") for key in config["global"] if re.search("password|api_url", key))


def test_grouping():
    route = yaml.safe_load(CONFIG.read_text())["route"]
    wanted = ("default", ["alertname", "severity"], "30s", "5m", "4h")
    assert tuple(route[key] for key in ("receiver", "group_by", "group_wait", "group_interval", "repeat_interval")) == wanted


@pytest.mark.parametrize(("labels", "receivers"), ROUTES, ids=lambda value: value if isinstance(value, str) else None)
@pytest.mark.parametrize("version", VERSIONS)
def test_routes(version, labels, receivers):
    pairs = [f"{key}={value}" for key, value in labels.items()]
    out = run(amtool(version), "config", "routes", "test", f"--config.file={CONFIG}", *pairs)
    assert out.strip() == receivers


GPU = {"layer": "gpu", "instance": "a", "gpu": "0", "UUID": "GPU-0"}
HOT = GPU | {"alertname": "GpuTemperatureHigh"}
QUEUE = {"alertname": "VllmQueueLong", "layer": "inference", "severity": "warning", "instance": "a", "model": "llama"}
GATEWAY = {"layer": "gateway", "instance": "a"}
EJECTED = GATEWAY | {"alertname": "GatewayUpstreamEjected", "severity": "warning", "upstream": "a:8000"}
BURN = {"alertname": "RequestsTtftBudgetBurn", "layer": "business", "model": "llama", "slo": "ttft"}
SOURCES = [
    HOT | {"severity": "critical"},
    BURN | {"severity": "critical", "window": "1h"},
    {"alertname": "VllmServiceDown", "layer": "inference", "severity": "critical", "instance": "a"},
    GPU | {"alertname": "GpuLost", "severity": "critical", "UUID": "GPU-7"},
    GATEWAY | {"alertname": "GatewayNoUpstreamHealthy", "severity": "critical"},
]
# Alert, and whether one of the above silences it.
TARGETS = [
    (HOT | {"severity": "warning"}, True),
    (HOT | {"severity": "warning", "UUID": "GPU-1"}, False),
    (HOT | {"severity": "warning", "instance": "b"}, False),
    (GPU | {"alertname": "GpuMemoryNearlyFull", "severity": "warning"}, False),
    (GPU | {"alertname": "GpuResetNeeded", "severity": "warning", "UUID": "GPU-7"}, True),
    (GPU | {"alertname": "GpuXidCritical", "severity": "critical", "UUID": "GPU-7"}, False),
    (BURN | {"severity": "warning", "window": "3d"}, True),
    (BURN | {"severity": "critical", "window": "6h"}, False),
    (BURN | {"severity": "warning", "window": "3d", "model": "qwen"}, False),
    (QUEUE, True),
    (QUEUE | {"instance": "b"}, False),
    (EJECTED, True),
    (EJECTED | {"instance": "b"}, False),
    ({"alertname": "RequestsSuccessRateLow", "layer": "business", "severity": "warning", "model": "llama"}, False),
]


class Server:
    """A real Alertmanager with the configuration as it is shipped."""

    def __init__(self, version, folder):
        with socket.create_server(("127.0.0.1", 0)) as held:
            self.address = f"127.0.0.1:{held.getsockname()[1]}"
        self.log = folder / "log"
        command = [
            alertmanager(version),
            f"--config.file={CONFIG}",
            f"--storage.path={folder / 'data'}",
            f"--web.listen-address={self.address}",
            "--cluster.listen-address=",
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def ask(self, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://{self.address}/api/v2/alerts", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def eventually(self, what, seconds=30):
        end = time.monotonic() + seconds
        while True:
            try:
                return what()
            except (OSError, AssertionError):
                assert self.process.poll() is None, self.log.read_text()[-2000:]
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.mark.parametrize("version", VERSIONS)
def test_inhibition_for_real(version, tmp_path):
    server = Server(version, tmp_path)
    try:
        began = datetime.datetime.now(datetime.UTC).isoformat()
        posted = [{"labels": labels, "startsAt": began} for labels in [*SOURCES, *(labels for labels, _ in TARGETS)]]
        server.eventually(lambda: server.ask(posted))

        def silenced():
            state = {json.dumps(alert["labels"], sort_keys=True): alert["status"] for alert in server.ask()}
            assert len(state) == len(posted)
            for labels, expected in TARGETS:
                status = state[json.dumps(labels, sort_keys=True)]
                assert bool(status["inhibitedBy"]) == expected, labels
                assert (status["state"] == "suppressed") == expected, labels
            for labels in SOURCES:
                assert not state[json.dumps(labels, sort_keys=True)]["inhibitedBy"]

        server.eventually(silenced)
    finally:
        server.stop()
