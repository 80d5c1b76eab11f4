"""What Kubernetes does around the pods: a Service that follows their readiness, and the order in which a pod ends."""

import asyncio
import contextlib
import random
import signal

from processes import answers, fetch


class Service:
    """Sends a new connection to one of those that were ready when it looked last; established ones stay where they are."""

    def __init__(self, pods, interval=0.2):
        self.pods, self.interval = list(pods), interval
        self.ready, self.random = list(pods), random.Random(3)

    async def __aenter__(self):
        self.task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *failure):
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    async def _follow(self):
        while True:
            pods = list(self.pods)
            ready = await asyncio.gather(*(asyncio.to_thread(pod.ready) for pod in pods))
            self.ready = [pod for pod, is_ready in zip(pods, ready, strict=True) if is_ready]
            await asyncio.sleep(self.interval)

    def __call__(self):
        return "127.0.0.1", self.random.choice(self.ready).data

    async def takes(self, pod):
        """Adds it, and waits until it is sent to."""
        self.pods.append(pod)
        async with asyncio.timeout(20):
            while pod not in self.ready:
                await asyncio.sleep(0.02)


class Pod:
    """vLLM with its sidecar. `native`: the sidecar is an init container, which ends after vLLM; else both are told at once."""

    def __init__(self, sim, proxy, native=True):
        self.sim, self.proxy, self.native = sim, proxy, native
        self.data = proxy.data

    def ready(self):
        """Both containers are: the sidecar by /readyz, vLLM by /health through it."""
        return self.proxy.ready() and answers(f"http://127.0.0.1:{self.data}/health")

    def end(self, grace=20):
        """As kubelet does; the exit status of the sidecar, and what the hook was told."""
        if not self.native:
            self.proxy.signal(signal.SIGTERM)
        hook = f"http://127.0.0.1:{self.proxy.admin}/drain?wait=1"
        told = fetch(hook, timeout=grace)
        self.sim.signal(signal.SIGTERM)
        self.sim.ended()
        with contextlib.suppress(ProcessLookupError):
            self.proxy.signal(signal.SIGTERM)
        return self.proxy.ended(), told
