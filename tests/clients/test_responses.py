"""The openai client against vLLM's /v1/responses, and the list of models."""

import pytest
from support import HELLO, both, call, normal, openai_client

STYLES = ("sync", "async")
BODY = {"model": "tiny", "input": "Hello there", "max_output_tokens": 12, "temperature": 0}


def assemble(events):
    deltas, order, last = {}, [], None
    for event in (e.model_dump() for e in events):
        last = event
        if event["type"].endswith(".delta"):
            deltas[event["type"]] = deltas.get(event["type"], "") + event["delta"]
        else:
            order.append(event["type"])
    last = normal(last)
    last.pop("sequence_number")  # counts the frames, and vLLM merges frames when it lags
    return {"deltas": deltas, "order": order, "last": last}


@pytest.mark.parametrize("style", STYLES)
def test_response(direct, proxy, style):
    mine, theirs = both(direct, proxy, "openai", style, "responses.create", BODY)
    assert normal(theirs) == normal(mine)
    assert mine.usage.output_tokens == 12


@pytest.mark.parametrize("style", STYLES)
def test_response_stream(direct, proxy, style):
    body = BODY | {"stream": True}
    mine, theirs = (assemble(e) for e in both(direct, proxy, "openai", style, "responses.create", body))
    assert theirs == mine
    assert any(mine["deltas"].values()) and mine["order"][0] == "response.created"
    assert mine["last"]["response"]["usage"]["output_tokens"] == 12


def test_models(direct, proxy):
    lists = []
    for url in (direct, proxy):
        with openai_client(url) as client:
            models = [normal(m) for m in client.models.list()]
        for model in models:
            for permission in model["permission"]:
                permission.pop("created")
        lists.append(models)
    assert lists[0] == lists[1] and len(lists[0]) == 1


def test_tokens_are_alike_on_every_endpoint(proxy):
    """The same conversation costs the same prompt by three ways of asking."""
    chat = call("openai", "sync", proxy, "chat.completions.create", {"model": "tiny", "messages": HELLO, "max_tokens": 1})
    message = call("anthropic", "sync", proxy, "messages.create", {"model": "tiny", "messages": HELLO, "max_tokens": 1})
    response = call("openai", "sync", proxy, "responses.create", {"model": "tiny", "input": HELLO, "max_output_tokens": 1})
    assert chat.usage.prompt_tokens == message.usage.input_tokens == response.usage.input_tokens
