"""Request analysis: who asked for what, how it ended, and what nobody counted."""

from . import links, variables
from .links import runbook
from .panels import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    YELLOW,
    Board,
    colour,
    falling,
    heat,
    lines,
    mapping,
    neutral,
    override,
    query,
    rising,
    stat,
    table,
)
from .promql import RATE, fallback, or_zero, quantile, renamed, total
from .variables import ENGINE, TARGET, TENANT, WIRE

SUCCESS, ERROR, CANCELLED = "vllm_request_success_total", "vllm_request_error_total", "vllm_request_cancelled_total"
DURATION = "vllm_request_duration_seconds"
INPUT, OUTPUT = "vllm_input_tokens_per_request", "vllm_output_tokens_per_request"
TOKENS = "si:tok/s"
SHARE = {
    "mode": "absolute",
    "steps": [{"color": GREEN, "value": None}, {"color": YELLOW, "value": 0.01}, {"color": RED, "value": 0.05}],
}
# Series without traffic are all there, at 0, as soon as one request came: what has nothing to say is left out.
SOME = "> 0"


def build():
    return f"sum(tokenglass_build_info{{{TARGET}}})"


def share(part, window=RATE, by=""):
    """Of the requests that ended, in whatever way."""
    return f"{total(part, WIRE, by, window)} / {total(f'{DURATION}_count', WIRE, by, window)}"


def success_rate():
    """The client's own leaving is no one's failure."""
    good, bad = total(SUCCESS, WIRE), total(ERROR, WIRE)
    return f"{good} / ({good} + {bad})"


def board():
    board = Board(
        links.REQUESTS,
        "tokenglass / Request analysis",
        "Success, failure and leaving of requests, and their tokens, by model, endpoint and tenant.",
        variables.common() + [variables.sources()],
        ["requests"],
    )
    first_row(board)
    ends(board)
    pressure(board)
    tokens(board)
    talkers(board)
    books(board)
    return board


def first_row(board):
    board.row("Now")
    up = [mapping({0: ("DOWN", RED), 1: ("UP", GREEN)})]
    loaded = [mapping({0: ("NO", RED), 1: ("YES", GREEN)})]
    state = [(None, RED), (1, GREEN)]
    p99 = quantile(0.99, "vllm_health_check_latency_seconds", TARGET)
    board.add(
        6,
        5,
        stat(
            "Service up",
            "Every vLLM chosen can be reached: anything answers at /health.",
            [query(f"min(vllm_service_up{{{TARGET}}})", "up")],
            "none",
            state,
            graph=False,
            background=True,
            mappings=up,
            see=[runbook("VllmServiceDown")],
        ),
        stat(
            "Model loaded",
            "/health says 2xx and a model is listed, everywhere.",
            [query(f"min(vllm_model_loaded{{{TARGET}}})", "loaded")],
            "none",
            state,
            graph=False,
            background=True,
            mappings=loaded,
            see=[runbook("VllmModelNotLoaded")],
        ),
        stat(
            "Success rate",
            "Of the requests that succeeded or failed. Clients that left are in neither.",
            [query(success_rate(), "success")],
            "percentunit",
            falling(0.95, 0.995),
            decimals=2,
            see=[runbook("RequestsSuccessRateLow")],
        ),
        stat(
            "Health check P99",
            "The time that vLLM's /health takes to answer. It shares the event loop with requests: slow here is slow there.",
            [query(p99, "P99")],
            "s",
            rising(0.25, 1),
            see=[runbook("VllmHealthCheckSlow")],
        ),
    )


def ends(board):
    board.row("How requests end")
    board.add(
        8,
        9,
        lines(
            "Success, errors, cancels",
            "All requests by how they ended.",
            [
                query(total(SUCCESS, WIRE), "success"),
                query(total(ERROR, WIRE), "error"),
                query(total(CANCELLED, WIRE), "cancelled"),
            ],
            "reqps",
            neutral(),
            stacked="normal",
            overrides=[colour("success", GREEN), colour("error", RED), colour("cancelled", ORANGE)],
        ),
        lines(
            "Errors by kind",
            "upstream_*: no answer from vLLM. stream_*: a 200 that went wrong. proxy_*: refused by tokenglass.",
            [query(f"{total(ERROR, WIRE, 'error_type')} {SOME}", "{{error_type}}")],
            "reqps",
            rising(0.1, 1),
            bars=True,
            stacked="normal",
            no_value="No errors",
            see=[runbook("RequestsSuccessRateLow"), runbook("RequestsStreamErrors")],
        ),
        lines(
            "Cancels by phase",
            "Where the client left. Before the first token: it waited too long. While streaming: it had seen enough.",
            [query(f"{total(CANCELLED, WIRE, 'phase')} {SOME}", "{{phase}}"), query(share(CANCELLED), "share of all")],
            "reqps",
            rising(0.1, 1),
            bars=True,
            stacked="normal",
            no_value="Nobody left",
            overrides=[
                override(
                    "share of all",
                    unit="percentunit",
                    custom__axisPlacement="right",
                    custom__fillOpacity=0,
                    custom__drawStyle="line",
                    custom__lineWidth=2,
                    custom__stacking={"mode": "none", "group": "B"},
                    custom__lineStyle={"fill": "dash", "dash": [8, 6]},
                    color={"mode": "fixed", "fixedColor": "text"},
                )
            ],
            see=[runbook("RequestsCancelRateHigh")],
        ),
    )


def pressure(board):
    cache = renamed("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
    board.row("Pressure and finish")
    board.add(
        12,
        8,
        lines(
            "Preemptions and cache pressure",
            "Preemptions with a full KV cache: too many or too long requests at once.",
            [
                query(f"max{cache} or {build()} * 0", "KV cache"),
                query(or_zero(f"sum(vllm:num_requests_waiting{{{ENGINE}}})", build()), "waiting"),
                query(or_zero(total("vllm:num_preemptions_total", ENGINE), build()), "preemptions per second"),
            ],
            "percentunit",
            rising(0.8, 0.95),
            maximum=1,
            overrides=[
                colour("KV cache", BLUE),
                override(
                    "waiting",
                    unit="short",
                    max=None,
                    custom__axisPlacement="right",
                    custom__fillOpacity=0,
                    color={"mode": "fixed", "fixedColor": ORANGE},
                ),
                override(
                    "preemptions per second",
                    unit="short",
                    max=None,
                    custom__axisPlacement="right",
                    custom__fillOpacity=30,
                    color={"mode": "fixed", "fixedColor": RED},
                ),
            ],
            see=[runbook("VllmPreemptionsHigh"), runbook("VllmKvCacheFull")],
        ),
        lines(
            "Finish reasons",
            "Of the choices that finished. Much `length`: max_tokens cuts answers off.",
            [
                query(
                    fallback(
                        f"{total('vllm_request_finish_total', WIRE, 'finish_reason')} {SOME}",
                        f"{total('vllm:request_success_total', ENGINE, 'finished_reason')} {SOME}",
                    ),
                    "{{finish_reason}}{{finished_reason}}",
                )
            ],
            "cps",
            neutral(),
            stacked="percent",
        ),
    )


def tokens(board):
    board.row("Tokens")
    chosen = f'{WIRE},source=~"$source"'
    board.add(
        12,
        8,
        lines(
            "Input tokens by source",
            "usage: vLLM's own count. tokenizer and estimate: ours, where vLLM gave none. partial: of a stream that was cut.",
            [query(f"{total(f'{INPUT}_sum', WIRE, 'source')} {SOME}", "{{source}}")],
            TOKENS,
            neutral(),
            stacked="normal",
        ),
        lines(
            "Output tokens by source",
            "The same of what was generated; and, dashed, what vLLM counts.",
            [
                query(f"{total(f'{OUTPUT}_sum', WIRE, 'source')} {SOME}", "{{source}}"),
                query(total("vllm:generation_tokens_total", ENGINE), "vLLM"),
            ],
            TOKENS,
            neutral(),
            stacked="normal",
            overrides=[
                override(
                    "vLLM",
                    custom__stacking={"mode": "none", "group": "B"},
                    custom__fillOpacity=0,
                    custom__lineStyle={"fill": "dash", "dash": [8, 6]},
                    color={"mode": "fixed", "fixedColor": "text"},
                )
            ],
        ),
        heat(
            "Input tokens per request",
            "How long prompts are, of the token source chosen above.",
            total(f"{INPUT}_bucket", chosen, "le"),
            "short",
            "Blues",
        ),
        heat(
            "Output tokens per request",
            "How long answers are, of the token source chosen above.",
            total(f"{OUTPUT}_bucket", chosen, "le"),
            "short",
            "Oranges",
        ),
    )


def talkers(board):
    board.row("Top talkers")
    board.add(12, 9, talker("Models", "model", "Model"), talker("Endpoints", "endpoint", "Endpoint"))
    board.add(24, 8, talker("Tenants", TENANT, "Tenant"))


def talker(title, label, name):
    """The ten that ask most over the range on screen."""
    window = "$__range"

    everything = total(f"{DURATION}_count", WIRE, label, window)

    def named(expression):
        # Of the same ten in each column; and a table cannot show a label that is not there.
        top = f"({expression}) and on ({label}) topk(10, {everything})"
        return f'label_replace({top}, "{label}", "(none)", "{label}", "")'

    def part(metric):
        return f"({total(metric, WIRE, label, window)} or 0 * {everything}) / {everything}"

    columns = [
        ("Requests", named(everything), "reqps", None),
        ("Errors", named(part(ERROR)), "percentunit", rising(0.01, 0.05)),
        ("Cancelled", named(part(CANCELLED)), "percentunit", rising(0.1, 0.2)),
        ("Latency P95", named(quantile(0.95, DURATION, by=label, window=window)), "s", rising(10, 30)),
        (
            "TTFT P95",
            named(quantile(0.95, "vllm_request_time_to_first_token_seconds", by=label, window=window)),
            "s",
            rising(1, 2.5),
        ),
        ("Input", named(total(f"{INPUT}_sum", WIRE, label, window)), TOKENS, None),
        ("Output", named(total(f"{OUTPUT}_sum", WIRE, label, window)), TOKENS, None),
    ]
    description = f"By {name.lower()}, over the whole range on screen: the ten with the most requests."
    return table(title, description, columns, {label: name}, "short", "Requests")


def books(board):
    board.row("What nobody counted, and the proxy itself")
    unseen = total("vllm_unaccounted_tokens_total", TARGET)
    of_engine = f"({total('vllm:generation_tokens_total', ENGINE)} + {total('vllm:prompt_tokens_total', ENGINE)})"
    board.add(
        8,
        8,
        lines(
            "Unaccounted tokens",
            "vLLM counted them and they did not pass the proxy: someone goes around it. Over 1 % for long deserves a look.",
            [
                query(total("vllm_unaccounted_tokens_total", TARGET, "direction"), "{{direction}}"),
                query(f"{unseen} / {of_engine}", "share of vLLM's"),
            ],
            TOKENS,
            rising(1, 10),
            no_value="vLLM's own counters are not read",
            overrides=[
                override(
                    "share of vLLM's",
                    unit="percentunit",
                    thresholds=SHARE,
                    custom__axisPlacement="right",
                    custom__fillOpacity=0,
                    color={"mode": "fixed", "fixedColor": ORANGE},
                )
            ],
            see=[runbook("RequestsUnaccountedTokens")],
        ),
        lines(
            "What the proxy adds",
            "Its own time for a request: before vLLM has it, and before the client has vLLM's head.",
            [
                query(quantile(q, "tokenglass_overhead_seconds", TARGET), n)
                for q, n in ((0.5, "P50"), (0.95, "P95"), (0.99, "P99"))
            ],
            "s",
            rising(0.01, 0.05),
            overrides=[colour("P50", GREEN), colour("P95", YELLOW), colour("P99", RED)],
            see=[runbook("TokenglassOverheadHigh")],
        ),
        lines(
            "What the proxy could not do",
            "Measurements that failed (the traffic went on), label values beyond a cap, probes of vLLM that failed.",
            [
                query(total("tokenglass_observer_faults_total", TARGET, "reason"), "fault {{reason}}"),
                query(or_zero(total("tokenglass_label_overflow_total", TARGET), build()), "label overflow"),
                query(or_zero(total("vllm_probe_request_error_total", TARGET), build()), "failed probes"),
            ],
            "cps",
            rising(0.01, 0.1),
            see=[runbook("TokenglassLabelOverflow")],
        ),
    )
