"""Where a dashboard leads to."""

# The one place that knows where the runbooks are.
RUNBOOKS = "https://github.com/tokenglass/tokenglass/blob/main/docs/runbooks"
CATALOGUE = "https://github.com/tokenglass/tokenglass/blob/main/docs/metrics-catalog.md"
TAG = "tokenglass"

GPU, INFERENCE, REQUESTS = "tokenglass-gpu", "tokenglass-inference", "tokenglass-requests"
GATEWAY = "tokenglass-gateway"
_TITLES = {GPU: "GPU overview", INFERENCE: "Inference performance", REQUESTS: "Request analysis", GATEWAY: "Gateway"}


def runbook(alert):
    return {"title": f"Runbook: {alert}", "url": f"{RUNBOOKS}/{alert}.md", "targetBlank": True}


def dashboard(uid):
    """From a panel, with its time range and variables."""
    return {"title": _TITLES[uid], "url": f"/d/{uid}?${{__url_time_range}}&${{__all_variables}}", "targetBlank": False}


def of_dashboard():
    base = {
        "asDropdown": False,
        "icon": "external link",
        "includeVars": False,
        "keepTime": False,
        "tags": [],
        "targetBlank": True,
        "tooltip": "",
        "type": "link",
        "url": "",
    }
    return [
        # By tag, since a link by path would not survive a Grafana that is served below a path.
        {
            **base,
            "type": "dashboards",
            "title": "tokenglass",
            "tags": [TAG],
            "includeVars": True,
            "keepTime": True,
            "targetBlank": False,
        },
        {
            **base,
            "icon": "doc",
            "title": "Runbooks",
            "url": RUNBOOKS.replace("/blob/", "/tree/"),
            "tooltip": "A page for each alert",
        },
        {**base, "icon": "info", "title": "Metrics", "url": CATALOGUE, "tooltip": "What each metric means"},
    ]
