"""What is in deploy/ and docs/, and the programs that it is held against."""

import functools
import os
import pathlib
import subprocess
import tomllib

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules"
RUNBOOKS = ROOT / "docs" / "runbooks"
PROGRAMS = pathlib.Path(os.environ.get("PROMETHEUS_DIR", pathlib.Path.home() / ".cache/tokenglass/prometheus"))
VERSIONS = ["new", "old"]
THRESHOLDS = tomllib.loads((DEPLOY / "thresholds.toml").read_text(encoding="utf-8"))


def promtool(version):
    return PROGRAMS / version / "bin" / "promtool"


def amtool(version):
    return PROGRAMS / f"alertmanager-{version}" / "bin" / "amtool"


def alertmanager(version):
    return PROGRAMS / f"alertmanager-{version}" / "bin" / "alertmanager"


def run(*command, timeout=240):
    """Its output. Fails with it, if it fails."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done.stdout


@functools.cache
def groups():
    """Every group of every rule file."""
    return [group for path in sorted(RULES.glob("*.yaml")) for group in yaml.safe_load(path.read_text())["groups"]]


def rules():
    return [rule for group in groups() for rule in group["rules"]]


def alerts():
    return [rule for rule in rules() if "alert" in rule]


def names():
    return sorted({rule["alert"] for rule in alerts()})


@functools.cache
def cases():
    """Every case of an alert, of every file for promtool."""
    files = sorted((ROOT / "tests/deploy/rules").glob("*.yaml"))
    every = [test for path in files for test in yaml.safe_load(path.read_text())["tests"]]
    return [test for test in every if "alert_rule_test" in test]
