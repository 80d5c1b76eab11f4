"""deploy/systemd: the unit is one that systemd takes, hardened, and in step with the program. Whether READY=1 comes is for
tests/it/notify.rs: no systemd runs where the tests do."""

import re
import shutil
import subprocess

import pytest
import tomllib
from deployed import DEPLOY, ROOT
from manifests import seconds

UNIT = DEPLOY / "systemd/tokenglass.service"
pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
LIMIT = 3.0


def settings():
    """Every value of each key."""
    found = {}
    for key, value in re.findall(r"(?m)^(\w+)=(.*)$", UNIT.read_text(encoding="utf-8")):
        found.setdefault(key, []).append(value)
    return found


def analyze(*arguments):
    return subprocess.run(["systemd-analyze", "--no-pager", *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture
def installed(tmp_path):
    """The unit, with a program that is there."""
    (program := tmp_path / "tokenglass").write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/tokenglass", str(program)))
    return unit


def test_verify(installed):
    done = analyze("verify", "--man=no", installed)
    assert (done.returncode, done.stderr) == (0, "")
    installed.write_text(installed.read_text().replace("RestartSec=", "RestartSecs="))
    assert "RestartSecs" in analyze("verify", "--man=no", installed).stderr


def exposure(unit):
    return float(re.search(r"exposure level for \S+: ([\d.]+)", analyze("security", "--offline=yes", unit).stdout)[1])


def test_it_is_hardened(tmp_path):
    assert exposure(UNIT) < LIMIT
    bare = tmp_path / "bare.service"
    bare.write_text("[Service]\nExecStart=/bin/true\n")
    assert exposure(bare) > 8


def test_what_it_must_still_be_able_to_do():
    found = settings()
    # GPUs by NVML.
    assert {each.split()[0] for each in found["DeviceAllow"]} >= {"char-nvidia", "char-nvidia-frontend", "char-nvidia-caps"}
    assert "PrivateDevices" not in found and "ProcSubset" not in found
    # Upstreams may be unix sockets.
    assert {"AF_INET", "AF_INET6", "AF_UNIX"} <= set(found["RestrictAddressFamilies"][0].split())
    assert int(found["LimitNOFILE"][0]) >= 65536


def test_it_ends_and_starts_as_the_program_does():
    found = settings()
    assert found["Type"] == ["notify"]
    assert found["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    shutdown = tomllib.loads((ROOT / "config/tokenglass.toml").read_text())["shutdown"]
    longest = seconds(shutdown["ready_delay"]) + seconds(shutdown["drain_timeout"])
    # With a ready_delay of 10 s set too.
    assert int(found["TimeoutStopSec"][0]) >= longest + 10 + 5
    # sysexits(3) EX_CONFIG.
    source = (ROOT / "src/cli/exit.rs").read_text()
    assert found["RestartPreventExitStatus"] == re.findall(r"const CONFIG: u8 = (\d+);", source)
    # The hardening leaves it what the kernel is asked for by its threads and sockets; more is refused, not fatal.
    assert found["SystemCallErrorNumber"] == ["EPERM"]


def test_the_environment_file_names_keys_that_exist():
    known = tomllib.loads((ROOT / "config/tokenglass.toml").read_text())
    named = re.findall(r"(?m)^#TOKENGLASS_(\w+)__(\w+)=\S+$", (DEPLOY / "systemd/tokenglass.env").read_text())
    assert len(named) >= 4
    for section, key in named:
        assert key.lower() in known[section.lower()]
