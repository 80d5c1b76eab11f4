"""Every way a request can end, each counted once and as what it was."""

import json

import pytest
from load import BODY, full_engine, open_stream, request
from prom import total
from support import HELLO, PARAMETERS, PLAIN, eventually, get_json, get_text, patient
from wire import compose, dial, exchange

pytestmark = pytest.mark.metrics

CANCELLED, ERROR, SUCCESS = "vllm_request_cancelled_total", "vllm_request_error_total", "vllm_request_success_total"
CHAT = {"model": "tiny", "messages": HELLO, "max_tokens": 8, "temperature": 0} | PLAIN


def send(proxy, body, target="/v1/chat/completions"):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return exchange(proxy, compose("POST", target, raw, [("Content-Type", "application/json")]))


def at_rest(counters):
    eventually(lambda: counters.total("vllm_requests_in_flight") == 0, 5, "nothing in flight")


@patient
def test_left_before_the_head(proxy, engine, counters):
    before = counters.read()
    with dial(proxy) as connection:
        connection.sendall(request(BODY | {"stream": False}))
        eventually(lambda: engine.running() == 1, 10, "the engine runs the request")
        assert counters.total("vllm_requests_in_flight") == 1
    counters.settled(before, {
        (CANCELLED,): 1, (CANCELLED, "phase", "before_head", "stream", "false"): 1, (SUCCESS,): 0, (ERROR,): 0,
    })
    at_rest(counters)


@patient
def test_left_before_the_first_token(proxy, direct, engine, counters, seats):
    with full_engine(direct, engine, seats):
        before = counters.read()
        with open_stream(proxy) as stream:
            assert stream.head() == 200
            eventually(lambda: engine.total("vllm:num_requests_waiting") == 1, 5, "the request waits for a seat")
        counters.settled(before, {
            (CANCELLED,): 1, (CANCELLED, "phase", "before_first_token", "stream", "true"): 1, (SUCCESS,): 0, (ERROR,): 0,
            ("vllm_request_time_to_first_token_seconds_count",): 0,
        })
    at_rest(counters)


@patient
def test_left_within_the_stream(proxy, engine, counters):
    before, generated = counters.read(), engine.generated()
    for _ in range(3):
        with open_stream(proxy) as stream:
            assert stream.head() == 200
            for _ in range(6):
                stream.frame(), stream.frame()
            assert counters.total("vllm_requests_in_flight") == 1
        eventually(lambda: engine.busy() == 0, 5, "the engine let the request go")
    counters.settled(before, {
        (CANCELLED,): 3, (CANCELLED, "phase", "streaming", "endpoint", "chat_completions", "stream", "true"): 3,
        (SUCCESS,): 0, (ERROR,): 0, ("vllm_request_time_to_first_token_seconds_count",): 3,
        ("vllm_output_tokens_per_request_count", "source", "usage"): 0,
    })
    after = counters.read()
    name = "vllm_output_tokens_per_request_sum"
    partial = sum(total(after, name, source=s) - total(before, name, source=s) for s in ("partial", "tokenizer", "estimate"))
    # No one knows exactly what a cut stream cost: an estimate of random text may be off either way.
    assert 3 * 5 <= partial <= 1.5 * (engine.generated() - generated)
    at_rest(counters)


def test_left_after_the_end(proxy, counters):
    """A client that closes once it has [DONE] has been served."""
    before = counters.read()
    for _ in range(5):
        with open_stream(proxy, CHAT | {"stream": True}) as stream:
            assert stream.head() == 200
            while stream.frame() != b"data: [DONE]\n":
                pass
    counters.settled(before, {(SUCCESS,): 5, (CANCELLED,): 0, (ERROR,): 0})


ERRORS = {
    "model_not_found": (404, CHAT | {"model": "nope-1"}),
    "context_length_exceeded": (400, CHAT | {"messages": [{"role": "user", "content": "word " * 9000}]}),
    "bad_request": (400, CHAT | {"temperature": -1}),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ERRORS)
def test_error(proxy, counters, kind, stream):
    status, body = ERRORS[kind]
    before = counters.read()
    for _ in range(3):
        assert send(proxy, body | {"stream": stream}).status == status
    counters.settled(before, {
        (ERROR,): 3, (ERROR, "error_type", kind): 3, (SUCCESS,): 0, (CANCELLED,): 0,
        (ERROR, "error_type", kind, "endpoint", "chat_completions", "stream", str(stream).lower()): 3,
    })
    at_rest(counters)


def test_malformed(proxy, counters):
    before = counters.read()
    assert send(proxy, b'{"model": "tiny", "messages": [').status == 400
    counters.settled(before, {(ERROR,): 1, (ERROR, "error_type", "bad_request"): 1, (SUCCESS,): 0})


def test_failure_in_the_engine(proxy, counters, one_token):
    """Unanswered yet, it is a 500; within a stream it is an error frame inside a 200."""
    body = CHAT | {"allowed_token_ids": one_token, "structured_outputs": {"json": PARAMETERS}}
    before = counters.read()
    assert send(proxy, body).status == 500
    assert send(proxy, body | {"stream": True}).status == 200
    counters.settled(before, {
        (ERROR,): 2, (ERROR, "error_type", "internal_error", "stream", "false"): 1,
        (ERROR, "error_type", "stream_error", "stream", "true"): 1, (SUCCESS,): 0,
    })


def test_unknown_models_make_no_series(proxy, counters):
    for number in range(20):
        send(proxy, CHAT | {"model": f"invented-{number}"})
    at_rest(counters)
    models = {labels["model"] for name, labels, _ in counters.read() if name.startswith("vllm_re") and "model" in labels}
    assert models <= {"tiny", "other", ""}, models


def test_pages_without_a_model_are_no_requests(proxy, counters):
    """Only model endpoints count as requests."""
    before = counters.read()
    for page in ("/health", "/version", "/v1/models", "/no/such/path"):
        get_text(proxy, page)
    counters.settled(before, {(SUCCESS, "endpoint", "chat_completions"): 0, (ERROR, "model", "tiny"): 0})


def test_pollers(direct, engine, counters, max_model_len):
    """vLLM's health, models and own families are on the same page."""
    for name, value in (("service_up", 1), ("model_loaded", 1), ("available_models", 1), ("available_models_total", 1)):
        eventually(lambda n=name, v=value: counters.total(f"vllm_{n}") == v, 20, f"vllm_{name} is {value}", 0.2)
    assert counters.total("vllm_max_model_len") == max_model_len
    root = get_json(direct, "/v1/models")["data"][0]["root"]
    assert counters.total("vllm_model_info", id="tiny", root=root) == 1
    for name in ("vllm:prompt_tokens_total", "vllm:generation_tokens_total"):
        eventually(lambda n=name: counters.total(n) == engine.total(n) > 0, 20, f"{name} re-exported", 0.2)


def test_admin_pages(admin, direct, proxy):
    for page in ("/healthz", "/readyz", "/version", "/metrics"):
        assert get_text(admin, page)[0] == 200, page
    assert get_text(proxy, "/readyz")[0] == get_text(direct, "/readyz")[0] == 404
    _, headers, text = get_text(admin, "/metrics", {"Accept": "application/openmetrics-text; version=1.0.0"})
    assert headers["content-type"].startswith("application/openmetrics-text") and text.endswith("# EOF\n")
    _, headers, _ = get_text(admin, "/metrics")
    assert headers["content-type"].startswith("text/plain") and "version=0.0.4" in headers["content-type"]
