"""One alert rule, and one recording rule."""

from settings import URLS, limits

# The dashboard on which one sees more of it.
DASHBOARDS = {
    "gpu": "tokenglass-gpu",
    "inference": "tokenglass-inference",
    "business": "tokenglass-requests",
    "gateway": "tokenglass-gateway",
    "meta": "tokenglass-requests",
}


def rule(name, layer, severity, expr, summary, description, hold=None, labels=None):
    made = {"alert": name, "expr": expr}
    if hold:
        made["for"] = hold
    made["labels"] = {"severity": severity, "layer": layer} | (labels or {})
    made["annotations"] = {
        "summary": summary,
        "description": description,
        "runbook_url": f"{URLS['runbooks']}/{name}.md",
        "dashboard_url": f"{URLS['dashboards']}/d/{DASHBOARDS[layer]}",
    }
    return made


def alert(name, layer, severity, expr, summary, description):
    """An alert with its duration from thresholds.toml."""
    return rule(name, layer, severity, expr, summary, description, limits(name, severity).get("for"))


def record(name, expr, labels=None):
    made = {"record": name, "expr": expr}
    if labels:
        made["labels"] = labels
    return made
