"""usage: make_tiny_model.py OUT_DIR

Writes a model folder small enough for two CPU cores: a Qwen3-shaped config (its weights are made up at load time) and a
byte-level BPE tokenizer of 8192 entries, trained on the documentation found on this machine and, where a slim image has
none, on the sources of Python's own library.
"""

import gzip
import json
import os
import random
import shutil
import sys
import sysconfig
from pathlib import Path

VOCABULARY = 8192
ENOUGH = 12_000_000  # characters to train on
LEAST = 1_000_000  # fewer cannot fill the vocabulary
FILE_LIMIT = 200_000  # no single file may dominate
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Seen by the parsers of tool calls and reasoning, so they must survive decoding: added, but not special.
MARKERS = ["<tool_call>", "</tool_call>", "<think>", "</think>"]

CHAT_TEMPLATE = (
    "{%- if tools %}<|im_start|>system\nTools:\n"
    "{%- for t in tools %}\n{{ t | tojson }}{%- endfor %}<|im_end|>\n{%- endif %}"
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content if m.content is string else (m.content | tojson if m.content else '') }}"
    "<|im_end|>\n{%- endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{%- endif %}"
)


def read(path):
    """The file's text, or nothing if it is not text."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as handle:
            return handle.read(FILE_LIMIT).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError):
        return ""


def training_text():
    documents = sorted(p for p in Path("/usr/share/doc").rglob("*") if p.is_file())
    random.Random(0).shuffle(documents)
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))
    # Half at most from the documentation, so that the tokenizer knows code as well as prose.
    texts, total = [], 0
    for files, until in ((documents, ENOUGH // 2), (sources, ENOUGH)):
        for path in files:
            if total >= until:
                break
            text = read(path)
            texts.append(text)
            total += len(text)
    if total < LEAST:
        sys.exit(f"make_tiny_model: only {total} characters of text on this machine, {LEAST} are needed")
    return texts


def train(folder):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL + MARKERS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_text(), trainer)
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    saved = json.loads(path.read_text())
    for token in saved["added_tokens"]:
        if token["content"] in MARKERS:
            token["special"] = False
    path.write_text(json.dumps(saved, ensure_ascii=False))
    return tokenizer


def write(folder, name, value):
    (folder / name).write_text(json.dumps(value, indent=1) + "\n")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    target = Path(sys.argv[1])
    folder = target.with_name(target.name + f".part-{os.getpid()}")
    folder.mkdir(parents=True)
    tokenizer = train(folder)
    start, end = tokenizer.token_to_id("<|endoftext|>"), tokenizer.token_to_id("<|im_end|>")
    write(folder, "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": None, "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "unk_token": None, "model_max_length": 32768,
        "clean_up_tokenization_spaces": False, "chat_template": CHAT_TEMPLATE,
    })
    write(folder, "config.json", {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 128, "intermediate_size": 256,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
        "hidden_act": "silu", "max_position_embeddings": 32768, "vocab_size": -(-tokenizer.get_vocab_size() // 64) * 64,
        "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "attention_bias": False, "tie_word_embeddings": False,
        "use_cache": True, "initializer_range": 0.02, "attention_dropout": 0.0, "torch_dtype": "bfloat16",
        "use_sliding_window": False, "sliding_window": None, "max_window_layers": 2,
        "bos_token_id": start, "eos_token_id": end,
    })
    write(folder, "generation_config.json", {"eos_token_id": end, "pad_token_id": start, "do_sample": True})
    shutil.rmtree(target, ignore_errors=True)
    folder.rename(target)
    print(f"{target}: {tokenizer.get_vocab_size()} tokens")


main()
