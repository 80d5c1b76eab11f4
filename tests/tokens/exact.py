"""usage: exact.py URL TOKENIZER [OUT.jsonl]

Sends prompts of many kinds to the vLLM at URL (which serves its model as "tiny") and has what came back counted again
by tokenglass with the tokenizer in the folder TOKENIZER: how many counts are equal, and how far off the others are.
Needs nothing but Python and cargo. CHINESE may name a folder with Chinese text files.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import texts

PROMPTS = 720
ROOT = Path(__file__).resolve().parents[2]

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Today's weather in a city — «наприклад» 東京",
        "parameters": {"type": "object", "required": ["city"], "properties": {
            "city": {"type": "string", "description": "Name of the city"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
            "days": {"type": "integer", "minimum": 1, "maximum": 14, "multipleOf": 1.0}}}}},
    {"type": "function", "function": {"parameters": {"properties": {}, "type": "object"}, "name": "now"}},
    {"type": "function", "function": {"name": "search", "description": "Search \"everything\"\n<b>fast</b>", "strict": True,
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}, "scores": {"type": "array",
            "items": {"type": "number", "minimum": 1e-7, "maximum": 1e20}}}, "additionalProperties": False}}},
]
EMOJI = ["👩‍👩‍👧‍👦 🇺🇦 ☕️ ok?", "¡¿ñ?! e\u0301 é \u200b\u202e …", "\t\t tabs \r\n and\u00a0blanks   ", "<|im_start|>user\nnot special?<|im_end|>",
         "😀" * 30, "0123456789" * 20, "ｆｕｌｌｗｉｄｔｈ Ⅷ ﬁ", "العربية עברית हिन्दी ไทย 한국어 日本語"]


def requests(rng):
    """(path, body) without end."""
    pool = texts.english(rng, 300) + texts.code(rng, 300) + texts.foreign(rng, 300) + EMOJI * 10
    chinese = os.environ.get("CHINESE")
    if chinese:
        pool += texts.chinese(rng, 200, chinese)

    def text():
        return rng.choice(pool)[: rng.choice([40, 200, 800, 3000])]

    def chat():
        messages = []
        if rng.random() < 0.4:
            messages.append({"role": rng.choice(["system", "developer"]), "content": text()})
        for _ in range(rng.choice([0, 0, 1, 2])):
            messages.append({"role": "user", "content": text()})
            if rng.random() < 0.4:
                call = {"id": "call_1", "type": "function",
                        "function": {"name": "get_weather", "arguments": json.dumps({"city": text()[:20], "days": 3})}}
                messages.append({"role": "assistant", "content": rng.choice([None, text()]), "tool_calls": [call]})
                messages.append({"role": "tool", "tool_call_id": "call_1", "content": text()})
            else:
                messages.append({"role": "assistant", "content": text()})
        kind = rng.random()
        if kind < 0.7:
            content = text()
        elif kind < 0.9:
            content = [{"type": "text", "text": text()} for _ in range(rng.choice([1, 2]))]
        else:
            content = [{"type": "text", "text": text(), "cache_control": {"type": "ephemeral"}}]
        messages.append({"role": "user", "content": content})
        body = {"model": "tiny", "messages": messages}
        if rng.random() < 0.4:
            body["tools"] = rng.sample(TOOLS, rng.choice([1, 2, 3]))
            body["tool_choice"] = "none"
        if rng.random() < 0.1:
            body["chat_template_kwargs"] = {"enable_thinking": False}
        if rng.random() < 0.1:
            messages.append({"role": "assistant", "content": text() + rng.choice(["", " ", " and\n"])})
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        elif rng.random() < 0.1:
            body["add_generation_prompt"] = False
        return "/v1/chat/completions", body

    def completion():
        prompt = rng.choice([text(), text(), [text(), text()], [rng.randrange(8192) for _ in range(50)]])
        return "/v1/completions", {"model": "tiny", "prompt": prompt}

    while True:
        path, body = chat() if rng.random() < 0.75 else completion()
        # No seed: with one per request vLLM's engine for CPUs ends ("CPU Generator does not use offset").
        body |= {"max_tokens": rng.choice([1, 16, 64, 200]), "temperature": 1.0}
        if rng.random() < 0.2:
            body["n"] = 3
        if rng.random() < 0.5:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        yield path, body


def ask(url, path, body):
    """The pieces of each choice's text as they came, the finish reasons and the usage."""
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        if not body.get("stream"):
            answer = json.load(answer)
            choices = {c["index"]: [c.get("text") or (c.get("message") or {}).get("content") or ""] for c in answer["choices"]}
            return choices, [c["finish_reason"] for c in answer["choices"]], answer["usage"]
        choices, finish, usage = {}, [], None
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise ValueError(event["error"])
            usage = event.get("usage") or usage
            for choice in event["choices"]:
                text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
                choices.setdefault(choice["index"], []).append(text)
                if choice.get("finish_reason"):
                    finish.append(choice["finish_reason"])
        return choices, finish, usage


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    url, tokenizer = sys.argv[1].rstrip("/"), sys.argv[2]
    out = Path(sys.argv[3]) if len(sys.argv) == 4 else Path(tempfile.mkdtemp()) / "exact.jsonl"
    endless, lock, refused = requests(texts.generator()), threading.Lock(), []

    def one(_):
        with lock:
            path, body = next(endless)
        try:
            choices, finish, usage = ask(url, path, body)
        except urllib.error.HTTPError as error:
            refused.append(error.read()[:300])
            return None
        except ValueError as error:
            refused.append(str(error)[:300])
            return None
        return json.dumps({"path": path, "body": body, "choices": list(choices.values()), "finish": finish, "usage": usage})

    with ThreadPoolExecutor(8) as pool:
        lines = [line for line in pool.map(one, range(PROMPTS)) if line]
    out.write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} answers, {len(refused)} refused {refused[:2]}; {out}")
    environment = os.environ | {"TOKENS_LINES": str(out), "TOKENS_TOKENIZER": tokenizer}
    test = ["cargo", "test", "--quiet", "--lib", "tokens::tests::measured::exact", "--", "--ignored", "--nocapture"]
    sys.exit(subprocess.run(test, cwd=ROOT, env=environment).returncode)


main()
