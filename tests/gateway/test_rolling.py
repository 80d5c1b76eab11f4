"""Rolling restarts under load, of a gateway and of sidecars: nobody notices."""

import asyncio
import signal
import time

import pytest
from books import generated, settled, tokens
from client import Load, chat, once
from processes import eventually
from service import Pod, Service

CLIENTS = 16
ROUNDS = 3
SHUTDOWN = {"ready_delay": "400ms", "drain_timeout": "3s"}


def what(number):
    """Answers in one piece, short streams, and some that last for a second and more."""
    stream = number % 3 > 0
    slow = {"itl_ms": 120} if number % 10 == 1 else None
    return {"message": chat(stream=stream, tokens=10, sim=slow), "stream": stream}


def all_served(load):
    assert not load.bad, (len(load.bad), load.bad[:3])
    longest = max(answer.ended - answer.began for answer in load.answers if answer.stream)
    print(f"{len(load.answers)} requests, streams of up to {longest:.1f} s")
    # Most clients send a prompt no second time by themselves.
    assert load.again == 0, f"{load.again} requests found their kept connection closed"
    assert longest > 1


def test_a_gateway_of_two(rig):
    sims = rig.sims(3)
    urls = [sim.url for sim in sims]
    started = [rig.proxy(f"gateway-{name}", urls, shutdown=SHUTDOWN) for name in "ab"]

    async def play():
        lasted = []
        async with Service(started) as service, Load(service, CLIENTS, what) as load:
            await asyncio.sleep(0.5)
            for turn in range(ROUNDS):
                for at in range(2):
                    old = service.pods[0]
                    began = time.monotonic()
                    old.signal(signal.SIGTERM)
                    assert await asyncio.to_thread(old.ended) == 0
                    lasted.append(time.monotonic() - began)
                    service.pods.remove(old)
                    new = rig.proxy(f"gateway-{turn}{at}", urls, wait=False, shutdown=SHUTDOWN)
                    started.append(new)
                    await service.takes(new)
            await asyncio.sleep(0.3)
        return load, lasted

    load, lasted = asyncio.run(play())
    all_served(load)
    # A second run of a request that was asked again would show here.
    generated(sims, load.answers)
    succeeded = sum(sim.metrics().sum("vllm:request_success_total") for sim in sims)
    assert succeeded == len(load.answers)
    assert len(started) == 2 + 2 * ROUNDS and all(0.4 <= each < 3.5 for each in lasted), lasted
    for proxy in started[:-2]:
        assert [line["cut"] for line in proxy.logged("stopped")] == [0]
    for proxy in started[-2:]:
        assert settled(proxy, []).sum("vllm_request_error_total") == 0


@pytest.mark.parametrize("native", [True, False], ids=["native", "plain"])
def test_two_pods_with_sidecars(rig, native):
    number = 0

    def pod():
        nonlocal number
        number += 1
        sim = rig.sim(number).start()
        proxy = rig.proxy(f"sidecar-{number}", [sim.url], wait=False, shutdown=SHUTDOWN)
        return Pod(sim, proxy, native)

    first = [pod(), pod()]
    eventually(lambda: all(each.ready() for each in first), 10, "both pods are ready")
    rounds = 2 if native else 1

    async def play():
        ended = []
        async with Service(first) as service, Load(service, CLIENTS, what) as load:
            await asyncio.sleep(0.5)
            for _ in range(rounds):
                for _ in range(2):
                    old = service.pods[0]
                    ended.append(await asyncio.to_thread(old.end))
                    service.pods.remove(old)
                    await service.takes(pod())
            await asyncio.sleep(0.3)
        return load, ended, service.pods

    load, ended, left = asyncio.run(play())
    all_served(load)
    assert ended == [(0, "drained\n")] * (2 * rounds), ended
    for each in left:
        # Of those that live what the sidecar has counted is what its vLLM did.
        mine = [answer for answer in load.answers if answer.sim == each.sim.number]
        samples = settled(each.proxy, mine)
        assert samples.sum("vllm_request_success_total") == len(mine)
        assert samples.sum("vllm_output_tokens_per_request_sum", source="usage") == tokens(mine)[1]
        generated([each.sim], load.answers)


def test_what_outlasts_the_drain_is_cut_and_counted(rig):
    sims = rig.sims(2)
    # So that the cut can be seen in the metrics, somebody waits for the end.
    proxy = rig.proxy("gateway", [sim.url for sim in sims], shutdown={"ready_delay": "200ms", "drain_timeout": "1500ms"})

    async def play():
        long = [asyncio.create_task(once(proxy.data, chat(stream=True, tokens=10, sim={"itl_ms": 9000}), stream=True)) for _ in range(4)]
        short = [asyncio.create_task(once(proxy.data, chat(stream=True, tokens=10, sim={"itl_ms": 140}), stream=True)) for _ in range(4)]
        await asyncio.sleep(0.3)
        began = time.monotonic()
        proxy.signal(signal.SIGTERM)
        watch = asyncio.create_task(asyncio.to_thread(scraped_to_the_end, proxy))
        status = await asyncio.to_thread(proxy.ended)
        took = time.monotonic() - began
        return await asyncio.gather(*long), await asyncio.gather(*short), status, took, await watch

    long, short, status, took, seen = asyncio.run(play())
    assert status == 0 and 1.7 <= took < 3, (status, took)
    assert all(answer.good for answer in short), short
    assert not any(answer.whole for answer in long), "a tidy end"
    assert all(answer.status == 200 and answer.body for answer in long), long
    assert [line["cut"] for line in proxy.logged("stopped")] == [4]
    print(f"cut after {took:.1f} s; tokenglass_drain_cut_total as last scraped: {seen}")
    eventually(lambda: sum(sim.metrics().sum("vllm:num_requests_running") for sim in sims) == 0, 2, "vLLM has aborted them")


def scraped_to_the_end(proxy):
    seen = None
    while proxy.runs():
        try:
            seen = proxy.metrics().sum("tokenglass_drain_cut_total")
        except OSError:
            break
        time.sleep(0.005)
    return seen
