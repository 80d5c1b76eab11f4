"""Cases of the alerts on tokenglass itself."""

from base import Alert, grows, halted, histogram, same

PLACE = 'instance="tg:9101",job="tokenglass"'
AT = {"instance": "tg:9101"}


def made(name, summary):
    return Alert(name, "meta", "tokenglass-requests", summary)


def alive():
    down = made("TokenglassDown", "tokenglass is down")
    up = f"up{{{PLACE}}}"
    fired = down.fires("critical", "tg:9101 cannot be scraped.", job="tokenglass", **AT)
    down.case("for a minute", {up: "1 1 0+0x20"}, ("1m30s", []), ("2m30s", [fired]))
    down.case("one scrape fails", {up: "1 1 0 1+0x20"}, ("5m", []))
    down.case("back", {up: "0+0x4 1+0x10"}, ("2m", [fired]), ("3m", []))
    gone = down.fires("critical", "No target of tokenglass is left.", job="tokenglass")
    down.case("no target at all", {'up{job="node"}': same(1)}, ("30s", []), ("1m30s", [gone]))
    down.case("the last target goes", {up: "1 1 stale"}, ("1m30s", []), ("2m30s", [gone]))

    # All others have a target, so that this one is quiet.
    overhead = made("TokenglassOverheadHigh", "tokenglass slows requests down")
    family = "tokenglass_overhead_seconds"
    slow = histogram(family, PLACE, {"0.05": 98, "0.1": 100, "+Inf": 100})
    fired = overhead.fires("warning", "tg:9101 adds 75ms to a request (P99).", **AT)
    overhead.case("P99 of 75 ms", slow, ("10m", []), ("11m30s", [fired]))
    overhead.case("99 of 100 within 50 ms", histogram(family, PLACE, {"0.05": 99, "0.1": 100, "+Inf": 100}), ("25m", []))
    overhead.case("no requests any more", halted(slow, 25), ("12m", [fired]), ("19m", []))
    overhead.case("no requests", histogram(family, PLACE, {"0.05": 0, "0.1": 0, "+Inf": 0}), ("25m", []))

    files = made("TokenglassFileDescriptorsLow", "tokenglass runs out of file descriptors")
    opened, limit = f"process_open_fds{{{PLACE}}}", f"process_max_fds{{{PLACE}}}"
    fired = files.fires("warning", "tg:9101 has 95% of its file descriptors open.", job="tokenglass", **AT)
    files.case("95 %", {opened: same(950), limit: same(1000)}, ("4m30s", []), ("5m30s", [fired]))
    files.case("90 % are allowed", {opened: same(900), limit: same(1000)}, ("20m", []))
    files.case("closed", {opened: "950+0x12 100+0x9", limit: same(1000)}, ("6m", [fired]), ("7m", []))
    other = {opened.replace("tokenglass", "node"): same(950), limit.replace("tokenglass", "node"): same(1000)}
    files.case("of another program", other, ("10m", []))

    reload = made("TokenglassConfigReloadFailed", "A configuration could not be loaded")
    series = f'tokenglass_config_reloads_total{{{PLACE},result="failure"}}'
    fired = reload.fires("warning", "tg:9101 refused a changed configuration and keeps the old one.", **AT)
    reload.case("at once, for an hour", {series: "0+0x10 1+0x140"}, ("5m", []), ("6m", [fired]), ("60m", [fired]), ("70m", []))
    reload.case("none", {series: same(0)}, ("20m", []))
    reload.case("a good one", {series.replace("failure", "success"): "0+0x10 1+0x20"}, ("10m", []))
    return down, overhead, files, reload


def pollers():
    stale = made("TokenglassEngineMetricsStale", "vLLM's own metrics cannot be read")
    read, last = f"tokenglass_engine_up{{{PLACE}}}", f"tokenglass_engine_last_scrape_timestamp_seconds{{{PLACE}}}"
    up = f"vllm_service_up{{{PLACE}}}"
    text = "tokenglass at tg:9101 reaches vLLM, but not its /metrics: alerts on queue, KV cache and preemptions are blind."
    fired = stale.fires("warning", text, **AT)
    stale.case("failed for 2 minutes", {read: same(0), up: same(1)}, ("1m30s", []), ("2m30s", [fired]))
    stale.case("failed, and health is not asked", {read: same(0)}, ("2m30s", [fired]))
    stale.case("the reader hangs", {read: same(1), last: same(0), up: same(1)}, ("2m", []), ("3m30s", [fired]))
    stale.case("a minute old is allowed", {read: same(1), last: "0 0 0+30x30", up: same(1)}, ("14m", []))
    stale.case("vLLM is down: another alert", {read: same(0), up: same(0)}, ("10m", []))
    stale.case("read again", {read: "0+0x6 1+0x10", up: same(1)}, ("3m", [fired]), ("4m", []))
    second = {name.replace("}", ',upstream="http://b:8000"}'): value for name, value in {read: same(0), up: same(1)}.items()}
    text = text.replace("tg:9101", "tg:9101 (http://b:8000)")
    stale.case("of one of two", second, ("3m", [stale.fires("warning", text, upstream="http://b:8000", **AT)]))

    gpus = made("TokenglassGpuSnapshotStale", "GPUs are not read any more")
    success = f"tokenglass_nvml_last_success_timestamp_seconds{{{PLACE}}}"
    fired = gpus.fires("warning", "tg:9101 last read its GPUs 4m 0s ago: GPU alerts are blind.", **AT)
    gpus.case("the driver hangs", {success: same(0)}, ("3m", []), ("4m", [fired]))
    gpus.case("read all the while", {success: "0+30x60"}, ("20m", []))
    gpus.case("read again", {success: "0+0x10 330+30x20"}, ("4m", [fired]), ("6m", []))
    gpus.case("no GPUs here", {f"tokenglass_nvml_up{{{PLACE}}}": same(0)}, ("20m", []))
    return stale, gpus


def measuring():
    overflow = made("TokenglassLabelOverflow", "A label has more values than its cap")
    series = f'tokenglass_label_overflow_total{{{PLACE},label="team"}}'
    fired = overflow.fires("warning", "tg:9101 shows further values of the label team as other.", label="team", **AT)
    overflow.case("grows for half an hour", {series: grows(1, 90)}, ("30m", []), ("31m", [fired]))
    overflow.case("a burst", {series: "0+0x4 50+0x90"}, ("10m", []), ("40m", []))
    overflow.case("ends", {series: "0+1x70 70+0x50"}, ("32m", [fired]), ("55m", []))
    overflow.case("none", {series: same(0, 90)}, ("40m", []))

    panic = made("TokenglassObserverPanic", "The observer of tokenglass has panicked")
    series = f'tokenglass_observer_faults_total{{{PLACE},reason="panic"}}'
    fired = panic.fires("warning", "tg:9101 has met a bug in its own measuring; the traffic went on.", **AT)
    panic.case("once", {series: "0+0x4 1+0x60"}, ("2m", []), ("3m", [fired]), ("16m", [fired]), ("18m", []))
    panic.case("none", {series: same(0)}, ("20m", []))
    panic.case("another fault", {series.replace("panic", "unreadable"): "0+0x4 1+0x60"}, ("5m", []))

    faults = made("TokenglassObserverFaults", "Requests pass unmeasured")
    series = series.replace("panic", "unreadable")
    text = "tg:9101 could not measure 0.033 requests a second: unreadable."
    fired = faults.fires("warning", text, reason="unreadable", **AT)
    faults.case("one in 30 s for an hour", {series: grows(1, 150)}, ("60m", []), ("67m", [fired]))
    faults.case("they end", halted({series: grows(1)}, 140), ("70m", [fired]), ("90m", []))
    faults.case("one in 105 s is little", {series: grows(1, 60)}, ("90m", []), interval="105s")
    faults.case("for half an hour", {series: "0+1x60 60+0x90"}, ("30m", []), ("62m", []))
    faults.case("a panic is another alert", {series.replace("unreadable", "panic"): grows(1, 150)}, ("62m", []))
    return overflow, panic, faults


def injector():
    down = made("TokenglassInjectorDown", "The admission webhook does not answer")
    first, second = (f'up{{instance="{pod}:9101",job="tokenglass-injector"}}' for pod in "ab")
    text = "No pod of tokenglass-injector can be scraped: new pods of vLLM start without the sidecar."
    fired = down.fires("warning", text, job="tokenglass-injector")
    down.case("both for 5 minutes", {first: same(0), second: same(0)}, ("4m30s", []), ("5m30s", [fired]))
    down.case("one of two", {first: same(0), second: same(1)}, ("20m", []))
    down.case("back", {first: "0+0x12 1+0x10", second: same(0)}, ("6m", [fired]), ("7m", []))
    down.case("nobody injects here", {'up{instance="tg:9101",job="tokenglass"}': same(1)}, ("20m", []))

    certificate = made("TokenglassInjectorCertificateFailed", "The admission webhook cannot use its new certificate")
    place = 'instance="a:9101",job="tokenglass-injector"'
    series = f'tokenglass_webhook_certificate_reloads_total{{{place},result="failure"}}'
    text = "a:9101 keeps its old certificate, which will expire: pods then start without the sidecar."
    fired = certificate.fires("warning", text, instance="a:9101")
    certificate.case("at once, for an hour", {series: "0+0x10 1+0x140"}, ("5m", []), ("6m", [fired]), ("60m", [fired]), ("70m", []))
    certificate.case("none", {series: same(0)}, ("20m", []))
    certificate.case("a good one", {series.replace("failure", "success"): "0+0x10 1+0x20"}, ("10m", []))
    return down, certificate


def alerts():
    return [*alive(), *pollers(), *measuring(), *injector()]
