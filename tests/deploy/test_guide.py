"""docs/best-practices: its queries are PromQL on metrics that exist, both languages have the same, its links lead somewhere."""

import os
import re
import subprocess
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
ENGLISH, CHINESE = DOCS / "best-practices.md", DOCS / "best-practices.zh-CN.md"
CACHE = Path(os.environ.get("TGTEST_CACHE") or Path.home() / ".cache/tokenglass")
METRIC = re.compile(r"\b(?:vllm:\w+|vllm_\w+|tokenglass_\w+|DCGM_FI_\w+)")


def queries(path):
    return re.findall(r"^```promql\n(.*?)^```", path.read_text(), re.M | re.S)


def catalogue():
    """Names in the catalogue; what stands for others there is taken apart."""
    text = (DOCS / "metrics-catalog.md").read_text()
    return set(METRIC.findall(text)) | {f"DCGM_FI_DEV_{name}" for name in re.findall(r"`DCGM_FI_DEV_(\w+)`", text)}


@pytest.mark.parametrize("path", [ENGLISH, CHINESE], ids=lambda path: path.name)
def test_metrics_exist(path):
    known = catalogue()
    for name in set(METRIC.findall(path.read_text())) - {"vllm_", "tokenglass_"}:
        stem = re.sub(r"_(?:bucket|sum|count)$", "", name)
        assert name in known or stem in known, name


def test_both_languages_have_the_same_queries():
    assert queries(ENGLISH) == queries(CHINESE)
    assert len(queries(ENGLISH)) > 10


def test_both_languages_have_the_same_structure():
    def shape(path):
        text = path.read_text()
        return (
            [len(level) for level in re.findall(r"^(#+) ", text, re.M)],
            len(re.findall(r"^\|", text, re.M)),
            sorted(set(re.findall(r"\[(\d+)\]", text)), key=int),
            len(re.findall(r"^\d+\. ", text.rsplit("\n## ", 1)[1], re.M)),
        )

    assert shape(ENGLISH) == shape(CHINESE)


@pytest.mark.parametrize("path", [ENGLISH, CHINESE], ids=lambda path: path.name)
def test_every_source_is_cited_and_every_citation_has_one(path):
    body, sources = path.read_text().rsplit("\n## ", 1)
    listed = {int(number) for number in re.findall(r"^(\d+)\. ", sources, re.M)}
    assert {int(number) for number in re.findall(r"\[(\d+)\]", body)} == listed


@pytest.mark.parametrize("number", range(len(queries(ENGLISH))))
def test_queries_are_promql(number):
    promtool = CACHE / "prometheus/new/bin/promtool"
    if not promtool.exists():
        pytest.skip("tests/prometheus/install.sh has not run")
    query = queries(ENGLISH)[number]
    ran = subprocess.run(
        [promtool, "--experimental", "promql", "format", query], capture_output=True, text=True
    )
    assert ran.returncode == 0, query + ran.stderr


@pytest.mark.parametrize("name", ["best-practices.md", "best-practices.zh-CN.md", "architecture.md"])
def test_links_within_the_repository(name):
    path = DOCS / name
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target
