"""YAML for a person to read, of mappings, lists and scalars. A test reads it back with PyYAML."""

import json
import re

# What YAML takes for a string without quotes, and no YAML 1.1 word that means something else. Durations are strings too.
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_ .,()%+/-]*[A-Za-z0-9).]|[0-9]+[smhd]|[A-Za-z]")
WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def scalar(value, indent):
    if not isinstance(value, str):
        return json.dumps(value)
    if "\n" in value or ('"' in value and len(value) > 60) or "[" in value:
        pad = " " * indent
        lines = (pad + line if line else "" for line in value.split("\n"))
        return "|-\n" + "\n".join(lines)
    if PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)


def lines(value, indent=0):
    """The lines of a mapping or a list."""
    pad = " " * indent
    if isinstance(value, list):
        for item in value:
            first, *rest = lines(item, indent + 2) if isinstance(item, dict | list) else [pad + "  " + scalar(item, indent + 4)]
            yield f"{pad}- {first[indent + 2 :]}"
            yield from rest
        return
    for key, item in value.items():
        if isinstance(item, dict | list) and item:
            yield f"{pad}{key}:"
            yield from lines(item, indent + 2)
        else:
            yield f"{pad}{key}: {scalar(item, indent + 2)}"


def document(value, comment):
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return head + "\n".join(lines(value)) + "\n"
