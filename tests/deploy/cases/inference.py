"""Cases of the inference alerts."""

from base import Alert, grows, halted, histogram, same

PLACE = 'instance="tg:9101",job="tokenglass"'
VLLM = PLACE + ',model_name="llama",engine="0"'
WIRE = PLACE + ',model="llama",endpoint="chat_completions",stream="true"'
AT = {"instance": "tg:9101"}
HERE = AT | {"model": "llama"}
WHICH = "vLLM behind tg:9101"
# A request a second, so that there is enough to speak of.
BUSY = {f"vllm_request_duration_seconds_count{{{WIRE}}}": grows(30)}


def made(name, summary):
    return Alert(name, "inference", "tokenglass-inference", summary)


def health():
    down = made("VllmServiceDown", "vLLM cannot be reached")
    up = f"vllm_service_up{{{PLACE}}}"
    fired = down.fires("critical", f"{WHICH} does not answer.", **AT)
    down.case("for a minute", {up: "1 1 0+0x20"}, ("1m30s", []), ("2m30s", [fired]))
    down.case("30 seconds", {up: "1 1 0 1+0x20"}, ("5m", []))
    down.case("back", {up: "0+0x4 1+0x20"}, ("2m", [fired]), ("3m", []))
    down.case("health is not asked", {f"tokenglass_build_info{{{PLACE}}}": same(1)}, ("5m", []))
    second = f'vllm_service_up{{{PLACE},upstream="http://b:8000"}}'
    fired = down.fires("critical", f"{WHICH} (http://b:8000) does not answer.", upstream="http://b:8000", **AT)
    down.case("one of two", {up.replace("}", ',upstream="http://a:8000"}'): same(1), second: same(0)}, ("2m", [fired]))

    empty = made("VllmModelNotLoaded", "vLLM answers but serves no model")
    loaded = f"vllm_model_loaded{{{PLACE}}}"
    fired = empty.fires("critical", f"{WHICH} can be reached, but is not healthy or lists no model.", **AT)
    empty.case("5 minutes", {up: same(1), loaded: same(0)}, ("4m30s", []), ("5m30s", [fired]))
    empty.case("loaded", {up: same(1), loaded: same(1)}, ("10m", []))
    empty.case("loaded after 4 minutes", {up: same(1), loaded: "0+0x7 1+0x20"}, ("10m", []))
    empty.case("down is another alert", {up: same(0), loaded: same(0)}, ("10m", []))
    empty.case("loaded late", {up: same(1), loaded: "0+0x12 1+0x20"}, ("6m", [fired]), ("8m", []))

    stalled = made("VllmEngineStalled", "vLLM's engine hangs")
    series = f"vllm_engine_stalled{{{PLACE}}}"
    text = f"{WHICH} has requests in flight and neither gives tokens nor moves its counters."
    fired = stalled.fires("critical", text, **AT)
    stalled.case("seen twice", {series: "0 1+0x20"}, ("30s", []), ("1m30s", [fired]))
    stalled.case("seen once", {series: "0 1 0+0x20"}, ("1m", []), ("3m", []))
    stalled.case("goes on", {series: "1+0x4 0+0x20"}, ("2m", [fired]), ("3m", []))
    stalled.case("works", {series: same(0)}, ("5m", []))

    slow = made("VllmHealthCheckSlow", "vLLM's health check is slow")
    family = "vllm_health_check_latency_seconds"
    # 90 of 100 within 1 s, the rest within 2.5: P95 is half way.
    late = histogram(family, PLACE, {"0.5": 0, "1": 90, "2.5": 100, "+Inf": 100})
    fired = slow.fires("warning", f"{WHICH} takes 1.75s for /health (P95).", **AT)
    slow.case("P95 of 1.75 s", late, ("5m", []), ("7m", [fired]))
    slow.case("95 of 100 within 1 s", histogram(family, PLACE, {"0.5": 0, "1": 95, "2.5": 100, "+Inf": 100}), ("10m", []))
    slow.case("not asked any more", halted(late), ("9m", [fired]), ("16m", []))
    slow.case("not asked", {up: same(0)}, ("10m", []))

    restarts = made("VllmPodRestarts", "A pod of the serving path restarts again and again")
    labels = 'namespace="ml",pod="llama-0",container="vllm"'
    counter = f"kube_pod_container_status_restarts_total{{{labels}}}"
    fired = restarts.fires(
        "critical", "vllm in ml/llama-0 restarted 4 times in 30 minutes.", namespace="ml", pod="llama-0", container="vllm"
    )
    four = "0+0x4 1+0x4 2+0x4 3+0x4 4+0x14 4+0x60"
    restarts.case("the fourth in 30 minutes", {counter: four}, ("17m", []), ("20m", [fired]), interval="1m")
    restarts.case("half an hour later", {counter: four}, ("29m", [fired]), ("51m", []), interval="1m")
    restarts.case("three", {counter: "0+0x4 1+0x4 2+0x4 3+0x40"}, ("25m", []), ("30m", []), interval="1m")
    other = {counter.replace('container="vllm"', 'container="nginx"'): four}
    restarts.case("of something else", other, ("25m", []), interval="1m")
    return down, empty, stalled, slow, restarts


def latency():
    e2e = made("VllmLatencyP99High", "Requests take very long")
    family = "vllm_request_duration_seconds"
    # 98 of 100 within 30 s, the rest within 40: P99 is half way.
    slow = histogram(family, WIRE, {"10": 0, "30": 98, "40": 100, "+Inf": 100})
    fired = e2e.fires("warning", "P99 of whole requests of llama is 35s, above 30 s.", model="llama")
    e2e.case("P99 of 35 s", slow, ("5m", []), ("6m30s", [fired]))
    e2e.case("99 of 100 within 30 s", histogram(family, WIRE, {"10": 0, "30": 99, "40": 100, "+Inf": 100}), ("20m", []))
    few = histogram(family, WIRE, {"10": 0, "30": 0, "40": 1, "+Inf": 1})
    e2e.case("a request in 30 s is too few", few, ("20m", []), interval="30s")
    engine = histogram("vllm:e2e_request_latency_seconds", VLLM, {"10.0": 0, "30.0": 98, "40.0": 100, "+Inf": 100})
    e2e.case("only vLLM's own", engine, ("6m30s", [fired]))
    ended = {key: f"{value} stale" for key, value in slow.items()}
    e2e.case("the series end", ended, ("30m", [fired]), ("37m", []))
    e2e.case("no requests any more", halted(slow), ("9m", [fired]), ("16m", []))

    ttft = made("VllmTtftP95High", "First tokens come late")
    family = "vllm_request_time_to_first_token_seconds"
    # 90 of 100 within 2.5 s, the rest within 5.
    slow = {"1": 0, "2.5": 90, "5": 100, "+Inf": 100}
    text = "P95 of the time to first token of llama is 3.75s, above 2.5 s."
    fired = ttft.fires("warning", text, model="llama")
    ttft.case("P95 of 3.75 s", histogram(family, WIRE, slow) | BUSY, ("5m", []), ("6m30s", [fired]))
    ttft.case(
        "95 of 100 within 2.5 s",
        histogram(family, WIRE, {"1": 0, "2.5": 95, "5": 100, "+Inf": 100}) | BUSY,
        ("20m", []),
    )
    ttft.case("no requests any more", halted(histogram(family, WIRE, slow) | BUSY), ("9m", [fired]), ("16m", []))
    own = histogram("vllm:time_to_first_token_seconds", VLLM, slow)
    served = {f"vllm:e2e_request_latency_seconds_count{{{VLLM}}}": grows(30)}
    ttft.case("only vLLM's own", own | served, ("6m30s", [fired]))
    fast = histogram(family, WIRE, {"1": 100, "2.5": 100, "5": 100, "+Inf": 100}) | BUSY
    ttft.case("the wire is right, not the engine", own | fast, ("6m30s", []))
    idle = {f"vllm_request_duration_seconds_count{{{WIRE}}}": grows(1)}
    ttft.case("hardly any traffic", histogram(family, WIRE, slow) | idle, ("20m", []))

    itl = made("VllmInterTokenLatencyHigh", "Tokens come slowly")
    family = "vllm_request_inter_token_latency_seconds"
    slow = {"0.1": 0, "0.2": 90, "0.3": 100, "+Inf": 100}
    fired = itl.fires("warning", "P95 of the time between tokens of llama is 250ms, above 0.2 s.", model="llama")
    itl.case("P95 of 0.25 s", histogram(family, WIRE, slow) | BUSY, ("5m", []), ("6m30s", [fired]))
    itl.case(
        "95 of 100 within 0.2 s",
        histogram(family, WIRE, {"0.1": 0, "0.2": 95, "0.3": 100, "+Inf": 100}) | BUSY,
        ("20m", []),
    )
    itl.case("no requests any more", halted(histogram(family, WIRE, slow) | BUSY), ("9m", [fired]), ("16m", []))
    for name in ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"):
        itl.case(f"only {name}", histogram(name, VLLM, slow) | served, ("6m30s", [fired]))
    itl.case("no streams", BUSY, ("20m", []))
    return e2e, ttft, itl


def capacity():
    queue = made("VllmQueueLong", "Requests queue up in vLLM")
    waiting = f"vllm:num_requests_waiting{{{VLLM}}}"
    fired = queue.fires("warning", f"11 requests wait for llama on {WHICH}.", **HERE)
    queue.case("11 for 3 minutes", {waiting: same(11)}, ("2m30s", []), ("3m30s", [fired]))
    queue.case("10 are allowed", {waiting: same(10)}, ("20m", []))
    queue.case("drained", {waiting: "11+0x8 3+0x10"}, ("4m", [fired]), ("5m", []))
    ranks = {waiting: same(6), waiting.replace('engine="0"', 'engine="1"'): same(5)}
    queue.case("the ranks of one vLLM together", ranks, ("4m", [fired]))
    apart = {waiting: same(6), waiting.replace("tg:9101", "tg2:9101"): same(6)}
    queue.case("two vLLMs apart", apart, ("10m", []))
    queue.case("an old vLLM has no engine", {waiting.replace(',engine="0"', ""): same(11)}, ("4m", [fired]))

    full = made("VllmKvCacheFull", "vLLM's KV cache is nearly full")
    usage = f"vllm:kv_cache_usage_perc{{{VLLM}}}"
    old = usage.replace("kv_cache", "gpu_cache")
    fired = full.fires("warning", f"96% of the KV cache are in use: llama on {WHICH}.", **HERE)
    full.case("96 % for 5 minutes", {usage: same(0.96)}, ("4m30s", []), ("5m30s", [fired]))
    full.case("95 % are allowed", {usage: same(0.95)}, ("20m", []))
    full.case("the old name", {old: same(0.96)}, ("5m30s", [fired]))
    full.case("both names", {old: same(0.96), usage: same(0.96)}, ("5m30s", [fired]))
    full.case("room again", {usage: "0.96+0x12 0.5+0x10"}, ("6m", [fired]), ("7m", []))
    full.case("nothing is known", {f"vllm_service_up{{{PLACE}}}": same(1)}, ("6m", []))

    soon = made("VllmKvCacheExhaustionForecast", "vLLM's KV cache will soon be full")
    text = "At the pace of the last 10 minutes the KV cache will be at {} in 5 minutes: llama on " + WHICH + "."
    # 2 % each half minute: 0.8 at 10 min, and a fifth more in 5 min.
    rising = {usage: "0.4+0.02x30"}
    fired = soon.fires("warning", text.format("112%"), **HERE)
    soon.case("rises and passes 70 %", rising, ("10m", []), ("11m30s", []), ("13m", [fired]))
    soon.case("the old name", {old: "0.4+0.02x30"}, ("13m", [fired]))
    soon.case("90 %, but steady", {usage: same(0.9)}, ("15m", []))
    soon.case("steep, but nearly empty", {usage: "0+0.04x15 0.6-0.04x10"}, ("7m", []))
    # From 0.4 on 1 % each half minute: 0.1 more in 5 min, 0.88 at most.
    soon.case("rises slowly", {usage: "0.4+0.01x38"}, ("19m", []))
    soon.case("falls again", {usage: "0.4+0.02x28 0.92-0.04x20"}, ("13m", [fired]), ("19m", []))

    preempted = made("VllmPreemptionsHigh", "vLLM preempts running requests")
    counter = f"vllm:num_preemptions_total{{{VLLM}}}"
    fired = preempted.fires("warning", f"0.2 preemptions a second: llama on {WHICH}.", **HERE)
    preempted.case("0.2 a second", {counter: grows(6)}, ("4m30s", []), ("11m", [fired]))
    preempted.case("0.1 a second is allowed", {counter: grows(3)}, ("20m", []))
    preempted.case("ends", {counter: "0+6x30 180+0x30"}, ("14m", [fired]), ("20m", []))
    preempted.case("a restart of vLLM is no storm", {counter: "500+0x10 0+0x40"}, ("8m", []), ("20m", []))
    return queue, full, soon, preempted


def alerts():
    return [*health(), *latency(), *capacity()]
