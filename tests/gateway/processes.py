"""Simulators and proxies as processes of their own, with the ports that they have."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ([^ ]+)$")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
TICK = os.sysconf("SC_CLK_TCK")


def binary(variable, default):
    path = pathlib.Path(os.environ.get(variable, REPOSITORY / "target" / "release" / default)).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: build it, or say in {variable} where it is")
    return path


def free_port(address="127.0.0.1"):
    with socket.create_server((address, 0)) as held:
        return held.getsockname()[1]


def port_on_all(addresses):
    """One that is free on each."""
    while True:
        port = free_port(addresses[0])
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for address in addresses:
                held.enter_context(socket.create_server((address, port)))
            return port


def fetch(url, timeout=5):
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return answer.read().decode()


def eventually(check, seconds, what, pause=0.02):
    """Waits until check() is true and returns its value; fails after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(pause)


class Samples:
    """A page of metrics."""

    def __init__(self, text):
        self.all = []
        for line in text.splitlines():
            if line and not line.startswith("#"):
                match = SAMPLE.match(line)
                assert match, f"not a sample: {line!r}"
                self.all.append((match[1], dict(LABEL.findall(match[2] or "")), float(match[3])))

    def sum(self, name, **labels):
        """Over all series with these labels; 0 where there are none."""
        wanted = labels.items()
        return sum(value for sample, have, value in self.all if sample == name and wanted <= have.items())

    def by(self, name, label):
        """The same for each value of a label."""
        found = {}
        for sample, have, value in self.all:
            if sample == name:
                found[have[label]] = found.get(have[label], 0) + value
        return found


class Process:
    """One that the test has started, and ends."""

    def __init__(self, log):
        self.log, self.popen = log, None

    def spawn(self, command, **environment):
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
            )

    def runs(self):
        return self.popen is not None and self.popen.poll() is None

    def signal(self, number):
        self.popen.send_signal(number)

    def ended(self, seconds=20):
        """Waits for its end; its exit status."""
        return self.popen.wait(timeout=seconds)

    def kill(self):
        if self.runs():
            self.popen.kill()
            self.popen.wait()

    def cpu(self):
        """Seconds on a CPU so far, of all its threads that live."""
        nanoseconds = 0
        for task in pathlib.Path(f"/proc/{self.popen.pid}/task").iterdir():
            nanoseconds += int((task / "schedstat").read_text().split()[0])
        return nanoseconds / 1e9


class Sim(Process):
    """A simulated vLLM. The prompt tokens that it reports are its own number, so an answer tells who gave it."""

    def __init__(self, folder, number, address, port, *, models=("tiny",), behaviour=None):
        super().__init__(folder / f"sim-{number}.log")
        self.number, self.address, self.port, self.models = number, address, port, models
        self.behaviour = {"ttft_ms": 4, "itl_ms": 4, "prompt_tokens": 1000 + number, **(behaviour or {})}
        self.label = f"{address}:{port}"
        self.url = f"http://{self.label}"

    def start(self):
        command = [binary("TGTEST_LOADTEST", "loadtest"), "sim", "--listen", self.label]
        for model in self.models:
            command += ["--model", model]
        self.spawn([*command, "--behaviour", json.dumps(self.behaviour)])
        return self

    def wait(self):
        eventually(lambda: answers(f"{self.url}/health"), 10, f"{self.label} listens")
        return self

    def metrics(self):
        return Samples(fetch(f"{self.url}/metrics"))


class Proxy(Process):
    """tokenglass, with a configuration of its own: sections of keys, over those that suit a test."""

    def __init__(self, folder, name, upstreams=(), **sections):
        super().__init__(folder / f"{name}.log")
        self.name, self.data, self.admin = name, free_port(), free_port()
        self.config = folder / f"{name}.toml"
        given = {
            "server": {"listen": f"127.0.0.1:{self.data}", "workers": 2},
            "admin": {"listen": f"127.0.0.1:{self.admin}"},
            "upstream": {"url": list(upstreams)} if upstreams else {},
            "gateway": {"eject_for": "1s"},
            "health": {"interval": "300ms", "timeout": "500ms"},
            "engine": {"interval": "1s"},
            "gpu": {"mode": "off"},
            "log": {"format": "json"},
        }
        for section, keys in sections.items():
            given[section] = {**given.get(section, {}), **keys}
        self.config.write_text(
            "".join(
                f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
                for section, keys in given.items()
            )
        )

    def start(self, resolver=None):
        """`resolver`: a file that stands where resolv.conf stood, for this process alone."""
        command = [binary("TGTEST_BIN", "tokenglass"), "run", "--config", self.config]
        if resolver:
            command = ["unshare", "--mount", "sh", "-c", f'mount --bind {resolver} /etc/resolv.conf && exec "$@"', "sh", *command]
        self.spawn(command)
        return self

    def ready(self):
        """Whether a Service would send to it."""
        return self.runs() and answers(f"http://127.0.0.1:{self.admin}/readyz")

    def wait(self):
        eventually(lambda: self.ready() or not self.runs(), 15, f"{self.name} is ready")
        assert self.runs(), self.log.read_text()[-3000:]
        return self

    def metrics(self):
        return Samples(fetch(f"http://127.0.0.1:{self.admin}/metrics"))

    def logged(self, message):
        """The lines with that message."""
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        return [line for line in lines if line.get("message") == message]


def answers(url):
    """Whether it says 200."""
    try:
        fetch(url, timeout=1)
    except OSError:
        return False
    return True


def stop(processes):
    for process in processes:
        if process.runs():
            with contextlib.suppress(ProcessLookupError):
                process.signal(signal.SIGCONT)
        process.kill()


def can_change_resolver():
    """Whether a process can be given a resolv.conf of its own, and a name server port 53: as root, mostly."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        return False
    try_it = ["unshare", "--mount", "mount", "--bind", "/etc/hosts", "/etc/resolv.conf"]
    return subprocess.run(try_it, capture_output=True, check=False).returncode == 0
