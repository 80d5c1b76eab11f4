"""Runbooks: one an alert, with queries that run. And no link in the documents leads nowhere."""

import re
import tomllib
import urllib.parse

import pytest
import yaml
from deployed import ROOT, RUNBOOKS, VERSIONS, alerts, names, promtool, run
from test_rules import in_catalogue, metric_names

SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation", "Verification", "False positives"]
PAGES = sorted(path for path in RUNBOOKS.glob("*.md") if path.name != "README.md")
DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("loadtest/**/*.md"), *ROOT.glob("deploy/**/*.md")])
LAYERS = {"gpu": "GPU", "inference": "Inference", "business": "Business", "gateway": "Gateway", "meta": "Meta"}


def read(path):
    return path.read_text(encoding="utf-8")


def queries(path):
    return [block.strip() for block in re.findall(r"```promql\n(.*?)```", read(path), re.DOTALL)]


def test_each_alert_has_a_page_and_each_page_an_alert():
    assert [path.stem for path in PAGES] == names()
    assert {rule["annotations"]["runbook_url"].rsplit("/", 1)[1] for rule in alerts()} == {path.name for path in PAGES}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_page(path):
    text = read(path)
    assert text.startswith(f"# {path.stem}\n")
    assert re.findall(r"(?m)^## (.+)$", text) == SECTIONS
    assert queries(path), "no query to diagnose with"
    bodies = re.split(r"(?m)^## .+\n", text)[1:]
    assert all(len(body.split()) >= 10 for body in bodies), "an empty section"
    assert 25 <= len(text.splitlines()) <= 60
    # Who is paged with which severity, as the rules have it.
    severities = sorted({rule["labels"]["severity"] for rule in alerts() if rule["alert"] == path.stem})
    for severity in severities:
        assert severity in text.split("##", 1)[0], f"{severity} is not said above"


@pytest.mark.parametrize("version", VERSIONS)
def test_the_queries_are_promql(version, tmp_path):
    """As rules, since promtool checks those in all versions."""
    every = [
        {"record": f"query:{re.sub('[^a-z]', '_', path.stem.lower())}:q{number}", "expr": query}
        for path in DOCUMENTS
        for number, query in enumerate(queries(path))
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": every}]}))
    run(promtool(version), "check", "rules", file)


def test_the_queries_ask_for_what_exists():
    missing = {
        (path.name, name) for path in PAGES for query in queries(path) for name in metric_names(query) if not in_catalogue(name)
    }
    recorded = set(re.findall(r'record: "([^"]+)"', read(ROOT / "deploy/prometheus/rules/recording.yaml")))
    for path in PAGES:
        for query in queries(path):
            used = set(re.findall(r"\b(?:model|engine|gpu):\w+:\w+(?![\w.])", query))
            missing |= {(path.name, name) for name in used - recorded}
    assert not missing


def test_the_index_lists_every_alert_under_its_layer():
    text = read(RUNBOOKS / "README.md")
    for layer, title in LAYERS.items():
        section = re.search(rf"(?ms)^## {title}\b.*?(?=^## |\Z)", text)
        assert section, title
        listed = re.findall(r"\[(\w+)\]\((\w+)\.md\)", section[0])
        wanted = {rule["alert"] for rule in alerts() if rule["labels"]["layer"] == layer}
        assert {name for name, _ in listed} == {name for _, name in listed} == wanted
        for name in wanted:
            severities = {rule["labels"]["severity"] for rule in alerts() if rule["alert"] == name}
            (row,) = [line for line in section[0].splitlines() if f"({name}.md)" in line]
            assert all(severity in row for severity in severities)


def test_keys_of_the_configuration_exist():
    """Those that a page names: `observe.stall_after`."""
    known = tomllib.loads(read(ROOT / "config/tokenglass.toml"))
    named = {
        (path.name, section, key)
        for path in PAGES
        for section, key in re.findall(rf"`({'|'.join(known)})\.([a-z_]+)(?: =[^`]*)?`", read(path))
    }
    assert len(named) > 20
    assert not {each for each in named if each[2] not in known[each[1]]}


def anchors(path):
    """As GitHub makes them of headings."""
    made = []
    for heading in re.findall(r"(?m)^#+ (.+)$", re.sub(r"(?ms)^```.*?^```", "", read(path))):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        made.append(re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-"))
    return made


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links(path):
    # Code has brackets of its own.
    text = re.sub(r"`[^`\n]*`", "", re.sub(r"(?ms)^```.*?^```", "", read(path)))
    broken = []
    for target in re.findall(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text):
        address = urllib.parse.urlsplit(target)
        if address.scheme or address.netloc:
            continue
        file = (path.parent / urllib.parse.unquote(address.path)) if address.path else path
        if not file.exists():
            broken.append(target)
        elif address.fragment and file.suffix == ".md" and address.fragment not in anchors(file):
            broken.append(target)
    assert not broken
