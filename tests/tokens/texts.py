"""Real texts that lie about on a machine: English, code, and other languages as far as there are any."""

import gzip
import random
import re
import sysconfig
from pathlib import Path

FILE_LIMIT = 300_000
HELP = Path("/usr/share/gnupg")  # one page in some twenty languages


def read(path):
    """The file's text, or nothing if it is not text."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as handle:
            return handle.read(FILE_LIMIT).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError):
        return ""


def paragraphs(text):
    return [p.strip("\n") for p in re.split(r"\n\s*\n", text) if len(p.strip()) > 80]


def english(rng, count):
    """Paragraphs of changelogs' better company: READMEs, copyright notes, descriptions of packages."""
    files = [p for p in Path("/usr/share/doc").rglob("*") if p.is_file() and "changelog" not in p.name.lower()]
    site = Path(sysconfig.get_paths()["purelib"])
    files += [p for p in site.rglob("METADATA")] + [p for p in site.rglob("*.md")] + [p for p in site.rglob("*.rst")]
    files = sorted(files)
    rng.shuffle(files)
    return pick(rng, files, count, lambda text: [p for p in paragraphs(text) if mostly_ascii(p)])


def code(rng, count):
    files = sorted(p for p in Path(sysconfig.get_paths()["stdlib"]).rglob("*.py") if "site-packages" not in p.parts)
    rng.shuffle(files)

    def pieces(text):
        return [p for p in re.split(r"\n(?=def |class )", text) if len(p) > 80]

    return pick(rng, files, count, pieces)


def foreign(rng, count):
    """Paragraphs in all languages that the help pages are in."""
    return pick(rng, sorted(HELP.glob("help.*.txt")), count, paragraphs, each=40)


def chinese(rng, count, folder):
    """Lines of the text files in a folder that are mostly Chinese; several joined, so that lengths vary."""
    lines = []
    for path in sorted(Path(folder).rglob("*.txt")):
        found = [line.strip() for line in path.read_text("utf-8", "replace").splitlines()]
        lines += [line for line in found if len(line) > 20 and is_chinese(line)]
    rng.shuffle(lines)
    texts = []
    while lines and len(texts) < count:
        take = rng.choice([1, 2, 4, 8, 16])
        texts.append("\n".join(lines[:take]))
        del lines[:take]
    return texts


def pick(rng, files, count, cut, each=6):
    texts = []
    for path in files:
        found = cut(read(path))
        rng.shuffle(found)
        texts += [join(rng, found[i:]) for i in range(min(each, len(found)))]
        if len(texts) >= 3 * count:
            break
    texts = list(dict.fromkeys(texts))
    rng.shuffle(texts)
    return texts[:count]


def join(rng, found):
    return "\n\n".join(found[: rng.choice([1, 1, 2, 4])])[:12_000]


def mostly_ascii(text):
    return sum(c < "\x80" for c in text) > 0.98 * len(text)


def is_chinese(text):
    return sum("\u4e00" <= c <= "\u9fff" for c in text) > 0.6 * len(text)


def generator(seed=1):
    return random.Random(seed)
