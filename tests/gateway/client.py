"""Clients that keep their connections, ask one thing after another, and write down all that they got."""

import asyncio
import contextlib
import dataclasses
import itertools
import json
import random
import time

LIMIT = 30


class Gone(Exception):
    """The other side closed a kept connection before it said anything."""


@dataclasses.dataclass
class Answer:
    """What came of a request. `status` 0: nothing."""

    status: int = 0
    headers: dict = dataclasses.field(default_factory=dict)
    body: bytes = b""
    whole: bool = False
    stream: bool = False
    began: float = 0.0
    ended: float = 0.0
    session: str = ""
    why: str = ""

    def usage(self):
        """The last one in it."""
        if not self.stream:
            return json.loads(self.body).get("usage") if self.status == 200 and self.whole else None
        for line in reversed(self.body.split(b"\n\n")):
            if line.startswith(b"data: {") and line.endswith(b"}"):
                if usage := json.loads(line[6:]).get("usage"):
                    return usage
        return None

    @property
    def good(self):
        done = self.whole and self.status == 200
        return done and (not self.stream or self.body.endswith(b"data: [DONE]\n\n"))

    @property
    def sim(self):
        """The number of the simulator that gave it."""
        usage = self.usage()
        return usage["prompt_tokens"] - 1000 if usage else None


class Connection:
    """HTTP/1.1 as a client speaks it."""

    def __init__(self):
        self.reader = self.writer = None
        self.used = False

    @classmethod
    async def open(cls, host, port):
        self = cls()
        self.reader, self.writer = await asyncio.open_connection(host, port)
        return self

    def close(self):
        self.writer.close()

    def is_closed(self):
        """Whether the other side has been heard to close it."""
        return self.reader.at_eof() or self.writer.is_closing() or self.reader.exception() is not None

    async def ask(self, request, answer):
        """Fills the answer in; returns whether the connection can be used again."""
        reused, self.used = self.used, True
        try:
            self.writer.write(request)
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError) as error:
            if reused and not getattr(error, "partial", b""):
                raise Gone from error
            raise
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        answer.status = int(first.split()[1])
        answer.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if answer.headers.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readline() or b"bad", 16):
                answer.body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
        else:
            answer.body = await self.reader.readexactly(int(answer.headers["content-length"]))
        answer.whole = True
        return answer.headers.get("connection", "").lower() != "close"


def request(path="/v1/chat/completions", body=None, *, headers=None, method="POST"):
    text = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "host: test"]
    if body is not None:
        lines += ["content-type: application/json", f"content-length: {len(text)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + text


def chat(*, stream, tokens=8, model="tiny", sim=None, session=None):
    """A request for so many tokens, with a count in every event of a stream. `sim` tells the simulator how."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": tokens, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    headers = {"x-sim": json.dumps(sim)} if sim else {}
    if session:
        headers["x-session-id"] = session
    return request(body=body, headers=headers)


async def once(port, message, *, stream=False, session=""):
    """One request on a connection of its own."""
    answer = Answer(stream=stream, began=time.monotonic(), session=session)
    try:
        async with asyncio.timeout(LIMIT):
            connection = await Connection.open("127.0.0.1", port)
            try:
                await connection.ask(message, answer)
            finally:
                connection.close()
    except (OSError, ValueError, asyncio.IncompleteReadError, TimeoutError) as error:
        answer.why = repr(error)
    answer.ended = time.monotonic()
    return answer


class Load:
    """`clients` of them until stopped. `to` says where a new connection goes; `what(number)` is the request."""

    def __init__(self, to, clients, what=None, seed=7):
        self.to, self.clients, self.what = to, clients, what or self.mixed
        self.answers, self.again = [], 0
        self.random, self.numbers = random.Random(seed), itertools.count()
        self.stopping = False

    def mixed(self, number):
        """Half of them streams."""
        stream = number % 2 == 0
        return {"message": chat(stream=stream, tokens=2 + number % 9), "stream": stream}

    async def __aenter__(self):
        self.tasks = [asyncio.create_task(self._client()) for _ in range(self.clients)]
        return self

    async def __aexit__(self, *failure):
        self.stopping = True
        for result in await asyncio.gather(*self.tasks, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _client(self):
        connection = None
        while not self.stopping:
            what = self.what(next(self.numbers))
            answer = Answer(stream=what["stream"], session=what.get("session", ""), began=time.monotonic())
            kept = False
            try:
                async with asyncio.timeout(LIMIT):
                    while True:
                        if connection is None or connection.is_closed():
                            connection = await Connection.open(*self.to())
                        try:
                            kept = await connection.ask(what["message"], answer)
                            break
                        except Gone:
                            # A server may close an idle connection at any moment; all clients ask again on a new one.
                            self.again += 1
                            connection = None
            except (OSError, ValueError, asyncio.IncompleteReadError, TimeoutError) as error:
                answer.why = repr(error)
            answer.ended = time.monotonic()
            self.answers.append(answer)
            if not kept and connection is not None:
                connection.close()
                connection = None
            if not answer.good:
                await asyncio.sleep(0.01)
        if connection is not None:
            connection.close()

    @property
    def bad(self):
        return [answer for answer in self.answers if not answer.good]

    def by_sim(self, since=0.0, until=float("inf")):
        """How many good answers each simulator gave to what was asked then."""
        found = {}
        for answer in self.answers:
            if answer.good and since <= answer.began < until:
                found[answer.sim] = found.get(answer.sim, 0) + 1
        return found


@contextlib.asynccontextmanager
async def for_a_while(load, seconds):
    async with load:
        yield load
        await asyncio.sleep(seconds)
