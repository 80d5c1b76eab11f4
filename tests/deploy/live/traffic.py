"""A few requests a second of all kinds: streams and not, with usage and without, that fail, and whose clients leave."""

import asyncio
import json
import math
import random
import time

# How it goes wrong, and how often in all: as headers to the simulator.
FAULTS = (
    (
        0.010,
        {"fault": {"kind": "http", "status": 400, "message": "This model's maximum context length is 8192 tokens."}},
    ),
    (0.008, {"fault": {"kind": "http", "status": 429}}),
    (0.006, {"fault": {"kind": "http", "status": 503}}),
    (0.006, {"fault": {"kind": "http", "status": 500}}),
    (0.006, {"fault": {"kind": "error_frame", "after": 4}}),
    (0.005, {"fault": {"kind": "truncate", "after": 6}}),
    (0.004, {"fault": {"kind": "reset", "after": 5}}),
    (0.012, {"fault": {"kind": "stall", "after": 5, "ms": 4000}}),
)
TENANTS = (("search", 5), ("support-bot", 4), ("code-assist", 3), ("batch", 1))
WORDS = "the quick brown fox jumps over the lazy dog and runs far away from all the noise of the town ".split()


class Client:
    """Sends to one proxy. `tempo` stretches the waves, `trouble` makes faults rarer: 1 of both for a short test."""

    def __init__(self, port, models, rate, *, tempo=1.0, trouble=1.0, embeds=True, seed=1):
        self.port, self.models, self.rate, self.tempo = port, models, rate, tempo
        self.trouble, self.embeds = trouble, embeds
        self.random = random.Random(seed)
        self.open = set()

    async def run(self, until):
        began = time.monotonic()
        while (now := time.monotonic()) < until:
            age = (now - began) / self.tempo
            # A slow wave, a ripple on it, and a rush for half a minute every six.
            wave = 1 + 0.35 * math.sin(age / 75) + 0.15 * math.sin(age / 17)
            rush = 1.9 if 200 <= age % 360 < 235 else 1
            await asyncio.sleep(self.random.expovariate(self.rate * wave * rush))
            task = asyncio.ensure_future(self._request(rush > 1))
            self.open.add(task)
            task.add_done_callback(self.open.discard)
        if self.open:
            await asyncio.wait(self.open, timeout=5)
        for task in self.open:
            task.cancel()

    async def _request(self, rush):
        path, body, directive, leave = self._draw(rush)
        raw = json.dumps(body).encode()
        names, weights = zip(*TENANTS)
        head = [
            f"POST {path} HTTP/1.1",
            "host: live",
            "content-type: application/json",
            f"content-length: {len(raw)}",
            f"x-tenant: {self.random.choices(names, weights)[0]}",
            "connection: close",
        ]
        if directive:
            head.append(f"x-sim: {json.dumps(directive)}")
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + raw)
            try:
                await asyncio.wait_for(self._read(reader, leave == "streaming"), 0.05 if leave == "head" else 60)
            finally:
                writer.close()
        except (OSError, asyncio.TimeoutError):
            # That it fails is what it is for.
            return

    @staticmethod
    async def _read(reader, leaves):
        read = 0
        while chunk := await reader.read(1 << 16):
            read += len(chunk)
            if leaves and read > 3000:
                return

    def _draw(self, rush):
        dice = self.random.random
        model = self.random.choice(self.models)
        words = int(self.random.lognormvariate(5.0 if not rush else 5.4, 0.8))
        prompt = " ".join(self.random.choices(WORDS, k=min(words, 4000)))
        kind = dice()
        if kind < 0.06 and self.embeds:
            return "/v1/embeddings", {"model": self.models[0], "input": prompt[:400]}, None, None
        if 0.06 < kind < 0.06 + 0.012 * self.trouble:
            return (
                "/v1/chat/completions",
                {"model": "no-such-model", "messages": [{"role": "user", "content": "?"}]},
                None,
                None,
            )
        chat = kind < 0.85
        ask = {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
        limit = 200 if dice() < 0.8 else 40
        body = {"model": model, "max_tokens": limit, **ask}
        directive = {"output_tokens": {"dist": "lognormal", "mean": 95, "std": 50}}
        if dice() < 0.12:
            directive["reasoning_tokens"] = 15
        if dice() < 0.8:
            body["stream"] = True
            if dice() < 0.75:
                body["stream_options"] = {"include_usage": True}
        dice_fault = dice()
        for share, fault in FAULTS:
            dice_fault -= share * self.trouble
            if dice_fault < 0:
                directive.update(fault)
                break
        leaving = dice()
        leave = "head" if leaving < 0.015 else "streaming" if leaving < 0.06 and body.get("stream") else None
        return f"/v1/{'chat/' if chat else ''}completions", body, directive, leave
