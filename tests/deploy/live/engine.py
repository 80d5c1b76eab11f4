"""A vLLM's scheduler in front of the simulator.

`loadtest sim` answers at once and knows neither queue nor KV cache, on purpose. Dashboards are about just these, so this
lets a few requests run at a time, makes the others wait, fills a cache, preempts, and says so on /metrics under vLLM's
names: those of today, or those of 0.8. What the simulator counts itself is passed on as it is.
"""

import asyncio
import json
import math
import random
import re
import time

LATENCY = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60)
FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40)
BETWEEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5)


class Histogram:
    def __init__(self, edges):
        self.edges, self.counts, self.sum = edges, [0] * (len(edges) + 1), 0.0

    def observe(self, value):
        at = next((i for i, edge in enumerate(self.edges) if value <= edge), len(self.edges))
        self.counts[at] += 1
        self.sum += value

    def render(self, name, labels):
        yield f"# TYPE {name} histogram"
        below = 0
        for edge, count in zip((*self.edges, math.inf), self.counts):
            below += count
            text = "+Inf" if edge == math.inf else repr(float(edge))
            yield f'{name}_bucket{{{labels},le="{text}"}} {below}'
        yield f"{name}_sum{{{labels}}} {self.sum:.6f}"
        yield f"{name}_count{{{labels}}} {below}"


class Engine:
    """One engine, `seats` requests at a time and `capacity` tokens in its KV cache."""

    def __init__(self, model, sim_port, *, seats, capacity, old_names, speed):
        self.model, self.sim_port, self.old_names, self.speed = model, sim_port, old_names, speed
        self.seats, self.capacity = seats, capacity
        self.running, self.waiting = {}, []
        self.preemptions = self.queried = self.hit = 0
        self.e2e, self.queue, self.prefill, self.decode = (Histogram(LATENCY) for _ in range(4))
        self.ttft, self.itl = Histogram(FIRST), Histogram(BETWEEN)
        self.random = random.Random(model)
        self.busy = 0.0

    async def start(self):
        self.server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=1 << 20)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    # --- what is asked of it

    async def _connection(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                method, path, _ = head.split(b" ", 2)
                if path == b"/metrics":
                    self._answer(writer, "text/plain; version=0.0.4; charset=utf-8", await self._metrics())
                elif path == b"/v1/embeddings":
                    await asyncio.sleep(0.02 + 0.02 * self.random.random())
                    self._answer(writer, "application/json", self._embedding(body))
                elif method == b"POST" and path in (b"/v1/chat/completions", b"/v1/completions"):
                    await self._request(reader, writer, head, body)
                    return
                else:
                    if path == b"/health":
                        await asyncio.sleep(0.0005 + 0.004 * self.random.random() * (1 + len(self.running)))
                    await self._relay(writer, head, body, {})
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    @staticmethod
    def _answer(writer, kind, text):
        body = text.encode()
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)

    def _embedding(self, body):
        tokens = max(1, len(body) // 5)
        data = [{"object": "embedding", "index": 0, "embedding": [0.0, 1.0]}]
        return json.dumps(
            {
                "id": "e",
                "object": "list",
                "model": self.model,
                "data": data,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
            }
        )

    async def _request(self, reader, writer, head, body):
        """Until it is answered or the client has gone, whatever comes first."""
        work = asyncio.ensure_future(self._scheduled(writer, head, body))
        gone = asyncio.ensure_future(reader.read(1))
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)

    async def _scheduled(self, writer, head, body):
        began = time.monotonic()
        prompt = max(8, len(body) // 5)
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append((turn, prompt))
        self._admit()
        key = object()
        try:
            await turn
            self.running[key] = prompt
            scheduled = time.monotonic()
            self.queue.observe(scheduled - began)
            # Some prompts begin as earlier ones did.
            cached = prompt * self.random.choice((0, 0, 0.3, 0.6, 0.9))
            self.queried += prompt
            self.hit += int(cached)
            seen = await self._relay(writer, head, body, self._pace(head, prompt - cached), key)
            if seen:
                first, frames = seen
                end = time.monotonic()
                self.e2e.observe(end - began)
                # Of an answer in one piece only its end can be seen from here.
                if frames:
                    self.prefill.observe(first - scheduled)
                    self.ttft.observe(first - began)
                    self.decode.observe(end - first)
                for _ in range(frames - 1):
                    self.itl.observe((end - first) / (frames - 1))
        finally:
            self.running.pop(key, None)
            self.waiting = [entry for entry in self.waiting if entry[0] is not turn]
            self._admit()

    def _pace(self, head, prompt):
        """The longer the prompt and the fuller the batch, the slower; what the request itself says comes first."""
        load = len(self.running)
        pace = {
            "ttft_ms": {"dist": "lognormal", "mean": self.speed * (40 + prompt * 0.2 + 12 * load), "std": 40},
            "itl_ms": {"dist": "lognormal", "mean": self.speed * (34 + 1.6 * load), "std": 10},
        }
        given = re.search(rb"(?i)\r\nx-sim: *([^\r]*)", head)
        return {**pace, **(json.loads(given[1]) if given else {})}

    def _admit(self):
        while self.waiting and len(self.running) < self.seats and self.cache() < 0.92:
            turn, _ = self.waiting.pop(0)
            if not turn.done():
                turn.set_result(None)
                # It takes its seat when it wakes; one a time is enough.
                break

    def cache(self):
        return min(1.0, sum(self.running.values()) / self.capacity)

    async def _relay(self, writer, head, body, behaviour, key=None):
        """The request to the simulator and its answer back, both whole; the connection ends with it."""
        lines = [line for line in head.split(b"\r\n")[:-2] if not line.lower().startswith((b"connection:", b"x-sim:"))]
        lines.append(b"connection: close")
        if behaviour:
            lines.append(b"x-sim: " + json.dumps(behaviour).encode())
        sim_reader, sim_writer = await asyncio.open_connection("127.0.0.1", self.sim_port)
        first, frames = None, 0
        try:
            sim_writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
            while chunk := await sim_reader.read(1 << 16):
                writer.write(chunk)
                await writer.drain()
                tokens = chunk.count(b"data: {")
                if key is not None and (tokens or b"\r\n\r\n{" in chunk):
                    first = first or time.monotonic()
                    frames += tokens
                    self._grow(key, tokens)
        finally:
            sim_writer.close()
        return (first, frames) if first else None

    def _grow(self, key, tokens):
        if key in self.running:
            # Each request of the simulator's stands for eight: a cache of a useful size would never fill.
            self.running[key] += tokens * 8
            if self.cache() >= 1.0:
                victim = next(reversed(self.running))
                self.running[victim] = self.running[victim] // 2
                self.preemptions += 1

    # --- what it says of itself

    async def _metrics(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.sim_port)
        writer.write(b"GET /metrics HTTP/1.1\r\nhost: sim\r\nconnection: close\r\n\r\n")
        text = (await reader.read(-1)).decode()
        writer.close()
        own = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
        lines = [line for line in text.partition("\r\n\r\n")[2].splitlines() if not any(name in line for name in own)]
        labels = f'engine="0",model_name="{self.model}"'

        def one(name, kind, value):
            lines.extend((f"# TYPE {name} {kind}", f"{name}{{{labels}}} {value}"))

        one("vllm:num_requests_running", "gauge", len(self.running))
        one("vllm:num_requests_waiting", "gauge", len(self.waiting))
        one("vllm:num_preemptions_total", "counter", self.preemptions)
        gpu = "gpu_" if self.old_names else ""
        one(
            "vllm:gpu_cache_usage_perc" if self.old_names else "vllm:kv_cache_usage_perc",
            "gauge",
            f"{self.cache():.4f}",
        )
        one(f"vllm:{gpu}prefix_cache_queries_total", "counter", self.queried)
        one(f"vllm:{gpu}prefix_cache_hits_total", "counter", self.hit)
        between = "time_per_output_token" if self.old_names else "inter_token_latency"
        for name, histogram in (
            ("e2e_request_latency", self.e2e),
            ("request_queue_time", self.queue),
            ("request_prefill_time", self.prefill),
            ("request_decode_time", self.decode),
            ("time_to_first_token", self.ttft),
            (between, self.itl),
        ):
            lines.extend(histogram.render(f"vllm:{name}_seconds", labels))
        return "\n".join(lines) + "\n"
