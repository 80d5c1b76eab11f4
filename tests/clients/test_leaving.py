"""A client that leaves, or gives up waiting, ends the work in the engine."""

import asyncio
import json
import time

import openai
import pytest
from load import BODY, full_engine, open_stream, request
from support import HELLO, LONG, eventually, failure, openai_async, openai_client, patient
from wire import dial

BOTH = pytest.mark.parametrize("which", ["direct", "proxy"])
CHAT = {"model": "tiny", "messages": HELLO, "extra_body": {"ignore_eos": True}} | LONG
SECONDS = 2


@pytest.fixture
def url(request, which):
    return request.getfixturevalue(which)


def freed(engine):
    """The engine is idle again and generates no further token."""
    eventually(lambda: engine.busy() == 0, SECONDS, "the engine let the request go")
    generated = engine.generated()
    time.sleep(0.3)
    assert engine.generated() == generated


def was_cut_short(engine, before):
    assert engine.generated() - before < LONG["max_tokens"]


@BOTH
@patient
def test_close_a_stream(url, engine):
    before = engine.generated()
    with openai_client(url) as client:
        stream = client.chat.completions.create(**CHAT, stream=True)
        for _ in range(5):
            next(stream)
        assert engine.running() == 1
        stream.close()
        freed(engine)
    was_cut_short(engine, before)


@BOTH
@patient
def test_cancel_an_async_stream(url, engine):
    before = engine.generated()

    async def run():
        async with openai_async(url) as client:
            seen = asyncio.Event()

            async def consume():
                async for chunk in await client.chat.completions.create(**CHAT, stream=True):
                    if chunk.choices[0].delta.model_dump().get("reasoning"):
                        seen.set()

            task = asyncio.create_task(consume())
            await asyncio.wait_for(seen.wait(), 30)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    freed(engine)
    was_cut_short(engine, before)


@BOTH
@patient
def test_leave_an_unanswered_request(url, engine):
    """No head has come yet: the connection is simply closed."""
    before = engine.generated()
    with dial(url) as connection:
        connection.sendall(request(BODY | {"stream": False}))
        eventually(lambda: engine.running() == 1, 10, "the engine runs the request")
    freed(engine)
    was_cut_short(engine, before)


@BOTH
@pytest.mark.parametrize("style", ["sync", "async"])
@patient
def test_timeout(url, engine, style):
    before = engine.generated()
    error = failure("openai", style, url, "chat.completions.create", CHAT, timeout=0.5)
    assert type(error) is openai.APITimeoutError
    freed(engine)
    was_cut_short(engine, before)


@BOTH
@patient
def test_timeout_before_the_first_token(url, direct, engine, seats):
    """The head of the stream is there, its first token is not: every seat of the engine is taken."""
    with full_engine(direct, engine, seats):
        error = failure("openai", "sync", url, "chat.completions.create", CHAT | {"stream": True}, timeout=0.5)
        # The client wraps what fails while it waits for a head, and hands on what fails while it reads a body.
        assert "Timeout" in type(error).__name__ or "timed out" in str(error)
        eventually(lambda: engine.total("vllm:num_requests_waiting") == 0, SECONDS, "the waiting request is gone")


@BOTH
@patient
def test_many_leave_at_once(url, engine, seats):
    before = engine.generated()
    streams = [open_stream(url) for _ in range(seats)]
    try:
        for stream in streams:
            assert stream.head() == 200
            assert json.loads(stream.frame().removeprefix(b"data: "))["choices"]
    finally:
        for stream in streams:
            stream.close()
    freed(engine)
    assert engine.generated() - before < seats * LONG["max_tokens"]
