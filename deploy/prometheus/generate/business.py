"""Business layer: what clients see."""

from alert import alert
from promql import KEEP, MODEL, UPSTREAM, added, both, number
from settings import TRAFFIC, limits
from slo import burns

LAYER = "business"
ENOUGH = number(TRAFFIC["min_rate"])
OF_MODEL = "{{ $labels.model }}"


def share(part, whole):
    """Only where there is enough of the whole."""
    return f"{part}\n/ ({whole} > {ENOUGH})"


def errors(types):
    return added("rate", MODEL, "vllm_request_error_total", matchers=f'{{error_type=~"{types}"}}')


def success():
    below = number(limits("RequestsSuccessRateLow", "warning")["below"])
    yield alert(
        "RequestsSuccessRateLow", LAYER, "warning",
        both(f"model:vllm_requests:success_ratio5m < {below}", f"model:vllm_requests:rate5m > {ENOUGH}"),
        "Many requests fail",
        f"Only {{{{ $value | humanizePercentage }}}} of the requests to {OF_MODEL} succeed, client mistakes included.",
    )
    for slo in ("availability", "ttft", "tpot"):
        yield from burns(slo)


def kinds():
    recent = 'sum by ({labels}) (model:vllm_request_errors:increase5m{{error_type=~"{types}"}}) > {above}'
    yield alert(
        "RequestsEngineDead", LAYER, "critical",
        recent.format(labels=MODEL, types="engine_dead", above=number(limits("RequestsEngineDead", "critical")["above"])),
        "vLLM's engine has died",
        f"{{{{ $value | printf \"%.0f\" }}}} requests to {OF_MODEL} were told in 5 minutes that the engine is dead.",
    )
    yield alert(
        "RequestsTruncated", LAYER, "warning",
        recent.format(
            labels=f"{MODEL}, error_type",
            types="stream_truncated|upstream_reset",
            above=number(limits("RequestsTruncated", "warning")["above"]),
        ),
        "Answers are cut short",
        f"{{{{ $value | printf \"%.0f\" }}}} answers of {OF_MODEL} broke off in 5 minutes ({{{{ $labels.error_type }}}}).",
    )
    streams = added("rate", MODEL, "vllm_request_duration_seconds_count", matchers='{stream="true"}')
    yield alert(
        "RequestsStreamErrors", LAYER, "warning",
        f"{share(errors('stream_error|stream_stalled'), streams)}"
        f"\n> {number(limits('RequestsStreamErrors', 'warning')['above'])}",
        "Streams fail after they have begun",
        f"{{{{ $value | humanizePercentage }}}} of the streams of {OF_MODEL} end in an error behind a status of 200.",
    )
    every = added("rate", MODEL, "vllm_request_duration_seconds_count")
    yield alert(
        "RequestsContextLengthStorm", LAYER, "warning",
        f"{share(errors('context_length_exceeded'), every)}"
        f"\n> {number(limits('RequestsContextLengthStorm', 'warning')['above'])}",
        "Many prompts are too long for the model",
        f"{{{{ $value | humanizePercentage }}}} of the requests to {OF_MODEL} are longer than its context.",
    )


def clients():
    every = added("rate", MODEL, "vllm_request_duration_seconds_count")
    cancelled = added("rate", MODEL, "vllm_request_cancelled_total")
    yield alert(
        "RequestsCancelRateHigh", LAYER, "warning",
        f"{share(cancelled, every)}\n> {number(limits('RequestsCancelRateHigh', 'warning')['above'])}",
        "Many clients leave before their answer is complete",
        f"{{{{ $value | humanizePercentage }}}} of the requests to {OF_MODEL} are given up by their client.",
    )
    where = f"{KEEP}, instance, model"
    yield alert(
        "RequestsStreamsStalled", LAYER, "warning",
        f"sum by ({where}) (vllm_streams_stalled) > {number(limits('RequestsStreamsStalled', 'warning')['above'])}",
        "Open streams have fallen silent",
        f"{{{{ $value }}}} streams of {OF_MODEL} through {{{{ $labels.instance }}}} are open and silent.",
    )
    finished = "vllm_request_finish_total"
    yield alert(
        "RequestsLengthLimited", LAYER, "warning",
        share(added("rate", MODEL, finished, matchers='{finish_reason="length"}'), added("rate", MODEL, finished))
        + f"\n> {number(limits('RequestsLengthLimited', 'warning')['above'])}",
        "Most answers end at their length limit",
        f"{{{{ $value | humanizePercentage }}}} of the answers of {OF_MODEL} are cut off at max_tokens or the end of the context.",
    )
    yield alert(
        "RequestsUnaccountedTokens", LAYER, "warning",
        f'sum by ({UPSTREAM}) (rate(vllm_unaccounted_tokens_total{{direction="output"}}[15m]))\n'
        f"/ (sum by ({UPSTREAM}) (rate(vllm:generation_tokens_total[15m])) > 0)\n"
        f"> {number(limits('RequestsUnaccountedTokens', 'warning')['above'])}",
        "vLLM generates tokens that do not pass tokenglass",
        "{{ $value | humanizePercentage }} of the tokens of vLLM behind {{ $labels.instance }}"
        "{{ with $labels.upstream }} ({{ . }}){{ end }} were not seen on the wire.",
    )


def groups():
    return [{"name": "tokenglass-business-alerts", "rules": [*success(), *kinds(), *clients()]}]
