"""The proxy and its upstreams on hosts of their own, and what their network does to them: no hang, no leak, counts exact.

`world` checks at the end of every test that nothing is in flight, that no descriptor is left and that the proxy ends well."""

import os
import time

import pytest

from programs import Client, together, wait

# Seconds; the defaults (30 s, 2 min) with TGTEST_HOSTS=long.
LONG = os.environ.get("TGTEST_HOSTS") == "long"
ACK = 30 if LONG else 3
SEND = 120 if LONG else 4
# The kernel's clock of a connection runs in steps of probes and repetitions, which double.
SLACK = ACK + 4
UPSTREAM = {} if LONG else {"upstream__ack_timeout": f"{ACK}s"}
CLIENT = {} if LONG else {"server__send_timeout": f"{SEND}s"}
ENDLESS = {"tokens": 1_000_000, "output_tokens": 1_000_000}
PLAINLY = pytest.mark.parametrize("upstreams", [1, 3])


def mixed(number):
    """Whether it is a stream: three of four are."""
    return number % 4 > 0


def test_all_is_well(world):
    """Every upstream has its share, and the clients' counts are the proxy's."""
    one = world(3, {"itl_ms": 2})
    requests = 3000 if LONG else 400
    answers = one.load(16, requests, stream=mixed).wait()
    assert [answer for answer in answers if not answer.well] == []
    metrics = one.counts(answers)
    assert metrics.sum("vllm_request_success_total") == requests
    for sim in one.sims:
        share = metrics.sum("tokenglass_upstream_requests_total", upstream=sim.label) / requests
        assert 0.2 < share < 0.5, metrics.by("tokenglass_upstream_requests_total", "upstream")
    # And what vLLM itself has generated is what the clients have got.
    assert sum(sim.metrics().sum("vllm:generation_tokens_total") for sim in one.sims) == 16 * requests


def test_a_link_is_cut(world):
    """Packets vanish while connections to it are pooled and streams run. What had been sent there fails in time; all else
    goes to the others; and when the link is back, so is the upstream."""
    one = world(3, {"itl_ms": 20}, **UPSTREAM)
    cut = one.sims[1]
    answers = one.load(12, 48, stream=mixed).wait()
    streams = [Client(one.client, one.gateway.address) for _ in range(9)]
    length = ACK * 50 + 100
    running = together([lambda stream=stream: stream.ask(tokens=length, output_tokens=length) for stream in streams])
    wait("all streams run", lambda: sum(sim.running() for sim in one.sims) == 9)
    on_cut = cut.running()
    assert on_cut > 0
    load = one.load(6, pause=0.02, stream=mixed)
    time.sleep(0.5)
    cut.host.cut()
    noticed = wait("it is left alone", lambda: not one.gateway.healthy(cut), within=SLACK + 10)
    since = time.monotonic()
    answers += [stream.result() for stream in running]
    time.sleep(3)
    # Who comes while it is left alone notices nothing.
    late = [answer for when, answer in load.answers if when - answer.took > since]
    assert len(late) > 10
    assert [answer for answer in late if not answer.well or answer.took > 2] == []
    answers += load.stop()
    failed = [answer for answer in answers if not answer.well]
    print(f"left alone after {noticed:.1f} s; {len(failed)} failed:", *failed, sep="\n  ")
    # What was on its way to it, and may have been at work there, is not sent again: the 9 streams' share, and at most one of
    # each other client.
    assert on_cut <= len(failed) <= on_cut + 6
    assert max(answer.took for answer in failed) < SLACK + 3
    metrics = one.counts(answers)
    assert metrics.sum("tokenglass_upstream_errors_total") == metrics.sum(
        "tokenglass_upstream_errors_total", upstream=cut.label
    )

    cut.host.heal()

    # If failures have ejected it, only a request finds out that it is back.
    def used_again():
        answers.append(one.ask())
        return one.gateway.healthy(cut)

    back = wait("it is used again", used_again, within=40)
    # What it has generated for nobody meets a reset as soon as its kernel tries again.
    wait("vLLM runs nothing", lambda: cut.running() == 0, within=2 * SLACK + 10)
    had = one.gateway.metrics().sum("tokenglass_upstream_requests_total", upstream=cut.label)
    print(f"back after {back:.1f} s")
    more = one.load(6, 60).wait()
    assert all(answer.well for answer in more)
    metrics = one.counts(answers + more)
    assert metrics.sum("tokenglass_upstream_requests_total", upstream=cut.label) > had + 5


def test_the_only_link_is_cut(world):
    """The sidecar's case: one upstream. Every client has its answer in time, and the next request is served once it is back."""
    one = world(1, {"itl_ms": 20}, **UPSTREAM)
    sim = one.sims[0]
    pooled = Client(one.client, one.gateway.address)
    answers = [pooled.ask()]
    streams = together([lambda: one.ask(**ENDLESS)] * 3)
    waiting = together([lambda: one.ask(ttft_ms=3_600_000)] * 2)
    wait("they are there", lambda: sim.running() == 5)
    answers.append(pooled.ask())
    sim.host.cut()
    # On the pooled connection: sent, and never acknowledged.
    answers.append(pooled.ask())
    assert answers[-1].status == 502
    answers += [answer.result() for answer in streams + waiting]
    assert max(answer.took for answer in answers) < SLACK + 2
    # On a new one: connect_timeout.
    answers.append(pooled.ask())
    assert answers[-1].status in (502, 503) and answers[-1].took < 4
    sim.host.heal()
    answers.append(pooled.ask())
    assert answers[-1].well
    assert sum(answer.well for answer in answers) == 3
    one.counts([*answers])
    # What it has generated for nobody meets a reset as soon as its kernel tries again; the two that have said nothing yet
    # would meet it with their first token.
    wait("vLLM runs no stream", lambda: sim.running() <= 2, within=2 * SLACK + 10)


@pytest.mark.parametrize("how", ["prohibit", "unreachable", "killed"])
def test_a_host_refuses(world, how):
    """An ICMP error or a reset is an answer: the request is tried elsewhere at once."""
    one = world(3, {"itl_ms": 1}, upstream__pool_max_idle=0)
    gone = one.sims[2]
    if how == "killed":
        gone.process.kill()
        gone.process.wait()
    else:
        gone.host.refuse(how)
    answers = one.load(6, 120, stream=mixed).wait()
    assert [answer for answer in answers if not answer.well] == []
    # The connect_timeout of 3 s has not been waited for.
    assert max(answer.took for answer in answers) < 1.5
    metrics = one.counts(answers)
    assert metrics.sum("tokenglass_upstream_retries_total", upstream=gone.label) > 0
    assert metrics.sum("tokenglass_upstream_retries_total") <= 15


def test_links_are_slow(world):
    """One link is 50 to 70 ms long and loses one frame in a hundred, one has a megabit: all succeed, and the times are the links'."""
    far = {"delay": 0.05, "jitter": 0.02, "loss": 0.01}
    one = world(3, {"itl_ms": 2}, {"two": far}, server__workers=1)
    one.sims[2].host.slow("1mbit")
    requests = 2000 if LONG else 300
    answers = one.load(12, requests, stream=mixed).wait()
    assert [answer for answer in answers if not answer.well] == []
    metrics = one.counts(answers)
    sent, seconds = {}, {}
    for sim in one.sims:
        sent[sim] = metrics.sum("tokenglass_upstream_latency_seconds_count", upstream=sim.label)
        seconds[sim] = metrics.sum("tokenglass_upstream_latency_seconds_sum", upstream=sim.label) / sent[sim]
    near, far, slow = one.sims
    print({sim.host.name: (sent[sim], round(seconds[sim], 3)) for sim in one.sims})
    assert seconds[far] > 0.1 and seconds[far] > seconds[near] + 0.05
    # The load decides: the far one has fewer, but has some.
    assert requests / 30 < sent[far] < sent[near]
    assert sent[slow] > requests / 30
    assert metrics.sum("tokenglass_upstream_retries_total") == metrics.sum("tokenglass_upstream_errors_total") == 0
    assert metrics.sum("vllm_streams_stalled") == 0
    # What clients see of the far one is what the proxy says: within the histogram's sum, that is to the millisecond or so.
    streams = [answer.ttft for answer in answers if answer.ttft]
    ours = metrics.sum("vllm_request_time_to_first_token_seconds_sum")
    assert metrics.sum("vllm_request_time_to_first_token_seconds_count") == len(streams)
    assert ours <= sum(streams) < ours + 0.05 * len(streams)


@PLAINLY
def test_clients_vanish(world, upstreams):
    """In the middle of a stream, and before the first token: vLLM's requests end in time, and so does everything else."""
    one = world(upstreams, {"itl_ms": 20}, **CLIENT)
    vanishing = one.net.host("vanishing")
    answers = [one.ask()]
    clients = [Client(vanishing, one.gateway.address, timeout=3) for _ in range(6)]
    asks = [lambda client=client: client.ask(**ENDLESS) for client in clients[:3]]
    asks += [lambda client=client: client.ask(ttft_ms=3_600_000) for client in clients[3:5]]
    asks += [lambda client=client: client.ask(head_delay_ms=3_600_000) for client in clients[5:]]
    # Their own patience is not to be what ends it: the cut comes first, and their closing never arrives.
    asked = together(asks)
    wait("they are there", lambda: one.gateway.metrics().sum("vllm_requests_in_flight") == 6, within=2)
    wait("streams run", lambda: sum(sim.running() for sim in one.sims) >= 5, within=0.5)
    vanishing.cut()
    began = time.monotonic()
    wait("vLLM runs nothing", lambda: sum(sim.running() for sim in one.sims) == 0, within=SEND * 1.5 + 4)
    print(f"aborted after {time.monotonic() - began:.1f} s")
    assert not any(answer.result().well for answer in asked)
    wait("nothing is in flight", lambda: one.gateway.in_flight() == 0, within=2)
    metrics = one.gateway.metrics()
    assert metrics.by("vllm_request_cancelled_total", "phase") == {
        "streaming": 3,
        "before_first_token": 2,
        "before_head": 1,
    }
    answers.append(one.ask())
    assert all(answer.well for answer in answers)
    metrics = one.gateway.metrics()
    assert metrics.sum("vllm_request_success_total") == 2
    assert metrics.sum("vllm_request_error_total") == 0
    if upstreams > 1:
        assert metrics.sum("tokenglass_upstream_requests_total") == 8
        assert metrics.sum("tokenglass_upstream_errors_total") == 0
