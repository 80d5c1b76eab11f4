import pytest

import net
import programs


@pytest.fixture(scope="session", autouse=True)
def possible():
    why = net.lacking()
    if why:
        pytest.exit(f"no hosts can be made here: {why}", returncode=1)


@pytest.fixture
def network():
    made = net.Net()
    yield made
    made.close()


@pytest.fixture
def world(network, tmp_path):
    """Makes a world of `upstreams` hosts with a simulated vLLM each, the proxy and a client on hosts of their own. When the
    test is over, all that the proxy had open has to be closed, and it has to end well."""
    worlds = []

    def make(upstreams, behaviour=None, links=None, **settings):
        made = World(network, upstreams, behaviour or {}, links or {}, tmp_path / "log", settings)
        worlds.append(made)
        return made

    yield make
    for made in worlds:
        made.end()


class World:
    def __init__(self, network, upstreams, behaviour, links, log, settings):
        self.net = network
        names = ["one", "two", "three"][:upstreams]
        self.sims = [programs.Sim(network.host(name, **links.get(name, {})), **behaviour) for name in names]
        self.log = log
        with log.open("w") as file:
            self.gateway = programs.Gateway(network.host("gateway"), self.sims, file, **settings)
        self.client = network.host("client")
        self.loads = []
        self.descriptors = self.gateway.descriptors()
        self.resident = self.gateway.resident()

    def load(self, clients, requests=None, **options):
        self.loads.append(programs.Load(self.client, self.gateway.address, clients, requests, **options))
        return self.loads[-1]

    def ask(self, host=None, **directive):
        one = programs.Client(host or self.client, self.gateway.address)
        answer = one.ask(**directive)
        one.close()
        return answer

    def counts(self, answers):
        """Holds the clients' own counts against the proxy's, to the unit, once the last request has ended for both."""
        programs.wait("nothing is in flight", lambda: self.gateway.in_flight() == 0)
        well = [answer for answer in answers if answer.well]
        metrics = self.gateway.metrics()
        assert metrics.sum("vllm_request_success_total") == len(well)
        assert metrics.sum("vllm_request_error_total") == len(answers) - len(well)
        assert metrics.sum("vllm_request_cancelled_total") == 0
        assert metrics.sum("vllm_request_duration_seconds_count") == len(answers)
        for family, count in (("output", "tokens"), ("input", "prompt")):
            wanted = sum(getattr(answer, count) for answer in well)
            assert metrics.sum(f"vllm_{family}_tokens_per_request_sum", source="usage") == wanted
        if len(self.sims) > 1:
            sent = metrics.sum("tokenglass_upstream_requests_total")
            retries = metrics.sum("tokenglass_upstream_retries_total")
            assert sent == len(answers) + retries
            failed = metrics.sum("tokenglass_upstream_errors_total")
            assert failed == len(answers) - len(well) + retries
        return metrics

    def end(self):
        """Nothing is left of the connections, and the proxy ends when it is told to."""
        for load in self.loads:
            load.stopped = True
        for host in self.net.hosts:
            host.heal()
        gateway = self.gateway
        programs.wait("nothing is in flight", lambda: gateway.in_flight() == 0)
        # A descriptor more may be one that the poller or we have open just now.
        programs.wait(
            "as many descriptors as before",
            lambda: gateway.descriptors() <= self.descriptors,
            within=20,
        )
        assert gateway.resident() < self.resident + 40
        gateway.process.terminate()
        assert gateway.process.wait(timeout=10) == 0
        assert "panic" not in self.log.read_text()
