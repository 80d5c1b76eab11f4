"""Processes for a test, and none after it."""

import pytest

pytest.register_assert_rewrite("books", "processes")

from processes import Proxy, Sim, free_port, port_on_all, stop  # noqa: E402


class Rig:
    def __init__(self, folder):
        self.folder, self.processes = folder, []

    def sims(self, count, *, first=1, **how):
        """So many, each with an address of its own and the same port, running."""
        addresses = [f"127.0.1.{first + at}" for at in range(count)]
        port = how.pop("port", None) or port_on_all(addresses)
        sims = [Sim(self.folder, first + at, address, port, **how) for at, address in enumerate(addresses)]
        self.processes += sims
        for sim in sims:
            sim.start()
        for sim in sims:
            sim.wait()
        return sims

    def sim(self, number, **how):
        """One that does not run yet."""
        sim = Sim(self.folder, number, f"127.0.1.{number}", free_port(f"127.0.1.{number}"), **how)
        self.processes.append(sim)
        return sim

    def proxy(self, name, upstreams=(), *, resolver=None, wait=True, **sections):
        proxy = Proxy(self.folder, name, upstreams, **sections)
        self.processes.append(proxy)
        proxy.start(resolver)
        return proxy.wait() if wait else proxy


@pytest.fixture
def rig(tmp_path):
    rig = Rig(tmp_path)
    yield rig
    stop(rig.processes)
