"""Cases of the alerts on the gateway and its upstreams."""

from base import Alert, grows, halted, same

PLACE = 'instance="tg:9101",job="tokenglass"'
AT = {"instance": "tg:9101"}


def made(name, summary):
    return Alert(name, "gateway", "tokenglass-gateway", summary)


def of(family, upstream="a:8000"):
    return f'{family}{{{PLACE},upstream="{upstream}"}}'


def upstreams():
    none = made("GatewayNoUpstreamHealthy", "The gateway has no upstream that is well")
    a, b = of("tokenglass_upstream_healthy"), of("tokenglass_upstream_healthy", "b:8000")
    text = "tg:9101 has nowhere to send requests: each of its upstreams fails, or none was found."
    fired = none.fires("critical", text, **AT)
    none.case("both fail for a minute", {a: "1 1 0+0x20", b: "1 0+0x21"}, ("1m30s", []), ("2m", [fired]))
    none.case("one is well", {a: same(0), b: same(1)}, ("20m", []))
    none.case("one is well again", {a: "0+0x6 1+0x20", b: same(0)}, ("3m", [fired]), ("3m30s", []))
    none.case("by turns", {a: "0 1 0 1 0 1 0 1 0 1", b: "1 0 1 0 1 0 1 0 1 0"}, ("4m30s", []))
    found = f'tokenglass_discovery_upstreams{{{PLACE},target="kubernetes:vllm/vllm:8000"}}'
    none.case("none is found", {found: same(0)}, ("30s", []), ("1m30s", [fired]))
    none.case("the last one goes", {found: "1 1 0+0x20", a: "1 1 stale"}, ("1m30s", []), ("2m30s", [fired]))
    none.case("none is found, but one is set", {found: same(0), a: same(1)}, ("20m", []))
    other = found.replace("vllm:8000", "other:8000")
    none.case("one of two places has some", {found: same(0), other: same(2)}, ("20m", []))

    ejected = made("GatewayUpstreamEjected", "An upstream of the gateway is left alone again and again")
    series = of("tokenglass_upstream_ejections_total")
    text = "tg:9101 has left a:8000 alone 3 times in 15 minutes, since its requests fail."
    fired = ejected.fires("warning", text, upstream="a:8000", **AT)
    ejected.case("three times", {series: "0 0 1 2 3+0x60"}, ("1m30s", []), ("2m30s", [fired]), ("18m", []))
    ejected.case("twice", {series: "0 0 1 2+0x60"}, ("2m", []), ("10m", []))
    ejected.case("twice each of two", {series: "0 0 1 2+0x60", of("tokenglass_upstream_ejections_total", "b:8000"): "0 0 1 2+0x60"}, ("5m", []))
    return none, ejected


def places():
    rejected = made("GatewayRequestsRejected", "The gateway turns requests away")
    series = f'tokenglass_gateway_rejected_total{{{PLACE},reason="full"}}'
    text = "tg:9101 answers 0.1 requests a second with 503 itself: full."
    fired = rejected.fires("warning", text, reason="full", **AT)
    rejected.case("one in 10 s", {series: grows(3)}, ("7m", []), ("8m30s", [fired]))
    rejected.case("ends", halted({series: grows(3)}), ("9m", [fired]), ("15m30s", []))
    rejected.case("one in 30 s is little", {series: grows(1)}, ("25m", []))
    rejected.case("a burst", {series: "0+0x4 30+0x60"}, ("4m", []), ("8m", []))
    late = {series.replace("full", "timeout"): grows(3)}
    text = text.replace("full", "timeout")
    rejected.case("after waiting", late, ("8m30s", [rejected.fires("warning", text, reason="timeout", **AT)]))

    queue = made("GatewayQueueLong", "Requests wait in the gateway all the time")
    series = f"tokenglass_gateway_queue{{{PLACE}}}"
    fired = queue.fires("warning", "7 requests wait in tg:9101 for a place at an upstream.", **AT)
    queue.case("for 5 minutes", {series: same(7)}, ("4m30s", []), ("5m30s", [fired]))
    queue.case("now and then none", {series: "7 7 7 7 7 7 7 0 7 7 7 7 7 7 7 0 7 7"}, ("8m", []))
    queue.case("empty again", {series: "7+0x12 0+0x10"}, ("6m", [fired]), ("7m", []))
    queue.case("nobody waits", {series: same(0)}, ("20m", []))
    return rejected, queue


def alerts():
    return [*upstreams(), *places()]
