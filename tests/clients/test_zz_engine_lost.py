"""vLLM hung, killed, started again: /metrics always parses and says so, GPUs and traffic metrics go on. The last file,
since it takes away what all others need."""

import os
import pathlib
import signal
import subprocess
import threading
import time

import openai
import pytest

from support import HELLO, LONG, eventually, get_text

CONTROL = os.environ.get("VLLM_CONTROL", "")
pytestmark = [pytest.mark.metrics, pytest.mark.timeout(400), pytest.mark.skipif(not CONTROL, reason="VLLM_CONTROL is not set")]
# health.interval and engine.interval of the proxies under test, and health.stalled_after.
INTERVAL = float(os.environ.get("POLL_INTERVAL", "5"))
STALLED_AFTER = float(os.environ.get("STALLED_AFTER", "30"))
# A machine of two cores is late now and then.
SLACK = 3


@pytest.fixture(autouse=True)
def idle_engine():
    """In place of the one of all other files: here vLLM is gone half of the time."""


def names(counters):
    return {name for name, _, _ in counters.read()}


def family(pid):
    """A process and all that it started, youngest last."""
    children = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def engine_core(pid):
    """The process that computes: vLLM names it."""
    for each in family(pid):
        if b"EngineCore" in pathlib.Path(f"/proc/{each}/cmdline").read_bytes():
            return each
    raise AssertionError(f"no engine among {family(pid)}")


@pytest.fixture
def vllm_pid():
    return int(pathlib.Path(os.environ["VLLM_PIDFILE"]).read_text())


def test_a_hung_engine(proxy, direct, counters, vllm_pid):
    """Its /health stays 200."""
    client = openai.OpenAI(base_url=f"{proxy}/v1", api_key="none", max_retries=0, timeout=120)
    begun, frames = threading.Event(), []

    def stream():
        limits = {**LONG, "max_tokens": 60}
        for chunk in client.completions.create(model="tiny", prompt="a", stream=True, extra_body={"ignore_eos": True}, **limits):
            frames.append(chunk)
            begun.set()

    core = engine_core(vllm_pid)
    assert counters.total("vllm_engine_stalled") == 0
    thread = threading.Thread(target=stream)
    thread.start()
    try:
        assert begun.wait(60)
        os.kill(core, signal.SIGSTOP)
        stopped = time.monotonic()
        eventually(lambda: counters.total("vllm_engine_stalled") == 1, STALLED_AFTER + 2 * INTERVAL + SLACK, "stalled", 0.1)
        assert time.monotonic() - stopped >= STALLED_AFTER - 1
        assert get_text(direct, "/health")[0] == 200
        assert counters.total("vllm_service_up") == 1
    finally:
        os.kill(core, signal.SIGCONT)
    thread.join(120)
    assert len(frames) >= 60
    eventually(lambda: counters.total("vllm_engine_stalled") == 0, 2 * INTERVAL + SLACK, "not stalled any more", 0.1)


def test_killed_and_started_again(proxy, counters, vllm_pid):
    client = openai.OpenAI(base_url=f"{proxy}/v1", api_key="none", max_retries=0, timeout=120)
    before = names(counters)
    assert "vllm:num_requests_running" in before and counters.total("vllm_service_up") == 1
    for pid in family(vllm_pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    eventually(lambda: counters.total("vllm_service_up") == 0, 2 * INTERVAL + SLACK, "not up", 0.1)
    eventually(lambda: not any(n.startswith("vllm:") for n in names(counters)), 2 * INTERVAL + SLACK, "its metrics gone", 0.1)
    after = counters.read()
    assert counters.total("vllm_model_loaded") == counters.total("vllm_available_models_total") == 0
    assert not any(name in ("vllm_model_info", "vllm_max_model_len") for name, _, _ in after)
    assert any(name == "DCGM_FI_DEV_GPU_UTIL" for name, _, _ in after), "GPUs do not depend on vLLM"
    failed = counters.total("vllm_request_error_total", error_type="upstream_connect")
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="tiny", messages=HELLO)
    assert counters.total("vllm_request_error_total", error_type="upstream_connect") == failed + 1

    pathlib.Path(os.environ["VLLM_PIDFILE"]).unlink()
    subprocess.run(CONTROL, shell=True, check=True, timeout=300)
    eventually(lambda: counters.total("vllm_model_loaded") == 1, 2 * INTERVAL + SLACK, "loaded again", 0.1)
    eventually(lambda: before <= names(counters), 2 * INTERVAL + SLACK, "all names again", 0.1)
    succeeded = counters.total("vllm_request_success_total")
    client.completions.create(model="tiny", prompt="a", max_tokens=2)
    eventually(lambda: counters.total("vllm_request_success_total") == succeeded + 1, 5, "counted on")
