"""usage: templates.py FOLDER [OUT.jsonl]

Renders the chat templates (*.jinja) in FOLDER as transformers does and has tokenglass render the same: the prompts must
be equal to the letter. Whether it gets the parts of a message as they are is vLLM's to say: that must agree too. Run it with the Python of vLLM's venv. PyPI's trl ships such templates of a dozen models.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from transformers.utils.chat_template_utils import _compile_jinja_template
from vllm.renderers.hf import _detect_content_format

ROOT = Path(__file__).resolve().parents[2]
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city, <b>now</b>",
        "parameters": {"type": "object", "required": ["city"], "properties": {
            "city": {"type": "string", "description": "Name, e.g. \"Київ\""},
            "days": {"type": ["integer", "null"], "minimum": 1.0, "enum": [1, 2, None]},
            "tags": {"type": "array", "items": {"type": "string"}}}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather",
        "arguments": {"city": "東京", "days": 2, "exact": True, "tags": ["a'b", None, 1.5], "deep": {"x": []}}}}
USER = {"role": "user", "content": "  How is the weather?\n"}
TALKS = {
    "plain": [USER],
    "system": [{"role": "system", "content": "Be brief."}, USER],
    "turns": [USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nFine. "}, {"role": "user", "content": "And <tomorrow>?"}],
    "reasoning": [USER, {"role": "assistant", "content": "Fine.", "reasoning_content": "hm", "reasoning": "hm"}, USER],
    "call": [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]},
             {"role": "tool", "content": "{\"sun\": true}", "tool_call_id": "call_1", "name": "get_weather"}],
    "calls": [{"role": "system", "content": "Be brief."}, USER,
              {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL, CALL]},
              {"role": "tool", "content": "12°", "tool_call_id": "call_1"}, {"role": "tool", "content": "13°", "tool_call_id": "call_1"},
              {"role": "assistant", "content": "12 or 13."}, USER],
    "odd": [{"role": "weird", "content": "x"}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "one "}, {"type": "text", "text": " two"}]}],
}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    out = Path(sys.argv[2]) if len(sys.argv) == 3 else Path(tempfile.mkdtemp()) / "templates.jsonl"
    lines = []
    for path in sorted(Path(sys.argv[1]).rglob("*.jinja")):
        source = path.read_text()
        template = _compile_jinja_template(source)
        parts = _detect_content_format(source, default="string") == "openai"
        for name, messages in TALKS.items():
            for tools in (None, [TOOL, TOOL]):
                for extra in ({}, {"enable_thinking": False}):
                    context = TOKENS | {"messages": messages, "tools": tools, "documents": None, "add_generation_prompt": True} | extra
                    try:
                        prompt = template.render(**context)
                    except Exception:  # whatever a template runs into: ours must not render it either
                        prompt = None
                    label = f"{path.name} {name} {'tools' if tools else ''} {extra or ''}"
                    lines.append(json.dumps({"label": label, "template": source, "context": context, "prompt": prompt, "parts": parts}))
    out.write_text("\n".join(lines) + "\n")
    environment = os.environ | {"TOKENS_LINES": str(out)}
    test = ["cargo", "test", "--quiet", "--lib", "tokens::tests::measured::templates", "--", "--ignored", "--nocapture"]
    sys.exit(subprocess.run(test, cwd=ROOT, env=environment).returncode)


main()
