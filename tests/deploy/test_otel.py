"""deploy/otel: the configurations hold together, and what needs which repository's components is said truly.

Whether a real collector takes them is deploy/otel/validate.sh's to say: it builds one, which is too much for every run."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
OTEL = ROOT / "deploy/otel"
CORE, CONTRIB = OTEL / "collector.yaml", OTEL / "collector-contrib.yaml"

# What the repository open-telemetry/opentelemetry-collector itself has, of each kind.
CORE_COMPONENTS = {
    "receivers": {"nop", "otlp"},
    "processors": {"batch", "memory_limiter"},
    "exporters": {"debug", "nop", "otlp_grpc", "otlp_http"},
    "extensions": {"memory_limiter", "zpages"},
    "connectors": {"forward"},
}
KINDS = ("receivers", "processors", "exporters")


def load(path):
    return yaml.safe_load(path.read_text())


def component(name):
    """`otlp_grpc/backend` is an otlp_grpc."""
    return name.split("/")[0]


def not_core(config):
    return {
        component(name)
        for kind, core in CORE_COMPONENTS.items()
        for name in config.get(kind) or {}
        if component(name) not in core
    }


@pytest.fixture(params=[CORE, CONTRIB], ids=lambda path: path.name)
def path(request):
    return request.param


def test_only_core_components_where_that_is_promised():
    assert not_core(load(CORE)) == set()
    assert not_core(load(CONTRIB)) == {"prometheus"}
    assert "NEEDS A COMPONENT OF THE CONTRIB REPOSITORY" in CONTRIB.read_text()


def test_pipelines_name_what_is_defined_and_use_all_of_it(path):
    config = load(path)
    pipelines = config["service"]["pipelines"]
    assert set(pipelines) == {"traces", "metrics"}
    used = {kind: set() for kind in KINDS}
    for pipeline in pipelines.values():
        for kind in KINDS:
            assert pipeline[kind], kind
            used[kind] |= set(pipeline[kind])
    for kind in KINDS:
        assert used[kind] == set(config[kind]), kind


def test_memory_is_limited_first_and_batches_are_made_last(path):
    for pipeline in load(path)["service"]["pipelines"].values():
        assert component(pipeline["processors"][0]) == "memory_limiter"
        assert component(pipeline["processors"][-1]) == "batch"


def test_both_ways_in(path):
    protocols = load(path)["receivers"]["otlp"]["protocols"]
    ports = {name: settings["endpoint"].rsplit(":", 1)[1] for name, settings in protocols.items()}
    assert ports == {"grpc": "4317", "http": "4318"}


def test_every_variable_is_explained(path):
    text = path.read_text()
    names = set(re.findall(r"\$\{env:(\w+)", text))
    assert "OTLP_ENDPOINT" in names
    comments = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    if path == CONTRIB:
        comments += CORE.read_text()
    for name in names:
        assert name in comments, name


def test_no_default_for_where_to():
    # Its default would be this collector's own receiver: a loop.
    for path in (CORE, CONTRIB):
        assert load(path)["exporters"]["otlp_grpc"]["endpoint"] == "${env:OTLP_ENDPOINT}"


def test_contrib_is_core_and_a_scrape():
    core, contrib = load(CORE), load(CONTRIB)
    scrape = contrib["receivers"].pop("prometheus")
    contrib["service"]["pipelines"]["metrics"]["receivers"].remove("prometheus")
    assert contrib == core
    (job,) = scrape["config"]["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["${env:TOKENGLASS:-localhost:9101}"]}]


def test_tokenglass_sends_nothing_by_otlp_as_the_comment_says():
    # The day it does, the comment and docs/architecture.md are to say so.
    assert "tokenglass\n# sends nothing by OTLP" in CORE.read_text()
    assert "opentelemetry" not in (ROOT / "Cargo.toml").read_text()
