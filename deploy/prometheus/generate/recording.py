"""Recording rules, named level:metric:operation.

The wire first, vLLM's own where the wire has nothing: what a client saw counts requests that failed or were given up, which vLLM's
latencies leave out, and knows adapters by name, which vLLM counts with their base model. Nothing is recorded
without traffic, where a quantile would be NaN.
"""

from alert import record
from promql import ENGINE, GPU_NAMED, MODEL, added, born, either, named
from slo import error_ratios, goods

# Each by its names on the wire and in vLLM, older ones last.
LATENCIES = {
    "ttft": ("vllm_request_time_to_first_token_seconds", "vllm:time_to_first_token_seconds"),
    "itl": (
        "vllm_request_inter_token_latency_seconds",
        "vllm:inter_token_latency_seconds",
        "vllm:time_per_output_token_seconds",
    ),
    "tpot": ("vllm_request_time_per_output_token_seconds", "vllm:request_time_per_output_token_seconds"),
    "e2e": ("vllm_request_duration_seconds", "vllm:e2e_request_latency_seconds"),
}
QUANTILES = {"p50": "0.5", "p95": "0.95", "p99": "0.99"}


def quantile(share, family):
    # NaN is not >= 0: without requests there is no series.
    return f"histogram_quantile({share}, {added('rate', f'{MODEL}, le', f'{family}_bucket')}) >= 0"


def quantiles():
    return [
        record(f"model:vllm_{name}_seconds:{short}_5m", either(*(quantile(share, family) for family in families)))
        for name, families in LATENCIES.items()
        for short, share in QUANTILES.items()
    ]


def traffic():
    success = added("rate", MODEL, "vllm_request_success_total")
    error = added("rate", MODEL, "vllm_request_error_total")
    finished = "vllm:request_success_total"
    good = added("rate", MODEL, finished, matchers='{finished_reason!="error"}')
    return [
        record(
            "model:vllm_requests:rate5m",
            either(
                added("rate", MODEL, "vllm_request_duration_seconds_count"),
                added("rate", MODEL, "vllm:e2e_request_latency_seconds_count"),
            ),
        ),
        # Of those that were not given up by their client.
        record(
            "model:vllm_requests:success_ratio5m",
            either(
                f"{success}\n/ (({success} + {error}) > 0)",
                f"{good}\n/ ({added('rate', MODEL, finished)} > 0)",
            ),
        ),
        record(
            "model:vllm_input_tokens:rate5m",
            either(
                added("rate", MODEL, "vllm_input_tokens_per_request_sum"),
                added("rate", MODEL, "vllm:prompt_tokens_total"),
            ),
        ),
        record(
            "model:vllm_output_tokens:rate5m",
            either(
                added("rate", MODEL, "vllm_output_tokens_per_request_sum"),
                added("rate", MODEL, "vllm:generation_tokens_total"),
            ),
        ),
        record(
            "model:vllm_request_errors:increase5m",
            f"sum by ({MODEL}, error_type) (\n" + indented(born("vllm_request_error_total", "5m")) + "\n)",
        ),
    ]


def indented(text):
    return "\n".join(f"  {line}" for line in text.split("\n"))


def engines():
    usage = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
    return [
        record("engine:vllm_requests_running:sum", f"sum by ({ENGINE}) ({named('vllm:num_requests_running')})"),
        record("engine:vllm_requests_waiting:sum", f"sum by ({ENGINE}) ({named('vllm:num_requests_waiting')})"),
        record("engine:vllm_preemptions:rate5m", added("rate", ENGINE, "vllm:num_preemptions_total")),
        # The fullest of several ranks: it is the one that preempts.
        record("engine:vllm_kv_cache_usage:max", either(*(f"max by ({ENGINE}) ({named(name)})" for name in usage))),
        # Where the line through the last 10 min will be in 5.
        record(
            "engine:vllm_kv_cache_usage:predict5m",
            either(*(f"max by ({ENGINE}) ({named(f'predict_linear({name}[10m], 300)')})" for name in usage)),
        ),
    ]


def gpus():
    used, free = "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE"
    return [
        record(
            "gpu:temperature_celsius:max",
            f"max by ({GPU_NAMED}) (DCGM_FI_DEV_GPU_TEMP or DCGM_FI_DEV_GPU_TEMP_CELSIUS)",
        ),
        record(
            "gpu:memory_used:ratio",
            f"max by ({GPU_NAMED}) (\n"
            f"  {used} / ({used} + {free})\n"
            f"  or {used}_BYTES / ({used}_BYTES + {free}_BYTES)\n)",
        ),
        record(
            "gpu:utilization:ratio",
            f"max by ({GPU_NAMED}) (DCGM_FI_DEV_GPU_UTIL / 100 or DCGM_FI_DEV_GPU_UTIL_RATIO)",
        ),
        record(
            "gpu:power_watts:max",
            f"max by ({GPU_NAMED}) (DCGM_FI_DEV_POWER_USAGE or DCGM_FI_DEV_BOARD_POWER_WATTS)",
        ),
    ]


def groups():
    return [
        {"name": "tokenglass-traffic", "rules": traffic()},
        {"name": "tokenglass-latency", "rules": quantiles()},
        {"name": "tokenglass-engine", "rules": engines()},
        {"name": "tokenglass-gpu", "rules": gpus()},
        {"name": "tokenglass-slo", "rules": goods() + error_ratios()},
    ]
