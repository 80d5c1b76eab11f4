#!/usr/bin/env python3
"""A small fleet to look at: four tokenglass, four simulated vLLMs, two GPUs, traffic, and a real Prometheus.

usage: world.py [--seconds N] [--tempo T] [--trouble T]    prints the URL of Prometheus and runs until stopped, or for N seconds of traffic

| instance | vLLM | GPU |
|---|---|---|
| `llama-0` | today's names, with a LoRA adapter; tenants are told apart | DCGM's names |
| `qwen-0` | names of vLLM 0.8, no aliases | names of DCGM 4.7 |
| `mistral-0` | shows no metrics of its own | none |
| `gateway-0` | two: the last one, and one of its own; where it looks for more there are none | none |
"""

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from engine import Engine  # noqa: E402
from gpus import Gpus  # noqa: E402
from traffic import Client  # noqa: E402

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
CACHE = pathlib.Path(os.environ.get("TGTEST_CACHE", pathlib.Path.home() / ".cache" / "tokenglass"))
PROMETHEUS = pathlib.Path(os.environ.get("PROMETHEUS_DIR", CACHE / "prometheus"))
LABELS = 'labels: {{instance: "{name}:9101"{more}}}'
PLACE = ', cluster: "eu-west", namespace: "inference"'


def binary(variable, default):
    path = pathlib.Path(os.environ.get(variable, REPOSITORY / "target" / "release" / default)).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: build it, or say in {variable} where it is")
    return path


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


def fetch(url, timeout=10):
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return answer.read().decode()


class Prometheus:
    """One that scrapes them all. `place` puts `cluster` and `namespace` on what it scrapes."""

    def __init__(self, world, version, *, place, interval=1):
        more = PLACE if place else ""
        targets = "".join(
            f'      - {{targets: ["127.0.0.1:{port}"], {LABELS.format(name=name, more=more)}}}\n'
            for name, port in world.admins.items()
        )
        folder = world.folder / f"prometheus-{version}"
        folder.mkdir()
        (folder / "prometheus.yml").write_text(
            f"global: {{scrape_interval: {interval}s, scrape_timeout: {interval}s}}\n"
            f"scrape_configs:\n  - job_name: tokenglass\n    static_configs:\n{targets}"
        )
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        world.launch(
            [
                PROMETHEUS / version / "bin" / "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
                "--enable-feature=exemplar-storage",
            ],
            f"prometheus-{version}",
        )
        world.wait(f"{self.url}/-/ready")

    def get(self, path, **arguments):
        """Of the API; what it refuses is an error that says why."""
        try:
            text = fetch(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(arguments, doseq=True)}", 30)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{arguments}: {error.read().decode()[:500]}") from error
        return json.loads(text)["data"]


class World:
    """Everything but the Prometheus; as a context manager it takes all down again."""

    def __init__(self, *, tempo=1.0, trouble=1.0, rates=(1.3, 0.8, 0.4, 0.6)):
        self.tempo, self.trouble, self.rates = tempo, trouble, rates
        self.processes, self.admins, self.ports = [], {}, {}
        self.ended = False

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        self.folder = pathlib.Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="tokenglass-live-")))
        self.stack.callback(self._end)
        try:
            self._start()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_):
        self.stack.close()

    def _start(self):
        sims = [
            self._sim("llama-3.3-70b", "llama-3.3-70b-support"),
            self._sim("qwen3-32b"),
            self._sim(
                "mistral-small-24b",
                "--ttft-ms",
                '{"dist":"lognormal","mean":90,"std":50}',
                "--itl-ms",
                '{"dist":"lognormal","mean":30,"std":9}',
            ),
            self._sim("mistral-small-24b"),
        ]
        self.gpus = Gpus(self.folder / "gpus.json")
        self.loop = asyncio.new_event_loop()
        self.engines = [
            Engine("llama-3.3-70b", sims[0], seats=12, capacity=8000, old_names=False, speed=1.0),
            Engine("qwen3-32b", sims[1], seats=12, capacity=7000, old_names=True, speed=0.7),
        ]
        for engine in self.engines:
            self.loop.run_until_complete(engine.start())
        self.thread = threading.Thread(target=self._live, daemon=True)
        tenants = self.folder / "tenants.toml"
        tenants.write_text(
            '[tenant]\n"search" = "search"\n"support-bot" = "support-bot"\n"code-assist" = "code-assist"\n"batch" = "batch"\n'
        )
        self._proxy(
            "llama-0",
            [self.engines[0].port],
            f'[tenants]\nlabels = ["tenant=header:X-Tenant"]\nmap_file = "{tenants}"\n',
            gpu=0,
        )
        self._proxy("qwen-0", [self.engines[1].port], "", gpu=1, naming="dcgm-4.7", engine="aliases = false")
        self._proxy("mistral-0", sims[2:3], "", engine="metrics = false")
        self._proxy(
            "gateway-0",
            sims[2:],
            '[gateway]\ndiscover = ["dns:http://vllm.invalid:8000"]\nmax_in_flight = 4\nqueue = 8\n',
            engine="metrics = false",
        )
        self.until = float("inf")
        self.thread.start()

    def _sim(self, *arguments):
        models, options = [a for a in arguments if not a.startswith("--")], []
        if "--ttft-ms" in arguments:
            at = arguments.index("--ttft-ms")
            models, options = list(arguments[:at]), list(arguments[at:])
        port = free_port()
        named = [part for model in models for part in ("--model", model)]
        self.launch(
            [binary("TGTEST_LOADTEST", "loadtest"), "sim", "--listen", f"127.0.0.1:{port}", *named, *options],
            f"sim-{models[0]}",
        )
        self.wait(f"http://127.0.0.1:{port}/health")
        return port

    def _proxy(self, name, upstreams, more, *, gpu=None, naming="dcgm", engine=""):
        port, admin = free_port(), free_port()
        gpus = '[gpu]\nmode = "off"\n'
        if gpu is not None:
            gpus = (
                f'[gpu]\nmode = "nvml"\nlibrary = "{binary("TGTEST_NVML", "libnvml_stub.so")}"\ninterval = "1s"\n'
                f'devices = ["{self.gpus.uuid(gpu)}"]\nnaming = "{naming}"\n'
            )
        urls = json.dumps([f"http://127.0.0.1:{upstream}" for upstream in upstreams])
        config = self.folder / f"{name}.toml"
        config.write_text(
            f'[server]\nlisten = "127.0.0.1:{port}"\nworkers = 1\n[upstream]\nurl = {urls}\n'
            f'[admin]\nlisten = "127.0.0.1:{admin}"\n[observe]\nstall_after = "1500ms"\n'
            f'[health]\ninterval = "2s"\n[engine]\ninterval = "1s"\n{engine}\n{gpus}{more}'
        )
        self.launch(
            [binary("TGTEST_BIN", "tokenglass"), "run", "--config", config],
            name,
            NVML_STUB_STATE=str(self.gpus.path),
            NODE_NAME=f"gpu-node-{gpu or 0}",
        )
        self.wait(f"http://127.0.0.1:{admin}/healthz")
        self.admins[name], self.ports[name] = admin, port

    def launch(self, command, name, **environment):
        log = self.stack.enter_context((self.folder / f"{name}.log").open("wb"))
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )
        self.processes.append((name, process))
        return process

    def wait(self, url, seconds=30):
        end = time.monotonic() + seconds
        while True:
            for name, process in self.processes:
                if process.poll() is not None:
                    raise AssertionError(f"{name} ended: {(self.folder / f'{name}.log').read_text()[-2000:]}")
            try:
                return fetch(url, 2)
            except OSError:
                if time.monotonic() > end:
                    raise AssertionError(f"{url} does not answer") from None
            time.sleep(0.1)

    # --- the thread in which all of it lives

    def _live(self):
        self.loop.run_until_complete(self._main())

    async def _main(self):
        proxies = list(self.ports.values())
        models = (["llama-3.3-70b", "llama-3.3-70b", "llama-3.3-70b-support"], ["qwen3-32b"], ["mistral-small-24b"], ["mistral-small-24b"])
        tasks = [
            asyncio.ensure_future(
                Client(port, names, rate, tempo=self.tempo, trouble=self.trouble, embeds=index < 2, seed=index).run(
                    self.until
                )
            )
            for index, (port, names, rate) in enumerate(zip(proxies, models, self.rates))
        ]
        # Someone goes around the proxy, and often enough: the books allow for a quarter of what is estimated.
        tasks.append(
            asyncio.ensure_future(Client(self.engines[0].port, ["llama-3.3-70b"], 0.2, seed=9).run(self.until))
        )
        tasks.append(asyncio.ensure_future(self._gpus()))
        while not self.ended:
            await asyncio.sleep(0.2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _gpus(self):
        began = last = time.monotonic()
        faults = [(20, 0, 31), (150, 1, 43)]
        while True:
            await asyncio.sleep(0.5)
            now = time.monotonic()
            self.gpus.tick(now - last, [len(engine.running) for engine in self.engines])
            last = now
            if faults and (now - began) / self.tempo > faults[0][0]:
                self.gpus.xid(*faults.pop(0)[1:])

    def _end(self):
        self.ended = True
        if self.__dict__.get("thread") and self.thread.is_alive():
            self.thread.join(10)
        for _, process in self.processes:
            process.terminate()
        for _, process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=float("inf"))
    options.add_argument("--tempo", type=float, default=1.0)
    options.add_argument("--trouble", type=float, default=1.0)
    given = options.parse_args()
    # In the background of a script there is no interrupt, and what ends without cleaning up leaves ten processes behind.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    with World(tempo=given.tempo, trouble=given.trouble) as world:
        prometheus = Prometheus(world, "new", place=True, interval=2)
        print(prometheus.url, flush=True)
        end = time.monotonic() + given.seconds
        while time.monotonic() < end:
            time.sleep(0.5)


if __name__ == "__main__":
    main()
