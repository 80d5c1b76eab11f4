"""A real Prometheus that scrapes one target, and promtool."""

import json
import math
import os
import pathlib
import socket
import subprocess
import time
import urllib.parse
import urllib.request

from support import eventually

ROOT = pathlib.Path(os.environ.get("PROMETHEUS_DIR", "/nonexistent"))
CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: tokenglass
    static_configs: [{{targets: ["{target}"]}}]
"""


class Prometheus:
    def __init__(self, version, target, folder):
        (folder / "prometheus.yml").write_text(CONFIG.format(target=target))
        with socket.create_server(("127.0.0.1", 0)) as held:
            address = f"127.0.0.1:{held.getsockname()[1]}"
        self.url = f"http://{address}"
        self.log = folder / "log"
        command = [
            ROOT / version / "bin" / "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            eventually(self.is_ready, 30, "Prometheus is ready", 0.1)
        except AssertionError:
            self.stop()
            raise

    def is_ready(self):
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def get(self, path, **arguments):
        with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(arguments)}", timeout=20) as answer:
            document = json.load(answer)
        assert document["status"] == "success", document
        return document["data"]

    def query(self, text):
        """The samples of an instant query: (labels, value) each."""
        data = self.get("/api/v1/query", query=text)
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

    def numbers(self, text):
        """Those that are numbers."""
        return [sample for sample in self.query(text) if not math.isnan(sample[1])]

    def targets(self):
        return self.get("/api/v1/targets")["activeTargets"]

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def check_metrics(version, text):
    """What `promtool check metrics` complains about."""
    command = [ROOT / version / "bin" / "promtool", "check", "metrics"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert complaints or done.returncode == 0, done
    return complaints


def wait_scrapes(source, count):
    """Waits until so many more scrapes have been made."""
    before = source.query("count_over_time(up[1h])")
    begun = before[0][1] if before else 0
    end = time.monotonic() + 60
    while time.monotonic() < end:
        now = source.query("count_over_time(up[1h])")
        if now and now[0][1] >= begun + count:
            return
        time.sleep(0.2)
    raise AssertionError(f"no {count} scrapes in a minute: {source.targets()}")
