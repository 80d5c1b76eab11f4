"""A gateway in front of six simulators, all processes: who gets what, and what a client sees when one fails."""

import asyncio
import collections
import os
import signal
import time

import pytest
from books import balanced, generated, settled
from client import Load, chat, for_a_while, once, request
from processes import can_change_resolver, port_on_all
from world import Door, NameServer

CLIENTS = 24


def urls(sims):
    return [sim.url for sim in sims]


def to(proxy):
    return lambda: ("127.0.0.1", proxy.data)


async def look(proxy):
    """Its metrics, while the load goes on."""
    return await asyncio.to_thread(proxy.metrics)


async def until(check, seconds, what):
    end = time.monotonic() + seconds
    while not (value := await asyncio.to_thread(check)):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.03)
    return value


def healthy(proxy, label):
    return proxy.metrics().sum("tokenglass_upstream_healthy", upstream=label) == 1


def test_equal_upstreams_get_equal_shares(rig):
    sims = rig.sims(6)
    proxy = rig.proxy("gateway", urls(sims))

    async def play():
        async with Load(to(proxy), CLIENTS) as load:
            await until(lambda: len(load.answers) >= 2000, 30, "two thousand answers")
        return load

    load = asyncio.run(play())
    assert not load.bad, load.bad[:3]
    samples = balanced(proxy, load.answers, sims)
    generated(sims, load.answers)
    assert samples.sum("tokenglass_upstream_errors_total") == 0
    shares = load.by_sim()
    print(f"{len(load.answers)} requests, shares {sorted(shares.values())}")
    assert len(shares) == 6 and max(shares.values()) < 1.3 * min(shares.values()), shares


def test_each_model_has_its_pool(rig):
    sims = rig.sims(2, models=("small",))
    sims += rig.sims(2, first=3, models=("large",))
    sims += rig.sims(2, first=5, models=("small", "large"))
    proxy = rig.proxy("gateway", urls(sims))

    def what(number):
        model = ("small", "large")[number % 2]
        stream = number % 4 < 2
        return {"message": chat(stream=stream, model=model), "stream": stream, "session": model}

    async def play():
        await until(lambda: proxy.metrics().sum("vllm_available_models") == 8, 5, "all have been asked for their models")
        async with Load(to(proxy), CLIENTS, what) as load:
            await until(lambda: len(load.answers) >= 1200, 30, "some answers")
        return load

    load = asyncio.run(play())
    assert not load.bad, load.bad[:3]
    balanced(proxy, load.answers, sims)
    pools = collections.defaultdict(collections.Counter)
    for answer in load.answers:
        pools[answer.session][answer.sim] += 1
    assert set(pools["small"]) == {1, 2, 5, 6} and set(pools["large"]) == {3, 4, 5, 6}, pools
    shares = load.by_sim()
    assert max(shares.values()) < 1.35 * min(shares.values()), shares


def test_one_is_killed_and_comes_back(rig):
    sims = rig.sims(6)
    proxy = rig.proxy("gateway", urls(sims))
    lost = sims[2]

    async def play():
        async with for_a_while(Load(to(proxy), CLIENTS), 0.8) as load:
            await asyncio.sleep(0.8)
            before = (await look(proxy)).sum("tokenglass_upstream_in_flight", upstream=lost.label)
            lost.kill()
            killed = time.monotonic()
            await until(lambda: not healthy(proxy, lost.label), 3, "it is left alone")
            await asyncio.sleep(0.5)
            lost.start()
            await until(lambda: healthy(proxy, lost.label), 5, "it is back")
            back = time.monotonic()
        return load, before, killed, back

    load, before, killed, back = asyncio.run(play())
    samples = balanced(proxy, load.answers, sims)
    # What it had begun is lost: nobody can know whether it may be asked again. All else goes elsewhere.
    errors = {sim.label: samples.sum("tokenglass_upstream_errors_total", upstream=sim.label) for sim in sims}
    broken = samples.sum("tokenglass_upstream_errors_total", upstream=lost.label, reason="upstream_reset")
    refused = samples.sum("tokenglass_upstream_errors_total", upstream=lost.label, reason="upstream_connect")
    retried = samples.sum("tokenglass_upstream_retries_total", upstream=lost.label)
    print(f"in flight there {before:.0f}, lost {len(load.bad)}, refused and sent elsewhere {refused:.0f}")
    assert errors.pop(lost.label) == broken + refused and not any(errors.values()), errors
    assert len(load.bad) == broken + refused - retried <= 12
    assert retried >= refused, "no connection, no failure"
    # All of them were on their way when it died. One may have been written into a connection that was just closing.
    late = [answer for answer in load.bad if answer.began > killed + 0.2]
    assert not late, late
    assert all(answer.status == 502 or (answer.stream and answer.status == 200) for answer in load.bad), load.bad
    assert load.by_sim(since=back).get(lost.number, 0) > 0, "it has requests again"


def test_one_hangs_and_goes_on(rig):
    sims = rig.sims(6)
    proxy = rig.proxy("gateway", urls(sims))
    stuck = sims[4]

    async def play():
        async with Load(to(proxy), CLIENTS) as load:
            await asyncio.sleep(0.5)
            stuck.signal(signal.SIGSTOP)
            stopped = time.monotonic()
            await until(lambda: not healthy(proxy, stuck.label), 4, "it is left alone")
            noticed = time.monotonic()
            there = (await look(proxy)).sum("tokenglass_upstream_in_flight", upstream=stuck.label)
            await asyncio.sleep(0.6)
            later = (await look(proxy)).sum("tokenglass_upstream_in_flight", upstream=stuck.label)
            woken = time.monotonic()
            stuck.signal(signal.SIGCONT)
            await until(lambda: healthy(proxy, stuck.label), 3, "it is back")
            back = time.monotonic()
            await asyncio.sleep(0.7)
        return load, stopped, noticed, there, later, woken, back

    load, stopped, noticed, there, later, woken, back = asyncio.run(play())
    print(f"noticed after {noticed - stopped:.1f} s, {there:.0f} of {CLIENTS} clients hung on it")
    # It sleeps and forgets nothing: whoever waited is served.
    assert not load.bad, load.bad[:3]
    samples = balanced(proxy, load.answers, sims)
    generated(sims, load.answers)
    assert samples.sum("tokenglass_upstream_errors_total") == 0
    # Of two the one with fewer: a heap at one stops others from coming.
    assert later <= there <= CLIENTS / 3, (there, later)
    assert load.by_sim(since=back).get(stuck.number, 0) > 0
    others = load.by_sim(since=noticed, until=woken)
    assert sum(others.values()) > 100 and others.get(stuck.number, 0) == 0, others


def test_one_hangs_and_is_killed(rig):
    """What may be asked twice is; a prompt that has got out is not."""
    sims = rig.sims(6)
    proxy = rig.proxy("gateway", urls(sims), health={"interval": "10s"})
    stuck = sims[0]

    async def play():
        await until(lambda: proxy.metrics().sum("vllm_available_models") == 6, 5, "all have been asked for their models")
        stuck.signal(signal.SIGSTOP)
        slow = chat(stream=False, tokens=30, sim={"itl_ms": 80})
        prompts = [asyncio.create_task(once(proxy.data, slow)) for _ in range(40)]
        await until(lambda: proxy.metrics().sum("tokenglass_upstream_in_flight") == 40, 5, "all have been sent")
        # The others are as busy, so some of these go to it too.
        read = [asyncio.create_task(once(proxy.data, request("/version", method="GET"))) for _ in range(40)]
        await until(lambda: sum(task.done() for task in prompts) >= 20 and sum(task.done() for task in read) >= 20, 20, "the rest")
        await asyncio.sleep(1)
        hung = sum(not task.done() for task in read), sum(not task.done() for task in prompts)
        stuck.kill()
        return await asyncio.gather(*read), await asyncio.gather(*prompts), hung

    read, prompts, hung = asyncio.run(play())
    print(f"hung: {hung[0]} GET of 40, {hung[1]} prompts of 40")
    assert hung[0] > 0 and hung[1] > 0, hung
    assert [answer.status for answer in read] == [200] * 40, collections.Counter(answer.status for answer in read)
    bad = [answer for answer in prompts if not answer.good]
    assert len(bad) == hung[1] and all(answer.status == 502 for answer in bad), bad
    samples = settled(proxy, prompts)
    assert samples.sum("tokenglass_upstream_retries_total", upstream=stuck.label) == hung[0]
    broken = samples.sum("tokenglass_upstream_errors_total", upstream=stuck.label, reason="upstream_reset")
    assert broken == sum(hung) == samples.sum("tokenglass_upstream_errors_total")
    assert samples.sum("vllm_request_success_total") == 40 - hung[1]
    assert samples.sum("vllm_request_error_total", error_type="upstream_reset") == hung[1]


def test_one_starts_slowly(rig):
    """First nobody listens, then /health is 503 while it loads, then it works."""
    sims = rig.sims(5)
    late = rig.sim(6)
    address, port = "127.0.1.16", port_on_all(["127.0.1.16"])
    proxy = rig.proxy("gateway", [*urls(sims), f"http://{address}:{port}"])

    async def play():
        door = Door(late, address)
        door.unhealthy = True
        async with Load(to(proxy), CLIENTS) as load:
            await asyncio.sleep(1)
            await asyncio.to_thread(late.start().wait)
            await door.open(port)
            await asyncio.sleep(1.2)
            early = late.metrics().sum("vllm:generation_tokens_total")
            door.unhealthy = False
            await until(lambda: healthy(proxy, door.label), 5, "it is there")
            there = time.monotonic()
            await asyncio.sleep(1)
        await door.close()
        return load, door, early, there

    load, door, early, there = asyncio.run(play())
    assert not load.bad, load.bad[:3]
    late.label = door.label
    samples = balanced(proxy, load.answers, [*sims, late])
    errors = samples.sum("tokenglass_upstream_errors_total")
    refused = samples.sum("tokenglass_upstream_errors_total", upstream=door.label, reason="upstream_connect")
    assert errors == refused == samples.sum("tokenglass_upstream_retries_total")
    assert early == 0, "nothing while it loads"
    shares = load.by_sim(since=there)
    print(f"refused and sent elsewhere {refused:.0f}; shares afterwards {shares}")
    assert shares.get(6, 0) > sum(shares.values()) / 12, shares


@pytest.mark.parametrize("after", ["", "2"], ids=["plain", "retry-after"])
def test_a_storm_of_503(rig, after):
    """Two of six refuse everything for a while."""
    sims = rig.sims(6)
    ports = [port_on_all([f"127.0.1.{17 + at}"]) for at in range(2)]
    fronts = [f"http://127.0.1.{17 + at}:{port}" for at, port in enumerate(ports)]
    proxy = rig.proxy("gateway", [*fronts, *urls(sims[2:])])

    async def play():
        doors = [await Door(sim, f"127.0.1.{17 + at}").open(ports[at]) for at, sim in enumerate(sims[:2])]
        # The proxy has found nobody there when it started.
        await until(lambda: all(healthy(proxy, door.label) for door in doors), 5, "all are healthy")
        async with Load(to(proxy), CLIENTS) as load:
            await asyncio.sleep(0.6)
            for door in doors:
                door.storm = after
            began = time.monotonic()
            await asyncio.sleep(1.2)
            for door in doors:
                door.storm = None
            over = time.monotonic()
            # For how long they were left alone or asked to be, and a while.
            await asyncio.sleep(2.3)
        for door in doors:
            await door.close()
        return load, doors, began, over

    load, doors, began, over = asyncio.run(play())
    assert not load.bad, load.bad[:3]
    for sim, door in zip(sims, doors, strict=False):
        sim.label = door.label
    samples = balanced(proxy, load.answers, sims)
    generated(sims, load.answers)
    for door in doors:
        refused = samples.sum("tokenglass_upstream_errors_total", upstream=door.label, reason="overloaded")
        assert refused == door.refused == samples.sum("tokenglass_upstream_retries_total", upstream=door.label)
        # Five in a row and the trial behind them; or whatever was on its way when the first said when to come again.
        assert 0 < refused <= CLIENTS, refused
    assert samples.sum("tokenglass_upstream_errors_total") == sum(door.refused for door in doors)
    late = load.by_sim(since=over + 1)
    asked = samples.sum("tokenglass_upstream_requests_total")
    print(f"{len(load.answers)} requests, sent {asked:.0f} times, refused {[door.refused for door in doors]}, then {late}")
    assert set(late) == {1, 2, 3, 4, 5, 6}, late


def test_a_storm_everywhere_is_told(rig):
    """With nobody left to try the client hears what vLLM says."""
    sims = rig.sims(6, behaviour={"fault": {"kind": "http", "status": 503}})
    proxy = rig.proxy("gateway", urls(sims))

    async def play():
        async with for_a_while(Load(to(proxy), 8), 0.7) as load:
            pass
        return load

    load = asyncio.run(play())
    assert {answer.status for answer in load.answers} == {503}
    samples = balanced(proxy, load.answers, sims)
    assert samples.sum("vllm_request_error_total", error_type="overloaded") == len(load.answers)
    assert samples.sum("tokenglass_upstream_retries_total") == 2 * len(load.answers)
    assert samples.sum("tokenglass_upstream_errors_total", reason="overloaded") == 3 * len(load.answers)


named = pytest.mark.skipif(not can_change_resolver(), reason="only root can have a resolv.conf and a port 53 of its own")


def name_server_address():
    return f"127.0.53.{1 + os.getpid() % 250}"


@named
def test_a_name_changes(rig):
    """Three addresses, then six, then one replaced and its process ended, then the name server is gone."""
    sims = rig.sims(6)
    port = sims[0].port
    spare = rig.sims(1, first=7, port=port)[0]

    async def play():
        names = await NameServer("vllm.test").open(name_server_address(), rig.folder)
        names.addresses = [sim.address for sim in sims[:3]]
        discover = {"discover": [f"dns:http://vllm.test.:{port}"], "dns_interval": "200ms", "eject_for": "1s"}
        proxy = rig.proxy("gateway", resolver=names.file, wait=False, gateway=discover)
        await until(proxy.ready, 10, "it is ready")

        def upstreams(count):
            return lambda: proxy.metrics().sum("tokenglass_discovery_upstreams") == count

        await until(upstreams(3), 5, "three are found")
        # Some streams last longer than their server has its name.
        slow = {"itl_ms": 100}

        def what(number):
            stream = number % 2 == 0
            return {"message": chat(stream=stream, tokens=10, sim=slow if number % 40 == 0 else None), "stream": stream}

        async with Load(to(proxy), CLIENTS, what) as load:
            await asyncio.sleep(0.5)
            names.addresses = [sim.address for sim in sims]
            await until(upstreams(6), 3, "six are found")
            six = time.monotonic()
            await asyncio.sleep(0.6)
            names.addresses = [sim.address for sim in sims[1:]] + [spare.address]
            await until(lambda: proxy.metrics().sum("tokenglass_upstream_healthy", upstream=spare.label), 3, "the new one")
            await until(lambda: sims[0].label not in proxy.metrics().by("tokenglass_upstream_healthy", "upstream"), 3, "it goes")
            replaced = time.monotonic()
            # Whoever has lost its name gets nothing new, and may end once it is idle.
            await until(lambda: sims[0].metrics().sum("vllm:num_requests_running") == 0, 5, "its streams end")
            await asyncio.sleep(0.2)
            generated([sims[0]], load.answers)
            sims[0].kill()
            names.transport.close()
            await until(lambda: proxy.metrics().sum("tokenglass_discovery_failures_total"), 8, "nobody answers")
            await asyncio.sleep(0.3)
        return load, proxy, six, replaced

    load, proxy, six, replaced = asyncio.run(play())
    assert not load.bad, load.bad[:3]
    balanced(proxy, load.answers, [*sims, spare], gone=[sims[0]])
    generated([*sims[1:], spare], load.answers)
    assert set(load.by_sim(until=six - 1)) <= {1, 2, 3}
    assert set(load.by_sim(since=six, until=replaced)) >= {1, 2, 3, 4, 5, 6}
    after = load.by_sim(since=replaced)
    print(f"{len(load.answers)} requests; afterwards {after}")
    assert set(after) == {2, 3, 4, 5, 6, 7}, after


@named
def test_sessions_stay_through_a_scale_out(rig):
    sims = rig.sims(6)
    sessions = [f"session-{number}" for number in range(400)]

    async def ask_all(proxy, among):
        """Where each session is."""
        left, found = list(among), {}

        async def client():
            while left:
                session = left.pop()
                answer = await once(proxy.data, chat(stream=False, tokens=2, session=session), session=session)
                assert answer.good, answer
                found[session] = answer.sim
                answers.append(answer)

        await asyncio.gather(*(client() for _ in range(8)))
        return found

    answers = []

    async def play():
        names = await NameServer("vllm.test").open(name_server_address(), rig.folder)
        names.addresses = [sim.address for sim in sims[:5]]
        gateway = {
            "discover": [f"dns:http://vllm.test.:{sims[0].port}"],
            "dns_interval": "200ms",
            "affinity": "x-session-id",
        }
        proxy = rig.proxy("gateway", resolver=names.file, wait=False, gateway=gateway)
        await until(proxy.ready, 10, "it is ready")
        await until(lambda: proxy.metrics().sum("tokenglass_discovery_upstreams") == 5, 5, "five are found")
        before = await ask_all(proxy, sessions)

        # While it grows the sessions go on.
        def what(number):
            session = sessions[number % len(sessions)]
            return {"message": chat(stream=True, tokens=4, session=session), "stream": True, "session": session}

        async with Load(to(proxy), 12, what) as load:
            names.addresses.append(sims[5].address)
            await until(lambda: proxy.metrics().sum("tokenglass_upstream_healthy") == 6, 5, "six are found")
            await asyncio.sleep(1)
        after = await ask_all(proxy, sessions)
        new = await ask_all(proxy, [f"new-{number}" for number in range(200)])
        return proxy, load, before, after, new

    proxy, load, before, after, new = asyncio.run(play())
    assert not load.bad, load.bad[:3]
    balanced(proxy, answers + load.answers, sims)
    generated(sims, answers + load.answers)
    stayed = sum(after[session] == before[session] for session in sessions) / len(sessions)
    meanwhile = sum(answer.sim == before[answer.session] for answer in load.answers) / len(load.answers)
    spread = collections.Counter(before.values())
    print(f"stayed {stayed:.1%}, meanwhile {meanwhile:.1%}; spread {spread}; new {collections.Counter(new.values())}")
    assert len(spread) == 5 and max(spread.values()) < 2 * min(spread.values()), spread
    assert stayed >= 0.95 and meanwhile >= 0.95
    assert 200 / 12 < sum(sim == 6 for sim in new.values()) < 200 / 3, "new sessions go to the new one too"
