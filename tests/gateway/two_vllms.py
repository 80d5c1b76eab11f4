#!/usr/bin/env python3
"""usage: two_vllms.py DIR PORT PORT [--seconds 30] [--clients 6] [--stay-down]

Two vLLMs that run on these ports (tests/vllm/start.sh DIR), a gateway, the official client. See vllm.sh.
"""

import argparse
import asyncio
import collections
import json
import os
import pathlib
import random
import signal
import subprocess
import tempfile
import time

import openai
from processes import REPOSITORY, Proxy, Samples, eventually, fetch, stop

PLAIN = {"chat_template_kwargs": {"enable_thinking": False}}
# Seconds after a SIGKILL in which a request may still be lost with the process.
DYING = 0.5


class Vllm:
    def __init__(self, folder, port):
        self.folder, self.port, self.label = folder, port, f"127.0.0.1:{port}"
        self.pidfile = folder / f"vllm-{port}.pid"

    def kill(self):
        """The engine's processes too."""
        os.killpg(int(self.pidfile.read_text()), signal.SIGKILL)
        self.pidfile.unlink()

    def start(self):
        command = [REPOSITORY / "tests/vllm/start.sh", self.folder]
        subprocess.run(command, env={**os.environ, "PORT": str(self.port)}, check=True, stdout=subprocess.DEVNULL)

    def metrics(self):
        return Samples(fetch(f"http://{self.label}/metrics"))


class Clients:
    """Ask one thing after another, chats and completions, streams and not, without a retry of their own."""

    def __init__(self, url, count):
        self.url, self.count = url, count
        self.served, self.failed, self.unfinished = [], [], []
        self.stopping = False
        # Seconds between an answer and the next request.
        self.pause = 0.0

    async def __aenter__(self):
        self.client = openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0, timeout=120)
        self.tasks = [asyncio.create_task(self._one(random.Random(seed))) for seed in range(self.count)]
        return self

    async def __aexit__(self, *failure):
        self.stopping = True
        await asyncio.gather(*self.tasks)
        await self.client.close()

    async def _one(self, chance):
        while not self.stopping:
            began = time.monotonic()
            stream, chat = chance.random() < 0.6, chance.random() < 0.7
            try:
                usage, whole = await self._ask(stream, chat, chance)
            except (openai.APIError, OSError) as error:
                self.failed.append((began, stream, repr(error)))
                await asyncio.sleep(0.05)
            except Exception as error:  # noqa: BLE001 what the client makes of a stream that is cut is httpx's
                self.failed.append((began, stream, repr(error)))
            else:
                (self.served if whole else self.unfinished).append((began, stream, usage))
            await asyncio.sleep(self.pause)

    async def _ask(self, stream, chat, chance):
        words = " ".join(chance.choice(("red", "green", "blue", "one", "two")) for _ in range(chance.randrange(5, 60)))
        body = {"model": "tiny", "max_tokens": chance.randrange(4, 48), "stream": stream, "temperature": 0}
        if stream:
            body["stream_options"] = {"include_usage": True}
        if chat:
            call = self.client.chat.completions.create(messages=[{"role": "user", "content": words}], extra_body=PLAIN, **body)
        else:
            call = self.client.completions.create(prompt=words, **body)
        answer = await call
        if not stream:
            return answer.usage, True
        usage = None
        async for event in answer:
            usage = event.usage or usage
        return usage, usage is not None


def requests(samples, label):
    return samples.sum("tokenglass_upstream_requests_total", upstream=label)


async def play(proxy, vllms, given):
    url = f"http://127.0.0.1:{proxy.data}"
    look = lambda: asyncio.to_thread(proxy.metrics)  # noqa: E731
    marks = {}
    async with Clients(url, given.clients) as clients:
        await asyncio.sleep(given.seconds)
        before = await look()
        marks["both"] = {vllm.label: requests(before, vllm.label) for vllm in vllms}
        marks["in flight there when killed"] = before.sum("tokenglass_upstream_in_flight", upstream=vllms[0].label)
        vllms[0].kill()
        killed = time.monotonic()
        await asyncio.sleep(given.seconds / 2)
        if given.stay_down:
            return clients, killed, marks
        starting = time.monotonic()
        at_start = await look()
        # Or it would not get a core to load on.
        clients.pause = 2.0
        await asyncio.to_thread(vllms[0].start)
        clients.pause = 0.0
        back = await look()
        marks["started again in"] = round(time.monotonic() - starting, 1)
        marks["sent while it was down or loading"] = requests(back, vllms[0].label) - requests(at_start, vllms[0].label)
        await asyncio.sleep(given.seconds)
        after = await look()
        marks["then"] = {vllm.label: requests(after, vllm.label) - requests(back, vllm.label) for vllm in vllms}
    return clients, killed, marks


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("ports", type=int, nargs=2)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--stay-down", action="store_true", help="do not start the killed one again")
    given = parser.parse_args()
    vllms = [Vllm(given.folder.resolve(), port) for port in given.ports]
    with tempfile.TemporaryDirectory() as folder:
        urls = [f"http://{vllm.label}" for vllm in vllms]
        # vLLM on two cores answers /health late when it is busy.
        proxy = Proxy(pathlib.Path(folder), "gateway", urls, health={"interval": "1s", "timeout": "5s"})
        try:
            proxy.start().wait()
            clients, killed, marks = asyncio.run(play(proxy, vllms, given))
            judge(proxy, vllms, clients, killed, marks)
        finally:
            stop([proxy])


def judge(proxy, vllms, clients, killed, marks):
    lost = vllms[0].label
    count = len(clients.served) + len(clients.failed) + len(clients.unfinished)

    def all_ended():
        samples = proxy.metrics()
        return samples if samples.sum("vllm_requests_in_flight") == 0 else None

    samples = eventually(all_ended, 10, "every request has ended")
    bad = clients.failed + clients.unfinished
    prompt = sum(usage.prompt_tokens for _, _, usage in clients.served)
    output = sum(usage.completion_tokens for _, _, usage in clients.served)
    errors = collections.Counter()
    for name, labels, value in samples.all:
        if name == "tokenglass_upstream_errors_total" and value:
            errors[labels["upstream"], labels["reason"]] += int(value)
    retries = samples.sum("tokenglass_upstream_retries_total")
    sent = samples.sum("tokenglass_upstream_requests_total")
    figures = {
        "requests": count,
        "served": len(clients.served),
        "lost with the killed one": [(f"{began - killed:+.2f} s", "stream" if stream else "JSON", str(why)[:90]) for began, stream, why in bad],
        "upstream errors": {f"{label} {reason}": value for (label, reason), value in errors.items()},
        "retries": int(retries),
        "prompt tokens": (prompt, int(samples.sum("vllm_input_tokens_per_request_sum", source="usage"))),
        "output tokens": (output, int(samples.sum("vllm_output_tokens_per_request_sum", source="usage"))),
        "success counted": int(samples.sum("vllm_request_success_total")),
        "errors counted": int(samples.sum("vllm_request_error_total")),
        **marks,
    }
    print(json.dumps(figures, indent=1))
    # A prompt that had got out when its vLLM died is not sent again: it may have run. Nothing else may fail.
    # The kernel takes a moment to close what a killed process had open.
    assert all(began < killed + DYING for began, _, _ in bad), "asked after the kill, and yet not served"
    assert len(bad) == errors[lost, "upstream_reset"] <= clients.count
    assert not [key for key in errors if key[0] != lost], errors
    assert errors[lost, "upstream_connect"] == retries
    assert sent == count + retries
    assert figures["prompt tokens"][0] == figures["prompt tokens"][1], "prompt tokens"
    assert figures["output tokens"][0] == figures["output tokens"][1], "output tokens"
    assert figures["success counted"] == len(clients.served)
    assert figures["errors counted"] == len(bad)
    assert "then" not in marks or marks["then"][lost] > 0, "it has requests again"
    # Who is quicker gets more: two cores seldom serve both alike.
    shares = marks["both"].values()
    assert max(shares) < 3 * min(shares), marks
    print("two vLLMs: all as it should be")


if __name__ == "__main__":
    main()
