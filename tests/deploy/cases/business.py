"""Cases of the business alerts."""

from base import Alert, grows, halted, histogram, same

PLACE = 'instance="tg:9101",job="tokenglass"'
WIRE = PLACE + ',model="llama",endpoint="chat_completions",stream="true"'
VLLM = PLACE + ',model_name="llama",engine="0"'
SUCCESS = f"vllm_request_success_total{{{WIRE}}}"
EVERY = f"vllm_request_duration_seconds_count{{{WIRE}}}"
HERE = {"model": "llama"}


def made(name, summary):
    return Alert(name, "business", "tokenglass-requests", summary)


def error(kind):
    return f'vllm_request_error_total{{{WIRE},error_type="{kind}"}}'


def finished(reason):
    """vLLM's own count."""
    return f'vllm:request_success_total{{{VLLM},finished_reason="{reason}"}}'


def mix(good, steps=60, **bad):
    """So many requests a step."""
    failed = {error(kind): grows(by, steps) for kind, by in bad.items()}
    return {SUCCESS: grows(good, steps), EVERY: grows(good + sum(bad.values()), steps)} | failed


def success():
    alert = made("RequestsSuccessRateLow", "Many requests fail")
    fired = alert.fires("warning", "Only 94% of the requests to llama succeed, client mistakes included.", **HERE)
    alert.case("94 %", mix(94, bad_request=6), ("5m", []), ("6m30s", [fired]))
    alert.case("96 %", mix(96, bad_request=4), ("20m", []))
    alert.case("too few to tell", mix(0, bad_request=1), ("20m", []))
    alert.case("none", mix(0, bad_request=0), ("20m", []))
    everything = alert.fires("warning", "Only 0% of the requests to llama succeed, client mistakes included.", **HERE)
    alert.case("all fail", mix(0, upstream_connect=60), ("6m30s", [everything]))
    engine = {
        finished("stop"): grows(94),
        finished("error"): grows(6),
        f"vllm:e2e_request_latency_seconds_count{{{VLLM}}}": grows(100),
    }
    alert.case("only vLLM's own", engine, ("6m30s", [fired]))
    ended = {key: f"{value} stale" for key, value in mix(94, bad_request=6).items()}
    alert.case("the series end", ended, ("30m", [fired]), ("37m", []))
    return alert


BUDGETS = {"1h": ("critical", 14.4), "6h": ("critical", 6), "3d": ("warning", 1)}


def burning(alert, slo, what, budget):
    """How each of the three windows reads."""

    def fired(window, share):
        severity, factor = BUDGETS[window]
        text = f"{share} {what} in the last {window}, above {factor} times the {budget} that the objective allows."
        return alert.fires(severity, text, slo=slo, window=window, **HERE)

    return fired


def availability():
    alert = made("RequestsAvailabilityBudgetBurn", "Requests fail fast enough to use up the availability budget")
    fired = burning(alert, "availability", "of the requests to llama failed by our fault", "0.5 %")
    long = 150
    outage = mix(90, long, upstream_connect=10)
    alert.case("10 %: fast, then slow", outage, ("2m", []), ("4m", [fired("1h", "10%")]),
               ("10m", [fired("1h", "10%"), fired("6h", "10%")]))
    alert.case("10 % for an hour: a ticket too", outage, ("65m", [fired(window, "10%") for window in BUDGETS]))
    alert.case("7 % is not fast", mix(93, overloaded=7), ("10m", [fired("6h", "7%")]))
    alert.case("2 % is only a ticket", mix(98, long, engine_dead=2), ("58m", []), ("65m", [fired("3d", "2%")]))
    alert.case("0.4 % is what the objective allows", mix(249, long, internal_error=1), ("70m", []))
    mistakes = mix(50, long, bad_request=20, context_length_exceeded=10, rate_limited=10, proxy_rejected=10)
    alert.case("mistakes of clients", mistakes, ("70m", []))
    for kind in ("internal_error", "server_error", "upstream_timeout", "upstream_reset", "stream_error", "stream_truncated",
                 "stream_stalled", "proxy_error", "not_implemented"):
        alert.case(f"{kind} is our fault", mix(90, **{kind: 10}), ("4m", [fired("1h", "10%")]))
    # Ten minutes of it: the short windows are clean 5 and 35 min later, while the long ones still remember.
    over = mix(100, 110, upstream_connect=0) | {error("upstream_connect"): "0+100x20 2000+0x90"}
    alert.case("over", over, ("10m", [fired("1h", "50%"), fired("6h", "50%")]), ("50m", []))
    few = {SUCCESS: grows(0), error("upstream_connect"): grows(1)}
    alert.case("one in two minutes is too few", few, ("60m", []), interval="2m")
    engine = {finished("stop"): grows(90), finished("error"): grows(10)}
    alert.case("only vLLM's own", engine, ("4m", [fired("1h", "10%")]))
    alert.case("an old vLLM without errors", {finished("stop"): grows(90)}, ("20m", []))
    return alert


def late(name, summary, slo, what, wire, engine, edges):
    """TTFT and TPOT have the same cases."""
    below, edge, above = edges
    alert = made(name, summary)
    fired = burning(alert, slo, what, "5 %")

    def streams(family, labels, good, steps=60):
        return histogram(family, labels, {below: 0, edge: good, above: 100, "+Inf": 100}, steps)

    alert.case("80 % late: fast, then slow", streams(wire, WIRE, 20), ("2m", []), ("4m", [fired("1h", "80%")]),
               ("10m", [fired("1h", "80%"), fired("6h", "80%")]))
    alert.case("70 % late is not fast", streams(wire, WIRE, 30), ("10m", [fired("6h", "70%")]))
    alert.case("20 % late is a ticket", streams(wire, WIRE, 80, 150), ("58m", []), ("65m", [fired("3d", "20%")]))
    alert.case("4 % late is what the objective allows", streams(wire, WIRE, 96, 150), ("70m", []))
    alert.case("only vLLM's own", streams(engine, VLLM, 20), ("4m", [fired("1h", "80%")]))
    alert.case("no streams", {SUCCESS: grows(100)}, ("20m", []))
    ended = {key: f"{value} stale" for key, value in streams(wire, WIRE, 20).items()}
    alert.case("no streams any more", ended, ("29m", [fired("1h", "80%"), fired("6h", "80%")]),
               ("38m", [fired("6h", "80%")]), ("68m", [fired("3d", "80%")]))
    return alert


def budgets():
    yield availability()
    yield late(
        "RequestsTtftBudgetBurn", "First tokens come late often enough to use up the TTFT budget", "ttft",
        "of the streams of llama had no first token within 2.5 s",
        "vllm_request_time_to_first_token_seconds", "vllm:time_to_first_token_seconds", ("1.0", "2.5", "5.0"),
    )
    yield late(
        "RequestsTpotBudgetBurn", "Tokens come slowly often enough to use up the TPOT budget", "tpot",
        "of the streams of llama took more than 0.1 s a token",
        "vllm_request_time_per_output_token_seconds", "vllm:request_time_per_output_token_seconds", ("0.05", "0.1", "0.2"),
    )


UP = f"up{{{PLACE}}}"
STARTED = f"process_start_time_seconds{{{PLACE}}}"


def kinds():
    dead = made("RequestsEngineDead", "vLLM's engine has died")
    series = error("engine_dead")

    def told(count):
        return dead.fires("critical", f"{count} requests to llama were told in 5 minutes that the engine is dead.", **HERE)

    # Scraped for long, and the first request of this model fails: the series begins at 1.
    long_up = {UP: same(1), STARTED: same(-9999)}
    dead.case("a series that begins with its failure", long_up | {series: "_x20 1+0x30"}, ("9m30s", []),
              ("10m30s", [told(1)]), ("14m", [told(1)]), ("16m", []))
    fresh = {UP: "_x20 1+0x30", STARTED: "_x20 590+0x30", series: "_x20 2+0x30"}
    dead.case("so does one of a proxy that has just started", fresh, ("10m30s", [told(2)]))
    gap = {UP: "1+0x9 0+0x20 1+0x20", STARTED: "-9999+0x9 stale _x19 -9999+0x20", series: "7+0x9 stale _x19 7+0x20"}
    dead.case("what is old is not new after a gap in the scrapes", gap, ("4m", []), ("15m30s", []), ("17m", []))
    dead.case("a counter that grows", long_up | {series: "3+0x20 4+0x30"}, ("10m", []), ("10m30s", [told(1)]), ("16m", []))
    dead.case("none", long_up | {series: same(0)}, ("10m", []))
    dead.case("another failure", long_up | {error("internal_error"): "0+0x20 4+0x30"}, ("12m", []))

    cut = made("RequestsTruncated", "Answers are cut short")
    for kind in ("stream_truncated", "upstream_reset"):
        fired = cut.fires("warning", f"2 answers of llama broke off in 5 minutes ({kind}).", error_type=kind, **HERE)
        cut.case(f"{kind}, the first ones", long_up | {error(kind): "_x20 2+0x30"}, ("9m30s", []), ("11m", [fired]),
                 ("17m", []))
    cut.case("none", long_up | {error("stream_truncated"): same(0)}, ("10m", []))
    cut.case("not of late", long_up | {error("stream_truncated"): same(5)}, ("10m", []))

    streams = made("RequestsStreamErrors", "Streams fail after they have begun")

    def share(text):
        return streams.fires("warning", f"{text} of the streams of llama end in an error behind a status of 200.", **HERE)

    streams.case("2 %", mix(98, stream_error=2), ("5m", []), ("6m30s", [share("2%")]))
    streams.case("stalled ones too", mix(98, stream_error=1, stream_stalled=1), ("6m30s", [share("2%")]))
    streams.case("0.95 %", mix(9905, stream_error=95), ("20m", []))
    streams.case("too few to tell", mix(0, stream_error=1), ("20m", []))
    streams.case("they end", mix(98) | {error("stream_error"): "0+2x16 32+0x44"}, ("7m", [share("2.041%")]), ("14m", []))
    # The answers without a stream are not among those that could fail so.
    plain = {EVERY.replace('stream="true"', 'stream="false"'): grows(900)}
    streams.case("of the streams, not of all", mix(98, stream_error=2) | plain, ("6m30s", [share("2%")]))

    storm = made("RequestsContextLengthStorm", "Many prompts are too long for the model")
    fired = storm.fires("warning", "20% of the requests to llama are longer than its context.", **HERE)
    storm.case("20 %", mix(80, context_length_exceeded=20), ("5m", []), ("6m30s", [fired]))
    storm.case("9.5 %", mix(905, context_length_exceeded=95), ("20m", []))
    storm.case("too few to tell", mix(0, context_length_exceeded=1), ("20m", []))
    over = mix(80) | {EVERY: "0+100x16 1600+80x44", error("context_length_exceeded"): "0+20x16 320+0x44"}
    storm.case("over", over, ("7m", [fired]), ("14m", []))
    return dead, cut, streams, storm


def clients():
    left = made("RequestsCancelRateHigh", "Many clients leave before their answer is complete")
    phases = [f'vllm_request_cancelled_total{{{WIRE},phase="{phase}"}}' for phase in ("before_first_token", "streaming")]
    fired = left.fires("warning", "25% of the requests to llama are given up by their client.", **HERE)
    leaving = {EVERY: grows(100), phases[0]: grows(20), phases[1]: grows(5)}
    left.case("a quarter for 10 minutes", leaving, ("10m", []), ("11m30s", [fired]))
    left.case("19 %", {EVERY: grows(100), phases[0]: grows(14), phases[1]: grows(5)}, ("30m", []))
    left.case("too few to tell", {EVERY: grows(1), phases[0]: grows(1)}, ("30m", []))
    calm = {EVERY: grows(100, 80), phases[0]: "0+25x24 600+0x50"}
    left.case("they stay again", calm, ("11m30s", [fired]), ("20m", []))

    silent = made("RequestsStreamsStalled", "Open streams have fallen silent")
    series = f"vllm_streams_stalled{{{WIRE}}}"
    labels = HERE | {"instance": "tg:9101"}
    fired = silent.fires("warning", "3 streams of llama through tg:9101 are open and silent.", **labels)
    silent.case("for a minute", {series: "0 3+0x20"}, ("1m", []), ("2m", [fired]))
    silent.case("none", {series: same(0)}, ("10m", []))
    silent.case("a long prefill", {series: "0 1 0 1 0 1 0 1 0"}, ("4m", []))
    silent.case("they go on", {series: "3+0x6 0+0x20"}, ("3m", [fired]), ("4m", []))

    length = made("RequestsLengthLimited", "Most answers end at their length limit")

    def finish(reason):
        return f'vllm_request_finish_total{{{WIRE},finish_reason="{reason}"}}'

    text = "{} of the answers of llama are cut off at max_tokens or the end of the context."
    fired = length.fires("warning", text.format("60%"), **HERE)
    length.case("60 % for half an hour", {finish("length"): grows(60, 80), finish("stop"): grows(40, 80)},
                ("30m", []), ("32m", [fired]))
    length.case("49 %", {finish("length"): grows(49, 80), finish("stop"): grows(51, 80)}, ("40m", []))
    length.case("too few to tell", {finish("length"): grows(1, 80)}, ("40m", []))
    changed = {finish("length"): "0+60x66 3960+0x40", finish("stop"): "0+40x110"}
    length.case("the limit is raised", changed, ("32m", [fired]), ("40m", []))

    books = made("RequestsUnaccountedTokens", "vLLM generates tokens that do not pass tokenglass")
    missing = f'vllm_unaccounted_tokens_total{{{PLACE},direction="output"}}'
    made_tokens = f"vllm:generation_tokens_total{{{VLLM}}}"
    text = "of the tokens of vLLM behind tg:9101{} were not seen on the wire."
    fired = books.fires("warning", "10% " + text.format(""), instance="tg:9101")
    books.case("a tenth passes by", {missing: grows(100, 80), made_tokens: grows(1000, 80)}, ("15m", []), ("17m", [fired]))
    passing = halted({missing: grows(100)}, 40) | {made_tokens: grows(1000, 110)}
    books.case("nobody goes around any more", passing, ("17m", [fired]), ("36m", []))
    books.case("0.95 %", {missing: grows(95, 80), made_tokens: grows(10000, 80)}, ("30m", []))
    books.case("prompts alone", {missing.replace("output", "input"): grows(100), made_tokens: grows(1000)}, ("25m", []))
    books.case("an idle vLLM", {missing: same(5), made_tokens: same(100)}, ("25m", []))
    one = {missing.replace("}", ',upstream="http://b:8000"}'): grows(100), made_tokens.replace("}", ',upstream="http://b:8000"}'): grows(1000),
           made_tokens.replace("}", ',upstream="http://a:8000"}'): grows(1000)}
    fired = books.fires("warning", "10% " + text.format(" (http://b:8000)"), instance="tg:9101", upstream="http://b:8000")
    books.case("of one of two", one, ("17m", [fired]))
    return left, silent, length, books


def alerts():
    return [success(), *budgets(), *kinds(), *clients()]
