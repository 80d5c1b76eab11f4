"""Puts the frames of an OpenAI stream together.

vLLM merges frames when its own event loop lags, so two streams of equal content can be cut differently. What must be
equal is what they add up to; that the proxy passes each stream on byte for byte is test_wire.py's business.
"""

from support import normal


def frame(chunk):
    return chunk.model_dump() if hasattr(chunk, "model_dump") else chunk


def common(frames):
    usage = [f["usage"] for f in frames if f.get("usage")]
    counts = {}  # continuous usage counts each choice by itself
    for f in (f for f in frames if f.get("usage")):
        counts.setdefault(f["choices"][0]["index"] if f["choices"] else "all", []).append(f["usage"]["completion_tokens"])
    assert all(c == sorted(c) for c in counts.values()), f"usage went backwards: {counts}"
    return {
        "ids": len({f["id"] for f in frames}),
        "models": sorted({f["model"] for f in frames}),
        "objects": sorted({f["object"] for f in frames}),
        "usage": normal(usage[-1]) if usage else None,
        "frames_of_usage_only": sum(1 for f in frames if not f["choices"]),
        "continuous": len(usage) == len(frames) > 1,
    }


def ending(choice, into):
    for key in ("finish_reason", "stop_reason"):
        if choice.get(key) is not None:
            assert into[key] is None, f"{key} came twice"
            into[key] = choice[key]


def chat(chunks, part="delta"):
    frames = [frame(c) for c in chunks]
    choices = {}
    for choice in (c for f in frames for c in f["choices"]):
        into = choices.setdefault(choice["index"], {
            "role": None, "content": "", "reasoning": "", "tool_calls": [], "logprobs": [],
            "finish_reason": None, "stop_reason": None,
        })
        delta = choice[part]
        into["role"] = delta.get("role") or into["role"]
        into["content"] += delta.get("content") or ""
        into["reasoning"] += delta.get("reasoning") or ""
        for position, tool in enumerate(delta.get("tool_calls") or []):
            index = tool.get("index", position)
            if index == len(into["tool_calls"]):
                into["tool_calls"].append({"type": tool["type"], "name": tool["function"]["name"], "arguments": ""})
            into["tool_calls"][index]["arguments"] += tool["function"].get("arguments") or ""
        into["logprobs"] += (choice.get("logprobs") or {}).get("content") or []
        ending(choice, into)
    return common(frames) | {"choices": choices}


def text(chunks):
    frames = [frame(c) for c in chunks]
    choices = {}
    for choice in (c for f in frames for c in f["choices"]):
        into = choices.setdefault(choice["index"], {
            "text": "", "tokens": [], "logprobs": [], "finish_reason": None, "stop_reason": None,
        })
        into["text"] += choice["text"]
        logprobs = choice.get("logprobs") or {}
        into["tokens"] += logprobs.get("tokens") or []
        into["logprobs"] += logprobs.get("token_logprobs") or []
        ending(choice, into)
    return common(frames) | {"choices": choices}
