"""Pieces of PromQL that the dashboards share."""

from .variables import ENGINE, SAME_TARGET, WIRE

RATE = "$__rate_interval"


def rate(metric, selector, window=RATE):
    return f"rate({metric}{{{selector}}}[{window}])"


def total(metric, selector, by="", window=RATE):
    """The rate of a counter, all series together or by labels."""
    group = f" by ({by})" if by else ""
    return f"sum{group} ({rate(metric, selector, window)})"


def quantile(q, histogram, selector=WIRE, by="", window=RATE):
    group = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({group}) ({rate(f'{histogram}_bucket', selector, window)}))"


def mean(histogram, selector):
    return f"{total(f'{histogram}_sum', selector)} / {total(f'{histogram}_count', selector)}"


def renamed(new, old, wrap="{}"):
    """One of vLLM's metrics that has had another name. Where both are there, `or` takes the new one of each pair."""
    return f"({wrap.format(f'{new}{{{ENGINE}}}')} or {wrap.format(f'{old}{{{ENGINE}}}')})"


def renamed_rate(new, old):
    return renamed(new, old, f"rate({{}}[{RATE}])")


def as_model(expression):
    """vLLM's `model_name` as `model`, to stand beside what is measured on the wire."""
    return f'label_replace({expression}, "model", "$1", "model_name", "(.+)")'


def engine_or_wire(engine, wire):
    """What vLLM says; of a target where it says nothing, what was measured on the wire."""
    return f"({engine} or on ({SAME_TARGET}) {wire})"


def fallback(first, second):
    """The second only where the first is not there at all; a bare `or` would add what has other labels."""
    return f"{first} or on () {second}"


def within(histogram, edge, selector=WIRE, by=""):
    """The share of a histogram's observations up to one of its edges. Prometheus 3 writes 1 as 1.0."""
    below = f'{selector},le=~"{edge}(\\\\.0)?"'
    return f"{total(f'{histogram}_bucket', below, by)} / {total(f'{histogram}_count', selector, by)}"


def or_zero(expression, like):
    """0 where the metric is not there yet, but only where a thing that it belongs to is."""
    return f"({expression} or 0 * {like})"
