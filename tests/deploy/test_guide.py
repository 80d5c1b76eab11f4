"""docs/best-practices: its queries are PromQL on metrics that exist, both languages have the same, its links lead somewhere."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

DOCS = Path(__file__).resolve().parents[2] / "docs"
ENGLISH, CHINESE = DOCS / "best-practices.md", DOCS / "best-practices.zh-CN.md"
CACHE = Path(os.environ.get("TGTEST_CACHE") or Path.home() / ".cache/tokenglass")
METRIC = re.compile(r"\b(?:vllm:\w+|vllm_\w+|tokenglass_\w+|DCGM_FI_\w+)")


def queries(path):
    return re.findall(r"^```promql\n(.*?)^```", path.read_text(), re.M | re.S)


# An hour of a model `m` on one engine: 60 requests a minute end, of which 6 in `overloaded`, and 12 are cancelled.
REQUEST = 'model="m",endpoint="chat_completions",stream="true"'
ENGINE = 'model_name="m",engine="0"'
SERIES = {
    f"vllm_request_success_total{{{REQUEST}}}": "0+54x60",
    f'vllm_request_error_total{{{REQUEST},error_type="overloaded"}}': "0+6x60",
    f'vllm_request_error_total{{{REQUEST},error_type="bad_request"}}': "0x60",
    f'vllm_request_cancelled_total{{{REQUEST},phase="before_head"}}': "0+6x60",
    f'vllm_request_cancelled_total{{{REQUEST},phase="streaming"}}': "0+6x60",
    f"vllm_request_duration_seconds_count{{{REQUEST}}}": "0+72x60",
    f"vllm_request_duration_seconds_sum{{{REQUEST}}}": "0+720x60",
    f'vllm_request_time_to_first_token_seconds_bucket{{{REQUEST},le="2.5"}}': "0+57x60",
    f"vllm_request_time_to_first_token_seconds_count{{{REQUEST}}}": "0+60x60",
    f"vllm_request_time_to_first_token_seconds_sum{{{REQUEST}}}": "0+30x60",
    f'vllm_request_time_per_output_token_seconds_bucket{{{REQUEST},le="0.1"}}': "0+57x60",
    f"vllm_request_time_per_output_token_seconds_count{{{REQUEST}}}": "0+60x60",
    f"vllm_requests_in_flight{{{REQUEST}}}": "0x60",
    f"vllm:request_queue_time_seconds_sum{{{ENGINE}}}": "0+12x60",
    f"vllm:request_queue_time_seconds_count{{{ENGINE}}}": "0+60x60",
    f"vllm:request_prefill_time_seconds_sum{{{ENGINE}}}": "0+15x60",
    f"vllm:request_prefill_time_seconds_count{{{ENGINE}}}": "0+60x60",
    f"vllm:kv_cache_usage_perc{{{ENGINE}}}": "0.1+0.015x60",
    f"vllm:generation_tokens_total{{{ENGINE}}}": "0+6000x60",
    'vllm_unaccounted_tokens_total{direction="output"}': "0+60x60",
    'DCGM_FI_DEV_GPU_UTIL{gpu="0"}': "90x60",
    'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="0"}': "0+30000000x60",
}
M, ENGINE_M = '{model="m"}', '{model_name="m"}'
# What each query of the guide, in its order, says at minute 58.
ANSWERS = [
    {ENGINE_M: 0.97},  # cache in use
    {M: 0.9},  # success rate
    {'{model="m", error_type="overloaded"}': 0.1},
    {'{model="m", phase="before_head"}': 0.083, '{model="m", phase="streaming"}': 0.083},
    {"{}": 0.5},  # time to first token
    {"{}": 0.2},  # queue
    {"{}": 0.25},  # prefill
    {"{}": 90},  # GPU busy without requests
    {"{}": 0.01},  # unaccounted
    {"{}": 5},  # joules a token
    {M: 0.95},  # within the objective
    {"{}": 0.9},  # goodput, at least
    {M: 20},  # burn rate
    {ENGINE_M: 1.045},  # forecast of the cache
    {M: 12},  # in flight by Little
    {M: 0},  # in flight by the gauge
]


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


def test_queries_answer_what_they_should(tmp_path):
    promtool = CACHE / "prometheus/new/bin/promtool"
    if not promtool.exists():
        pytest.skip("tests/prometheus/install.sh has not run")
    asked = queries(ENGLISH)
    assert len(asked) == len(ANSWERS)
    test = {
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in SERIES.items()],
        "promql_expr_test": [
            {
                "expr": f"round({query}, 0.001)",
                "eval_time": "58m",
                "exp_samples": [{"labels": labels, "value": value} for labels, value in answer.items()],
            }
            for query, answer in zip(asked, ANSWERS)
        ],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [test]}))
    ran = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("name", ["best-practices.md", "best-practices.zh-CN.md", "architecture.md"])
def test_links_within_the_repository(name):
    path = DOCS / name
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target
