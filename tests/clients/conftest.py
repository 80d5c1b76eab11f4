"""The addresses under test, from the environment, and what every test may ask for."""

import os

import pytest

pytest.register_assert_rewrite("assemble", "prom", "support", "wire")

from prom import Engine, Proxy  # noqa: E402
from support import eventually, get_json, post_json  # noqa: E402


def address(name):
    value = os.environ.get(name, "").rstrip("/")
    if not value.startswith("http://"):
        pytest.exit(f"{name} must hold an http:// address, it holds {value!r}", returncode=4)
    return value


@pytest.fixture(scope="session")
def direct():
    """vLLM itself."""
    return address("DIRECT_URL")


@pytest.fixture(scope="session")
def proxy():
    """The data port in front of it."""
    return address("PROXY_URL")


@pytest.fixture(scope="session")
def admin():
    """The proxy's admin port."""
    return address("ADMIN_URL")


@pytest.fixture(scope="session")
def engine(direct):
    """vLLM's own counters."""
    return Engine(direct)


@pytest.fixture(scope="session")
def counters(admin):
    """What the proxy measured."""
    return Proxy(admin)


class Way:
    """One way through the proxy: its data port and what it measured there."""

    def __init__(self, url, admin):
        self.url = url
        self.counters = Proxy(admin)


@pytest.fixture(scope="session", params=["observe", "inject"])
def way(request):
    """The proxy as it is by default, and the one that asks for usage itself."""
    prefix = "INJECT_" if request.param == "inject" else ""
    return Way(address(f"{prefix}URL" if prefix else "PROXY_URL"), address(f"{prefix}ADMIN_URL"))


@pytest.fixture(scope="session")
def injecting():
    return Way(address("INJECT_URL"), address("INJECT_ADMIN_URL"))


@pytest.fixture(scope="session")
def seats():
    """How many requests the engine runs at once; more wait."""
    return int(os.environ.get("MAX_NUM_SEQS", "16"))


@pytest.fixture(autouse=True)
def idle_engine(request):
    """No test starts while another's work still runs in the engine."""
    engine = Engine(address("DIRECT_URL"))
    eventually(lambda: engine.busy() == 0, 30, "vLLM idle before the test")
    yield
    eventually(lambda: engine.busy() == 0, 30, "vLLM idle after the test")


@pytest.fixture(scope="session")
def narrow(direct):
    """Token ids that let a model with random weights spell a complete tool call and little else.

    A grammar alone is not enough: such a model fills JSON's optional white space for ever.
    """
    call = '<tool_call>{"name": "get_weather", "arguments": {"city":"Paris","n":1}}</tool_call>'

    def tokens(text):
        return post_json(direct, "/tokenize", {"model": "tiny", "prompt": text})["tokens"]

    # The letters one by one too, so that the grammar never leads to a dead end.
    ids = {i for text in (call + "<|im_end|>", *sorted(set(call + "Rome2"))) for i in tokens(text)}
    white = {i for i in ids if not post_json(direct, "/detokenize", {"model": "tiny", "tokens": [i]})["prompt"].strip()}
    return sorted(ids - white)


@pytest.fixture(scope="session")
def one_token(direct):
    """A single token id that no JSON object can start with."""
    return post_json(direct, "/tokenize", {"model": "tiny", "prompt": "n"})["tokens"]


@pytest.fixture(scope="session")
def max_model_len(direct):
    return get_json(direct, "/v1/models")["data"][0]["max_model_len"]
