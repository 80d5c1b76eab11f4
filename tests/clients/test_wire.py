"""Byte for byte: what the proxy answers is what vLLM answers."""

import json
import re

import httpx
import pytest
from support import HELLO, LONG, PARAMETERS, PLAIN, eventually, get_text, normal_bytes
from wire import Stream, compose, dial, exchange, receive

JSON = ("Content-Type", "application/json")
CHAT = {"model": "tiny", "messages": HELLO, "max_tokens": 8, "temperature": 0} | PLAIN
TEXT = {"model": "tiny", "prompt": "Hello there", "max_tokens": 8, "temperature": 0}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
TOO_LONG = CHAT | {"messages": [{"role": "user", "content": "word " * 9000}]}


def post(target, body, *headers):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return "POST", compose("POST", target, raw, [JSON, *headers])


def plain(method, target, *headers):
    return method, compose(method, target, headers=headers)


REQUESTS = {
    "health": plain("GET", "/health"),
    "health head": plain("HEAD", "/health"),
    "health query": plain("GET", "/health?a=%20b&c=%C3%A9&a="),
    "version": plain("GET", "/version"),
    "ping": plain("GET", "/ping"),
    "load": plain("GET", "/load"),
    "models": plain("GET", "/v1/models"),
    "openapi": plain("GET", "/openapi.json"),
    "root": plain("GET", "/"),
    "unknown": plain("GET", "/no/such/path?x=1"),
    "unknown post": post("/v1/nothing", {"model": "tiny"}),
    "wrong method": plain("GET", "/v1/chat/completions"),
    "delete": plain("DELETE", "/v1/models"),
    "options": plain("OPTIONS", "/v1/chat/completions", ("Origin", "http://a.test"), ("Access-Control-Request-Method", "POST")),
    "cors": plain("GET", "/v1/models", ("Origin", "http://a.test")),
    "odd header": plain("GET", "/health", ("X-Odd", "caf\xe9 \xff"), ("X-Twice", "1"), ("X-Twice", "2")),
    "long target": plain("GET", "/v1/models?" + "a" * 6000),
    "escapes": plain("GET", "/v1/models/%2e%2E/..;/a%2Fb//c"),
    "request id": plain("GET", "/health", ("X-Request-Id", "mine-1")),
    "tokenize": post("/tokenize", {"model": "tiny", "prompt": "Grüße, 世界 🌍", "return_token_strs": True}),
    "detokenize": post("/detokenize", {"model": "tiny", "tokens": [300, 400, 500]}),
    "embeddings": post("/v1/embeddings", {"model": "tiny", "input": "x"}),
    "chat": post("/v1/chat/completions", CHAT),
    "chat id": post("/v1/chat/completions", CHAT, ("X-Request-Id", "mine-2")),
    "chat bearer": post("/v1/chat/completions", CHAT, ("Authorization", "Bearer sk-whatever")),
    "chat gzip accepted": post("/v1/chat/completions", CHAT, ("Accept-Encoding", "gzip, br")),
    "chat spaces": post("/v1/chat/completions", json.dumps(CHAT, indent=4).encode()),
    "completions": post("/v1/completions", TEXT),
    "messages": post("/v1/messages", {"model": "tiny", "messages": HELLO, "max_tokens": 8, "temperature": 0}),
    "count tokens": post("/v1/messages/count_tokens", {"model": "tiny", "messages": HELLO}),
    "unknown model": post("/v1/chat/completions", CHAT | {"model": "nope"}),
    "unknown model stream": post("/v1/chat/completions", CHAT | {"model": "nope"} | USAGE),
    "no model": post("/v1/chat/completions", {"messages": HELLO, "max_tokens": 2, "temperature": 0}),
    "too long": post("/v1/chat/completions", TOO_LONG),
    "too long stream": post("/v1/chat/completions", TOO_LONG | USAGE),
    "bad json": post("/v1/chat/completions", b'{"model": "tiny", "messages": ['),
    "empty": post("/v1/chat/completions", b""),
    "bad role": post("/v1/chat/completions", CHAT | {"messages": [{"content": "x"}]}),
    "bad temperature": post("/v1/chat/completions", CHAT | {"temperature": -3}),
    "wrong type": ("POST", compose("POST", "/v1/chat/completions", b"<a/>", [("Content-Type", "text/xml")])),
    "messages unknown model": post("/v1/messages", {"model": "nope", "messages": HELLO, "max_tokens": 8}),
    "old client": ("GET", compose("GET", "/v1/models", version="1.0")),
}
STREAMS = {
    "chat": ("/v1/chat/completions", CHAT | {"stream": True}),
    "chat usage": ("/v1/chat/completions", CHAT | USAGE),
    "chat ids": ("/v1/chat/completions", CHAT | {"stream": True, "return_token_ids": True}),
    "completions": ("/v1/completions", TEXT | {"stream": True}),
    "completions usage": ("/v1/completions", TEXT | USAGE),
    "messages": ("/v1/messages", {"model": "tiny", "messages": HELLO, "max_tokens": 8, "temperature": 0, "stream": True}),
    "responses": ("/v1/responses", {"model": "tiny", "input": "Hello", "max_output_tokens": 8, "temperature": 0, "stream": True}),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_answer(direct, proxy, name):
    method, request = REQUESTS[name]
    mine, theirs = exchange(direct, request, method), exchange(proxy, request, method)
    assert theirs.status == mine.status and theirs.reason == mine.reason
    fixed = {"request id": "mine-1", "chat id": "mine-2"}.get(name)
    assert unnamed(theirs.headers, fixed) == unnamed(mine.headers, fixed)
    assert normal_bytes(theirs.body) == normal_bytes(mine.body)


def unnamed(headers, expected):
    """vLLM makes a request id up where the client gave none."""
    ids = [v for k, v in headers if k == "x-request-id"]
    assert expected is None or ids == [expected]
    return [(k, v if expected else "*") if k == "x-request-id" else (k, v) for k, v in headers]


@pytest.mark.parametrize("name", STREAMS)
def test_stream(direct, proxy, name):
    """vLLM itself merges frames now and then, so one of a few attempts must agree in every byte."""
    request = post(*STREAMS[name])[1]
    differences = []
    for _ in range(10):
        mine, theirs = exchange(direct, request), exchange(proxy, request)
        assert (theirs.status, theirs.reason) == (mine.status, mine.reason) == (200, "OK")
        assert unnamed(theirs.headers, None) == unnamed(mine.headers, None)
        assert ("transfer-encoding", "chunked") in theirs.headers
        a, b = normal_bytes(mine.body), normal_bytes(theirs.body)
        assert a.count(b"data: ") > 2 and a.endswith(b"\n\n") and b.endswith(b"\n\n")
        if a == b:
            return
        differences.append((a, b))
    raise AssertionError(f"never the same bytes: {differences}")


def test_error_within_a_stream(direct, proxy, one_token):
    """The engine fails after the head of a 200 has been sent: the error frame and [DONE] pass."""
    body = CHAT | USAGE | {"allowed_token_ids": one_token, "structured_outputs": {"json": PARAMETERS}}
    request = post("/v1/chat/completions", body)[1]
    mine, theirs = exchange(direct, request), exchange(proxy, request)
    assert mine.status == theirs.status == 200
    assert b'"error"' in mine.body and mine.body.endswith(b"data: [DONE]\n\n")
    assert normal_bytes(theirs.body) == normal_bytes(mine.body)


def test_metrics_of_vllm(direct, proxy):
    """The data port owns no path: /metrics there is vLLM's."""
    (status, headers, text), (status_, headers_, text_) = get_text(direct, "/metrics"), get_text(proxy, "/metrics")
    assert status == status_ == 200 and headers["content-type"] == headers_["content-type"]
    assert re.findall(r"^# TYPE .*$", text, re.M) == re.findall(r"^# TYPE .*$", text_, re.M)
    assert "vllm:num_requests_running" in text_


def test_kept_connection(direct, proxy):
    """Three exchanges on one connection, an error and a stream among them."""
    wanted = [REQUESTS["chat"], REQUESTS["unknown model"], post(*STREAMS["chat usage"]), REQUESTS["health"]]
    for url in (direct, proxy):
        with dial(url) as connection:
            answers = []
            for method, request in wanted:
                connection.sendall(request)
                answers.append(receive(connection, method))
        assert [a.status for a in answers] == [200, 404, 200, 200], url
        assert answers[2].body.endswith(b"data: [DONE]\n\n")


def test_chunked_request(direct, proxy):
    raw = json.dumps(CHAT).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: vllm.test\r\nContent-Type: application/json\r\n"
    parts = [raw[:1], raw[1:50], raw[50:]]
    body = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"
    request = head + b"Transfer-Encoding: chunked\r\n\r\n" + body
    mine, theirs = exchange(direct, request), exchange(proxy, request)
    assert mine.status == theirs.status == 200
    assert normal_bytes(theirs.body) == normal_bytes(mine.body)


def test_expect_continue(direct, proxy):
    """A client that waits for 100 before it sends the body gets it, and then the answer."""
    raw = json.dumps(CHAT).encode()
    head = compose("POST", "/v1/chat/completions", raw, [JSON, ("Expect", "100-continue")])[: -len(raw)]
    bodies = []
    for url in (direct, proxy):
        with dial(url, timeout=10) as connection:
            connection.sendall(head)
            interim = b""
            while not interim.endswith(b"\r\n\r\n"):
                more = connection.recv(1)
                assert more, f"{url} closed after {interim!r}"
                interim += more
            assert interim.startswith(b"HTTP/1.1 100 "), interim
            connection.sendall(raw)
            bodies.append(normal_bytes(receive(connection, "POST").body))
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize("which", ["direct", "proxy"])
def test_frames_come_at_once(request, engine, which):
    """The first frames are here while the engine still works on the rest."""
    url = request.getfixturevalue(which)
    body = CHAT | LONG | {"stream": True, "ignore_eos": True}
    with Stream(url, post("/v1/chat/completions", body)[1]) as stream:
        assert stream.head() == 200
        for _ in range(3):
            assert stream.frame().startswith(b"data: {")
        # vLLM sets its gauge once a step is through, so it may be a moment behind its own frames.
        eventually(lambda: engine.running() >= 1, 2, "the engine is still at work")


@pytest.mark.product
def test_http2(direct, proxy):
    """HTTP/2 without TLS in, HTTP/1.1 to vLLM."""
    request = post("/v1/chat/completions", CHAT | USAGE)[1]
    mine = exchange(direct, request)
    with httpx.Client(http1=False, http2=True, timeout=60) as client:
        answers = [client.post(f"{proxy}/v1/chat/completions", json=CHAT | USAGE) for _ in range(3)]
    assert {a.http_version for a in answers} == {"HTTP/2"}
    assert {a.status_code for a in answers} == {200}
    assert any(normal_bytes(a.content) == normal_bytes(mine.body) for a in answers)
