"""Long streams that keep the engine busy."""

import contextlib
import json

from support import HELLO, LONG, eventually
from wire import Stream, compose

BODY = {"model": "tiny", "messages": HELLO, "ignore_eos": True, "stream": True} | LONG


def request(body=BODY, target="/v1/chat/completions"):
    return compose("POST", target, json.dumps(body).encode(), [("Content-Type", "application/json")])


def open_stream(url, body=BODY):
    return Stream(url, request(body))


@contextlib.contextmanager
def full_engine(direct, engine, seats):
    """Every seat of the engine is taken by a stream that goes past the proxy; a further request waits."""
    streams = [open_stream(direct) for _ in range(seats)]
    try:
        eventually(lambda: engine.running() == seats, 20, "every seat of the engine taken")
        yield
    finally:
        for stream in streams:
            stream.close()
