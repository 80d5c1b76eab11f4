"""Inference performance: how fast, how much at once, and what it waits for."""

from . import links, variables
from .links import runbook
from .panels import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    YELLOW,
    Board,
    colour,
    dashed,
    falling,
    gauge,
    latency,
    lines,
    neutral,
    override,
    query,
    rising,
    stat,
)
from .promql import (
    as_model,
    engine_or_wire,
    fallback,
    mean,
    or_zero,
    quantile,
    rate,
    renamed,
    renamed_rate,
    total,
    within,
)
from .variables import ENGINE, SAME_TARGET, TARGET, WIRE

DURATION, TTFT = "vllm_request_duration_seconds", "vllm_request_time_to_first_token_seconds"
ITL, TPOT = "vllm_request_inter_token_latency_seconds", "vllm_request_time_per_output_token_seconds"
QUANTILES = ((0.5, "P50"), (0.95, "P95"), (0.99, "P99"))
TOKENS = "si:tok/s"
# The thresholds on screen are those of the alerts.
LATENCY_STEPS, TTFT_STEPS, ITL_STEPS = rising(10, 30), rising(1, 2.5), rising(0.1, 0.2)


def wire_or_engine(q, wire, engine, by=""):
    return fallback(quantile(q, wire, by=by), quantile(q, engine, ENGINE, by=by))


def generated(by=""):
    group = f" by ({by})" if by else ""
    wire = f"sum by ({SAME_TARGET}, model) ({rate('vllm_output_tokens_per_request_sum', WIRE)})"
    return f"sum{group} ({engine_or_wire(as_model(rate('vllm:generation_tokens_total', ENGINE)), wire)})"


def read(by=""):
    group = f" by ({by})" if by else ""
    wire = f"sum by ({SAME_TARGET}, model) ({rate('vllm_input_tokens_per_request_sum', WIRE)})"
    return f"sum{group} ({engine_or_wire(as_model(rate('vllm:prompt_tokens_total', ENGINE)), wire)})"


def requests(by=""):
    group = f" by ({by})" if by else ""
    engine = f"sum{group} ({as_model(rate('vllm:e2e_request_latency_seconds_count', ENGINE))})"
    return fallback(total(f"{DURATION}_count", WIRE, by), engine)


def running():
    return engine_or_wire(f"vllm:num_requests_running{{{ENGINE}}}", f"vllm_requests_in_flight{{{WIRE}}}")


def cache():
    return renamed("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")


def forecast():
    """Ten minutes behind us, drawn on for five; of the data, so the resolution on screen does not matter."""
    linear = renamed("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "predict_linear({}[10m], 300)")
    return f"clamp(max by (model_name) ({linear}), 0, 1)"


def hit_rate():
    hits = renamed_rate("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total")
    queries = renamed_rate("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total")
    # Not every vLLM counts queries; what the answers' usage says is the same share.
    wire = f"{total('vllm_cached_input_tokens_total', WIRE)} / {total('vllm_input_tokens_per_request_sum', WIRE)}"
    return f"sum{hits} / sum{queries} or {wire}"


def engine_itl(q):
    buckets = renamed_rate("vllm:inter_token_latency_seconds_bucket", "vllm:time_per_output_token_seconds_bucket")
    return f"histogram_quantile({q}, sum by (le) {buckets})"


def success_share():
    good, bad = total("vllm_request_success_total", WIRE), total("vllm_request_error_total", WIRE)
    return f"{good} / ({good} + {bad})"


def goodput():
    """What misses two targets is in both shares, so one less the sum of the shares that miss is never too much."""
    return f"clamp_min(({success_share()}) + ({within(TTFT, '$ttft_slo')}) + ({within(TPOT, '$tpot_slo')}) - 2, 0)"


def board():
    objectives = [
        variables.choice(
            "ttft_slo",
            "TTFT objective (s)",
            ["0.25", "0.5", "0.75", "1", "2.5", "5", "7.5", "10"],
            "2.5",
            "An edge of the histogram, so that the share is exact.",
        ),
        variables.choice(
            "tpot_slo",
            "TPOT objective (s)",
            ["0.025", "0.05", "0.075", "0.1", "0.15", "0.2", "0.3"],
            "0.1",
            "An edge of the histogram, so that the share is exact.",
        ),
    ]
    board = Board(
        links.INFERENCE,
        "tokenglass / Inference performance",
        "What clients feel, measured on the wire, beside what vLLM says of itself.",
        variables.common() + objectives,
        ["inference"],
    )
    first_row(board)
    traffic(board)
    slowness(board)
    first_token(board)
    engine(board)
    tokens(board)
    objective(board)
    return board


def first_row(board):
    board.row("Now")
    board.add(
        6,
        5,
        stat(
            "Requests per second",
            "All requests that ended, whatever their end.",
            [query(requests(), "QPS")],
            "reqps",
            neutral(),
            decimals=2,
            see=[links.dashboard(links.REQUESTS)],
        ),
        stat(
            "Latency P99",
            "From the request's head to the end of the answer.",
            [latency(wire_or_engine(0.99, DURATION, "vllm:e2e_request_latency_seconds"), "P99")],
            "s",
            LATENCY_STEPS,
            see=[runbook("VllmLatencyP99High")],
        ),
        stat(
            "Time to first token P50",
            "Streams: from the request's head to the first frame with generated output.",
            [latency(wire_or_engine(0.5, TTFT, "vllm:time_to_first_token_seconds"), "P50")],
            "s",
            TTFT_STEPS,
            see=[runbook("VllmTtftP95High")],
        ),
        stat(
            "Token throughput",
            "Tokens generated in a second.",
            [query(generated(), "generated")],
            TOKENS,
            neutral(PURPLE),
        ),
    )


def traffic(board):
    board.row("Traffic")
    board.add(
        12,
        8,
        lines(
            "Requests per second",
            "By model, and all of them.",
            [query(requests("model"), "{{model}}"), query(requests(), "all")],
            "reqps",
            neutral(),
            overrides=[dashed("all", "text")],
            see=[links.dashboard(links.REQUESTS)],
        ),
        lines(
            "Concurrency",
            "In flight is measured at the proxy, from body received to the end; running is what the engine works on. What lies "
            "between waits in a queue, at vLLM or before it.",
            [
                query(
                    or_zero(f"sum(vllm_requests_in_flight{{{WIRE}}})", f"sum(tokenglass_build_info{{{TARGET}}})"),
                    "in flight",
                ),
                query(f"sum{running()}", "running"),
                query(f"sum(tokenglass_downstream_connections{{{TARGET}}})", "client connections"),
            ],
            "short",
            neutral(),
            overrides=[colour("in flight", BLUE), colour("running", GREEN), dashed("client connections", "text")],
        ),
    )


def slowness(board):
    board.row("Latency")
    shades = dict(zip(("P50", "P95", "P99"), (GREEN, YELLOW, RED)))
    board.add(
        12,
        10,
        lines(
            "Latency",
            "Whole requests, streams included, on the wire. Long answers take long: read it beside the output tokens.",
            [latency(wire_or_engine(q, DURATION, "vllm:e2e_request_latency_seconds"), name) for q, name in QUANTILES],
            "s",
            LATENCY_STEPS,
            lines_at=True,
            overrides=[colour(name, shade) for name, shade in shades.items()],
            see=[runbook("VllmLatencyP99High")],
        ),
        lines(
            "Latency P95 by model",
            "Solid as clients see it, dashed as vLLM says. The distance between them is the network, vLLM's frontend and the proxy.",
            [
                latency(quantile(0.95, DURATION, by="model"), "{{model}}"),
                query(
                    quantile(0.95, "vllm:e2e_request_latency_seconds", ENGINE, by="model_name"), "vLLM {{model_name}}"
                ),
            ],
            "s",
            LATENCY_STEPS,
            overrides=[dashed("/^vLLM/")],
        ),
    )


def first_token(board):
    board.row("First token and generation")
    queue = f"({mean('vllm:request_queue_time_seconds', ENGINE)} or {mean('vllm_request_queue_seconds', WIRE)})"
    prefill = mean("vllm:request_prefill_time_seconds", ENGINE)
    proxy = mean("tokenglass_overhead_seconds", TARGET)
    rest = f"clamp_min({mean(TTFT, WIRE)} - ({proxy}) - ({queue} or vector(0)) - (({prefill}) or vector(0)), 0)"
    board.add(
        8,
        9,
        lines(
            "Time to first token",
            "Streams, on the wire.",
            [latency(wire_or_engine(q, TTFT, "vllm:time_to_first_token_seconds"), name) for q, name in QUANTILES],
            "s",
            TTFT_STEPS,
            lines_at=True,
            overrides=[colour("P50", GREEN), colour("P95", YELLOW), colour("P99", RED)],
            see=[runbook("VllmTtftP95High")],
        ),
        lines(
            "What the first token waits for",
            "Means, which add up: the proxy's own time, vLLM's queue, its prefill, and what is left: network, "
            "tokenizer, vLLM's frontend. vLLM's parts hold requests that are no streams too.",
            [
                query(proxy, "proxy"),
                query(queue, "queue"),
                query(prefill, "prefill"),
                query(rest, "network and frontend"),
            ],
            "s",
            TTFT_STEPS,
            stacked="normal",
            overrides=[
                colour("proxy", BLUE),
                colour("queue", ORANGE),
                colour("prefill", PURPLE),
                colour("network and frontend", "text"),
            ],
            calcs=("mean", "max", "lastNotNull"),
            see=[runbook("VllmTtftP95High"), runbook("VllmQueueLong")],
        ),
        lines(
            "Token rates",
            "Generated, by model, and all prompt tokens read.",
            [query(generated("model"), "generated {{model}}"), query(read(), "prompt, all")],
            TOKENS,
            neutral(PURPLE),
            overrides=[
                override(
                    "prompt, all",
                    custom__axisPlacement="right",
                    custom__fillOpacity=0,
                    custom__lineStyle={"fill": "dash", "dash": [8, 6]},
                    color={"mode": "fixed", "fixedColor": "text"},
                )
            ],
        ),
    )


def engine(board):
    board.row("Engine")
    waiting = f"sum(vllm:num_requests_waiting{{{ENGINE}}}) or sum(vllm_requests_in_flight{{{WIRE}}}) * 0"
    board.add(
        12,
        8,
        lines(
            "Running and waiting",
            "Waiting for long: the engine is at --max-num-seqs or out of KV cache.",
            [query(f"sum{running()}", "running"), query(waiting, "waiting")],
            "short",
            rising(5, 10),
            overrides=[colour("running", GREEN), colour("waiting", ORANGE)],
            see=[runbook("VllmQueueLong"), runbook("VllmEngineStalled")],
        ),
        lines(
            "KV cache, and in five minutes",
            "Dashed: the last ten minutes drawn on for five. At 100 % the engine preempts requests.",
            [query(f"max by (model_name) {cache()}", "{{model_name}}"), query(forecast(), "in 5 min {{model_name}}")],
            "percentunit",
            rising(0.8, 0.95),
            maximum=1,
            lines_at=True,
            overrides=[dashed("/^in 5 min/")],
            see=[runbook("VllmKvCacheFull"), runbook("VllmKvCacheExhaustionForecast")],
        ),
    )


def tokens(board):
    board.row("Between tokens")
    board.add(
        8,
        8,
        lines(
            "Inter-token latency",
            "Between frames with output, on the wire, down to 1 ms; dashed: vLLM's own P95, which knows nothing below 10 ms.",
            [latency(f"{quantile(q, ITL)} or {engine_itl(q)}", name) for q, name in QUANTILES]
            + [query(f"{engine_itl(0.95)} or {quantile(0.95, ITL)}", "P95, vLLM")],
            "s",
            ITL_STEPS,
            lines_at=True,
            overrides=[colour("P50", GREEN), colour("P95", YELLOW), colour("P99", RED), dashed("P95, vLLM", "text")],
        ),
        lines(
            "Stalls",
            "The longest gap within a stream, and the streams that are silent right now.",
            [
                latency(quantile(0.99, "vllm_request_longest_stall_seconds"), "longest gap P99"),
                latency(quantile(0.5, "vllm_request_longest_stall_seconds"), "longest gap P50"),
                query(
                    or_zero(f"sum(vllm_streams_stalled{{{WIRE}}})", f"sum(tokenglass_build_info{{{TARGET}}})"),
                    "silent streams",
                ),
            ],
            "s",
            rising(5, 10),
            overrides=[
                colour("longest gap P99", RED),
                colour("longest gap P50", GREEN),
                override(
                    "silent streams",
                    unit="short",
                    custom__axisPlacement="right",
                    custom__drawStyle="bars",
                    custom__fillOpacity=40,
                    color={"mode": "fixed", "fixedColor": ORANGE},
                    decimals=0,
                ),
            ],
            see=[runbook("VllmEngineStalled")],
        ),
        lines(
            "Preemptions and prefix cache",
            "A preempted request starts over: the KV cache is too small for what runs. Prefix-cache hits are prompt "
            "tokens that cost nothing.",
            [
                query(hit_rate(), "prefix-cache hits"),
                query(
                    or_zero(total("vllm:num_preemptions_total", ENGINE), f"sum(tokenglass_build_info{{{TARGET}}})"),
                    "preemptions",
                ),
            ],
            "percentunit",
            neutral(GREEN),
            maximum=1,
            overrides=[
                colour("prefix-cache hits", GREEN),
                override(
                    "preemptions",
                    unit="cps",
                    max=None,
                    custom__axisPlacement="right",
                    custom__fillOpacity=25,
                    color={"mode": "fixed", "fixedColor": RED},
                    thresholds={
                        "mode": "absolute",
                        "steps": [
                            {"color": GREEN, "value": None},
                            {"color": YELLOW, "value": 0.05},
                            {"color": RED, "value": 0.1},
                        ],
                    },
                ),
            ],
            see=[runbook("VllmPreemptionsHigh")],
        ),
    )


def objective(board):
    board.row("Service level")
    board.add(
        6,
        8,
        gauge(
            "Goodput",
            "The share of requests that succeeded and kept both objectives, at least: what misses two is counted twice. TTFT and TPOT "
            "are of streams.",
            [query(goodput(), "goodput")],
            "percentunit",
            falling(0.9, 0.95),
            0,
            1,
            see=[runbook("RequestsTtftBudgetBurn")],
        ),
    )
    board.add(
        18,
        8,
        lines(
            "Share within the objectives",
            "Success, time to first token and time per output token, each against its objective above, and all three.",
            [
                query(success_share(), "success"),
                query(within(TTFT, "$ttft_slo"), "TTFT within $ttft_slo s"),
                query(within(TPOT, "$tpot_slo"), "TPOT within $tpot_slo s"),
                query(goodput(), "goodput, at least"),
            ],
            "percentunit",
            falling(0.9, 0.95),
            minimum=None,
            maximum=1,
            calcs=("mean", "min", "lastNotNull"),
            overrides=[colour("success", GREEN), dashed("goodput, at least", "text")],
            see=[runbook("RequestsTtftBudgetBurn"), runbook("RequestsAvailabilityBudgetBurn")],
        ),
    )
