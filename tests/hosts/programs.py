"""What runs on the hosts: the simulated vLLM, the proxy, and clients that keep their own count of what they get."""

import concurrent.futures
import dataclasses
import http.client
import json
import os
import pathlib
import re
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PORT, ADMIN = 8000, 9101
SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="([^"]*)"')


def binary(variable, name):
    return os.environ.get(variable) or ROOT / "target/release" / name


def wait(what, condition, within=10.0):
    """Waits until `condition` is true; how long that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within, f"not within {within} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - began


class Metrics:
    def __init__(self, text):
        self.samples = [
            (found[1], dict(LABEL.findall(found[2] or "")), float(found[3]))
            for found in map(SAMPLE.match, text.splitlines())
            if found
        ]

    def sum(self, family, **labels):
        wanted = labels.items()
        return sum(value for name, has, value in self.samples if name == family and wanted <= has.items())

    def by(self, family, label):
        """The sums by one label, without what is 0."""
        sums = {}
        for name, labels, value in self.samples:
            if name == family and value:
                sums[labels.get(label)] = sums.get(labels.get(label), 0) + value
        return sums


class Program:
    """A program on a host, with a /metrics of its own."""

    port = PORT

    def __init__(self, host, command, **options):
        self.host = host
        self.process = host.spawn(*command, **options)
        wait(f"{command[0]} on {host.name} is up", self._answers)

    def get(self, path, port=None):
        """Asked from its own host, whatever becomes of its link."""
        address = ("127.0.0.1", port or self.port)
        connection = http.client.HTTPConnection(*address)
        connection.sock = self.host.connect(address, timeout=5)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def metrics(self):
        return Metrics(self.get("/metrics")[1])

    def _answers(self):
        assert self.process.poll() is None, f"it ended with {self.process.returncode}"
        try:
            return self.get("/metrics")[0] == 200
        except OSError:
            return False


class Sim(Program):
    """A simulated vLLM."""

    def __init__(self, host, **behaviour):
        command = [binary("TGTEST_LOADTEST", "loadtest"), "sim", "--listen", f"0.0.0.0:{PORT}"]
        super().__init__(host, [*command, "--behaviour", json.dumps(behaviour)], stdout=subprocess.DEVNULL)
        self.label = f"{host.address}:{PORT}"
        self.url = f"http://{self.label}"

    def running(self):
        return self.metrics().sum("vllm:num_requests_running")


class Gateway(Program):
    """The proxy, on port 8000, before `sims`; `settings` are `section__key=value`."""

    port = ADMIN

    def __init__(self, host, sims, log, **settings):
        environment = {
            "PATH": os.environ["PATH"],
            "TOKENGLASS_SERVER__LISTEN": f"0.0.0.0:{PORT}",
            "TOKENGLASS_SERVER__WORKERS": "2",
            "TOKENGLASS_UPSTREAM__URL": ",".join(sim.url for sim in sims),
            "TOKENGLASS_GPU__MODE": "off",
            # Each test waits at its end until nothing is pooled any more.
            "TOKENGLASS_UPSTREAM__POOL_IDLE_TIMEOUT": "1s",
            **{f"TOKENGLASS_{key.upper()}": str(value) for key, value in settings.items()},
        }
        self.address = (host.address, PORT)
        self.sims = sims
        super().__init__(host, [binary("TGTEST_BIN", "tokenglass"), "run"], env=environment, stderr=log)
        wait("all upstreams are known to be up", lambda: self.metrics().sum("vllm_model_loaded") == len(sims))

    def healthy(self, sim):
        return self.metrics().sum("tokenglass_upstream_healthy", upstream=sim.label) == 1

    def in_flight(self):
        metrics = self.metrics()
        return metrics.sum("vllm_requests_in_flight") + metrics.sum("tokenglass_upstream_in_flight")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def resident(self):
        """MiB"""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


@dataclasses.dataclass
class Answer:
    """What one client got."""

    status: int = 0
    tokens: int = 0
    prompt: int = 0
    ttft: float | None = None
    took: float = 0.0
    error: str = ""

    @property
    def well(self):
        return self.status == 200 and not self.error


class Client:
    """A client on a host, that keeps its connection as long as it can."""

    def __init__(self, host, address, timeout=60):
        self.host, self.address, self.timeout = host, address, timeout
        self.connection = None

    def ask(self, tokens=16, stream=True, **directive):
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": tokens}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        headers = {"Content-Type": "application/json"}
        if directive:
            headers["x-sim"] = json.dumps(directive)
        answer, began = Answer(), time.monotonic()
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection(*self.address)
                self.connection.sock = self.host.connect(self.address, self.timeout)
            self.connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            self._read(self.connection.getresponse(), answer, began)
        except (OSError, http.client.HTTPException) as error:
            answer.error = repr(error)
        answer.took = time.monotonic() - began
        if answer.error:
            self.close()
        return answer

    def _read(self, response, answer, began):
        answer.status = response.status
        if response.status != 200 or "event-stream" not in response.headers["content-type"]:
            body = response.read()
            if response.status == 200:
                usage = json.loads(body)["usage"]
                answer.tokens, answer.prompt = usage["completion_tokens"], usage["prompt_tokens"]
            return
        done = False
        for line in response:
            if not line.startswith(b"data: "):
                continue
            if line == b"data: [DONE]\n":
                done = True
                continue
            event = json.loads(line[6:])
            if event.get("usage"):
                answer.prompt = event["usage"]["prompt_tokens"]
            for choice in event.get("choices", []):
                if choice["delta"].get("content"):
                    answer.tokens += 1
                    answer.ttft = answer.ttft or time.monotonic() - began
        if not done:
            answer.error = "no [DONE]"

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None


class Load:
    """`clients` clients at a time, each on a connection of its own, until there are `requests` or `stop` is called."""

    def __init__(self, host, address, clients, requests=None, pause=0.0, stream=lambda number: True, **directive):
        self.answers, self.left, self.stopped, self.pause = [], requests, False, pause
        self.lock, self.stream, self.directive = threading.Lock(), stream, directive
        self.pool = concurrent.futures.ThreadPoolExecutor(clients)
        self.workers = [self.pool.submit(self._client, Client(host, address)) for _ in range(clients)]

    def _client(self, client):
        number = 0
        while not self.stopped:
            with self.lock:
                if self.left == 0:
                    break
                if self.left is not None:
                    self.left -= 1
                    number = self.left
            answer = client.ask(stream=self.stream(number), **self.directive)
            with self.lock:
                self.answers.append((time.monotonic(), answer))
            time.sleep(self.pause)
        client.close()

    def stop(self):
        self.stopped = True
        return self.wait()

    def wait(self):
        """All answers, once all have come."""
        for worker in self.workers:
            worker.result(timeout=120)
        self.pool.shutdown()
        return [answer for _, answer in self.answers]


def together(asks):
    """Calls them all at once; futures of their answers."""
    pool = concurrent.futures.ThreadPoolExecutor(len(asks))
    futures = [pool.submit(ask) for ask in asks]
    pool.shutdown(wait=False)
    return futures
