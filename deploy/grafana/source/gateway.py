"""Gateway: which of several upstreams gets the requests, how each does, and who waits or is turned away."""

from . import links, variables
from .links import runbook
from .panels import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    Board,
    colour,
    falling,
    lines,
    mapping,
    neutral,
    override,
    query,
    rising,
    stat,
    states,
    table,
)
from .promql import or_zero, quantile, total
from .variables import SAME_TARGET, TARGET, UPSTREAM, WIRE

REQUESTS, ERRORS, RETRIES = (f"tokenglass_upstream_{what}_total" for what in ("requests", "errors", "retries"))
EJECTIONS, LATENCY = "tokenglass_upstream_ejections_total", "tokenglass_upstream_latency_seconds"
HEALTHY, IN_FLIGHT = (f"tokenglass_upstream_{what}{{{UPSTREAM}}}" for what in ("healthy", "in_flight"))
QUEUE, REJECTED = f"tokenglass_gateway_queue{{{TARGET}}}", "tokenglass_gateway_rejected_total"
# Of the requests that an upstream got.
SHARE = rising(0.01, 0.05)
NAME = "{{upstream}}"


def like():
    """What is 0 where no request of the kind has been."""
    return f"sum(tokenglass_build_info{{{TARGET}}})"


def board():
    board = Board(
        links.GATEWAY,
        "tokenglass / Gateway",
        "Several upstreams behind tokenglass: which gets the requests, how each does, who waits and who is turned away.",
        variables.common() + [variables.upstreams()],
        ["gateway"],
    )
    first_row(board)
    upstreams(board)
    failing(board)
    places(board)
    discovery(board)
    return board


def first_row(board):
    board.row("Now")
    board.add(
        6,
        5,
        stat(
            "Upstreams that are well",
            "Of the gateway that has the fewest: /health is answered, and it is not left alone after failures.",
            [
                query(f"min(sum by ({SAME_TARGET}) ({HEALTHY}))", "well"),
                query(f"max(count by ({SAME_TARGET}) ({HEALTHY}))", "of"),
            ],
            "none",
            falling(1, 2),
            graph=False,
            overrides=[
                override("of", thresholds={"mode": "absolute", "steps": [{"color": BLUE, "value": None}]}),
            ],
            see=[runbook("GatewayNoUpstreamHealthy")],
        ),
        stat(
            "Waiting",
            "Requests that wait in the gateways for a place at an upstream, gateway.queue.",
            [query(f"sum({QUEUE})", "waiting")],
            "short",
            rising(1, 10),
            see=[runbook("GatewayQueueLong")],
        ),
        stat(
            "Turned away",
            "Requests that the gateways answered with 503 themselves.",
            [query(total(REJECTED, TARGET), "rejected")],
            "reqps",
            rising(0.01, 0.05),
            see=[runbook("GatewayRequestsRejected")],
        ),
        stat(
            "Left alone",
            "Times that an upstream was left alone after failures in a row, over the range on screen.",
            [query(f"round(sum(increase({EJECTIONS}{{{UPSTREAM}}}[$__range])))", "times")],
            "none",
            rising(1, 3),
            graph=False,
            see=[runbook("GatewayUpstreamEjected")],
        ),
    )


def upstreams(board):
    board.row("Upstreams")
    board.add(
        24,
        7,
        states(
            "Whether requests go there",
            "By upstream, the worst that a gateway says of it: DOWN while /health fails, or while it is left alone.",
            [query(f"min by (upstream) ({HEALTHY})", NAME)],
            [(None, RED), (1, GREEN)],
            [mapping({0: ("DOWN", RED), 1: ("UP", GREEN)})],
            see=[runbook("GatewayUpstreamEjected"), runbook("GatewayNoUpstreamHealthy")],
        ),
    )
    board.add(
        8,
        9,
        lines(
            "Requests by upstream",
            "Sent there, those tried again included. Of two drawn at random the one with fewer requests gets the next.",
            [query(total(REQUESTS, UPSTREAM, "upstream"), NAME)],
            "reqps",
            neutral(),
            stacked="normal",
        ),
        lines(
            "In flight by upstream",
            "Until their answers have ended, of all gateways. One above the others is slower, not unlucky.",
            [query(f"sum by (upstream) ({IN_FLIGHT})", NAME)],
            "short",
            neutral(),
        ),
        lines(
            "Head latency P95 by upstream",
            "Request head sent to answer's head received. Of what is no stream the whole generation is in it.",
            [query(quantile(0.95, LATENCY, UPSTREAM, "upstream"), NAME)],
            "s",
            rising(2.5, 10),
        ),
    )
    columns = [
        ("In flight", f"sum by (upstream) ({IN_FLIGHT})", "short", None),
        ("Requests", total(REQUESTS, UPSTREAM, "upstream", "$__range"), "reqps", None),
        (
            "Failed",
            f"{total(ERRORS, UPSTREAM, 'upstream', '$__range')} / {total(REQUESTS, UPSTREAM, 'upstream', '$__range')}",
            "percentunit",
            SHARE,
        ),
        (
            "Tried elsewhere",
            f"{total(RETRIES, UPSTREAM, 'upstream', '$__range')} / {total(REQUESTS, UPSTREAM, 'upstream', '$__range')}",
            "percentunit",
            SHARE,
        ),
        ("Left alone", f"round(sum by (upstream) (increase({EJECTIONS}{{{UPSTREAM}}}[$__range])))", "none", rising(1, 3)),
        ("Head P95", quantile(0.95, LATENCY, UPSTREAM, "upstream", "$__range"), "s", rising(2.5, 10)),
    ]
    board.add(
        24,
        8,
        table(
            "Each upstream",
            "Over the whole range on screen, all gateways together.",
            columns,
            {"upstream": "Upstream"},
            "short",
            "Requests",
            see=[runbook("GatewayUpstreamEjected")],
        ),
    )


def failing(board):
    board.row("What fails there")
    board.add(
        8,
        9,
        lines(
            "Failures by reason",
            "Of requests sent to an upstream; those that were then answered by another are in it too.",
            [query(total(ERRORS, UPSTREAM, "reason"), "{{reason}}")],
            "reqps",
            rising(0.1, 1),
            bars=True,
            stacked="normal",
            see=[runbook("GatewayUpstreamEjected")],
        ),
        lines(
            "Tried again, by upstream that failed",
            "Taken to another upstream, since nothing had run yet. The client sees only that it took longer.",
            [query(total(RETRIES, UPSTREAM, "upstream"), NAME)],
            "reqps",
            rising(0.1, 1),
            stacked="normal",
        ),
        lines(
            "What clients saw of it",
            "Failed for the client: no upstream could be reached or it broke off, it said 503, or the gateway turned it away.",
            [
                query(or_zero(clients(kind), like()), name)
                for name, kind in (
                    ("not reached or broken off", "upstream_.*"),
                    ("overloaded", "overloaded"),
                    ("turned away", "proxy_rejected"),
                )
            ],
            "reqps",
            rising(0.1, 1),
            stacked="normal",
            overrides=[
                colour("not reached or broken off", RED),
                colour("overloaded", ORANGE),
                colour("turned away", BLUE),
            ],
            see=[runbook("RequestsSuccessRateLow")],
        ),
    )


def clients(kind):
    return total("vllm_request_error_total", f'{WIRE},error_type=~"{kind}"')


def places(board):
    board.row("Places and queue")
    board.add(
        12,
        8,
        lines(
            "Waiting in each gateway",
            "For a place at an upstream, while all have gateway.max_in_flight. For bursts: it should be empty most of the time.",
            [query(f"sum by (instance) ({QUEUE})", "{{instance}}")],
            "short",
            rising(1, 10),
            see=[runbook("GatewayQueueLong")],
        ),
        lines(
            "Turned away, by reason",
            "full: no place, and no more may wait. timeout: waited for gateway.queue_timeout. no_upstream: there is none.",
            [query(total(REJECTED, TARGET, "reason"), "{{reason}}")],
            "reqps",
            rising(0.01, 0.05),
            stacked="normal",
            see=[runbook("GatewayRequestsRejected")],
        ),
    )


def discovery(board):
    board.row("Where upstreams are found")
    found = f"max by (target) (tokenglass_discovery_upstreams{{{TARGET}}})"
    failures = total("tokenglass_discovery_failures_total", TARGET, "target, reason")
    board.add(
        12,
        8,
        lines(
            "Found, by target",
            "How many there are by each of gateway.discover.",
            [query(found, "{{target}}")],
            "short",
            neutral(),
            no_value="gateway.discover is empty",
            see=[runbook("GatewayNoUpstreamHealthy")],
        ),
        lines(
            "Looks that failed",
            "What was found last stays. expired, now and then, is usual of a watch.",
            [query(failures, "{{target}} {{reason}}")],
            "cps",
            rising(0.01, 0.1),
            no_value="gateway.discover is empty",
            see=[runbook("GatewayNoUpstreamHealthy")],
        ),
    )
