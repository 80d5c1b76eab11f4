"""The openai client gets from the proxy what it gets from vLLM."""

import pytest
from assemble import chat, text
from support import HELLO, PARAMETERS, PLAIN, TOOL, both, normal

STYLES = ("sync", "async")
NAMED = {"type": "function", "function": {"name": "get_weather"}}
STREAM = {
    "bare": {"stream": True},
    "usage": {"stream": True, "stream_options": {"include_usage": True}},
    "continuous": {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
}

SCENARIOS = {
    "plain": {"temperature": 0},
    "reasoning": {"temperature": 0, "extra_body": {}},
    "two": {"temperature": 1, "seed": 3, "n": 2},
    "logprobs": {"temperature": 0, "logprobs": True, "top_logprobs": 3},
    "system": {"temperature": 0, "messages": [{"role": "system", "content": "Grüße, 世界 🌍"}, *HELLO]},
    "one": {"temperature": 0, "max_tokens": 1},
    "tool_auto": {"temperature": 0, "tools": [TOOL]},
    "tool_named": {"temperature": 0, "max_tokens": 60, "tools": [TOOL], "tool_choice": NAMED},
    "tool_required": {"temperature": 0, "max_tokens": 60, "tools": [TOOL], "tool_choice": "required"},
    "json": {
        "temperature": 0, "max_tokens": 60,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": PARAMETERS}},
    },
}


def request(name, narrow, stream=None):
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 24, "extra_body": PLAIN} | SCENARIOS[name]
    if name in ("tool_named", "tool_required", "json"):
        body["extra_body"] = PLAIN | {"allowed_token_ids": narrow}
    return body | (STREAM[stream] if stream else {})


def meaningful(name, choice):
    """Guards the comparison: two equal empty answers would prove nothing. `choice` as assembled."""
    if name == "reasoning":
        assert choice["reasoning"] and not choice["content"]
    elif name.startswith("tool_") and name != "tool_auto":
        assert [t["name"] for t in choice["tool_calls"]] == ["get_weather"]
        assert choice["tool_calls"][0]["arguments"].replace(" ", "").startswith('{"city":')
    else:
        assert choice["content"]
    if name == "logprobs":
        assert choice["logprobs"]
    if name == "json":
        assert choice["content"].replace(" ", "").startswith('{"city":"') and choice["finish_reason"] == "stop"


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", SCENARIOS)
def test_chat(direct, proxy, narrow, name, style):
    mine, theirs = both(direct, proxy, "openai", style, "chat.completions.create", request(name, narrow))
    assert normal(theirs) == normal(mine)
    assert mine.usage.completion_tokens > 0
    assert len(mine.choices) == SCENARIOS[name].get("n", 1)
    for choice in chat([mine], "message")["choices"].values():
        meaningful(name, choice)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("stream", STREAM)
@pytest.mark.parametrize("name", SCENARIOS)
def test_chat_stream(direct, proxy, narrow, name, stream, style):
    body = request(name, narrow, stream)
    mine, theirs = (chat(a) for a in both(direct, proxy, "openai", style, "chat.completions.create", body))
    assert theirs == mine
    assert (mine["usage"] is None) == (stream == "bare")
    assert mine["frames_of_usage_only"] == (0 if stream == "bare" else 1)
    assert mine["continuous"] == (stream == "continuous")
    assert len(mine["choices"]) == SCENARIOS[name].get("n", 1)
    for choice in mine["choices"].values():
        meaningful(name, choice)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("stream", [None, *STREAM])
def test_stop(direct, proxy, stream, style):
    prompt = {"model": "tiny", "prompt": "Hello there", "max_tokens": 24, "temperature": 1, "seed": 5}
    whole, _ = both(direct, proxy, "openai", "sync", "completions.create", prompt)
    stop = whole.choices[0].text[12:16]
    body = prompt | {"stop": [stop]} | (STREAM[stream] if stream else {})
    mine, theirs = both(direct, proxy, "openai", style, "completions.create", body)
    mine, theirs = (text(a if stream else [a]) for a in (mine, theirs))
    assert theirs == mine
    choice = mine["choices"][0]
    assert choice["finish_reason"] == "stop" and choice["stop_reason"] == stop
    assert whole.choices[0].text.startswith(choice["text"]) and stop not in choice["text"]


COMPLETIONS = {
    "plain": {"prompt": "Hello there", "temperature": 0},
    "batch": {"prompt": ["Hello there", "and you, how are you"], "temperature": 0},
    "two": {"prompt": "Hello there", "temperature": 1, "seed": 3, "n": 2},
    "echo": {"prompt": "Hello there", "temperature": 0, "echo": True},
    "logprobs": {"prompt": "Hello there", "temperature": 0, "logprobs": 2},
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("stream", [None, *STREAM])
@pytest.mark.parametrize("name", COMPLETIONS)
def test_completions(direct, proxy, name, stream, style):
    body = {"model": "tiny", "max_tokens": 16} | COMPLETIONS[name] | (STREAM[stream] if stream else {})
    mine, theirs = both(direct, proxy, "openai", style, "completions.create", body)
    mine, theirs = (text(a if stream else [a]) for a in (mine, theirs))
    assert theirs == mine
    assert (mine["usage"] is None) == (stream == "bare")
    assert len(mine["choices"]) == (2 if name in ("batch", "two") else 1)
    assert all(c["text"] for c in mine["choices"].values())
