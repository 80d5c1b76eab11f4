"""Requests sent only through the proxy, with what each should add to the counters."""

from collections import Counter
from dataclasses import dataclass, field

from support import HELLO, PLAIN, TOOL, call

USAGE = {"include_usage": True}


@dataclass
class Sums:
    """What the clients themselves saw."""

    requests: Counter = field(default_factory=Counter)  # by (endpoint, stream)
    input: int = 0
    output: int = 0
    engine_input: int = 0  # the engine counts a prompt once for each of n choices, usage counts it once
    cached: int = 0
    reasoning: int = 0

    def add(self, endpoint, stream, input_tokens, output_tokens, cached=0, reasoning=0, n=1):
        self.requests[endpoint, stream] += 1
        self.input += input_tokens
        self.output += output_tokens
        self.engine_input += n * input_tokens
        self.cached += cached or 0
        self.reasoning += reasoning or 0

    @property
    def count(self):
        return self.requests.total()

    @property
    def streams(self):
        return sum(number for (_, stream), number in self.requests.items() if stream == "true")


def detail(usage, group, name):
    return (usage.model_dump().get(group) or {}).get(name) or 0


def openai_usage(sums, endpoint, answer, stream, n):
    usage = answer.usage if not stream else next(c.usage for c in reversed(answer) if c.usage)
    sums.add(
        endpoint, str(stream).lower(), usage.prompt_tokens, usage.completion_tokens,
        detail(usage, "prompt_tokens_details", "cached_tokens"),
        detail(usage, "completion_tokens_details", "reasoning_tokens"), n,
    )


def chat(url, sums, number, stream=False, options=None, **more):
    body = {
        "model": "tiny", "messages": [{"role": "user", "content": f"Question {number}, how are you?"}],
        "max_tokens": 5 + number % 17, "temperature": 1, "seed": number, "extra_body": PLAIN,
    } | more
    if stream:
        body |= {"stream": True, "stream_options": USAGE | (options or {})}
    answer = call("openai", "sync", url, "chat.completions.create", body)
    openai_usage(sums, "chat_completions", answer, stream, more.get("n", 1))


def completion(url, sums, number, stream=False, **more):
    body = {"model": "tiny", "prompt": f"Text {number}", "max_tokens": 3 + number % 11, "temperature": 1, "seed": number} | more
    if stream:
        body |= {"stream": True, "stream_options": USAGE}
    answer = call("openai", "sync", url, "completions.create", body)
    openai_usage(sums, "completions", answer, stream, more.get("n", 1))


def message(url, sums, number, stream=False):
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 4 + number % 7, "stream": stream}
    answer = call("anthropic", "sync", url, "messages.create", body)
    if stream:
        usage = next(e.usage for e in reversed(answer) if e.type == "message_delta")
        start = next(e.message.usage for e in answer if e.type == "message_start")
    else:
        usage = start = answer.usage
    cached = usage.cache_read_input_tokens or start.cache_read_input_tokens or 0
    created = usage.cache_creation_input_tokens or start.cache_creation_input_tokens or 0
    # input_tokens leaves out what came from, or went into, the cache.
    prompt = (usage.input_tokens or start.input_tokens) + cached + created
    sums.add("messages", str(stream).lower(), prompt, usage.output_tokens, cached)


def response(url, sums, number, stream=False):
    body = {"model": "tiny", "input": f"Input {number}", "max_output_tokens": 4 + number % 7, "stream": stream}
    answer = call("openai", "sync", url, "responses.create", body)
    usage = (answer[-1].response if stream else answer).usage
    sums.add(
        "responses", str(stream).lower(), usage.input_tokens, usage.output_tokens,
        detail(usage, "input_tokens_details", "cached_tokens"),
        detail(usage, "output_tokens_details", "reasoning_tokens"),
    )


def tool(url, sums, number, narrow, stream=False, choice="required"):
    extra = PLAIN | {"allowed_token_ids": narrow}
    chat(url, sums, number, stream, tools=[TOOL], tool_choice=choice, max_tokens=60, extra_body=extra)


def mixed(url, narrow):
    """72 requests that all complete, each with a usage of its own."""
    sums = Sums()
    for number in range(6):
        for stream in (False, True):
            chat(url, sums, number, stream)
            completion(url, sums, number, stream)
            completion(url, sums, number + 20, stream, prompt=["Hello there", f"and you {number}"])
            message(url, sums, number, stream)
        response(url, sums, number, stream=number % 2 == 0)
        chat(url, sums, number + 100, True, {"continuous_usage_stats": True})
        tool(url, sums, number, narrow, stream=number % 2 == 0)
        chat(url, sums, number + 200, stream=number % 2 == 0, extra_body={})  # all of it is reasoning
    return sums
