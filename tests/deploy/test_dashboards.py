"""The dashboards: that they are well made, and that every query of every panel has an answer, from two real Prometheus."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest
import yaml

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "live"))

import dashboards  # noqa: E402
import grafana_types  # noqa: E402
import world as live  # noqa: E402

GRAFANA, REPOSITORY = dashboards.GRAFANA, dashboards.REPOSITORY
CATALOGUE = (REPOSITORY / "docs" / "metrics-catalog.md").read_text()
RUNBOOKS = REPOSITORY / "docs" / "runbooks"
ALL = [pytest.param(path, id=path.stem) for path in dashboards.FILES]
UIDS = {"tokenglass-gpu", "tokenglass-inference", "tokenglass-requests", "tokenglass-gateway"}
CORE = {"timeseries", "stat", "gauge", "bargauge", "table", "heatmap", "state-timeline", "row", "text"}
# What only an engine knows, or only a GPU: by panel, the legends that are empty without.
ENGINE_ONLY = {
    "What the first token waits for": {"queue", "prefill"},
    "Latency P95 by model": {"vLLM {{model_name}}"},
    "KV cache, and in five minutes": {"{{model_name}}", "in 5 min {{model_name}}"},
    "Preemptions and prefix cache": {"prefix-cache hits"},
    "Inter-token latency": set(),
    "Output tokens by source": {"vLLM"},
    "Unaccounted tokens": {"{{direction}}", "share of vLLM's"},
}
# Labels of the scrape: one Prometheus has them, the other has not.
PLACE = {"cluster", "namespace"}
SECONDS = 75


@pytest.fixture(scope="session")
def installed():
    subprocess.run([HERE / "live" / "install.sh"], check=True, timeout=900)
    return live.CACHE / "grafana" / "node_modules"


# --- as files


def test_the_files_are_what_their_source_says():
    subprocess.run([sys.executable, GRAFANA / "generate.py", "--check"], check=True)
    assert {dashboards.load(path)["uid"] for path in dashboards.FILES} == UIDS


@pytest.mark.parametrize("path", ALL)
def test_the_dashboard_is_well_made(path):
    board = dashboards.load(path)
    assert board["id"] is None and board["uid"] in UIDS and 39 <= board["schemaVersion"] <= 41
    assert "__inputs" not in board, "these break provisioning"
    assert board["graphTooltip"] == 1 and board["refresh"] and board["description"]
    assert [
        v
        for v in ("datasource", "cluster", "namespace", "model", "instance", "tenant")
        if v not in dashboards.variables(board)
    ] == []
    siblings = board["links"][0]
    assert (
        siblings["type"] == "dashboards"
        and siblings["keepTime"]
        and siblings["includeVars"]
        and set(siblings["tags"]) <= set(board["tags"])
    )
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("path", ALL)
def test_no_panel_lies_on_another(path):
    cells = set()
    for panel in dashboards.load(path)["panels"]:
        at = panel["gridPos"]
        assert 0 <= at["x"] and at["x"] + at["w"] <= 24, panel["title"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & cells, panel["title"]
        cells |= own


@pytest.mark.parametrize("path", ALL)
def test_each_panel_says_what_it_shows(path):
    board = dashboards.load(path)
    source = {"type": "prometheus", "uid": "${datasource}"}
    titles = [panel["title"] for panel in board["panels"]]
    for panel in board["panels"]:
        assert panel["type"] in CORE and panel["title"], panel
        if panel["type"] in ("row", "text"):
            continue
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["description"].endswith(".") and defaults["unit"], panel["title"]
        assert panel["datasource"] == source and all(target["datasource"] == source for target in panel["targets"]), (
            panel["title"]
        )
        properties = [p for o in panel["fieldConfig"]["overrides"] for p in o["properties"]]
        for thresholds in [defaults["thresholds"], *(p["value"] for p in properties if p["id"] == "thresholds")]:
            first, *steps = [step["value"] for step in thresholds["steps"]]
            assert first is None and steps == sorted(set(steps)), panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert references and len(set(references)) == len(references), panel["title"]
    assert titles


@pytest.mark.parametrize("path", ALL)
def test_the_queries_are_sound(path):
    board = dashboards.load(path)
    for title, target in dashboards.queries(board):
        expression = target["expr"]
        for counter in re.findall(r"(?:rate|increase)\([^)]*?\[([^\]]+)\]", expression):
            assert counter in ("$__rate_interval", "$__range"), (title, expression)
        # A quantile of buckets that are not summed is one of each series, and one without le is none.
        for inner in re.findall(r"histogram_quantile\([\d.]+, (.{0,12})", expression):
            assert inner.startswith("sum by (le"), (title, expression)
        for matcher in re.findall(r'(\w+)(=~?)"\$', expression):
            assert matcher[1] == "=~", (title, matcher)
        if (
            "_seconds_bucket" in expression
            and target["format"] == "time_series"
            and re.search(r"time_to_first|duration", expression)
        ):
            assert (
                target["exemplar"]
                or "share" in title.lower()
                or "goodput" in title.lower()
                or "vLLM" in target["legendFormat"]
            ), title
        dashboards.expand(expression, dashboards.chosen(board))


@pytest.mark.parametrize("path", ALL)
def test_each_metric_is_in_the_catalogue(path):
    board = dashboards.load(path)
    texts = [target["expr"] for _, target in dashboards.queries(board)]
    texts += [variable["query"]["query"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    texts += [
        annotation["expr"]
        for annotation in board["annotations"]["list"]
        if "expr" in annotation and "ALERTS" not in annotation["expr"]
    ]
    names = {name for text in texts for name in re.findall(r"([a-zA-Z_:][\w:]*)\{", text)}
    assert len(names) > 10
    known = set(re.findall(r"`([a-zA-Z_:][\w:]*)`", CATALOGUE))
    unknown = {name for name in names if name not in known and re.sub(r"_(bucket|sum|count)$", "", name) not in known}
    assert not unknown


def test_grafana_is_told_where_they_are():
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["type"] == "prometheus" and source["jsonData"]["exemplarTraceIdDestinations"][0]["name"] == "trace_id"
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "tokenglass.yaml").read_text())["providers"]
    assert provider["type"] == "file" and provider["options"]["path"]


@pytest.mark.parametrize("path", ALL)
def test_each_runbook_is_there(path):
    urls = [
        link["url"]
        for panel in dashboards.panels(dashboards.load(path))
        for link in panel["links"]
        if "/runbooks/" in link["url"]
    ]
    assert urls
    assert [url for url in urls if not (RUNBOOKS / url.rsplit("/", 1)[1]).is_file()] == []


@pytest.mark.parametrize("path", ALL)
def test_panels_link_to_dashboards_that_exist(path):
    for panel in dashboards.panels(dashboards.load(path)):
        for link in panel["links"]:
            if link["url"].startswith("/d/"):
                uid, _, arguments = link["url"].removeprefix("/d/").partition("?")
                assert uid in UIDS and arguments == "${__url_time_range}&${__all_variables}"


def test_grafana_knows_all_that_is_in_them(installed, tmp_path):
    boards = {path.stem: dashboards.load(path) for path in dashboards.FILES}
    (tmp_path / "node_modules").symlink_to(installed)
    (tmp_path / "tsconfig.json").write_text(json.dumps(grafana_types.CONFIG))
    (tmp_path / "dashboards.ts").write_text(grafana_types.source(boards))
    compiler = installed / "typescript" / "bin" / "tsc"
    done = subprocess.run(["node", compiler, "-p", tmp_path], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[:4000]


# --- with data


class Fleet:
    """The small fleet, and two Prometheus that look at it."""

    def __init__(self, world):
        self.began = time.time()
        self.new = live.Prometheus(world, "new", place=True)
        self.old = live.Prometheus(world, "old", place=False)

    def unanswered(self, prometheus, wanted):
        """Those of (dashboard, panel, target, query) without a number, asked again until they have or the time is up."""
        until = time.time() + SECONDS
        while True:
            end = time.time()
            span = min(int(end - self.began), SECONDS)
            wanted = [item for item in wanted if not dashboards.ask(prometheus, item[2], item[3], end, span)]
            if not wanted or end > until:
                return [(board, title, target["legendFormat"], query) for board, title, target, query in wanted]
            time.sleep(5)


@pytest.fixture(scope="session")
def fleet(installed):
    with live.World(tempo=0.15, rates=(1.5, 0.9, 0.5, 0.7)) as world:
        fleet = Fleet(world)
        time.sleep(max(0, SECONDS - 35))
        yield fleet


def wanted(**choices):
    """Every query of every panel, with the variables as they are at first or as chosen."""
    for path in dashboards.FILES:
        board = dashboards.load(path)
        values = dashboards.chosen(board, **choices)
        for title, target in dashboards.queries(board):
            yield path.stem, title, target, dashboards.expand(target["expr"], values)


def engines(items):
    """Without the one dashboard about what is before them."""
    return [item for item in items if item[0] != "gateway"]


@pytest.mark.parametrize("version", ["new", "old"])
def test_every_query_has_an_answer(fleet, version):
    """From Prometheus 3 with the labels `cluster` and `namespace`, and from 2.42 without."""
    assert fleet.unanswered(getattr(fleet, version), list(wanted())) == []


@pytest.mark.parametrize("instance", ["llama-0", "qwen-0"])
def test_every_query_has_an_answer_whatever_the_names(fleet, instance):
    """vLLM's names of today and DCGM's of before 4.7; vLLM's of 0.8 and DCGM's of 4.7."""
    assert fleet.unanswered(fleet.new, engines(wanted(instance=f"{instance}:9101"))) == []


def test_what_the_wire_knows_is_there_without_metrics_of_vllm(fleet):
    items = [
        item
        for item in engines(wanted(instance="mistral-0:9101"))
        if item[0] != "gpu-overview"
        and item[2]["legendFormat"] not in ENGINE_ONLY.get(item[1], ())
        # One request in ten fails, of one in two seconds: not each of these happens in a minute.
        and item[1] not in ("Errors by kind", "Cancels by phase")
    ]
    assert len(items) > 60
    assert fleet.unanswered(fleet.new, items) == []


def test_several_values_can_be_chosen(fleet):
    # As Grafana writes them: escaped for a regular expression within a string.
    items = engines(
        wanted(
            model=r"(llama-3\\.3-70b|qwen3-32b)",
            instance="(llama-0:9101|qwen-0:9101)",
            cluster="eu-west",
            namespace="inference",
        )
    )
    assert fleet.unanswered(fleet.new, items) == []


def test_one_upstream_can_be_chosen(fleet):
    names = fleet.new.get("label/upstream/values", **{"match[]": "tokenglass_upstream_healthy"})
    assert len(names) == 2
    for name in names:
        items = [item for item in wanted(upstream=name) if item[0] == "gateway"]
        assert len(items) > 20 and fleet.unanswered(fleet.new, items) == []


def test_one_tenant_can_be_chosen(fleet):
    items = [
        item
        for item in wanted(tenant="search")
        if item[1] in ("Requests per second", "Latency", "Success, errors, cancels", "Tenants")
        and item[2]["refId"] == "A"
    ]
    assert len(items) == 5
    assert fleet.unanswered(fleet.new, items) == []


@pytest.mark.parametrize("version", ["new", "old"])
@pytest.mark.parametrize("path", ALL)
def test_every_variable_has_values(fleet, path, version):
    board = dashboards.load(path)
    prometheus, values = getattr(fleet, version), dashboards.chosen(board)
    found = {}
    for name, variable in dashboards.variables(board).items():
        if variable["type"] == "query":
            series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
            found[name] = prometheus.get(f"label/{label}/values", **{"match[]": dashboards.expand(series, values)})
    if version == "new":
        assert found["cluster"] == ["eu-west"] and found["namespace"] == ["inference"]
    assert {name for name, values in found.items() if not values} <= (PLACE if version == "old" else set())
    assert {"search", "batch"} <= set(found["tenant"]) and {"llama-3.3-70b", "qwen3-32b"} <= set(found["model"])
    assert found["instance"] == ["gateway-0:9101", "llama-0:9101", "mistral-0:9101", "qwen-0:9101"]


def test_a_query_without_an_answer_is_noticed(fleet):
    for target in ({"instant": True}, {"instant": False}):
        for query in ("no_such_metric", "vector(0) / 0", "vector(1) / 0"):
            assert dashboards.ask(fleet.new, target, query, time.time(), 20) == []
        assert dashboards.ask(fleet.new, target, "vector(0)", time.time(), 20)


def test_the_annotations_are_valid(fleet):
    for path in dashboards.FILES:
        board = dashboards.load(path)
        for annotation in board["annotations"]["list"]:
            if "expr" in annotation:
                for prometheus in (fleet.new, fleet.old):
                    prometheus.get("query", query=dashboards.expand(annotation["expr"], dashboards.chosen(board)))


def test_a_browser_draws_every_panel(fleet, tmp_path):
    command = [
        GRAFANA / "render" / "run",
        fleet.new.url,
        "--out",
        tmp_path,
        "--minutes",
        str(SECONDS / 60),
        "--scrape",
        "5",
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=240, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = json.loads(done.stdout)
    assert len(outcomes) == len(UIDS)
    for name, outcome in outcomes.items():
        assert outcome["panels"] == len(dashboards.panels(dashboards.load(GRAFANA / "dashboards" / f"{name}.json")))
        assert outcome["empty"] == outcome["errors"] == [] and outcome["silent"] == [], (name, outcome)
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
