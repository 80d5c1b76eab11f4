"""Service level objectives: what is recorded of them, and the alerts on how fast their budget burns."""

from alert import record, rule
from promql import MODEL, added, both, edge, either, number, regex
from settings import SLO, TRAFFIC, WINDOWS

ALERTS = {
    "availability": (
        "RequestsAvailabilityBudgetBurn",
        "Requests fail fast enough to use up the availability budget",
        "of the requests to {{ $labels.model }} failed by our fault",
    ),
    "ttft": (
        "RequestsTtftBudgetBurn",
        "First tokens come late often enough to use up the TTFT budget",
        f"of the streams of {{{{ $labels.model }}}} had no first token within {number(SLO['ttft']['seconds'])} s",
    ),
    "tpot": (
        "RequestsTpotBudgetBurn",
        "Tokens come slowly often enough to use up the TPOT budget",
        f"of the streams of {{{{ $labels.model }}}} took more than {number(SLO['tpot']['seconds'])} s a token",
    ),
}


def late(family, seconds):
    """How many a second were over the edge."""
    within = added("rate", MODEL, f"{family}_bucket", matchers=f"{{{edge(seconds)}}}")
    return f"{added('rate', MODEL, f'{family}_count')}\n- {within}"


def goods():
    """Requests that an objective is about, and those that miss it, a second: all longer windows are sums of these."""
    faults = f'{{error_type=~"{regex(SLO["availability"]["error_types"])}"}}'
    errors = added("rate", MODEL, "vllm_request_error_total", matchers=faults)
    finished = "vllm:request_success_total"
    every = added("rate", MODEL, finished)
    failed = added("rate", MODEL, finished, matchers='{finished_reason="error"}')
    made = [
        record(
            "model:slo_requests:rate5m",
            either(f"{added('rate', MODEL, 'vllm_request_success_total')}\n+ {errors}", every),
            {"slo": "availability"},
        ),
        # An old vLLM has a finished_reason only once one has finished by it.
        record("model:slo_misses:rate5m", either(errors, failed, f"0 * {every}"), {"slo": "availability"}),
    ]
    families = {
        "ttft": ("vllm_request_time_to_first_token_seconds", "vllm:time_to_first_token_seconds"),
        "tpot": ("vllm_request_time_per_output_token_seconds", "vllm:request_time_per_output_token_seconds"),
    }
    for slo, names in families.items():
        made.append(
            record(
                "model:slo_requests:rate5m",
                either(*(added("rate", MODEL, f"{name}_count") for name in names)),
                {"slo": slo},
            )
        )
        made.append(
            record(
                "model:slo_misses:rate5m",
                either(*(late(name, SLO[slo]["seconds"]) for name in names)),
                {"slo": slo},
            )
        )
    return made


def error_ratios():
    """Sums of what is recorded: a day of it costs a hundredth of a day of raw histograms."""
    requests, misses = "model:slo_requests:rate5m", "model:slo_misses:rate5m"
    made = [record("model:slo_errors:ratio_rate5m", f"{misses} / ({requests} > 0)")]
    for window in WINDOWS[1:]:
        expr = f"sum_over_time({misses}[{window}])\n/ (sum_over_time({requests}[{window}]) > 0)"
        made.append(record(f"model:slo_errors:ratio_rate{window}", expr))
    return made


def burns(slo):
    name, summary, what = ALERTS[slo]
    budget = 1 - SLO[slo]["objective"]
    for burn in SLO["burn"].values():
        long, short = burn["long"], burn["short"]
        limit = number(burn["factor"] * budget)
        selector = f'{{slo="{slo}"}}'
        expr = both(
            f"model:slo_errors:ratio_rate{long}{selector} > {limit}",
            f"model:slo_errors:ratio_rate{short}{selector} > {limit}",
            f"avg_over_time(model:slo_requests:rate5m{selector}[{long}]) > {number(TRAFFIC['min_rate_slo'])}",
        )
        description = (
            f"{{{{ $value | humanizePercentage }}}} {what} in the last {long}, above {number(burn['factor'])} times "
            f"the {number(budget * 100)} % that the objective allows."
        )
        yield rule(name, "business", burn["severity"], expr, summary, description, burn["for"], {"window": long})
