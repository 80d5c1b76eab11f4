#!/usr/bin/env python3
"""usage: record.py PORT CASES...

Records each case from the vLLM on 127.0.0.1:PORT (tests/vllm/start.sh) three times over: as the client sends it
(NAME.plain), with include_usage added (NAME.usage) and with continuous_usage_stats added as well (NAME.continuous).
Raw bytes of both directions, as in tests/captures. Flags of the server: chat-tool-* --enable-auto-tool-choice
--tool-call-parser hermes; chat-n2, chat-reasoning, chat-no-reasoning --reasoning-parser qwen3
--enable-per-request-metrics --enable-prompt-tokens-details; chat-forced --enable-force-include-usage.
"""
import json
import socket
import sys
from pathlib import Path

HERE = Path(__file__).parent
MESSAGES = [{"role": "user", "content": "Hello, how are you today?"}]
CHAT = {"model": "tiny", "messages": MESSAGES, "max_tokens": 6, "temperature": 0, "ignore_eos": True, "stream": True}
TEXT = {"model": "tiny", "prompt": "The license is", "max_tokens": 6, "temperature": 0, "ignore_eos": True,
        "stream": True}
TOOL = {"type": "function", "function": {
    "name": "get_weather", "description": "w", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"], "additionalProperties": False}}}
LONG_TOOL = {"tools": [TOOL], "max_tokens": 24, "ignore_eos": False, "seed": 7}
CASES = {
    "chat": ("/v1/chat/completions", CHAT),
    "chat-n2": ("/v1/chat/completions", CHAT | {"n": 2, "temperature": 0.8, "seed": 3, "ignore_eos": False,
                                                "max_tokens": 12, "stop": ["a"]}),
    "chat-logprobs": ("/v1/chat/completions", CHAT | {"logprobs": True, "top_logprobs": 2}),
    "chat-token-ids": ("/v1/chat/completions", CHAT | {"return_token_ids": True, "return_prompt_text": True}),
    "chat-echo": ("/v1/chat/completions", CHAT | {
        "messages": [*MESSAGES, {"role": "assistant", "content": "I am"}], "echo": True,
        "add_generation_prompt": False, "continue_final_message": True}),
    "chat-one": ("/v1/chat/completions", CHAT | {"max_tokens": 1}),
    "chat-stop": ("/v1/chat/completions", CHAT | {"stop": ["block"]}),
    "chat-tool-named": ("/v1/chat/completions", CHAT | LONG_TOOL | {
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}}}),
    "chat-tool-required": ("/v1/chat/completions", CHAT | LONG_TOOL | {"tool_choice": "required"}),
    "chat-tool-auto": ("/v1/chat/completions", CHAT | {"tools": [TOOL], "tool_choice": "auto"}),
    "chat-reasoning": ("/v1/chat/completions", CHAT),
    "chat-no-reasoning": ("/v1/chat/completions", CHAT | {"include_reasoning": False}),
    "chat-model404": ("/v1/chat/completions", CHAT | {"model": "nobody"}),
    "chat-forced": ("/v1/chat/completions", CHAT),
    "text": ("/v1/completions", TEXT),
    "text-n2": ("/v1/completions", TEXT | {"n": 2, "temperature": 0.8, "seed": 3}),
    "text-echo": ("/v1/completions", TEXT | {"echo": True}),
    "text-logprobs": ("/v1/completions", TEXT | {"logprobs": 2}),
    "text-token-ids": ("/v1/completions", TEXT | {"return_token_ids": True}),
    "text-stop": ("/v1/completions", TEXT | {"stop": ["engraver"]}),
}


def exchange(port, path, body):
    body = json.dumps(body).encode()
    request = (f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nContent-Type: application/json\r\n"
               f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n").encode() + body
    with socket.create_connection(("127.0.0.1", port)) as conn:
        conn.sendall(request)
        response = b""
        while piece := conn.recv(65536):
            response += piece
    return request, response


def sequence(response):
    """What was told, in order: without ids, times, usage and fingerprints."""
    events = [line[6:] for line in response.split(b"\n") if line.startswith(b"data: {")]
    return [json.dumps(choices) for event in events if (choices := json.loads(event).get("choices"))]


def main(port, names):
    for name in names:
        path, body = CASES[name]
        modes = {"plain": None, "usage": {"include_usage": True},
                 "continuous": {"include_usage": True, "continuous_usage_stats": True}}
        # vLLM puts tokens into one chunk when it is late, and orders several answers as they come.
        for _ in range(50):
            told = []
            for mode, options in modes.items():
                asked = body if options is None else body | {"stream_options": options}
                request, response = exchange(port, path, asked)
                (HERE / f"{name}.{mode}.req").write_bytes(request)
                (HERE / f"{name}.{mode}.resp").write_bytes(response)
                told.append(sequence(response))
            if "tool" in name or told[0] == told[1] == told[2]:
                break
        else:
            sys.exit(f"{name}: no three answers alike")


main(int(sys.argv[1]), sys.argv[2:])
