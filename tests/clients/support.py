"""Clients, normalised answers and bounded waiting."""

import asyncio
import functools
import http.client
import json
import re
import time
from urllib.parse import urlsplit

import anthropic
import openai

HELLO = [{"role": "user", "content": "Hello, how are you today?"}]
# vLLM's reasoning parser takes everything for thought unless thinking is switched off.
PLAIN = {"chat_template_kwargs": {"enable_thinking": False}}
LONG = {"max_tokens": 8000, "temperature": 0}

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}, "n": {"type": "integer", "enum": [1, 2]}},
    "required": ["city", "n"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "description": "w", "strict": True, "parameters": PARAMETERS},
}

VOLATILE = {"id", "created", "created_at", "completed_at", "item_id", "signature", "response_id"}
VOLATILE_BYTES = re.compile(
    rb'"(id|item_id|signature)":\s?"[^"]*"|"(created|created_at|completed_at)":\s?[0-9.]+'
)


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


def patient(test):
    """Gives a test three attempts. For those that race vLLM: where its frontend lags behind its engine, a request may be
    through before vLLM has heard that its client is gone. A proxy that does not tell vLLM fails every attempt.
    """
    @functools.wraps(test)
    def attempts(*args, engine, **more):
        for attempt in range(3):
            try:
                return test(*args, engine=engine, **more)
            except AssertionError:
                if attempt == 2:
                    raise
                eventually(lambda: engine.busy() == 0, 30, "vLLM idle for the next attempt")

    return attempts


def normal(value):
    """The value without what differs between two answers to the same question."""
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    if isinstance(value, dict):
        return {k: ("*" if v is not None else None) if k in VOLATILE else normal(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [normal(v) for v in value]
    return value


def normal_bytes(body):
    return VOLATILE_BYTES.sub(lambda m: m.group(0).split(b":")[0] + b":*", body)


def connect(url, timeout=60):
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)


def get_json(url, path):
    connection = connect(url)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, (path, answer.status, body[:300])
        return json.loads(body)
    finally:
        connection.close()


def get_text(url, path, headers=None):
    connection = connect(url)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def post_json(url, path, body):
    connection = connect(url)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, (path, answer.status, text[:300])
        return json.loads(text)
    finally:
        connection.close()


OPTIONS = {"api_key": "unused", "max_retries": 0}


def openai_client(url, timeout=60):
    return openai.OpenAI(base_url=f"{url}/v1", timeout=timeout, **OPTIONS)


def openai_async(url, timeout=60):
    return openai.AsyncOpenAI(base_url=f"{url}/v1", timeout=timeout, **OPTIONS)


def anthropic_client(url, timeout=60):
    return anthropic.Anthropic(base_url=url, timeout=timeout, **OPTIONS)


def anthropic_async(url, timeout=60):
    return anthropic.AsyncAnthropic(base_url=url, timeout=timeout, **OPTIONS)


CLIENTS = {
    ("openai", "sync"): openai_client,
    ("openai", "async"): openai_async,
    ("anthropic", "sync"): anthropic_client,
    ("anthropic", "async"): anthropic_async,
}


def call(library, style, url, method, body, timeout=60):
    """Calls client.<method>(**body); returns the answer, or for a stream the list of its events."""
    make = CLIENTS[library, style]

    def resolve(client):
        for name in method.split("."):
            client = getattr(client, name)
        return client

    if style == "sync":
        with make(url, timeout) as client:
            answer = resolve(client)(**body)
            return list(answer) if body.get("stream") else answer

    async def run():
        async with make(url, timeout) as client:
            answer = await resolve(client)(**body)
            return [event async for event in answer] if body.get("stream") else answer

    return asyncio.run(run())


def both(direct, proxy, library, style, method, body):
    """The answers of vLLM and of the proxy. A first call fills the prefix cache, which shows in usage."""
    call(library, "sync", direct, method, body)
    return call(library, style, direct, method, body), call(library, style, proxy, method, body)


def failure(library, style, url, method, body, timeout=60):
    """The exception that the call must raise."""
    try:
        answer = call(library, style, url, method, body, timeout)
    except (openai.APIError, anthropic.APIError) as error:
        return error
    raise AssertionError(f"{method} should have failed, it answered {answer!r}")


def facts(error):
    """What an application can see of an exception."""
    return {
        "class": type(error).__name__,
        "status": getattr(error, "status_code", None),
        "body": normal(getattr(error, "body", None)),
        "message": str(error),
    }
