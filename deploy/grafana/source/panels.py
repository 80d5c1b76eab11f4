"""Builders of panels, and the board that lays them out.

Only panels that Grafana itself brings, with options that Grafana 10 to 13 all know.
"""

from . import links
from .variables import DATASOURCE

GREEN, YELLOW, RED, BLUE, PURPLE, ORANGE = "green", "yellow", "red", "blue", "purple", "orange"
WIDTH = 24


def rising(yellow, red):
    """More is worse."""
    return [(None, GREEN), (yellow, YELLOW), (red, RED)]


def falling(yellow, green):
    """Less is worse: red below `yellow`, green from `green`."""
    return [(None, RED), (yellow, YELLOW), (green, GREEN)]


def neutral(colour=BLUE):
    """A measure that is neither good nor bad in itself."""
    return [(None, colour)]


def query(expr, legend="", *, exemplar=False, instant=False, table=False, heat=False):
    return {
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": expr,
        "legendFormat": legend or "__auto",
        "range": not instant,
        "instant": instant,
        "exemplar": exemplar,
        "format": "table" if table else "heatmap" if heat else "time_series",
    }


def latency(expr, legend=""):
    """With exemplars: a dot on the graph leads to the trace of that request."""
    return query(expr, legend, exemplar=True)


def override(name, **properties):
    """Properties of one series by its name; `a__b` stands for `a.b`, and a name in slashes is a regular expression."""
    matcher = "byRegexp" if name.startswith("/") else "byName"
    return {
        "matcher": {"id": matcher, "options": name},
        "properties": [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()],
    }


def colour(name, fixed):
    return override(name, color={"mode": "fixed", "fixedColor": fixed})


def dashed(name, fixed=None):
    properties = {"custom__lineStyle": {"fill": "dash", "dash": [8, 6]}, "custom__fillOpacity": 0}
    if fixed:
        properties["color"] = {"mode": "fixed", "fixedColor": fixed}
    return override(name, **properties)


def mapping(texts):
    """{value: (text, colour)}"""
    options = {
        str(value): {"text": text, "color": shade, "index": index}
        for index, (value, (text, shade)) in enumerate(texts.items())
    }
    return {"type": "value", "options": options}


def span(start, end, text, shade, index):
    """All values from `start` to `end`; None is no end."""
    return {
        "type": "range",
        "options": {"from": start, "to": end, "result": {"text": text, "color": shade, "index": index}},
    }


def _panel(
    kind,
    title,
    description,
    queries,
    unit,
    steps,
    *,
    minimum=None,
    maximum=None,
    decimals=None,
    colours="palette-classic",
    overrides=(),
    custom=None,
    options=None,
    mappings=(),
    see=(),
    transformations=(),
    no_value=None,
):
    defaults = {
        "unit": unit,
        "color": {"mode": colours},
        "thresholds": {"mode": "absolute", "steps": [{"color": shade, "value": value} for value, shade in steps]},
        "mappings": list(mappings),
    }
    for key, value in (("min", minimum), ("max", maximum), ("decimals", decimals), ("noValue", no_value)):
        if value is not None:
            defaults[key] = value
    if custom is not None:
        defaults["custom"] = custom
    panel = {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "targets": [{**target, "refId": chr(ord("A") + index)} for index, target in enumerate(queries)],
        "fieldConfig": {"defaults": defaults, "overrides": list(overrides)},
        "options": options or {},
        "links": list(see),
        "transparent": False,
    }
    if transformations:
        panel["transformations"] = list(transformations)
    return panel


def lines(
    title,
    description,
    queries,
    unit,
    steps,
    *,
    stacked=None,
    fill=10,
    bars=False,
    lines_at=False,
    label="",
    calcs=("mean", "max", "lastNotNull"),
    **more,
):
    """Series over time. `stacked` is "normal" or "percent"; `lines_at` draws the thresholds into the graph."""
    custom = {
        "drawStyle": "bars" if bars else "line",
        "lineInterpolation": "linear",
        "lineWidth": 1 if bars or stacked else 2,
        "fillOpacity": 60 if bars else 35 if stacked else fill,
        "gradientMode": "none" if bars or stacked else "opacity",
        "showPoints": "never",
        "pointSize": 5,
        "spanNulls": False,
        "insertNulls": False,
        "axisPlacement": "auto",
        "axisLabel": label,
        "axisColorMode": "text",
        "axisBorderShow": False,
        "axisCenteredZero": False,
        "scaleDistribution": {"type": "linear"},
        "barAlignment": 0,
        "stacking": {"mode": stacked or "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if lines_at else "off"},
        "hideFrom": {"legend": False, "tooltip": False, "viz": False},
    }
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": list(calcs)},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    more.setdefault("minimum", 0)
    return _panel("timeseries", title, description, queries, unit, steps, custom=custom, options=options, **more)


def stat(title, description, queries, unit, steps, *, graph=True, background=False, **more):
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": "auto",
        "textMode": "auto",
        "colorMode": "background" if background else "value",
        "graphMode": "area" if graph else "none",
        "justifyMode": "auto",
        "wideLayout": True,
        "showPercentChange": False,
    }
    return _panel("stat", title, description, queries, unit, steps, colours="thresholds", options=options, **more)


def gauge(title, description, queries, unit, steps, minimum, maximum, **more):
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": "auto",
        "showThresholdLabels": False,
        "showThresholdMarkers": True,
        "sizing": "auto",
        "minVizHeight": 75,
        "minVizWidth": 75,
    }
    return _panel(
        "gauge",
        title,
        description,
        queries,
        unit,
        steps,
        minimum=minimum,
        maximum=maximum,
        colours="thresholds",
        options=options,
        **more,
    )


def bars(title, description, queries, unit, steps, minimum, maximum, **more):
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": "horizontal",
        "displayMode": "lcd",
        "valueMode": "color",
        "namePlacement": "auto",
        "showUnfilled": True,
        "sizing": "auto",
        "minVizHeight": 16,
        "minVizWidth": 8,
        "maxVizHeight": 300,
    }
    return _panel(
        "bargauge",
        title,
        description,
        queries,
        unit,
        steps,
        minimum=minimum,
        maximum=maximum,
        colours="thresholds",
        options=options,
        **more,
    )


def heat(title, description, expr, unit, scheme="Turbo", **more):
    """Of a histogram, whose buckets the query gives by `le`."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {
            "mode": "scheme",
            "scheme": scheme,
            "fill": "dark-orange",
            "scale": "exponential",
            "exponent": 0.5,
            "steps": 64,
            "reverse": False,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
    }
    custom = {"hideFrom": {"legend": False, "tooltip": False, "viz": False}, "scaleDistribution": {"type": "linear"}}
    return _panel(
        "heatmap",
        title,
        description,
        [query(expr, "{{le}}", heat=True)],
        "reqps",
        neutral(),
        custom=custom,
        options=options,
        **more,
    )


def states(title, description, queries, steps, mappings, **more):
    options = {
        "mergeValues": True,
        "showValue": "never",
        "alignValue": "left",
        "rowHeight": 0.85,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    custom = {"fillOpacity": 75, "lineWidth": 0, "hideFrom": {"legend": False, "tooltip": False, "viz": False}}
    return _panel(
        "state-timeline",
        title,
        description,
        queries,
        "none",
        steps,
        colours="thresholds",
        custom=custom,
        options=options,
        mappings=mappings,
        **more,
    )


def table(title, description, columns, first, unit, sort, *, down=True, steps=None, see=()):
    """Rows by labels, columns by instant queries: `first` names the labels, `columns` are (name, query, unit, steps or None)."""
    targets = [query(expr, instant=True, table=True) for _, expr, *_ in columns]
    names = {f"Value #{chr(ord('A') + index)}": column[0] for index, column in enumerate(columns)}
    order = {name: index for index, name in enumerate([*first, *names])}
    overrides = []
    for name, _, column_unit, column_steps in columns:
        properties = {
            "unit": column_unit,
            "decimals": {"none": 0, "short": 0, "celsius": 0, "percent": 0}.get(column_unit, 2),
        }
        if column_steps:
            properties["thresholds"] = {
                "mode": "absolute",
                "steps": [{"color": s, "value": v} for v, s in column_steps],
            }
            properties["custom__cellOptions"] = {"type": "color-text"}
            properties["color"] = {"mode": "thresholds"}
        overrides.append(override(name, **properties))
    transformations = [
        {"id": "merge", "options": {}},
        {
            "id": "organize",
            "options": {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": {**first, **names}},
        },
    ]
    options = {"showHeader": True, "cellHeight": "sm", "sortBy": [{"displayName": sort, "desc": down}]}
    custom = {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": False, "inspect": False}
    return _panel(
        "table",
        title,
        description,
        targets,
        unit,
        steps or neutral(),
        overrides=overrides,
        custom=custom,
        options=options,
        transformations=transformations,
        see=see,
    )


class Board:
    """Puts panels side by side, and below each other once a line is full."""

    def __init__(self, uid, title, description, variables, tags):
        self.uid, self.title, self.description = uid, title, description
        self.variables, self.tags = variables, tags
        self.panels = []
        self.x = self.y = self.height = 0

    def row(self, title):
        self._break()
        self._place({"type": "row", "title": title, "collapsed": False, "panels": []}, WIDTH, 1)
        self._break()

    def add(self, width, height, *panels):
        for panel in panels:
            if self.x + width > WIDTH:
                self._break()
            self._place(panel, width, height)

    def _place(self, panel, width, height):
        panel = {"id": len(self.panels) + 1, **panel, "gridPos": {"h": height, "w": width, "x": self.x, "y": self.y}}
        self.panels.append(panel)
        self.x += width
        self.height = max(self.height, height)

    def _break(self):
        self.y += self.height
        self.x = self.height = 0

    def json(self):
        return {
            "id": None,
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": [links.TAG, *self.tags],
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "timepicker": {},
            "timezone": "browser",
            "weekStart": "",
            "fiscalYearStartMonth": 0,
            "liveNow": False,
            "links": links.of_dashboard(),
            "annotations": {"list": self._annotations()},
            "templating": {"list": self.variables},
            "panels": self.panels,
        }

    def _annotations(self):
        target = 'cluster=~"$cluster",namespace=~"$namespace",instance=~"$instance"'
        common = {"datasource": DATASOURCE, "hide": False}

        def asked(expr):
            # Grafana 10 looks at the first, later ones at the second.
            return {"expr": expr, "target": {"refId": "Anno", "expr": expr, "interval": "30s"}}

        return [
            {
                "builtIn": 1,
                "datasource": {"type": "grafana", "uid": "-- Grafana --"},
                "enable": True,
                "hide": True,
                "iconColor": "rgba(0, 211, 255, 1)",
                "name": "Annotations & Alerts",
                "type": "dashboard",
            },
            {
                **common,
                "enable": True,
                "name": "tokenglass started",
                "iconColor": "blue",
                "titleFormat": "tokenglass started",
                "textFormat": "{{instance}}",
                **asked(f"changes(process_start_time_seconds{{{target}}}[1m]) > 0"),
            },
            {
                **common,
                "name": "Alerts",
                "iconColor": "red",
                "titleFormat": "{{alertname}}",
                "textFormat": "{{severity}} {{instance}} {{model}}",
                "tagKeys": "alertname,severity",
                "enable": False,
                **asked('ALERTS{alertstate="firing",cluster=~"$cluster",namespace=~"$namespace"}'),
            },
        ]
