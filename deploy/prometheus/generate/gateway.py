"""The gateway: whether requests find a place at one of several upstreams."""

from alert import alert
from promql import KEEP, UPSTREAM, number
from settings import limits

LAYER = "gateway"
PLACE = f"{KEEP}, instance"


def above(name):
    return number(limits(name, "warning")["above"])


def upstreams():
    healthy = f"max by ({PLACE}) (tokenglass_upstream_healthy)"
    yield alert(
        # One that is gone has no series: then it is what was looked for and not found.
        "GatewayNoUpstreamHealthy", LAYER, "critical",
        f"{healthy} == 0\n"
        f"or\n"
        f"(sum by ({PLACE}) (tokenglass_discovery_upstreams) == 0 unless {healthy})",
        "The gateway has no upstream that is well",
        "{{ $labels.instance }} has nowhere to send requests: each of its upstreams fails, or none was found.",
    )
    yield alert(
        # Whole numbers: increase() makes 2.03 of 2.
        "GatewayUpstreamEjected", LAYER, "warning",
        f"round(sum by ({UPSTREAM}) (increase(tokenglass_upstream_ejections_total[15m])))"
        f" > {above('GatewayUpstreamEjected')}",
        "An upstream of the gateway is left alone again and again",
        "{{ $labels.instance }} has left {{ $labels.upstream }} alone {{ $value }} times in 15 minutes, since its requests fail.",
    )


def places():
    yield alert(
        "GatewayRequestsRejected", LAYER, "warning",
        f"sum by ({PLACE}, reason) (rate(tokenglass_gateway_rejected_total[5m])) > {above('GatewayRequestsRejected')}",
        "The gateway turns requests away",
        "{{ $labels.instance }} answers {{ $value | printf \"%.2g\" }} requests a second with 503 itself: {{ $labels.reason }}.",
    )
    yield alert(
        "GatewayQueueLong", LAYER, "warning",
        f"sum by ({PLACE}) (tokenglass_gateway_queue) > {above('GatewayQueueLong')}",
        "Requests wait in the gateway all the time",
        "{{ $value }} requests wait in {{ $labels.instance }} for a place at an upstream.",
    )


def groups():
    return [{"name": "tokenglass-gateway-alerts", "rules": [*upstreams(), *places()]}]
