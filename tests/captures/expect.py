#!/usr/bin/env python3
"""What the recordings hold, read by other means than the observer's: prints the rows of expected.tsv.

usage: expect.py [CAPTURE...]     rows of these, or of all that the table has
       expect.py --check          compares the table with what is read here
"""

import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent
STATUS = {400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found", 413: "payload_too_large",
          422: "unprocessable", 429: "rate_limited", 500: "internal_error", 501: "not_implemented", 503: "overloaded"}
REASONS = {"stop": "stop", "end_turn": "stop", "stop_sequence": "stop", "completed": "stop", "length": "length",
           "max_tokens": "length", "max_output_tokens": "length", "tool_calls": "tool_calls", "tool_use": "tool_calls"}


def split(message):
    head, _, body = message.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return lines[0], {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}, body


def dechunk(body):
    """The data, and whether the last chunk was there."""
    data = b""
    while True:
        size, found, rest = body.partition(b"\r\n")
        if not found:
            return data, False
        size = int(size, 16)
        data += rest[:size]
        if size == 0:
            return data, True
        if len(rest) < size + 2:
            return data, False
        body = rest[size + 2:]


def events(data):
    """The data of each whole event that has any."""
    out = []
    for block in data.split(b"\n\n")[:-1]:
        lines = [line.partition(b": ") for line in block.split(b"\n")]
        text = b"\n".join(v for k, _, v in lines if k == b"data")
        if text:
            out.append(text)
    return out


def phrases(text, *words):
    return any(word in text for word in words)


def error_type(status, text):
    if status in (400, 413, 422) and phrases(text, "maximum context length", "longer than the maximum model length",
                                             "cannot be greater than max_model_len",
                                             '"param":"input_tokens"', '"param":"input_text"'):
        return "context_length_exceeded"
    if status >= 500 and phrases(text, "EngineCore encountered an issue"):
        return "engine_dead"
    if status == 404 and ('"param":"model"' in text or re.search(r"The model `.*does not exist", text)):
        return "model_not_found"
    return STATUS.get(status, "client_error" if status < 500 else "server_error")


class Reading:
    def __init__(self):
        self.model = self.input = self.output = self.cached = self.reasoning = None
        self.partial = {}
        self.ids, self.ids_exact, self.prompt = 0, True, {}
        self.final = False
        self.reasons, self.frames, self.first = [], {}, None
        self.error = None
        self.done = False

    def usage(self, usage, index=None):
        if not usage or usage.get("type") == "duration":
            return
        cache = usage.get("cache_read_input_tokens")
        prompt = usage.get("prompt_tokens")
        if prompt is None and usage.get("input_tokens") is not None:
            prompt = usage["input_tokens"] + (cache or 0) + (usage.get("cache_creation_input_tokens") or 0)
        output = usage.get("completion_tokens", usage.get("output_tokens"))
        if prompt is not None:
            self.input = prompt
        if output is not None:
            if index is None:
                self.output = output
            else:
                self.partial[index] = output
        if index is None:
            self.final = True
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
        if details.get("cached_tokens") is not None:
            self.cached = details["cached_tokens"]
        elif cache is not None:
            self.cached = cache
        details = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
        if details.get("reasoning_tokens") is not None:
            self.reasoning = details["reasoning_tokens"]

    def token(self, index, at, ids=None):
        if self.first is None:
            self.first = at
        self.frames[index] = self.frames.get(index, 0) + 1
        if ids is None:
            self.ids_exact = False
        else:
            self.ids += len(ids)

    def reason(self, word):
        self.reasons.append(REASONS.get(word, "other"))

    def prompt_ids(self, index, n, ids):
        if ids and index % n == 0:
            self.prompt[index] = len(ids)


def choices(reading, value, at, asked, echoed):
    n = (asked.get("sampling_params") or asked).get("n") or 1
    for choice in value.get("choices") or []:
        delta = choice.get("delta") or choice.get("message") or {}
        index = choice.get("index", 0)
        calls = [c.get("function") or {} for c in delta.get("tool_calls") or []]
        texts = [choice.get("text"), delta.get("content"), delta.get("reasoning"), delta.get("refusal")]
        texts += [c.get(k) for c in calls for k in ("name", "arguments")]
        ids = choice.get("token_ids")
        if any(texts) or ids:
            # Chat echoes in a frame of its own, before the first token of each choice.
            if asked.get("echo") and "messages" in asked and echoes(asked) and index not in echoed:
                echoed.add(index)
            else:
                reading.token(index, at, ids)
        reading.prompt_ids(index, n, choice.get("prompt_token_ids"))
        if choice.get("finish_reason"):
            reading.reason(choice["finish_reason"])
    if value.get("choices"):
        reading.prompt_ids(value["choices"][0].get("index", 0), n, value.get("prompt_token_ids"))


def echoes(asked):
    return asked.get("add_generation_prompt") is False or asked["messages"][-1]["role"] == "assistant"


def frame_error(error):
    text = json.dumps(error)
    if phrases(text, "EngineCore encountered an issue"):
        return "engine_dead"
    return "overloaded" if '"code": 503' in text else "stream_error"


def stream(reading, data, asked):
    echoed = set()
    for at, text in enumerate(events(data)):
        if reading.done or reading.error:
            break
        if text == b"[DONE]":
            reading.done = True
            continue
        value = json.loads(text)
        kind = value.get("type") or ""
        if kind == "error" or "error" in value:
            reading.error = frame_error(value)
        elif kind.endswith(".delta"):
            if value["delta"]:
                reading.token(0, at)
        elif kind in ("response.completed", "response.incomplete"):
            response(reading, value["response"])
            reading.done = True
        elif kind.startswith("response."):
            reading.model = reading.model or (value.get("response") or {}).get("model")
        elif kind == "message_start":
            reading.model = value["message"]["model"]
            reading.usage(value["message"]["usage"])
            reading.output, reading.final = None, False
        elif kind == "content_block_delta":
            if any(value["delta"].get(key) for key in ("text", "thinking", "partial_json")):
                reading.token(0, at)
        elif kind == "message_delta":
            reading.reason(value["delta"]["stop_reason"])
            reading.usage(value["usage"])
        elif kind == "message_stop":
            reading.done = True
        elif kind:
            pass
        else:
            reading.model = reading.model or value.get("model")
            choices(reading, value, at, asked, echoed)
            index = value["choices"][0].get("index", 0) if value.get("choices") else None
            reading.usage(value.get("usage"), index)


def response(reading, value):
    reading.model = reading.model or value.get("model")
    if value["status"] in ("completed", "incomplete"):
        reading.reason((value.get("incomplete_details") or {}).get("reason") or value["status"])
    reading.usage(value.get("usage"))


def body(reading, data, asked):
    value = json.loads(data)
    reading.model = value.get("model")
    if value.get("object") == "response":
        return response(reading, value)
    units = (value.get("meta") or {}).get("billed_units")
    if units:
        reading.input, reading.final = units["input_tokens"] + units["image_tokens"], True
    if value.get("type") == "message":
        reading.reason(value["stop_reason"])
    choices(reading, value, 0, asked, set())
    reading.usage(value.get("usage"))


def row(name):
    request, headers, data = split((HERE / f"{name}.req").read_bytes())
    try:
        asked = json.loads(data)
        asked = asked if isinstance(asked, dict) else {}
    except ValueError:
        asked = {}
    line, headers, data = split((HERE / f"{name}.resp").read_bytes())
    whole = True
    if headers.get("transfer-encoding") == "chunked":
        data, whole = dechunk(data)
    status = int(line.split()[1])
    kind = headers.get("content-type", "")
    streamed = kind.startswith("text/event-stream")
    reading = Reading()
    if status < 400 and streamed:
        stream(reading, data, asked)
    elif status < 400 and "json" in kind:
        body(reading, data, asked)
    if status >= 400:
        outcome = error_type(status, data.decode())
    elif reading.error:
        outcome = reading.error
    elif streamed and not reading.done:
        outcome = "cut"
    else:
        outcome = "success" if whole else "cut"
    output, prompt = reading.output, reading.input
    if not reading.final and reading.partial:
        output = sum(reading.partial.values())
    elif not reading.final and reading.ids and reading.ids_exact:
        output = reading.ids
    if prompt is None and reading.prompt:
        prompt = sum(reading.prompt.values())
    source = "usage" if outcome == "success" or reading.final else "partial"
    replay = request.startswith("GET /v1/responses/")
    gaps = 0 if replay or not streamed else sum(reading.frames.values()) - len(reading.frames)
    dash = lambda value: "-" if value is None or value == "" else str(value)
    return [name, outcome, "stream" if streamed or asked.get("stream") is True else "body", dash(reading.model),
            dash(prompt), dash(output), "-" if output is None else source, dash(reading.cached), dash(reading.reasoning),
            dash(",".join(reading.reasons)), str(gaps), dash(reading.first if streamed else None)]


def main():
    table = [line.split("\t") for line in (HERE / "expected.tsv").read_text().splitlines() if line[0] != "#"]
    if sys.argv[1:] == ["--check"]:
        wrong = [(was, row(was[0])) for was in table if row(was[0]) != was]
        for was, now in wrong:
            print("\t".join(was), "\t".join(now), sep="\n", end="\n\n")
        sys.exit(bool(wrong))
    for name in sys.argv[1:] or [was[0] for was in table]:
        print("\t".join(row(name)))


main()
