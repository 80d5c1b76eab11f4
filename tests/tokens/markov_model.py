"""usage: markov_model.py TINY_MODEL OUT_DIR

From the tiny model of tests/vllm a second one, with the same tokenizer, whose weights are not made up: each token is
followed by one that follows it in real text. What it writes splits into the tokens that it was written in, as the text
of a trained model does and that of made-up weights does not, so that counts of the output can be compared. Run it with
the Python of vLLM's venv. Serve it with --load-format auto.
"""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import texts
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

HIDDEN = 2048
FOLLOWERS = 8  # of each token
LEADERS = 16  # of each token; each costs the others some noise
LOGIT = 40.0
END = 0.02  # of the end, after each token


def chain(tokenizer):
    """Pairs of tokens that follow each other in real text. A token that is part of a character is in none."""
    rng = texts.generator(7)
    pairs = Counter()
    for text in texts.english(rng, 1500) + texts.code(rng, 1500) + texts.foreign(rng, 600):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        pairs.update(zip(ids, ids[1:]))
    whole = {i for i in range(tokenizer.get_vocab_size()) if "\ufffd" not in tokenizer.decode([i], skip_special_tokens=False)}
    followers, leaders, kept = Counter(), Counter(), []
    for (a, b), _ in pairs.most_common():
        # A token behind itself would be one long run of blanks, which is other tokens when read again.
        if a != b and a in whole and b in whole and followers[a] < FOLLOWERS and leaders[b] < LEADERS:
            followers[a] += 1
            leaders[b] += 1
            kept.append((a, b))
    return kept


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    shutil.copytree(source, out, dirs_exist_ok=True)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    config = json.loads((source / "config.json").read_text())
    config |= {"hidden_size": HIDDEN, "num_hidden_layers": 1, "intermediate_size": 64}
    size, heads = config["vocab_size"], config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    (out / "config.json").write_text(json.dumps(config, indent=1))

    torch.manual_seed(1)
    embed = torch.randint(0, 2, (size, HIDDEN)) * 2.0 - 1.0
    embed[:, 0] = 1.0
    head = torch.zeros(size, HIDDEN)
    pairs = chain(tokenizer)
    for a, b in pairs:
        head[b, 1:] += LOGIT / (HIDDEN - 1) * embed[a, 1:]
    head[config["eos_token_id"], 0] = LOGIT + torch.log(torch.tensor(END * FOLLOWERS))
    layer = "model.layers.0."
    shapes = {
        "self_attn.q_proj": (heads, HIDDEN), "self_attn.k_proj": (keys, HIDDEN), "self_attn.v_proj": (keys, HIDDEN),
        "self_attn.o_proj": (HIDDEN, heads), "mlp.gate_proj": (64, HIDDEN), "mlp.up_proj": (64, HIDDEN),
        "mlp.down_proj": (HIDDEN, 64),
    }
    weights = {f"{layer}{name}.weight": torch.zeros(shape) for name, shape in shapes.items()}
    for name in ("self_attn.q_norm", "self_attn.k_norm"):
        weights[f"{layer}{name}.weight"] = torch.ones(config["head_dim"])
    for name in (f"{layer}input_layernorm", f"{layer}post_attention_layernorm", "model.norm"):
        weights[f"{name}.weight"] = torch.ones(HIDDEN)
    weights |= {"model.embed_tokens.weight": embed, "lm_head.weight": head}
    save_file({name: w.to(torch.bfloat16).contiguous() for name, w in weights.items()}, out / "model.safetensors", {"format": "pt"})
    print(f"{out}: {len(pairs)} pairs of tokens")


main()
