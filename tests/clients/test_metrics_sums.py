"""The proxy's sums are the engine's own, to the token."""

import pytest
from prom import total
from support import HELLO, call, eventually
from traffic import Sums, chat, completion, mixed

pytestmark = pytest.mark.metrics

INPUT, OUTPUT = "vllm_input_tokens_per_request", "vllm_output_tokens_per_request"
SUCCESS = "vllm_request_success_total"
ENGINE = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:prefix_cache_hits_total")


def measure(engine, counters, work):
    """What the clients saw, what the engine counted, and the proxy's page before."""
    before_engine, before = engine.read(), counters.read()
    sums = work()
    wanted = [sums.engine_input, sums.output]

    def counted():
        after = engine.read()
        return [total(after, name) - total(before_engine, name) for name in ENGINE]

    # What a client saw and what the engine counted agree, or nothing below would mean anything.
    eventually(lambda: counted()[:2] == wanted, 5, f"the engine counts {wanted}, not {counted()}")
    return sums, counted(), before


def usage(sums):
    """The four differences that every completed request with usage makes."""
    return {
        (f"{INPUT}_sum", "source", "usage"): sums.input,
        (f"{OUTPUT}_sum", "source", "usage"): sums.output,
        (f"{INPUT}_count", "source", "usage"): sums.count,
        (f"{OUTPUT}_count", "source", "usage"): sums.count,
    }


def test_sums(proxy, engine, counters, narrow):
    sums, (prompt, generated, _), before = measure(engine, counters, lambda: mixed(proxy, narrow))
    assert sums.count >= 60 and sums.input == prompt and sums.output == generated
    counters.settled(before, usage(sums) | {
        (SUCCESS,): sums.count,
        (SUCCESS, "model", "tiny"): sums.count,
        **{(SUCCESS, "endpoint", e, "stream", s): n for (e, s), n in sums.requests.items()},
        (f"{INPUT}_count",): sums.count,  # and from no other source
        (f"{OUTPUT}_count",): sums.count,
        ("vllm_request_duration_seconds_count",): sums.count,
        ("vllm_request_time_to_first_token_seconds_count",): sums.streams,
        ("vllm_request_error_total",): 0,
        ("vllm_request_cancelled_total",): 0,
        ("tokenglass_observer_faults_total",): 0,
        ("vllm_reasoning_tokens_total",): sums.reasoning,
    })
    assert sums.reasoning > 0
    counters_at_rest(counters)


def test_finish_reasons(proxy, counters):
    before = counters.read()
    sums = Sums()
    for number in range(3):
        chat(proxy, sums, number, number == 0, max_tokens=4)
        completion(proxy, sums, number, number == 1, max_tokens=4)
    name = "vllm_request_finish_total"
    counters.settled(before, {(name,): 6, (name, "finish_reason", "length"): 6, (SUCCESS,): 6})


def test_two_choices(proxy, engine, counters):
    """usage holds the prompt once however many choices there are; the engine counts it for each."""
    def work():
        sums = Sums()
        for number in range(4):
            for stream in (False, True):
                chat(proxy, sums, number, stream, n=2)
                completion(proxy, sums, number, stream, n=2)
                chat(proxy, sums, number, stream, {"continuous_usage_stats": True}, n=3)
        return sums

    sums, (prompt, generated, _), before = measure(engine, counters, work)
    assert prompt > sums.input and generated == sums.output
    counters.settled(before, usage(sums) | {(SUCCESS,): sums.count})


def test_cached_tokens(proxy, engine, counters):
    """What the prefix cache answered, where usage says so."""
    prompt = [{"role": "user", "content": "cached " * 400}]

    def work():
        sums = Sums()
        for stream in (False, True, False, True):
            chat(proxy, sums, 1, stream, messages=prompt)
        return sums

    sums, (_, _, hits), before = measure(engine, counters, work)
    assert sums.cached > 0 and sums.cached == hits
    counters.settled(before, usage(sums) | {("vllm_cached_input_tokens_total",): sums.cached})


def test_without_usage(proxy, counters):
    """A stream without usage is a success too, and its tokens are not passed off as exact."""
    before = counters.read()
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 9, "temperature": 0, "stream": True}
    for _ in range(5):
        call("openai", "sync", proxy, "chat.completions.create", body)
    counters.settled(before, {
        (SUCCESS, "endpoint", "chat_completions", "stream", "true"): 5,
        (f"{INPUT}_count", "source", "usage"): 0,
        (f"{OUTPUT}_count", "source", "usage"): 0,
        ("vllm_request_time_to_first_token_seconds_count",): 5,
    })


def counters_at_rest(counters):
    eventually(lambda: counters.total("vllm_requests_in_flight") == 0, 5, "nothing in flight")
