"""Failures reach an application as the same exception with the same content."""

import pytest
from support import HELLO, PARAMETERS, PLAIN, facts, failure

CHAT = {"model": "tiny", "messages": HELLO, "max_tokens": 8, "temperature": 0}
TEXT = {"model": "tiny", "prompt": "Hello there", "max_tokens": 8, "temperature": 0}
MANY = "word " * 9000

OPENAI = {
    "unknown model": ("chat.completions.create", CHAT | {"model": "nope"}, "NotFoundError", 404),
    "unknown model text": ("completions.create", TEXT | {"model": "nope"}, "NotFoundError", 404),
    "unknown model stream": ("chat.completions.create", CHAT | {"model": "nope", "stream": True}, "NotFoundError", 404),
    # vLLM lists models, but has no page for one of them.
    "retrieve": ("models.retrieve", {"model": "tiny"}, "NotFoundError", 404),
    "temperature": ("chat.completions.create", CHAT | {"temperature": -1}, "BadRequestError", 400),
    "max_tokens": ("completions.create", TEXT | {"max_tokens": -1}, "BadRequestError", 400),
    "role": ("chat.completions.create", CHAT | {"messages": [{"content": "x"}]}, "BadRequestError", 400),
    "greedy two": ("chat.completions.create", CHAT | {"n": 2}, "BadRequestError", 400),
    "too long": ("chat.completions.create", CHAT | {"messages": [{"role": "user", "content": MANY}]}, "BadRequestError", 400),
    "too long text": ("completions.create", TEXT | {"prompt": MANY}, "BadRequestError", 400),
    "too long stream": ("completions.create", TEXT | {"prompt": MANY, "stream": True}, "BadRequestError", 400),
    "embeddings": ("embeddings.create", {"model": "tiny", "input": "x"}, "NotFoundError", 404),
}
MESSAGES = {"model": "tiny", "messages": HELLO, "max_tokens": 8}
ANTHROPIC = {
    "unknown model": (MESSAGES | {"model": "nope"}, "NotFoundError", 404),
    "unknown model stream": (MESSAGES | {"model": "nope", "stream": True}, "NotFoundError", 404),
    "too long": (MESSAGES | {"messages": [{"role": "user", "content": MANY}]}, "BadRequestError", 400),
    "no messages": (MESSAGES | {"messages": "x"}, "BadRequestError", 400),
}


def same(direct, proxy, library, style, method, body):
    mine, theirs = (facts(failure(library, style, url, method, body)) for url in (direct, proxy))
    assert theirs == mine
    return mine


@pytest.mark.parametrize("style", ["sync", "async"])
@pytest.mark.parametrize("name", OPENAI)
def test_openai(direct, proxy, name, style):
    method, body, kind, status = OPENAI[name]
    seen = same(direct, proxy, "openai", style, method, body)
    assert (seen["class"], seen["status"]) == (kind, status)


@pytest.mark.parametrize("style", ["sync", "async"])
@pytest.mark.parametrize("name", ANTHROPIC)
def test_anthropic(direct, proxy, name, style):
    body, kind, status = ANTHROPIC[name]
    seen = same(direct, proxy, "anthropic", style, "messages.create", body)
    assert (seen["class"], seen["status"]) == (kind, status)


def broken(one_token, **more):
    """Allowed tokens and grammar contradict each other: the engine fails on the first token."""
    extra = PLAIN | {"allowed_token_ids": one_token, "structured_outputs": {"json": PARAMETERS}}
    return CHAT | {"extra_body": extra} | more


def test_failure_in_the_engine(direct, proxy, one_token):
    seen = same(direct, proxy, "openai", "sync", "chat.completions.create", broken(one_token))
    assert (seen["class"], seen["status"]) == ("InternalServerError", 500)


def test_failure_within_a_stream(direct, proxy, one_token):
    """A 200 whose stream holds an error frame: the client raises, though not by status."""
    seen = same(direct, proxy, "openai", "sync", "chat.completions.create", broken(one_token, stream=True))
    assert (seen["class"], seen["status"]) == ("APIError", None)
