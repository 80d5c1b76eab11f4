"""The dashboards as they are in the repository, and their queries as Grafana would send them."""

import json
import math
import pathlib
import re

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
GRAFANA = REPOSITORY / "deploy" / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
# Not the $1 of label_replace: Grafana leaves alone what is no variable.
VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)\}?")
# Of Grafana's own, and short enough for a test that lasts a minute.
BUILTIN = {"__rate_interval": "20s", "__range": "1m", "__interval": "2s"}


def load(path):
    return json.loads(path.read_text())


def variables(dashboard):
    return {variable["name"]: variable for variable in dashboard["templating"]["list"]}


def chosen(dashboard, **choices):
    """What each variable stands for: all, or the default, or what is chosen."""
    values = dict(BUILTIN)
    for name, variable in variables(dashboard).items():
        if variable["type"] == "query":
            values[name] = variable["allValue"]
        elif variable["type"] == "custom":
            values[name] = variable["current"]["value"]
    return {**values, **choices}


def expand(text, values):
    def value(match):
        assert match[1] in values, f"${match[1]} is no variable: {text}"
        return values[match[1]]

    return VARIABLE.sub(value, text)


def panels(dashboard):
    """Those with queries."""
    return [panel for panel in dashboard["panels"] if panel["type"] not in ("row", "text")]


def queries(dashboard):
    """(panel's title, target) each."""
    return [(panel["title"], target) for panel in panels(dashboard) for target in panel["targets"]]


def finite(series):
    values = series.get("values") or [series["value"]]
    return any(not math.isnan(number) and not math.isinf(number) for number in (float(value) for _, value in values))


def ask(prometheus, target, expression, end, seconds):
    """The series with at least one number, of an instant query or of one over so many seconds."""
    if target.get("instant"):
        data = prometheus.get("query", query=expression, time=end)
    else:
        data = prometheus.get("query_range", query=expression, start=end - seconds, end=end, step=2)
    return [series for series in data["result"] if finite(series)]
