"""Whether what the proxy counted is what the clients got, to the unit."""

import collections

from processes import eventually


def tokens(answers):
    """(prompt, output) of those that said."""
    usages = [usage for usage in (answer.usage() for answer in answers) if usage]
    return sum(u["prompt_tokens"] for u in usages), sum(u["completion_tokens"] for u in usages)


def ended(samples):
    return sum(samples.sum(f"vllm_request_{name}_total") for name in ("success", "error", "cancelled"))


def settled(proxy, answers):
    """The metrics, once all has ended that was asked."""

    def all_ended():
        samples = proxy.metrics()
        idle = samples.sum("vllm_requests_in_flight") == 0 and samples.sum("tokenglass_upstream_in_flight") == 0
        return samples if idle and ended(samples) >= len(answers) else None

    return eventually(all_ended, 10, "every request has ended in the proxy's books")


def balanced(proxy, answers, sims, *, gone=()):
    """Compares all there is to compare, and returns the metrics. `gone`: simulators whose series are no more, since they are
    no upstreams any longer."""
    samples = settled(proxy, answers)
    good = [answer for answer in answers if answer.good]
    bad = [answer for answer in answers if not answer.good]
    for stream in (True, False):
        label = {"stream": str(stream).lower()}
        counted = samples.sum("vllm_request_success_total", **label)
        assert counted == sum(answer.stream is stream for answer in good), (stream, counted)
        counted = samples.sum("vllm_request_error_total", **label)
        assert counted == sum(answer.stream is stream for answer in bad), (stream, counted)
    assert samples.sum("vllm_request_cancelled_total") == 0
    # Of a stream that broke the proxy counts what it has passed on, as the last count in it says.
    heard = [answer for answer in answers if answer.usage()]
    prompt, output = tokens(heard)
    counted = sum(samples.sum("vllm_output_tokens_per_request_sum", source=source) for source in ("usage", "partial"))
    assert counted == output, ("output tokens", counted, output)
    counted = sum(samples.sum("vllm_input_tokens_per_request_sum", source=source) for source in ("usage", "partial"))
    assert counted == prompt, ("input tokens", counted, prompt)
    if sims and not gone:
        shared_out(samples, good, bad, sims)
    return samples


def shared_out(samples, good, bad, sims):
    """What each upstream got: the answers that it gave, and what it failed."""
    requests = samples.by("tokenglass_upstream_requests_total", "upstream")
    errors = samples.by("tokenglass_upstream_errors_total", "upstream")
    retries = samples.by("tokenglass_upstream_retries_total", "upstream")
    gave = collections.Counter(answer.sim for answer in good)
    for sim in sims:
        sent = gave[sim.number] + errors[sim.label]
        assert requests[sim.label] == sent, (sim.label, requests[sim.label], gave[sim.number], errors[sim.label])
        assert retries[sim.label] <= errors[sim.label]
    assert sum(requests.values()) == len(good) + len(bad) + sum(retries.values())
    assert sum(errors.values()) - sum(retries.values()) == len(bad), "what was failed and not tried elsewhere"


def generated(sims, answers):
    """What the simulators themselves have counted, of those that have lived all along."""
    for sim in sims:
        mine = [answer for answer in answers if answer.sim == sim.number]
        counted = sim.metrics().sum("vllm:generation_tokens_total")
        assert counted == tokens(mine)[1], (sim.label, counted, tokens(mine)[1])
