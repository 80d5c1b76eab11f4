"""The variables of all dashboards, and the selectors that use them.

A dashboard must show something on the first import, with whatever labels are there. Hence "All" is `.*` and each matcher
`=~`: that matches a series that lacks the label too, so `cluster`, `namespace` and `tenant` need not exist.
"""

# How tenants are told apart is configured, `tenants.labels = ["tenant=header:X-Team"]`; the dashboards know this label.
TENANT = "tenant"

TARGET = 'cluster=~"$cluster",namespace=~"$namespace",instance=~"$instance"'
# What tokenglass measures on the wire has `model`, what vLLM says of itself `model_name`.
WIRE = f'{TARGET},model=~"$model",{TENANT}=~"$tenant"'
ENGINE = f'{TARGET},model_name=~"$model"'
# What the gateway measures of each of its upstreams.
UPSTREAM = f'{TARGET},upstream=~"$upstream"'
# An engine, whatever the labels of its series: for `or on (...)`.
SAME_TARGET = "cluster, namespace, instance"

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_ALL = {"selected": True, "text": ["All"], "value": ["$__all"]}


def _labels(name, title, series, label, description):
    query = f"label_values({series}, {label})"
    return {
        "name": name,
        "label": title,
        "description": description,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": f"variable-{name}"},
        "refresh": 2,
        "regex": "",
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": _ALL,
        "options": [],
        "hide": 0,
        "skipUrlSync": False,
    }


def choice(name, title, values, default, description):
    """A value out of a few: a bucket's edge, a token source."""
    return {
        "name": name,
        "label": title,
        "description": description,
        "type": "custom",
        "query": ",".join(values),
        "multi": False,
        "includeAll": False,
        "current": {"selected": True, "text": default, "value": default},
        "options": [{"selected": value == default, "text": value, "value": value} for value in values],
        "hide": 0,
        "skipUrlSync": False,
    }


def sources():
    """By where a token count comes from."""
    wire = f"vllm_output_tokens_per_request_count{{{TARGET}}}"
    return _labels("source", "Token source", wire, "source", "Where the token counts of the heat maps come from.")


def upstreams():
    """Of a gateway."""
    healthy = f"tokenglass_upstream_healthy{{{TARGET}}}"
    return _labels("upstream", "Upstream", healthy, "upstream", "One vLLM behind the gateway, host:port.")


def common():
    build = "tokenglass_build_info"
    place = 'cluster=~"$cluster",namespace=~"$namespace"'
    requests = "vllm_request_duration_seconds_count"
    return [
        {
            "name": "datasource",
            "label": "Data source",
            "description": "The Prometheus that scrapes tokenglass.",
            "type": "datasource",
            "query": "prometheus",
            "regex": "",
            "refresh": 1,
            "multi": False,
            "includeAll": False,
            "current": {"selected": False, "text": "", "value": ""},
            "options": [],
            "hide": 0,
            "skipUrlSync": False,
        },
        _labels("cluster", "Cluster", build, "cluster", "As the scrape labels it; empty without such a label."),
        _labels(
            "namespace",
            "Namespace",
            f'{build}{{cluster=~"$cluster"}}',
            "namespace",
            "As the scrape labels it; empty without such a label.",
        ),
        _labels(
            "model",
            "Model",
            f"{requests}{{{place}}}",
            "model",
            "vLLM's own series know base models only: with a LoRA adapter chosen, panels about the engine are empty.",
        ),
        _labels("instance", "Instance", f"{build}{{{place}}}", "instance", "One tokenglass: a sidecar or a gateway."),
        _labels(
            "tenant",
            "Tenant",
            f'{requests}{{{TARGET},model=~"$model"}}',
            TENANT,
            'The tenant label, tenants.labels = ["tenant=header:X-Team"]; empty without.',
        ),
    ]
