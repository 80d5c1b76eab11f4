"""Inference layer: vLLM and its engine."""

from alert import alert
from promql import KEEP, UPSTREAM, both, number
from settings import SCOPE, TRAFFIC, limits

LAYER = "inference"
WHICH = "vLLM behind {{ $labels.instance }}{{ with $labels.upstream }} ({{ . }}){{ end }}"
ENOUGH = f"model:vllm_requests:rate5m > {number(TRAFFIC['min_rate'])}"


def health():
    yield alert(
        "VllmServiceDown", LAYER, "critical", f"min by ({UPSTREAM}) (vllm_service_up) == 0",
        "vLLM cannot be reached",
        f"{WHICH} does not answer.",
    )
    yield alert(
        "VllmModelNotLoaded", LAYER, "critical",
        both(f"min by ({UPSTREAM}) (vllm_model_loaded) == 0", f"min by ({UPSTREAM}) (vllm_service_up) == 1"),
        "vLLM answers but serves no model",
        f"{WHICH} can be reached, but is not healthy or lists no model.",
    )
    yield alert(
        "VllmEngineStalled", LAYER, "critical", f"max by ({UPSTREAM}) (vllm_engine_stalled) == 1",
        "vLLM's engine hangs",
        f"{WHICH} has requests in flight and neither gives tokens nor moves its counters.",
    )
    above = number(limits("VllmHealthCheckSlow", "warning")["above"])
    yield alert(
        "VllmHealthCheckSlow", LAYER, "warning",
        f"histogram_quantile(0.95, sum by ({UPSTREAM}, le) (rate(vllm_health_check_latency_seconds_bucket[5m]))) > {above}",
        "vLLM's health check is slow",
        f"{WHICH} takes {{{{ $value | humanizeDuration }}}} for /health (P95).",
    )
    restarts = f'kube_pod_container_status_restarts_total{{container=~"{SCOPE["containers"]}"}}'
    yield alert(
        # Rounded, since increase() extrapolates: three restarts must not be 3.05.
        "VllmPodRestarts", LAYER, "critical",
        f"round(max by ({KEEP}, pod, container) (increase({restarts}[30m])))"
        f" > {number(limits('VllmPodRestarts', 'critical')['above'])}",
        "A pod of the serving path restarts again and again",
        "{{ $labels.container }} in {{ $labels.namespace }}/{{ $labels.pod }} restarted {{ $value }} times in 30 minutes.",
    )


def latency():
    for name, series, what in (
        ("VllmLatencyP99High", "model:vllm_e2e_seconds:p99_5m", "P99 of whole requests"),
        ("VllmTtftP95High", "model:vllm_ttft_seconds:p95_5m", "P95 of the time to first token"),
        ("VllmInterTokenLatencyHigh", "model:vllm_itl_seconds:p95_5m", "P95 of the time between tokens"),
    ):
        above = number(limits(name, "warning")["above"])
        summaries = {
            "VllmLatencyP99High": "Requests take very long",
            "VllmTtftP95High": "First tokens come late",
            "VllmInterTokenLatencyHigh": "Tokens come slowly",
        }
        yield alert(
            name, LAYER, "warning", both(f"{series} > {above}", ENOUGH), summaries[name],
            f"{what} of {{{{ $labels.model }}}} is {{{{ $value | humanizeDuration }}}}, above {above} s.",
        )


def capacity():
    model = "{{ $labels.model }} on " + WHICH
    above = number(limits("VllmQueueLong", "warning")["above"])
    yield alert(
        "VllmQueueLong", LAYER, "warning", f"engine:vllm_requests_waiting:sum > {above}",
        "Requests queue up in vLLM",
        f"{{{{ $value }}}} requests wait for {model}.",
    )
    above = number(limits("VllmKvCacheFull", "warning")["above"])
    yield alert(
        "VllmKvCacheFull", LAYER, "warning", f"engine:vllm_kv_cache_usage:max > {above}",
        "vLLM's KV cache is nearly full",
        f"{{{{ $value | humanizePercentage }}}} of the KV cache are in use: {model}.",
    )
    limit = limits("VllmKvCacheExhaustionForecast", "warning")
    yield alert(
        "VllmKvCacheExhaustionForecast", LAYER, "warning",
        both(
            f"engine:vllm_kv_cache_usage:predict5m > {number(limit['forecast'])}",
            f"engine:vllm_kv_cache_usage:max > {number(limit['from'])}",
        ),
        "vLLM's KV cache will soon be full",
        f"At the pace of the last 10 minutes the KV cache will be at {{{{ $value | humanizePercentage }}}} in 5 minutes: {model}.",
    )
    above = number(limits("VllmPreemptionsHigh", "warning")["above"])
    yield alert(
        "VllmPreemptionsHigh", LAYER, "warning", f"engine:vllm_preemptions:rate5m > {above}",
        "vLLM preempts running requests",
        f"{{{{ $value | printf \"%.2g\" }}}} preemptions a second: {model}.",
    )


def groups():
    return [{"name": "tokenglass-inference-alerts", "rules": [*health(), *latency(), *capacity()]}]
